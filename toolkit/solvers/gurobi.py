"""Gurobi through gurobipy's matrix interface; a model over the licence's size raises SolverUnavailableError."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.problems.answers import Status
from toolkit.problems.settings import Settings
from toolkit.solvers.linear_program import CompiledModel
from toolkit.solvers.session import STOP_AT_MARGIN, Licence, Session, Solver, SolverUnavailableError
from toolkit.solvers.solve_report import SolveReport

if TYPE_CHECKING:
    import gurobipy

GUROBI_SIZE_LIMIT = 2000  # variables, and constraints, of the licence that comes with gurobipy
GUROBI_QUADRATIC_LIMIT = 200  # its variables where a constraint is quadratic
GUROBI_SIZE_ERROR, GUROBI_NO_LICENCE = 10010, 10009
UNLIMITED = (0, 99999999)  # expiry dates of a licence that has none


class GurobiSession(Session):
    """A model inside Gurobi; a two-sided row is two constraints there."""

    def __init__(self, solver: Solver, model: CompiledModel, settings: Settings, note: str = "") -> None:
        super().__init__(solver, model, settings, note)
        import gurobipy

        self._gurobipy = gurobipy
        self._statuses = {getattr(gurobipy.GRB, word): found for word, found in solver.statuses.items()}
        try:
            self._model = gurobipy.Model(env=_environment())
        except gurobipy.GurobiError as error:
            raise SolverUnavailableError(f"gurobi: {error}") from error
        self._model.Params.Threads = settings.threads
        self._model.Params.Seed = settings.seed
        model = self.model
        kinds = np.where(model.integer, "I", "C")
        self._x = self._model.addMVar(model.lower.size, lb=model.lower, ub=model.upper, vtype=kinds)
        matrix = model.matrix.tocsr()
        equal = model.row_lower == model.row_upper
        self._rows: list[tuple[np.ndarray, gurobipy.MConstr]] = []
        for mask, sense, side in (
            (equal, "=", model.row_lower),
            (~equal & np.isfinite(model.row_upper), "<", model.row_upper),
            (~equal & np.isfinite(model.row_lower), ">", model.row_lower),
        ):
            rows = np.flatnonzero(mask)
            if rows.size:
                self._rows.append((rows, self._model.addMConstr(matrix[rows], self._x, sense, side[rows])))

        if model.ellipsoid is not None:
            axes = self._x[: model.ellipsoid.center.size]
            moves = (axes - model.ellipsoid.center) * (1.0 / model.ellipsoid.radius)
            self._model.addConstr(moves @ moves <= 1.0)

    def _solve(self, cost: FloatArray, offset: float, settings: Settings) -> SolveReport:
        model, codes = self._model, self._gurobipy.GRB
        model.setObjective(cost @ self._x + offset)
        model.Params.TimeLimit = min(np.inf if settings.time_limit is None else settings.time_limit, codes.INFINITY)
        if self.model.is_mip:
            model.Params.MIPGap = settings.mip_gap
            model.Params.MIPGapAbs = settings.mip_gap_abs
            stop = settings.stop_at
            model.Params.BestBdStop = codes.INFINITY if stop is None else stop + STOP_AT_MARGIN
            model.Params.BestObjStop = -codes.INFINITY if stop is None else stop
        try:
            model.optimize()
        except self._gurobipy.GurobiError as error:
            if error.errno in (GUROBI_SIZE_ERROR, GUROBI_NO_LICENCE) or "license" in str(error).lower():
                raise SolverUnavailableError(f"gurobi: {error} (error {error.errno})") from error
            raise
        if model.Status == codes.INTERRUPTED:  # gurobipy takes Ctrl-C and only says so here
            raise KeyboardInterrupt
        return self._report()

    def _report(self) -> SolveReport:
        model, mip = self._model, self.model.is_mip
        found = self._statuses.get(model.Status, Status.FAILED)
        has_point = model.SolCount > 0
        duals = None
        if not mip and found is Status.OPTIMAL:
            duals = np.zeros(self.model.row_lower.size)
            for rows, constraints in self._rows:
                duals[rows] += constraints.Pi
        return SolveReport(
            found,
            bound=model.ObjBound if mip and found is not Status.FAILED else -np.inf,
            incumbent=model.ObjVal if has_point else np.inf,
            x=np.asarray(self._x.X) if has_point else None,
            duals=duals,
            nodes=int(model.NodeCount) if mip else 0,
            iterations=int(model.IterCount),
            message=f"gurobi: status {model.Status}" if found is Status.FAILED else "",
        )


@cache
def _environment() -> gurobipy.Env:
    import gurobipy

    return gurobipy.Env(params={"OutputFlag": 0})


@cache
def _licence() -> Licence:
    """Found by asking for one variable more than the size limit allows."""
    import gurobipy

    try:
        model = gurobipy.Model(env=_environment())
        expires = int(model.LicenseExpiration)
        model.addMVar(GUROBI_SIZE_LIMIT + 1)
        model.optimize()
    except gurobipy.GurobiError as error:
        if error.errno == GUROBI_SIZE_ERROR:
            return Licence(
                True, f"size-limited, expires {expires}", GUROBI_SIZE_LIMIT, quadratic_limit=GUROBI_QUADRATIC_LIMIT
            )
        return Licence(False, "no licence", reason=str(error))
    return Licence(True, "full" if expires in UNLIMITED else f"full, expires {expires}")


GUROBI = Solver(
    name="gurobi",
    package="gurobipy",
    citation="Gurobi Optimization, Gurobi Optimizer Reference Manual",
    session=GurobiSession,
    licence=_licence,
    quadratic=True,
    statuses={  # names in gurobipy.GRB
        "OPTIMAL": Status.OPTIMAL,
        "TIME_LIMIT": Status.TIME_LIMIT,
        "USER_OBJ_LIMIT": Status.DECIDED,
    },
)
