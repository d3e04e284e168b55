"""What a solver session promises: proven bounds kept apart from candidates, failures reported and not thrown.

A session holds one compiled model inside one solver and minimises one objective after another, warm-started. The bound
of an LP is the one its row duals prove (CompiledModel.dual_bound), so a lying solver only loosens it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from toolkit.balls import FloatArray
from toolkit.compiled import CompiledModel
from toolkit.layers import IndexArray
from toolkit.problem import BoolArray, Settings, Status


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

    version: of the solver; note: why this solver, put into every report's message."""

    name: str
    trusted_lp_bound = False  # True: the solver proves its LP bound itself and gives no row duals to check

    def __init__(self, model: CompiledModel, settings: Settings, version: str = "", note: str = "") -> None:
        self.model = model
        self.settings = settings
        self.note = note
        self.iteration_limit: int | None = None
        self.cutoff: float | None = None
        self.version = version

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
        incumbent is at or below it (status DECIDED). A solver that raises gives status FAILED and its text.
        """
        full = np.zeros(self.model.lower.size)
        full[: cost.size] = cost
        self.iteration_limit, self.cutoff = iterations, cutoff
        started = time.perf_counter()
        report = self._sound(self._attempt(full, offset, settings or self.settings), full, offset)
        if cutoff is not None and report.status is Status.DECIDED and not report.bound >= cutoff:
            self.cutoff = None
            report = self._sound(self._attempt(full, offset, settings or self.settings), full, offset)
        message = "; ".join(text for text in (self.note, report.message) if text)
        seconds = time.perf_counter() - started
        return replace(report, seconds=seconds, solver=self.name, version=self.version, message=message)

    def _attempt(self, cost: FloatArray, offset: float, settings: Settings) -> SolveReport:
        try:
            return self._solve(cost, offset, settings)
        except SolverUnavailableError:
            raise
        except Exception as error:  # a solver's own failure must not take the caller's other rows with it
            return SolveReport(Status.FAILED, -np.inf, message=f"{self.name}: {type(error).__name__}: {error}")

    def add_rows(self, rows: Any, lower: FloatArray, upper: FloatArray) -> None:
        """Add constraints lower ≤ rows·z ≤ upper; the basis stays warm. rows: scipy.sparse, (k, columns)."""
        raise SolverUnavailableError(f"{self.name} sessions take no further rows here; use highs")

    def keep_rows(self, keep: BoolArray) -> None:
        """Drop the constraints that `keep` does not mark."""
        raise SolverUnavailableError(f"{self.name} sessions give up no rows here; use highs")

    def set_bounds(self, columns: IndexArray, lower: FloatArray, upper: FloatArray) -> None:
        """Change the bounds of the named columns; the basis stays warm."""
        raise SolverUnavailableError(f"{self.name} sessions do not change bounds here; use highs")

    def _sound(self, report: SolveReport, cost: FloatArray, offset: float) -> SolveReport:
        if report.status is Status.INFEASIBLE:
            return self._emptiness(report)
        bound = report.bound
        if not self.model.is_mip and not self.trusted_lp_bound:
            bound = -np.inf if report.duals is None else self.model.dual_bound(cost, offset, report.duals)
        bound = bound if np.isfinite(bound) else -np.inf
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
        """Run the solver; read its status."""
