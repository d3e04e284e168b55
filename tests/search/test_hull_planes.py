"""Planes are above their ReLU on the whole box, whatever their shares; chords among them; trees keep theirs apart."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import random_conv_network
from pieces import small_problem

from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.relaxations.relu import chord
from toolkit.search.array_makers import in_float64
from toolkit.search.hull_planes import FirstLayer, NodePlanes, takes_planes
from toolkit.verify.layer_bounds import layer_bounds


def _layer(seed: int, kind: str = "linf") -> tuple[Problem, FirstLayer, np.ndarray]:
    """A problem, its first layer, and w, b, l, u of the unstable neurons there, as columns of one array each."""
    problem = small_problem(seed, (4, 9, 3), kind=kind)
    low, high = problem.relu_bounds.lower[0], problem.relu_bounds.upper[0]
    unstable = np.flatnonzero((low < 0) & (high > 0))
    first = problem.network.layers[0]
    weight = first.to_sparse().toarray()[unstable]
    layer = FirstLayer.of(problem, in_float64)
    assert layer is not None
    np.testing.assert_array_equal(layer.weight, weight)
    return problem, layer, np.column_stack([weight, first.bias_vector[unstable], low[unstable], high[unstable]])


def _points(problem: Problem, seed: int) -> np.ndarray:
    return np.vstack([problem.input_set.sample(500, seed), problem.input_set.corners(100, seed)])


@pytest.mark.parametrize(("seed", "kind"), [(0, "linf"), (1, "linf"), (2, "box")])
def test_no_point_of_the_box_is_above_a_plane(seed: int, kind: str) -> None:
    problem, layer, neurons = _layer(seed, kind)
    rng, points = np.random.default_rng(seed), _points(problem, seed)
    y = np.maximum(points @ neurons[:, :4].T + neurons[:, 4], 0.0)
    for shares in (rng.uniform(0, 1, layer.weight.shape), rng.integers(0, 2, layer.weight.shape).astype(float)):
        plane = layer.plane(shares)
        assert np.all(points @ plane.slopes.T + plane.offset.T >= y - 1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_equal_shares_are_the_chord(seed: int) -> None:
    problem, layer, neurons = _layer(seed)
    plane, points = layer.plane(layer.chords()), _points(problem, seed)
    slope = chord(neurons[:, 5], neurons[:, 6])
    x_hat = points @ neurons[:, :4].T + neurons[:, 4]
    np.testing.assert_allclose(points @ plane.slopes.T + plane.offset.T, slope * (x_hat - neurons[:, 5]), atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_a_step_towards_a_point_lowers_the_planes_there(seed: int) -> None:
    """Shares stay in [0, 1], and no plane at a chord rises at the point."""
    _, layer, _ = _layer(seed)
    rng, shares = np.random.default_rng(seed), layer.chords()
    toward = np.sign(rng.normal(size=(1, 4)))
    point = layer.center + layer.radius * toward.T
    before = layer.plane(shares)
    for _ in range(200):
        shares = layer.moved(shares, toward, np.ones((len(shares), 1)), 0.02)
        assert np.all((shares >= 0) & (shares <= 1))
    after = layer.plane(shares)
    gain = (before.slopes @ point + before.offset) - (after.slopes @ point + after.offset)
    assert np.all(gain >= -1e-3)
    truth = np.maximum(layer.weight @ point + layer.middle - layer.weight @ layer.center, 0.0)
    best = after.slopes @ point + after.offset - truth
    assert np.all(best <= 0.05 * layer.reach)  # at a corner of the box the hull is the ReLU itself


def test_columns_of_several_trees_take_each_their_own_planes() -> None:
    problem, layer, _ = _layer(0)
    rng, tree = np.random.default_rng(0), np.array([2, 0, 1, 0, 2])
    planes = [layer.plane(rng.uniform(0, 1, layer.weight.shape)) for _ in range(3)]
    points, weights = problem.input_set.sample(5, 0).T, rng.normal(size=(len(layer.weight), 5))
    nodes = NodePlanes(planes, tree)
    above, (slopes, constants) = nodes.above(points), nodes.back(weights)
    for b, t in enumerate(tree.tolist()):
        np.testing.assert_allclose(above[:, b], (planes[t].slopes @ points[:, [b]] + planes[t].offset)[:, 0])
    np.testing.assert_allclose((slopes * points).sum(axis=0) + constants, (weights * above).sum(axis=0))
    np.testing.assert_allclose(nodes.keep(np.array([3, 0])).above(points[:, [3, 0]]), above[:, [3, 0]])
    np.testing.assert_allclose(NodePlanes(planes, tree[[1, 3]]).above(points[:, [1, 3]]), above[:, [1, 3]])


def test_only_dense_first_layers_over_boxes_have_planes() -> None:
    assert takes_planes(small_problem(0, (4, 9, 3), kind="box"))
    assert not takes_planes(small_problem(0, (4, 9, 3), kind="l2"))
    assert not takes_planes(small_problem(0, (4, 9, 3), eps=1e-9))  # nothing is unstable
    rng = np.random.default_rng(0)
    network, ball = random_conv_network(rng), LinfBall(rng.normal(size=36), 0.1)
    assert not takes_planes(Problem.of(network, ball, np.eye(3)[:1], layer_bounds(network, ball)))


def test_a_layer_whose_numbers_overflow_has_none() -> None:
    network = Network([Dense(np.full((2, 3), 1e308)), Dense(np.eye(2))])
    bounds = ReluBounds((np.full(2, -1e308),), (np.full(2, 1e308),))
    assert FirstLayer.of(Problem.of(network, LinfBall(np.zeros(3), 1.0), np.eye(2), bounds), in_float64) is None
