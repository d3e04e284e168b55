"""Lipschitz bounds: hand-computed constants, the range of the Jacobian, and never above the true minimum."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from conftest import random_conv_network
from hypothesis import given
from structures import Case, cases

from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.networks.replay import exact_margins
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rung
from toolkit.rungs.lipschitz import jacobian_ranges, jacobian_values, product_values
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem

HIGHS = Settings(solver="highs", mip_gap=0.0)


def unknown_bounds(network: Network) -> ReluBounds:
    """l = −∞, u = ∞ everywhere: every neuron unstable."""
    sizes = network.relu_sizes
    return ReluBounds(tuple(np.full(n, -np.inf) for n in sizes), tuple(np.full(n, np.inf) for n in sizes))


def random_problem(case: Case) -> Problem:
    return margin_problem(case.network, case.ball, 0, settings=HIGHS)


def test_constants_computed_by_hand() -> None:
    """F = 2·max(x₀ − 2x₁, 0) − max(x₁, 0) at (1, 1), where F = −1, ε = ½, without l,u.

    Product: ‖(2, −1)‖₁ · max(|1| + |−2|, |1|) · ½ = 3·3·½ = 4.5. Per margin: J₀ ∈ [0, 2], J₁ ∈ [−5, 0] and
    (2 + 5)·½ = 3.5. With l,u: x₁ ∈ [½, 3/2] is active and x₀ − 2x₁ ∈ [−2.5, ½] unstable, so J₁ ∈ [−5, −1]. At ε = 0.1,
    x₀ − 2x₁ ∈ [−1.3, −0.7] is inactive and J = (0, −1): the bound is −1 − 0.1, which is exact.
    """
    network = Network([Dense([[1.0, -2.0], [0.0, 1.0]]), Dense([[2.0, -1.0]])])
    ball = LinfBall([1.0, 1.0], eps=0.5)
    blind = Problem.of(network, ball, np.eye(1), unknown_bounds(network))
    assert product_values(blind)[0] == pytest.approx(-1 - 4.5)
    assert jacobian_values(blind)[0] == pytest.approx(-1 - 3.5)
    middle, half_width = jacobian_ranges(blind)
    np.testing.assert_allclose([middle - half_width, middle + half_width], [[[0, -5]], [[2, 0]]], atol=1e-12)
    informed = Problem.of(network, ball, np.eye(1), layer_bounds(network, ball))
    middle, half_width = jacobian_ranges(informed)
    np.testing.assert_allclose([middle - half_width, middle + half_width], [[[0, -5]], [[2, -1]]], atol=1e-12)
    small = LinfBall([1.0, 1.0], eps=0.1)
    exact = Problem.of(network, small, np.eye(1), layer_bounds(network, small))
    assert get_rung("lipschitz").lower_values(exact)[0] == pytest.approx(-1.1)


@given(case=cases(largest=0))
def test_never_above_the_minimum(case: Case) -> None:
    problem = random_problem(case)
    found = get_rung("lipschitz").lower_values(problem)
    np.testing.assert_array_equal(found, np.maximum(product_values(problem), jacobian_values(problem)))
    points = np.concatenate([problem.input_set.sample(300, case.seed), problem.input_set.corners(300, case.seed)])
    assert np.all(found <= problem.replay(points).min(axis=0) + 1e-9)
    assert np.all(found <= [bound.upper + 1e-9 for bound in get_rung("pgd")(problem)])


@given(case=cases(largest=0))
def test_jacobian_range_holds_every_difference_quotient(case: Case) -> None:
    """min over the range of J·(x̃ − z) ≤ c·F(x̃) − c·F(z) for any two points, and l,u only narrow the range."""
    problem = random_problem(case)
    middle, half_width = jacobian_ranges(problem)
    points, others = problem.input_set.sample(50, case.seed), problem.input_set.corners(50, case.seed)
    change = problem.replay(points) - problem.replay(others)
    step = points - others
    assert np.all(np.abs(change - step @ middle.T) <= np.abs(step) @ half_width.T + 1e-9)
    blind = Problem.of(problem.network, problem.input_set, problem.rows, unknown_bounds(problem.network))
    wide, wide_half = jacobian_ranges(blind)
    assert np.all(wide - wide_half <= middle - half_width + 1e-9)
    assert np.all(wide + wide_half >= middle + half_width - 1e-9)


@given(case=cases(largest=0))
def test_the_per_margin_variant_loses_less_than_the_product(case: Case) -> None:
    """Without a domain both start from F(x), so the per-margin bound is the larger one."""
    problem = random_problem(case)
    whole = LinfBall(problem.input_set.center, problem.input_set.eps)
    free = margin_problem(problem.network, whole, 0)
    assert np.all(jacobian_values(free) >= product_values(free) - 1e-9)


def test_affine_network_is_bounded_exactly(rng: np.random.Generator) -> None:
    network = Network([Dense(rng.normal(size=(3, 7)), rng.normal(size=3))])
    problem = margin_problem(network, LinfBall(rng.uniform(0, 1, 7), eps=0.2, domain=(0, 1)), 0)
    expected = get_rung("interval").lower_values(problem)
    np.testing.assert_allclose(get_rung("lipschitz").lower_values(problem), expected, atol=1e-12)


BIG, COUNT = 2.0**54, 40
SIGNS = np.concatenate([[1.0], -np.ones(COUNT), [-1.0]])  # of 2⁵⁴, forty ones, 2⁵⁴: −40, and float64 may well say 0
SIZES = np.concatenate([[BIG], np.ones(COUNT), [BIG]])


def cancelling(where: str, order: np.ndarray) -> tuple[Problem, float]:
    """A problem on [−1, 1] in which −40 comes of SIZES and SIGNS in one place, and the slope there."""
    signs, sizes, row = SIGNS[order], SIZES[order], np.eye(1)
    if where == "value":
        network, slope = Network([Dense(np.zeros((COUNT + 2, 1)), sizes), Dense(signs[None], [30.0])]), 0.0
    elif where == "last map":
        network, slope, row = Network([Dense(np.ones((COUNT + 2, 1)))]), -COUNT, (signs * sizes)[None]
    else:
        network = Network([Dense([[1.0]], [2.0]), Dense(sizes[:, None]), Dense(signs[None])])
        slope = -COUNT
    ball = LinfBall([0.0], 1.0)
    return Problem.of(network, ball, row, layer_bounds(network, ball)), slope


@pytest.mark.parametrize("where", ["value", "last map", "way back"])
def test_rounding_is_taken_off(where: str) -> None:
    """Whatever the order in which float64 sums; in some order it does lose the ones."""
    lost = 0
    for seed in range(60):
        problem, slope = cancelling(where, np.random.default_rng(seed).permutation(COUNT + 2))
        least = min(exact_margins(problem.network, problem.rows, [x])[0] for x in (-1.0, 0.0, 1.0))
        for values in (product_values, jacobian_values):
            assert Fraction(float(values(problem)[0])) <= least
        middle, half_width = jacobian_ranges(problem)
        assert middle[0, 0] - half_width[0, 0] <= slope <= middle[0, 0] + half_width[0, 0]
        lost += middle[0, 0] != slope or problem.replay([0.0])[0, 0] > -10
    assert lost > 0


def test_can_bound_layers() -> None:
    """As a rung of a chain it gives l,u that hold at sampled points."""
    rng = np.random.default_rng(1)
    network = random_conv_network(rng)
    ball = LinfBall(rng.uniform(0, 1, network.input_size), eps=0.05)
    bounds = layer_bounds(network, ball, ("lipschitz",))
    for k, values in enumerate(network.preactivations(ball.sample(100))[:-1]):
        assert np.all(bounds.lower[k] <= values + 1e-9)
        assert np.all(bounds.upper[k] >= values - 1e-9)
