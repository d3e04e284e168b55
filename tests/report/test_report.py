"""Tables, the order check and figures, on rows made by hand and rows of real rungs."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import random_dense_network
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from toolkit import LinfBall, plot_tightness
from toolkit.report import (
    certified_curve,
    check_order,
    gap_against_unstable,
    gap_table,
    latex_table,
    margin_table,
    markdown_table,
    terminal_table,
    tightness_curve,
    time_per_rung,
    write_report,
)
from toolkit.report.order import REQUIRED_COLUMNS, rung_sides
from toolkit.report.tables import margin_gaps
from toolkit.rungs import RUNGS, get_rung
from toolkit.runs.rows import ROW_COLUMNS
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem

PNG = b"\x89PNG\r\n\x1a\n"


def row(rung: str, lower: float, upper: float = np.inf, **changes: object) -> dict[str, object]:
    """One row of a sweep: clean margin 4, everything else fixed unless changed; its bounds are certified."""
    values: dict[str, object] = {
        "network": "net", "network_digest": "d1", "dataset": "digits", "sample": 0, "label": 1, "target": 0,
        "norm": "linf", "eps": 0.1, "domain": "[0, 1]", "layer_bounds": "interval+dual", "rung": rung, "lower": lower,
        "upper": upper, "status": "computed", "seconds": 0.5, "build_seconds": 0.0, "bounds_seconds": 0.2,
        "solver": "", "solver_version": "", "nodes": 0, "unstable": 7, "active": 2, "inactive": 3,
        "clean_margin": 4.0, "message": "", "key": "k", "run_id": "r",
    }  # fmt: skip
    values |= changes
    certified = {"certified_lower": lower, "certified_upper": min(upper, float(values["clean_margin"]))}
    return certified | values


def frame(*rows: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


@pytest.mark.parametrize("others", [(), (row("dual", 1.0, network="other", network_digest="d2"),)])
def test_a_sweep_without_finite_bounds_has_its_table_and_figures(
    others: tuple[dict[str, object]], tmp_path: Path
) -> None:
    rows = frame(row("dual", -np.inf), row("pgd", -np.inf, 4.0) | {"upper": np.inf}, *others)
    written = write_report(rows, tmp_path)
    assert {"table.csv", "tightness.png", "certified.png", "time.png"} <= {path.name for path in written}
    assert list(pd.read_csv(tmp_path / "table.csv")["failed"])[:2] == [1, 1]
    texts = [text.get_text() for panel in tightness_curve(rows).axes for text in panel.texts]
    assert "no bound is finite" in texts


def test_radii_that_fit_on_no_axis_leave_their_figures_out(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"figures against ε are left out: ε = 1e\+308 fits on no axis"):
        written = write_report(frame(row("dual", -np.inf, eps=1e308)), tmp_path)
    names = {path.name for path in written}
    assert names >= {"table.csv", "time.png"}
    assert not names & {"tightness.png", "certified.png"}


@pytest.mark.parametrize("name", ["lower", "upper", "eps", "seconds", "unstable"])
def test_columns_of_texts_are_named(name: str, tmp_path: Path) -> None:
    rows = frame(row("dual", 1.0)).assign(**{name: "a"})
    for report in (gap_table, margin_table, check_order, plot_tightness, lambda rows: write_report(rows, tmp_path)):
        with pytest.raises(ValueError, match=f"column '{name}' must hold numbers, got 'a'"):
            report(rows)
    assert not list(tmp_path.iterdir())


TWO_TARGETS = frame(
    row("dual", -1.0), row("lp", 1.0, 3.0), row("exact", 2.0, 2.0),
    row("dual", 0.5, target=2), row("lp", 0.5, target=2), row("exact", 1.0, 1.0, target=2),
)  # fmt: skip


@pytest.fixture(scope="module")
def real_rows() -> pd.DataFrame:
    """Rows of interval, dual, LP and MILP on a random network: 2 samples, 2 ε, all targets."""
    network = random_dense_network(np.random.default_rng(1), (4, 8, 8, 3), "random")
    rows = []
    for sample, eps in ((0, 0.1), (0, 0.3), (1, 0.1), (1, 0.3)):
        center = np.random.default_rng(sample).uniform(0.3, 0.7, 4)
        ball, label = LinfBall(center, eps), int(network.predict(center))
        bounds = layer_bounds(network, ball)
        problem = margin_problem(network, ball, label, bounds)
        clean = dict(zip(problem.targets, problem.replay(center)[0], strict=True))
        shared = {"network": "random", "sample": sample, "eps": eps, "label": label}
        shared["unstable"] = sum(counts[0] for counts in bounds.counts())
        for name in ("interval", "dual", "lp", "exact"):
            for bound in get_rung(name)(problem):
                own = {"target": bound.target, "status": str(bound.status), "seconds": bound.seconds}
                own |= {"certified_lower": bound.certified_lower, "clean_margin": clean[bound.target]}
                rows += [row(name, bound.lower, bound.upper, **shared, **own)]
    return frame(*rows)


def of_rung(table: pd.DataFrame, rung: str) -> pd.Series:
    [found] = [line for _, line in table.iterrows() if line["rung"] == rung]
    return found


def test_gap_table_follows_its_formulas() -> None:
    table = gap_table(TWO_TARGETS)
    assert list(table["rung"]) == ["dual", "lp", "exact"]
    dual, lp, exact = (of_rung(table, name) for name in ("dual", "lp", "exact"))
    assert dual["lower_mean"] == pytest.approx((-1.0 + 0.5) / 2)
    assert dual["gap_mean"] == pytest.approx(((2 - -1) + (1 - 0.5)) / 2)
    assert dual["tightness_mean"] == pytest.approx(((4 - 2) / (4 - -1) + (4 - 1) / (4 - 0.5)) / 2)
    assert lp["gap_median"] == pytest.approx(((2 - 1) + (1 - 0.5)) / 2)
    assert (exact["gap_mean"], exact["tightness_mean"], exact["open"]) == (0.0, 1.0, 0)
    assert (dual["certified"], lp["certified"], exact["certified"]) == (0.0, 1.0, 1.0)
    assert (lp["samples"], lp["margins"], lp["failed"]) == (1, 2, 0)
    assert (lp["seconds_mean"], lp["bounds_seconds_mean"], lp["unstable_mean"]) == (0.5, 0.2, 7)


def test_certified_needs_every_target_any_rung_was_asked_about() -> None:
    rows = pd.concat([TWO_TARGETS, frame(row("crown", 0.9))])
    assert of_rung(gap_table(rows), "crown")["certified"] == 0.0


def test_decided_counts_witnesses_and_misclassified_centres() -> None:
    refuted = frame(row("lp", -1.0, -0.5), row("dual", -2.0))
    table = gap_table(refuted)
    assert (of_rung(table, "lp")["decided"], of_rung(table, "dual")["decided"]) == (1.0, 0.0)
    wrong = gap_table(frame(row("dual", -2.0, clean_margin=-0.1)))
    assert (of_rung(wrong, "dual")["decided"], of_rung(wrong, "dual")["certified"]) == (1.0, 0.0)


def test_open_interval_of_the_exact_margin_gives_an_interval_of_the_gap() -> None:
    rows = frame(row("dual", 0.0), row("exact", 1.0, 3.0, status="time_limit"))
    dual = of_rung(gap_table(rows), "dual")
    assert (dual["gap_least_mean"], dual["gap_mean"], dual["open"]) == (1.0, 3.0, 1)
    assert dual["tightness_mean"] == pytest.approx((4 - 3) / (4 - 0))
    assert "1.000 … 3.000" in markdown_table(gap_table(rows))
    [line] = margin_table(rows).to_dict("records")
    assert (line["m_low"], line["m_high"], line["closed"]) == (1.0, 3.0, False)


def test_clean_margin_closes_an_exact_row_that_found_no_point() -> None:
    [line] = margin_table(frame(row("dual", 0.0), row("exact", -np.inf, status="failed"))).to_dict("records")
    assert (line["m_low"], line["m_high"]) == (0.0, 4.0)


def test_no_gap_is_claimed_without_an_exact_rung() -> None:
    rows = frame(row("dual", 0.0), row("pgd", -np.inf, 2.0))
    table = gap_table(rows)
    assert np.isnan(of_rung(table, "dual")["gap_mean"])
    assert np.isnan(of_rung(table, "dual")["tightness_mean"])
    assert of_rung(table, "pgd")["upper_mean"] == 2.0
    assert np.isnan(margin_table(rows)["m_high"]).all()


def test_failed_rows_are_counted_and_certify_nothing() -> None:
    rows = frame(row("lp", np.nan, status="failed"), row("lp", 1.0, target=2), row("exact", 2.0, 2.0))
    lp = of_rung(gap_table(rows), "lp")
    assert (lp["failed"], lp["lower_mean"], lp["certified"]) == (1, 1.0, 0.0)
    check_order(rows)


def test_margin_table_puts_rungs_in_order() -> None:
    rows = frame(row("pgd", -np.inf, 3.0), row("exact", 2.0, 2.0), row("lp", 1.0), row("mine", 0.5), row("dual", 0.0))
    columns = list(margin_table(rows).columns)
    start = columns.index("clean")
    assert columns[start : start + 6] == ["clean", "dual", "lp", "mine", "exact", "pgd"]
    [line] = margin_table(rows).to_dict("records")
    assert (line["gap_dual"], line["gap_lp"], line["pgd"]) == (2.0, 1.0, 3.0)
    assert rung_sides(rows)["mine"] == "lower"


def test_rungs_stand_as_they_declare_and_unknown_ones_behind() -> None:
    """Every rung at once, from the back: lower ones weak to strong, exact ones with a solver's word last, attacks."""
    rows = frame(*(row(name, -np.inf if name in ("fgsm", "pgd", "attack") else 0.0) for name in ("attack", "b", "a")))
    rows = pd.concat([rows, frame(*(row(name, 0.0) for name in reversed(RUNGS)))])
    lower = ["interval", "lipschitz", "dual", "crown", "alpha", "lp", "ideal", "a", "b"]
    expected = dict.fromkeys(lower, "lower") | {"bab": "exact", "exact": "exact"}
    expected |= dict.fromkeys(["fgsm", "pgd", "attack"], "upper")
    assert list(rung_sides(rows).items()) == list(expected.items())


def test_best_of_repeated_rows_counts() -> None:
    rows = frame(row("exact", 1.0, 3.0), row("exact", 1.5, 2.0, solver="highs"), row("dual", 0.0))
    [line] = margin_table(rows).to_dict("records")
    assert (line["m_low"], line["m_high"]) == (1.5, 2.0)


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (frame(row("dual", 2.5), row("exact", 2.0, 2.0)), "dual lower 2.5 > exact upper 2"),
        (frame(row("dual", 1.5), row("lp", 1.0)), "dual lower 1.5 > lp lower 1"),
        (frame(row("lp", 1.5), row("ideal", 1.0)), "lp lower 1.5 > ideal lower 1"),
        (frame(row("interval", 1.5), row("lp", 1.0)), "interval lower 1.5 > lp lower 1"),
        (frame(row("interval", 1.5), row("ideal", 1.0)), "interval lower 1.5 > ideal lower 1"),
        (frame(row("dual", 1.5), row("alpha", 1.0)), "dual lower 1.5 > alpha lower 1"),
        (frame(row("crown", 1.5), row("alpha", 1.0)), "crown lower 1.5 > alpha lower 1"),
        (frame(row("lipschitz", 2.5), row("exact", 1.9, 2.0)), "lipschitz lower 2.5 > exact upper 2"),
        (frame(row("exact", 2.0, 2.1), row("pgd", -np.inf, 1.0)), "exact lower 2 > pgd upper 1"),
        (frame(row("dual", 4.1)), "dual lower 4.1 > clean upper 4"),
        (frame(row("dual", 2.5, layer_bounds="interval"), row("exact", 2.0, 2.0)), "dual lower 2.5 > exact upper 2"),
    ],
)
def test_order_violations_are_named(rows: pd.DataFrame, named: str) -> None:
    with pytest.raises(ValueError, match="break the order") as error:
        check_order(rows)
    assert named in str(error.value)
    assert "net digits sample 0 target 0 eps 0.1 [interval" in str(error.value)


@pytest.mark.parametrize(
    "rows",
    [
        TWO_TARGETS,
        frame(row("dual", 1.5), row("lp", 1.0, layer_bounds="interval")),  # other l,u
        frame(row("dual", 1.5), row("lp", 1.0, status="time_limit")),  # an LP stopped on its way
        frame(row("dual", 1.5), row("lp", 1.0, target=2)),
        frame(row("dual", 1.5), row("lp", 1.0, sample=1)),
        frame(row("dual", 1.5), row("lp", 1.0, eps=0.2)),
        frame(row("dual", 1.5), row("lp", 1.0, network_digest="d2")),
        frame(row("interval", 1.5, layer_bounds="interval+exact"), row("lp", 1.0, layer_bounds="interval+exact")),
        frame(row("interval", 1.5, layer_bounds="interval+ideal"), row("ideal", 1.0, layer_bounds="interval+ideal")),
        frame(row("dual", 1.5), row("alpha", 1.0, status="decided")),  # an ascent that stopped early
        frame(row("mine", 1.5), row("lp", 1.0)),  # nothing is known of it
        frame(row("crown", 1.5), row("dual", 1.0)),  # neither is the stronger one
        frame(row("dual", 2.0 + 1e-7, certified_lower=1.9), row("exact", 2.0, 2.0)),  # within tolerance
        frame(row("dual", np.nan), row("lp", 1.0)),
    ],
)
def test_rows_that_do_not_contradict_each_other_pass(rows: pd.DataFrame) -> None:
    check_order(rows)


@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e9])
def test_tolerance_is_relative_to_the_margins(unit: float) -> None:
    """0.02 above the exact margin of 2, with a clean margin of 4: 0.005 of the largest, in any unit of the logits."""
    dual = row("dual", 2.02 * unit, clean_margin=4.0 * unit, certified_lower=1.9 * unit)
    rows = frame(dual, row("exact", 2.0 * unit, 2.0 * unit, clean_margin=4.0 * unit))
    check_order(rows, tolerance=0.0051)
    with pytest.raises(ValueError, match=r"beyond 0\.0049"):
        check_order(rows, tolerance=0.0049)
    with pytest.raises(ValueError, match="tolerance must be"):
        check_order(rows, tolerance=-1.0)


def test_certified_bounds_get_no_tolerance() -> None:
    """Two certified numbers that contradict each other by one unit in the last place cannot both be right."""
    above = float(np.nextafter(2.0, 3.0))
    rows = frame(row("dual", above), row("exact", 2.0, 2.0))
    with pytest.raises(ValueError, match=r"dual certified lower 2\.0000000000000004 > certified upper 2\.0"):
        check_order(rows)
    check_order(frame(row("dual", 2.0), row("exact", 2.0, 2.0)))


def test_shares_count_what_is_certified_alone() -> None:
    """A solver's word, and a point that rounding can explain, decide nothing."""
    word = frame(row("exact", 1.0, 2.0, certified_lower=-0.5), row("pgd", -np.inf, 1.0))
    assert of_rung(gap_table(word), "exact")["certified"] == 0.0
    tie = frame(row("exact", -1e-17, 0.0, certified_upper=1e-18))
    assert (of_rung(gap_table(tie), "exact")["decided"], of_rung(gap_table(tie), "exact")["certified"]) == (0.0, 0.0)


def test_many_violations_are_counted_and_some_named() -> None:
    rows = frame(*(row("dual", 5.0, target=t) for t in range(2, 10)))
    with pytest.raises(ValueError, match=r"^8 bounds break .* and 3 more$"):
        check_order(rows)


def test_bad_frames_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lack the columns upper, clean_margin"):
        gap_table(TWO_TARGETS.drop(columns=["upper", "clean_margin"]))
    for use in (gap_table, margin_table, check_order):
        with pytest.raises(ValueError, match="no rows"):
            use(TWO_TARGETS.iloc[:0])
    with pytest.raises(ValueError, match="formats must be among png, svg, pdf, got 'bmp'"):
        write_report(TWO_TARGETS, tmp_path / "none", formats=["bmp"])
    with pytest.raises(ValueError, match="break the order"):
        write_report(frame(row("dual", 5.0)), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_every_needed_column_is_one_a_sweep_writes() -> None:
    assert set(REQUIRED_COLUMNS) <= set(ROW_COLUMNS)


bounds = st.floats(-50, 50)


@settings(max_examples=6)
@given(st.lists(st.tuples(bounds, bounds, bounds, bounds, bounds), min_size=1, max_size=25))
def test_tightness_is_a_share_whenever_the_order_holds(cells: list[tuple[float, ...]]) -> None:
    rows = []
    for target, values in enumerate(cells, start=2):
        dual, relaxed, low, high, clean = sorted(values)
        known = {"target": target, "clean_margin": clean}
        rows += [row("dual", dual, **known), row("lp", relaxed, **known), row("exact", low, high, **known)]
    check_order(frame(*rows))
    gaps = margin_gaps(frame(*rows))
    assert gaps["tightness"].between(0, 1).all()
    assert (gaps["gap_least"] >= 0).all()
    assert (gaps["gap"] >= gaps["gap_least"] - 1e-9).all()
    by_rung = gaps.assign(rung=gaps["rung"].astype(str)).pivot_table(index="target", columns="rung", values="tightness")
    assert (by_rung["dual"] <= by_rung["lp"] + 1e-12).all()


def test_rows_of_real_rungs_pass_and_tighten_in_order(real_rows: pd.DataFrame) -> None:
    check_order(real_rows)
    table = gap_table(real_rows).set_index("eps")
    for _, part in table.groupby("eps"):
        tightness = part.set_index("rung")["tightness_mean"]
        assert (
            tightness["interval"]
            <= tightness["dual"]
            <= tightness["lp"]
            <= tightness["exact"]
            == pytest.approx(1, abs=1e-3)
        )


def test_report_writes_tables_and_figures(real_rows: pd.DataFrame, tmp_path: Path) -> None:
    written = write_report(real_rows, tmp_path / "report")
    names = {path.name for path in written}
    figures = {
        f"{name}.png" for name in ("tightness", "certified", "gap_unstable", "time", "ratio", "gap_distribution")
    }
    assert names == {"table.csv", "table.md", "table.tex", "margins.csv"} | figures
    for path in written:
        content = path.read_bytes()
        assert len(content) > 200
        assert content.startswith(PNG) == (path.suffix == ".png")
    table = pd.read_csv(tmp_path / "report" / "table.csv")
    again = gap_table(real_rows).assign(rung=lambda known: known["rung"].astype(str))
    pd.testing.assert_frame_equal(table, again, check_dtype=False)
    assert len(pd.read_csv(tmp_path / "report" / "margins.csv")) == len(real_rows) / 4


def test_formats_show_the_same_rows() -> None:
    table = gap_table(TWO_TARGETS)
    latex, markdown = latex_table(table), markdown_table(table)
    assert markdown.count("\n") == 2 + len(table)
    assert latex.count(r"\\") == 1 + len(table)
    assert all(text in latex for text in (r"\toprule", r"100 \%", "dual"))
    screen = io.StringIO()
    Console(file=screen, width=80).print(terminal_table(table))
    lines = screen.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert [line.split()[-8] for line in lines if " % " in line] == ["-0.250", "0.750", "1.500"]


def test_keys_are_shown_only_where_they_vary() -> None:
    both = pd.concat([TWO_TARGETS, TWO_TARGETS.assign(layer_bounds="interval")])
    assert "l,u by" in markdown_table(gap_table(both))
    assert "l,u by" not in markdown_table(gap_table(TWO_TARGETS))


@pytest.mark.parametrize("draw", [tightness_curve, certified_curve, gap_against_unstable, time_per_rung])
def test_figures_have_a_panel_per_network_and_legible_text(draw, real_rows: pd.DataFrame) -> None:
    figure = draw(pd.concat([real_rows, real_rows.assign(network="other", network_digest="d2")]))
    titles = [panel.get_title() for panel in figure.axes if panel.get_title()]
    assert titles == ["other (2 samples)", "random (2 samples)"]
    assert 3.3 <= figure.get_figwidth() <= 7.2
    texts = [text for panel in figure.axes for text in [panel.xaxis.label, panel.yaxis.label, *panel.get_xticklabels()]]
    assert all(text.get_fontsize() >= 8 for text in texts)


def test_certified_curve_draws_the_shares_and_the_attack_bound() -> None:
    rows = frame(
        row("dual", 1.0), row("pgd", -np.inf, 2.0), row("dual", -1.0, sample=1), row("pgd", -np.inf, 0.5, sample=1),
        row("dual", -1.0, sample=2), row("pgd", -np.inf, -0.5, sample=2),
    )  # fmt: skip
    [panel] = certified_curve(rows).axes
    shares = {line.get_label(): float(line.get_ydata()[0]) for line in panel.lines}
    assert shares == {"dual": pytest.approx(1 / 3), "not refuted by pgd": pytest.approx(2 / 3)}
    assert [shape.get_label() for shape in panel.collections] == ["undecided"]


def test_report_loads_neither_pyomo_nor_torch_nor_rungs() -> None:
    """They are there once a report asks what the rungs declare, in one place."""
    folder = Path(__file__).parents[2] / "toolkit" / "report"
    asking = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith(("pyomo", "torch"))], path.name
            asking |= {path.name for name in names if name.startswith("toolkit.rungs")}
    assert asking == {"order.py"}
    modules = ", ".join(f"toolkit.report.{path.stem}" for path in folder.glob("[!_]*.py"))
    program = f"import sys, {modules}; print([n for n in ('pyomo', 'torch', 'toolkit.rungs') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_margin_table_says_where_the_relaxation_is_exact() -> None:
    """relaxed_lp: 0 where the LP's optimum is integral, so that its bound is m*; blank for rungs without a point."""
    rows = frame(
        row("dual", -1.0, relaxed=-1), row("lp", 1.0, 3.0, relaxed=2), row("exact", 2.0, 2.0, relaxed=-1),
        row("dual", 0.5, target=2, relaxed=-1), row("lp", 1.0, 1.0, target=2, relaxed=0),
        row("exact", 1.0, 1.0, target=2, relaxed=-1),
    )  # fmt: skip
    table = margin_table(rows).set_index("target")
    assert table["relaxed_lp"].to_dict() == {0: 2, 2: 0}
    assert table.loc[2, "gap_lp"] == 0.0
    assert "relaxed_dual" not in table
    assert "relaxed_lp" not in margin_table(TWO_TARGETS)
