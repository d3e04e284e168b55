"""The figures a script or notebook calls by name: each takes what the API returns and gives a matplotlib Figure.

    from toolkit import plot_margins, plot_radii, plot_tightness
    plot_margins(certify(network, ball, label)).savefig("margins.pdf")

Figures are drawn with Agg, none is shown and pyplot knows of none; a notebook shows the one a cell ends with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toolkit.data.arguments import instance, names, shown, text
from toolkit.data.names import plot_text
from toolkit.problems.answers import Bound
from toolkit.report.order import require_rows
from toolkit.report.plots import PANEL_KEYS
from toolkit.report.radii import radius_distribution
from toolkit.report.styles import (
    LOOKS,
    MOST_PANELS,
    OPEN_GREY,
    TEXT_GREY,
    YES_GREEN,
    Look,
    label_of,
    panel_grid,
    paper_style,
    shared_legend,
)
from toolkit.report.tables import margin_gaps
from toolkit.report.tightness import tightness_curve
from toolkit.verify.certification import Certification
from toolkit.verify.certification_html import ends_shown, least_first
from toolkit.verify.verdict import is_unsafe

MARGINS_SHOWN = 20  # of one certification, the least ones
OPEN = Look(TEXT_GREY, "|", marker_size=7.0)  # of a margin that no rung settled


def plot_tightness(frame: pd.DataFrame, networks: Sequence[str] | None = None) -> Figure:
    """Mean margin bound of every rung against ε above, mean gap m* − bound below, a column per network.

    frame: rows of a sweep, as `run_sweep` and `read_rows` give them. networks: the ones to draw, None: all. Thin bars
    and bands are quartiles over samples and targets. Raises ValueError for what is no such frame, a network without
    rows, and more than MOST_PANELS columns.
    """
    rows = instance("frame", frame, pd.DataFrame, "as run_sweep and read_rows return it")
    require_rows(rows)
    if networks is not None:
        chosen, known = names("networks", networks), list(dict.fromkeys(rows["network"]))
        for name in chosen:
            if name not in known:
                raise ValueError(f"networks must be among those of the frame, {', '.join(known)}; got {shown(name)}")
        rows = rows[rows["network"].isin(chosen)]
        require_rows(rows)
    gaps = margin_gaps(rows)
    columns = gaps[PANEL_KEYS].drop_duplicates()
    if len(columns) > MOST_PANELS:
        found = ", ".join(dict.fromkeys(columns["network"]))
        raise ValueError(
            f"a figure has at most {MOST_PANELS} columns, got {len(columns)}; choose some by networks=[…] among {found}"
        )
    return tightness_curve(gaps)


def plot_margins(certification: Certification) -> Figure:
    """The interval [lower, upper] that holds every margin, and its certified lower bound, in the colour of its rung.

    Margins of a label's targets or a property's groups, the least first, at most MARGINS_SHOWN. Right of 0, shaded, a
    margin is certified; a bound that is not finite runs off the panel. Raises ValueError for another object.
    """
    answer = instance("certification", certification, Certification, "as certify(network, ball, label) returns it")
    margins = answer.margins
    order = least_first(margins, MARGINS_SHOWN)
    view = ends_shown([margins[k] for k in order], 0.08)
    with paper_style():
        figure, (panel,) = panel_grid(1)
        figure.set_figheight(1.1 + 0.19 * max(3, len(order)))
        panel.grid(visible=False)
        panel.axvspan(0, view[1], color=YES_GREEN, alpha=0.07, linewidth=0)
        panel.axvline(0, color=TEXT_GREY, linewidth=0.9)
        for place, k in enumerate(order):
            _interval(panel, place, margins[k], answer.decided_by[k], view)
        panel.set_yticks(range(len(order)), [answer.margin_names[k] for k in order])
        panel.set_ylim(len(order) - 0.4, -0.6)
        panel.set_xlim(view)
        panel.tick_params(axis="y", length=0)
        panel.set_xlabel("margin (logits)")
        left_out = len(margins) - len(order)
        panel.set_title(f"{answer.verdict}" + (f", the {len(order)} least margins" if left_out else ""))
        shared_legend(figure, [panel])
    return figure


def plot_radii(frame: pd.DataFrame, norm: str = "linf", title: str = "") -> Figure:
    """Share of images with radius ≤ ε against ε, a step curve per rung, a band between the ends of an exact one.

    frame: a line per (sample, rung) with certified, refuted and side: radii.csv of `relugap radius --count`. norm: of
    the distances, for the axis. Raises ValueError for what is no such frame.
    """
    lines = instance("frame", frame, pd.DataFrame, "the lines of radii.csv")
    return radius_distribution(lines, text("norm", norm), text("title", title))


def _interval(panel: Axes, place: int, bound: Bound, rung: str, view: tuple[float, float]) -> None:
    """One margin: a bar over its interval, a mark at the proven end that the verdict rests on."""
    look = LOOKS.get(rung, OPEN)
    low, high = max(bound.best_lower, view[0]), min(bound.upper, view[1])
    panel.plot([low, high], [place, place], color=OPEN_GREY, linewidth=3.0, solid_capstyle="butt", zorder=2)
    refuted = is_unsafe(bound.certified_upper)
    at = bound.upper if refuted else bound.best_lower
    if math.isfinite(at):
        label = plot_text(f"{'refuted' if refuted else 'certified'} by {label_of(rung)}" if rung else "open")
        known = panel.get_legend_handles_labels()[1]
        panel.plot(
            at, place, look.marker, color=look.color, markersize=look.marker_size + 1.5, zorder=3,
            label="_nolegend_" if label in known else label,
        )  # fmt: skip
