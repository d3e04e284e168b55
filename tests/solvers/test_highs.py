"""HiGHS alone: changes that it refuses, a basis that it loses, LPs that it ends early."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import highspy
import numpy as np
import pytest
import scipy.sparse as sp
from conftest import random_dense_network
from solver_models import LPS, MIPS, Known, inf

from toolkit.problems.answers import Status
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.search.lp_bounder import template
from toolkit.solvers.highs import HIGHS
from toolkit.verify.margins import margin_problem

KNOWN = LPS["two rows"]


def test_the_declared_statuses_are_words_of_highs() -> None:
    assert set(HIGHS.statuses) <= set(highspy.HighsModelStatus.__members__)


def test_highs_stops_at_the_cutoff() -> None:
    """On an LP with many steps the bound passes the cutoff before the optimum, and in fewer iterations."""
    rng = np.random.default_rng(0)
    ball = LinfBall(rng.normal(size=20), eps=0.3)
    problem = margin_problem(random_dense_network(rng, (20, 40, 40, 3)), ball, 0, targets=[1])
    compiled = template(problem).relaxed
    cost, offset = template(problem).layout.objective(problem.rows)
    full = HIGHS.open(compiled, Settings()).minimize(cost[0], float(offset[0]))
    session = HIGHS.open(compiled, Settings())
    cutoff = full.bound - 0.3 * abs(full.bound)
    early = session.minimize(cost[0], float(offset[0]), cutoff=cutoff)
    assert early.status is Status.DECIDED
    assert cutoff <= early.bound <= full.bound + 1e-9
    assert early.iterations < full.iterations
    assert session.minimize(cost[0], float(offset[0])).bound == pytest.approx(full.bound, abs=1e-7)


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
    session = HIGHS.open(KNOWN.model, Settings())
    cost = np.array(KNOWN.cost, dtype=float)
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
    session = HIGHS.open(KNOWN.model, Settings())
    session._highs = _Refusing(session._highs, call, "passModel")
    CHANGES[call](session)
    report = session.minimize(np.array(KNOWN.cost, dtype=float))
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

    session = HIGHS.open(KNOWN.model, Settings())
    session._highs = Lost(session._highs)
    report = session.minimize(np.array(KNOWN.cost, dtype=float))
    assert session._highs.runs == 2
    assert report.status is Status.OPTIMAL
    assert report.bound == pytest.approx(KNOWN.optimum)


@pytest.mark.parametrize("known", [LPS["two rows"], MIPS["knapsack"]], ids=["LP", "MILP"])
def test_any_number_of_threads_may_follow_any_other(known: Known) -> None:
    """Also in sessions that are open at the same time, in one thread of the process and in another."""
    sessions = [HIGHS.open(known.model, Settings(threads=threads)) for threads in (1, 2, 1)]
    cost = np.array(known.cost, dtype=float)

    def optima() -> list[float]:
        return [session.minimize(sign * cost).bound for sign in (1.0, -1.0, 1.0) for session in sessions][-3:]

    assert optima() == pytest.approx([known.optimum] * 3)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(optima).result() == pytest.approx([known.optimum] * 3)
    assert optima() == pytest.approx([known.optimum] * 3)
