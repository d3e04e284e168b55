"""Figures of a sweep: tightness curve, certified accuracy, gap against unstable neurons, time per rung.

One panel per network (and per data set, norm, domain, l,u chain where these vary). Every function takes rows and
returns a matplotlib Figure drawn with Agg; nothing here touches pyplot's global state. `figure_parts` cuts rows with
many panels into parts of a figure each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from toolkit.data.names import plot_text
from toolkit.report.order import varying_keys
from toolkit.report.styles import (
    MOST_PANELS,
    OPEN_GREY,
    SURFACE,
    TEXT_GREY,
    eps_ticks,
    is_leftmost,
    label_of,
    look_of,
    panel_grid,
    paper_style,
    set_title,
    shared_legend,
)
from toolkit.report.tables import margin_gaps, sample_shares

PANEL_KEYS = ["network", "network_digest", "dataset", "norm", "domain", "layer_bounds"]
EPS_LABEL = "ε (radius, input units)"
DECADES_SHOWN = 1e-5  # of the largest gap: smaller ones are drawn as 0
COUNTED = 10  # samples a panel: up to so many the certified share is marked in whole samples


def certified_curve(rows: pd.DataFrame) -> Figure:
    """Share of samples each rung certifies against ε, and the share an attack could not refute.

    The first is a lower bound of the robust accuracy on these samples, the second an upper bound. Between the share
    that any rung certifies and the share without a known counterexample the panel is hatched: undecided. Few samples
    (COUNTED) are counted.
    """
    gaps = margin_gaps(rows)
    counts = set(gaps.groupby(PANEL_KEYS, dropna=False)["sample"].nunique())
    count = counts.pop() if len(counts) == 1 else COUNTED + 1

    def panel(axes: Axes, part: pd.DataFrame) -> None:
        _certified_panel(axes, part)
        if count <= COUNTED:
            axes.set_yticks([k / count for k in range(count + 1)], [str(k) for k in range(count + 1)])

    label = f"certified of {count} samples" if count <= COUNTED else "certified share of samples"
    return draw_panels(gaps, panel, EPS_LABEL, label, share_y=True)


def figure_parts(gaps: pd.DataFrame, networks: Sequence[str] = ()) -> list[pd.DataFrame]:
    """The rows of every figure, of at most MOST_PANELS panels each and as many as can be.

    networks: their order, in which figures are filled; by name if none is given.
    """
    order = {name: k for k, name in enumerate(networks)}
    keys = gaps[PANEL_KEYS].drop_duplicates()
    keys = keys.assign(place=keys["network"].map(order).fillna(len(order))).sort_values(["place", *PANEL_KEYS])
    keys = keys[PANEL_KEYS]
    figures = -(-len(keys) // MOST_PANELS)
    ends = np.linspace(0, len(keys), figures + 1).round().astype(int)
    parts = (keys.iloc[low:high] for low, high in pairwise(ends))
    return [gaps.merge(part, on=PANEL_KEYS, how="inner") for part in parts]


def gap_against_unstable(rows: pd.DataFrame) -> Figure:
    """Gap m* − bound of every lower rung, mean over targets, against unstable neurons: a point per sample and ε."""
    return draw_panels(margin_gaps(rows), _gap_panel, "unstable neurons", "m* − bound (logits)")


def time_per_rung(rows: pd.DataFrame) -> Figure:
    """Seconds per margin of l,u and every rung, log scale: a point per margin, quartile boxes, whiskers 5–95 %."""
    return draw_panels(margin_gaps(rows), _time_panel, "", "time per margin (s)", share_y=True)


def draw_panels(
    gaps: pd.DataFrame,
    draw_panel: Callable[[Axes, pd.DataFrame], None],
    x_label: str,
    y_label: str,
    share_y: bool = False,
    remarks: Mapping[str, str] | None = None,
) -> Figure:
    """A figure of `draw_panel` on every part of the gaps, titles, labels and one legend with remarks included."""
    parts = list(panel_parts(gaps))
    with paper_style():
        figure, panels = panel_grid(len(parts), share_y)
        for panel, (title, part) in zip(panels, parts, strict=True):
            set_title(panel, title)
            draw_panel(panel, part)
            panel.set_xlabel(x_label)
            if is_leftmost(panel):
                panel.set_ylabel(y_label)
        shared_legend(figure, panels, remarks)
    return figure


def panel_parts(gaps: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Title and rows of every panel; the title names the network, whatever else varies, and counts the samples."""
    varying = varying_keys(gaps)
    for _, part in gaps.groupby(PANEL_KEYS, dropna=False, sort=True):
        first = part.iloc[0]
        names = ", ".join(str(first[key]) for key in ["network", *varying])
        count = part["sample"].nunique()
        yield f"{names} ({count} sample{'s' * (count != 1)})", part


def present_rungs(gaps: pd.DataFrame) -> list[str]:
    """Names of the rungs with rows, in rung order."""
    return [str(name) for name in gaps["rung"].cat.categories if (gaps["rung"] == name).any()]


def say_no_exact(panel: Axes) -> None:
    """Fill a panel that has no gap to show."""
    say_instead(panel, "no exact rung ran: gaps unknown")


def say_instead(panel: Axes, reason: str) -> None:
    """Fill a panel that has nothing to show."""
    panel.text(0.5, 0.5, reason, transform=panel.transAxes, ha="center", color=TEXT_GREY)
    panel.set_yticks([])


def _certified_panel(panel: Axes, gaps: pd.DataFrame) -> None:
    """Weaker rungs get wider lines and larger hollow markers, so that equal curves stay visible one inside another."""
    rungs, shares = present_rungs(gaps), sample_shares(gaps)
    sides = dict(zip(shares["rung"].astype(str), shares["side"], strict=True))
    rates = shares.groupby(["rung", "side", "eps"], observed=True, as_index=False)[["certified", "refuted"]].mean()
    per_sample = shares.groupby(["sample", "label", "eps"], as_index=False)[["certified", "refuted"]].max()
    overall = per_sample.groupby("eps")[["certified", "refuted"]].mean().astype(float)
    survived = 1 - overall["refuted"]
    if (survived > overall["certified"]).any():
        panel.fill_between(
            overall.index, overall["certified"], survived,
            facecolor="none", edgecolor=OPEN_GREY, hatch="/////", linewidth=0, label="undecided",
        )  # fmt: skip
    for k, name in enumerate(rungs):
        look, own = look_of(name, rungs), rates[rates["rung"] == name]
        upper = sides[name] == "upper"
        weaker = 0 if upper else min(3, sum(sides[other] != "upper" for other in rungs[k + 1 :]))
        panel.plot(
            own["eps"],
            1 - own["refuted"] if upper else own["certified"],
            color=look.color,
            marker=look.marker,
            linestyle=look.linestyle,
            markersize=look.marker_size + 1.4 * weaker,
            markerfacecolor="none" if weaker else look.color,
            linewidth=1.2 + 0.6 * weaker,
            label=f"not refuted by {name}" if upper else label_of(name),
            zorder=3 + 0.1 * k,
        )
    eps_ticks(panel)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panel.set_ylim(-0.04, 1.04)


def _gap_panel(panel: Axes, gaps: pd.DataFrame) -> None:
    """Hollow points on a log axis, with a linear stretch down to 0 where some gap is 0."""
    rungs = present_rungs(gaps)
    lower = gaps[(gaps["side"] == "lower") & gaps["gap"].notna()]
    points = lower.groupby(["rung", "sample", "eps"], observed=True, as_index=False).agg(
        unstable=("unstable", "first"), gap=("gap", "mean")
    )
    if points.empty:
        say_no_exact(panel)
        return
    least = DECADES_SHOWN * float(points["gap"].max())
    positive = points.loc[points["gap"] > least, "gap"]
    threshold = float(positive.min()) if not positive.empty else 1.0
    for name in rungs:
        look, own = look_of(name, rungs), points[points["rung"] == name]
        if own.empty:
            continue
        panel.plot(
            own["unstable"], own["gap"].where(own["gap"] > least, 0.0), linestyle="", marker=look.marker,
            color=look.color, markerfacecolor="none", markersize=look.marker_size + 0.5, markeredgewidth=0.9,
            alpha=0.8, clip_on=False, label=label_of(name), zorder=3,
        )  # fmt: skip
    panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if positive.size == points.shape[0]:
        panel.set_yscale("log")
        return
    panel.set_yscale("symlog", linthresh=threshold, linscale=0.4)
    decades = np.arange(np.ceil(np.log10(threshold)), np.ceil(np.log10(max(least / DECADES_SHOWN, threshold))) + 1)
    panel.set_yticks([0.0, *(10.0**decades)])
    panel.minorticks_off()
    panel.set_ylim(bottom=0)


def _time_panel(panel: Axes, gaps: pd.DataFrame) -> None:
    rungs = present_rungs(gaps)
    samples = gaps.groupby(["sample", "label", "eps"], as_index=False).agg(
        total=("bounds_seconds", "first"), targets=("target", "nunique")
    )
    strips = [("l,u", samples["total"] / samples["targets"], TEXT_GREY)]
    strips += [
        (label_of(name), gaps.loc[gaps["rung"] == name, "seconds"], look_of(name, rungs).color) for name in rungs
    ]
    panel.set_yscale("log")
    for k, (_, seconds, color) in enumerate(strips):
        values = seconds[seconds > 0].to_numpy()
        if not values.size:
            continue
        offsets = np.random.default_rng(0).permutation(np.linspace(-0.28, 0.28, values.size))
        faint = 0.35 if values.size < 300 else 0.15
        panel.plot(k + offsets, values, linestyle="", marker=".", markersize=2.2, color=color, alpha=faint)
        panel.boxplot(
            values, positions=[k], widths=0.62, showfliers=False, whis=(5, 95),
            boxprops={"edgecolor": color, "facecolor": (SURFACE, 0.6)}, medianprops={"color": color, "linewidth": 1.8},
            whiskerprops={"color": color}, capprops={"color": color}, patch_artist=True, zorder=3,
        )  # fmt: skip
    panel.set_xticks(range(len(strips)), [plot_text(label) for label, _, _ in strips])
    if len(strips) > 6:
        panel.tick_params(axis="x", rotation=55)
    panel.set_xlim(-0.6, len(strips) - 0.4)
    panel.minorticks_off()
