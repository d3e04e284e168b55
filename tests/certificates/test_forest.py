"""Forests: the trees of many rows certified at once, each leaf as it is alone, each tree no higher than the truth."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import random_dense_network
from oracle import least

from toolkit.certificates.dual_bound import CHORD
from toolkit.certificates.leaves import CutStore, Evidence, Forest, forest_bounds, leaf_bounds
from toolkit.certificates.rounding import ErrorModel, error_model_of
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.verify.margins import margin_problem

ROWS = np.array([[1.0, -1.0], [-1.0, 1.0], [0.5, 2.0]])


def small(seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    return margin_problem(random_dense_network(rng, (2, 4, 3, 2)), LinfBall(rng.normal(size=2), 0.8), 0)


def random_forest(rng: np.random.Generator, neurons: int, trees: int, dtype: Any = np.float64) -> Forest:
    """Every tree splits one to three neurons in full; multipliers at random, or the chord's; leaves in any order."""
    tree, phases = [], []
    for t in range(trees):
        split = rng.permutation(neurons)[: rng.integers(1, 4)]
        for pattern in itertools.product((0, 1), repeat=split.size):
            phases.append(np.full(neurons, -1, dtype=np.int8))
            phases[-1][split] = pattern
            tree.append(t)
    order = rng.permutation(len(tree))
    multipliers = rng.normal(size=(len(tree), neurons))
    multipliers[rng.random(len(tree)) < 0.5] = CHORD
    return Forest(np.array(tree)[order], np.array(phases)[order], multipliers.astype(dtype), np.zeros(len(tree), bool))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(4))
def test_every_leaf_counts_as_alone_and_no_tree_is_above_the_truth(
    seed: int, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.certificates.leaves.FOREST_BATCH", 3)
    problem = small(seed)
    model = error_model_of(problem)
    forest = random_forest(np.random.default_rng(seed), model.count, len(ROWS), dtype)
    found = forest_bounds(model, ROWS, forest)
    np.testing.assert_array_equal(forest_bounds(model, sp.csr_array(ROWS), forest), found)
    truths = least(problem.network, problem.input_set, ROWS.tolist())
    for t, (bound, (truth, _)) in enumerate(zip(found.tolist(), truths, strict=True)):
        assert Fraction(bound) <= truth
        own = [i for i in range(forest.tree.size) if forest.tree[i] == t]
        nothing = np.zeros(0, dtype=np.int64), np.zeros(0)
        leaves = [(forest.phases[i], Evidence(forest.multipliers[i].astype(float), *nothing)) for i in own]
        assert bound == pytest.approx(leaf_bounds(model, ROWS[t], CutStore(), leaves).min(), abs=1e-9)


def two_sided() -> ErrorModel:
    """x̂₁ = x − 1/2, x̂₂ = −x − 1/2 on [−1, 1]: never active together."""
    hidden = Dense(np.array([[1.0], [-1.0]]), np.array([-0.5, -0.5]))
    return error_model_of(margin_problem(Network([hidden, Dense(np.eye(2))]), LinfBall([0.0], 1.0), 0))


def leaves_of(*leaves: tuple[tuple[int, int], float, bool], tree: Any = None) -> Forest:
    return Forest(
        np.zeros(len(leaves), dtype=np.int64) if tree is None else np.array(tree),
        np.array([phases for phases, _, _ in leaves], dtype=np.int8),
        np.array([[value, value] for _, value, _ in leaves]),
        np.array([empty for _, _, empty in leaves], dtype=np.bool_),
    )


def test_empty_leaves_count_by_their_proof() -> None:
    """(1, 1) is empty with λ = −1: 0·F ≥ −x̂₁ − x̂₂ = 1 there; the other leaves bound F₀ − F₁ on their parts."""
    model, row = two_sided(), np.array([[1.0, -1.0]])
    rest = ((0, -1), CHORD, False), ((1, 0), CHORD, False)
    proven = forest_bounds(model, row, leaves_of(*rest, ((1, 1), -1.0, True)))
    assert proven == forest_bounds(model, row, leaves_of(*rest)) > -np.inf
    for phases, value in (((1, 1), 0.0), ((1, 1), 1.0), ((1, 0), -1.0), ((1, 1), CHORD)):
        assert forest_bounds(model, row, leaves_of(*rest, (phases, value, True))) == -np.inf
    assert forest_bounds(model, row, leaves_of(((1, 1), -1.0, True))) == -np.inf  # no region is empty


def test_a_tree_without_leaves_proves_nothing() -> None:
    model = two_sided()
    found = forest_bounds(model, np.eye(2), leaves_of(((-1, -1), CHORD, False), tree=[1]))
    assert found[0] == -np.inf < found[1]
    assert np.all(forest_bounds(model, np.eye(2), Forest.none(2)) == -np.inf)
    assert Forest.joined([leaves_of(((0, 1), 0.0, False))] * 2).tree.size == 2


SOUND = leaves_of(((0, -1), CHORD, False), ((1, -1), CHORD, False))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Forest(SOUND.tree[:1], SOUND.phases, SOUND.multipliers, SOUND.empty),
        lambda: Forest(SOUND.tree.astype(float), SOUND.phases, SOUND.multipliers, SOUND.empty),
        lambda: Forest(SOUND.tree, SOUND.phases[:, :1], SOUND.multipliers, SOUND.empty),
        lambda: Forest(SOUND.tree, SOUND.phases + np.int8(1), SOUND.multipliers, SOUND.empty),
        lambda: Forest(SOUND.tree, SOUND.phases - np.int8(1), SOUND.multipliers, SOUND.empty),
        lambda: Forest(SOUND.tree, SOUND.phases.ravel(), SOUND.multipliers, SOUND.empty),
        lambda: Forest(SOUND.tree, SOUND.phases, SOUND.multipliers, SOUND.empty.astype(int)),
        lambda: forest_bounds(two_sided(), np.eye(2), leaves_of(((0, 1), 0.0, False), tree=[2])),
        lambda: forest_bounds(two_sided(), np.eye(2), leaves_of(((0, 1), 0.0, False), tree=[-1])),
        lambda: forest_bounds(two_sided(), np.eye(2), Forest.none(3)),
    ],
)
def test_parts_that_do_not_fit_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"must|shape|unstable"):
        make()


def test_numbers_that_are_none_prove_nothing() -> None:
    for value in (np.inf, -np.inf, 1e308):
        assert forest_bounds(two_sided(), np.eye(2), leaves_of(((-1, -1), value, False)))[0] == -np.inf
