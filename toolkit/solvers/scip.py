"""SCIP through pyscipopt. An LP is solved without presolve and propagation, so that its rows keep their duals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.problems.answers import Status
from toolkit.problems.settings import Settings
from toolkit.solvers.linear_program import CompiledModel
from toolkit.solvers.session import STOP_AT_MARGIN, Licence, Session, Solver
from toolkit.solvers.solve_report import SolveReport

if TYPE_CHECKING:
    import pyscipopt

SCIP_INFINITY = 1e20
SCIP_INVALID = 1e90  # a dual this large is none


class ScipSession(Session):
    """A model inside SCIP, built variable by variable and row by row."""

    def __init__(self, solver: Solver, model: CompiledModel, settings: Settings, note: str = "") -> None:
        super().__init__(solver, model, settings, note)
        import pyscipopt

        self._scip = pyscipopt.Model()
        self._scip.hideOutput()
        model = self.model
        columns = zip(model.lower.tolist(), model.upper.tolist(), model.integer.tolist(), strict=True)
        self._x = [self._scip.addVar(lb=low, ub=high, vtype="I" if whole else "C") for low, high, whole in columns]
        self._rows = [self._row(i) for i in range(model.matrix.shape[0])]
        if model.ellipsoid is not None:
            center, radius = model.ellipsoid.center.tolist(), model.ellipsoid.radius.tolist()
            axes = zip(self._x[: len(center)], center, radius, strict=True)
            squares = (((x - middle) * (1.0 / reach)) ** 2 for x, middle, reach in axes)
            self._scip.addCons(pyscipopt.quicksum(squares) <= 1.0)
        self._scip.setParam("randomization/randomseedshift", settings.seed)
        if not model.is_mip:
            self._scip.setPresolve(pyscipopt.SCIP_PARAMSETTING.OFF)
            self._scip.setHeuristics(pyscipopt.SCIP_PARAMSETTING.OFF)
            self._scip.setSeparating(pyscipopt.SCIP_PARAMSETTING.OFF)
            self._scip.disablePropagation()
            self._scip.setParam("limits/maxorigsol", 0)  # a point kept from another objective may end it before its LP

    def _row(self, i: int) -> pyscipopt.Constraint | None:
        """The constraint of row i, None for a row without a side."""
        from pyscipopt.scip import Expr, ExprCons, Term

        matrix = self.model.matrix
        span = slice(matrix.indptr[i], matrix.indptr[i + 1])
        low, high = float(self.model.row_lower[i]), float(self.model.row_upper[i])
        sides = [side if np.isfinite(side) else None for side in (low, high)]
        if sides == [None, None]:
            return None
        entries = zip(matrix.indices[span].tolist(), matrix.data[span].tolist(), strict=True)
        body = Expr({Term(self._x[j]): value for j, value in entries})
        return self._scip.addCons(ExprCons(body, *sides))

    def _solve(self, cost: FloatArray, offset: float, settings: Settings) -> SolveReport:
        import pyscipopt

        scip, mip = self._scip, self.model.is_mip
        scip.freeTransform()
        body = pyscipopt.quicksum(value * self._x[j] for j, value in enumerate(cost.tolist()) if value)
        scip.setObjective(body + 0.0)
        apart = 0.0 if mip else offset  # which may be so large that SCIP takes the objective for infinite
        scip.addObjoffset(offset - apart - scip.getObjoffset())
        scip.setParam("limits/time", min(np.inf if settings.time_limit is None else settings.time_limit, SCIP_INFINITY))
        scip.setParam("limits/gap", settings.mip_gap if mip else 0.0)
        scip.setParam("limits/absgap", settings.mip_gap_abs if mip else 0.0)
        stop = settings.stop_at if mip else None
        scip.setParam("limits/dual", SCIP_INFINITY if stop is None else stop + STOP_AT_MARGIN)
        scip.setParam("limits/primal", -SCIP_INFINITY if stop is None else stop)
        scip.optimize()
        if scip.getStatus() == "userinterrupt":
            raise KeyboardInterrupt
        return self._report(cost, apart)

    def _report(self, cost: FloatArray, apart: float) -> SolveReport:
        """What SCIP says of its last run. apart: the part of the objective's constant that SCIP does not know."""
        scip, mip, word = self._scip, self.model.is_mip, self._scip.getStatus()
        found = self.solver.statuses.get(word, Status.FAILED)
        has_point = scip.getNSols() > 0
        best = scip.getBestSol() if has_point else None
        return SolveReport(
            found,
            bound=scip.getDualbound() if mip and found is not Status.FAILED else -np.inf,
            incumbent=scip.getObjVal() + apart if has_point else np.inf,
            x=np.array([scip.getSolVal(best, variable) for variable in self._x]) if has_point else None,
            duals=self._duals(cost) if not mip and word == "optimal" else None,
            nodes=int(scip.getNNodes()),
            iterations=int(scip.getNLPIterations()),
            message=f"scip: {word}" if found is Status.FAILED else "",
        )

    def _duals(self, cost: FloatArray) -> FloatArray:
        """Row duals of the LP just solved; whatever they are, they are checked.

        SCIP turns a row of one column into bounds of that column, and its dual into reduced cost: given back here.
        """
        duals = np.array([0.0 if row is None else self._scip.getDualsolLinear(row) for row in self._rows])
        duals = np.where(np.abs(duals) < SCIP_INVALID, duals, 0.0)
        matrix, model = self.model.matrix, self.model
        for i in np.flatnonzero(np.diff(matrix.indptr) == 1).tolist():
            j, value = int(matrix.indices[matrix.indptr[i]]), float(matrix.data[matrix.indptr[i]])
            reduced = cost[j] - float((model.matrix[:, [j]].T @ duals)[0]) if value else 0.0
            low, high = sorted((model.row_lower[i] / value, model.row_upper[i] / value)) if value else (-np.inf, np.inf)
            if (reduced > 0 and low > model.lower[j]) or (reduced < 0 and high < model.upper[j]):
                duals[i] += reduced / value
        return duals


SCIP = Solver(
    name="scip",
    package="pyscipopt",
    citation="Bolusani et al. 2024, The SCIP Optimization Suite 9.0",
    session=ScipSession,
    licence=lambda: Licence(True, "Apache 2.0, no limit"),
    statuses={  # words of Model.getStatus
        "optimal": Status.OPTIMAL,
        "gaplimit": Status.OPTIMAL,
        "timelimit": Status.TIME_LIMIT,
        "duallimit": Status.DECIDED,
        "primallimit": Status.DECIDED,
    },
    quadratic=True,
    extra="scip",
)
