"""The solver boundary: the only file that knows a solver's names, licences, size limits and statuses.

SOLVERS declares what each solver is; `open_session` picks one for a compiled model and falls back to HiGHS, which is
always there, saying so in the message of every report. A model that HiGHS refuses as well gets a NoSession.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from toolkit.arrays import BoolArray, FloatArray, IndexArray
from toolkit.problems.answers import Status
from toolkit.problems.settings import Settings
from toolkit.solvers.linear_program import CompiledModel
from toolkit.solvers.session import NoSession, Session, SolveReport, SolverUnavailableError

GUROBI_SIZE_LIMIT = 2000  # variables, and constraints, of the licence that comes with gurobipy
GUROBI_SIZE_ERROR, GUROBI_NO_LICENCE = 10010, 10009
SCIP_INVALID = 1e90  # a dual this large is none
STOP_MARGIN = 1e-9  # of the scaled objective: a bound must pass stop_at by this much for "at least" to mean "greater"


class HighsSession(Session):
    """HiGHS through highspy: the model is passed once, then only costs change and the LP basis stays warm."""

    name = "highs"
    changes = True
    last_resort = True

    def __init__(self, model: CompiledModel, settings: Settings, version: str = "", note: str = "") -> None:
        super().__init__(model, settings, version, note)
        import highspy

        self._highspy = highspy
        self._highs = highspy.Highs()
        self._cost: FloatArray | None = None  # as HiGHS has it
        self._set("output_flag", False)
        self._set("threads", settings.threads)
        self._set("random_seed", settings.seed)
        if not model.is_mip:
            self._set("presolve", "off")
            self._set("solver", "simplex")
        if self.model.lower.size and self._highs.passModel(self._lp()) == highspy.HighsStatus.kError:
            raise SolverUnavailableError("highs refused the model")

    def _set(self, option: str, value: Any) -> None:
        if self._highs.setOptionValue(option, value) != self._highspy.HighsStatus.kOk:
            raise SolverUnavailableError(f"highs {self.version} refuses option {option} = {value!r}")

    def _lp(self) -> Any:
        model, highspy = self.model, self._highspy
        lp = highspy.HighsLp()
        lp.num_row_, lp.num_col_ = model.matrix.shape
        lp.col_cost_ = np.zeros(lp.num_col_)
        lp.col_lower_, lp.col_upper_ = model.lower, model.upper
        lp.row_lower_, lp.row_upper_ = model.row_lower, model.row_upper
        matrix = model.matrix.tocsc()
        lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = matrix.indptr, matrix.indices, matrix.data
        if model.is_mip:
            kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
            lp.integrality_ = [kinds[int(flag)] for flag in model.integer]
        return lp

    def _rows_added(self, rows: Any, lower: FloatArray, upper: FloatArray) -> None:
        count = int(rows.shape[0])
        ends = rows.indptr[:-1]
        self._made(self._highs.addRows(count, lower, upper, int(rows.nnz), ends, rows.indices, rows.data))

    def _rows_kept(self, keep: BoolArray) -> None:
        gone = np.flatnonzero(~keep).astype(np.int32)
        self._made(self._highs.deleteRows(gone.size, gone))

    def _bounds_set(self, columns: IndexArray, lower: FloatArray, upper: FloatArray) -> None:
        self._made(self._highs.changeColsBounds(columns.size, columns.astype(np.int32), lower, upper))

    def _made(self, status: Any) -> None:
        """After a change of the model that HiGHS refused, hand the changed model over anew: both must be the same."""
        if status != self._highspy.HighsStatus.kError:
            return
        self._cost = None
        if self._highs.passModel(self._lp()) == self._highspy.HighsStatus.kError:
            raise SolverUnavailableError(f"highs {self.version} refused a change of the model, and the changed model")

    def _solve(self, cost: FloatArray, offset: float, settings: Settings) -> SolveReport:
        highs, kinds = self._highs, self._highspy.HighsModelStatus
        if self._cost is None or not np.array_equal(self._cost, cost):
            self._cost = None  # until HiGHS has it
            highs.changeColsCost(cost.size, np.arange(cost.size, dtype=np.int32), cost)
            self._cost = cost
        # an LP's duals and cutoff need no offset, which may be so large that HiGHS takes the objective for infinite
        apart = 0.0 if self.model.is_mip else offset
        highs.changeObjectiveOffset(offset - apart)
        # an LP's limit is compared with the run time summed over all calls, a MILP's with that of its own call
        spent = 0.0 if self.model.is_mip else highs.getRunTime()
        self._set("time_limit", float("inf") if settings.time_limit is None else spent + settings.time_limit)
        limit = self.iteration_limit
        self._set("simplex_iteration_limit", 2**31 - 1 if limit is None else limit)
        decided = False
        if self.model.is_mip:
            self._set("mip_rel_gap", settings.mip_gap)
            self._set("mip_abs_gap", settings.mip_gap_abs)
            highs.clearSolver()  # a MILP starts afresh; a kept incumbent belongs to another objective
            decided = self._run_until(settings.stop_at)
            if not decided and highs.getModelStatus() == kinds.kInterrupt:
                raise KeyboardInterrupt
        else:
            self._set("objective_bound", float("inf") if self.cutoff is None else self.cutoff - apart)
            highs.run()
            if highs.getModelStatus() == kinds.kNotset:  # it lost its way from the last basis: once more, from none
                highs.clearSolver()
                highs.run()
        status, info, solution = highs.getModelStatus(), highs.getInfo(), highs.getSolution()
        x = np.array(solution.col_value) if solution.value_valid else None
        duals = np.array(solution.row_dual) if solution.dual_valid else None
        if status == kinds.kInfeasible and not self.model.is_mip:
            ray = highs.getDualRay()
            duals = np.array(ray[2]) if ray[1] else None
        found = {
            kinds.kOptimal: Status.OPTIMAL,
            kinds.kTimeLimit: Status.TIME_LIMIT,
            kinds.kIterationLimit: Status.TIME_LIMIT,
            kinds.kInfeasible: Status.FAILED if self.model.is_mip else Status.INFEASIBLE,
            kinds.kInterrupt: Status.DECIDED if decided else Status.FAILED,
            kinds.kObjectiveTarget: Status.DECIDED,
            kinds.kObjectiveBound: Status.DECIDED,
        }.get(status, Status.FAILED)
        return SolveReport(
            found,
            bound=info.mip_dual_bound if self.model.is_mip and found is not Status.FAILED else -np.inf,
            incumbent=info.objective_function_value + apart,
            x=x,
            duals=duals,
            nodes=max(0, int(info.mip_node_count)),
            iterations=max(0, int(info.simplex_iteration_count)),
            message=f"highs: {highs.modelStatusToString(status)}" if found is Status.FAILED else "",
        )

    def _run_until(self, stop_at: float | None) -> bool:
        """Run a MILP; with `stop_at`, interrupt once bound or incumbent has decided. Returns whether it interrupted.

        Whatever is raised while HiGHS looks in here, Ctrl-C above all, stops it and is raised again afterwards.
        """
        highs = self._highs
        decided = False
        raised: list[BaseException] = []

        def check(event: Any) -> None:
            nonlocal decided
            try:
                data = event.data_out
                if stop_at is not None:
                    decided = bool(data.mip_dual_bound > stop_at or data.mip_primal_bound <= stop_at)
            except BaseException as error:
                raised.append(error)
            event.interrupt(decided or bool(raised))  # always set: the flag would outlive this run

        highs.cbMipInterrupt.subscribe(check)
        try:
            highs.run()
        finally:
            highs.cbMipInterrupt.unsubscribe(check)
        if raised:
            raise raised[0]
        return decided


class GurobiSession(Session):
    """Gurobi through gurobipy's matrix interface; a model over the licence's size raises SolverUnavailableError."""

    name = "gurobi"

    def __init__(self, model: CompiledModel, settings: Settings, version: str = "", note: str = "") -> None:
        super().__init__(model, settings, version, note)
        import gurobipy

        self._gurobipy = gurobipy
        try:
            self._model = gurobipy.Model(env=_gurobi_environment())
        except gurobipy.GurobiError as error:
            raise SolverUnavailableError(f"gurobi: {error}") from error
        self._model.Params.Threads = settings.threads
        self._model.Params.Seed = settings.seed
        model = self.model
        kinds = np.where(model.integer, "I", "C")
        self._x = self._model.addMVar(model.lower.size, lb=model.lower, ub=model.upper, vtype=kinds)
        matrix = model.matrix.tocsr()
        equal = model.row_lower == model.row_upper
        order = []
        for mask, sense, side in (
            (equal, "=", model.row_lower),
            (~equal & np.isfinite(model.row_upper), "<", model.row_upper),
            (~equal & np.isfinite(model.row_lower), ">", model.row_lower),
        ):
            rows = np.flatnonzero(mask)
            if rows.size:
                order.append((rows, self._model.addMConstr(matrix[rows], self._x, sense, side[rows])))
        self._rows = order

    def _solve(self, cost: FloatArray, offset: float, settings: Settings) -> SolveReport:
        model, codes = self._model, self._gurobipy.GRB
        model.setObjective(cost @ self._x + offset)
        model.Params.TimeLimit = codes.INFINITY if settings.time_limit is None else settings.time_limit
        if self.model.is_mip:
            model.Params.MIPGap = settings.mip_gap
            model.Params.MIPGapAbs = settings.mip_gap_abs
            stop = settings.stop_at
            model.Params.BestBdStop = codes.INFINITY if stop is None else stop + STOP_MARGIN
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
        model, codes, mip = self._model, self._gurobipy.GRB, self.model.is_mip
        found = {
            codes.OPTIMAL: Status.OPTIMAL,
            codes.TIME_LIMIT: Status.TIME_LIMIT,
            codes.USER_OBJ_LIMIT: Status.DECIDED,
        }.get(model.Status, Status.FAILED)
        has_point = model.SolCount > 0
        duals = None
        if not mip and model.Status == codes.OPTIMAL:
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


class ScipSession(Session):
    """SCIP through pyscipopt. An LP is solved without presolve and propagation, so that its rows keep their duals."""

    name = "scip"

    def __init__(self, model: CompiledModel, settings: Settings, version: str = "", note: str = "") -> None:
        super().__init__(model, settings, version, note)
        import pyscipopt

        self._scip = pyscipopt.Model()
        self._scip.hideOutput()
        model = self.model
        columns = zip(model.lower.tolist(), model.upper.tolist(), model.integer.tolist(), strict=True)
        self._x = [self._scip.addVar(lb=low, ub=high, vtype="I" if whole else "C") for low, high, whole in columns]
        self._rows = [self._row(i) for i in range(model.matrix.shape[0])]
        self._scip.setParam("randomization/randomseedshift", settings.seed)
        if not model.is_mip:
            self._scip.setPresolve(pyscipopt.SCIP_PARAMSETTING.OFF)
            self._scip.setHeuristics(pyscipopt.SCIP_PARAMSETTING.OFF)
            self._scip.setSeparating(pyscipopt.SCIP_PARAMSETTING.OFF)
            self._scip.disablePropagation()
            self._scip.setParam("limits/maxorigsol", 0)  # a point kept from another objective may end it before its LP

    def _row(self, i: int) -> Any:
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
        apart = 0.0 if mip else offset  # as for HiGHS
        scip.addObjoffset(offset - apart - scip.getObjoffset())
        scip.setParam("limits/time", 1e20 if settings.time_limit is None else settings.time_limit)
        scip.setParam("limits/gap", settings.mip_gap if mip else 0.0)
        scip.setParam("limits/absgap", settings.mip_gap_abs if mip else 0.0)
        stop = settings.stop_at if mip else None
        scip.setParam("limits/dual", 1e20 if stop is None else stop + STOP_MARGIN)
        scip.setParam("limits/primal", -1e20 if stop is None else stop)
        scip.optimize()
        status = scip.getStatus()
        if status == "userinterrupt":
            raise KeyboardInterrupt
        found = {
            "optimal": Status.OPTIMAL,
            "gaplimit": Status.OPTIMAL,
            "timelimit": Status.TIME_LIMIT,
            "duallimit": Status.DECIDED,
            "primallimit": Status.DECIDED,
        }.get(status, Status.FAILED)
        has_point = scip.getNSols() > 0
        best = scip.getBestSol() if has_point else None
        return SolveReport(
            found,
            bound=scip.getDualbound() if mip and found is not Status.FAILED else -np.inf,
            incumbent=scip.getObjVal() + apart if has_point else np.inf,
            x=np.array([scip.getSolVal(best, variable) for variable in self._x]) if has_point else None,
            duals=self._duals(cost) if not mip and status == "optimal" else None,
            nodes=int(scip.getNNodes()),
            iterations=int(scip.getNLPIterations()),
            message=f"scip: {status}" if found is Status.FAILED else "",
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


@dataclass(frozen=True)
class Licence:
    """What may be solved here: usable at all, its kind in words, the largest model, and why not."""

    usable: bool
    kind: str
    size_limit: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Solver:
    """One entry of SOLVERS. package: the importable name and the distribution on the package index."""

    name: str
    package: str
    session: type[Session]
    licence: Callable[[], Licence]
    mip: bool = True
    qp: bool = False
    extra: str = ""

    def version(self) -> str:
        """Version of the installed package, "" if it is not installed."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return ""

    def status(self) -> Licence:
        """Whether the solver can be used here, and up to which size."""
        if importlib.util.find_spec(self.package) is None:
            hint = f"pip install 'relugap[{self.extra}]'" if self.extra else f"pip install {self.package}"
            return Licence(False, "not installed", reason=f"{self.package} is not installed ({hint})")
        return self.licence()


@cache
def _gurobi_environment() -> Any:
    import gurobipy

    return gurobipy.Env(params={"OutputFlag": 0})


@cache
def _gurobi_licence() -> Licence:
    """Found by asking for one variable more than the size limit allows."""
    import gurobipy

    try:
        model = gurobipy.Model(env=_gurobi_environment())
        expires = int(model.LicenseExpiration)
        model.addMVar(GUROBI_SIZE_LIMIT + 1)
        model.optimize()
    except gurobipy.GurobiError as error:
        if error.errno == GUROBI_SIZE_ERROR:
            return Licence(True, f"size-limited, expires {expires}", GUROBI_SIZE_LIMIT)
        return Licence(False, "no licence", reason=str(error))
    return Licence(True, "full" if expires in (0, 99999999) else f"full, expires {expires}")


SOLVERS: dict[str, Solver] = {
    "highs": Solver("highs", "highspy", HighsSession, lambda: Licence(True, "MIT, no limit"), qp=True),
    "gurobi": Solver("gurobi", "gurobipy", GurobiSession, _gurobi_licence, qp=True),
    "scip": Solver("scip", "pyscipopt", ScipSession, lambda: Licence(True, "Apache 2.0, no limit"), extra="scip"),
}
SOLVER_NAMES = ("auto", *SOLVERS)


def check_solver_name(name: str) -> str:
    """The name itself; ValueError lists the allowed ones."""
    if name not in SOLVER_NAMES:
        raise ValueError(f"unknown solver {name!r}; allowed: {', '.join(SOLVER_NAMES)}")
    return name


def open_session(model: CompiledModel, settings: Settings) -> Session:
    """A session for the model in the solver the settings ask for.

    "auto": for a MILP Gurobi when the model fits the licence found, else HiGHS; for an LP HiGHS, whose warm start was
    measured faster. A solver asked for by name that cannot take the model falls back to HiGHS, and the reason stands
    in the message of every report; where HiGHS cannot either, every report is FAILED with both reasons. Raises
    ValueError for an unknown name.
    """
    name = check_solver_name(settings.solver)
    if name == "auto":
        name = automatic_milp_solver(model) if model.is_mip else "highs"
    refusal = _refusal(SOLVERS[name], model)
    if not refusal:
        try:
            return SOLVERS[name].session(model, settings, SOLVERS[name].version())
        except SolverUnavailableError as error:
            refusal = str(error)
    return fall_back(model, settings, refusal)


def automatic_milp_solver(model: CompiledModel) -> str:
    """The MILP solver "auto" means for a model of this size: Gurobi within the licence found, else HiGHS."""
    return "highs" if _refusal(SOLVERS["gurobi"], model) else "gurobi"


def fall_back(model: CompiledModel, settings: Settings, reason: str) -> Session:
    """A HiGHS session whose reports say why another solver was not used, or a NoSession if HiGHS does not take it."""
    solver = SOLVERS["highs"]
    try:
        return solver.session(model, settings, solver.version(), f"fell back to highs: {reason}")
    except SolverUnavailableError as error:
        reasons = dict.fromkeys((reason, str(error)))  # the same one if HiGHS was the first choice
        return NoSession(solver.name, solver.version(), "no solver takes the model: " + "; ".join(reasons))


def _refusal(solver: Solver, model: CompiledModel) -> str:
    """Why the solver cannot take the model, "" if it can."""
    licence = solver.status()
    if not licence.usable:
        return licence.reason
    size = max(model.matrix.shape)
    if licence.size_limit is not None and size > licence.size_limit:
        rows, columns = model.matrix.shape
        return f"{solver.name}: {columns} variables and {rows} constraints exceed the licence's {licence.size_limit}"
    return ""
