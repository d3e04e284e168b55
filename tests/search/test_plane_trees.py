"""Trees with planes prove nothing false and what is true of tiny networks, cover the region, and end when told to."""

from __future__ import annotations

import time
from itertools import product

import numpy as np
import pytest
from oracle import least
from pieces import small_problem

from toolkit.certificates.coverage import covered
from toolkit.certificates.leaves import forest_bounds
from toolkit.certificates.rounding import error_model_of
from toolkit.problems.problem import Problem
from toolkit.search import plane_trees
from toolkit.search.array_makers import ArrayMaker, in_float32, in_torch
from toolkit.search.phase_trees import Grown, PhaseTrees
from toolkit.search.plane_trees import PlaneTrees

MANY = 100_000
NEVER = np.zeros(3, dtype=np.bool_)


def _grown(
    problem: Problem, cutoff: np.ndarray, budget: int = MANY, deadline: float = np.inf, make: ArrayMaker | None = None
) -> Grown:
    trees = PlaneTrees(problem, np.asarray(cutoff, dtype=float), budget, deadline, True, make)
    return trees.grow(np.arange(3), lambda: NEVER)


def _truth(problem: Problem) -> np.ndarray:
    return np.array([float(value) for value, _ in least(problem.network, problem.input_set, problem.rows.tolist())])


def _check_leaves(problem: Problem, grown: Grown) -> None:
    """They cover the region, and prove again what was said, up to the order of sums in other batches."""
    assert grown.leaves is not None
    assert np.all(covered(grown.leaves.tree, grown.leaves.phases, 3))
    again = forest_bounds(error_model_of(problem), problem.rows, grown.leaves)
    np.testing.assert_allclose(again, grown.lower, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("seed", "sizes"), [*product(range(4), ((3, 7, 2), (3, 4, 3, 2)))])
def test_rows_above_their_cutoff_are_proven_and_those_below_are_not(
    seed: int, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where every few nodes begin trees of their own."""
    problem = small_problem(seed, sizes)
    truth = _truth(problem)
    for nodes, roots in ((254, 16), (2, 2)):
        monkeypatch.setattr(plane_trees, "SMALL_LAYER_NODES", nodes)
        monkeypatch.setattr(plane_trees, "ROOTS", roots)
        for gap in (0.02, 0.3):
            grown = _grown(problem, truth - gap)
            assert np.all((grown.lower >= truth - gap) & (grown.lower <= truth + 1e-9))
            assert np.all(grown.finished)
            _check_leaves(problem, grown)
        grown = _grown(problem, truth + 0.02, 60)
        assert np.all(grown.lower <= truth + 1e-9)
        _check_leaves(problem, grown)


def test_wide_layers_take_fewer_nodes_than_without_planes() -> None:
    problem = small_problem(0, (12, 40, 2), eps=0.3)
    cutoff = problem.replay(problem.input_set.sample(5000)).min(axis=0) - 0.5
    plain = PhaseTrees(problem, cutoff, np.full(3, 2000)).grow()
    grown = _grown(problem, cutoff, 2000)
    assert grown.nodes.sum() < plain.nodes.sum()
    assert np.all(grown.lower >= np.minimum(plain.lower, cutoff))


def test_trees_on_tensors_prove_the_same_rows() -> None:
    pytest.importorskip("torch")
    for seed in range(2):
        problem = small_problem(seed, (3, 5, 4, 2))
        cutoff = problem.replay(problem.input_set.sample(3000)).min(axis=0) + np.array([-0.2, -0.5, 0.1])
        usual, moved = (_grown(problem, cutoff, 300, make=make) for make in (in_float32, in_torch("cpu")))
        np.testing.assert_array_equal(moved.lower >= cutoff, usual.lower >= cutoff)
        _check_leaves(problem, moved)


def test_a_deadline_that_is_over_leaves_roots_that_are_certified() -> None:
    problem = small_problem(1, (4, 8, 6, 2))
    grown = _grown(problem, np.full(3, 1e3), deadline=time.perf_counter() - 1.0)
    np.testing.assert_array_equal(grown.nodes, 0)
    assert not grown.finished.any()
    assert np.all(np.isfinite(grown.lower))
    _check_leaves(problem, grown)


def test_rows_that_are_given_up_or_spend_their_nodes_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane_trees, "SMALL_LAYER_NODES", 6)
    problem = small_problem(1, (4, 8, 6, 2))
    trees = PlaneTrees(problem, np.full(3, 1e3), 40, keep=True)
    grown = trees.grow(np.arange(3), lambda: np.array([False, True, False]))
    assert grown.nodes[1] == 0
    assert np.all(grown.nodes[[0, 2]] >= 40)
    assert np.all(grown.nodes <= 40 + 3 * 256)
    assert not grown.finished.any()
    _check_leaves(problem, grown)


def test_rows_that_are_not_asked_for_and_other_sets_stay_open() -> None:
    problem = small_problem(0, (3, 7, 2))
    some = PlaneTrees(problem, _truth(problem) - 0.3, MANY).grow(np.array([1]), lambda: NEVER)
    np.testing.assert_array_equal(some.finished, [False, True, False])
    np.testing.assert_array_equal(some.lower > -np.inf, [False, True, False])
    ball = small_problem(0, (3, 7, 2), kind="l2")
    none = PlaneTrees(ball, np.full(3, -1e3), MANY).grow(np.arange(3), lambda: NEVER)
    assert np.all(none.lower == -np.inf)
    assert not none.finished.any()
