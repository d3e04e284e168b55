"""The solver comparison: all solvers agree on both formulations, profiles are distribution functions, runs resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from toolkit.runs.provenance import read_provenance
from toolkit.solvers.registry import SOLVERS

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
ARGUMENTS = ["--count", "1", "--networks", "digits-dual"]


@pytest.fixture(autouse=True)
def _experiments_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One digits network, one sample, two ε, every solver that is here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXPERIMENTS))
        import milp_comparison

        out = tmp_path_factory.mktemp("comparison")
        milp_comparison.main(["--out", str(out), *ARGUMENTS])
    return out


@pytest.fixture
def rows(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "rows.csv")


def test_solvers_and_formulations_agree(rows: pd.DataFrame) -> None:
    from milp_comparison import GAP

    usable = {name for name, solver in SOLVERS.items() if solver.status().usable}
    assert set(rows["solver"]) == {"bab", *usable}
    assert (rows["status"] == "optimal").all()
    margin = ["network", "eps", "sample", "chain", "target", "model"]
    spread = rows.groupby(margin)["bound"].agg(lambda bounds: bounds.max() - bounds.min()).unstack("model")
    assert (spread["LP"] <= 1e-6).all()
    assert (spread["MILP"].dropna() <= 1.1 * GAP).all()
    best = rows.groupby(margin)["bound"].max().unstack("model").dropna()
    assert (best["LP"] <= best["MILP"] + GAP).all()
    assert (rows["bound"] <= rows.groupby(margin)["upper"].transform("min") + 0.1 * GAP).all()
    assert set(rows.loc[rows["solver"] == "bab", "trust"]) == {"certified"}


def test_the_full_formulation_has_every_neuron(rows: pd.DataFrame) -> None:
    sizes = rows.groupby("formulation")[["variables", "constraints", "unstable"]].first()
    neurons, unstable = 64, sizes.loc["full", "unstable"]
    assert sizes.loc["full", "variables"] == 64 + 3 * neurons
    assert sizes.loc["full", "constraints"] == neurons + 2 * unstable
    assert sizes.loc["compact", "variables"] == 64 + 3 * unstable
    assert sizes.loc["compact", "constraints"] == 3 * unstable


def test_tables_figure_and_provenance_are_written(folder: Path, rows: pd.DataFrame) -> None:
    table = pd.read_csv(folder / "table.csv")
    assert table["margins"].sum() == len(rows)
    assert (table["solved"] == table["margins"]).all()
    highs = table[(table["solver"] == "highs") & (table["formulation"] == "compact")]
    np.testing.assert_allclose(highs["ratio"], 1.0)
    text = (folder / "table.md").read_text(encoding="utf-8")
    assert sum(line.startswith("| zoo |") for line in text.splitlines()) == len(table)
    assert "Seen. " in text
    assert (folder / "profile.png").read_bytes().startswith(b"\x89PNG")
    (run,) = read_provenance(folder)
    assert run["details"]["gap"] == 1e-4


def test_a_stopped_comparison_goes_on(folder: Path, tmp_path: Path, rows: pd.DataFrame) -> None:
    import milp_comparison

    lost = (rows["solver"] == "bab") & (rows["eps"] == rows["eps"].max())
    rows[~lost].to_csv(tmp_path / "rows.csv", index=False)
    milp_comparison.main(["--out", str(tmp_path), *ARGUMENTS])
    again = pd.read_csv(tmp_path / "rows.csv")
    assert len(again) == len(rows)
    kept = again.iloc[: int((~lost).sum())]
    np.testing.assert_array_equal(kept["cpu_seconds"], rows.loc[~lost, "cpu_seconds"])  # nothing was measured twice
    assert set(again.iloc[len(kept) :]["solver"]) == {"bab"}


def test_only_margins_stopped_early_are_measured_again(tmp_path: Path, rows: pd.DataFrame) -> None:
    import milp_comparison

    file = tmp_path / "rows.csv"
    session = (rows["solver"] == "highs") & (rows["model"] == "MILP") & (rows["formulation"] == "full")
    early, late = rows[session].index[0], rows[rows["solver"] == "bab"].index[0]
    rows.loc[early, ["status", "cpu_seconds"]] = ["time_limit", 4.0]
    rows.loc[late, ["status", "cpu_seconds"]] = ["time_limit", 19.0]
    rows.to_csv(file, index=False)
    milp_comparison.forget_stopped(file, 15.0)
    kept = milp_comparison.read_rows(file)
    gone = session & (rows["eps"] == rows.loc[early, "eps"])
    assert len(kept) == len(rows) - int(gone.sum())
    assert (kept["status"] == "time_limit").sum() == 1


def test_a_refused_model_is_a_licence_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    import milp_comparison as comparison
    from milp_comparison_report import profile, solved_seconds

    from toolkit.solvers.session import Solver

    monkeypatch.setattr(Solver, "refusal", lambda self, model: "too large" if self.name == "gurobi" else "")
    case = comparison.CASES[2]
    [question] = comparison.questions(case, case.eps[0], 1)
    problem, _ = question.problem("dual")
    found = comparison.measure(comparison.Templates(problem), comparison.MILP, "full", "gurobi", 1)
    assert [row["status"] for row in found] == ["licence"]
    assert "too large" in found[0]["message"]
    frame = pd.DataFrame([{"network": "n", "eps": 0.1, "sample": 0, "chain": "dual"} | row for row in found])
    frame["cpu_seconds"] = np.nan
    [(_, share)] = profile(solved_seconds(frame, "MILP")).values()
    assert share[-1] == 0


times = st.one_of(st.none(), st.floats(1e-4, 1e3))


@given(st.lists(st.tuples(times, times, times), min_size=1, max_size=20))
def test_profiles_are_distribution_functions_of_ratios(instances: list[tuple[float | None, ...]]) -> None:
    from milp_comparison_report import profile

    seconds = pd.DataFrame(instances, columns=["a", "b", "c"], dtype=float)
    best = seconds.min(axis=1)
    profiles = profile(seconds)
    for name, (tau, share) in profiles.items():
        assert tau[0] == 1.0
        assert np.all(np.diff(tau) > 0)
        assert np.all(np.diff(share) >= 0)
        assert np.all((share >= 0) & (share <= 1))
        assert share[-1] == pytest.approx(seconds[name].notna().mean())  # ends at the solved share
        for at, part in zip(tau, share, strict=True):
            assert part == pytest.approx((seconds[name] / best <= at).sum() / len(seconds))
    winners = sum(share[0] for _, share in profiles.values())
    assert winners >= best.notna().mean() - 1e-12  # somebody is the fastest on every solved instance


def test_the_figure_has_a_panel_per_model(rows: pd.DataFrame) -> None:
    from milp_comparison_report import draw_profiles

    figure: Figure = draw_profiles(rows)
    count = len(rows[["eps", "sample", "target"]][rows["model"] == "LP"].drop_duplicates())
    assert figure.axes[0].get_title() == f"LP ({count} margins)"
    for panel in figure.axes:
        assert all(np.asarray(line.get_ydata(), dtype=float)[-1] == 1.0 for line in panel.lines)


def test_tighter_bounds_close_the_gap(tmp_path: Path) -> None:
    import milp_comparison as comparison
    from milp_comparison_bounds import compare_chains, draw_bounds

    comparison.main(["--out", str(tmp_path), "--count", "1", "--networks", "digits-adversarial", "--solvers", "bab",
                     "highs"])  # fmt: skip
    rows = comparison.read_rows(tmp_path / "rows.csv")
    table = compare_chains(rows, tuple(comparison.CHAINS))
    assert list(table["chain"]) == list(comparison.CHAINS)
    assert np.all(np.diff(table["unstable"]) <= 0)
    assert np.all(np.diff(table["gap"]) <= 1e-4)  # every chain is at least as tight as the one before
    assert np.all(table["gap"] >= -comparison.GAP)
    assert np.all(np.diff(table["maybe"]) <= 0)
    exact = rows[(rows["model"] == "MILP") & (rows["status"] == "optimal")].groupby(["eps", "sample", "target"])[
        "bound"
    ]
    assert np.all(exact.max() - exact.min() <= 1.1 * comparison.GAP)  # m* depends on no chain
    assert len(draw_bounds(table, tuple(comparison.CHAINS)).axes) == 4
    assert "| tree |" in (tmp_path / "bounds.md").read_text(encoding="utf-8")
