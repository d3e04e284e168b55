"""What a colour means in every figure, and the paper-sized canvas it is drawn on.

A rung, a training, a solver and a class each have a palette of their own, so that a colour means one thing: no colour
stands in two of them, and every figure takes its colours from here. Rungs have those of Okabe & Ito ("Color Universal
Design", 2008), trainings the muted, solvers the dark, classes the light ones of Tol ("Colour Schemes", SRON/EPS/TN/
09-002, 2021): told apart by readers with any colour vision. Marker and line style repeat it for print without colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from toolkit.data.names import plot_text

PANEL_WIDTH, PANEL_HEIGHT = 3.4, 2.5  # inches: one column of a two-column page
GRID_GREY, TEXT_GREY, YES_GREEN = "#DDDDDD", "#444444", "#00785A"
GAP_HEIGHT = 1.5  # inches: the smaller panel under another one
PAPER: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": TEXT_GREY,
    "axes.labelcolor": TEXT_GREY,
    "xtick.color": TEXT_GREY,
    "ytick.color": TEXT_GREY,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "axes.titlecolor": "black",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class Look:
    """Colour, marker and line style of one rung; marker_size in points, for markers that look small or large."""

    color: str
    marker: str
    linestyle: str | tuple[int, tuple[float, ...]] = "-"
    marker_size: float = 4.0


LOOKS = {
    "interval": Look("#999999", "<", (0, (1, 1))),
    "lipschitz": Look("#8C6D1F", "p", (0, (1, 1))),
    "dual": Look("#D55E00", "^"),
    "crown": Look("#E69F00", "v", (0, (4, 1.5))),
    "alpha": Look("#CC79A7", "P"),
    "lp": Look("#0072B2", "s", "-", 3.6),
    "ideal": Look("#56B4E9", "D", (0, (4, 1.5)), 3.6),
    "exact": Look("#000000", "o"),
    "bab": Look("#555555", "X", (0, (4, 1.5))),
    "fgsm": Look("#7BC8A4", "1", (0, (1, 1)), 6.0),
    "pgd": Look("#009E73", "*", (0, (4, 1.5)), 5.5),
}
OTHER_LOOKS = (Look("#44AA99", "d"), Look("#661100", "h"), Look("#6699CC", "8"), Look("#AA7744", ">"))
TRAINING_COLOURS = {
    "standard": "#CC6677",
    "adversarial": "#AA4499",
    "dual": "#332288",
    "interval": "#117733",
    "crown-ibp": "#999933",
    "mtl-ibp": "#882255",
}
SOLVER_COLOURS = {"bab": "#222255", "highs": "#225555", "gurobi": "#663333", "scip": "#666633"}
CLASS_COLOURS = ("#77AADD", "#EE8866")  # the one asked about and another


def look_of(rung: str, rungs: Sequence[str]) -> Look:
    """The rung's fixed look; rungs this file does not know take the spare ones in order of appearance."""
    if rung in LOOKS:
        return LOOKS[rung]
    unknown = [name for name in rungs if name not in LOOKS]
    return OTHER_LOOKS[unknown.index(rung) % len(OTHER_LOOKS)]


def label_of(rung: str) -> str:
    """The rung's name in a legend."""
    return {"lp": "LP"}.get(rung, rung)


@contextmanager
def paper_style() -> Iterator[None]:
    """The settings above, for the time of drawing or saving one figure."""
    with mpl.rc_context(PAPER):
        yield


def panel_grid(count: int, share_y: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels, two a row (7 inches wide), on an Agg canvas; call it inside `paper_style`."""
    across = min(2, count)
    down = -(-count // across)
    figure = Figure(figsize=(PANEL_WIDTH * across + 0.2, PANEL_HEIGHT * down + 0.55), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, squeeze=False, sharey=share_y)
    panels = list(grid.flat)
    for spare in panels[count:]:
        spare.set_axis_off()
    for panel in panels[:count]:
        panel.grid(axis="y", color=GRID_GREY, linewidth=0.5)
        panel.set_axisbelow(True)
    return figure, panels[:count]


def stacked_grid(count: int) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """A figure with `count` pairs of panels sharing their x axis, a smaller one below; two pairs a row."""
    across = min(2, count)
    down = -(-count // across)
    height = (PANEL_HEIGHT + GAP_HEIGHT) * down + 0.7
    figure = Figure(figsize=(PANEL_WIDTH * across + 0.2, height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2 * down, across, height_ratios=[PANEL_HEIGHT, GAP_HEIGHT] * down)
    pairs = []
    for k in range(count):
        row, column = 2 * (k // across), k % across
        upper = figure.add_subplot(grid[row, column])
        lower = figure.add_subplot(grid[row + 1, column], sharex=upper)
        upper.tick_params(labelbottom=False)
        for panel in (upper, lower):
            panel.grid(axis="y", color=GRID_GREY, linewidth=0.5)
            panel.set_axisbelow(True)
        pairs.append((upper, lower))
    return figure, pairs


def shared_legend(figure: Figure, panels: Sequence[Axes], remarks: Mapping[str, str] | None = None) -> None:
    """One legend for all panels, below them, each label once, with a remark in brackets where one is given."""
    entries: dict[str, Artist] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if not entries:
        return
    notes = remarks or {}
    wide = figure.get_figwidth() > 2 * PANEL_WIDTH
    figure.legend(
        list(entries.values()),
        [plot_text(f"{label} ({notes[label]})" if label in notes else label) for label in entries],
        loc="outside lower center",
        ncols=min(len(entries), 7 if wide and len(entries) < 8 else 5 if wide else 3),
        frameon=False,
        handlelength=2.4,
        columnspacing=1.4,
    )
