"""The tightness curves: how far each rung's margin bound falls with ε, its distance from m*, and the ratio of both."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toolkit.report.plots import (
    EPS_LABEL,
    PANEL_KEYS,
    draw_panels,
    panel_parts,
    present_rungs,
    say_instead,
    say_no_exact,
)
from toolkit.report.styles import (
    TEXT_GREY,
    YES_GREEN,
    eps_ticks,
    is_leftmost,
    label_of,
    look_of,
    paper_style,
    set_title,
    shared_legend,
    stacked_grid,
)
from toolkit.report.tables import margin_gaps

Curves = dict[str, "pd.Series[float]"]
OFF_SCALE = 2.0  # a rung whose mean falls this many times deeper than the best lower rung's runs off the panel
NEAR_EXACT = 0.5  # tightness from which on a curve is on the panel in any case
COINCIDE = 0.003  # tightness curves closer than this lie on each other: the one below is drawn wider, behind all
SMALLEST_GAP = 1e-9  # a gap panel does not zoom in further
CROWDED = 5  # more curves than these share the page with quartiles of dual, LP and exact only
RELAXED, FEASIBLE = "lp", "dual"  # what is shaded: the gap m* − LP, and LP − dual, a feasible point of its dual


def tightness_curve(rows: pd.DataFrame) -> Figure:
    """Mean margin bound of every rung against ε above, mean gap m* − bound below, one column per network.

    Thin bars and bands are quartiles over samples and targets; the gaps m* − LP and LP − dual are shaded. Above the
    zero line a margin is certified. A rung far below the others runs off the panel and its legend entry says so.
    """
    gaps = margin_gaps(rows)
    parts = list(panel_parts(gaps))
    with paper_style():
        figure, panels = stacked_grid(len(parts))
        off: set[str] = set()
        for (upper, lower), (title, part) in zip(panels, parts, strict=True):
            off |= _margin_panel(upper, part)
            _gap_panel(lower, part)
            set_title(upper, title)
            lower.set_xlabel(EPS_LABEL)
            if is_leftmost(upper):
                upper.set_ylabel("mean margin (logits)")
                lower.set_ylabel("mean gap (logits)")
        shared_legend(figure, [upper for upper, _ in panels], {label_of(name): "off scale" for name in off})
    return figure


def ratio_curve(rows: pd.DataFrame) -> Figure:
    """Mean tightness (clean − m*)/(clean − bound) of every lower rung against ε, one panel per network.

    It is the share of a bound's fall from the clean margin that is real: 1 = exact, whatever the scale of the logits.
    Thin bars are quartiles over samples and targets. Where a rung reaches half, the panels begin just below those that
    do, and the legend says which rungs run off them.
    """
    gaps = margin_gaps(rows)
    floor, off = _ratio_view(gaps)

    def panel(axes: Axes, part: pd.DataFrame) -> None:
        _ratio_panel(axes, part)
        axes.set_ylim(floor, 1 + 0.04 * (1 - floor))

    remarks = {label_of(name): "off scale" for name in off}
    return draw_panels(gaps, panel, EPS_LABEL, "tightness (1 = exact)", share_y=True, remarks=remarks)


def _ratio_view(gaps: pd.DataFrame) -> tuple[float, list[str]]:
    """Where the axis of tightness begins, and the rungs that fall below that in some panel."""
    keys = [*PANEL_KEYS, "rung"]
    lower = gaps[(gaps["side"] == "lower") & gaps["tightness"].notna()]
    each = lower.groupby([*keys, "eps"], observed=True, dropna=False)["tightness"]
    curves = pd.DataFrame({"mean": each.mean(), "low": each.quantile(0.25)}).groupby(level=keys, observed=True).min()
    near = curves[curves["mean"] >= NEAR_EXACT]
    if near.empty:
        return 0.0, []
    floor = max(0.0, np.floor(20 * float(near.min().min())) / 20)
    return floor, [str(name) for name in curves[curves["mean"] < floor].index.unique("rung")]


def _ratio_panel(panel: Axes, gaps: pd.DataFrame) -> None:
    rungs = present_rungs(gaps)
    lower = gaps[gaps["side"] == "lower"]
    curves, low, high = _statistics(lower, lower["tightness"])
    if not curves:
        say_no_exact(panel)
        return
    exact = look_of("exact", rungs)
    panel.axhline(1, color=exact.color, linewidth=1.0, label="exact = 1", zorder=2)
    step = _smallest_step(gaps["eps"])
    for k, (name, curve) in enumerate(curves.items()):
        shift = 0.05 * step * (k - (len(curves) - 1) / 2)
        if _spread_shown(name, curves):
            color = look_of(name, rungs).color
            panel.vlines(curve.index + shift, low[name], high[name], color=color, linewidth=0.7, alpha=0.45)
        over = list(curves.values())[k + 1 :]
        hidden = any(float((curve - other).abs().max()) < COINCIDE for other in over)
        _plot(panel, name, curve, rungs, 2.5 if hidden else 3 + 0.1 * k, hidden)
    panel.plot([], [], color=TEXT_GREY, linewidth=0.7, label="quartiles")
    eps_ticks(panel)


def _margin_panel(panel: Axes, gaps: pd.DataFrame) -> set[str]:
    """Mean curves with quartile bars; returns the rungs that run off the panel."""
    rungs = present_rungs(gaps)
    exact = gaps["m_high"].where(gaps["side"] == "exact", gaps["lower"])
    bound = gaps["upper"].where(gaps["side"] == "upper", exact)
    exact_rungs = set(gaps.loc[gaps["side"] == "exact", "rung"].astype(str))
    curves, low, high = _statistics(gaps, bound)
    if not curves:
        say_instead(panel, "no bound is finite")
        return set()
    top, floor = _view(curves, low, high)
    exact_curves = [curve for name, curve in curves.items() if name in exact_rungs]
    _shade(panel, exact_curves[-1] if exact_curves else None, curves.get(RELAXED), RELAXED, "gap m* − LP")
    _shade(panel, curves.get(RELAXED), curves.get(FEASIBLE), FEASIBLE, "gap LP − dual")
    step = _smallest_step(gaps["eps"])
    for k, (name, curve) in enumerate(curves.items()):
        shift = 0.05 * step * (k - (len(curves) - 1) / 2)  # bars beside each other, not on top
        if _spread_shown(name, curves, exact_rungs):
            color = look_of(name, rungs).color
            panel.vlines(curve.index + shift, low[name], high[name], color=color, linewidth=0.7, alpha=0.45)
        _plot(panel, name, curve, rungs, 3 + 0.1 * k)
    eps_ticks(panel)
    panel.plot([], [], color=TEXT_GREY, linewidth=0.7, label="quartiles")
    room = 0.05 * (top - floor)
    panel.set_ylim(floor - room, top + room)
    panel.axhline(0, color=TEXT_GREY, linewidth=0.9)
    if top > 0:
        panel.axhspan(0, top + room, color=YES_GREEN, alpha=0.06, linewidth=0)
        panel.text(0.98, 0.97, "YES", transform=panel.transAxes, ha="right", va="top", color=YES_GREEN)
    return {name for name, curve in curves.items() if curve.min() < floor - room}


def _gap_panel(panel: Axes, gaps: pd.DataFrame) -> None:
    """Mean gap of the lower rungs with quartile bands, from 0 (exact) up to what LP and those near it need."""
    rungs = present_rungs(gaps)
    lower = gaps[gaps["side"] == "lower"]
    curves, low, high = _statistics(lower, lower["gap"])
    if not curves:
        say_no_exact(panel)
        return
    # an ideal gap of nothing would leave the others off the panel
    shown = [curves[RELAXED]] if RELAXED in curves else curves.values()
    least = min(float(curve.max()) for curve in shown)
    near = [name for name, curve in curves.items() if float(curve.max()) <= 4 * least + 1e-9]
    top = max(float(high[name].max()) for name in near)
    if RELAXED in curves:
        _shade(panel, curves[RELAXED], 0 * curves[RELAXED], RELAXED, "")
    _shade(panel, curves.get(FEASIBLE), curves.get(RELAXED), FEASIBLE, "")
    for k, (name, curve) in enumerate(curves.items()):
        color = look_of(name, rungs).color
        if name in near and _spread_shown(name, curves):
            for edge in (low[name], high[name]):
                panel.plot(edge.index, edge, color=color, linewidth=0.7, alpha=0.6)
        _plot(panel, name, curve, rungs, 3 + 0.1 * k)
    panel.set_ylim(0, 1.08 * top if top > SMALLEST_GAP else 1)


def _statistics(gaps: pd.DataFrame, values: pd.Series[float]) -> tuple[Curves, Curves, Curves]:
    """Mean, lower and upper quartile per ε of every rung with finite values."""
    finite = gaps.assign(value=values.where(np.isfinite(values))).dropna(subset=["value"])
    grouped = finite.groupby(["rung", "eps"], observed=True)["value"]
    table = pd.DataFrame({"mean": grouped.mean(), "low": grouped.quantile(0.25), "high": grouped.quantile(0.75)})
    names = [name for name in present_rungs(gaps) if name in table.index.get_level_values("rung")]
    mean, low, high = ({name: table[column].loc[name] for name in names} for column in ("mean", "low", "high"))
    return mean, low, high


def _view(curves: Curves, low: Curves, high: Curves) -> tuple[float, float]:
    """Top and floor of the margin panel: all quartiles of the rungs that stay near the tightest one, and zero."""
    top = max(float(curve.max()) for curve in curves.values())
    falls = {name: top - float(curve.min()) for name, curve in curves.items()}
    limit = OFF_SCALE * max(min(falls.values()), 1e-9)
    near = [name for name, fall in falls.items() if fall <= limit]
    return max(0.0, *(float(high[name].max()) for name in near)), min(0.0, *(float(low[name].min()) for name in near))


def _smallest_step(eps: pd.Series[float]) -> float:
    values = np.unique(eps.to_numpy())
    return float(np.diff(values).min()) if values.size > 1 else 0.1 * float(values[0])


def _spread_shown(name: str, curves: Curves, exact_rungs: Collection[str] = ()) -> bool:
    """Quartiles of every rung while they are few, else of those the gaps are measured between."""
    return len(curves) <= CROWDED or name in (RELAXED, FEASIBLE, *exact_rungs)


def _shade(panel: Axes, upper: pd.Series[float] | None, lower: pd.Series[float] | None, name: str, label: str) -> None:
    """Fill between two curves where both have values, in the colour of rung `name`."""
    if upper is None or lower is None:
        return
    shared = upper.index.intersection(lower.index)
    panel.fill_between(
        shared,
        lower.loc[shared],
        upper.loc[shared],
        color=look_of(name, []).color,
        alpha=0.22,
        linewidth=0,
        label=label or "_nolegend_",
    )


def _plot(
    panel: Axes, name: str, curve: pd.Series[float], rungs: list[str], zorder: float, hidden: bool = False
) -> None:
    look, wider = look_of(name, rungs), 2.4 if hidden else 0.0
    panel.plot(
        curve.index, curve, color=look.color, marker=look.marker, linestyle=look.linestyle,
        markersize=look.marker_size + wider, linewidth=1.3 + wider, label=label_of(name), zorder=zorder,
    )  # fmt: skip
