"""The template as a block in a model of the user's own: named variables, other objectives, other constraints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyomo.environ as pyo
import pytest
from conftest import random_conv_network, random_dense_network
from hypothesis import given
from naive import enumerate_patterns, naive_lp
from pyomo.contrib.solver.common.factory import SolverFactory
from structures import Case, tiny

from toolkit import Box, L1Ball, L2Ball, LinfBall, Property, layer_bounds, margins, to_pyomo
from toolkit.problems.settings import Settings


def optimum(model: Any) -> float:
    """The minimum by HiGHS, through Pyomo, as any user would ask it."""
    found = SolverFactory("highs").solve(model, rel_gap=0.0, threads=1)
    return float(found.incumbent_objective)


def asked(block: Any, objective: Any) -> Any:
    model = pyo.ConcreteModel()
    model.net = block
    model.objective = pyo.Objective(expr=objective(block))
    return model


@given(case=tiny(outputs=3))
def test_the_least_of_a_users_objective_is_that_of_enumeration(case: Case) -> None:
    row = np.array([1.0, -2.0, 0.5])
    model = asked(to_pyomo(case.network, case.ball), lambda b: b.F[0] - 2 * b.F[1] + 0.5 * b.F[2])
    assert optimum(model) == pytest.approx(enumerate_patterns(case.network, case.ball, row), abs=1e-5)


@pytest.mark.parametrize("formulation", ["compact", "full"])
@pytest.mark.parametrize("relaxed", [True, False])
def test_margins_are_those_of_the_rungs(relaxed: bool, formulation: Any, rng: np.random.Generator) -> None:
    network = random_dense_network(rng, (5, 8, 6, 3))
    ball = LinfBall(rng.uniform(0, 1, 5), 0.3, (0, 1))
    bounds = layer_bounds(network, ball)
    expected = margins(network, ball, 1, "lp" if relaxed else "exact", bounds, settings=Settings(solver="highs"))
    for bound in expected:
        block = to_pyomo(network, ball, bounds, 1, relaxed, formulation)
        assert optimum(asked(block, lambda b, t=bound.target: b.margin[t])) == pytest.approx(bound.lower, abs=1e-5)
        row = np.eye(3)[1] - np.eye(3)[bound.target]
        if relaxed:
            assert bound.lower == pytest.approx(naive_lp(network, ball, bounds, row), abs=1e-6)


def test_every_point_of_the_ball_is_a_solution_and_nothing_else_fits(rng: np.random.Generator) -> None:
    """With x fixed, the one solution of the exact model is the forward pass: F, x̂, y and a."""
    network = random_conv_network(rng)
    ball = LinfBall(rng.uniform(0, 1, network.input_size), 0.2)
    block = to_pyomo(network, ball, formulation="full")
    for point in ball.sample(2):
        for i, value in enumerate(point):
            block.x[i].fix(float(value))
        hidden = network.preactivations(point)
        for sign in (1, -1):
            model = asked(block, lambda b, s=sign: s * sum(b.F[j] for j in b.F))
            optimum(model)
            np.testing.assert_allclose([pyo.value(block.F[j]) for j in block.F], hidden[-1], atol=1e-6)
            for (k, i), x_hat in block.x_hat.items():
                assert pyo.value(x_hat) == pytest.approx(hidden[k][i], abs=1e-6)
                assert pyo.value(block.y[k, i]) == pytest.approx(max(hidden[k][i], 0.0), abs=1e-6)
            model.del_component(block)


def test_names_and_kinds(rng: np.random.Generator) -> None:
    network = random_dense_network(rng, (4, 6, 5, 3))
    ball = LinfBall(rng.normal(size=4), 0.4)
    bounds = layer_bounds(network, ball)
    block = to_pyomo(network, ball, bounds, question=0)
    unstable = [(k, int(i)) for k in range(2) for i in np.flatnonzero(bounds.unstable(k))]
    assert unstable
    assert list(block.y) == list(block.s) == list(block.a) == list(block.x_hat) == unstable
    assert list(block.x) == list(range(4))
    assert list(block.F) == [0, 1, 2]
    assert list(block.margin) == [1, 2]
    assert all(variable.is_binary() for variable in block.a.values())
    assert not list(block.component_data_objects(pyo.Objective))
    relaxed = to_pyomo(network, ball, bounds, relaxed=True)
    assert not any(variable.is_binary() for variable in relaxed.a.values())
    assert relaxed.component("margin") is None
    whole = to_pyomo(network, ball, bounds, formulation="full")
    assert list(whole.y) == [(k, i) for k, size in enumerate(network.relu_sizes) for i in range(size)]


def test_a_constraint_of_ones_own_tightens_the_optimum(rng: np.random.Generator) -> None:
    """Only points on the line x₀ + x₁ = x₂ + x₃ near the centre: no lower than the ball, no higher than a sample."""
    network = random_dense_network(rng, (4, 8, 3))
    ball = LinfBall(np.full(4, 0.5), 0.4, (0, 1))
    free = asked(to_pyomo(network, ball, question=0), lambda b: b.margin[1])
    tied = asked(to_pyomo(network, ball, question=0), lambda b: b.margin[1])
    tied.balance = pyo.Constraint(expr=tied.net.x[0] + tied.net.x[1] == tied.net.x[2] + tied.net.x[3])
    tied.small = pyo.Constraint(expr=tied.net.F[2] <= float(network.forward(ball.center)[2]))
    least, more = optimum(free), optimum(tied)
    assert more > least + 1e-3
    points = ball.sample(4000)
    points[:, 3] = points[:, 0] + points[:, 1] - points[:, 2]
    outputs = network.forward(points)
    fits = (np.abs(points[:, 3] - 0.5) <= 0.4) & (outputs[:, 2] <= network.forward(ball.center)[2])
    assert np.all((outputs[:, 0] - outputs[:, 1])[fits] >= more - 1e-6)


def test_two_networks_in_one_model(rng: np.random.Generator) -> None:
    """Where do two networks differ most on a ball? Each by itself knows nothing of it."""
    first, second = (random_dense_network(rng, (3, 5, 2)) for _ in range(2))
    ball = LinfBall(rng.normal(size=3), 0.5)
    model = pyo.ConcreteModel()
    model.one, model.two = to_pyomo(first, ball), to_pyomo(second, ball)
    model.same = pyo.Constraint(range(3), rule=lambda m, i: m.one.x[i] == m.two.x[i])
    model.objective = pyo.Objective(expr=model.one.F[0] - model.two.F[0])
    least = optimum(model)
    points = np.concatenate([ball.sample(3000), [[model.one.x[i].value for i in range(3)]]])
    differences = first.forward(points)[:, 0] - second.forward(points)[:, 0]
    assert differences.min() >= least - 1e-5
    assert differences[-1] == pytest.approx(least, abs=1e-5)


def test_sets_and_questions(rng: np.random.Generator) -> None:
    network = random_dense_network(rng, (4, 5, 2))
    x = rng.normal(size=4)
    question = Property.of([[1.0, -1.0], [0.0, 1.0]], constants=[0.5, -0.25])
    for ball in (L1Ball(x, 0.5), Box(x - 0.1, x + 0.2)):
        for row, (c, d) in enumerate((([1.0, -1.0], 0.5), ([0.0, 1.0], -0.25))):
            (bound,) = margins(
                network, ball, Property.of([c], constants=[d]), "exact", settings=Settings(solver="highs")
            )
            found = optimum(asked(to_pyomo(network, ball, question=question), lambda b, r=row: b.margin[r]))
            assert found == pytest.approx(bound.lower, abs=1e-5)
    with pytest.raises(ValueError, match="label must be"):
        to_pyomo(network, LinfBall(x, 0.5), question=2)
    with pytest.raises(ValueError, match="formulation must be"):
        to_pyomo(network, LinfBall(x, 0.5), formulation="dense")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="belong to another ball"):
        to_pyomo(network, LinfBall(x, 0.5), layer_bounds(network, LinfBall(x, 0.4)))


@pytest.mark.parametrize("kind", [LinfBall, L1Ball])
def test_scip_takes_a_block_through_pyomo_as_well(kind: Any, rng: np.random.Generator) -> None:
    network, x = random_dense_network(rng, (4, 6, 3)), rng.normal(size=4)
    first, second = (asked(to_pyomo(network, kind(x, 0.5)), lambda b: b.F[0]) for _ in range(2))
    assert optimum_by_scip(first) == pytest.approx(optimum(second), abs=1e-5)


def optimum_by_scip(model: Any) -> float:
    pytest.importorskip("pyscipopt")
    found = SolverFactory("scip_direct").solve(model, rel_gap=0.0)
    return float(found.incumbent_objective)


@pytest.mark.parametrize("domain", [None, (0.0, 1.0)])
@pytest.mark.parametrize("seed", [1, 2, 5])
def test_margins_over_an_l2_ball_are_those_of_a_search_without_solver(
    seed: int, domain: tuple[float, float] | None
) -> None:
    """A user's own constraint as well: on a plane through the centre the least is no lower."""
    rng = np.random.default_rng(seed)
    network, label = random_dense_network(rng, (4, 6, 5, 3)), 0
    ball = L2Ball(rng.uniform(0.2, 0.8, 4), 0.5, domain)
    bounds = layer_bounds(network, ball)
    for found in margins(network, ball, label, "bab", bounds):
        target, truth = found.target, found.upper
        assert found.upper - found.lower <= 1e-4 * abs(truth) + 1e-5
        row = np.eye(network.output_size)[label] - np.eye(network.output_size)[target]
        model = asked(to_pyomo(network, ball, bounds, label), lambda b, t=target: b.margin[t])
        assert optimum_by_scip(model) == pytest.approx(truth, abs=1e-4 * abs(truth) + 1e-5)
        point = np.array([pyo.value(one) for one in model.net.x.values()])
        assert np.linalg.norm(point - ball.center) <= ball.radius * (1 + 1e-5)
        assert row @ network.forward(point) == pytest.approx(truth, abs=1e-3 * abs(truth) + 1e-4)
        model.plane = pyo.Constraint(expr=model.net.x[0] == float(ball.center[0]))
        tied = optimum_by_scip(model)
        assert tied >= truth - 1e-4
        flat = ball.sample(500)
        flat[:, 0] = ball.center[0]
        assert (network.forward(flat) @ row).min() >= tied - 1e-4
        relaxed = asked(to_pyomo(network, ball, bounds, label, relaxed=True), lambda b, t=target: b.margin[t])
        (lp,) = margins(network, ball, label, "lp", bounds, targets=[target])
        assert optimum_by_scip(relaxed) == pytest.approx(lp.lower, abs=1e-3 * abs(lp.lower) + 1e-4)


@pytest.mark.parametrize("eps", [1e-3, 0.5])
def test_the_quadratic_constraint_is_the_ball(eps: float, rng: np.random.Generator) -> None:
    """At every size violated outside and only there, by what the distance says; the block has none of tangents."""
    network = random_dense_network(rng, (4, 5, 2))
    ball = L2Ball(rng.normal(size=4), eps)
    block = to_pyomo(network, ball)
    assert [name for name in ("square", "above", "move") if block.component(name) is not None] == []

    def value(point: np.ndarray) -> float:
        for i, entry in enumerate(point):
            block.x[i].set_value(float(entry), skip_validation=True)
        return float(pyo.value(block.length.body))

    upper = float(pyo.value(block.length.upper))
    directions = rng.normal(size=(20, 4))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    for share in (0.0, 0.3, 0.999, 1.001, 2.0):
        for direction in directions:
            found = value(ball.center + share * eps * direction)
            assert found == pytest.approx(share**2, abs=1e-9)
            assert (found <= upper) == (share <= 1)
    assert max(value(point) for point in ball.sample(50)) <= upper + 1e-9


def test_an_l2_ball_of_one_point(rng: np.random.Generator) -> None:
    network, x = random_dense_network(rng, (4, 5, 2)), rng.normal(size=4)
    model = asked(to_pyomo(network, L2Ball(x, 0.0)), lambda b: b.F[0])
    assert optimum(model) == pytest.approx(float(network.forward(x)[0]), abs=1e-6)


def test_a_set_that_nothing_describes_is_refused(rng: np.random.Generator) -> None:
    class Other(L2Ball):
        euclidean_radius = None  # type: ignore[assignment]

    with pytest.raises(ValueError, match="a block needs an input set of linear rows or an ℓ2 ball"):
        to_pyomo(random_dense_network(rng, (4, 5, 2)), Other(rng.normal(size=4), 0.5))


@pytest.mark.parametrize("relaxed", ["no", 0, None])
def test_relaxed_is_yes_or_no(relaxed: Any, rng: np.random.Generator) -> None:
    network = random_dense_network(rng, (2, 3, 2))
    with pytest.raises(ValueError, match="relaxed must be True or False, got"):
        to_pyomo(network, LinfBall(np.zeros(2), 0.5), relaxed=relaxed)
