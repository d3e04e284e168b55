"""A persistent LP over one region that grows and sheds cutting planes: what the ideal rung and the tree stand on.

Rounds of (solve, add each neuron's most violated cut) until nothing is violated, or the bound moves by less than
PROGRESS of itself over CUT_PATIENCE rounds, or at that pace would not reach settings.stop_at in ROUNDS rounds, or the
time limit strikes; cuts whose multiplier stays 0 are dropped. Cuts belong to the region, not to the objective, so later
rows start from earlier rows' cuts. Tolerances are relative to a neuron's range or to the objective's scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from toolkit.arrays import BoolArray, FloatArray, IndexArray
from toolkit.certificates.leaves import CutStore, Evidence
from toolkit.problems.answers import Status
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.relaxations.ideal_cuts import CutFinder
from toolkit.search.clock import Clock
from toolkit.search.lp_bounder import TANGENT_PATIENCE, TANGENT_ROUNDS, never_empty, template
from toolkit.search.tangents import touching_rows
from toolkit.solvers.registry import open_session
from toolkit.solvers.session import NoSession, Session
from toolkit.solvers.solve_report import SolveReport

ROUNDS = 60
CUT_PATIENCE = 4
PROGRESS = 1e-3
VIOLATION = 1e-5  # of the neuron's range
CUT_STOP_MARGIN = 1e-6  # of the objective's scale: past stop_at by what certifying may take off
IDLE = 1e-9  # a cut's multiplier below this, of the objective's scale per range of its neuron, is none
IDLE_ROUNDS, TANGENT_IDLE_ROUNDS = 5, 20
TANGENT = -1  # in place of a cut's id: a tangent of the input set (tangents.py), which no certificate reads


class CuttingPlanes:
    """A persistent LP over one region that grows and sheds cuts."""

    def __init__(self, problem: Problem) -> None:
        built = template(problem)
        self.layout, compiled = built.layout, built.relaxed
        self.compiled = compiled
        self.finder = CutFinder(self.layout, problem.input_set)
        self.session: Session = open_session(compiled, replace(problem.settings, solver="highs"))
        self.own_rows = compiled.matrix.shape[0]
        self.input_set, self.program = problem.input_set, compiled  # program: with what was added, for tangents alone
        self.store = CutStore()
        self.ids = np.zeros(0, dtype=np.int64)  # in the store, of the cuts now in the LP; TANGENT: of the input set
        self.best: Evidence | None = None  # of the bound that `minimize` returned last
        self.idle = np.zeros(0, dtype=np.int64)  # rounds since each cut last had a multiplier
        self.ranges = self.layout.upper - self.layout.lower
        self.scale = 0.0  # of the objective that `minimize` was given last

    def minimize(
        self,
        cost: FloatArray,
        offset: float,
        settings: Settings,
        enough: Callable[[SolveReport], bool] | None = None,
    ) -> SolveReport:
        """Rounds of solve and cut for one objective; the report of the best bound, its times and iterations summed.

        enough: asked after each round, in place of the rule by PROGRESS, whether to stop."""
        clock = Clock(settings)
        self.scale = self.compiled.objective_scale(cost)
        history: list[float] = []
        best: SolveReport | None = None
        iterations = 0
        for _ in range(ROUNDS if self.input_set.polyhedral else TANGENT_ROUNDS):
            if best is not None and clock.struck:
                best = replace(best, status=Status.TIME_LIMIT)
                break
            report = self.session.minimize(cost, offset, clock.rest())
            iterations += report.iterations
            if best is None or report.bound >= best.bound:
                best, self.best = report, self.evidence(report)
            history.append(best.bound)
            if settings.stop_at is not None and best.bound > settings.stop_at + CUT_STOP_MARGIN * self.scale:
                break
            done = self._stalled(history, settings.stop_at) if enough is None else enough(report)
            if report.status is not Status.OPTIMAL or report.x is None or done:
                best = best if report.status is Status.OPTIMAL else replace(best, status=report.status)
                break
            rows, upper = self.finder.violated(report.x, VIOLATION)
            touching = self.touching(report, cost)
            if not (upper.size or touching[1].size):
                break
            self.add(report, rows, upper, touching)
        assert best is not None
        if best.status is Status.INFEASIBLE:
            self.best = None
        return replace(never_empty(best), seconds=clock.seconds, iterations=iterations)

    def touching(self, report: SolveReport, cost: FloatArray) -> tuple[Any, FloatArray]:
        """Tangents of an input set that is not polyhedral, where the report's minimiser lies outside of it."""
        if self.input_set.polyhedral:
            return None, np.zeros(0)
        tangent = np.concatenate([np.zeros(self.own_rows, dtype=bool), self.ids == TANGENT])
        return touching_rows(self.input_set, self.layout.columns, self.program, tangent, report, cost)

    def add(
        self, report: SolveReport, rows: Any, upper: FloatArray, touching: tuple[Any, FloatArray] | None = None
    ) -> None:
        """Drop what `report` shows to be idle, then add the cuts rows·z ≤ upper, and tangents as of `touching`."""
        self._shed(report)
        variables = self.layout.inputs + self.layout.count
        self._append(rows, upper, self.store.add(rows, variables, self.layout.inputs))
        if touching is not None and touching[1].size:
            self.touch(*touching)

    def touch(self, rows: Any, tops: FloatArray) -> None:
        """Add tangents, and drop nothing."""
        self._append(rows, tops, np.full(tops.size, TANGENT))

    def _append(self, rows: Any, upper: FloatArray, ids: IndexArray) -> None:
        rows.resize((upper.size, self.compiled.lower.size))  # an input set's own columns stand behind the layout's
        free = np.full(upper.size, -np.inf)
        self.ids = np.concatenate([self.ids, ids])
        self.session.add_rows(rows, free, upper)
        self.idle = np.concatenate([self.idle, np.zeros(upper.size, dtype=np.int64)])
        if not self.input_set.polyhedral:
            self.program = self.program.with_rows(rows, free, upper)

    def evidence(self, report: SolveReport) -> Evidence | None:
        """What the report's duals say, in terms that outlive the LP; None without duals."""
        if report.duals is None or report.status is Status.FAILED:
            return None
        weights = -np.minimum(np.nan_to_num(report.duals[self.own_rows :]), 0.0)
        used = np.flatnonzero(np.where(self.ids == TANGENT, 0.0, weights))  # a certificate has the input set itself
        multipliers = report.duals[: self.layout.count]
        empty = report.status is Status.INFEASIBLE
        return Evidence(multipliers.copy(), self.ids[used], weights[used], empty)

    def _stalled(self, history: list[float], stop_at: float | None) -> bool:
        """Whether the last CUT_PATIENCE rounds gained too little, or so little that at their pace the rounds left would
        not reach stop_at."""
        patience, rounds = (CUT_PATIENCE, ROUNDS) if self.input_set.polyhedral else (TANGENT_PATIENCE, TANGENT_ROUNDS)
        if len(history) <= patience:
            return False
        gained, now = history[-1] - history[-1 - patience], history[-1]
        hopeless = stop_at is not None and now + gained * (rounds - len(history)) / patience < stop_at
        return hopeless or gained < PROGRESS * max(1e-3 * self.scale, abs(now))

    def shed_tangents(self, report: SolveReport) -> None:
        """Drop tangents that had no multiplier when this was last asked TANGENT_IDLE_ROUNDS times."""
        self._shed(report, self.ids == TANGENT)

    def _shed(self, report: SolveReport, which: BoolArray | bool = True) -> None:
        """Drop cuts, or which of them, that had no multiplier for IDLE_ROUNDS rounds."""
        if report.duals is None or not self.idle.size or report.duals.size != self.own_rows + self.ids.size:
            return  # none, or of a round before the last
        reach = float(np.max(self.input_set.reach))
        ranges = [reach if i == TANGENT else self.ranges[self.store.neurons[i]] for i in self.ids.tolist()]
        with np.errstate(over="ignore", invalid="ignore"):
            busy = np.abs(report.duals[self.own_rows :]) * np.array(ranges) > IDLE * self.scale
        self.idle = np.where(busy, 0, self.idle + which)
        keep = self.idle < np.where(self.ids == TANGENT, TANGENT_IDLE_ROUNDS, IDLE_ROUNDS)
        if not keep.all():
            mask = np.concatenate([np.ones(self.own_rows, dtype=bool), keep])
            self.session.keep_rows(mask)
            if not self.input_set.polyhedral:
                self.program = self.program.without_rows(mask)
            self.idle, self.ids = self.idle[keep], self.ids[keep]


@contextmanager
def cutting_planes(problem: Problem) -> Iterator[CuttingPlanes]:
    """The region's cut LP, lent for a while; made at first use and again if its session was lost."""
    key = ("cutting planes", problem.settings.solver)
    with problem.workspace.borrow(problem.region, key, lambda: CuttingPlanes(problem), _usable) as planes:
        yield planes


def _usable(planes: CuttingPlanes) -> bool:
    return not planes.session.broken or isinstance(planes.session, NoSession)
