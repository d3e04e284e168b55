"""The ideal bound: the LP plus cutting planes of every neuron's ideal formulation, added where they are violated.

Claim: m̲ ≤ ideal ≤ m*. Rounds of (solve, add each neuron's most violated cut) on one persistent LP until nothing is
violated, or the bound moves by less than PROGRESS of itself over PATIENCE rounds, or at that pace would not reach
settings.stop_at in ROUNDS rounds, or the time limit strikes; cuts whose multiplier stays 0 are dropped. Cuts belong to
the region, not to the objective, so later rows start from earlier rows' cuts. The round whose row duals prove the best
bound is kept, and what is handed out is the certificate at its multipliers (leaves.py). Tolerances are relative to a
neuron's range or to the objective's scale.

Source: Anderson et al. 2020; Tjandraatmadja et al. 2020. Checked and trusted: as in lp and ideal_cuts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.certificates.leaves import CutStore, Evidence, Leaves
from toolkit.certificates.rounding import region_of
from toolkit.problems.problem import Bound, Problem, Rung, Settings, Side, Status
from toolkit.relaxations.ideal_cuts import CutFinder
from toolkit.relaxations.template import TemplateLayout
from toolkit.search.lp_bounder import (
    bound_from_report,
    drop_of,
    dropped_on_error,
    failing_rows,
    one_row,
    shared_template,
)
from toolkit.solvers.registry import open_session
from toolkit.solvers.session import NoSession, Session
from toolkit.solvers.solve_report import SolveReport

ROUNDS = 60
PATIENCE = 4
PROGRESS = 1e-3
VIOLATION = 1e-5  # of the neuron's range
STOP_MARGIN = 1e-6  # of the objective's scale: past stop_at by what certifying may take off
IDLE = 1e-9  # a cut's multiplier below this, of the objective's scale per range of its neuron, is none
IDLE_ROUNDS = 5


class CuttingPlanes:
    """A persistent LP over one region that grows and sheds cuts."""

    def __init__(self, problem: Problem) -> None:
        model, compiled = shared_template(problem)
        self.layout: TemplateLayout = model.layout
        self.compiled = compiled
        self.finder = CutFinder(self.layout, problem.ball)
        self.session: Session = open_session(compiled, replace(problem.settings, solver="highs"))
        self.own_rows = compiled.matrix.shape[0]
        self.store = CutStore()
        self.ids = np.zeros(0, dtype=np.int64)  # in the store, of the cuts now in the LP
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
        started = time.perf_counter()
        self.scale = self.compiled.objective_scale(cost)
        history: list[float] = []
        best: SolveReport | None = None
        iterations = 0
        for _ in range(ROUNDS):
            left = None if settings.time_limit is None else settings.time_limit - (time.perf_counter() - started)
            if left is not None and left <= 0 and best is not None:
                best = replace(best, status=Status.TIME_LIMIT)
                break
            limit = None if left is None else max(left, 1e-3)
            report = self.session.minimize(cost, offset, replace(settings, time_limit=limit))
            iterations += report.iterations
            if best is None or report.bound >= best.bound:
                best, self.best = report, self.evidence(report)
            history.append(best.bound)
            if settings.stop_at is not None and best.bound > settings.stop_at + STOP_MARGIN * self.scale:
                break
            done = self._stalled(history, settings.stop_at) if enough is None else enough(report)
            if report.status is not Status.OPTIMAL or report.x is None or done:
                best = best if report.status is Status.OPTIMAL else replace(best, status=report.status)
                break
            rows, upper = self.finder.violated(report.x, VIOLATION)
            if not upper.size:
                break
            self.add(report, rows, upper)
        assert best is not None
        if best.status is Status.INFEASIBLE:  # a ball is never empty: l,u or the solver are wrong
            self.best = None
            best = replace(
                best, status=Status.FAILED, bound=-np.inf, message="the template is infeasible: l,u are wrong"
            )
        return replace(best, seconds=time.perf_counter() - started, iterations=iterations)

    def add(self, report: SolveReport, rows: Any, upper: FloatArray) -> None:
        """Drop what `report` shows to be idle, then add the cuts rows·z ≤ upper."""
        self._shed(report)
        variables = self.layout.inputs + self.layout.count
        self.ids = np.concatenate([self.ids, self.store.add(rows, variables, self.layout.inputs)])
        self.session.add_rows(rows, np.full(upper.size, -np.inf), upper)
        self.idle = np.concatenate([self.idle, np.zeros(upper.size, dtype=np.int64)])

    def evidence(self, report: SolveReport) -> Evidence | None:
        """What the report's duals say, in terms that outlive the LP; None without duals."""
        if report.duals is None or report.status is Status.FAILED:
            return None
        weights = -np.minimum(np.nan_to_num(report.duals[self.own_rows :]), 0.0)
        used = np.flatnonzero(weights)
        multipliers = report.duals[: self.layout.count]
        empty = report.status is Status.INFEASIBLE
        return Evidence(multipliers.copy(), self.ids[used], weights[used], empty)

    def _stalled(self, history: list[float], stop_at: float | None) -> bool:
        """Whether the last PATIENCE rounds gained too little, or so little that at their pace the rounds left would not
        reach stop_at."""
        if len(history) <= PATIENCE:
            return False
        gained, now = history[-1] - history[-1 - PATIENCE], history[-1]
        hopeless = stop_at is not None and now + gained * (ROUNDS - len(history)) / PATIENCE < stop_at
        return hopeless or gained < PROGRESS * max(1e-3 * self.scale, abs(now))

    def _shed(self, report: SolveReport) -> None:
        """Drop cuts that had no multiplier for IDLE_ROUNDS rounds."""
        if report.duals is None or not self.idle.size:
            return
        owners = np.array([self.store.neurons[i] for i in self.ids.tolist()], dtype=np.int64)
        with np.errstate(over="ignore", invalid="ignore"):
            busy = np.abs(report.duals[self.own_rows :]) * self.ranges[owners] > IDLE * self.scale
        self.idle = np.where(busy, 0, self.idle + 1)
        keep = self.idle < IDLE_ROUNDS
        if not keep.all():
            self.session.keep_rows(np.concatenate([np.ones(self.own_rows, dtype=bool), keep]))
            self.idle, self.ids = self.idle[keep], self.ids[keep]


def shared_planes(problem: Problem) -> CuttingPlanes:
    """The region's cut LP, made at first use and again if its session was lost."""
    planes = problem.shared("cutting_planes", lambda: CuttingPlanes(problem))
    if planes.session.broken and not isinstance(planes.session, NoSession):
        planes = CuttingPlanes(problem)
        problem.replace_shared("cutting_planes", planes)
    return planes


@failing_rows
def ideal_rung(problem: Problem) -> list[Bound]:
    """The cut LP's bound of every row, rows in order, cuts carried along."""
    started = time.perf_counter()
    planes = shared_planes(problem)
    costs, offsets = planes.layout.objective(problem.rows)
    building = (time.perf_counter() - started) / max(1, len(costs))
    found = []
    for i, (cost, offset) in enumerate(zip(costs, offsets.tolist(), strict=True)):
        planes = shared_planes(problem)
        with dropped_on_error(problem, "cutting_planes"):
            report = planes.minimize(cost, offset, problem.settings)
        bound = bound_from_report(problem, i, report, building)
        if report.status is not Status.FAILED:
            leaves = Leaves(region_of(problem), one_row(problem, i).rows[0], planes.store)
            leaves.add(np.full(planes.layout.count, -1, dtype=np.int8), planes.best)
            lower = max(leaves.certified, bound.certified_lower)
            bound = replace(bound, lower=lower, certified_lower=lower, drop=drop_of(problem, i, lower))
        found.append(replace(bound, multipliers=None))
    return found


RUNG = Rung(
    name="ideal",
    side=Side.LOWER,
    claim="LP plus cutting planes of each neuron's ideal formulation",
    source="Anderson et al. 2020; Tjandraatmadja et al. 2020",
    run=ideal_rung,
    certifies=True,
)
