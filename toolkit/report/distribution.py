"""The distribution of gaps: which share of the margins a rung bounds to within g logits of m*."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from toolkit.report.plots import DECADES_SHOWN, draw_panels, present_rungs, say_no_exact
from toolkit.report.styles import label_of, look_of, panels_across
from toolkit.report.tables import margin_gaps

Steps = tuple[NDArray[np.float64], NDArray[np.float64]]


def gap_distribution(rows: pd.DataFrame) -> Figure:
    """Share of margins with m* − bound ≤ g against g, a step curve per lower rung, one panel per network.

    At the network's largest ε with exact margins, which the title states. Gaps of less than DECADES_SHOWN of the
    figure's largest are drawn as 0; a margin whose m* is known as an interval only counts with the largest gap that
    allows, one that a rung failed on counts as never reached.
    """
    gaps = margin_gaps(rows)
    shown = gaps.loc[gaps["side"].eq("lower") & gaps["exact_ran"], "gap"]
    least = DECADES_SHOWN * float(shown.max()) if shown.notna().any() else 0.0
    positive = shown[shown > least]
    edges = (float(positive.min()), float(positive.max())) if not positive.empty else (1e-3, 1.0)

    def panel(axes: Axes, part: pd.DataFrame) -> None:
        _distribution_panel(axes, part, least, edges)

    return draw_panels(gaps, panel, "gap g = m* − bound (logits)", "share of margins within g", share_y=True)


def gap_steps(gaps: pd.DataFrame, least: float = 0.0) -> Steps:
    """Distinct gaps g, ascending from 0, and the share of margins with gap ≤ g: the empirical distribution function.

    gaps: rows of one rung from `margin_gaps`. Gaps up to `least` count as 0 (so do rounding's negative ones); a margin
    without a finite bound never counts, so the last share is 1 exactly where the rung bounded every margin.
    """
    finite = np.sort(gaps["gap"].dropna().to_numpy(dtype=np.float64))
    values, counts = np.unique(np.where(finite > least, finite, 0.0), return_counts=True)
    if not values.size or values[0] > 0:
        values, counts = np.concatenate([[0.0], values]), np.concatenate([[0], counts])
    return values, np.cumsum(counts) / max(1, len(gaps))


def _distribution_panel(panel: Axes, gaps: pd.DataFrame, least: float, edges: tuple[float, float]) -> None:
    known = gaps[gaps["side"].eq("lower") & gaps["exact_ran"]]
    if known.empty:
        say_no_exact(panel)
        return
    eps = float(known["eps"].max())
    at = known[known["eps"] == eps]
    rungs = present_rungs(gaps)
    right = 10.0 ** np.ceil(np.log10(edges[1]))
    for k, name in enumerate(present_rungs(at)):
        look = look_of(name, rungs)
        steps, shares = gap_steps(at[at["rung"] == name], least)
        panel.plot(
            [*steps, right], [*shares, shares[-1]], drawstyle="steps-post", color=look.color, linestyle=look.linestyle,
            marker=look.marker, markersize=look.marker_size, markevery=(0.06 + 0.02 * k, 0.17), linewidth=1.3,
            label=label_of(name), zorder=3 + 0.1 * k, clip_on=False,
        )  # fmt: skip
    threshold = 10.0 ** np.floor(np.log10(edges[0]))
    panel.set_xscale("symlog", linthresh=threshold, linscale=0.5)
    first, last = round(np.log10(threshold)), round(np.log10(right))
    step = -(-(last - first + 1) // (6 if panels_across(panel) <= 2 else 3))  # as many ticks as there is room for
    decades = np.arange(last, first - 1, -step)[::-1].astype(float)
    panel.set_xticks([0.0, *(10.0**decades)])
    panel.minorticks_off()
    panel.set_xlim(0, right)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panel.set_ylim(0, 1.03)
    panel.set_title(f"{panel.get_title()}, ε = {eps:g}")
