"""Objective rows minimised over the template in one persistent solver session: what lp, exact and ideal share.

The lower side handed out for an LP is the certificate at its multipliers (dual_bound.py), which holds in real
arithmetic whatever the solver did; that of a MILP is the solver's word, and its certified part the LP's. A template
that cannot be built or that no solver takes gives FAILED bounds that say why.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pyomo.environ as pyo
import scipy.sparse as sp

from toolkit.arrays import FloatArray
from toolkit.certificates.dual_bound import CHORD, certify_multipliers
from toolkit.problems.consistency import clean_values
from toolkit.problems.problem import Bound, Problem, Settings, Status
from toolkit.relaxations.compile import compile_model
from toolkit.relaxations.template import TemplateError, TemplateLayout, build_template
from toolkit.solvers.linear_program import CompiledModel
from toolkit.solvers.registry import fall_back, open_session
from toolkit.solvers.session import Session, SolverUnavailableError
from toolkit.solvers.solve_report import SolveReport


def failing_rows(run: Callable[[Problem], list[Bound]]) -> Callable[[Problem], list[Bound]]:
    """A rung's run whose rows are FAILED, with the reason, where the problem has no template in floats."""

    @functools.wraps(run)
    def answer(problem: Problem) -> list[Bound]:
        try:
            return run(problem)
        except TemplateError as error:
            return [Bound(-np.inf, status=Status.FAILED, message=str(error)) for _ in problem.targets]

    return answer


@contextmanager
def dropped_on_error(problem: Problem, *keys: Any) -> Iterator[None]:
    """Forget shared values that an exception, Ctrl-C among them, may have left half changed."""
    try:
        yield
    except BaseException:
        for key in keys:
            problem.drop_shared(key)
        raise


def one_row(problem: Problem, row: int) -> Problem:
    """The problem with this row alone, dense whatever it was, shape (1, outputs)."""
    chosen = problem.rows[[row]]
    dense = chosen.toarray() if sp.issparse(chosen) else np.asarray(chosen, dtype=np.float64)
    return problem.with_rows(dense, problem.targets[row : row + 1])


def promised_gap(settings: Settings, upper: float, drop: float) -> float:
    """The width at which an interval ending at `upper` counts as closed: relative, or absolute, whichever is larger.

    The absolute gap is one of the objective's own drop (its value at the ball's centre less its root bound) where that
    is below 1: the unit of the logits must not decide what counts as solved.
    """
    return max(settings.mip_gap * abs(upper), settings.mip_gap_abs * min(1.0, max(drop, 0.0)))


def shared_template(problem: Problem) -> tuple[pyo.ConcreteModel, CompiledModel]:
    """The built template of the problem's region (indicators relaxed) and its matrices, made once."""

    def make() -> tuple[pyo.ConcreteModel, CompiledModel]:
        with np.errstate(over="ignore", invalid="ignore"):  # TemplateError says so
            model = build_template(problem.network, problem.ball, problem.relu_bounds, "relaxed")
        return model, compile_model(model)

    return problem.shared("template", make)


def minimize_rows(problem: Problem, key: str, model: CompiledModel, relaxed: list[Bound] | None = None) -> list[Bound]:
    """Minimise every row of the problem in one persistent session over `model`; the session is kept under `key`.

    relaxed: the LP's bounds of the rows where the model is the MILP. Time not spent inside the solver (building,
    compiling, handing over) is build_seconds, divided evenly over the rows.
    """
    started = time.perf_counter()
    shared_key = ("session", key)
    with dropped_on_error(problem, shared_key):
        session: Session = problem.shared(shared_key, lambda: open_session(model, problem.settings))
        layout: TemplateLayout = shared_template(problem)[0].layout
        costs, offsets = layout.objective(problem.rows)
        building = (time.perf_counter() - started) / max(1, len(costs))
        bounds = []
        for i, (cost, offset) in enumerate(zip(costs, offsets.tolist(), strict=True)):
            lp = None if relaxed is None else relaxed[i]
            settings = problem.settings if lp is None else _milp_settings(problem.settings, lp.drop)
            try:
                report = session.minimize(cost, offset, settings)
            except SolverUnavailableError as error:
                session = fall_back(model, problem.settings, str(error))
                problem.replace_shared(shared_key, session)
                report = session.minimize(cost, offset, settings)
            bounds.append(bound_from_report(problem, i, report, building, lp))
    return bounds


def _milp_settings(settings: Settings, drop: float) -> Settings:
    """Gaps for a solver: none where a sign is asked for, which a gap could leave open."""
    if settings.stop_at is not None:
        return replace(settings, mip_gap=0.0, mip_gap_abs=0.0)
    return replace(settings, mip_gap_abs=promised_gap(settings, 0.0, drop))


def bound_from_report(
    problem: Problem, row: int, report: SolveReport, building: float = 0.0, relaxed: Bound | None = None
) -> Bound:
    """What one solve says of one row: the lower side, and the replayed minimiser with its relaxation slack.

    relaxed: for a MILP the LP's bound of the row; lower is then the solver's word, at least the LP's.
    """
    layout: TemplateLayout = shared_template(problem)[0].layout
    if report.status is Status.INFEASIBLE:  # a ball is never empty: l,u or the solver are wrong
        report = replace(
            report, status=Status.FAILED, bound=-np.inf, message="the template is infeasible: l,u are wrong"
        )
    witness, upper, slack = None, np.inf, None
    if report.x is not None:
        # x̂ = y − s gives y − max(x̂, 0) = min(y, s)
        slack = np.maximum(np.minimum(report.x[layout.block("y")], report.x[layout.block("s")]), 0.0)
        witness, upper = replayed(problem.with_rows(problem.rows[[row]]), report.x[: problem.ball.size])
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
    witness = problem.ball.project(point)
    with np.errstate(over="ignore", invalid="ignore"):
        value = float(problem.replay(witness)[0, 0])
    return (witness, value) if np.isfinite(value) else (None, np.inf)


def drop_of(problem: Problem, row: int, lower: float) -> float:
    """The row's value at the ball's centre less `lower`; 0 where that is no positive number."""
    drop = float(clean_values(problem)[row]) - lower
    return drop if np.isfinite(drop) and drop > 0 else 0.0


def certify_report(problem: Problem, row: int, report: SolveReport) -> tuple[FloatArray | None, float]:
    """λ of the unstable neurons (the duals of x̂ = y − s, the template's first rows) and the bound they certify.

    It holds if l,u do. A solver that gives no duals leaves the bound of the dual rung's multipliers.
    """
    if report.status is Status.FAILED:
        return None, -np.inf
    if report.duals is None:
        return None, certify_multipliers(problem, row, np.full(shared_template(problem)[0].layout.count, CHORD))
    multipliers = report.duals[: shared_template(problem)[0].layout.count]
    return multipliers, certify_multipliers(problem, row, multipliers)
