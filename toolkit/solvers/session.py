"""What a solver declares, and what its sessions promise: bounds kept apart from candidates, failures not thrown.

A session holds one compiled model inside one solver and minimises one objective after another, warm-started. The solver
sees the equilibrated model of equilibration.py alone; bounds, points and duals come back in the model's own units. What
of a report is proven, solve_report.py says, so a lying LP solver only loosens a bound.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import BoolArray, FloatArray, IndexArray
from toolkit.problems.answers import Status
from toolkit.problems.settings import Settings
from toolkit.solvers.equilibration import ColumnScaling, scaled_model
from toolkit.solvers.linear_program import CompiledModel
from toolkit.solvers.solve_report import SolveReport, failure, proven, well_formed

LARGEST_GAP = 1e20
STOP_AT_MARGIN = 1e-9  # of the scaled objective: a bound passes stop_at by this much where "at least" must be "greater"


class SolverUnavailableError(RuntimeError):
    """A solver that cannot take this model here: not installed, no licence, or the model is over its size limit."""


@dataclass(frozen=True)
class Licence:
    """What may be solved here: usable at all, its kind in words, the largest model, and why not.

    quadratic_limit: the most variables of a model with a quadratic constraint.
    """

    usable: bool
    kind: str
    size_limit: int | None = None
    reason: str = ""
    quadratic_limit: int | None = None


@dataclass(frozen=True)
class Solver:
    """What a solver is and can do: declared in its own file, listed in SOLVERS of registry.py.

    package: the importable name and the distribution on the package index; extra: the extra of relugap that brings it,
    "" for a core dependency. licence: asked when it is needed, never on import. statuses: the solver's own words and
    what they mean; every other word is FAILED. lp, mip, quadratic: the models it takes, the last with an ellipsoid.
    changes_model: rows and bounds of an open session may change. last_resort: there is no other solver to fall back to.
    """

    name: str
    package: str
    citation: str
    session: type[Session]
    licence: Callable[[], Licence]
    statuses: Mapping[str, Status] = field(default_factory=dict)
    lp: bool = True
    mip: bool = True
    quadratic: bool = False
    changes_model: bool = False
    last_resort: bool = False
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
            hint = f'pip install "relugap[{self.extra}]"' if self.extra else f"pip install {self.package}"
            return Licence(False, "not installed", reason=f"{self.package} is not installed ({hint})")
        return self.licence()

    @property
    def no_quadratic(self) -> str:
        """Why a model with an ellipsoid is refused by a solver that takes none."""
        return f"{self.name} takes no quadratic constraint"

    def refusal(self, model: CompiledModel) -> str:
        """Why the solver cannot take the model, "" if it can."""
        licence = self.status()
        if not licence.usable:
            return licence.reason
        if not (self.mip if model.is_mip else self.lp):
            return f"{self.name} solves no {'MILPs' if model.is_mip else 'LPs'}"
        rows, columns = model.matrix.shape
        if model.ellipsoid is not None:
            if not self.quadratic:
                return self.no_quadratic
            if licence.quadratic_limit is not None and columns > licence.quadratic_limit:
                limit = f"the licence's {licence.quadratic_limit} with a quadratic constraint"
                return f"{self.name}: {columns} variables exceed {limit}"
        if licence.size_limit is not None and max(rows, columns) > licence.size_limit:
            return f"{self.name}: {columns} variables and {rows} constraints exceed the licence's {licence.size_limit}"
        return ""

    def open(self, model: CompiledModel, settings: Settings, note: str = "") -> Session:
        """A session that holds the model. Raises SolverUnavailableError where the solver refuses it."""
        return self.session(self, model, settings, note)


class Session(ABC):
    """One model in one solver; `minimize` may be called any number of times.

    model: the scaled one, which is all that subclasses see. note: why this solver, put into every report's message.
    broken: why the solver no longer holds the model, "" while it does; from then on every report says so and is FAILED.
    Raises SolverUnavailableError for a model that cannot be scaled.
    """

    def __init__(self, solver: Solver, model: CompiledModel, settings: Settings, note: str = "") -> None:
        self.solver, self.name, self.version = solver, solver.name, solver.version()
        self.settings, self.note, self.broken = settings, note, ""
        self.iteration_limit: int | None = None
        self.cutoff: float | None = None
        if model.ellipsoid is not None and not solver.quadratic:
            raise SolverUnavailableError(solver.no_quadratic)
        try:
            self._columns = ColumnScaling.of(model)
            self.model, self._row_power = scaled_model(model, self._columns)
        except ValueError as error:
            raise SolverUnavailableError(f"{self.name}: {error}") from error

    def minimize(
        self,
        cost: FloatArray,
        offset: float = 0.0,
        settings: Settings | None = None,
        iterations: int | None = None,
        cutoff: float | None = None,
    ) -> SolveReport:
        """Minimise cost·z + offset over the model. cost: shape (columns,) or shorter, the rest 0.

        iterations: stop an LP after so many simplex iterations; its duals then prove what they prove. cutoff: an LP may
        stop (status DECIDED) once its duals prove a bound of at least this; where the solver says so and they do not,
        it is solved again without.

        settings.time_limit: seconds for this call. settings.stop_at: a MILP may stop once its bound exceeds it or its
        incumbent is at or below it (status DECIDED). A solver that raises, or whose answer does not
        fit the model, gives status FAILED and the reason; an interrupt (Ctrl-C) raises KeyboardInterrupt.
        """
        started = time.perf_counter()
        report = self._minimize(cost, offset, settings or self.settings, iterations, cutoff)
        message = "; ".join(text for text in (self.note, report.message) if text)
        seconds = time.perf_counter() - started
        return replace(report, seconds=seconds, solver=self.name, version=self.version, message=message)

    def _minimize(
        self, cost: FloatArray, offset: float, settings: Settings, iterations: int | None, cutoff: float | None
    ) -> SolveReport:
        if self.broken:
            return failure(self.broken)
        full = np.zeros(self.model.lower.size)
        full[: cost.size] = cost
        try:
            scaled, constant, power = self._columns.objective(full, offset)
        except ValueError as error:
            return failure(f"{self.name}: {error}")
        if self.model.is_mip:
            settings = _scaled_settings(settings, power)
        self.iteration_limit, self.cutoff = iterations, None if cutoff is None else _ldexp(cutoff, power)
        report = self._attempt(scaled, constant, settings)
        if self.cutoff is not None and report.status is Status.DECIDED and not report.bound >= self.cutoff:
            self.cutoff = None
            report = self._attempt(scaled, constant, settings)
        return _unscaled(report, self._columns, self._row_power, power)

    def _attempt(self, cost: FloatArray, offset: float, settings: Settings) -> SolveReport:
        """What one run of the solver proves of the scaled model."""
        try:
            report = well_formed(self._solve(cost, offset, settings), self.model)
        except SolverUnavailableError as error:
            if not self.solver.last_resort:
                raise
            report = failure(str(error))
        except Exception as error:  # a solver's own failure must not take the caller's other rows with it
            report = failure(f"{self.name}: {type(error).__name__}: {error}")
        return proven(report, self.model, cost, offset, self.name)

    def add_rows(self, rows: sp.sparray, lower: FloatArray, upper: FloatArray) -> None:
        """Add constraints lower ≤ rows·z ≤ upper; the basis stays warm. rows: shape (k, columns)."""

        def change() -> None:
            scaled, low, high, power = self._columns.rows(rows, lower, upper)
            self.model = self.model.with_rows(scaled, low, high)
            self._row_power = np.concatenate([self._row_power, power])
            self._rows_added(scaled, low, high)

        self._change(change)

    def keep_rows(self, keep: BoolArray) -> None:
        """Drop the constraints that `keep` does not mark."""

        def change() -> None:
            self.model, self._row_power = self.model.without_rows(keep), self._row_power[keep]
            self._rows_kept(keep)

        self._change(change)

    def set_bounds(self, columns: IndexArray, lower: FloatArray, upper: FloatArray) -> None:
        """Change the bounds of the named columns; the basis stays warm."""

        def change() -> None:
            low, high = self._columns.bounds(columns, lower), self._columns.bounds(columns, upper)
            self._columns.fixed[columns] &= low == high
            self.model = self.model.with_bounds(columns, low, high)
            self._bounds_set(columns, low, high)

        self._change(change)

    def _change(self, change: Callable[[], None]) -> None:
        """Make a change of the model; one that fails, or is interrupted, leaves a session that answers nothing more."""
        if self.broken:
            return
        if not self.solver.changes_model:
            raise SolverUnavailableError(f"{self.name} sessions do not change their model")
        try:
            change()
        except BaseException as error:
            self.broken = f"{self.name}: {type(error).__name__}: {error}"
            if not isinstance(error, Exception):
                raise

    def _rows_added(self, rows: sp.csr_array, lower: FloatArray, upper: FloatArray) -> None:
        """Hand the new rows, which the model already has, to the solver."""
        raise NotImplementedError

    def _rows_kept(self, keep: BoolArray) -> None:
        """Take the other rows, which the model no longer has, from the solver."""
        raise NotImplementedError

    def _bounds_set(self, columns: IndexArray, lower: FloatArray, upper: FloatArray) -> None:
        """Hand the new bounds, which the model already has, to the solver."""
        raise NotImplementedError

    @abstractmethod
    def _solve(self, cost: FloatArray, offset: float, settings: Settings) -> SolveReport:
        """Run the solver on the scaled model; read its status. An interrupt raises KeyboardInterrupt."""


class NoSession(Session):
    """Stands in where no solver takes the model: every report is FAILED and says why."""

    def __init__(self, solver: Solver, reason: str) -> None:
        self.solver, self.name, self.version = solver, solver.name, solver.version()
        self.settings, self.note, self.broken = Settings(), "", reason

    def _solve(self, cost: FloatArray, offset: float, settings: Settings) -> SolveReport:
        return failure(self.broken)


def _ldexp(value: float, power: int) -> float:
    with np.errstate(over="ignore"):
        return float(np.ldexp(value, power))


def _unscaled(report: SolveReport, columns: ColumnScaling, row_power: IndexArray, power: int) -> SolveReport:
    """A report on the scaled model, in the units of the model."""
    x = None if report.x is None else columns.point(report.x)
    duals = None if report.duals is None else np.ldexp(report.duals, row_power - power)
    incumbent = _ldexp(report.incumbent, -power)
    return replace(report, bound=_ldexp(report.bound, -power), incumbent=incumbent, x=x, duals=duals)


def _scaled_settings(settings: Settings, power: int) -> Settings:
    """The settings with what is said in the objective's unit said in the scaled one's."""
    stop = settings.stop_at
    gap = min(_ldexp(settings.mip_gap_abs, power), LARGEST_GAP)
    return replace(settings, mip_gap_abs=gap, stop_at=None if stop is None else _ldexp(stop, power))
