"""The LP bound m̲: the template with every indicator relaxed to [0,1], solved to optimality.

Claim: the tightest bound the triangle relaxation gives on these l,u. The lower side is the bound that the LP's row
duals prove (weak duality), not the solver's objective; the minimiser x̃, projected into the ball and replayed through
the network, gives the upper side.

Source: Ehlers 2017; Wong & Kolter 2018, eq. (4); Salman et al. 2019, "A convex relaxation barrier".
Checked: the duals, the minimiser. Trusted: float64 rounding in the dual evaluation, and that the given l,u hold.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyomo.environ as pyo

from toolkit.compiled import CompiledModel, compile_model
from toolkit.problem import Bound, Problem, Rung, Side
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
        bounds.append(_bound(problem, i, report, building, -np.inf if floor is None else float(floor[i])))
    return bounds


def _bound(problem: Problem, row: int, report: SolveReport, building: float, floor: float) -> Bound:
    witness, upper = None, np.inf
    if report.x is not None:
        witness = problem.ball.project(report.x[: problem.ball.size])
        upper = float(problem.with_rows(problem.rows[[row]]).replay(witness)[0, 0])
    return Bound(
        lower=max(report.bound, floor),
        upper=upper,
        status=report.status,
        witness=witness,
        seconds=report.seconds + building,
        build_seconds=building,
        solver=report.solver,
        solver_version=report.version,
        nodes=report.nodes,
        iterations=report.iterations,
        message=report.message,
    )


def lp_rung(problem: Problem) -> list[Bound]:
    """The LP optimum of every row."""
    started = time.perf_counter()
    _, compiled = shared_template(problem)
    building = (time.perf_counter() - started) / max(1, problem.rows.shape[0])
    return [bound.with_build(building) for bound in minimize_rows(problem, "lp", compiled)]


RUNG = Rung(
    name="lp",
    side=Side.LOWER,
    claim="optimum of the triangle relaxation, bound proven by its duals",
    source="Ehlers 2017; Wong & Kolter 2018",
    run=lp_rung,
)
