"""The HTML report's interactive curves as Plotly's own data structures: plain dictionaries, no Plotly import."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from toolkit.data.names import plotly_text
from toolkit.report.plots import EPS_LABEL, panel_parts, present_rungs
from toolkit.report.styles import label_of, look_of, on_dark
from toolkit.report.tables import sample_shares

Trace = dict[str, Any]
SYMBOLS = {
    "<": "triangle-left", ">": "triangle-right", "^": "triangle-up", "v": "triangle-down", "p": "pentagon",
    "P": "cross", "s": "square", "D": "diamond", "d": "diamond-tall", "o": "circle", "X": "x", "*": "star",
    "1": "y-down-open", "h": "hexagon", "8": "octagon",
}  # fmt: skip
SHAPES = {
    "triangle-left": "M20 1V11L10 6Z", "triangle-right": "M10 1V11L20 6Z", "triangle-up": "M15 1L20 10H10Z",
    "triangle-down": "M15 11L20 2H10Z", "pentagon": "M15 1L20 5L18 11H12L10 5Z", "square": "M11 2H19V10H11Z",
    "cross": "M13 1H17V4H20V8H17V11H13V8H10V4H13Z", "diamond": "M15 0L21 6L15 12L9 6Z",
    "diamond-tall": "M15 0L19 6L15 12L11 6Z", "circle": "M15 1A5 5 0 1 1 14.9 1Z", "star": (
        "M15 0L16.5 4.4H21L17.4 7.2L18.7 12L15 9.1L11.3 12L12.6 7.2L9 4.4H13.5Z"
    ), "x": "M10 3L12 1L15 4L18 1L20 3L17 6L20 9L18 11L15 8L12 11L10 9L13 6Z", "y-down": "M15 6V12M15 6L10 2M15 6L20 2",
    "hexagon": "M15 0L20 3V9L15 12L10 9V3Z", "octagon": "M13 1H17L20 4V8L17 11H13L10 8V4Z",
}  # fmt: skip  # of a legend's marker, in a box of 30 × 12
DASHES = {"solid": "", "dot": "1 3", "dash": "5 3"}  # of a legend's line, in SVG's words
TITLES = ("mean margin bound (logits)", "mean gap m* − bound (logits)", "certified share of samples")


def curve_panels(gaps: pd.DataFrame) -> list[dict[str, Any]]:
    """Per panel (network, and data set, norm, domain, l,u chain where they vary): title, legend, data and layout.

    Three plots against ε that share a legend: mean bound of every rung, mean gap m* − bound, certified share. Means
    are over samples and targets with a finite bound.
    """
    return [plot_panel(title, _traces(part), _axes(), _summary(title, part)) for title, part in panel_parts(gaps)]


def plot_panel(title: str, data: list[Trace], axes: dict[str, Any], summary: str) -> dict[str, Any]:
    """One panel of a page. axes: those of every plot in it, side by side or below each other, as the page is wide.

    The legend is the page's, a button per group of traces, so that it never lies over the data and a keyboard reaches
    it. Colours are given for light and dark pages.
    """
    first = {str(trace["legendgroup"]): trace for trace in reversed(data)}
    entries = [
        {"group": group, "name": trace["meta"]["name"], **trace["meta"], "dash": DASHES[trace["line"]["dash"]],
         **_marker(str(trace["marker"]["symbol"]))}
        for group, trace in reversed(first.items())
    ]  # fmt: skip
    layout: dict[str, Any] = {
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "hovermode": "x unified",
        "showlegend": False,
        **axes,
    }
    plots = sum(name.startswith("xaxis") for name in axes)
    return {"title": title, "plots": plots, "legend": entries, "data": data, "layout": layout, "summary": summary}


def _marker(symbol: str) -> dict[str, Any]:
    base = symbol.removesuffix("-open")
    return {"shape": SHAPES.get(base, ""), "hollow": symbol != base}


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
        traces += [_trace(name, rungs, k, x, y) for k, (x, y) in enumerate(series) if y.notna().any()]
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
        "meta": {"name": label_of(name), "light": look.color, "dark": on_dark(look.color)},
        "line": {"color": look.color, "dash": dash, "width": 1.6 + 0.9 * weaker},
        "marker": {"symbol": symbol, "size": 7 + 2 * weaker, "color": look.color, "line": {"width": 1.6}},
        "hovertemplate": f"{plotly_text(label_of(name))}: {value}<extra></extra>",
    }


def _numbers(values: pd.Series[float]) -> list[float | None]:
    """JSON has no NaN: a gap in the curve is null."""
    return [float(value) if math.isfinite(value) else None for value in values]


def axis_of(title: str, place: str, **more: Any) -> dict[str, Any]:
    """An axis as every plot has it; place: the other axis, which it stands on. The page gives it colours."""
    return {"ticks": "outside", "automargin": True, "title": {"text": title}, "anchor": place, **more}


def _axes() -> dict[str, Any]:
    """Everything but the places of the three plots, which the page sets by its width."""
    axes: dict[str, Any] = {}
    for k, title in enumerate(TITLES, start=1):
        name = "" if k == 1 else str(k)
        axes[f"xaxis{name}"] = axis_of(EPS_LABEL, f"y{name}", rangemode="tozero")
        axes[f"yaxis{name}"] = axis_of(title, f"x{name}", zeroline=True, zerolinewidth=1.5)
    axes["yaxis2"]["rangemode"] = "tozero"
    axes["yaxis3"] |= {"range": [-0.03, 1.03], "tickformat": ".0%"}
    return axes


def _summary(title: str, gaps: pd.DataFrame) -> str:
    """What a reader who cannot see the curves is told; the numbers are in the gap table."""
    radii = gaps["eps"]
    return (
        f"{title}: mean margin bound, gap to m* and certified share of {', '.join(present_rungs(gaps))} "
        f"for ε from {radii.min():g} to {radii.max():g}. The gap table below holds the same numbers."
    )
