"""A reproduction's cells as tables: ours beside the published, the difference, confidence, images and times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import pandas as pd
from scipy.stats import binomtest

from toolkit.runs.tables.entries import published_text
from toolkit.runs.tables.errors import ErrorCell
from toolkit.runs.tables.radii import RadiusCell

CONFIDENCE = 0.95


def errors_table(cells: Sequence[ErrorCell], full: Mapping[str, int]) -> pd.DataFrame:
    """One line per cell. difference = ours − published; where either is an interval, the distance between them.

    full: images of every row's test set. ci_low, ci_high: the Clopper-Pearson 95 % interval of the whole test set's
    error for cells measured on fewer images (taken as a random draw); of [attacked, error] where that was left open.
    NaN where all images were asked.
    """
    table = pd.DataFrame([asdict(cell) for cell in cells])
    lines = []
    for cell in cells:
        low = cell.attacked if _is_last(cell, cells) else cell.error
        partial = cell.images < full[cell.row]
        lines.append(
            {
                "difference": _difference((low, cell.error), cell.published),
                "ci_low": _confidence(low, cell.images)[0] if partial else math.nan,
                "ci_high": _confidence(cell.error, cell.images)[1] if partial else math.nan,
                "published": published_text(cell.published),
            }
        )
    return table.drop(columns="published").join(pd.DataFrame(lines))


def _is_last(cell: ErrorCell, cells: Sequence[ErrorCell]) -> bool:
    """Whether a cell is its row's last, which says how much of the error is real."""
    return [other for other in cells if other.row == cell.row][-1] is cell


def _confidence(percent: float, images: int) -> tuple[float, float]:
    count = round(percent / 100 * images)
    found = binomtest(count, images).proportion_ci(CONFIDENCE, method="exact")
    return 100 * float(found.low), 100 * float(found.high)


def _difference(ours: tuple[float, float], published: float | tuple[float, float] | None) -> float:
    """Ours − published for numbers; 0 for overlapping intervals, else how far apart they are."""
    if published is None:
        return math.nan
    low, high = published if isinstance(published, tuple) else (published, published)
    if not isinstance(published, tuple) and ours[0] == ours[1]:
        return ours[0] - published
    return max(ours[0] - high, 0.0) + min(ours[1] - low, 0.0)


def radii_table(cells: Sequence[RadiusCell]) -> pd.DataFrame:
    """One line per cell. difference = ours − published, relative = difference/published."""
    table = pd.DataFrame([asdict(cell) for cell in cells])
    table["published"] = table["published"].astype(float)
    table["difference"] = table["value"] - table["published"]
    table["relative"] = table["difference"] / table["published"]
    return table
