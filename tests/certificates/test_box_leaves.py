"""Bounds on boxes alone: below the rational minimum on every box, tight on small ones, and each as if it were alone."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from conftest import random_conv_network, random_dense_network
from graphs import random_network
from hard_networks import Case
from hypothesis import given
from hypothesis import strategies as st
from oracle import least
from strategies import arrays, cases, networks

from toolkit.certificates.box_leaves import box_leaf_bounds
from toolkit.certificates.rounding import ErrorModel, error_model_of
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.networks.weights import dense_array
from toolkit.problems.input_sets import L2Ball, LinfBall
from toolkit.problems.problem import Problem
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem


def model_of(network: Network, ball: Any) -> ErrorModel:
    rows = np.eye(network.output_size)
    return error_model_of(Problem.of(network, ball, rows, layer_bounds(network, ball)))


def cubes(ball: LinfBall, depth: int) -> list[LinfBall]:
    """The cubes that halving every coordinate `depth` times makes of a ball of eighths: their ends are floats."""
    eps = ball.eps / 2**depth
    steps = [eps * (2 * i + 1 - 2**depth) for i in range(2**depth)]
    return [LinfBall(ball.center + np.array(shift), eps) for shift in itertools.product(steps, repeat=ball.size)]


def ends(parts: list[LinfBall]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([part.lower for part in parts]), np.array([part.upper for part in parts])


@given(data=st.data())
def test_no_box_is_bounded_above_its_minimum(data: st.DataObject) -> None:
    network = data.draw(networks(2, 2))
    ball = LinfBall(data.draw(arrays(2)), data.draw(st.sampled_from([0.125, 0.5, 2.0])))
    row, parts = data.draw(arrays(2)), cubes(ball, 1)
    found = box_leaf_bounds(model_of(network, ball), row, *ends(parts))
    for bound, part in zip(found.tolist(), parts, strict=True):
        ((truth, _),) = least(network, part, [row.tolist()])
        assert Fraction(bound) <= truth


@pytest.mark.parametrize("seed", range(6))
def test_no_box_of_a_deeper_network_is_bounded_above_its_minimum(seed: int) -> None:
    """Ranges of two layers behind the first, each side by either closed form, enter the third and the rows."""
    rng = np.random.default_rng(seed)
    network, ball = random_dense_network(rng, (2, 5, 5, 4, 2)), LinfBall(np.round(8 * rng.normal(size=2)) / 8, 1.0)
    rows, parts = np.array([[1.0, -1.0], [-1.0, 1.0], [1.0, 0.0], [-1.0, 0.0]]), cubes(ball, 1)
    model = model_of(network, ball)
    found = [box_leaf_bounds(model, row, *ends(parts)).tolist() for row in rows]
    for i, part in enumerate(parts):
        for bounds, (truth, _) in zip(found, least(network, part, rows.tolist()), strict=True):
            assert Fraction(bounds[i]) <= truth


@pytest.mark.parametrize(
    ("weight", "bias", "second", "shift", "ball"),
    [
        ([1.0], [0.0], [1.0], -0.5, LinfBall([-0.5], 1.5)),  # relu(x) − ½ on [−2, 1]: α = 0
        ([1.0, 1.0], [0.0, 2.0], [1.0, -1.0], 1.5, LinfBall([0.5], 1.5)),  # relu(x) − x − ½ on [−1, 2]: α = 1
    ],
)
def test_upper_sides_by_lower_slopes_are_upper_sides(
    weight: list[float], bias: list[float], second: list[float], shift: float, ball: LinfBall
) -> None:
    """Both neurons of the second layer have u = ½; with y ≤ αx̂ + h for y ≥ αx̂ they would have 1/6."""
    layers = [Dense(np.array(weight)[:, None], bias), Dense([second], [shift]), Dense([[-1.0]])]
    (bound,) = box_leaf_bounds(model_of(Network(layers), ball), np.ones(1), ball.lower[None], ball.upper[None])
    assert -0.5 - 1e-6 <= bound <= -0.5


@given(case=cases())
def test_hard_networks_are_never_claimed_more_of(case: Case) -> None:
    """Weights, biases and inputs of all sizes, dead and equal neurons: the whole ball as one box."""
    problem = margin_problem(case.network, case.ball, case.label)
    model = error_model_of(problem)
    for row, truth in zip(dense_array(problem.rows), case.truth, strict=True):
        (bound,) = box_leaf_bounds(model, row, case.ball.lower[None], case.ball.upper[None])
        assert bound == -np.inf or Fraction(float(bound)) <= truth


@pytest.mark.parametrize("seed", range(4))
def test_small_boxes_have_nearly_their_minimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network, ball = random_dense_network(rng, (2, 5, 4, 3)), LinfBall(np.round(8 * rng.normal(size=2)) / 8, 0.5)
    row, told = np.array([1.0, -1.0, 0.0]), []
    ((truth, _),) = least(network, ball, [row.tolist()])
    for depth in range(6):
        bound = float(box_leaf_bounds(model_of(network, ball), row, *ends(cubes(ball, depth))).min())
        assert Fraction(bound) <= truth
        told.append(float(truth) - bound)
    assert told[-1] < 0.02 + 0.2 * told[0]


def test_every_box_has_the_bound_it_has_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever boxes and rows are carried together."""
    rng = np.random.default_rng(0)
    for network in (random_dense_network(rng, (3, 6, 5, 2)), random_network(rng, 2, inputs=3)):
        ball = LinfBall(rng.normal(size=3), 0.5)
        model, row = model_of(network, ball), rng.normal(size=network.output_size)
        parts = ends(cubes(ball, 1))
        together = box_leaf_bounds(model, row, *parts)
        alone = [box_leaf_bounds(model, row, low[None], high[None])[0] for low, high in zip(*parts, strict=True)]
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-9)
        assert np.ptp(together) > 1e-3
        for size in (1, 7, 40):
            monkeypatch.setattr("toolkit.certificates.box_leaves.BOX_ROWS", size)
            np.testing.assert_allclose(box_leaf_bounds(model, row, *parts), together, rtol=0, atol=1e-9)
        monkeypatch.undo()


@pytest.mark.parametrize("kind", ["conv", "graph", "l2"])
def test_no_sampled_point_of_a_box_is_below_its_bound(kind: str) -> None:
    rng = np.random.default_rng(1)
    network = random_conv_network(rng) if kind == "conv" else random_network(rng, 3, inputs=4)
    center = rng.normal(size=network.input_size)
    ball = L2Ball(center, 0.3) if kind == "l2" else LinfBall(center, 0.1)
    model, row = model_of(network, ball), rng.normal(size=network.output_size)
    cut = np.sort(rng.uniform(ball.lower, ball.upper, (20, 2, network.input_size)), axis=1)
    found = box_leaf_bounds(model, row, cut[:, 0], cut[:, 1])
    seen = 0
    for bound, low, high in zip(found.tolist(), cut[:, 0], cut[:, 1], strict=True):
        points = rng.uniform(low, high, (40, network.input_size))
        inside = points[[ball.contains(point) for point in points]]
        seen += len(inside)
        assert np.all(network.forward(inside) @ row >= bound)
    assert seen > 50
    assert np.isfinite(found).all()


def test_numbers_that_end_prove_nothing() -> None:
    network = Network([Dense([[1e200], [-1e200]]), Dense([[1e200, 1e200], [0.0, 1.0]])])
    ball = LinfBall([0.0], 1.0)
    found = box_leaf_bounds(model_of(network, ball), np.array([-1.0, 0.0]), *ends(cubes(ball, 1)))
    assert np.all(found == -np.inf)
