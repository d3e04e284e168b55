"""The verdict rule, in one place: what may be said of a ball, given what is proven of each margin.

For every target t let lower_t ≤ m*_t ≤ upper_t be proven in real arithmetic, rounding included. Then

    NO     some upper_t ≤ 0: a point of the ball is misclassified (a tie counts);
    YES    every lower_t > tolerance (0 unless asked otherwise);
    MAYBE  neither.

NO comes first: it needs one target, and rests on a point that anyone can replay. Nothing else enters: no float bound of
a rung that does not certify, no solver's word. Only where settings.rigorous is False does the lower bound that a MILP
solver states count as well, for rungs that claim the exact margin; an answer that needed it is marked as trusted.

Used by certify, the command line, sweeps, tables and the HTML report. Trusted: what the bounds themselves trust.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.problems.answers import Bound, Verdict
from toolkit.problems.settings import Settings

EXACT = "exact"  # Side.EXACT

if TYPE_CHECKING:  # reading tables needs this rule and no rung
    from toolkit.rungs.rung import Rung

TOLERANCE = 0.0  # a margin counts as positive above this


def is_safe(lower: Any, tolerance: float = TOLERANCE) -> Any:
    """Whether a proven lower bound shows that no point of the ball reaches class t. Scalars, arrays or columns."""
    return lower > tolerance


def is_unsafe(upper: Any) -> Any:
    """Whether a proven upper bound shows that some point of the ball does. Scalars, arrays or columns."""
    return upper <= 0.0


def verdict(lower: Sequence[float], upper: Sequence[float], tolerance: float = TOLERANCE) -> Verdict:
    """YES, NO or MAYBE from proven bounds of every target's margin, in the same order.

    Raises ValueError without any target: nothing was asked, so nothing may be answered. NaN proves nothing.
    """
    low, high = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    if low.ndim != 1 or low.shape != high.shape or not low.size:
        raise ValueError(f"a verdict needs one lower and one upper bound per target, got {low.shape} and {high.shape}")
    if np.any(is_unsafe(high)):
        return Verdict.NO
    return Verdict.YES if np.all(is_safe(low, tolerance)) else Verdict.MAYBE


def counted_lower(bound: Bound, rung: Rung, settings: Settings) -> float:
    """The lower bound of `bound` that a verdict may count: the certified one, or the solver's where that is trusted."""
    if settings.rigorous or rung.side != EXACT:
        return bound.certified_lower
    return max(bound.certified_lower, bound.lower)
