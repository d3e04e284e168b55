"""The exact rung over ℓ2 balls by a named solver's quadratic constraint, beside bab and convex enumeration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import random_dense_network
from test_norm_balls_in_rungs import enumerated, question

from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.answers import Bound, Status
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_sets import L1Ball, L2Ball, LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.rungs import exact, get_rung
from toolkit.rungs.exact import why_tree
from toolkit.search.lp_bounder import template
from toolkit.solvers.linear_program import CompiledModel, Ellipsoid
from toolkit.solvers.registry import SOLVERS, open_session
from toolkit.solvers.session import Licence, SolverUnavailableError
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem, margins

QUADRATIC = [name for name, solver in SOLVERS.items() if solver.quadratic]


def _usable(solver: str) -> str:
    status = SOLVERS[solver].status()
    if not status.usable:
        pytest.skip(f"{solver}: {status.reason}")
    return solver


@pytest.mark.parametrize("solver", QUADRATIC)
@pytest.mark.parametrize("domain", [None, (0.0, 1.0)])
@pytest.mark.parametrize("seed", [1, 2, 5])
def test_a_quadratic_constraint_gives_what_enumeration_gives(
    solver: str, domain: tuple[float, float] | None, seed: int
) -> None:
    network, ball, label, bounds = question("l2", domain, seed)
    settings = Settings(solver=_usable(solver))
    found = margins(network, ball, label, "exact", bounds, settings=settings)
    trees = margins(network, ball, label, "bab", bounds)
    relaxed = margins(network, ball, label, "lp", bounds)
    for t, (own, tree, lp) in enumerate(zip(found, trees, relaxed, strict=True)):
        target = t if t < label else t + 1
        row = np.eye(network.output_size)[label] - np.eye(network.output_size)[target]
        truth = enumerated(network, ball, row, bounds)
        room = 1e-4 * abs(truth) + 1e-5
        assert (own.status, own.solver) == (Status.OPTIMAL, solver)
        assert own.lower == pytest.approx(truth, abs=room)
        assert own.upper == pytest.approx(truth, abs=room)
        assert own.certified_lower <= truth + 1e-7  # of the LP, and so proven
        assert own.lower >= lp.certified_lower
        assert own.upper >= tree.lower - 1e-9
        assert tree.upper >= own.lower - room
        assert own.witness is not None
        assert np.linalg.norm(own.witness - ball.center) <= ball.eps * (1 + 1e-12)
        assert (network.forward(own.witness[None]) @ row)[0] == pytest.approx(own.upper, abs=1e-9)


@pytest.mark.parametrize("solver", QUADRATIC)
@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_unit_of_the_inputs_does_not_matter(solver: str, unit: float) -> None:
    """x → unit·x, the first layer's weights divided by it: the same margins."""
    network, ball, label, _ = question("l2", None, 3)
    first, *rest = network.layers
    assert isinstance(first, Dense)
    stretched = Network([Dense(first.weight / unit, first.bias), *rest])
    far = L2Ball(ball.center * unit, ball.eps * unit)
    settings = Settings(solver=_usable(solver))
    for one, other in zip(
        margins(network, ball, label, "exact", settings=settings),
        margins(stretched, far, label, "exact", settings=settings),
        strict=True,
    ):
        assert other.status is Status.OPTIMAL
        assert other.lower == pytest.approx(one.lower, rel=2e-4, abs=1e-5)
        assert other.upper == pytest.approx(one.upper, rel=2e-4, abs=1e-5)


def _answers(network: Network, ball: L2Ball, solver: str) -> list[Bound]:
    return margins(network, ball, 0, "exact", layer_bounds(network, ball), settings=Settings(solver=solver))


def test_a_named_solver_that_takes_no_such_constraint_leaves_it_to_bab_and_says_so() -> None:
    network, ball, _, _ = question("l2", None, 4)
    for bound in _answers(network, ball, "highs"):
        assert bound.solver.startswith("bab")
        assert "answered by bab: highs takes no quadratic constraint" in bound.message
    for bound in _answers(network, ball, "auto"):
        assert bound.solver.startswith("bab")
        assert "answered by" not in bound.message


def test_the_licences_limit_counts_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ball, _, _ = question("l2", None, 4)
    small = replace(SOLVERS["gurobi"], licence=lambda: Licence(True, "size-limited", 2000, "", 20))
    monkeypatch.setitem(SOLVERS, "gurobi", small)
    for bound in _answers(network, ball, "gurobi"):
        assert bound.solver.startswith("bab")
        assert "variables exceed the licence's 20 with a quadratic constraint" in bound.message


@pytest.mark.skipif(not SOLVERS["gurobi"].status().quadratic_limit, reason="needs Gurobi with its size-limited licence")
def test_the_limit_is_the_one_that_gurobi_has() -> None:
    limit = SOLVERS["gurobi"].status().quadratic_limit
    assert limit is not None
    for count in (limit, limit + 1):
        model = _disc(count)
        assert bool(SOLVERS["gurobi"].refusal(model)) is (count > limit)
        session = SOLVERS["gurobi"].open(model, Settings())
        if count > limit:
            with pytest.raises(SolverUnavailableError, match="10010"):
                session.minimize(np.ones(count))
        else:
            assert session.minimize(np.ones(count)).incumbent == pytest.approx(-np.sqrt(count), abs=1e-4)


def _disc(count: int) -> CompiledModel:
    """The unit ball in so many columns."""
    whole = np.zeros(count, dtype=bool)
    return CompiledModel(
        sp.csr_array((0, count)), np.zeros(0), np.zeros(0), np.full(count, -1.0), np.full(count, 1.0), whole,
        Ellipsoid(np.zeros(count), np.ones(count)),
    )  # fmt: skip


def test_a_session_without_the_constraint_is_never_opened() -> None:
    assert "no quadratic constraint" in SOLVERS["highs"].refusal(_disc(3))
    with pytest.raises(SolverUnavailableError, match="highs takes no quadratic constraint"):
        SOLVERS["highs"].open(_disc(3), Settings())
    report = open_session(_disc(3), Settings()).minimize(np.ones(3))
    assert (report.status, report.bound) == (Status.FAILED, -np.inf)
    assert "no quadratic constraint" in report.message


def test_only_l2_balls_have_one_and_its_program_knows_no_other_columns() -> None:
    network, ball, label, bounds = question("l2", (0.0, 1.0), 1)
    problem = margin_problem(network, ball, label, bounds, settings=Settings(solver="scip"))
    program = template(problem).exact
    unstable = sum(count[0] for count in bounds.counts())
    assert program.ellipsoid is not None
    assert program.matrix.shape == (3 * unstable, ball.size + 3 * unstable)
    assert unstable
    assert why_tree(problem) is None or SOLVERS["scip"].refusal(program)
    for other in (L1Ball(ball.center, ball.eps), LinfBall(ball.center, ball.eps)):
        assert other.euclidean_radius is None
        assert template(margin_problem(network, other, label)).exact.ellipsoid is None


def test_without_unstable_neurons_bab_answers() -> None:
    rng = np.random.default_rng(0)
    network = random_dense_network(rng, (4, 6, 3))
    ball = L2Ball(rng.normal(size=4), 1e-6)
    assert sum(count[0] for count in layer_bounds(network, ball).counts()) == 0
    for bound in _answers(network, ball, "scip"):
        assert bound.solver.startswith("bab")
        assert bound.upper - bound.lower <= 1e-6


@pytest.mark.parametrize("solver", QUADRATIC)
@pytest.mark.parametrize("eps", [0.0, 1e-300, 1e-160, 1e-17])
def test_balls_that_rounding_makes_points_have_an_answer(solver: str, eps: float) -> None:
    """One neuron is unstable by rounding alone, or by l,u that were given by hand."""
    hidden = Dense(np.array([[0.1, 0.2, -0.3], [1.0, -1.0, 0.5]]), np.array([0.0, 0.1]))
    network = Network([hidden, Dense(np.array([[1.0, 2.0], [0.5, 1.0]]), np.zeros(2))])
    ball = L2Ball(np.full(3, 0.1), eps)
    settings = Settings(solver=_usable(solver))
    loose = ReluBounds((np.full(2, -1.0),), (np.full(2, 1.0),))
    for bounds in (layer_bounds(network, ball), loose):
        (bound,) = margins(network, ball, 0, "exact", bounds, settings=settings)
        assert bound.status is not Status.FAILED
        assert bound.lower <= 0.15 + 1e-9  # F₀ − F₁ = ½ y₀ + y₁ at the centre
        assert bound.upper == pytest.approx(0.15, abs=1e-9)
        assert bound.lower > 0.1


def test_time_limits_are_spent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The LP, by a solver that stays warm, gets half of the limit, and the MILP what the slowest row's LP has left."""
    network, ball, label, bounds = question("l2", None, 1)
    problem = margin_problem(network, ball, label, bounds, settings=Settings(solver=_usable("scip"), time_limit=8.0))
    honest_lp, honest_milp, asked = exact.lp_bounds, exact.minimize_rows, []

    def lp(asking: Problem) -> list[Bound]:
        asked.append(asking.settings)
        return [replace(bound, seconds=1.0 + k) for k, bound in enumerate(honest_lp(asking))]

    def milp(asking: Problem, *rest: Any) -> list[Bound]:
        asked.append(asking.settings)
        return honest_milp(asking, *rest)

    monkeypatch.setattr(exact, "lp_bounds", lp)
    monkeypatch.setattr(exact, "minimize_rows", milp)
    found = get_rung("exact")(problem)
    assert [bound.status for bound in found] == [Status.OPTIMAL] * 2
    assert [(one.solver, one.time_limit) for one in asked] == [("auto", 4.0), ("scip", 6.0)]
