"""Bisection on verdicts: what is known of a radius while it is searched for, and the orders in which ε is asked."""

from __future__ import annotations

import math
from collections.abc import Callable

from toolkit.arrays import FloatArray
from toolkit.problems.answers import Verdict
from toolkit.verify.certification import Certification

ATTACK_HALVINGS = 12  # of the largest ε, until an attack succeeds


def is_narrow(low: float, high: float, tolerance: float, relative: float = 0.0) -> bool:
    """Whether [low, high] is no wider than the larger of tolerance and relative·high, or its ends are neighbours;
    without an upper end it never is."""
    return high < math.inf and (high - low <= max(tolerance, relative * high) or 0.5 * (low + high) in (low, high))


class Bisection:
    """What is known of the radius while it is searched for: [certified, refuted], and every verdict so far.

    tolerance, relative: intervals [low, high] are narrowed to the larger of tolerance and relative·high. moved: takes
    a NO's witness nearer and says how far it is; None: it counts as far as the ε asked. stop: whether to ask no more.
    """

    def __init__(
        self,
        verdict: Callable[[float], Certification],
        tolerance: float,
        certified: float,
        refuted: float,
        relative: float = 0.0,
        moved: Callable[[FloatArray], tuple[FloatArray, float]] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.verdict, self.tolerance, self.relative = verdict, tolerance, relative
        self.certified, self.refuted = certified, refuted
        self.witness: FloatArray | None = None
        self.tried: list[tuple[float, Verdict]] = []
        self._moved, self._stop = moved, stop

    def ask(self, eps: float) -> Verdict:
        """The verdict at ε, which moves one of the two ends unless it is MAYBE."""
        answer = self.verdict(eps)
        self.tried.append((eps, answer.verdict))
        if answer.verdict is Verdict.YES:
            self.certified = eps
        elif answer.verdict is Verdict.NO:
            point, distance = answer.witness, eps
            if self._moved is not None and point is not None:
                point, distance = self._moved(point)
            self.witness, self.refuted = point, min(eps, distance)
        return answer.verdict

    def begin(self, largest: float) -> None:
        """Ask at the largest ε, if that is open."""
        if self.refuted > largest and self.certified < largest and not self._stop():
            self.ask(largest)

    def climb(self, largest: float) -> float:
        """The least ε that was no YES, or the largest: where no witness is known, ε doubles until it is in doubt."""
        eps = 2.0 * self.certified or 0.5**ATTACK_HALVINGS * largest
        while self.refuted > largest > self.certified and not self._stop():
            eps = min(eps, largest)
            if self.ask(eps) is not Verdict.YES:
                return min(eps, self.refuted)
            eps *= 2.0
        return min(self.refuted, largest)

    def first_no(self, largest: float) -> None:
        """Ask at ever smaller ε until there is a NO: attacks on too large a ball miss what is near."""
        eps = largest
        for _ in range(ATTACK_HALVINGS):
            if self.refuted <= largest or eps <= self.certified or self._stop():
                return
            self.ask(eps)
            eps *= 0.5

    def below_refuted(self) -> None:
        """Ask just below the nearest witness: where that is the nearest of all, one YES closes the interval."""
        eps = self.refuted - 0.9 * max(self.tolerance, self.relative * self.refuted)
        if self.certified < eps < self.refuted < math.inf and not self._closed(self.certified, self.refuted):
            self.ask(eps)

    def largest_yes(self, largest: float) -> None:
        """Bisect between the largest YES and the least ε that was none."""
        not_yes = min(self.refuted, largest)
        while not self._closed(self.certified, not_yes):
            if self.ask(0.5 * (self.certified + not_yes)) is not Verdict.YES:
                not_yes = min(self.tried[-1][0], self.refuted)

    def smallest_no(self) -> None:
        """Bisect between the largest ε that was no NO and the smallest NO, if there is one."""
        while self.refuted < math.inf:
            maybes = (eps for eps, found in self.tried if found is Verdict.MAYBE and eps < self.refuted)
            open_to = max([self.certified, *maybes])
            if self._closed(open_to, self.refuted):
                return
            self.ask(0.5 * (open_to + self.refuted))

    def _closed(self, low: float, high: float) -> bool:
        """Whether nothing is left to ask between the two: near enough, neighbouring floats, or no time."""
        return is_narrow(low, high, self.tolerance, self.relative) or self._stop()
