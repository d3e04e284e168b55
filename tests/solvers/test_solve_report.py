"""What is believed of a solver's report: what its duals prove of an LP, a number of a MILP, a point that is one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from solver_models import CLAIMED, ClaimingSession, inf, model_of

from toolkit.problems.answers import Status
from toolkit.problems.settings import Settings
from toolkit.solvers.linear_program import CompiledModel
from toolkit.solvers.solve_report import SolveReport


def told(model: CompiledModel, report: SolveReport) -> SolveReport:
    session = ClaimingSession(CLAIMED, model, Settings())
    session.claim = report
    return session.minimize(np.array([1.0]), 0.0)


BOX = [(-2, 2)]
TWO = SolveReport(Status.OPTIMAL, bound=99.0, incumbent=99.0, x=np.array([2.0]))


def test_an_lps_bound_is_what_its_duals_prove() -> None:
    """min x with x ≥ 1 on [−2, 2]: the dual 1 proves 1, and nothing else that is said counts."""
    model = model_of([[1]], [(1, inf)], BOX)
    assert told(model, replace(TWO, duals=np.array([1.0]))).bound == 1.0
    assert told(model, replace(TWO, duals=np.array([0.0]))).bound == -2.0
    assert told(model, replace(TWO, duals=np.array([-5.0]))).bound == -2.0
    assert told(model, replace(TWO, duals=None)).bound == -np.inf


def test_a_milps_bound_is_a_number() -> None:
    model = model_of([[1]], [(1, inf)], BOX, [True])
    for bound in (np.inf, np.nan, -np.inf):
        assert told(model, replace(TWO, bound=bound)).bound == -np.inf
    found = told(model, replace(TWO, bound=0.5))  # the solver may be shown the model in other units
    assert found.bound / found.incumbent == pytest.approx(0.5 / 99.0, rel=1e-12)


def test_points_that_are_no_numbers_are_no_candidates() -> None:
    model = model_of([[1]], [(1, inf)], BOX)
    for x in (np.array([np.nan]), np.array([np.inf])):
        report = told(model, replace(TWO, x=x, duals=np.array([1.0])))
        assert report.x is None
        assert report.incumbent == np.inf
        assert report.bound == 1.0


def test_infeasible_is_believed_by_proof_only() -> None:
    crossing = model_of([[1], [1]], [(1, inf), (-inf, 0.5)], BOX)
    feasible = model_of([[1], [1]], [(0, inf), (-inf, 0)], BOX)
    empty = SolveReport(Status.INFEASIBLE, np.inf, duals=np.array([1.0, -1.0]))
    proven = told(crossing, empty)
    assert (proven.status, proven.bound) == (Status.INFEASIBLE, np.inf)
    for model, report in ((feasible, empty), (crossing, replace(empty, duals=None)),
                          (crossing, replace(empty, duals=np.zeros(2)))):  # fmt: skip
        found = told(model, report)
        assert (found.status, found.bound) == (Status.FAILED, -np.inf)
        assert "do not prove it" in found.message
