"""HiGHS through highspy: the model is passed once, then only costs change and the LP basis stays warm.

HiGHS has one scheduler a thread of the process, and refuses to run with another number of threads than that was made
for: then it is made anew (`_run`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import BoolArray, FloatArray, IndexArray
from toolkit.problems.answers import Status
from toolkit.problems.settings import Settings
from toolkit.solvers.linear_program import CompiledModel
from toolkit.solvers.session import Licence, Session, Solver, SolverUnavailableError
from toolkit.solvers.solve_report import SolveReport

if TYPE_CHECKING:
    import highspy

NO_ITERATION_LIMIT = 2**31 - 1


class HighsSession(Session):
    """A model inside HiGHS, whose rows and bounds may change."""

    def __init__(self, solver: Solver, model: CompiledModel, settings: Settings, note: str = "") -> None:
        super().__init__(solver, model, settings, note)
        import highspy

        self._highspy = highspy
        self._statuses = {getattr(highspy.HighsModelStatus, word): found for word, found in solver.statuses.items()}
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

    def _set(self, option: str, value: bool | int | float | str) -> None:
        if self._highs.setOptionValue(option, value) != self._highspy.HighsStatus.kOk:
            raise SolverUnavailableError(f"highs {self.version} refuses option {option} = {value!r}")

    def _lp(self) -> highspy.HighsLp:
        model, core = self.model, self._highspy
        lp: highspy.HighsLp = core.HighsLp()
        lp.num_row_, lp.num_col_ = model.matrix.shape
        lp.col_cost_ = np.zeros(lp.num_col_)
        lp.col_lower_, lp.col_upper_ = model.lower, model.upper
        lp.row_lower_, lp.row_upper_ = model.row_lower, model.row_upper
        matrix = model.matrix.tocsc()
        lp.a_matrix_.format_ = core.MatrixFormat.kColwise
        lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = matrix.indptr, matrix.indices, matrix.data
        if model.is_mip:
            kinds = (core.HighsVarType.kContinuous, core.HighsVarType.kInteger)
            lp.integrality_ = [kinds[int(flag)] for flag in model.integer]
        return lp

    def _rows_added(self, rows: sp.csr_array, lower: FloatArray, upper: FloatArray) -> None:
        count = int(rows.shape[0])
        ends = rows.indptr[:-1]
        self._made(self._highs.addRows(count, lower, upper, int(rows.nnz), ends, rows.indices, rows.data))

    def _rows_kept(self, keep: BoolArray) -> None:
        gone = np.flatnonzero(~keep).astype(np.int32)
        self._made(self._highs.deleteRows(gone.size, gone))

    def _bounds_set(self, columns: IndexArray, lower: FloatArray, upper: FloatArray) -> None:
        self._made(self._highs.changeColsBounds(columns.size, columns.astype(np.int32), lower, upper))

    def _made(self, status: highspy.HighsStatus) -> None:
        """After a change of the model that HiGHS refused, hand the changed model over anew: both must be the same."""
        if status != self._highspy.HighsStatus.kError:
            return
        self._cost = None
        if self._highs.passModel(self._lp()) == self._highspy.HighsStatus.kError:
            raise SolverUnavailableError(f"highs {self.version} refused a change of the model, and the changed model")

    def _solve(self, cost: FloatArray, offset: float, settings: Settings) -> SolveReport:
        highs = self._highs
        if self._cost is None or not np.array_equal(self._cost, cost):
            self._cost = None  # until HiGHS has it
            highs.changeColsCost(cost.size, np.arange(cost.size, dtype=np.int32), cost)
            self._cost = cost
        # an LP's duals and cutoff need no offset, which may be so large that HiGHS takes the objective for infinite
        apart = 0.0 if self.model.is_mip else offset
        highs.changeObjectiveOffset(offset - apart)
        limit = self.iteration_limit
        self._set("simplex_iteration_limit", NO_ITERATION_LIMIT if limit is None else limit)
        decided = self._run_mip(settings) if self.model.is_mip else self._run_lp(settings, apart)
        if not decided and highs.getModelStatus() == self._highspy.HighsModelStatus.kInterrupt:
            raise KeyboardInterrupt
        return self._report(apart)

    def _run_lp(self, settings: Settings, apart: float) -> bool:
        highs = self._highs
        limit = settings.time_limit  # compared with the run time summed over all calls
        self._set("time_limit", float("inf") if limit is None else highs.getRunTime() + limit)
        self._set("objective_bound", float("inf") if self.cutoff is None else self.cutoff - apart)
        _run(highs)
        if highs.getModelStatus() == self._highspy.HighsModelStatus.kNotset:
            highs.clearSolver()  # it lost its way from the last basis: once more, from none
            _run(highs)
        return False

    def _run_mip(self, settings: Settings) -> bool:
        """Whether it was ended because stop_at was decided."""
        limit = settings.time_limit
        self._set("time_limit", float("inf") if limit is None else limit)
        self._set("mip_rel_gap", settings.mip_gap)
        self._set("mip_abs_gap", settings.mip_gap_abs)
        self._highs.clearSolver()  # a MILP starts afresh; a kept incumbent belongs to another objective
        return _run_until(self._highs, settings.stop_at)

    def _report(self, apart: float) -> SolveReport:
        """What HiGHS says of its last run. apart: the part of the objective's constant that HiGHS does not know."""
        highs, mip = self._highs, self.model.is_mip
        word, info, solution = highs.getModelStatus(), highs.getInfo(), highs.getSolution()
        found = self._statuses.get(word, Status.FAILED)
        duals = np.array(solution.row_dual) if solution.dual_valid else None
        if found is Status.INFEASIBLE and not mip:
            ray = highs.getDualRay()
            duals = np.array(ray[2]) if ray[1] else None
        return SolveReport(
            found,
            bound=info.mip_dual_bound if mip and found is not Status.FAILED else -np.inf,
            incumbent=info.objective_function_value + apart,
            x=np.array(solution.col_value) if solution.value_valid else None,
            duals=duals,
            nodes=max(0, int(info.mip_node_count)),
            iterations=max(0, int(info.simplex_iteration_count)),
            message=f"highs: {highs.modelStatusToString(word)}" if found is Status.FAILED else "",
        )


def _run(highs: highspy.Highs) -> None:
    """Run it; once more with a scheduler of its own where it refuses the one there is."""
    if highs.run().name == "kError":
        highs.resetGlobalScheduler(True)
        highs.run()


def _run_until(highs: highspy.Highs, stop_at: float | None) -> bool:
    """Run a MILP; with `stop_at`, interrupt once bound or incumbent has decided. Returns whether it interrupted.

    Whatever is raised while HiGHS looks in here, Ctrl-C above all, stops it and is raised again afterwards.
    """
    decided = False
    raised: list[BaseException] = []

    def check(event: highspy.HighsCallbackEvent) -> None:
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
        _run(highs)
    finally:
        highs.cbMipInterrupt.unsubscribe(check)
    if raised:
        raise raised[0]
    return decided


HIGHS = Solver(
    name="highs",
    package="highspy",
    citation="Huangfu & Hall 2018, Parallelizing the dual revised simplex method, Math. Program. Comput. 10",
    session=HighsSession,
    licence=lambda: Licence(True, "MIT, no limit"),
    statuses={  # names in highspy.HighsModelStatus
        "kOptimal": Status.OPTIMAL,
        "kTimeLimit": Status.TIME_LIMIT,
        "kIterationLimit": Status.TIME_LIMIT,
        "kInfeasible": Status.INFEASIBLE,
        "kInterrupt": Status.DECIDED,  # by stop_at: any other interrupt is raised
        "kObjectiveTarget": Status.DECIDED,
        "kObjectiveBound": Status.DECIDED,
    },
    changes_model=True,
    last_resort=True,
)
