"""The certified radius: the largest ε a ladder certifies for a sample, and the smallest at which it finds a witness.

Being free of adversarial examples is monotone in ε, so both sides close in by bisection on the verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from toolkit.data.arguments import class_label, instance, real_number, shown
from toolkit.networks.network import Network
from toolkit.problems.answers import Verdict
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rungs
from toolkit.rungs.rung import Rung, Side
from toolkit.verify.certification import Certification
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
    label: int,
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
    label = class_label("label", label, instance("network", network, Network).output_size)
    rungs = get_rungs("ladder", ladder)
    largest, tolerance = real_number("largest", largest), real_number("tolerance", tolerance)
    if not 0 < tolerance < largest:
        raise ValueError(f"need 0 < tolerance < largest, got tolerance = {tolerance} and largest = {largest}")
    if not isinstance(known, Sequence) or len(known) != 2:
        raise ValueError(f"known must be (certified, refuted), got {shown(known)}")
    known = (real_number("known", known[0]), real_number("known", known[1]))
    if not 0 <= known[0] <= known[1]:
        raise ValueError(f"known must be (certified, refuted) with 0 ≤ certified ≤ refuted, got {known}")
    tried: list[tuple[float, Verdict]] = []

    def ask(eps: float) -> Verdict:
        ball = LinfBall(center, eps, domain)
        answer: Certification = certify(network, ball, label, rungs, bounds, tighten, settings, time_limit)
        tried.append((eps, answer.verdict))
        return answer.verdict

    certified, refuted = known
    if refuted > largest and certified < largest:
        first = ask(largest)
        certified = largest if first is Verdict.YES else certified
        refuted = largest if first is Verdict.NO else refuted
    not_yes = min(refuted, largest)
    sides = {rung.side for rung in rungs}
    if sides != {Side.UPPER}:
        while not_yes - certified > tolerance:
            middle = 0.5 * (certified + not_yes)
            if middle in (certified, not_yes):  # neighbouring floats: a finer tolerance asks for more than there is
                break
            verdict = ask(middle)
            if verdict is Verdict.YES:
                certified = middle
                continue
            not_yes = middle
            if verdict is Verdict.NO:
                refuted = middle
    while refuted < float("inf") and sides != {Side.LOWER}:
        open_to = max([certified, *(eps for eps, verdict in tried if verdict is Verdict.MAYBE and eps < refuted)])
        if refuted - open_to <= tolerance:
            break
        middle = 0.5 * (open_to + refuted)
        if middle in (open_to, refuted):
            break
        if ask(middle) is Verdict.NO:
            refuted = middle
    return Radius(certified, refuted, tuple(tried))
