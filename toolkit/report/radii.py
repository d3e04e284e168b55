"""The robustness distribution: how far samples are from being misclassified, by rung.

A lower rung's radius is the largest ε it certifies, an attack's the least distance it finds, and an exact rung's an
interval, drawn as a band between both ends. Curves never cross: dual ≤ LP ≤ exact ≤ attack, at every height.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from toolkit.arrays import FloatArray
from toolkit.data.names import NORM_TITLES, plot_text
from toolkit.report.styles import INK, Look, label_of, look_of, panel_grid, paper_style, shared_legend

RADIUS_COLUMNS_DRAWN = ("sample", "rung", "side", "certified", "refuted")


def radius_distribution(lines: pd.DataFrame, norm: str = "linf", title: str = "") -> Figure:
    """Share of samples with radius ≤ ε against ε, a step curve per rung, a band for exact ones.

    lines: one per (sample, rung), as measure_distances gives them. A sample that the network gets wrong has radius 0;
    one for which no unsafe point was found never counts for the upper end.
    """
    with paper_style():
        figure, (panel,) = panel_grid(1)
        draw_radius_shares(panel, lines, norm)
        panel.set_title(plot_text(title))
        shared_legend(figure, [panel])
    return figure


def draw_radius_shares(panel: Axes, lines: pd.DataFrame, norm: str) -> None:
    """The curves of `radius_distribution` in a panel of a figure of one's own, with their axes."""
    ends = radius_ends(lines)
    right, rungs = _right(ends), list(ends)
    for k, (name, (low, high)) in enumerate(ends.items()):
        look = look_of(name, rungs)
        at = np.unique(np.concatenate([[0.0], low, high, [right]]))
        at = at[np.isfinite(at)]
        upper, lower = _share(low, at), _share(high, at)
        if not np.array_equal(low, high):
            panel.fill_between(at, lower, upper, step="post", color=look.color, alpha=0.25, linewidth=0, zorder=2)
            _steps(panel, at, lower, look, k, "")
        _steps(panel, at, upper, look, k, label_of(name))
    panel.set_xlim(0, right)
    panel.set_ylim(0, 1.03)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panel.set_xlabel(f"ε in {NORM_TITLES.get(norm, plot_text(norm))}")
    panel.set_ylabel("share of images with radius ≤ ε")


def radius_boxes(lines: pd.DataFrame, norm: str = "linf", title: str = "") -> Figure:
    """The radii of each rung as a box: quartiles, median, whiskers at 1.5 times the box, every outlier.

    Of an exact rung the middle of its interval. Samples for which no unsafe point was found are left out of an attack's
    box, as their number under its name says.
    """
    ends = radius_ends(lines)
    with paper_style():
        figure, (panel,) = panel_grid(1)
        names = list(ends)
        radii = [0.5 * (low + high) for low, high in ends.values()]
        shown = [values[np.isfinite(values)] for values in radii]
        left_out = [values.size - kept.size for values, kept in zip(radii, shown, strict=True)]
        drawn = panel.boxplot(shown, widths=0.55, patch_artist=True, showmeans=True, medianprops={"color": INK})
        for k, name in enumerate(names):
            look = look_of(name, names)
            drawn["boxes"][k].set(facecolor=look.color, alpha=0.45, edgecolor=look.color)
            drawn["means"][k].set(marker=look.marker, markerfacecolor=look.color, markeredgecolor=look.color)
            drawn["fliers"][k].set(marker=".", markersize=3, markerfacecolor=look.color, markeredgecolor="none")
        texts = [
            label_of(name) + (f" ({count} none)" if count else "") for name, count in zip(names, left_out, strict=True)
        ]
        panel.set_xticks(range(1, len(names) + 1), [plot_text(text) for text in texts])
        panel.set_ylim(bottom=0)
        panel.set_ylabel(f"radius in {NORM_TITLES.get(norm, plot_text(norm))}")
        panel.set_title(plot_text(title))
    return figure


def check_radius_lines(lines: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raises ValueError for no lines, for lines without one of the columns, and for a line that lacks one of them."""
    missing = [name for name in columns if name not in lines.columns]
    if missing or lines.empty:
        lacking = f"they lack {', '.join(missing)}" if missing else "got none"
        raise ValueError(f"radii to draw need lines with {', '.join(columns)}; {lacking}")
    for name in columns:
        torn = np.flatnonzero(lines[name].isna())
        if torn.size:
            raise ValueError(f"every line of radii must have {', '.join(columns)}; line {torn[0]} lacks {name}")


def radius_ends(lines: pd.DataFrame) -> Mapping[str, tuple[FloatArray, FloatArray]]:
    """Both ends of every rung's radii, sorted: lower rungs, exact ones, attacks, each in order of appearance; one array
    for both where a rung has one end only. Raises ValueError for lines without what is drawn."""
    check_radius_lines(lines, RADIUS_COLUMNS_DRAWN)
    found = {}
    for side in ("lower", "exact", "upper"):
        for name, part in lines[lines["side"] == side].groupby("rung", sort=False):
            low = np.sort(part["refuted" if side == "upper" else "certified"].to_numpy(dtype=np.float64))
            high = np.sort(part["refuted"].to_numpy(dtype=np.float64)) if side == "exact" else low
            found[str(name)] = low, high
    return found


def _share(radii: FloatArray, at: FloatArray) -> FloatArray:
    """Share of radii ≤ each ε. radii: sorted."""
    return np.searchsorted(radii, at, side="right") / radii.size


def _right(ends: Mapping[str, tuple[FloatArray, FloatArray]]) -> float:
    finite = np.concatenate([values[np.isfinite(values)] for pair in ends.values() for values in pair])
    return 1.04 * float(finite.max(initial=0.0)) or 1.0


def _steps(panel: Axes, at: FloatArray, shares: FloatArray, look: Look, place: int, label: str) -> None:
    panel.plot(
        at, shares, drawstyle="steps-post", color=look.color, linestyle=look.linestyle, marker=look.marker,
        markersize=look.marker_size, markevery=(0.06 + 0.03 * place, 0.2), linewidth=1.3, label=label or None,
        zorder=3 + 0.1 * place, clip_on=False,
    )  # fmt: skip
