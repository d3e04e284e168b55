"""The ratio and the distribution of gaps: their mathematics, their figures, and the experiment at smoke size."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.report import check_order, gap_distribution, ratio_curve, write_report
from toolkit.report.distribution import gap_steps
from toolkit.report.tables import margin_gaps
from toolkit.runs.sweep.run import run_sweep
from toolkit.runs.sweep.spec import SweepSpec

SPEC = Path(__file__).parents[2] / "experiments" / "tightness.toml"
LOWER = ["interval", "lipschitz", "dual", "crown", "alpha", "lp", "ideal"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The experiment with one sample, two radii and two of its networks, all its rungs."""
    content = tomllib.loads(SPEC.read_text(encoding="utf-8"))
    content |= {"samples": 1, "eps": [0.02, 0.06], "networks": [content["networks"][0], content["networks"][2]]}
    return run_sweep(SweepSpec.model_validate(content), tmp_path_factory.mktemp("tightness"), workers=1)


def test_every_margin_keeps_the_order_and_ratios_are_shares(rows: pd.DataFrame) -> None:
    assert set(rows["rung"]) == {*LOWER, "exact", "fgsm", "pgd"}
    check_order(rows)
    gaps = margin_gaps(rows)
    assert gaps["closed"].all()
    lower = gaps[gaps["side"] == "lower"]
    assert lower["tightness"].between(0, 1).all()
    assert (lower["gap"] >= -1e-6).all()
    table = gaps.assign(rung=gaps["rung"].astype(str)).pivot_table(
        index=["network", "eps", "target"], columns="rung", values="tightness"
    )
    for weak, strong in (("dual", "alpha"), ("crown", "alpha"), ("alpha", "lp"), ("lp", "ideal")):
        assert (table[weak] <= table[strong] + 1e-4).all()
    np.testing.assert_allclose(table["alpha"], table["lp"], atol=1e-2)  # strong duality
    np.testing.assert_allclose(table["exact"], 1.0, atol=1e-3)


def test_ratio_curves_are_the_means_they_claim(rows: pd.DataFrame) -> None:
    gaps = margin_gaps(rows)
    panels = ratio_curve(rows).axes
    assert [panel.get_title() for panel in panels] == ["digits-dual (1 sample)", "digits-standard (1 sample)"]
    for panel, (_, part) in zip(panels, gaps.groupby("network"), strict=True):
        drawn = {str(line.get_label()): line for line in panel.lines}
        assert set(drawn) == {*LOWER, "exact = 1", "quartiles"} - {"lp"} | {"LP"}
        expected = part[part["rung"] == "lp"].groupby("eps")["tightness"].mean()
        np.testing.assert_allclose(drawn["LP"].get_xdata(), expected.index)
        np.testing.assert_allclose(drawn["LP"].get_ydata(), expected)


def test_distribution_curves_rise_from_the_share_at_zero_to_one(rows: pd.DataFrame) -> None:
    panels = gap_distribution(rows).axes
    assert [panel.get_title() for panel in panels] == [
        "digits-dual (1 sample), ε = 0.06", "digits-standard (1 sample), ε = 0.06",
    ]  # fmt: skip
    for panel in panels:
        assert len(panel.lines) == len(LOWER)
        shares = {str(line.get_label()): np.asarray(line.get_ydata(), dtype=float) for line in panel.lines}
        for line in panel.lines:
            assert np.all(np.diff(np.asarray(line.get_xdata(), dtype=float)) >= 0)
        for share in shares.values():
            assert np.all(np.diff(share) >= 0)
            assert 0 <= share[0] <= share[-1] == 1.0
        assert panel.get_xlim()[0] == 0.0
    tight, loose = (
        next(line for line in panels[1].lines if line.get_label() == name) for name in ("ideal", "interval")
    )
    at = np.linspace(0, 20, 50)
    assert np.all(steps_at(tight, at) >= steps_at(loose, at))


def steps_at(line: object, at: np.ndarray) -> np.ndarray:
    """Values of a drawn step curve."""
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())  # type: ignore[attr-defined]
    return y[np.searchsorted(x, at, side="right") - 1]


@given(st.lists(st.one_of(st.none(), st.floats(-1e-9, 1e3)), min_size=1, max_size=30), st.floats(0, 1))
def test_gap_steps_count_margins(values: list[float | None], least: float) -> None:
    frame = pd.DataFrame({"gap": np.array([np.nan if value is None else value for value in values])})
    x, share = gap_steps(frame, least)
    assert x[0] == 0.0
    assert np.all(np.diff(x) > 0)
    assert np.all(np.diff(share) >= 0)
    assert np.all((share >= 0) & (share <= 1))
    bounded = [value for value in values if value is not None]
    assert share[-1] == pytest.approx(len(bounded) / len(values))
    for g, part in zip(x, share, strict=True):
        assert part == pytest.approx(sum(value <= max(g, least) for value in bounded) / len(values))


def test_a_failed_bound_keeps_its_rung_below_one(rows: pd.DataFrame) -> None:
    broken = rows.copy()
    chosen = broken.index[(broken["rung"] == "dual") & (broken["eps"] == 0.06)][0]
    broken.loc[chosen, ["lower", "status"]] = [-np.inf, "failed"]
    network = broken.loc[chosen, "network"]
    [panel] = [panel for panel in gap_distribution(broken).axes if panel.get_title().startswith(network)]
    ends = {line.get_label(): float(np.asarray(line.get_ydata())[-1]) for line in panel.lines}
    assert ends.pop("dual") == pytest.approx(8 / 9)
    assert set(ends.values()) == {1.0}


def test_a_report_without_exact_rows_lacks_the_gap_figures(rows: pd.DataFrame, tmp_path: Path) -> None:
    few = rows[rows["rung"].isin(["dual", "lp"]) & (rows["network"] == "digits-dual")]
    names = {path.name for path in write_report(few, tmp_path, formats=["svg"])}
    assert "tightness.svg" in names
    assert not {"ratio.svg", "gap_distribution.svg"} & names


def test_a_network_without_exact_rows_says_so(rows: pd.DataFrame) -> None:
    other = rows[rows["rung"] != "exact"].assign(network="open", network_digest="d")
    for draw in (ratio_curve, gap_distribution):
        said = [text.get_text() for panel in draw(pd.concat([rows, other])).axes for text in panel.texts]
        assert said == ["no exact rung ran: gaps unknown"]
