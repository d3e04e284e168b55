"""Refined l,u hold every value that a neuron takes, in rational arithmetic, and are never looser than the chain's."""

from __future__ import annotations

import time
from itertools import product

import numpy as np
import pytest
from conftest import random_dense_network
from graphs import random_network
from oracle import neuron_ranges as true_ranges

from toolkit.certificates.coverage import covered
from toolkit.certificates.leaves import SideTrees
from toolkit.certificates.rounding import error_model_of
from toolkit.networks.network import Network
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.properties import Objective
from toolkit.problems.region import Region
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rung
from toolkit.search import phase_trees
from toolkit.search.phase_trees import PhaseTrees
from toolkit.search.refinement import neuron_ranges, refine, refined_region
from toolkit.verify.layer_bounds import layer_bounds

CHAIN = ("interval", "dual", "crown")


def _network(seed: int, graph: bool) -> tuple[Network, LinfBall]:
    rng = np.random.default_rng(seed)
    network = random_network(rng, 3, 2) if graph else random_dense_network(rng, (2, 4, 4, 3, 2))
    return network, LinfBall(rng.normal(size=2), 0.6)


def _cut(network: Network, ball: LinfBall, k: int, settings: Settings | None = None) -> Problem:
    """The question of layer k: no rows yet, on l,u of the layers before."""
    head = network.cut(k)
    region = Region(head, ball, layer_bounds(head, ball, CHAIN))
    empty = Objective(np.zeros((0, head.output_size)))
    return Problem(region, empty, Settings() if settings is None else settings)


def _true(network: Network, ball: LinfBall, k: int) -> tuple[np.ndarray, np.ndarray]:
    low, high = zip(*true_ranges(network, ball)[k], strict=True)
    return np.array(low, dtype=float), np.array(high, dtype=float)


@pytest.mark.parametrize(("seed", "graph"), [*product(range(6), (False, True))])
def test_refined_sides_hold_all_values_and_decide_what_is_stable(seed: int, graph: bool) -> None:
    network, ball = _network(seed, graph)
    for k in (1, 2):
        problem, (low, high) = _cut(network, ball, k), _true(network, ball, k)
        every = np.arange(problem.network.output_size)
        found = refine(problem, every, 2000)
        assert np.all(found.lower <= low + 1e-9)
        assert np.all(found.upper >= high - 1e-9)
        np.testing.assert_array_equal(found.lower[low > 0.01] >= 0, True)
        np.testing.assert_array_equal(found.upper[high < -0.01] <= 0, True)
        order = every[::-1]
        mixed = refine(problem, order, 2000)
        assert np.all(mixed.lower <= low[order] + 1e-9)
        assert np.all(mixed.upper >= high[order] - 1e-9)


def test_the_trees_that_are_kept_prove_the_sides() -> None:
    network, ball = _network(1, False)
    problem, neurons = _cut(network, ball, 2), np.array([2, 0])
    found = refine(problem, neurons, 50, keep=True)
    assert found.leaves is not None
    assert np.all(covered(found.leaves.tree, found.leaves.phases, 4))
    sides = SideTrees(np.tile(neurons, 2), np.array([-1, -1, 1, 1], dtype=np.int8), found.leaves)
    free = np.full(problem.network.output_size, np.inf)
    low, high, _ = sides.ranges(error_model_of(problem), -free, free)
    np.testing.assert_allclose(low[neurons], found.lower, rtol=1e-12)
    np.testing.assert_allclose(high[neurons], found.upper, rtol=1e-12)


@pytest.mark.parametrize(("seed", "graph"), [*product(range(4), (False, True))])
def test_trees_in_a_chain_never_loosen_it(seed: int, graph: bool) -> None:
    network, ball = _network(seed, graph)
    plain, refined = (layer_bounds(network, ball, chain) for chain in (CHAIN, (*CHAIN, "bab")))
    assert refined.certified
    assert refined.chain == (*CHAIN, "bab")
    truth = true_ranges(network, ball)
    for k, ranges in enumerate(truth):
        for i, (low, high) in enumerate(ranges):
            lower, upper = refined.lower[k][i], refined.upper[k][i]
            assert lower <= low
            assert upper >= high
            if plain.lower[k][i] < 0 < plain.upper[k][i]:  # once it is stable a side may be left as it was
                assert lower >= plain.lower[k][i] - 1e-9 or upper <= 0
                assert upper <= plain.upper[k][i] + 1e-9 or lower >= 0
            else:
                assert lower >= 0 or upper <= 0
    assert all(a[0] <= b[0] for a, b in zip(refined.counts(), plain.counts(), strict=True))


def test_more_nodes_prove_no_less() -> None:
    rng = np.random.default_rng(7)
    network, ball = random_dense_network(rng, (5, 12, 10, 8, 2)), LinfBall(rng.normal(size=5), 0.4)
    problem, widths = _cut(network, ball, 2), []
    every = np.arange(8)
    for nodes in (1, 16, 256):
        low, high = neuron_ranges(_cut(network, ball, 2, Settings(nodes=nodes)), every)
        found = refine(problem, every, nodes)
        np.testing.assert_array_equal(low, found.lower)
        np.testing.assert_array_equal(high, found.upper)
        np.testing.assert_array_equal(
            get_rung("bab").neuron_ranges(_cut(network, ball, 2, Settings(nodes=nodes)), every)[0], low
        )
        widths.append(np.sum(high - low))
    assert widths[2] < widths[1] < widths[0]


def test_time_that_is_over_leaves_what_roots_prove() -> None:
    network, ball = _network(2, False)
    problem, (low, high) = _cut(network, ball, 2), _true(network, ball, 2)
    every = np.arange(3)
    found = refine(problem, every, deadline=time.perf_counter() - 1.0)
    assert np.all(np.isfinite(found.lower) & np.isfinite(found.upper))
    for lower, upper in (
        (found.lower, found.upper),
        neuron_ranges(_cut(network, ball, 2, Settings(time_limit=1e-9)), every),
    ):
        assert np.all(lower <= low + 1e-9)
        assert np.all(upper >= high - 1e-9)


def test_trees_whose_batch_there_is_no_time_for_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phase_trees, "BATCH_ENTRIES", 1)  # every root is a batch
    network, ball = _network(2, False)
    problem, (_, high) = _cut(network, ball, 2), _true(network, ball, 2)
    over = time.perf_counter() - 1.0
    found = refine(problem, np.arange(3), deadline=over)
    assert np.all(found.lower == -np.inf)
    assert found.upper[0] >= high[0] - 1e-9
    np.testing.assert_array_equal(np.isfinite(found.upper), [True, False, False])
    trees = PhaseTrees(problem.with_rows(np.eye(3)), np.full(3, -1e9), np.full(3, 10), over)
    grown = trees.grow()
    np.testing.assert_array_equal(grown.finished, [True, False, False])  # the first is above its cutoff
    np.testing.assert_array_equal(trees.won, grown.finished)
    np.testing.assert_array_equal(np.isfinite(trees.bounds()), grown.finished)


def test_no_neuron_and_the_first_layer() -> None:
    network, ball = _network(0, False)
    none = refine(_cut(network, ball, 1), np.zeros(0, dtype=np.int64))
    assert none.lower.shape == none.upper.shape == (0,)
    first, (low, high) = refine(_cut(network, ball, 0), np.arange(4)), _true(network, ball, 0)
    np.testing.assert_allclose(first.lower, low, atol=1e-9)  # no ReLU before it: the root is exact
    np.testing.assert_allclose(first.upper, high, atol=1e-9)


@pytest.mark.parametrize(("seed", "graph"), [*product(range(4), (False, True))])
def test_a_question_on_refined_bounds_holds_all_values_and_loosens_none(seed: int, graph: bool) -> None:
    network, ball = _network(seed, graph)
    rows = np.eye(network.output_size)
    given = layer_bounds(network, ball)
    asked = Problem(Region(network, ball, given), Objective(rows))
    found = refined_region(asked, 1)
    assert found.relu_bounds.certified
    tighter = 0
    for k in range(len(given)):
        low, high = _true(network, ball, k)
        own = found.relu_bounds
        assert np.all(own.lower[k] <= low + 1e-9)
        assert np.all(own.upper[k] >= high - 1e-9)
        assert np.all(own.lower[k] >= given.lower[k])
        assert np.all(own.upper[k] <= given.upper[k])
        tighter += int(np.sum(own.lower[k] > given.lower[k]))
    assert tighter or seed or graph


def test_a_question_on_refined_bounds_keeps_what_it_was_told_of_its_bounds() -> None:
    """By hand they stay by hand; where they cross what is proven, they are believed."""
    network, ball = _network(0, False)
    chain = layer_bounds(network, ball, CHAIN)
    wrong = tuple(np.where(low < 0, low, 0.0) for low in chain.lower)
    upper = tuple(np.maximum(high, low) for high, low in zip(chain.upper, wrong, strict=True))
    by_hand = ReluBounds(wrong, upper)
    objective = Objective(np.eye(network.output_size))
    found = refined_region(Problem(Region(network, ball, by_hand), objective), 1)
    assert not found.relu_bounds.certified
    assert all(np.all(low <= high) for low, high in zip(found.relu_bounds.lower, found.relu_bounds.upper, strict=True))


def test_refining_shares_the_regions_of_shorter_networks_and_gives_back_what_it_cannot_better() -> None:
    rng = np.random.default_rng(4)
    network = random_dense_network(rng, (3, 8, 8, 8, 8, 2))
    ball = LinfBall(rng.normal(size=3), 0.3)
    asked = Problem(Region(network, ball, layer_bounds(network, ball)), Objective(np.eye(2)))
    region = refined_region(asked, 1)
    assert region is not asked.region
    chain = 0
    while region.shorter is not None:
        assert region.extends(region.shorter)
        region, chain = region.shorter, chain + 1
    assert chain == 3
    late = refined_region(asked, 1, time.perf_counter() - 1)
    assert late is asked.region
    flat = random_dense_network(rng, (3, 8, 2))
    one = Problem(Region(flat, ball, layer_bounds(flat, ball)), Objective(np.eye(2)))
    assert refined_region(one, 1) is one.region


def test_values_asked_again_find_their_refined_region_and_their_cuts() -> None:
    network, ball = _network(3, False)
    problem = Problem(Region(network, ball, layer_bounds(network, ball)), Objective(np.eye(network.output_size)))
    first, again = get_rung("bab")(problem), get_rung("bab")(problem)
    assert problem.workspace.holds(problem.region, "refined l,u")
    for one, other in zip(first, again, strict=True):
        assert one.lower == pytest.approx(other.lower, rel=2e-4, abs=1e-5)
    none = problem.with_rows(np.zeros((0, network.output_size)))
    assert get_rung("bab")(none) == []


def test_exact_values_do_not_depend_on_how_loose_the_given_bounds_are() -> None:
    network, ball = _network(3, False)
    rows = np.eye(network.output_size)
    answers = []
    for chain in (("interval",), ("interval", "dual"), CHAIN):
        problem = Problem(Region(network, ball, layer_bounds(network, ball, chain)), Objective(rows))
        answers.append([(bound.lower, bound.upper) for bound in get_rung("bab")(problem)])
    for lows, highs in zip(*np.array(answers[1:]).transpose(2, 0, 1), strict=True):
        np.testing.assert_allclose(lows, highs, atol=1e-3)
    for first, other in product(answers, repeat=2):
        for (low, _), (_, high) in zip(first, other, strict=True):
            assert low <= high
