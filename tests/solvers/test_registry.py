"""The solver boundary: the same known problems through every solver, proven bounds kept apart from incumbents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import highspy
import numpy as np
import pytest
import scipy.sparse as sp
from conftest import random_dense_network

from toolkit.problems.answers import Status
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rung
from toolkit.search.lp_bounder import template
from toolkit.solvers import registry as solvers
from toolkit.solvers.linear_program import CompiledModel
from toolkit.solvers.registry import SOLVERS, HighsSession, Licence, open_session
from toolkit.solvers.session import Session, SolveReport, SolverUnavailableError
from toolkit.verify.margins import margin_problem


@dataclass(frozen=True)
class Known:
    """min cost·z over a model with the optimum worked out by hand."""

    name: str
    model: CompiledModel
    cost: tuple[float, ...]
    optimum: float
    duals: tuple[float, ...] | None = None


def _model(matrix, row_lower, row_upper, lower, upper, integer) -> CompiledModel:  # type: ignore[no-untyped-def]
    arrays = (np.array(values, dtype=float) for values in (row_lower, row_upper, lower, upper))
    return CompiledModel(sp.csc_array(np.array(matrix, dtype=float)), *arrays, np.array(integer))


inf = np.inf
KNOWN = [
    # min −x − 2y, x + y ≤ 4, x − y ≥ −2, 0 ≤ x,y ≤ 10: x = 1, y = 3
    Known(
        "lp", _model([[1, 1], [1, -1]], [-inf, -2], [4, inf], [0, 0], [10, 10], [False] * 2), (-1, -2), -7, (-1.5, 0.5)
    ),
    # equality: min x + y, x + 2y = 3, 0 ≤ x,y ≤ 5: y = 1.5
    Known("equality", _model([[1, 2]], [3], [3], [0, 0], [5, 5], [False] * 2), (1, 1), 1.5, (0.5,)),
    # knapsack: max 5a + 4b + 3c, 2a + 3b + c ≤ 5, binary: a = b = 1
    Known("mip", _model([[2, 3, 1]], [-inf], [5], [0] * 3, [1] * 3, [True] * 3), (-5, -4, -3), -9),
    # relaxation −9.5 lies under the integer optimum −9: −3.5 z with z ≤ 19/7 …
    Known("rounding", _model([[7]], [-inf], [19], [0], [5], [True]), (-3.5,), -7.0),
]
AVAILABLE = [
    pytest.param(name, marks=[] if solver.status().usable else pytest.mark.skip(reason=solver.status().reason))
    for name, solver in SOLVERS.items()
]


@pytest.mark.parametrize("solver", AVAILABLE)
@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_known_problems(solver: str, known: Known) -> None:
    session = open_session(known.model, Settings(solver=solver, mip_gap=0.0))
    for offset in (0.0, 2.5):
        report = session.minimize(np.array(known.cost, dtype=float), offset)
        assert report.status is Status.OPTIMAL
        assert report.solver == solver
        assert report.version
        assert report.bound == pytest.approx(known.optimum + offset, abs=1e-6)
        assert report.incumbent == pytest.approx(known.optimum + offset, abs=1e-6)
        assert known.cost @ report.x == pytest.approx(known.optimum, abs=1e-6)
        if known.duals is not None and report.duals is not None:
            np.testing.assert_allclose(report.duals, known.duals, atol=1e-6)


@pytest.mark.parametrize("solver", AVAILABLE)
def test_objectives_one_after_another_equal_fresh_sessions(solver: str) -> None:
    known = KNOWN[2]
    session = open_session(known.model, Settings(solver=solver, mip_gap=0.0))
    for cost in np.random.default_rng(0).normal(size=(6, 3)):
        best = min(cost @ np.array(z) for z in np.ndindex(2, 2, 2) if np.dot([2, 3, 1], z) <= 5)
        assert session.minimize(cost).bound == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("solver", AVAILABLE)
def test_infeasible_is_proven_or_a_failure_with_its_reason(solver: str) -> None:
    for integer in (False, True):
        model = _model([[1.0]], [2], [inf], [0], [1], [integer])
        report = open_session(model, Settings(solver=solver)).minimize(np.ones(1))
        assert report.incumbent == np.inf
        assert report.x is None
        if report.status is Status.INFEASIBLE:  # proven by Farkas multipliers, LPs only
            assert not integer
            assert report.bound == np.inf
        else:
            assert report.status is Status.FAILED
            assert report.message
            assert report.bound == -np.inf


@pytest.mark.parametrize("solver", AVAILABLE)
def test_a_time_limit_keeps_bound_and_incumbent(solver: str) -> None:
    """On a MILP too large for the time given, what is kept still encloses sampled values."""
    rng = np.random.default_rng(3)
    network = random_dense_network(rng, (20, 60, 60, 3))
    ball = LinfBall(rng.normal(size=20), eps=0.5)
    problem = margin_problem(network, ball, 0, targets=[1], settings=Settings(solver=solver, time_limit=1.0))
    (relaxed,) = get_rung("lp")(problem)
    (bound,) = get_rung("exact")(problem)
    assert bound.status is Status.TIME_LIMIT
    assert relaxed.lower <= bound.lower < bound.upper < np.inf
    assert bound.seconds < 10
    assert bound.upper <= problem.replay(ball.sample(500)).min() + 5.0
    assert bound.lower <= problem.replay(ball.sample(500)).min()
    assert ball.contains(bound.witness)
    assert problem.replay(bound.witness)[0, 0] == pytest.approx(bound.upper, abs=1e-12)


@pytest.mark.parametrize("solver", AVAILABLE)
def test_stop_at_decides_early_and_soundly(solver: str) -> None:
    rng = np.random.default_rng(5)
    network = random_dense_network(rng, (8, 20, 20, 3))
    ball = LinfBall(rng.normal(size=8), eps=0.3)
    full = margin_problem(network, ball, 0, targets=[1], settings=Settings(solver=solver))
    (truth,) = get_rung("exact")(full)
    (relaxed,) = get_rung("lp")(full)
    assert relaxed.lower < truth.lower - 1e-3
    between = 0.5 * (relaxed.lower + truth.lower)
    (below,) = get_rung("exact")(full.with_settings(replace(full.settings, stop_at=between)))
    assert below.lower > between
    (above,) = get_rung("exact")(full.with_settings(replace(full.settings, stop_at=truth.upper + 0.1)))
    assert above.upper <= truth.upper + 0.1
    for early in (below, above):
        assert early.status in (Status.DECIDED, Status.OPTIMAL)
        assert early.lower <= truth.upper + 1e-6
        assert early.upper >= truth.lower - 1e-6


# KNOWN[0] as its sessions see it: columns and costs by powers of two, so objectives, points and row duals by these
SCALED = (1 / 32, 1 / 8, 0.5)


class _LyingSession(Session):
    """A session whose solver claims whatever the test says."""

    name = "liar"
    claim: SolveReport

    def _solve(self, cost: np.ndarray, offset: float, settings: Settings) -> SolveReport:
        return self.claim


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9, -7.0])
def test_an_lp_objective_is_never_taken_at_its_word(value: float) -> None:
    known = KNOWN[0]
    session = _LyingSession(known.model, Settings())
    for duals in (None, np.zeros(2), np.full(2, value), np.array([-1.5, 0.5])):
        session.claim = SolveReport(Status.OPTIMAL, value, value, np.full(2, value), duals)
        assert session.minimize(np.array(known.cost, dtype=float)).bound <= known.optimum + 1e-9


def test_a_raising_solver_is_a_failed_report_not_an_exception() -> None:
    class Raising(_LyingSession):
        def _solve(self, cost: np.ndarray, offset: float, settings: Settings) -> SolveReport:
            raise FloatingPointError("no")

    report = Raising(KNOWN[0].model, Settings()).minimize(np.ones(2))
    assert report.status is Status.FAILED
    assert report.bound == -np.inf
    assert "FloatingPointError: no" in report.message


@pytest.mark.parametrize("solver", AVAILABLE)
@pytest.mark.parametrize("known", KNOWN[:2], ids=lambda known: known.name)
def test_a_cutoff_may_end_an_lp_early_with_a_proven_bound(solver: str, known: Known) -> None:
    session = open_session(known.model, Settings(solver=solver))
    for distance in (-2.0, -0.25, 0.5):
        cutoff = known.optimum + distance
        report = session.minimize(np.array(known.cost, dtype=float), cutoff=cutoff)
        assert report.bound <= known.optimum + 1e-6
        assert report.bound >= min(cutoff, known.optimum) - 1e-6
        if distance > 0:
            assert report.status is Status.OPTIMAL
    assert session.minimize(np.array(known.cost, dtype=float)).bound == pytest.approx(known.optimum, abs=1e-6)


def test_highs_stops_at_the_cutoff() -> None:
    """On an LP with many steps the bound passes the cutoff before the optimum, and in fewer iterations."""
    rng = np.random.default_rng(0)
    ball = LinfBall(rng.normal(size=20), eps=0.3)
    problem = margin_problem(random_dense_network(rng, (20, 40, 40, 3)), ball, 0, targets=[1])
    compiled = template(problem).relaxed
    cost, offset = template(problem).layout.objective(problem.rows)
    full = open_session(compiled, Settings()).minimize(cost[0], float(offset[0]))
    session = open_session(compiled, Settings())
    cutoff = full.bound - 0.3 * abs(full.bound)
    early = session.minimize(cost[0], float(offset[0]), cutoff=cutoff)
    assert early.status is Status.DECIDED
    assert cutoff <= early.bound <= full.bound + 1e-9
    assert early.iterations < full.iterations
    assert session.minimize(cost[0], float(offset[0])).bound == pytest.approx(full.bound, abs=1e-7)


def test_a_cutoff_that_the_duals_do_not_prove_is_not_believed() -> None:
    """A solver says it reached the cutoff: the LP is solved once more, without one."""
    known = KNOWN[0]
    asked: list[float | None] = []

    class Hasty(Session):
        name = "hasty"

        def _solve(self, cost: np.ndarray, offset: float, settings: Settings) -> SolveReport:
            asked.append(None if self.cutoff is None else self.cutoff / SCALED[0])
            if self.cutoff is not None:
                return SolveReport(Status.DECIDED, 1e9, 1e9, np.zeros(2), np.zeros(2))
            return SolveReport(
                Status.OPTIMAL, -np.inf, -7.0, SCALED[1] * np.array([1.0, 3.0]), SCALED[2] * np.array([-1.5, 0.5])
            )

    report = Hasty(known.model, Settings()).minimize(np.array(known.cost, dtype=float), cutoff=-8.0)
    assert asked == [-8.0, None]
    assert report.status is Status.OPTIMAL
    assert report.bound == pytest.approx(known.optimum)


class _Refusing:
    """HiGHS, but for named calls that do nothing and return an error."""

    def __init__(self, highs: Any, *refused: str) -> None:
        self._highs, self.refused, self.calls = highs, set(refused), []

    def __getattr__(self, name: str) -> Any:
        if name not in self.refused:
            return getattr(self._highs, name)

        def refuse(*_: Any) -> Any:
            self.calls.append(name)
            return highspy.HighsStatus.kError

        return refuse


CHANGES = {
    "addRows": lambda s: s.add_rows(sp.csr_array([[1.0, 0.0]]), np.array([-inf]), np.array([0.5])),  # x ≤ 1/2
    "deleteRows": lambda s: s.keep_rows(np.array([True, False])),
    "changeColsBounds": lambda s: s.set_bounds(np.array([1]), np.array([0.0]), np.array([2.0])),  # y ≤ 2
}
OPTIMA = {"addRows": -0.5 - 2 * 2.5, "deleteRows": -8.0, "changeColsBounds": -2.0 - 4.0}


@pytest.mark.parametrize("call", CHANGES)
@pytest.mark.parametrize("refused", [False, True])
def test_a_change_that_highs_refuses_is_not_lost(call: str, refused: bool) -> None:
    known = KNOWN[0]
    session = HighsSession(known.model, Settings())
    cost = np.array(known.cost, dtype=float)
    session.minimize(cost)
    if refused:
        session._highs = _Refusing(session._highs, call)
    CHANGES[call](session)
    report = session.minimize(cost)
    assert not refused or session._highs.calls == [call]
    assert report.status is Status.OPTIMAL
    assert report.bound == pytest.approx(OPTIMA[call])
    assert report.incumbent == pytest.approx(OPTIMA[call])


@pytest.mark.parametrize("call", CHANGES)
def test_after_a_change_that_highs_refuses_twice_every_report_is_a_failure(call: str) -> None:
    """What HiGHS holds then is not the model: nothing it says may become a bound, and nobody's work is thrown away."""
    session = HighsSession(KNOWN[0].model, Settings())
    session._highs = _Refusing(session._highs, call, "passModel")
    CHANGES[call](session)
    report = session.minimize(np.array(KNOWN[0].cost, dtype=float))
    assert report.status is Status.FAILED
    assert report.bound == -np.inf
    assert "refused a change of the model" in report.message


def test_highs_losing_its_way_is_started_again_from_no_basis() -> None:
    """Seen on long searches: a warm LP ends with status Not Set, and the same LP from scratch is optimal."""

    class Lost:
        def __init__(self, highs: Any) -> None:
            self._highs, self.lost, self.runs = highs, True, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self._highs, name)

        def run(self) -> Any:
            self.runs += 1
            return self._highs.run()

        def clearSolver(self) -> Any:
            self.lost = False
            return self._highs.clearSolver()

        def getModelStatus(self) -> Any:
            return highspy.HighsModelStatus.kNotset if self.lost else self._highs.getModelStatus()

    known = KNOWN[0]
    session = HighsSession(known.model, Settings())
    session._highs = Lost(session._highs)
    report = session.minimize(np.array(known.cost, dtype=float))
    assert session._highs.runs == 2
    assert report.status is Status.OPTIMAL
    assert report.bound == pytest.approx(known.optimum)


def _big_mip() -> CompiledModel:
    count = solvers.GUROBI_SIZE_LIMIT + 1
    zeros, ones = np.zeros(count), np.ones(count)
    return CompiledModel(sp.csc_array((1, count)), zeros[:1], ones[:1], zeros, ones, ones.astype(bool))


def test_auto_takes_gurobi_only_within_its_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = replace(SOLVERS["gurobi"], licence=lambda: Licence(True, "size-limited", solvers.GUROBI_SIZE_LIMIT))
    monkeypatch.setitem(SOLVERS, "gurobi", limited)
    assert open_session(_big_mip(), Settings()).name == "highs"
    if limited.status().usable:
        assert open_session(KNOWN[2].model, Settings()).name == "gurobi"
    monkeypatch.setitem(SOLVERS, "gurobi", replace(limited, licence=lambda: Licence(False, "none", reason="expired")))
    assert open_session(KNOWN[2].model, Settings()).name == "highs"


def test_a_solver_asked_for_by_name_falls_back_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = replace(SOLVERS["gurobi"], licence=lambda: Licence(False, "none", reason="licence expired"))
    monkeypatch.setitem(SOLVERS, "gurobi", gone)
    report = open_session(KNOWN[2].model, Settings(solver="gurobi")).minimize(np.array([-5.0, -4, -3]))
    assert report.solver == "highs"
    assert "fell back to highs: licence expired" in report.message
    assert report.bound == pytest.approx(-9)


@pytest.mark.skipif(not SOLVERS["gurobi"].status().size_limit, reason="needs Gurobi with its size-limited licence")
def test_gurobis_size_error_is_caught_even_if_the_licence_was_misread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Error 10010 in the middle of a rung: the row is solved by HiGHS and says why."""
    monkeypatch.setitem(SOLVERS, "gurobi", replace(SOLVERS["gurobi"], licence=lambda: Licence(True, "full")))
    session = open_session(_big_mip(), Settings(solver="gurobi"))
    with pytest.raises(SolverUnavailableError, match="10010"):
        session.minimize(np.ones(3))
    rng = np.random.default_rng(0)
    network = random_dense_network(rng, (2001, 3, 2))
    problem = margin_problem(network, LinfBall(np.zeros(2001), 0.1), 0, settings=Settings(solver="gurobi"))
    (bound,) = get_rung("exact")(problem)
    assert bound.solver == "highs"
    assert "fell back to highs" in bound.message
    assert "10010" in bound.message


def test_unknown_solver_is_named_with_the_allowed_ones() -> None:
    with pytest.raises(ValueError, match="unknown solver 'cplex'; allowed: auto, highs, gurobi, scip"):
        open_session(KNOWN[0].model, Settings(solver="cplex"))
