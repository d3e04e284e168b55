"""What a solver session promises: proven bounds kept apart from candidates, failures reported and not thrown.

A session holds one compiled model inside one solver and minimises one objective after another, warm-started. The solver
sees the equilibrated model of equilibration.py alone; bounds, points and duals come back in the model's own units. The
bound of an LP is the one its row duals prove (CompiledModel.dual_bound), so a lying solver only loosens it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from toolkit.arrays import BoolArray, FloatArray, IndexArray
from toolkit.problems.answers import Status
from toolkit.problems.settings import Settings
from toolkit.solvers.equilibration import ColumnScaling, scaled_model
from toolkit.solvers.linear_program import CompiledModel

LARGEST_GAP = 1e20


class SolverUnavailableError(RuntimeError):
    """A solver that cannot take this model here: not installed, no licence, or the model is over its size limit."""


@dataclass(frozen=True)
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


class Session(ABC):
    """One model in one solver; `minimize` may be called any number of times.

    model: the scaled one, which is all that subclasses see. version: of the solver; note: why this solver, put into
    every report's message. broken: why the solver no longer holds the model, "" while it does; from then on every
    report says so and is FAILED. Raises SolverUnavailableError for a model that cannot be scaled.
    """

    name: str
    changes = False  # whether rows and bounds of the model may change
    last_resort = False  # True: there is no other solver to fall back to

    def __init__(self, model: CompiledModel, settings: Settings, version: str = "", note: str = "") -> None:
        self.settings = settings
        self.note = note
        self.iteration_limit: int | None = None
        self.cutoff: float | None = None
        self.version = version
        self.broken = ""
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
        incumbent is at or below it (status DECIDED). A solver that raises gives status FAILED and its text; an
        interrupt (Ctrl-C) raises KeyboardInterrupt.
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
            return self._failure(self.broken)
        full = np.zeros(self.model.lower.size)
        full[: cost.size] = cost
        try:
            scaled, constant, power = self._columns.objective(full, offset)
        except ValueError as error:
            return self._failure(f"{self.name}: {error}")
        if self.model.is_mip:
            settings = _scaled_settings(settings, power)
        self.iteration_limit, self.cutoff = iterations, None if cutoff is None else _ldexp(cutoff, power)
        report = self._sound(self._attempt(scaled, constant, settings), scaled, constant)
        if self.cutoff is not None and report.status is Status.DECIDED and not report.bound >= self.cutoff:
            self.cutoff = None
            report = self._sound(self._attempt(scaled, constant, settings), scaled, constant)
        return self._unscaled(report, power)

    def _unscaled(self, report: SolveReport, power: int) -> SolveReport:
        """A report on the scaled model, in the units of the model."""
        x = None if report.x is None else self._columns.point(report.x)
        duals = None if report.duals is None else np.ldexp(report.duals, self._row_power - power)
        incumbent = _ldexp(report.incumbent, -power)
        return replace(report, bound=_ldexp(report.bound, -power), incumbent=incumbent, x=x, duals=duals)

    def _failure(self, reason: str) -> SolveReport:
        return SolveReport(Status.FAILED, -np.inf, message=reason)

    def _attempt(self, cost: FloatArray, offset: float, settings: Settings) -> SolveReport:
        try:
            return self._solve(cost, offset, settings)
        except SolverUnavailableError as error:
            if not self.last_resort:
                raise
            return self._failure(str(error))
        except Exception as error:  # a solver's own failure must not take the caller's other rows with it
            return self._failure(f"{self.name}: {type(error).__name__}: {error}")

    def add_rows(self, rows: Any, lower: FloatArray, upper: FloatArray) -> None:
        """Add constraints lower ≤ rows·z ≤ upper; the basis stays warm. rows: scipy.sparse, (k, columns)."""

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
        if not self.changes:
            raise SolverUnavailableError(f"{self.name} sessions do not change their model; use highs")
        if self.broken:
            return
        try:
            change()
        except BaseException as error:
            self.broken = f"{self.name}: {type(error).__name__}: {error}"
            if not isinstance(error, Exception):
                raise

    def _rows_added(self, rows: Any, lower: FloatArray, upper: FloatArray) -> None:
        """Hand the new rows, which the model already has, to the solver."""
        raise NotImplementedError

    def _rows_kept(self, keep: BoolArray) -> None:
        """Take the other rows, which the model no longer has, from the solver."""
        raise NotImplementedError

    def _bounds_set(self, columns: IndexArray, lower: FloatArray, upper: FloatArray) -> None:
        """Hand the new bounds, which the model already has, to the solver."""
        raise NotImplementedError

    def _sound(self, report: SolveReport, cost: FloatArray, offset: float) -> SolveReport:
        if report.status is Status.INFEASIBLE:
            return self._emptiness(report)
        bound = report.bound
        if not self.model.is_mip:
            bound = -np.inf if report.duals is None else self.model.dual_bound(cost, offset, report.duals)
        bound = bound if np.isfinite(bound) and report.status is not Status.FAILED else -np.inf
        usable = report.status is not Status.FAILED and report.x is not None and bool(np.all(np.isfinite(report.x)))
        x = report.x if usable else None
        return replace(report, bound=float(bound), x=x, incumbent=report.incumbent if x is not None else np.inf)

    def _emptiness(self, report: SolveReport) -> SolveReport:
        """An infeasible LP: bound +inf if the multipliers prove it, else a failure that proves nothing."""
        if report.duals is not None and self.model.proves_empty(report.duals):
            return replace(report, bound=np.inf, incumbent=np.inf, x=None)
        message = f"{self.name}: infeasible, but its multipliers do not prove it"
        return replace(report, status=Status.FAILED, bound=-np.inf, incumbent=np.inf, x=None, message=message)

    @abstractmethod
    def _solve(self, cost: FloatArray, offset: float, settings: Settings) -> SolveReport:
        """Run the solver on the scaled model; read its status. An interrupt raises KeyboardInterrupt."""


class NoSession(Session):
    """Stands in where no solver takes the model: every report is FAILED and says why."""

    last_resort = True
    changes = True

    def __init__(self, name: str, version: str, reason: str) -> None:
        self.name, self.version, self.note, self.broken = name, version, "", reason
        self.settings = Settings()

    def _solve(self, cost: FloatArray, offset: float, settings: Settings) -> SolveReport:
        return self._failure(self.broken)


def _ldexp(value: float, power: int) -> float:
    with np.errstate(over="ignore"):
        return float(np.ldexp(value, power))


def _scaled_settings(settings: Settings, power: int) -> Settings:
    """The settings with what is said in the objective's unit said in the scaled one's."""
    stop = settings.stop_at
    gap = min(_ldexp(settings.mip_gap_abs, power), LARGEST_GAP)
    return replace(settings, mip_gap_abs=gap, stop_at=None if stop is None else _ldexp(stop, power))
