"""The certified radius: the largest ε a ladder certifies for a sample, and the smallest at which it finds a witness.

Being free of adversarial examples is monotone in ε, so both sides close in by bisection on the verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from toolkit.balls import LinfBall
from toolkit.certify import LADDER, Certification, certify
from toolkit.network import Network
from toolkit.problem import Settings, Verdict


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
    label: int,
    ladder: Sequence[str] = LADDER,
    largest: float = 0.5,
    tolerance: float = 1e-3,
    domain: tuple[float, float] | None = None,
    bounds: Sequence[str] = ("interval", "dual"),
    tighten: Sequence[str] = ("lp",),
    settings: Settings | None = None,
    time_limit: float | None = None,
) -> Radius:
    """Bisect ε in [0, largest] to `tolerance` from both sides.

    Claim: certified ≤ the exact radius ≤ refuted. First the largest YES, then the smallest NO between it and the least
    ε that was not a YES. time_limit: seconds per verdict. Raises ValueError unless 0 < tolerance < largest, or as
    certify.
    """
    if not 0 < tolerance < largest:
        raise ValueError(f"need 0 < tolerance < largest, got tolerance = {tolerance} and largest = {largest}")
    tried: list[tuple[float, Verdict]] = []

    def ask(eps: float) -> Verdict:
        ball = LinfBall(center, eps, domain)
        answer: Certification = certify(network, ball, label, ladder, bounds, tighten, settings, time_limit)
        tried.append((eps, answer.verdict))
        return answer.verdict

    yes, other = 0.0, largest
    if ask(largest) is Verdict.YES:
        yes = largest
    while other - yes > tolerance and yes < largest:
        middle = 0.5 * (yes + other)
        if ask(middle) is Verdict.YES:
            yes = middle
        else:
            other = middle
    refuted = min((eps for eps, verdict in tried if verdict is Verdict.NO), default=float("inf"))
    open_to = yes
    while refuted - max(open_to, yes) > tolerance and refuted < float("inf"):
        open_to = max([open_to, *(eps for eps, verdict in tried if verdict is Verdict.MAYBE and eps < refuted)])
        if refuted - open_to <= tolerance:
            break
        middle = 0.5 * (open_to + refuted)
        if ask(middle) is Verdict.NO:
            refuted = middle
        else:
            open_to = middle
    return Radius(yes, refuted, tuple(tried))
