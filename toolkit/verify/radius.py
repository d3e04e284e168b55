"""The certified radius: the largest ε a ladder certifies for a sample, and the smallest at which it finds a witness.

Being free of adversarial examples is monotone in ε, so both sides close in by bisection on the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from toolkit.data.arguments import instance, real_number, shown
from toolkit.networks.network import Network
from toolkit.problems.answers import Verdict
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.properties import Property, as_property
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rungs
from toolkit.rungs.rung import Rung, Side
from toolkit.verify.ladder import LADDER, certify


@dataclass(frozen=True)
class Radius:
    """The exact robustness radius lies in [certified, refuted].

    certified: largest ε tried with verdict YES (0 if none); refuted: smallest ε tried with verdict NO (inf if none);
    tried: every (ε, verdict) in order.
    """

    certified: float
    refuted: float
    tried: tuple[tuple[float, Verdict], ...]

    @property
    def gap(self) -> float:
        """refuted − certified: what the ladder leaves open."""
        return self.refuted - self.certified


def certified_radius(
    network: Network,
    center: ArrayLike,
    label: int | Property,
    ladder: Sequence[Rung | str] = LADDER,
    largest: float = 0.5,
    tolerance: float = 1e-3,
    domain: tuple[float, float] | None = None,
    bounds: Sequence[Rung | str] = ("interval", "dual"),
    tighten: Sequence[Rung | str] = ("lp",),
    settings: Settings | None = None,
    time_limit: float | None = None,
    known: tuple[float, float] = (0.0, float("inf")),
) -> Radius:
    """Bisect ε in [0, largest] to `tolerance` from both sides.

    Claim: certified ≤ the exact radius ≤ refuted. First the largest YES (a ladder of attacks alone has none), then, if
    the ladder has an attack or an exact rung, the smallest NO between it and the least ε that was not a YES.
    time_limit: seconds per verdict. known: (certified, refuted), between which the radius is known to lie; not asked
    again. Raises ValueError unless 0 < tolerance < largest and 0 ≤ known[0] ≤ known[1], or as certify.
    """
    question = as_property(label, instance("network", network, Network).output_size)
    rungs = get_rungs("ladder", ladder)
    largest, tolerance = real_number("largest", largest), real_number("tolerance", tolerance)
    if not 0 < tolerance < largest:
        raise ValueError(f"need 0 < tolerance < largest, got tolerance = {tolerance} and largest = {largest}")
    certified, refuted = _checked_interval(known)

    def ask(eps: float) -> Verdict:
        ball = LinfBall(center, eps, domain)
        return certify(network, ball, question, rungs, bounds, tighten, settings, time_limit).verdict

    search = _Bisection(ask, tolerance, certified, refuted)
    search.begin(largest)
    sides = {rung.side for rung in rungs}
    if sides != {Side.UPPER}:
        search.largest_yes(largest)
    if sides != {Side.LOWER}:
        search.smallest_no()
    return Radius(search.certified, search.refuted, tuple(search.tried))


def _checked_interval(known: tuple[float, float]) -> tuple[float, float]:
    if not isinstance(known, Sequence) or len(known) != 2:
        raise ValueError(f"known must be (certified, refuted), got {shown(known)}")
    certified, refuted = real_number("known", known[0]), real_number("known", known[1])
    if not 0 <= certified <= refuted:
        raise ValueError(f"known must be (certified, refuted) with 0 ≤ certified ≤ refuted, got {(certified, refuted)}")
    return certified, refuted


class _Bisection:
    """What is known of the radius while it is searched for: [certified, refuted], and every verdict so far."""

    def __init__(self, verdict: Callable[[float], Verdict], tolerance: float, certified: float, refuted: float) -> None:
        self.verdict, self.tolerance = verdict, tolerance
        self.certified, self.refuted = certified, refuted
        self.tried: list[tuple[float, Verdict]] = []

    def ask(self, eps: float) -> Verdict:
        """The verdict at ε, which moves one of the two ends unless it is MAYBE."""
        found = self.verdict(eps)
        self.tried.append((eps, found))
        if found is Verdict.YES:
            self.certified = eps
        elif found is Verdict.NO:
            self.refuted = eps
        return found

    def begin(self, largest: float) -> None:
        """Ask at the largest ε, if that is open."""
        if self.refuted > largest and self.certified < largest:
            self.ask(largest)

    def largest_yes(self, largest: float) -> None:
        """Bisect between the largest YES and the least ε that was none."""
        not_yes = min(self.refuted, largest)
        while not_yes - self.certified > self.tolerance:
            middle = 0.5 * (self.certified + not_yes)
            if middle in (
                self.certified,
                not_yes,
            ):  # neighbours: no float lies between
                return
            if self.ask(middle) is not Verdict.YES:
                not_yes = middle

    def smallest_no(self) -> None:
        """Bisect between the largest ε that was no NO and the smallest NO, if there is one."""
        while self.refuted < float("inf"):
            maybes = (eps for eps, found in self.tried if found is Verdict.MAYBE and eps < self.refuted)
            open_to = max([self.certified, *maybes])
            middle = 0.5 * (open_to + self.refuted)
            if self.refuted - open_to <= self.tolerance or middle in (open_to, self.refuted):
                return
            self.ask(middle)
