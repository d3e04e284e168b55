"""What a solver reports, and which part of it is proven: the rest is a candidate, or goes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.data.arguments import instance, number_array, real_number, text, whole_number
from toolkit.problems.answers import Status
from toolkit.solvers.linear_program import CompiledModel


@dataclass(frozen=True, eq=False)
class SolveReport:
    """What one minimisation proved.

    bound: proven lower bound on the minimum (−inf: nothing). x: the solver's point, a candidate only; incumbent: its
    objective value as the solver states it (+inf without one). duals: one per row, candidates only (LP).
    """

    status: Status
    bound: float
    incumbent: float = float("inf")
    x: FloatArray | None = field(default=None, repr=False)
    duals: FloatArray | None = field(default=None, repr=False)
    seconds: float = 0.0
    solver: str = ""
    version: str = ""
    nodes: int = 0
    iterations: int = 0
    message: str = ""


def failure(reason: str) -> SolveReport:
    """The report of a minimisation that proved nothing, and why."""
    return SolveReport(Status.FAILED, -np.inf, message=reason)


def well_formed(report: SolveReport, model: CompiledModel) -> SolveReport:
    """The report, its numbers Python's and numpy's own. Raises ValueError for an answer of another type, and for arrays
    that do not fit the model."""
    instance("the answer", report, SolveReport), instance("status", report.status, Status)
    return replace(
        report,
        bound=float(real_number("bound", report.bound)),
        incumbent=float(real_number("incumbent", report.incumbent)),
        x=_one_each("x", report.x, model.matrix.shape[1], "column"),
        duals=_one_each("duals", report.duals, model.matrix.shape[0], "row"),
        nodes=whole_number("nodes", report.nodes, 0),
        iterations=whole_number("iterations", report.iterations, 0),
        message=text("message", report.message),
    )


def _one_each(name: str, values: FloatArray | None, count: int, what: str) -> FloatArray | None:
    if values is None:
        return None
    found = number_array(name, values)
    if found.shape != (count,):
        raise ValueError(f"{name} must have one entry per {what}, shape ({count},), got shape {found.shape}")
    return found


def proven(report: SolveReport, model: CompiledModel, cost: FloatArray, offset: float, solver: str) -> SolveReport:
    """A solver's report on min cost·z + offset over the model, with a bound that holds.

    LP: the bound that the row duals prove (CompiledModel.dual_bound), whatever the solver says; +inf where they prove
    that no z exists. Trusted: of a MILP, the solver's dual bound.
    """
    if report.status is Status.INFEASIBLE:
        return _proven_empty(report, model, solver)
    bound = report.bound
    if not model.is_mip:
        bound = -np.inf if report.duals is None else model.dual_bound(cost, offset, report.duals)
    bound = bound if np.isfinite(bound) and report.status is not Status.FAILED else -np.inf
    usable = report.status is not Status.FAILED and report.x is not None and bool(np.all(np.isfinite(report.x)))
    x = report.x if usable else None
    return replace(report, bound=float(bound), x=x, incumbent=report.incumbent if x is not None else np.inf)


def _proven_empty(report: SolveReport, model: CompiledModel, solver: str) -> SolveReport:
    """An infeasible LP: bound +inf if the multipliers prove it, else a failure that proves nothing."""
    if report.duals is not None and model.proves_empty(report.duals):
        return replace(report, bound=np.inf, incumbent=np.inf, x=None)
    message = f"{solver}: infeasible, but its multipliers do not prove it"
    return replace(report, status=Status.FAILED, bound=-np.inf, incumbent=np.inf, x=None, message=message)
