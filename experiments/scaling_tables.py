"""The tables of scaling.py: medians per cell (network, ε), and how seconds grow with the number of unstable neurons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scaling_costs import CORES, IMAGES

from toolkit.problems.answers import Status
from toolkit.report import pipe_table
from toolkit.report.tables import margin_gaps

CELL = ["network", "width", "depth", "eps"]
CLEAR = 0.02  # of R²: fits closer than that are called equally good


def scaling_cells(rows: pd.DataFrame, shapes: pd.DataFrame) -> pd.DataFrame:
    """One row per (network, ε, rung): medians over samples × targets.

    Columns: network, width, depth, eps, rung, unstable (median over samples), margins, seconds (a margin), gap
    (m* − bound, m* taken as its largest possible value; blank where no exact rung ran), gap_least (m* as the smallest
    possible), tightness, at_limit (share of margins stopped by the clock), censored (at_limit ≥ 1/2: the median
    seconds are a lower limit).
    """
    gaps = margin_gaps(rows)
    gaps["rung"] = gaps["rung"].astype(str)
    stopped = rows.assign(stopped=rows["status"] == Status.TIME_LIMIT.value)
    keys = ["network", "eps", "rung"]
    found = gaps.groupby(keys, as_index=False, sort=False).agg(
        unstable=("unstable", "median"),
        margins=("target", "size"),
        seconds=("seconds", "median"),
        gap=("gap", "median"),
        gap_least=("gap_least", "median"),
        tightness=("tightness", "median"),
    )
    found = found.merge(stopped.groupby(keys, as_index=False).agg(at_limit=("stopped", "mean")), on=keys)
    found = shapes.merge(found, on="network").assign(censored=lambda cells: cells["at_limit"] >= 0.5)
    known = gaps[gaps["exact_ran"]].groupby(["network", "eps"])["target"].size()
    asked = found.set_index(["network", "eps"]).index.isin(known.index)
    found.loc[~asked, ["gap", "gap_least", "tightness"]] = np.nan
    order = {name: k for k, name in enumerate(pd.unique(gaps["rung"]))}
    ordered = found.assign(rank=found["rung"].map(order)).sort_values(["depth", "width", "eps", "rank"])
    first = [*CELL, "rung"]
    return ordered[[*first, *(name for name in found.columns if name not in first)]].reset_index(drop=True)


@dataclass(frozen=True)
class Line:
    """log10 seconds ≈ intercept + slope·x by least squares. slope_error: its standard error. r2: explained share."""

    intercept: float
    slope: float
    slope_error: float
    r2: float


def fit_line(x: ArrayLike, y: ArrayLike) -> Line:
    """Least squares of y on x. Raises ValueError for fewer than three points or a single x."""
    across, up = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    spread = float(((across - across.mean()) ** 2).sum()) if across.size else 0.0
    if across.size < 3 or spread == 0.0:
        raise ValueError(f"a line needs at least three points at different places, got {across.size}")
    slope, intercept = np.polyfit(across, up, 1)
    residual = float(((up - intercept - slope * across) ** 2).sum())
    total = float(((up - up.mean()) ** 2).sum())
    error = float(np.sqrt(residual / (across.size - 2) / spread))
    return Line(float(intercept), float(slope), error, 1 - residual / total if total > 0 else 1.0)


def fit_power(k: ArrayLike, seconds: ArrayLike) -> Line:
    """seconds ≈ c·k^p: intercept = log10 c, slope = p."""
    return fit_line(np.log10(np.asarray(k, dtype=np.float64)), np.log10(np.asarray(seconds, dtype=np.float64)))


def fit_exponential(k: ArrayLike, seconds: ArrayLike) -> Line:
    """log10 seconds ≈ a + b·k: intercept = a, slope = b."""
    return fit_line(k, np.log10(np.asarray(seconds, dtype=np.float64)))


def better_fit(power: Line, exponential: Line) -> str:
    """The fit that explains more; "either" where their R² differ by less than CLEAR."""
    if abs(power.r2 - exponential.r2) < CLEAR:
        return "either"
    return "power" if power.r2 > exponential.r2 else "exponential"


def fit_table(cells: pd.DataFrame) -> pd.DataFrame:
    """Both fits of every rung over its uncensored cells with k ≥ 1, and which explains more.

    Columns: rung, cells, censored, k_least, k_most, c, p, p_error, r2_power, a, b, b_error, r2_exponential, better,
    doubling (unstable neurons that double the time, by the exponential fit). Rungs with fewer than three cells are
    left out.
    """
    found = []
    for name in pd.unique(cells["rung"]):
        own = cells[cells["rung"] == name]
        used = own[~own["censored"] & (own["unstable"] >= 1) & (own["seconds"] > 0)]
        if used["unstable"].nunique() < 3:
            continue
        power = fit_power(used["unstable"], used["seconds"])
        exponential = fit_exponential(used["unstable"], used["seconds"])
        found.append(
            {
                "rung": name,
                "cells": len(used),
                "censored": int(own["censored"].sum()),
                "k_least": used["unstable"].min(),
                "k_most": used["unstable"].max(),
                "c": 10**power.intercept,
                "p": power.slope,
                "p_error": power.slope_error,
                "r2_power": power.r2,
                "a": exponential.intercept,
                "b": exponential.slope,
                "b_error": exponential.slope_error,
                "r2_exponential": exponential.r2,
                "better": better_fit(power, exponential),
                "doubling": np.log10(2) / exponential.slope if exponential.slope > 0 else np.inf,
            }
        )
    return pd.DataFrame(found)


def markdown_report(table: pd.DataFrame, fits: pd.DataFrame, cost: pd.DataFrame, cost_rungs: pd.DataFrame) -> str:
    """All tables as Markdown, in the order in which a reader asks for them."""
    rungs = list(pd.unique(table["rung"]))
    cells = table.set_index([*CELL, "rung"])
    times = (1e3 * cells["seconds"]).unstack("rung")[rungs]
    limited = cells["censored"].unstack("rung").reindex(columns=rungs).fillna(value=False).astype(bool)
    shown_times = times.map(_three).where(~limited, "> " + times.map(_three))
    gaps = cells["gap"].unstack("rung")[rungs].dropna(how="all").map(_three)
    unstable = cells["unstable"].groupby(level=CELL).first().rename("k").map(_three)
    sections = (
        ("Milliseconds a margin (CPU, median; > : stopped by the clock)", shown_times.join(unstable).reset_index()),
        ("Gap m* − bound, logits (median; m* at its largest possible value)", gaps.join(unstable).reset_index()),
        ("Growth with k unstable neurons: seconds = c·k^p, log10 seconds = a + b·k", fits.map(_three)),
        (f"Cost of verdicts of {IMAGES:,} images, from the measured ones, on 1, 100 and 1,000 cores", _costs(cost)),
        ("Rungs of the ladder: share of images reached and settled, CPU seconds", cost_rungs.map(_three)),
    )
    return "\n".join(f"## {title}\n\n{pipe_table(frame)}" for title, frame in sections)


def _costs(cost: pd.DataFrame) -> pd.DataFrame:
    """The cost table with its intervals as text."""
    shown = cost[["network", "measured"]].assign(MAYBE=cost["maybe"].map(lambda share: f"{share:.0%}"))
    shown["CPU ms an image (95 %)"] = [
        f"{1e3 * mean:.3g} ({1e3 * low:.3g} … {1e3 * high:.3g})"
        for mean, low, high in cost[["mean", "mean_low", "mean_high"]].itertuples(index=False)
    ]
    shown["slowest"] = cost["slowest"].map(_duration)
    for cores in CORES:
        ends = zip(
            cost[f"seconds_{cores}_least"].map(_duration), cost[f"seconds_{cores}_most"].map(_duration), strict=True
        )
        unit = "core" if cores == 1 else "cores"
        shown[f"{cores:,} {unit}"] = [low if low == high else f"{low} … {high}" for low, high in ends]
    return shown


def _duration(seconds: float) -> str:
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"


def _three(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return "" if np.isnan(value) else f"{value:.3g}"
