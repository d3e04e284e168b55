"""Trees prove nothing false, prove what is true of tiny networks, cover the region, and end when they are told to."""

from __future__ import annotations

import time
from itertools import product

import numpy as np
import pytest
from conftest import random_conv_network
from oracle import least
from pieces import SETS, scaled_network, small_problem

from toolkit.certificates.coverage import covered
from toolkit.certificates.leaves import Forest, forest_bounds, forest_leaf_bounds
from toolkit.certificates.rounding import error_model_of
from toolkit.networks.kernel_operators import KernelOperator
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.search import phase_trees
from toolkit.search.array_makers import ArrayMaker, in_float32, in_float64, in_torch
from toolkit.search.phase_trees import Grown, PhaseTrees
from toolkit.verify.layer_bounds import layer_bounds

MANY = 100_000


def _grown(
    problem: Problem,
    cutoff: np.ndarray | float,
    budget: int = MANY,
    make: ArrayMaker | None = None,
    keep: bool = True,
) -> Grown:
    count = problem.rows.shape[0]
    trees = PhaseTrees(
        problem, np.broadcast_to(cutoff, count).astype(float), np.full(count, budget), np.inf, keep, make
    )
    return trees.grow()


def _truth(problem: Problem) -> np.ndarray:
    return np.array([float(value) for value, _ in least(problem.network, problem.input_set, problem.rows.tolist())])


def _check_leaves(problem: Problem, grown: Grown) -> None:
    """They cover the region, and prove again what was said, up to the order of sums in other batches."""
    assert grown.leaves is not None
    count = problem.rows.shape[0]
    assert np.all(covered(grown.leaves.tree, grown.leaves.phases, count))
    again = forest_bounds(error_model_of(problem), problem.rows, grown.leaves)
    np.testing.assert_allclose(again, grown.lower, rtol=1e-12, atol=1e-12)
    leaves = np.bincount(grown.leaves.tree, minlength=count)
    np.testing.assert_array_equal(grown.nodes, 2 * (leaves - 1))


@pytest.mark.parametrize(("seed", "graph"), [*product(range(6), (False, True))])
def test_a_row_above_its_cutoff_is_proven_and_one_below_is_not(seed: int, graph: bool) -> None:
    problem = small_problem(seed, (3, 4, 3, 2), graph=graph)
    truth = _truth(problem)
    for gap in (0.02, 0.3):
        grown = _grown(problem, truth - gap)
        assert np.all(grown.lower <= truth + 1e-9)
        assert np.all(grown.lower >= truth - gap)
        assert np.all(grown.finished)
        leaves = grown.leaves
        assert leaves is not None
        own = forest_leaf_bounds(error_model_of(problem), problem.rows, leaves)
        assert np.all(own >= (truth - gap)[leaves.tree] - 1e-12)
        _check_leaves(problem, grown)
    grown = _grown(problem, truth + 0.02, 400)
    assert np.all(grown.lower <= truth + 1e-9)
    _check_leaves(problem, grown)


@pytest.mark.parametrize(("seed", "kind"), [*product(range(3), SETS)])
def test_no_sampled_point_is_below_what_is_proven(seed: int, kind: str) -> None:
    problem = small_problem(seed, (4, 8, 6, 2), kind=kind)
    sampled = problem.replay(np.vstack([problem.input_set.sample(2000, seed), problem.input_set.corners(50)]))
    grown = _grown(problem, sampled.min(axis=0) - 0.05, 400)
    assert np.all(grown.lower <= sampled.min(axis=0) + 1e-9)
    _check_leaves(problem, grown)


@pytest.mark.parametrize("seed", range(4))
def test_more_nodes_prove_no_less_and_no_tree_takes_many_more_than_its_budget(seed: int) -> None:
    problem = small_problem(seed, (4, 8, 6, 2))
    cutoff = problem.replay(problem.input_set.sample(2000)).min(axis=0)
    before = np.full(3, -np.inf)
    for budget in (0, 8, 64, 512):
        grown = _grown(problem, cutoff, budget)
        assert np.all(grown.lower >= before - 1e-6)
        assert np.all(grown.nodes <= budget + 2 * phase_trees.WIDTH)
        if not budget:
            np.testing.assert_array_equal(grown.nodes, 0)
        before = grown.lower


def test_a_deadline_that_is_over_leaves_roots_that_are_certified() -> None:
    problem = small_problem(1, (4, 8, 6, 2))
    trees = PhaseTrees(problem, np.full(3, 1e3), np.full(3, MANY), time.perf_counter() - 1.0, keep=True)
    grown = trees.grow()
    np.testing.assert_array_equal(grown.nodes, 0)
    assert not grown.finished.any()
    assert np.all(np.isfinite(grown.lower))
    _check_leaves(problem, grown)


def test_trees_that_are_given_up_grow_no_further() -> None:
    problem = small_problem(1, (4, 8, 6, 2))
    rounds = 0

    def stopped(trees: PhaseTrees) -> np.ndarray:
        nonlocal rounds
        rounds += 1
        least = trees.closed.copy()
        np.minimum.at(least, trees.pool.tree, trees.pool.bound)
        assert np.all(least < trees.cutoff)
        return np.array([rounds >= 1, rounds >= 3, rounds >= 3])

    trees = PhaseTrees(problem, np.full(3, 1e3), np.full(3, MANY), keep=True)
    grown = trees.grow(stopped)
    assert grown.nodes[0] == 0
    assert np.all(grown.nodes[1:] > 0)
    assert rounds == 3
    _check_leaves(problem, grown)


def test_points_that_are_offered_are_in_the_set() -> None:
    problem = small_problem(2, (4, 8, 6, 2))
    offered = []

    def offer(tree: np.ndarray, points: np.ndarray) -> None:
        assert tree.shape == points.shape[:1]
        offered.append(points)

    PhaseTrees(problem, np.full(3, 1e3), np.full(3, 20)).grow(None, offer)
    box = problem.input_set
    assert np.all(np.abs(np.vstack(offered) - box.center) <= box.eps * (1 + 1e-5) + 1e-6)


@pytest.mark.parametrize("changed", [{"POOL_BYTES": 1}, {"WIDTH": 1}, {"WIDTH": 2}, {"BATCH_ENTRIES": 1}, {"TRIES": 1}])
def test_the_order_of_splits_changes_nothing_that_is_proven(
    changed: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best nodes first when memory is full, one node a round, one column a batch."""
    for name, value in changed.items():
        monkeypatch.setattr(phase_trees, name, value)
    problem = small_problem(4, (3, 4, 3, 2))
    truth = _truth(problem)
    grown = _grown(problem, truth - 0.1)
    assert np.all((grown.lower >= truth - 0.1) & (grown.lower <= truth + 1e-9))
    _check_leaves(problem, grown)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["linf", "l2"])
def test_trees_on_tensors_prove_the_same_rows(kind: str, dtype: str) -> None:
    pytest.importorskip("torch")
    for seed, graph in product(range(2), (False, True)):
        problem = small_problem(seed, (3, 4, 3, 2), kind=kind, graph=graph)
        cutoff = problem.replay(problem.input_set.sample(3000)).min(axis=0) + np.array([-0.2, -0.5, 0.1])
        usual = _grown(problem, cutoff, 300, in_float32 if dtype == "float32" else in_float64)
        moved = _grown(problem, cutoff, 300, in_torch("cpu", dtype))  # type: ignore[arg-type]
        np.testing.assert_array_equal(moved.lower >= cutoff, usual.lower >= cutoff)
        np.testing.assert_allclose(moved.lower[2], usual.lower[2], atol=0.05)
        _check_leaves(problem, moved)


@pytest.mark.parametrize("entries", [0, 1 << 20], ids=["operators", "matrices"])
def test_convolutions_on_tensors(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As sparse tensors, and without a matrix as operators on the host."""
    pytest.importorskip("torch")
    monkeypatch.setattr("toolkit.networks.convolutions.MATRIX_ENTRIES", entries)
    rng = np.random.default_rng(0)
    network, ball = random_conv_network(rng), LinfBall(rng.normal(size=36), 0.1)
    problem = Problem.of(network, ball, np.array([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]]), layer_bounds(network, ball))
    assert isinstance(network.layers[0].operand(), KernelOperator) == (not entries)
    usual, moved = (_grown(problem, 1e3, 60, make) for make in (in_float64, in_torch("cpu", "float64")))
    np.testing.assert_allclose(moved.lower, usual.lower, rtol=0.02, atol=0.02)
    assert np.all(moved.lower <= problem.replay(ball.sample(1000)).min(axis=0) + 1e-9)
    _check_leaves(problem, moved)


@pytest.mark.parametrize("factor", [1e-100, 1e-30, 1e30, 1e100])
def test_networks_of_odd_scale_are_decided_like_the_plain_one(factor: float) -> None:
    """Every row is scaled with the last map: what is proven is, too; but leaves to be kept hold λ in float32."""
    plain = small_problem(3, (3, 4, 3, 2))
    truth = factor * _truth(plain)
    network = scaled_network(Network([*plain.network.layers[:-1], plain.network.layers[-1]]), (1.0, 1.0, factor))
    problem = Problem.of(network, plain.input_set, plain.rows, plain.relu_bounds)
    size = factor * (1 + np.abs(_truth(plain)))
    for keep in (False, True):
        grown = _grown(problem, truth - 0.3 * size, 2000, keep=keep)
        assert np.all(grown.lower <= truth + 1e-9 * size)
        if factor >= 1 and not (keep and factor > 1e38):
            assert np.all(grown.lower >= truth - 0.3 * size)


ODD = [0.0, 1e-320, 1e-200, 1e-40, 1e40, 1e150, 1e300]


@pytest.mark.parametrize("factors", [*product(ODD, (1.0,), (1.0,)), *((1.0, one, one) for one in ODD)])
def test_whatever_the_scale_nothing_false_is_proven(factors: tuple[float, ...]) -> None:
    """Bounds may be −inf, but are never above a replayed point, and nothing is raised or warned of."""
    plain = small_problem(5, (2, 3, 3, 2))
    with np.errstate(over="ignore"):
        network = scaled_network(plain.network, factors)
    problem = Problem.of(network, plain.input_set, plain.rows, layer_bounds(network, plain.input_set))
    grown = _grown(problem, 0.0, 20)
    outcomes = np.nan_to_num(problem.replay(problem.input_set.sample(200)), nan=np.inf).min(axis=0)
    assert not np.isnan(grown.lower).any()
    assert np.all(grown.lower <= outcomes + 1e-9 * (1 + np.abs(outcomes)))


@pytest.mark.parametrize("size", [np.inf, 1e300, 1e-310])
def test_layer_bounds_that_say_little_prove_little(size: float) -> None:
    """l,u that are infinite or huge hold, those that are tiny do not; none of them breaks the search."""
    plain = small_problem(5, (2, 3, 3, 2))
    wide = tuple(np.full(n, size) for n in plain.network.relu_sizes)
    problem = Problem.of(plain.network, plain.input_set, plain.rows, ReluBounds(tuple(-one for one in wide), wide))
    grown = _grown(problem, 0.0, 200)
    assert not np.isnan(grown.lower).any()
    if size > 1:
        assert np.all(grown.lower <= _truth(plain) + 1e-9)
    one_side = tuple(np.where(np.arange(n) % 2, size, 5.0) for n in plain.network.relu_sizes)
    problem = Problem.of(plain.network, plain.input_set, plain.rows, ReluBounds(tuple(-u for u in one_side), wide))
    assert not np.isnan(_grown(problem, 0.0, 50).lower).any()


def test_rows_of_zeros_and_no_rows() -> None:
    problem = small_problem(0).with_rows(np.zeros((2, 2)))
    grown = _grown(problem, -1e-6)
    assert np.all((grown.lower <= 0) & (grown.lower >= -1e-6))
    none = _grown(problem.with_rows(np.zeros((0, 2))), 0.0)
    assert none.lower.shape == none.nodes.shape == (0,)


def test_without_an_unstable_neuron_the_root_decides() -> None:
    problem = small_problem(0, eps=0.0)
    assert problem.relu_bounds.counts()
    grown = _grown(problem, 1e3)
    np.testing.assert_allclose(grown.lower, problem.clean_values(), atol=1e-9)
    np.testing.assert_array_equal(grown.nodes, 0)
    assert np.all(grown.finished)


def test_a_neuron_per_layer() -> None:
    network = Network([Dense([[1.0]], [0.0]), Dense([[-1.0]], [0.5]), Dense([[1.0], [0.0]], [0.25, 0.0])])
    ball = LinfBall([0.0], eps=1.0)
    problem = Problem.of(network, ball, np.array([[1.0, -1.0]]), layer_bounds(network, ball))
    grown = _grown(problem, 0.2499)  # the minimum is 0.25, where x ≥ 0.5
    assert 0.2499 <= grown.lower[0] <= 0.25
    _check_leaves(problem, grown)


class _Clock:
    """A clock that certifying a leaf and splitting a node move on."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize("seed", range(3))
def test_open_nodes_are_certified_before_the_deadline(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leaf takes a second, a call five besides, the first fifty, a round ten: the search ends while there is time to
    certify what is open, and not long before."""
    clock, deadline, calls = _Clock(), 1000.0, []
    monkeypatch.setattr(phase_trees, "time", clock)
    monkeypatch.setattr(phase_trees, "WIDTH", 4)
    certify, split = phase_trees.forest_leaf_bounds, PhaseTrees._split

    def certified(model: object, rows: object, leaves: Forest) -> np.ndarray:
        clock.now += leaves.tree.size + (5 if calls else 50)
        calls.append(leaves.tree.size)
        return certify(model, rows, leaves)

    def splits(self: PhaseTrees, chosen: np.ndarray, offer: object) -> None:
        clock.now += 10.0
        split(self, chosen, offer)

    monkeypatch.setattr(phase_trees, "forest_leaf_bounds", certified)
    monkeypatch.setattr(PhaseTrees, "_split", splits)
    problem = small_problem(seed, (4, 12, 12, 2), 1.5)
    cutoff = np.full(problem.rows.shape[0], 1e9)
    PhaseTrees(problem, cutoff, np.full(cutoff.size, MANY), deadline).grow()
    assert 0.8 * deadline < clock.now <= deadline
