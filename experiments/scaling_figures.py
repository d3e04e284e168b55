"""The figures of scaling.py: time and gap against unstable neurons, gap against width, depth and ε."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from toolkit.report.styles import (
    GRID_GREY,
    PANEL_HEIGHT,
    PANEL_WIDTH,
    TEXT_GREY,
    Look,
    label_of,
    look_of,
    paper_style,
    shared_legend,
)

GAP_FLOOR = 1e-3  # below the solver's relative gap of 1e-4 on margins around 10: drawn as "≤"
SHAPE_EPS, SHAPE_NETWORK, SHAPE_WIDTH, SHAPE_DEPTH = 0.03, "digits-2x32", 32, 2


def draw_time_against_unstable(cells: pd.DataFrame, fits: pd.DataFrame) -> Figure:
    """Left: median seconds of every rung with its power law, log-log. Right: exact with both its fits, log-linear."""
    with paper_style():
        figure, (left, right) = _panels(1, 2, height=3.1)
        rungs = list(pd.unique(cells["rung"]))
        entries: dict[str, Look] = {}
        for name in rungs:
            look, own = look_of(name, rungs), cells[(cells["rung"] == name) & (cells["unstable"] >= 1)]
            _timed_points(left, own, look)
            law = fits[fits["rung"] == name]
            if not law.empty:
                k = np.geomspace(float(law["k_least"].iloc[0]), float(law["k_most"].iloc[0]), 50)
                seconds = law["c"].iloc[0] * k ** law["p"].iloc[0]
                left.plot(k, seconds, color=look.color, linestyle=look.linestyle, linewidth=1.1, zorder=2)
                entries[f"{label_of(name)}: $k^{{{law['p'].iloc[0]:.2f}}}$"] = look
        left.set(xscale="log", yscale="log", ylabel="CPU seconds a margin (median)", title="every rung, power laws")
        _exact_panel(right, cells[(cells["rung"] == "exact") & (cells["unstable"] >= 1)], fits)
        for panel in (left, right):
            panel.set_xlabel("unstable neurons k")
        _plain_ticks(left, cells["unstable"])
        _legend_with_markers(figure, entries)
    return figure


def _timed_points(panel: Axes, own: pd.DataFrame, look: Look) -> None:
    """Cells of one rung; hollow with an upward tick where the clock stopped half the margins or more."""
    whole, cut = own[~own["censored"]], own[own["censored"]]
    style: dict[str, Any] = {"linestyle": "", "marker": look.marker, "color": look.color}
    style["markersize"] = look.marker_size
    panel.plot(whole["unstable"], whole["seconds"], alpha=0.75, zorder=3, **style)
    panel.plot(cut["unstable"], cut["seconds"], markerfacecolor="none", zorder=3, **style)
    panel.plot(cut["unstable"], 1.45 * cut["seconds"], linestyle="", marker="$↑$", color=look.color, markersize=5)


def _exact_panel(panel: Axes, own: pd.DataFrame, fits: pd.DataFrame) -> None:
    look = look_of("exact", [])
    _timed_points(panel, own, look)
    panel.set(yscale="log", title="the exact margin, both fits")
    law = fits[fits["rung"] == "exact"]
    if law.empty:
        return
    k = np.linspace(float(law["k_least"].iloc[0]), float(own["unstable"].max()), 80)
    a, b, c, p = (float(law[name].iloc[0]) for name in ("a", "b", "c", "p"))
    lines = (
        (10 ** (a + b * k), "-", f"$10^{{a + b k}}$, b = {b:.3f}, R² = {law['r2_exponential'].iloc[0]:.2f}"),
        (c * k**p, (0, (4, 1.5)), f"$c\\,k^{{p}}$, p = {p:.2f}, R² = {law['r2_power'].iloc[0]:.2f}"),
    )
    for seconds, style, text in lines:
        panel.plot(k, seconds, color=look.color, linestyle=style, linewidth=1.1, label=text, zorder=2)
    top = 4 * float(max(own["seconds"].max(), (c * k**p).max()))
    panel.set_ylim(0.6 * float(own["seconds"].min()), top)
    panel.legend(loc="lower right", frameon=False, handlelength=2.2)


def draw_gap_against_unstable(cells: pd.DataFrame) -> Figure:
    """Left: median gap m* − bound, log-log. Right: median tightness. One point a (network, ε)."""
    with paper_style():
        figure, (left, right) = _panels(1, 2, height=3.1)
        known = _known_gaps(cells)
        rungs = list(pd.unique(known["rung"]))
        for name in rungs:
            look, own = look_of(name, rungs), known[known["rung"] == name]
            marks = {"markersize": look.marker_size + 0.4, "markeredgewidth": 0.9}
            style = _style(look) | marks | {"linestyle": "", "markerfacecolor": "none"}
            left.plot(own["unstable"], own["shown"], label=_label(name, known), **style)
            right.plot(own["unstable"], own["tightness"], **style)
        left.set(xscale="log", yscale="log", title="gap m* − bound (logits)")
        right.set(xscale="log", title="tightness (1 = exact)", ylim=(-0.03, 1.03))
        _say_floor(left)
        for panel in (left, right):
            panel.set_xlabel("unstable neurons k")
            _plain_ticks(panel, known["unstable"])
        shared_legend(figure, [left])
    return figure


def draw_gap_against_shape(cells: pd.DataFrame) -> Figure:
    """Gap (above, log) and tightness (below) against width, depth and ε, all else equal."""
    with paper_style():
        figure, panels = _panels(2, 3, height=2.1, width=2.4, share_rows=True)
        known = _known_gaps(cells)
        middle = known["eps"] == SHAPE_EPS
        columns = (
            (
                "width",
                known[middle & (known["depth"] == SHAPE_DEPTH)],
                f"{SHAPE_DEPTH} hidden layers, ε = {SHAPE_EPS:g}",
            ),
            ("depth", known[middle & (known["width"] == SHAPE_WIDTH)], f"width {SHAPE_WIDTH}, ε = {SHAPE_EPS:g}"),
            ("eps", known[known["network"] == SHAPE_NETWORK], f"width {SHAPE_WIDTH}, {SHAPE_DEPTH} hidden layers"),
        )
        rungs = list(pd.unique(known["rung"]))
        for k, (column, part, title) in enumerate(columns):
            upper, lower = panels[k], panels[k + 3]
            for name in rungs:
                look, own = look_of(name, rungs), part[part["rung"] == name].sort_values(column)
                style = _style(look) | {"linestyle": look.linestyle, "label": _label(name, known)}
                upper.plot(own[column], own["shown"], **style)
                lower.plot(own[column], own["tightness"], **style)
            upper.set(yscale="log", title=title)
            upper.tick_params(labelbottom=False)
            lower.set(ylim=(-0.03, 1.03), xlabel={"eps": "ε", "width": "width", "depth": "hidden layers"}[column])
            for panel in (upper, lower):
                if column != "depth":
                    panel.set_xscale("log")
                _ticks(panel, sorted(part[column].unique()))
        panels[0].set_ylabel("m* − bound (logits)")
        panels[3].set_ylabel("tightness (1 = exact)")
        for k, panel in enumerate(panels[:3]):
            _say_floor(panel, text=k == 0)
        shared_legend(figure, panels[:1])
    return figure


def _style(look: Look) -> dict[str, Any]:
    return {"color": look.color, "marker": look.marker, "markersize": look.marker_size, "linewidth": 1.2}


def _label(name: str, known: pd.DataFrame) -> str:
    """The rung's name; LP's says so where it stands for alpha too."""
    merged = name == "lp" and "alpha" not in set(known["rung"])
    return "LP = alpha" if merged else label_of(name)


def _known_gaps(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells of lower rungs whose median gap is known, `shown` with the floor applied; k = 0 is left out.

    alpha is left out where it equals lp everywhere (to 1 % or the floor), as strong duality has it on shared l,u.
    """
    known = cells[(cells["rung"] != "exact") & cells["gap"].notna() & (cells["unstable"] >= 1)]
    by_rung = known.pivot_table(index=["network", "eps"], columns="rung", values="gap")
    if {"alpha", "lp"} <= set(by_rung) and np.allclose(by_rung["alpha"], by_rung["lp"], rtol=0.01, atol=GAP_FLOOR):
        known = known[known["rung"] != "alpha"]
    return known.assign(shown=known["gap"].clip(lower=GAP_FLOOR))


def _say_floor(panel: Axes, text: bool = True) -> None:
    panel.axhline(GAP_FLOOR, color=TEXT_GREY, linewidth=0.6, linestyle=(0, (1, 2)), zorder=1)
    panel.set_ylim(bottom=0.4 * GAP_FLOOR)
    if text:
        place = panel.get_yaxis_transform()
        panel.text(0.99, 0.86 * GAP_FLOOR, "≤ 10⁻³", transform=place, ha="right", va="top", color=TEXT_GREY, fontsize=7)


def _plain_ticks(panel: Axes, values: pd.Series[float]) -> None:
    ticks = [k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500) if k <= 1.1 * float(values.max())]
    _ticks(panel, ticks)


def _ticks(panel: Axes, places: Sequence[float]) -> None:
    panel.xaxis.set_major_locator(FixedLocator(list(places)))
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.xaxis.set_minor_locator(NullLocator())


def _legend_with_markers(figure: Figure, entries: Mapping[str, Look]) -> None:
    """Text and look of every fitted law, below the figure, each with its rung's marker."""
    styles = [_style(look) | {"linestyle": look.linestyle} for look in entries.values()]
    handles = [Line2D([], [], **style) for style in styles]
    figure.legend(handles, list(entries), loc="outside lower center", ncols=4, frameon=False, handlelength=2.4)


def _panels(
    down: int, across: int, height: float = PANEL_HEIGHT, width: float = PANEL_WIDTH, share_rows: bool = False
) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width * across + 0.2, height * down + 0.55), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, squeeze=False, sharey="row" if share_rows else False)
    for panel in grid.flat:
        panel.grid(axis="y", color=GRID_GREY, linewidth=0.5)
        panel.set_axisbelow(True)
    return figure, list(grid.flat)
