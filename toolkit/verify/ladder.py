"""The verdict: a ladder of rungs, climbed until every target is decided by the rule in verdict.py.

Decided targets leave the ladder; every minimiser a rung returns is replayed against all targets; before the first
expensive rung the layer bounds are tightened where that is cheap. Where an exact rung states a positive margin that
nobody has certified (a MILP solver's word), the bab rung is asked to, unless settings.rigorous is False: then the word
counts, and the answer says so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from toolkit.data.arguments import instance, mapping, optional_number, real_number, shown
from toolkit.networks.network import Network
from toolkit.problems.answers import Bound
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_set import InputSet, check_is_input_set
from toolkit.problems.lowering import lowered
from toolkit.problems.problem import Problem
from toolkit.problems.properties import Property, as_property
from toolkit.problems.region import Region
from toolkit.problems.settings import Settings
from toolkit.relaxations.relu import chord
from toolkit.rungs import certifier, get_rung, get_rungs
from toolkit.rungs.rung import Cost, Rung, Side
from toolkit.search.boxes import splits_inputs
from toolkit.verify.certification import Certification
from toolkit.verify.knowledge import Knowledge
from toolkit.verify.layer_bounds import bound_layers
from toolkit.verify.usable_settings import usable_settings
from toolkit.verify.verdict import TOLERANCE

LADDER = ("dual", "pgd", "bab")
TIGHTEN = ("crown", "bab")
TIGHTEN_SHARE = 0.5  # of the time left goes to tighter l,u at most
LAYER_NODES = (64, 256, 1024, 4096)  # per neuron and side, in turns with searches
LAYER_HOPELESS = 4  # from where on one that gains little gets no more
SEARCH_NODES = 32  # times as many for a row
BRIEF = 0.5  # of what the triangles were: below it l,u get more nodes at once, and rows no more than SEARCH_NODES
HOPE = 8  # times as many for one that, without planes, will be decided by them as it looks
SHRINKS = 0.9  # of what the triangles were: above it more nodes for l,u are not worth it
SEARCH_SHARE = 0.25  # of the time left, all rows together, is all a lower rung that searches gets before an exact one


def certify(
    network: Network,
    ball: InputSet,
    label: int | Property,
    ladder: Sequence[Rung | str] = LADDER,
    bounds: Sequence[Rung | str] = ("interval", "dual"),
    tighten: Sequence[Rung | str] = TIGHTEN,
    settings: Settings | None = None,
    time_limit: float | None = None,
    tolerance: float = TOLERANCE,
    targets: Sequence[int] | None = None,
    known: Mapping[str, Sequence[Bound]] | None = None,
) -> Certification:
    """Decide whether any point of the ball changes the class from `label`, or to one of `targets` (None: to any).

    label: or a Property, whose groups take the place of the targets; those of several rows get ReLUs of their own
    (problems/lowering.py), which relu_bounds then end with. ladder: rungs in order. bounds: chain for l,u;
    tighten: rungs added to it, on neurons still unstable, before the first rung that searches (empty: never).
    time_limit: seconds for the whole answer; what was proven before it stays; a lower rung that searches gets
    SEARCH_SHARE of what is left where an exact rung follows. tolerance: a target counts as certified when its certified
    lower bound exceeds it. known: bounds of these rows that rungs gave already, by the rung's name, one per row in
    order; only what they leave open is climbed for. Those of another question are refused; bounds made by hand are
    believed.

    Checked: every witness, by replay through `network` with rounding against it and containment in the ball; lower
    bounds, by their multipliers. Trusted: a MILP solver's bound where settings.rigorous is False. Raises TypeError for
    a rung that does not take the input set, ValueError for an unknown rung, a label out of range, no targets, or shapes
    that do not fit.
    """
    instance("network", network, Network), check_is_input_set("ball", ball)
    question = as_property(label, network.output_size, targets)
    rungs, chain = get_rungs("ladder", ladder), get_rungs("bounds", bounds)
    more = get_rungs("tighten", tighten, empty=True)
    for rung in (*rungs, *chain, *more):
        rung.check_takes(ball)
    settings = usable_settings(settings)
    time_limit, tolerance = optional_number("time_limit", time_limit), real_number("tolerance", tolerance)
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be ≥ 0, got {tolerance}")
    if time_limit is not None and not time_limit > 0:
        raise ValueError(f"time_limit must be > 0 seconds or None, got {time_limit}")
    climb = _Climb(network, ball, question, chain, more, settings, time_limit, tolerance)
    return climb.run(rungs, {} if known is None else _checked_known(known))


def _checked_known(known: Mapping[str, Sequence[Bound]]) -> Mapping[str, Sequence[Bound]]:
    for name, found in mapping("known", known, "the bounds of each rung by its name").items():
        rung = get_rung(name).name
        if not isinstance(found, Sequence):
            raise ValueError(f"known[{rung!r}] must be a list of Bounds, got {shown(found)}")
        for bound in found:
            instance(f"every entry of known[{rung!r}]", bound, Bound)
    return known


def triangle_heights(bounds: ReluBounds) -> float:
    """Σ u·|l|/(u − l) over the unstable neurons: how loose their relaxations are together."""
    heights = (chord(low, high) * np.maximum(-low, 0.0) for low, high in zip(bounds.lower, bounds.upper, strict=True))
    return float(sum(one[np.isfinite(one)].sum() for one in heights))


class _Climb:
    """One certification: what is known, the rungs asked, and the clock."""

    def __init__(
        self,
        network: Network,
        input_set: InputSet,
        question: Property,
        chain: tuple[Rung, ...],
        tighten: tuple[Rung, ...],
        settings: Settings,
        time_limit: float | None,
        tolerance: float,
    ) -> None:
        self.started = time.perf_counter()
        network, self.question = lowered(network, question)
        self.chain, self.tighten = chain, tighten
        self.settings, self.time_limit, self.tolerance = settings, time_limit, tolerance
        self.relu_bounds: ReluBounds | None = None
        # attacks may run before there are l,u: on bounds that say nothing
        self.problem = Problem(Region.unbounded(network, input_set), self.question.objective, settings)
        self.known = Knowledge(self.problem, settings, tolerance)
        self.rung_seconds: dict[str, float] = {}

    def run(self, rungs: Sequence[Rung], known: Mapping[str, Sequence[Bound]]) -> Certification:
        self.known.replay(self.problem.input_set.center, "clean")
        for name, found in known.items():
            self._take(get_rung(name), found)
        for place, rung in enumerate(rungs):
            if self._done():
                break
            if rung.cost is Cost.SEARCH:
                self._search(rung, self._share(rung, rungs[place + 1 :]))
            elif rung.name not in known:
                self._climb(rung, self.known.open_rows(), None)
        if self.settings.rigorous and not self._done():
            self._certify_words()
        return self._answer()

    def _take(self, rung: Rung, found: Sequence[Bound]) -> None:
        """Merge bounds that the rung gave before. Raises ValueError for those of another question."""
        self.rung_seconds[rung.name] = sum(bound.seconds for bound in found)
        if [bound.target for bound in found] != list(self.problem.targets):
            targets = self.problem.targets
            raise ValueError(f"known[{rung.name!r}] must hold one bound for each of the targets {targets}, in order")
        for i, bound in enumerate(found):
            if bound.asked and bound.asked != self.problem.asked(i):
                raise ValueError(
                    f"known[{rung.name!r}] holds bounds of another network, ball or label than asked about"
                )
            self.known.merge(i, bound, rung)

    def _done(self) -> bool:
        return self.known.witness is not None or not self.known.open_rows() or self._left() == 0.0

    def _certify_words(self) -> None:
        """Ask a rung that trusts no solver about open rows whose minimum an exact rung has stated to be positive."""
        if stated := self.known.words():
            self._climb(certifier(), stated, None)

    def _left(self) -> float | None:
        if self.time_limit is None:
            return None
        return max(0.0, self.time_limit - (time.perf_counter() - self.started))

    def _spend(self, name: str, started: float) -> None:
        self.rung_seconds[name] = self.rung_seconds.get(name, 0.0) + time.perf_counter() - started

    def _share(self, rung: Rung, later: Sequence[Rung]) -> float | None:
        """Seconds that the rung may take for all its rows, None: what is left. Only a lower rung that searches is held
        back before an exact one: that can close what cuts leave open (bab starts from these very cuts)."""
        left = self._left()
        searches = rung.cost is Cost.SEARCH and rung.side is Side.LOWER
        if left is None or not searches or not any(other.side is Side.EXACT for other in later):
            return None
        return SEARCH_SHARE * left

    def _climb(self, rung: Rung, undecided: list[int], share: float | None, nodes: int | None = None) -> None:
        if rung.uses_relu_bounds and self.relu_bounds is None:
            self._bound_layers(self.chain)
        started = time.perf_counter()
        # a rung that solves row by row is asked row by row, so that a witness or the clock can end it in between
        groups = [[i] for i in undecided] if rung.row_by_row else [undecided]
        for place, group in enumerate(groups):
            remaining = None if share is None else share - (time.perf_counter() - started)
            if self.known.witness is not None or self._left() == 0.0 or (remaining is not None and remaining <= 0):
                break
            each = None if remaining is None else remaining / (len(groups) - place)
            left = self._left()
            if each is None and left is not None:
                each = left / len(group)
            problem = self.problem.with_rows(self.problem.rows[group], [self.problem.targets[i] for i in group])
            for i, bound in zip(group, rung(problem.with_settings(self._clocked(each, nodes))), strict=True):
                self.known.merge(i, bound, rung)
        self._spend(rung.name, started)

    def _clocked(self, each: float | None = None, nodes: int | None = None) -> Settings:
        """The settings for one call of a rung; each: seconds per objective row, None: what is left. nodes: of a row
        that is hopeless by then; of any row where the caller has set a number."""
        limits = [limit for limit in (each, self._left(), self.settings.time_limit) if limit is not None]
        stop = self.tolerance if self.settings.stop_at is None else self.settings.stop_at
        clocked = replace(self.settings, time_limit=max(min(limits), 1e-3) if limits else None, stop_at=stop,
                          until_refuted=True)  # fmt: skip
        if nodes is None:
            return clocked
        if self.settings.nodes is not None:
            return replace(clocked, nodes=nodes)
        return replace(clocked, nodes=HOPE * nodes, hopeless=nodes)

    def _bound_layers(self, chain: tuple[Rung, ...], share: float = 1.0, nodes: int | None = None) -> None:
        started, left = time.perf_counter(), self._left()
        deadline = None if left is None else started + share * left
        settings = replace(self._clocked(), stop_at=None, nodes=nodes)
        if nodes is not None and self.settings.nodes is None:
            settings = replace(settings, hopeless=LAYER_HOPELESS)
        found, cut = bound_layers(self.problem.network, self.problem.input_set, chain, settings, deadline=deadline)
        if self.relu_bounds is not None:
            found, cut = found.intersected(self.relu_bounds), None
        self.relu_bounds = found
        self.problem = replace(self.problem, region=self.problem.region.with_bounds(found, cut))
        self._spend("bounds", started)

    def _search(self, rung: Rung, share: float | None) -> None:
        """Tighten l,u and search. Where trees tighten and trees search, in turns, each with more nodes, as long as l,u
        gain by it: what is easy costs little, and what is hard gets the l,u it needs before the search of its life."""
        turns = rung.batched and any(one.ranges is not None for one in self.tighten)
        if turns and splits_inputs(self.problem):  # sub-boxes of few inputs have l,u of their own
            self._tighten(0)
            turns = False
        elif not turns:
            self._tighten(None)
        given = self.settings.nodes
        for nodes in (0, *(LAYER_NODES if given is None else (given,))) if turns else ():
            if self._done():
                return
            before = self._looseness()
            self._tighten(nodes)
            now = self._looseness()
            if self._done() or (nodes and not now < SHRINKS * before):
                break
            brief = not nodes or now < BRIEF * before
            self._climb(rung, self.known.open_rows(), share, SEARCH_NODES * (1 if brief else nodes))
        if not self._done():
            self._climb(rung, self.known.open_rows(), share)

    def _looseness(self) -> float:
        """How loose the relaxations are together, ∞ before there are l,u."""
        return np.inf if self.relu_bounds is None else triangle_heights(self.relu_bounds)

    def _tighten(self, nodes: int | None) -> None:
        """Better l,u by the whole chain; with nodes 0 by what is in closed form, else that many per neuron and side."""
        more = [rung for rung in self.tighten if nodes != 0 or rung.cost is Cost.CLOSED_FORM]
        chain = (*self.chain, *more)
        known = None if self.relu_bounds is None else self.relu_bounds.chain
        if more and (nodes or known != tuple(rung.name for rung in chain)):
            self._bound_layers(chain, TIGHTEN_SHARE, nodes or None)

    def _answer(self) -> Certification:
        margins = self.known.margins()
        label = self.question.label
        return Certification(
            self.known.verdict(),
            label,
            margins,
            tuple(self.known.decided_by),
            self.known.witness,
            self.known.worst_target(),
            time.perf_counter() - self.started,
            self.rung_seconds,
            self.relu_bounds,
            self.tolerance,
            label is None or len(margins) == self.problem.network.output_size - 1,
        )
