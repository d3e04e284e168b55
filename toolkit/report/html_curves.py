"""The HTML report's interactive curves as Plotly's own data structures: plain dictionaries, no Plotly import."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from toolkit.data.names import plotly_text
from toolkit.report.plots import EPS_LABEL, panel_parts, present_rungs
from toolkit.report.styles import GRID_GREY, INK, TEXT_GREY, label_of, look_of
from toolkit.report.tables import sample_shares

Trace = dict[str, Any]
SYMBOLS = {
    "<": "triangle-left", ">": "triangle-right", "^": "triangle-up", "v": "triangle-down", "p": "pentagon",
    "P": "cross", "s": "square", "D": "diamond", "d": "diamond-tall", "o": "circle", "X": "x", "*": "star",
    "1": "y-down-open", "h": "hexagon", "8": "octagon",
}  # fmt: skip
TITLES = ("mean margin bound (logits)", "mean gap m* − bound (logits)", "certified share of samples")


def curve_panels(gaps: pd.DataFrame) -> list[dict[str, Any]]:
    """Per panel (network, and data set, norm, domain, l,u chain where they vary): title, Plotly data and layout.

    Three plots against ε that share a legend: mean bound of every rung, mean gap m* − bound, certified share. Means
    are over samples and targets with a finite bound.
    """
    return [
        {"title": title, "data": _traces(part), "layout": _layout(), "summary": _summary(title, part)}
        for title, part in panel_parts(gaps)
    ]


def _traces(gaps: pd.DataFrame) -> list[Trace]:
    exact = gaps["m_high"].where(gaps["side"] == "exact", gaps["lower"])
    bound = gaps["upper"].where(gaps["side"] == "upper", exact)
    shown = gaps.assign(bound=bound.where(np.isfinite(bound)))
    means = shown.groupby(["rung", "eps"], observed=True)[["bound", "gap"]].mean().reset_index()
    shares = sample_shares(gaps).groupby(["rung", "side", "eps"], observed=True, as_index=False)
    rates = shares[["certified", "refuted"]].mean()
    traces, rungs = [], present_rungs(gaps)
    for name in rungs:
        own, share = means[means["rung"] == name], rates[rates["rung"] == name]
        upper = (share["side"] == "upper").all()
        third = 1 - share["refuted"] if upper else share["certified"]
        series = [(own["eps"], own["bound"]), (own["eps"], own["gap"]), (share["eps"], third)]
        if upper or (share["side"] == "exact").all():
            series[1] = (own["eps"].iloc[:0], own["gap"].iloc[:0])  # an upper bound or m* itself has no gap to it
        found = [_trace(name, rungs, k, x, y) for k, (x, y) in enumerate(series) if y.notna().any()]
        for k, trace in enumerate(found):
            trace["showlegend"] = k == 0
        traces += found
    return traces


def _trace(name: str, rungs: list[str], plot: int, x: pd.Series[float], y: pd.Series[float]) -> Trace:
    """One curve; weaker rungs get wider lines and larger hollow markers, to be seen around an equal curve on top."""
    weaker = min(3, len(rungs) - 1 - rungs.index(name))
    look, axis = look_of(name, rungs), "" if plot == 0 else str(plot + 1)
    dash = "solid" if look.linestyle == "-" else "dot" if look.linestyle == (0, (1, 1)) else "dash"
    symbol = SYMBOLS[look.marker].removesuffix("-open") + ("-open" if weaker or look.marker == "1" else "")
    value = "%{y:.0%}" if plot == 2 else "%{y:.4g}"
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plotly_text(label_of(name)),
        "legendgroup": name,
        "x": _numbers(x),
        "y": _numbers(y),
        "xaxis": f"x{axis}",
        "yaxis": f"y{axis}",
        "line": {"color": look.color, "dash": dash, "width": 1.6 + 0.9 * weaker},
        "marker": {"symbol": symbol, "size": 7 + 2 * weaker, "color": look.color, "line": {"width": 1.6}},
        "hovertemplate": f"{plotly_text(label_of(name))}: {value}<extra></extra>",
    }


def _numbers(values: pd.Series[float]) -> list[float | None]:
    """JSON has no NaN: a gap in the curve is null."""
    return [float(value) if math.isfinite(value) else None for value in values]


def _layout() -> dict[str, Any]:
    """Everything but the places of the three plots, which the page sets by its width."""
    axis = {"gridcolor": GRID_GREY, "linecolor": TEXT_GREY, "ticks": "outside", "automargin": True}
    layout: dict[str, Any] = {
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "hovermode": "x unified",
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "groupclick": "togglegroup"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
    }
    for k, title in enumerate(TITLES, start=1):
        name = "" if k == 1 else str(k)
        layout[f"xaxis{name}"] = {**axis, "title": {"text": EPS_LABEL}, "anchor": f"y{name}", "rangemode": "tozero"}
        layout[f"yaxis{name}"] = {**axis, "title": {"text": title}, "anchor": f"x{name}", "zeroline": True,
                                  "zerolinecolor": TEXT_GREY, "zerolinewidth": 1.5}  # fmt: skip
    layout["yaxis2"]["rangemode"] = "tozero"
    layout["yaxis3"] |= {"range": [-0.03, 1.03], "tickformat": ".0%"}
    return layout


def _summary(title: str, gaps: pd.DataFrame) -> str:
    """What a reader who cannot see the curves is told; the numbers are in the gap table."""
    radii = gaps["eps"]
    return (
        f"{title}: mean margin bound, gap to m* and certified share of {', '.join(present_rungs(gaps))} "
        f"for ε from {radii.min():g} to {radii.max():g}. The gap table below holds the same numbers."
    )
