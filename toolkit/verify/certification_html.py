"""A certification as a notebook shows it: the verdict, its reason, and every margin's interval as a bar."""

from __future__ import annotations

import math
from collections.abc import Sequence

from toolkit.data.notebook import BAR, CHIPS, escaped, html_table, interval_bar, verdict_chip
from toolkit.data.summaries import number
from toolkit.problems.answers import Bound
from toolkit.verify.verdict import is_safe, is_unsafe

MOST_BARS = 30


def margins_html(
    verdict: object,
    reason: str,
    names: Sequence[str],
    margins: Sequence[Bound],
    decided_by: Sequence[str],
    tolerance: float,
) -> str:
    """The verdict's chip and reason above a table of margins, the least first, at most MOST_BARS of them.

    A bar runs from the proven lower end to the margin at the worst point found; green where certified above the
    tolerance, orange where refuted, grey where open.
    """
    order = least_first(margins, MOST_BARS)
    view = ends_shown([margins[k] for k in order], 0.04)
    rows = []
    for k in order:
        bound, low = margins[k], margins[k].best_lower
        certified, refuted = is_safe(bound.certified_lower, tolerance), is_unsafe(bound.certified_upper)
        colour = CHIPS["YES"] if certified else CHIPS["NO"] if refuted else BAR
        told = f"{names[k]}: margin in [{number(low)}, {number(bound.upper)}]"
        bar = interval_bar(max(low, view[0]), min(bound.upper, view[1]), view, colour, told)
        ends = (escaped(number(low)), escaped(number(bound.certified_lower)), escaped(number(bound.upper)))
        rows.append((escaped(names[k]), bar, *ends, escaped(decided_by[k] or "open")))
    heads = ("", "margin, 0 marked", "lower", "certified", "at worst point", "by")
    left = len(margins) - len(order)
    more = f"<p>the {len(order)} least of {len(margins)} margins</p>" if left else ""
    return f"<div>{verdict_chip(verdict)} {escaped(reason)}{html_table(heads, rows, raw=True)}{more}</div>"


def least_first(margins: Sequence[Bound], most: int) -> list[int]:
    """Places of the least margins, at most so many."""
    return sorted(range(len(margins)), key=lambda k: (margins[k].best_lower, margins[k].upper))[:most]


def ends_shown(margins: Sequence[Bound], share: float) -> tuple[float, float]:
    """Ends of the axis: all that is finite, and 0, with this share of it as room on both sides."""
    ends = [0.0, *(end for one in margins for end in (one.best_lower, one.upper) if math.isfinite(end))]
    room = share * (max(ends) - min(ends)) or 1.0
    return min(ends) - room, max(ends) + room
