"""The public figure functions: what they draw is what they were given, and no figure of many networks grows tall."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import random_dense_network
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from test_report import TWO_TARGETS

from toolkit import LinfBall, Verdict, certify, plot_margins, plot_radii, plot_tightness, robustness
from toolkit.report import write_report
from toolkit.report.plots import figure_parts
from toolkit.report.styles import CLASS_COLOURS, MOST_PANELS, SOLVER_COLOURS, TRAINING_LOOKS, on_dark
from toolkit.report.tables import margin_gaps
from toolkit.verify.certification import Certification

NETWORK = random_dense_network(np.random.default_rng(2), (4, 8, 8, 3), "net")
CENTER = np.random.default_rng(2).uniform(0.3, 0.7, 4)
LABEL = int(NETWORK.predict(CENTER))
RADII = pd.DataFrame(
    {"sample": [0, 1], "rung": "dual", "side": "lower", "certified": [0.1, 0.2], "refuted": [0.3, 0.4]}
)


def networks(count: int) -> pd.DataFrame:
    return pd.concat([TWO_TARGETS.assign(network=f"net{k}", network_digest=f"d{k}") for k in range(count)])


def answer(eps: float, ladder: tuple[str, ...] = ("dual", "pgd", "bab")) -> Certification:
    return certify(NETWORK, LinfBall(CENTER, eps), LABEL, ladder=ladder)


@pytest.mark.parametrize("eps", [0.001, 0.3, 3.0])
def test_margins_are_bars_over_their_intervals(eps: float) -> None:
    found = answer(eps, ("dual",))
    figure = plot_margins(found)
    [panel] = figure.axes
    assert isinstance(figure, Figure)
    assert panel.get_title() == str(found.verdict)
    order = sorted(found.margins, key=lambda bound: (bound.lower, bound.upper))
    assert [text.get_text() for text in panel.get_yticklabels()] == [f"class {bound.target}" for bound in order]
    bars = [line for line in panel.lines if line.get_linewidth() == 3.0]
    for bar, bound in zip(bars, order, strict=True):
        low, high = np.asarray(bar.get_xdata(), dtype=float)
        assert low == pytest.approx(max(bound.lower, bound.certified_lower))
        assert high == pytest.approx(min(bound.upper, panel.get_xlim()[1]))
    assert panel.get_xlim()[0] < 0 < panel.get_xlim()[1]


def test_margins_of_a_refuted_sample_and_of_a_property() -> None:
    refuted = answer(3.0)
    assert refuted.verdict is Verdict.NO
    labels = plot_margins(refuted).axes[0].get_legend_handles_labels()[1]
    assert any(label.startswith("refuted by") for label in labels)
    asked = certify(NETWORK, LinfBall(CENTER, 0.01), robustness(3, LABEL))
    assert len(plot_margins(asked).axes[0].get_yticklabels()) == 2


def test_tightness_takes_four_networks_or_those_named() -> None:
    assert len(plot_tightness(networks(4)).axes) == 8
    width, height = plot_tightness(networks(4)).get_size_inches()
    assert (width, height) <= (7.2, 4.5)
    with pytest.raises(ValueError, match=r"at most 4 columns, got 5; choose some by networks=\[…\] among net0, net1"):
        plot_tightness(networks(5))
    figure = plot_tightness(networks(5), networks=["net3", "net1"])
    assert [one.get_title() for one in figure.axes if one.get_title()] == ["net1 (1 sample)", "net3 (1 sample)"]
    with pytest.raises(ValueError, match="among those of the frame, net0, net1; got 'other'"):
        plot_tightness(networks(2), networks=["other"])


def test_figures_are_filled_in_the_order_asked_for_and_hold_every_row() -> None:
    gaps = margin_gaps(networks(9))
    parts = figure_parts(gaps, ["net8", "net0"])
    assert [part["network"].nunique() for part in parts] == [3, 3, 3]
    assert set(parts[0]["network"]) == {"net8", "net0", "net1"}
    assert sum(map(len, parts)) == len(gaps)
    assert len(figure_parts(margin_gaps(networks(MOST_PANELS)))) == 1


def test_a_report_of_many_networks_has_figures_of_few(tmp_path: Path) -> None:
    names = {path.name for path in write_report(networks(5), tmp_path, formats=["svg"], networks=["net4"])}
    assert {"tightness.svg", "tightness-2.svg", "time.svg", "time-2.svg"} <= names
    assert "tightness-3.svg" not in names
    assert "net4" in (tmp_path / "tightness.svg").read_text(encoding="utf-8")


def test_a_notebook_shows_what_a_cell_ends_with() -> None:
    for figure in (plot_margins(answer(0.01)), plot_radii(RADII), plot_tightness(TWO_TARGETS)):
        assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_pyplot_knows_of_no_figure() -> None:
    for figure in (plot_margins(answer(0.01)), plot_radii(RADII), plot_tightness(TWO_TARGETS)):
        assert isinstance(figure.canvas, FigureCanvasAgg)
    code = "import sys, toolkit.report; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_colours_for_dark_pages_are_bright_enough_and_stay_apart() -> None:
    for colour in (
        *(look.color for look in TRAINING_LOOKS.values()),
        *SOLVER_COLOURS.values(),
        *CLASS_COLOURS,
        "#000000",
        "#555555",
    ):
        assert sum(int(on_dark(colour)[k : k + 2], 16) for k in (1, 3, 5)) > 255
    assert on_dark("#000000") == "#ffffff"
    assert on_dark("#ffffff") == "#ffffff"
