"""The best point a search has met, and what a bound must reach, next to it, for a part of the region to be done with.

Tolerances are relative to the objective's drop: from its value at the input set's centre to the root's bound.
"""

from __future__ import annotations

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.problems.answers import Status
from toolkit.problems.settings import Settings

STOP_MARGIN = 1e-8  # of the objective's size: a bound must pass a mark by this much, lest certifying take it back
Point = tuple[FloatArray | None, float]  # x̃ and the objective there; (None, inf): none


def promised_gap(settings: Settings, upper: float, drop: float) -> float:
    """The width at which an interval ending at `upper` counts as closed: relative, or absolute, whichever is larger; 0
    without an end.

    The absolute gap is one of the objective's own drop (its value at the ball's centre less its root bound) where that
    is below 1: the unit of the logits must not decide what counts as solved.
    """
    if not np.isfinite(upper):
        return 0.0
    return max(settings.mip_gap * abs(upper), settings.mip_gap_abs * min(1.0, max(drop, 0.0)))


class Incumbent:
    """The least replayed value of one objective row so far (upper) and its point (witness).

    clean: the value at the centre. drop: the unit of gains and gaps; a size of the objective until `measure` knows.
    """

    def __init__(self, settings: Settings, clean: float, drop: float) -> None:
        self.settings, self.clean, self.drop = settings, clean, drop
        self.upper = np.inf
        self.witness: FloatArray | None = None

    def offer(self, witness: FloatArray | None, value: float) -> None:
        """Keep the point if it is the best so far."""
        if value < self.upper:
            self.upper, self.witness = value, witness

    def measure(self, root_bound: float) -> None:
        """Take the drop to the root's bound, where that is larger, as the unit."""
        if np.isfinite(self.clean - root_bound):
            self.drop = max(self.drop, self.clean - root_bound)

    @property
    def refuted(self) -> bool:
        """Whether a point at or below stop_at is known: there is nothing left to prove."""
        return self.settings.stop_at is not None and self.upper <= self.settings.stop_at

    @property
    def cutoff(self) -> float:
        """A part whose bound reaches this is done with: past stop_at where a sign is asked for, else within the gap.

        With stop_at, no gap closes a part before its sign is proven.
        """
        stop = self.settings.stop_at
        if stop is None or self.upper <= stop:
            return self.upper - self._closing_gap
        return stop + (min(self._margin, 0.5 * (self.upper - stop)) if np.isfinite(self.upper) else self._margin)

    @property
    def solver_cutoff(self) -> float | None:
        """Where a part's relaxation may stop: past the cutoff by what certifying may take off."""
        cutoff = self.cutoff
        return cutoff + self._margin if np.isfinite(cutoff) else None

    def closes(self, bound: float) -> bool:
        """Whether the interval from this bound is closed; never by its width where a sign is asked for."""
        return self.settings.stop_at is None and self.upper - bound <= self._closing_gap

    def status(self, lower: float, finished: bool) -> tuple[Status, str]:
        """What may be said of [lower, upper], and a reason where that is less than was asked for.

        finished: no part was left, or given up, below the cutoff.
        """
        stop = self.settings.stop_at
        if stop is not None and (self.refuted or lower > stop):
            return Status.DECIDED, ""
        if not finished:
            return Status.TIME_LIMIT, ""
        if self.upper - lower <= self._gap:
            return Status.OPTIMAL, ""
        return Status.COMPUTED, "the search is finished, but rounding leaves its interval wider than the gap"

    @property
    def _gap(self) -> float:
        return promised_gap(self.settings, self.upper, self.drop)

    @property
    def _closing_gap(self) -> float:
        """The promised gap less what certifying may take off the bound."""
        gap = self._gap
        return max(gap - self._margin, 0.5 * gap)

    @property
    def _margin(self) -> float:
        """What certifying may take off a bound, with room: relative to the objective's size."""
        return STOP_MARGIN * (self.drop + (abs(self.clean) if np.isfinite(self.clean) else 0.0))
