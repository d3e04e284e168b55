"""The verdict: a ladder of rungs, climbed until every target is decided by the rule in verdict.py.

Decided targets leave the ladder; every minimiser a rung returns is replayed against all targets; before the first
expensive rung the layer bounds are tightened where that is cheap. Where an exact rung states a positive margin that
nobody has certified (a MILP solver's word), the bab rung is asked to, unless settings.rigorous is False: then the word
counts, and the answer says so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.data.arguments import class_label, instance, mapping, names, optional_number, real_number, shown
from toolkit.networks.network import Network
from toolkit.networks.replay import replay_margins
from toolkit.problems.consistency import CENTRE, clean_values, contradiction, outputs_at
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Bound, Problem, ReluBounds, Rung, Settings, Side, Verdict, check_ball, margin_rows
from toolkit.rungs import get_rung
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.verdict import TOLERANCE, counted_lower, is_safe, is_unsafe, verdict

LADDER = ("dual", "pgd", "lp", "ideal", "exact")
CERTIFIER = "bab"  # certifies what a MILP solver states
IDEAL_SHARE = 0.25  # of the time left, all targets together, is all `ideal` gets where an exact rung follows
TIGHTEN_BEFORE = ("ideal", "exact", "bab")


@dataclass(frozen=True)
class Certification:
    """The answer for one sample, and how it came about.

    margins: per target an interval [lower, upper] that holds m*_t, the best of all rungs; certified_lower and
    certified_upper are what the verdict rests on. decided_by: the rung that settled each target, "" if none. witness:
    the point that proves NO, of class witness_class. rung_seconds: time spent in each rung, "bounds" for l,u.
    relu_bounds: the last ones used, None when they were not needed. tolerance: what a margin had to exceed. covers_all:
    whether every class but the label was a target; a YES about some says nothing of the others.
    """

    verdict: Verdict
    label: int
    margins: tuple[Bound, ...]
    decided_by: tuple[str, ...]
    witness: FloatArray | None = field(repr=False)
    witness_class: int | None
    seconds: float
    rung_seconds: dict[str, float]
    relu_bounds: ReluBounds | None = field(repr=False)
    tolerance: float = TOLERANCE
    covers_all: bool = True

    @property
    def certified(self) -> bool:
        """Whether every margin is above the tolerance in real arithmetic, rounding included, whatever a solver said."""
        return all(bool(is_safe(bound.certified_lower, self.tolerance)) for bound in self.margins)

    @property
    def trusts_solver(self) -> bool:
        """Whether a YES rests on a MILP solver's word (settings.rigorous = False)."""
        return self.verdict is Verdict.YES and not self.certified

    @property
    def reason(self) -> str:
        """The verdict in one sentence: what was proven, of which classes, or what is missing."""
        least = min(self.margins, key=lambda bound: bound.certified_lower)
        if self.verdict is Verdict.NO:
            worst, by = min(zip(self.margins, self.decided_by, strict=True), key=lambda pair: pair[0].certified_upper)
            who = "the centre itself" if by == "clean" else f"a point of the ball, found by {by},"
            return f"{who} has margin {worst.upper:.6g} to class {worst.target}"
        if self.verdict is Verdict.YES and self.certified:
            floor = f"> {self.tolerance:g}, the least {least.certified_lower:.6g}"
            return f"every margin{self._scope()} has a certified lower bound {floor}"
        still = [bound for bound in self.margins if not is_safe(bound.certified_lower, self.tolerance)]
        if self.verdict is Verdict.YES:
            return f"for class {_listed(still)} that is the MILP solver's word, not certified"
        text = f"neither proven nor refuted for class {_listed(self._open())}"
        close = [bound for bound in self._open() if bound.upper <= 0]
        if close:
            where = f"a point with margin {close[0].upper:.3g} to class {close[0].target}"
            text += f"; {where} is no proof, since rounding can explain it"
        return text

    def _scope(self) -> str:
        """Which classes the margins are about, where they are not all but the label; "" where they are."""
        return "" if self.covers_all else f" to class {_listed(self.margins)} (no other class was asked)"

    def _open(self) -> list[Bound]:
        return [bound for bound, name in zip(self.margins, self.decided_by, strict=True) if not name]

    @property
    def rung(self) -> str:
        """The last rung that was needed."""
        order = ["", "clean", *self.rung_seconds]
        return max(self.decided_by, key=order.index)


def _listed(bounds: Sequence[Bound]) -> str:
    return ", ".join(str(bound.target) for bound in bounds)


def certify(
    network: Network,
    ball: LinfBall,
    label: int,
    ladder: Sequence[str] = LADDER,
    bounds: Sequence[str] = ("interval", "dual"),
    tighten: Sequence[str] = ("lp",),
    settings: Settings | None = None,
    time_limit: float | None = None,
    tolerance: float = TOLERANCE,
    targets: Sequence[int] | None = None,
    known: Mapping[str, Sequence[Bound]] | None = None,
) -> Certification:
    """Decide whether any point of the ball changes the class from `label`, or to one of `targets` (None: to any).

    ladder: rungs in order. bounds: chain for l,u; tighten: rungs added to it, on neurons still unstable, before the
    first of ideal, exact or bab (empty: never). time_limit: seconds for the whole answer; what was proven before it
    stays; `ideal` gets IDEAL_SHARE of what is left where an exact rung follows. tolerance: a target counts as certified
    when its certified lower bound exceeds it. known: bounds of these margins that rungs gave already, by the rung's
    name, one per target in order; only what they leave open is climbed for. Those of another question are refused;
    bounds made by hand are believed.

    Checked: every witness, by replay through `network` with rounding against it and containment in the ball; lower
    bounds, by their multipliers. Trusted: a MILP solver's bound where settings.rigorous is False. Raises ValueError
    for an unknown rung, a label out of range, no targets, or shapes that do not fit.
    """
    instance("network", network, Network), instance("ball", ball, LinfBall)
    label, ladder = class_label("label", label, network.output_size), names("ladder", ladder, empty=False)
    bounds, tighten = names("bounds", bounds, empty=False), names("tighten", tighten)
    settings = Settings() if settings is None else instance("settings", settings, Settings)
    time_limit, tolerance = optional_number("time_limit", time_limit), real_number("tolerance", tolerance)
    climb = _Climb(network, ball, label, targets, bounds, tighten, settings, time_limit, tolerance)
    return climb.run(ladder, {} if known is None else _checked_known(known))


def _checked_known(known: Mapping[str, Sequence[Bound]]) -> Mapping[str, Sequence[Bound]]:
    for name, found in mapping("known", known, "the bounds of each rung by its name").items():
        rung = get_rung(name).name
        if not isinstance(found, Sequence):
            raise ValueError(f"known[{rung!r}] must be a list of Bounds, got {shown(found)}")
        for bound in found:
            instance(f"every entry of known[{rung!r}]", bound, Bound)
    return known


class _Climb:
    """State of one certification: intervals per target, the witness, the clock."""

    def __init__(
        self,
        network: Network,
        ball: LinfBall,
        label: int,
        targets: Sequence[int] | None,
        bounds: Sequence[str],
        tighten: Sequence[str],
        settings: Settings,
        time_limit: float | None,
        tolerance: float,
    ) -> None:
        self.started = time.perf_counter()
        if not tolerance >= 0:
            raise ValueError(f"tolerance must be ≥ 0, got {tolerance}")
        if time_limit is not None and not time_limit > 0:
            raise ValueError(f"time_limit must be > 0 seconds or None, got {time_limit}")
        self.network, self.ball, self.label = network, ball, label
        self.chain, self.tighten = tuple(bounds), tuple(tighten)
        for name in (*self.chain, *self.tighten):
            get_rung(name)
        self.settings = settings
        self.time_limit, self.tolerance = time_limit, tolerance
        check_ball(network, ball)
        self.rows, self.targets = margin_rows(network.output_size, label, targets)
        self.margins = [Bound(-np.inf, np.inf, target) for target in self.targets]
        self.decided_by = [""] * len(self.targets)
        self.counted = [-np.inf] * len(self.targets)  # what the verdict counts
        self.words: set[int] = set()  # targets that an exact rung has been asked about
        self.witness: FloatArray | None = None
        self.worst = np.inf  # least margin at the witness
        self.relu_bounds: ReluBounds | None = None
        # attacks may run before there are l,u: on bounds that say nothing
        free = tuple(np.full(size, np.inf) for size in network.relu_sizes)
        nothing = ReluBounds(tuple(-side for side in free), free)
        self.centre = outputs_at(network, ball.center)
        self.problem = self._problem(nothing)
        self.rung_seconds: dict[str, float] = {}

    def run(self, ladder: Sequence[str], known: Mapping[str, Sequence[Bound]]) -> Certification:
        rungs = [get_rung(name) for name in ladder]
        if not rungs:
            raise ValueError("ladder must name at least one rung, got none")
        self._replay(self.ball.center, "clean")
        for name, found in known.items():
            self.rung_seconds[name] = sum(bound.seconds for bound in found)
            if [bound.target for bound in found] != list(self.targets):
                raise ValueError(
                    f"known[{name!r}] must hold one bound for each of the targets {self.targets}, in order"
                )
            for i, bound in enumerate(found):
                if bound.asked and bound.asked != self.problem.asked(i):
                    raise ValueError(f"known[{name!r}] holds bounds of another network, ball or label than asked about")
                self._merge(i, bound, get_rung(name))
        for place, rung in enumerate(rungs):
            if self._done():
                break
            if rung.name in TIGHTEN_BEFORE:
                self._tighten()
            elif rung.name in known:
                continue
            self._climb(rung, self._open(), self._share(rung, rungs[place + 1 :]))
        if self.settings.rigorous and not self._done():
            self._certify_words()
        return self._answer()

    def _problem(self, bounds: ReluBounds) -> Problem:
        problem = Problem(self.network, self.ball, self.rows, bounds, self.settings, self.targets)
        problem.shared(CENTRE, lambda: self.centre)
        return problem

    def _done(self) -> bool:
        return self.witness is not None or not self._open() or self._left() == 0.0

    def _certify_words(self) -> None:
        """Ask CERTIFIER about open targets whose margin an exact rung has stated to be positive."""
        stated = [i for i in self._open() if i in self.words and is_safe(self.margins[i].lower, self.tolerance)]
        if stated:
            self._climb(get_rung(CERTIFIER), stated, None)

    def _open(self) -> list[int]:
        """Undecided targets, the most doubtful first."""
        undecided = [i for i, name in enumerate(self.decided_by) if not name]
        return sorted(undecided, key=lambda i: (self.margins[i].lower, self.margins[i].upper))

    def _left(self) -> float | None:
        if self.time_limit is None:
            return None
        return max(0.0, self.time_limit - (time.perf_counter() - self.started))

    def _spend(self, name: str, started: float) -> None:
        self.rung_seconds[name] = self.rung_seconds.get(name, 0.0) + time.perf_counter() - started

    def _share(self, rung: Rung, later: Sequence[Rung]) -> float | None:
        """Seconds that the rung may take for all its targets, None: what is left. Only `ideal` before an exact rung is
        held back: that rung can close what cuts leave open (bab starts from these very cuts)."""
        left = self._left()
        if left is None or rung.name != "ideal" or not any(other.side is Side.EXACT for other in later):
            return None
        return IDEAL_SHARE * left

    def _climb(self, rung: Rung, undecided: list[int], share: float | None) -> None:
        if rung.uses_relu_bounds and self.relu_bounds is None:
            self._bound_layers(self.chain)
        started = time.perf_counter()
        # a rung that solves row by row is asked row by row, so that a witness or the clock can end it in between
        groups = [undecided] if rung.run is None or rung.side is Side.UPPER else [[i] for i in undecided]
        for place, group in enumerate(groups):
            remaining = None if share is None else share - (time.perf_counter() - started)
            if self.witness is not None or self._left() == 0.0 or (remaining is not None and remaining <= 0):
                break
            each = None if remaining is None else remaining / (len(groups) - place)
            problem = self.problem.with_rows(self.rows[group], [self.targets[i] for i in group])
            for i, bound in zip(group, rung(problem.with_settings(self._clocked(each))), strict=True):
                self._merge(i, bound, rung)
        self._spend(rung.name, started)

    def _clocked(self, each: float | None = None) -> Settings:
        """The settings for one call of a rung; each: seconds per objective row, None: what is left."""
        limits = [limit for limit in (each, self._left(), self.settings.time_limit) if limit is not None]
        stop = self.tolerance if self.settings.stop_at is None else self.settings.stop_at
        return replace(self.settings, time_limit=max(min(limits), 1e-3) if limits else None, stop_at=stop)

    def _bound_layers(self, chain: tuple[str, ...]) -> None:
        started = time.perf_counter()
        deadline = None if self.time_limit is None else self.started + self.time_limit
        settings = replace(self._clocked(), stop_at=None)
        known = layer_bounds(self.network, self.ball, chain, settings, deadline=deadline)
        self.relu_bounds = known
        self.problem = self._problem(known)
        self._spend("bounds", started)

    def _tighten(self) -> None:
        chain = (*self.chain, *self.tighten)
        if self.tighten and (self.relu_bounds is None or self.relu_bounds.chain != chain):
            self._bound_layers(chain)

    def _merge(self, i: int, bound: Bound, rung: Rung) -> None:
        """Intersect what is known of target i with `bound`; decide it if that settles it."""
        known = self.margins[i]
        self.margins[i] = replace(
            bound,
            target=self.targets[i],
            lower=max(known.lower, bound.lower),
            certified_lower=max(known.certified_lower, bound.certified_lower),
            upper=known.upper,  # the upper side comes from `_replay` alone
            certified_upper=known.certified_upper,
            witness=known.witness,
            slack=bound.slack if bound.slack is not None else known.slack,
        )
        if rung.side is Side.EXACT:
            self.words.add(i)
        if bound.witness is not None:
            self._replay(bound.witness, rung.name)
        self.counted[i] = max(self.counted[i], counted_lower(bound, rung, self.settings))
        if not self.decided_by[i] and is_safe(self.counted[i], self.tolerance):
            self.decided_by[i] = rung.name
        self._settle(i)

    def _replay(self, point: FloatArray, name: str) -> None:
        """Run a point through the original network: it lowers every upper side, and may prove NO."""
        if not self.ball.contains(point):
            return
        outputs = self.centre if point is self.ball.center else None
        values, proven = (side[0] for side in replay_margins(self.network, self.rows, point, outputs))
        for i, (value, upper) in enumerate(zip(values.tolist(), proven.tolist(), strict=True)):
            known = self.margins[i]
            if value < known.upper:
                least = min(upper, known.certified_upper)
                self.margins[i] = replace(known, upper=value, witness=point, certified_upper=least)
            elif upper < known.certified_upper:
                self.margins[i] = replace(known, certified_upper=upper)
            if is_unsafe(upper):
                self.decided_by[i] = self.decided_by[i] or name
        if is_unsafe(proven).any() and not float(values.min()) >= self.worst:
            self.witness, self.worst = point, float(values.min())

    def _settle(self, i: int) -> None:
        """Where a point lies under what a rung said, uncertified: by rounding, or the word was false and goes."""
        bound = self.margins[i]
        if bound.lower <= bound.upper:
            return
        problem = self.problem.with_rows(self.rows[[i]], [self.targets[i]])
        if contradiction(problem, 0, bound, float(clean_values(problem)[0])):
            self.margins[i] = replace(bound, lower=min(bound.certified_lower, bound.upper))
            self.counted[i] = bound.certified_lower
            if not is_safe(self.counted[i], self.tolerance) and not is_unsafe(bound.certified_upper):
                self.decided_by[i] = ""
        else:
            self.margins[i] = replace(bound, lower=bound.upper)

    def _answer(self) -> Certification:
        for i in range(len(self.targets)):
            self._settle(i)
        answer = verdict(self.counted, [bound.certified_upper for bound in self.margins], self.tolerance)
        changed = None if self.witness is None else self._changed_class(self.witness)
        return Certification(
            answer,
            self.label,
            tuple(self.margins),
            tuple(self.decided_by),
            self.witness,
            changed,
            time.perf_counter() - self.started,
            self.rung_seconds,
            self.relu_bounds,
            self.tolerance,
            len(self.targets) == self.network.output_size - 1,
        )

    def _changed_class(self, point: FloatArray) -> int:
        """The target with the smallest margin at the point: what the network says there instead, or ties with."""
        values, proven = (side[0] for side in replay_margins(self.network, self.rows, point))
        return int(self.targets[int(np.argmin(proven if np.isnan(values).any() else values))])
