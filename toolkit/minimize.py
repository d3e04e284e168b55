"""Objective rows minimised over the template in one persistent solver session: what lp, exact and ideal share."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pyomo.environ as pyo

from toolkit.balls import FloatArray
from toolkit.certificate import CHORD, certify_multipliers
from toolkit.compiled import CompiledModel, compile_model
from toolkit.problem import Bound, Problem, Status
from toolkit.session import Session, SolveReport, SolverUnavailableError
from toolkit.solvers import fall_back, open_session
from toolkit.template import TemplateLayout, build_template


def shared_template(problem: Problem) -> tuple[pyo.ConcreteModel, CompiledModel]:
    """The built template of the problem's region (indicators relaxed) and its matrices, made once."""

    def make() -> tuple[pyo.ConcreteModel, CompiledModel]:
        model = build_template(problem.network, problem.ball, problem.relu_bounds, "relaxed")
        return model, compile_model(model)

    return problem.shared("template", make)


def minimize_rows(problem: Problem, key: str, model: CompiledModel, floor: Any = None) -> list[Bound]:
    """Minimise every row of the problem in one persistent session over `model`; the session is kept under `key`.

    floor: proven lower bounds from elsewhere, shape (m,), or None. Time not spent inside the solver (building,
    compiling, handing over) is build_seconds, divided evenly over the rows.
    """
    started = time.perf_counter()
    session: Session = problem.shared(("session", key), lambda: open_session(model, problem.settings))
    layout: TemplateLayout = shared_template(problem)[0].layout
    costs, offsets = layout.objective(problem.rows)
    building = (time.perf_counter() - started) / max(1, len(costs))
    bounds = []
    for i, (cost, offset) in enumerate(zip(costs, offsets.tolist(), strict=True)):
        try:
            report = session.minimize(cost, offset, problem.settings)
        except SolverUnavailableError as error:
            session = fall_back(model, problem.settings, str(error))
            problem.replace_shared(("session", key), session)
            report = session.minimize(cost, offset, problem.settings)
        bounds.append(bound_from_report(problem, i, report, building, -np.inf if floor is None else float(floor[i])))
    return bounds


def bound_from_report(
    problem: Problem, row: int, report: SolveReport, building: float = 0.0, floor: float = -np.inf
) -> Bound:
    """What one solve proves of one row: the proven side, and the replayed minimiser with its relaxation slack."""
    witness, upper, slack = None, np.inf, None
    if report.status is Status.INFEASIBLE:  # a ball is never empty: l,u or the solver are wrong
        report = replace(
            report, status=Status.FAILED, bound=-np.inf, message="the template is infeasible: l,u are wrong"
        )
    if report.x is not None:
        layout = shared_template(problem)[0].layout
        # x̂ = y − s gives y − max(x̂, 0) = min(y, s)
        slack = np.maximum(np.minimum(report.x[layout.block("y")], report.x[layout.block("s")]), 0.0)
        witness = problem.ball.project(report.x[: problem.ball.size])
        upper = float(problem.with_rows(problem.rows[[row]]).replay(witness)[0, 0])
    multipliers, certified = certify_report(problem, row, report)
    return Bound(
        lower=max(report.bound, floor),
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
    )


def certify_report(problem: Problem, row: int, report: SolveReport) -> tuple[FloatArray | None, float]:
    """λ of the unstable neurons (the duals of x̂ = y − s, the template's first rows) and the bound they certify.

    A solver that gives no duals leaves the bound of the dual rung's multipliers.
    """
    if report.status is Status.FAILED:
        return None, -np.inf
    if report.duals is None:
        return None, certify_multipliers(problem, row, np.full(shared_template(problem)[0].layout.count, CHORD))
    multipliers = report.duals[: shared_template(problem)[0].layout.count]
    return multipliers, certify_multipliers(problem, row, multipliers)
