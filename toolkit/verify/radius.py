"""How far a sample is from being misclassified: an interval that holds the least distance, by bisection on verdicts.

Being free of unsafe points is monotone in ε: a YES at ε puts the least distance at ε or above, a NO at ε or below. One
bisection serves both questions asked here.

- `certified_radius`: a ladder's own radius, the largest ε with a YES and the smallest with a NO.
- `closest`: the minimum distortion itself, in any norm that balls are made of. Attacks first bound it from above and
  cheap rungs from below; what remains open is searched. A witness counts with its distance, not with the ε at which
  it was found, after it was moved along the segment to the centre (nearest.py).

Checked: every witness, by replay and distance in exact arithmetic; every YES as `certify` checks it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray
from toolkit.data.amounts import DataDomain
from toolkit.data.arguments import a_function, instance, optional_number, real_number, shown
from toolkit.data.summaries import counted, number, one_line, span
from toolkit.networks.network import Network
from toolkit.networks.weights import exact_numbers
from toolkit.problems.answers import Verdict
from toolkit.problems.input_sets import make_ball
from toolkit.problems.properties import Property, as_property
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rungs
from toolkit.rungs.rung import Rung, Side
from toolkit.verify.bisection import Bisection, is_narrow
from toolkit.verify.certification import Certification
from toolkit.verify.ladder import LADDER, TIGHTEN, certify
from toolkit.verify.nearest import NORM_ORDER, Unsafe

CLOSEST = ("pgd", "dual", "lp", "exact")
RELATIVE = 1e-3  # of the distance: how narrow `closest` makes the interval unless told
LEAST = 1e-6  # of what `asked_range` calls small: below it no interval is narrowed further
VERDICT_SHARE = 0.25  # of the time left that one verdict may take
NO_TIME = 0.01  # of the time limit: with less left no verdict is asked

RadiusProgress = Callable[[str, float, float], None]  # rung, certified, refuted


@dataclass(frozen=True)
class RungRadius:
    """What one rung showed of the least distance.

    certified: largest ε that it certified, or a rung that it dominates did (0 for an attack); of an exact rung, the
    largest of all. refuted: least distance of a witness known when it was done, its own or another's (inf: none).
    verdicts, seconds: asked and taken.
    """

    rung: str
    certified: float
    refuted: float
    verdicts: int
    seconds: float


@dataclass(frozen=True)
class Radius:
    """The exact robustness radius, the least distance of an unsafe point, lies in [certified, refuted].

    certified: largest ε with verdict YES (0 if none); refuted: smallest ε with verdict NO, of `closest` the least
    distance of a witness, rounded outward (inf if none); tried: every (ε, verdict) in order. witness: the nearest
    unsafe point found. by_rung: of `closest`, what each rung showed, in order.
    """

    certified: float
    refuted: float
    tried: tuple[tuple[float, Verdict], ...]
    witness: FloatArray | None = field(default=None, repr=False, compare=False)
    by_rung: tuple[RungRadius, ...] = ()

    def __repr__(self) -> str:
        witness = "" if self.witness is None else f"witness {span(self.witness)}"
        by = ", ".join(one.rung for one in self.by_rung)
        ends = f"[{number(self.certified)}, {number(self.refuted)}]"
        return one_line("Radius", [ends, counted(len(self.tried), "verdict"), by and f"by {by}", witness])

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
    domain: DataDomain | None = None,
    bounds: Sequence[Rung | str] = ("interval", "dual"),
    tighten: Sequence[Rung | str] = TIGHTEN,
    settings: Settings | None = None,
    time_limit: float | None = None,
    known: tuple[float, float] = (0.0, float("inf")),
    norm: str = "linf",
) -> Radius:
    """Bisect ε in [0, largest] to `tolerance` from both sides.

    Claim: certified ≤ the exact radius ≤ refuted. First the largest YES (a ladder of attacks alone has none), then, if
    the ladder has an attack or an exact rung, the smallest NO between it and the least ε that was not a YES.
    time_limit: seconds per verdict. known: (certified, refuted), between which the radius is known to lie; not asked
    again. Raises ValueError unless 0 < tolerance < largest and 0 ≤ known[0] ≤ known[1], or as certify.
    """
    question = as_property(label, instance("network", network, Network).output_size)
    rungs = get_rungs("ladder", ladder)
    largest, tolerance = _finite_largest(real_number("largest", largest)), real_number("tolerance", tolerance)
    if not 0 < tolerance < largest:
        raise ValueError(f"need 0 < tolerance < largest, got tolerance = {tolerance} and largest = {largest}")
    certified, refuted = _checked_interval(known)

    def ask(eps: float) -> Certification:
        return certify(
            network, make_ball(norm, center, eps, domain), question, rungs, bounds, tighten, settings, time_limit
        )

    search = Bisection(ask, tolerance, certified, refuted)
    search.begin(largest)
    sides = {rung.side for rung in rungs}
    if sides != {Side.UPPER}:
        search.largest_yes(largest)
    if sides != {Side.LOWER}:
        search.smallest_no()
    return Radius(search.certified, search.refuted, tuple(search.tried), search.witness)


def closest(
    network: Network,
    center: ArrayLike,
    label: int | Property,
    norm: str = "linf",
    domain: DataDomain | None = None,
    rungs: Sequence[Rung | str] = CLOSEST,
    time_limit: float | None = None,
    tolerance: float | None = None,
    largest: float | None = None,
    bounds: Sequence[Rung | str] = ("interval", "dual"),
    tighten: Sequence[Rung | str] = TIGHTEN,
    settings: Settings | None = None,
    progress: RadiusProgress | None = None,
) -> Radius:
    """The least distance from `center` to an unsafe point of the domain, as an interval that holds it.

    Claim: certified ≤ min {‖x̃ − center‖ : x̃ in the domain, unsafe} ≤ refuted, the distance of `witness`. Where the gap
    stays open (a time limit, no exact rung, no unsafe point up to `largest`), refuted − certified says by how much.

    label: or a Property. norm: of INPUT_SETS, one whose sets are balls. rungs: in order, each narrowing what those
    before it left; the radius of a lower one is its own, started where rungs that it dominates ended, and an exact one
    is asked after all before it at every ε. List attacks first, then from weak to exact. time_limit: seconds in all,
    of which a verdict gets VERDICT_SHARE of what is left. tolerance: width in input units, None: RELATIVE of the
    distance. largest: ε beyond which nothing is asked, None or more than it: what the domain holds. bounds, tighten,
    settings: as in certify. Raises ValueError for an unknown norm or rung, numbers out of range, and as certify.
    """
    instance("network", network, Network)
    a_function("progress", progress)
    chosen = get_rungs("rungs", rungs)
    flat = exact_numbers("center", center).ravel()
    if flat.size != network.input_size:
        raise ValueError(f"center must have the network's {network.input_size} inputs, got {flat.size}")
    most, scale = asked_range(flat, norm, domain, largest)
    width, limit = optional_number("tolerance", tolerance, above=0), optional_number("time_limit", time_limit, above=0)
    if width == math.inf:
        raise ValueError("tolerance must be finite, got inf")
    limit = None if limit == math.inf else limit
    asked = _Question(network, flat, as_property(label, network.output_size), norm, domain, bounds, tighten, settings)
    search = _Closing(asked, most, scale, width, limit, progress)
    search.start()
    for rung in chosen:
        search.stage(rung)
    return Radius(search.certified, search.refuted, tuple(search.tried), search.witness, tuple(search.stages))


def is_closed(certified: float, refuted: float, asked: tuple[float, float], tolerance: float | None = None) -> bool:
    """Whether [certified, refuted] leaves nothing open of what `closest` was asked, with this tolerance.

    It is as narrow as asked for; or, where no unsafe point is known, all ε up to the largest are certified. asked: as
    `asked_range` gives it.
    """
    largest, scale = asked
    return certified >= largest if refuted == math.inf else is_narrow(certified, refuted, *_widths(scale, tolerance))


def _widths(scale: float, tolerance: float | None) -> tuple[float, float]:
    """How narrow intervals are made: in input units, and relative to their upper end."""
    return (LEAST * scale, RELATIVE) if tolerance is None else (tolerance, 0.0)


def asked_range(center: FloatArray, norm: str, domain: DataDomain | None, largest: float | None) -> tuple[float, float]:
    """The largest ε that is asked, no more than a bounded domain holds, and that by which distances are small: the
    same, but without such a domain no more than `reach_of`. Raises ValueError for a largest that is no number > 0."""
    reach, whole = reach_of(center, norm, domain)
    most = reach if largest is None else _finite_largest(real_number("largest", largest, above=0))
    return min(most, reach) if whole else most, min(most, reach)


def reach_of(center: FloatArray, norm: str, domain: DataDomain | None) -> tuple[float, bool]:
    """An ε whose ball holds the whole domain, and True; where none does, twice the input's own size, and False."""
    make_ball(norm, center, 0.0, domain)  # says what is wrong with the arguments
    low, high = (-math.inf, math.inf) if domain is None else domain
    side = float(np.max(np.subtract(high, low)))
    whole = math.isfinite(side)
    if not whole:
        side = 2.0 * max(1.0, float(np.abs(center).max()))
    return float(side * center.size ** (1.0 / NORM_ORDER[norm])), whole


def _finite_largest(largest: float) -> float:
    if not math.isfinite(largest):
        raise ValueError(f"largest must be finite, got {largest}; left out it is what the domain holds")
    return largest


def _checked_interval(known: tuple[float, float]) -> tuple[float, float]:
    if not isinstance(known, Sequence) or len(known) != 2:
        raise ValueError(f"known must be (certified, refuted), got {shown(known)}")
    certified, refuted = real_number("known", known[0]), real_number("known", known[1])
    if not 0 <= certified <= refuted:
        raise ValueError(f"known must be (certified, refuted) with 0 ≤ certified ≤ refuted, got {(certified, refuted)}")
    return certified, refuted


@dataclass(frozen=True, eq=False)
class _Question:
    """What `closest` was asked, but for how far to go."""

    network: Network
    center: FloatArray
    property: Property
    norm: str
    domain: DataDomain | None
    bounds: Sequence[Rung | str]
    tighten: Sequence[Rung | str]
    settings: Settings | None

    def verdict(self, eps: float, ladder: Sequence[Rung], time_limit: float | None) -> Certification:
        """The ladder's answer on the ball of radius ε."""
        ball = make_ball(self.norm, self.center, eps, self.domain)
        how = ladder, self.bounds, self.tighten, self.settings, time_limit
        return certify(self.network, ball, self.property, *how)


class _Closing:
    """The interval while rung after rung narrows it, what each showed, and the clock."""

    def __init__(
        self,
        question: _Question,
        largest: float,
        scale: float,
        tolerance: float | None,
        time_limit: float | None,
        progress: RadiusProgress | None,
    ) -> None:
        self.question, self.largest, self.progress = question, largest, progress
        self.floor, self.relative = _widths(scale, tolerance)
        self.certified, self.refuted = 0.0, math.inf
        self.witness: FloatArray | None = None
        self.tried: list[tuple[float, Verdict]] = []
        self.stages: list[RungRadius] = []
        self._unsafe = Unsafe(question.network, question.property, question.center, question.norm)
        self._rungs: list[Rung] = []
        self._limit, self._started = time_limit, time.perf_counter()

    def start(self) -> None:
        """The centre itself may be unsafe."""
        if self._unsafe.proven(self.question.center):
            self.refuted, self.witness = 0.0, self.question.center

    def stage(self, rung: Rung) -> None:
        """Narrow the interval by one more rung."""
        began = time.perf_counter()
        below = [one for one in self._rungs if rung.side is Side.EXACT or one.name in rung.dominates]
        shown_by = {one.rung: one.certified for one in self.stages}
        ladder = [*below, rung]

        def ask(eps: float) -> Certification:
            return self.question.verdict(eps, ladder, self._share())

        start = max([shown_by[one.name] for one in below], default=0.0)
        moved = self._unsafe.nearest
        search = Bisection(ask, self.floor, start, self.refuted, self.relative, moved, self._no_time)
        if rung.side is Side.UPPER:
            search.first_no(self.largest)
        else:
            if rung.side is Side.EXACT:
                search.below_refuted()
            search.largest_yes(search.climb(self.largest))
        if rung.side is not Side.LOWER:
            search.smallest_no()
        self._keep(rung, search, time.perf_counter() - began)

    def _keep(self, rung: Rung, search: Bisection, seconds: float) -> None:
        self._rungs.append(rung)
        self.certified, self.refuted = max(self.certified, search.certified), search.refuted
        if self.certified >= self.refuted > 0:
            raise ValueError(f"{rung.name}: certified {self.certified!r}, a witness is {self.refuted!r} away")
        self.witness = self.witness if search.witness is None else search.witness
        self.tried += search.tried
        own = 0.0 if rung.side is Side.UPPER else search.certified
        self.stages.append(RungRadius(rung.name, own, search.refuted, len(search.tried), seconds))
        if self.progress is not None:
            self.progress(rung.name, self.certified, self.refuted)

    def _left(self) -> float:
        return math.inf if self._limit is None else self._limit - (time.perf_counter() - self._started)

    def _share(self) -> float | None:
        return None if self._limit is None else max(1e-3, VERDICT_SHARE * self._left())

    def _no_time(self) -> bool:
        return self._limit is not None and self._left() <= NO_TIME * self._limit
