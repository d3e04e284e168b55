"""What a session does with a solver that lies, raises or gives up too early."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

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


def claimed(**parts: Any) -> SolveReport:
    return replace(SolveReport(Status.OPTIMAL, -7.0, -7.0, np.zeros(2), np.zeros(2)), **parts)


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        (None, "the answer must be a SolveReport, got None"),
        ((Status.OPTIMAL, -7.0), "the answer must be a SolveReport"),
        (claimed(status="optimal"), "status must be a Status, got 'optimal'"),
        (claimed(duals=np.zeros(3)), "duals must have one entry per row, shape (2,), got shape (3,)"),
        (claimed(duals=np.zeros((2, 1))), "duals must have one entry per row, shape (2,), got shape (2, 1)"),
        (claimed(x=np.zeros(1)), "x must have one entry per column, shape (2,), got shape (1,)"),
        (claimed(x=["a", "b"]), "x must be an array of real numbers"),
        (claimed(bound=None), "bound must be one number, got None"),
        (claimed(incumbent="-7"), "incumbent must be one number, got '-7'"),
        (claimed(nodes=-1), "nodes must be ≥ 0, got -1"),
        (claimed(message=None), "message must be a str, got None"),
    ],
)
def test_an_answer_that_does_not_fit_is_a_failed_report(claim: Any, reason: str) -> None:
    session = ClaimingSession(CLAIMED, KNOWN.model, Settings())
    session.claim = claim
    report = session.minimize(np.array(KNOWN.cost, dtype=float))
    assert (report.status, report.bound, report.x, report.duals) == (Status.FAILED, -np.inf, None, None)
    assert f"claimed: ValueError: {reason}" in report.message


def test_lists_and_single_precision_count_as_arrays() -> None:
    session = ClaimingSession(CLAIMED, KNOWN.model, Settings())
    session.claim = claimed(x=[0.0, 0.0], duals=(SCALED[2] * np.array([-1.5, 0.5])).astype(np.float32), bound=-7)
    report = session.minimize(np.array(KNOWN.cost, dtype=float))
    assert report.bound == pytest.approx(KNOWN.optimum)
    assert report.x == pytest.approx([0.0, 0.0])


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
