"""What a colour means in every figure, and the paper-sized canvas it is drawn on.

A rung, a training, a solver and a class each have a palette of their own, so that a colour means one thing: no colour
stands in two of them, and every figure takes its colours from here. Rungs have those of Okabe & Ito ("Color Universal
Design", 2008), trainings the muted and classes the light ones of Tol ("Colour Schemes", SRON/EPS/TN/09-002, 2021),
solvers those of IBM's design library, with a darker violet: told apart by readers with any colour vision. Marker and
line style repeat the distinction for print without colour.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from toolkit.arrays import FloatArray
from toolkit.data.names import plot_text

PANEL_WIDTH, PANEL_HEIGHT = 3.4, 2.5  # inches: one column of a two-column page
PAGE_WIDTH = 7.0  # inches, both columns
MOST_PANELS = 4  # in one figure: what has more is drawn on several, so that each fits half a page
PRINT_DPI, SCREEN_DPI = 300, 150
INK, SURFACE, DARK_SURFACE = "#000000", "#FFFFFF", "#15181B"
GRID_GREY, TEXT_GREY, OPEN_GREY, YES_GREEN = "#DDDDDD", "#444444", "#AAAAAA", "#00785A"
IMAGE_MAP = "gray"  # of pixels
CHANGE_MAP = "PRGn"  # of signed changes of pixels, white at 0: no rung's colours
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
    "axes.titlecolor": INK,
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
    "exact": Look(INK, "o"),
    "bab": Look("#555555", "X", (0, (4, 1.5))),
    "fgsm": Look("#7BC8A4", "1", (0, (1, 1)), 6.0),
    "pgd": Look("#009E73", "*", (0, (4, 1.5)), 5.5),
}
OTHER_LOOKS = (Look("#882255", "d"), Look("#661100", "h"), Look("#6699CC", "8"), Look("#AA7744", ">"))
TRAINING_LOOKS = {
    "standard": Look("#CC6677", "o"),
    "adversarial": Look("#AA4499", "s", "-", 3.6),
    "dual": Look("#332288", "^"),
    "interval": Look("#117733", "v"),
    "crown-ibp": Look("#999933", "D", "-", 3.4),
    "mtl-ibp": Look("#44AA99", "P"),
}
SOLVER_COLOURS = {"bab": "#5D3A9B", "highs": "#648FFF", "gurobi": "#DC267F", "scip": "#FFB000"}
CLASS_COLOURS = ("#77AADD", "#EE8866")  # the one asked about and another


def on_dark(colour: str, least: float = 4.5) -> str:
    """The colour mixed with white until its contrast with the dark surface is enough (WCAG 2.2, 1.4.11), as hex."""
    mixed = np.array(to_rgb(colour))
    if np.ptp(mixed) == 0 and mixed[0] < 0.5:  # black and dark greys become white and light ones
        mixed = 1.0 - mixed
    while _contrast(mixed, np.array(to_rgb(DARK_SURFACE))) < least:
        mixed = 1.0 - 0.95 * (1.0 - mixed)
    red, green, blue = mixed.tolist()
    return to_hex((red, green, blue))


def _contrast(one: FloatArray, other: FloatArray) -> float:
    """(L₁ + 0.05)/(L₂ + 0.05) of the relative luminances, the larger above."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: FloatArray) -> float:
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


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


class PaperFigure(Figure):
    """A figure that a notebook shows where a cell ends with it, whether pyplot was loaded or not."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        with paper_style():
            self.savefig(stream, format="png", dpi=SCREEN_DPI)
        return stream.getvalue()


def panel_grid(count: int, share_y: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels on an Agg canvas, half a page at most for MOST_PANELS; call it inside `paper_style`.

    Up to three stand in one row, four in two rows; more than that are small, four a row.
    """
    across = count if count <= 3 else 2 if count == MOST_PANELS else 4
    down = -(-count // across)
    width = PANEL_WIDTH + 0.2 if across == 1 else PAGE_WIDTH
    height = {1: PANEL_HEIGHT, 2: PANEL_HEIGHT, 3: 2.1}.get(count, 1.85 if across == 2 else 1.5)
    figure = PaperFigure(figsize=(width, height * down + 0.55), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, squeeze=False, sharey=share_y)
    panels = list(grid.flat)
    for spare in panels[count:]:
        spare.set_axis_off()
    for panel in panels[:count]:
        _prepare(panel)
    return figure, panels[:count]


def stacked_grid(count: int, across: int | None = None) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """A figure with `count` pairs of panels sharing their x axis, a smaller one below; half a page for MOST_PANELS.

    across: pairs a row; None: all of up to MOST_PANELS.
    """
    across = min(count, across or MOST_PANELS)
    down = -(-count // across)
    upper_height, lower_height = (2.3, 1.3) if across <= 2 and down == 1 else (1.9, 1.1)
    width = PANEL_WIDTH + 0.2 if across == 1 else PAGE_WIDTH
    figure = PaperFigure(figsize=(width, (upper_height + lower_height) * down + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2 * down, across, height_ratios=[upper_height, lower_height] * down)
    pairs = []
    for k in range(count):
        row, column = 2 * (k // across), k % across
        upper = figure.add_subplot(grid[row, column])
        lower = figure.add_subplot(grid[row + 1, column], sharex=upper)
        upper.tick_params(labelbottom=False)
        for panel in (upper, lower):
            _prepare(panel)
        pairs.append((upper, lower))
    return figure, pairs


def _prepare(panel: Axes) -> None:
    panel.grid(axis="y", color=GRID_GREY, linewidth=0.5)
    panel.set_axisbelow(True)


def panels_across(panel: Axes) -> int:
    """How many panels stand in a row of this one's figure."""
    place = panel.get_subplotspec()
    return 1 if place is None else int(place.get_gridspec().ncols)


def set_title(panel: Axes, title: str) -> None:
    """The title, its bracket on a line of its own where three or more panels stand in a row."""
    shown = plot_text(title)
    panel.set_title(shown.replace(" (", "\n(", 1) if panels_across(panel) > 2 else shown)


def eps_ticks(panel: Axes) -> None:
    """Round values on the axis of ε, few where the panel is narrow."""
    panel.xaxis.set_major_locator(
        MaxNLocator(nbins={1: 6, 2: 6, 3: 5}.get(panels_across(panel), 4), steps=[1, 2, 5, 10])
    )


def is_leftmost(panel: Axes) -> bool:
    """Whether a panel stands in the first column, where the y axis is named."""
    place = panel.get_subplotspec()
    return place is None or place.is_first_col()


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
