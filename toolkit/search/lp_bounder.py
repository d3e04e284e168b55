"""Objective rows minimised over the template in one persistent solver session: what lp, exact and ideal share.

The lower side handed out for an LP is the certificate at its multipliers (dual_bound.py), which holds in real
arithmetic whatever the solver did; that of a MILP is the solver's word, and its certified part the LP's. A template
that cannot be built or that no solver takes gives FAILED bounds that say why.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import FloatArray
from toolkit.certificates.dual_bound import CHORD, certify_multipliers
from toolkit.problems.answers import Bound, RowBounds, Status
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.relaxations.layout import TemplateError
from toolkit.search.clock import Clock
from toolkit.search.incumbent import promised_gap
from toolkit.search.tangents import touching_rows
from toolkit.solvers.linear_program import CompiledModel
from toolkit.solvers.registry import fall_back, open_session
from toolkit.solvers.session import Session, SolverUnavailableError
from toolkit.solvers.solve_report import SolveReport

if TYPE_CHECKING:
    from toolkit.relaxations.template import Template

TANGENT_ROUNDS, TANGENT_PATIENCE = 100, 8
TANGENT_GAIN = 1e-7  # of the objective's scale


def failing_rows(run: Callable[[Problem], list[Bound]]) -> Callable[[Problem], RowBounds]:
    """A rung's run whose rows are FAILED, with the reason, where the problem has no template in floats."""

    @functools.wraps(run)
    def answer(problem: Problem) -> RowBounds:
        try:
            return RowBounds.of(run(problem))
        except TemplateError as error:
            return RowBounds.of([Bound(-np.inf, status=Status.FAILED, message=str(error)) for _ in problem.targets])

    return answer


def template(problem: Problem) -> Template:
    """The template of the problem's region, built once.

    Loaded here and not with the rungs: Pyomo takes most of a second, and who only reads results builds no template.
    """
    from toolkit.relaxations.template import template_of

    return problem.region.derive(template_of)


class LpBounder:
    """One program in one solver, or in the one that takes over where that fails; lent by a problem's workspace."""

    def __init__(self, program: CompiledModel, settings: Settings) -> None:
        self.program, self.settings = program, settings
        self.session: Session = open_session(program, settings)
        self.tangent = np.zeros(program.matrix.shape[0], dtype=np.bool_)  # which rows `settle` has added

    def minimize(self, cost: FloatArray, offset: float, settings: Settings) -> SolveReport:
        """Minimise cost·z + offset over the program; see `Session.minimize`."""
        try:
            return self.session.minimize(cost, offset, settings)
        except SolverUnavailableError as error:
            self.session = fall_back(self.program, settings, str(error))
            return self.session.minimize(cost, offset, settings)

    def settle(self, cost: FloatArray, offset: float, settings: Settings, problem: Problem) -> SolveReport:
        """As `minimize`, over an input set that is not polyhedral: with tangents until the minimiser lies in it, or
        TANGENT_PATIENCE rounds gain nothing. Those in use stay for the next objective."""
        clock, scale = Clock(settings), self.program.objective_scale(cost)
        history: list[float] = []
        iterations = 0
        for _ in range(TANGENT_ROUNDS):
            report = self.minimize(cost, offset, clock.rest())
            iterations += report.iterations
            history.append(report.bound)
            rows, tops = touching_rows(
                problem.input_set, template(problem).layout.columns, self.program, self.tangent, report, cost
            )
            stalled = len(history) > TANGENT_PATIENCE and (
                history[-1] - history[-1 - TANGENT_PATIENCE] <= TANGENT_GAIN * scale
            )
            if report.status is not Status.OPTIMAL or not tops.size or stalled:
                break
            if clock.struck:
                report = replace(report, status=Status.TIME_LIMIT)
                break
            self._add(rows, tops)
        self._keep_used(report)
        return replace(report, seconds=clock.seconds, iterations=iterations)

    def _add(self, rows: sp.csr_array, tops: FloatArray) -> None:
        free = np.full(tops.size, -np.inf)
        self.program = self.program.with_rows(rows, free, tops)
        self.tangent = np.concatenate([self.tangent, np.ones(tops.size, dtype=np.bool_)])
        if self.session.solver.changes_model:
            self.session.add_rows(rows, free, tops)
        else:
            self.session = open_session(self.program, self.settings)

    def _keep_used(self, report: SolveReport) -> None:
        """Drop tangents without a multiplier, from a session that can."""
        if report.duals is None or not self.tangent.any() or not self.session.solver.changes_model:
            return
        used = np.zeros(self.tangent.size, dtype=np.bool_)
        used[: report.duals.size] = report.duals != 0.0
        keep = ~self.tangent | used
        self.program, self.tangent = self.program.without_rows(keep), self.tangent[keep]
        self.session.keep_rows(keep)


def minimize_rows(problem: Problem, program: CompiledModel, relaxed: list[Bound] | None = None) -> list[Bound]:
    """Minimise every row of the problem over the program in one session, kept in the problem's workspace.

    relaxed: the LP's bounds of the rows where the program is the MILP. Time not spent inside the solver (building,
    compiling, handing over) is build_seconds, divided evenly over the rows.
    """
    started = time.perf_counter()
    key = ("session", "lp" if relaxed is None else "milp", problem.settings.solver)
    with problem.workspace.borrow(problem.region, key, lambda: LpBounder(program, problem.settings)) as bounder:
        costs, offsets = template(problem).layout.objective(problem.rows)
        building = (time.perf_counter() - started) / max(1, len(costs))
        bounds = []
        for i, (cost, offset) in enumerate(zip(costs, offsets.tolist(), strict=True)):
            lp = None if relaxed is None else relaxed[i]
            settings = problem.settings if lp is None else _milp_settings(problem.settings, lp.drop)
            if relaxed is None and not problem.input_set.polyhedral:
                report = bounder.settle(cost, offset, settings, problem)
            else:
                report = bounder.minimize(cost, offset, settings)
            bounds.append(bound_from_report(problem, i, report, building, lp))
    return bounds


def _milp_settings(settings: Settings, drop: float) -> Settings:
    """Gaps for a solver: none where a sign is asked for, which a gap could leave open."""
    if settings.stop_at is not None:
        return replace(settings, mip_gap=0.0, mip_gap_abs=0.0)
    return replace(settings, mip_gap_abs=promised_gap(settings, 0.0, drop))


def never_empty(report: SolveReport) -> SolveReport:
    """A report on the whole region; a failure where it calls that empty: no ball is, so l,u or the solver are wrong."""
    if report.status is not Status.INFEASIBLE:
        return report
    return replace(report, status=Status.FAILED, bound=-np.inf, message="the template is infeasible: l,u are wrong")


def bound_from_report(
    problem: Problem, row: int, report: SolveReport, building: float = 0.0, relaxed: Bound | None = None
) -> Bound:
    """What one solve says of one row: the lower side, and the replayed minimiser with its relaxation slack.

    relaxed: for a MILP the LP's bound of the row; lower is then the solver's word, at least the LP's.
    """
    layout = template(problem).layout
    report = never_empty(report)
    witness, upper, slack = None, np.inf, None
    if report.x is not None:
        # x̂ = y − s gives y − max(x̂, 0) = min(y, s)
        slack = np.maximum(np.minimum(report.x[layout.block("y")], report.x[layout.block("s")]), 0.0)
        witness, upper = replayed(problem.with_rows(problem.rows[[row]]), report.x[: problem.input_set.size])
    if relaxed is None:
        multipliers, certified = certify_report(problem, row, report)
        lower = certified
    else:
        multipliers, certified = None, relaxed.certified_lower
        lower = -np.inf if report.status is Status.FAILED else max(report.bound, relaxed.lower)
    return Bound(
        lower=lower,
        upper=upper,
        status=report.status,
        witness=witness,
        slack=slack,
        seconds=report.seconds + building,
        build_seconds=building,
        solver=report.solver,
        solver_version=report.version,
        nodes=report.nodes,
        iterations=report.iterations,
        message=report.message,
        certified_lower=certified,
        multipliers=multipliers,
        slack_range=None if slack is None else layout.upper - layout.lower,
        drop=drop_of(problem, row, lower),
    )


def replayed(problem: Problem, point: FloatArray) -> tuple[FloatArray | None, float]:
    """The point projected into the ball, and the value of the problem's one row there; (None, inf) if it overflows."""
    witness = problem.input_set.project(point)
    with np.errstate(over="ignore", invalid="ignore"):
        value = float(problem.replay(witness)[0, 0])
    return (witness, value) if np.isfinite(value) else (None, np.inf)


def drop_of(problem: Problem, row: int, lower: float) -> float:
    """The row's value at the ball's centre less `lower`; 0 where that is no positive number."""
    drop = float(problem.clean_values()[row]) - lower
    return drop if np.isfinite(drop) and drop > 0 else 0.0


def certify_report(problem: Problem, row: int, report: SolveReport) -> tuple[FloatArray | None, float]:
    """λ of the unstable neurons (the duals of x̂ = y − s, the template's first rows) and the bound they certify.

    It holds if l,u do. A solver that gives no duals leaves the bound of the dual rung's multipliers.
    """
    if report.status is Status.FAILED:
        return None, -np.inf
    if report.duals is None:
        return None, certify_multipliers(problem, row, np.full(template(problem).layout.count, CHORD))
    multipliers = report.duals[template(problem).split_rows]
    return multipliers, certify_multipliers(problem, row, multipliers)
