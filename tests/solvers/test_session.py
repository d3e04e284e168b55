"""What a session does with a solver that lies, raises or gives up too early."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from solver_models import CLAIMED, LPS, ClaimingSession

from toolkit.problems.answers import Status
from toolkit.problems.settings import Settings
from toolkit.solvers.session import Session
from toolkit.solvers.solve_report import SolveReport

KNOWN = LPS["two rows"]
# as its sessions see it: columns and costs by powers of two, so objectives, points and row duals by these
SCALED = (1 / 32, 1 / 8, 0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9, -7.0])
def test_an_lp_objective_is_never_taken_at_its_word(value: float) -> None:
    session = ClaimingSession(CLAIMED, KNOWN.model, Settings())
    for duals in (None, np.zeros(2), np.full(2, value), np.array([-1.5, 0.5])):
        session.claim = SolveReport(Status.OPTIMAL, value, value, np.full(2, value), duals)
        assert session.minimize(np.array(KNOWN.cost, dtype=float)).bound <= KNOWN.optimum + 1e-9


def test_a_raising_solver_is_a_failed_report_not_an_exception() -> None:
    class Raising(ClaimingSession):
        def _solve(self, cost: np.ndarray, offset: float, settings: Settings) -> SolveReport:
            raise FloatingPointError("no")

    report = Raising(CLAIMED, KNOWN.model, Settings()).minimize(np.ones(2))
    assert report.status is Status.FAILED
    assert report.bound == -np.inf
    assert "claimed: FloatingPointError: no" in report.message


def test_a_cutoff_that_the_duals_do_not_prove_is_not_believed() -> None:
    """A solver says it reached the cutoff: the LP is solved once more, without one."""
    asked: list[float | None] = []

    class Hasty(Session):
        def _solve(self, cost: np.ndarray, offset: float, settings: Settings) -> SolveReport:
            asked.append(None if self.cutoff is None else self.cutoff / SCALED[0])
            if self.cutoff is not None:
                return SolveReport(Status.DECIDED, 1e9, 1e9, np.zeros(2), np.zeros(2))
            return SolveReport(
                Status.OPTIMAL, -np.inf, -7.0, SCALED[1] * np.array([1.0, 3.0]), SCALED[2] * np.array([-1.5, 0.5])
            )

    report = Hasty(replace(CLAIMED, name="hasty"), KNOWN.model, Settings()).minimize(
        np.array(KNOWN.cost, dtype=float), cutoff=-8.0
    )
    assert asked == [-8.0, None]
    assert report.status is Status.OPTIMAL
    assert report.bound == pytest.approx(KNOWN.optimum)
