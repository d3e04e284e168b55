"""A certification as a notebook shows it: the verdict, its reason, and every margin's interval as a bar."""

from __future__ import annotations

import math
from collections.abc import Sequence

from toolkit.data.notebook import BAR, CHIPS, escaped, html_table, interval_bar, verdict_chip
from toolkit.data.summaries import number
from toolkit.problems.answers import Bound

MOST_BARS = 30


def margins_html(
    verdict: object, reason: str, names: Sequence[str], margins: Sequence[Bound], decided_by: Sequence[str]
) -> str:
    """The verdict's chip and reason above a table of margins, the least first, at most MOST_BARS of them.

    A bar runs from the proven lower end to the margin at the worst point found; green where certified > 0, orange where
    refuted, grey where open.
    """
    order = sorted(range(len(margins)), key=lambda k: (_low(margins[k]), margins[k].upper))[:MOST_BARS]
    view = _view([margins[k] for k in order])
    rows = []
    for k in order:
        bound, low = margins[k], _low(margins[k])
        certified, refuted = bound.certified_lower > 0, bound.certified_upper <= 0
        colour = CHIPS["YES"] if certified else CHIPS["NO"] if refuted else BAR
        told = f"{names[k]}: margin in [{number(low)}, {number(bound.upper)}]"
        bar = interval_bar(max(low, view[0]), min(bound.upper, view[1]), view, colour, told)
        ends = (escaped(number(low)), escaped(number(bound.certified_lower)), escaped(number(bound.upper)))
        rows.append((escaped(names[k]), bar, *ends, escaped(decided_by[k] or "open")))
    heads = ("", "margin, 0 marked", "lower", "certified", "at worst point", "by")
    left = len(margins) - len(order)
    more = f"<p>the {len(order)} least of {len(margins)} margins</p>" if left else ""
    return f"<div>{verdict_chip(verdict)} {escaped(reason)}{html_table(heads, rows, raw=True)}{more}</div>"


def _low(bound: Bound) -> float:
    return max(bound.lower, bound.certified_lower)


def _view(margins: Sequence[Bound]) -> tuple[float, float]:
    """Ends of the axis: all that is finite, and 0."""
    ends = [0.0, *(end for one in margins for end in (_low(one), one.upper) if math.isfinite(end))]
    room = 0.04 * (max(ends) - min(ends)) or 1.0
    return min(ends) - room, max(ends) + room
