"""What covers: leaves over phases against every pattern, and boxes of a tree against points and volumes."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from toolkit.certificates.coverage import BoxTree, covered

NEURONS = 5
PATTERNS = (np.arange(2**NEURONS)[:, None] >> np.arange(NEURONS)) & 1


def random_leaves(rng: np.random.Generator) -> np.ndarray:
    """The leaves of a random tree over a few neurons."""
    leaves = [np.full(NEURONS, -1, dtype=np.int8)]
    for _ in range(rng.integers(0, 9)):
        place = int(rng.integers(len(leaves)))
        free = np.flatnonzero(leaves[place] < 0)
        if free.size:
            leaf, neuron = leaves.pop(place), rng.choice(free)
            for phase in (0, 1):
                leaves.append(leaf.copy())
                leaves[-1][neuron] = phase
    return np.array(leaves)


def spoilt(rng: np.random.Generator, leaves: np.ndarray) -> np.ndarray:
    kind, place = rng.integers(4), rng.integers(len(leaves))
    if kind == 0:
        return np.delete(leaves, place, axis=0)
    if kind == 1:
        return np.concatenate([leaves, leaves[[place]]])
    changed = leaves.copy()
    changed[place, rng.integers(NEURONS)] = rng.integers(-1, 2)
    return changed if kind == 2 else np.delete(changed, rng.integers(len(leaves)), axis=0)


def covers_every_pattern(leaves: np.ndarray) -> bool:
    return bool(((leaves[None] < 0) | (leaves[None] == PATTERNS[:, None])).all(axis=2).any(axis=1).all())


def test_many_trees_at_once_are_each_told_from_their_leaves() -> None:
    """Leaves of 300 sound and spoilt trees, shuffled: what is said to cover does, and sound ones are said to."""
    rng = np.random.default_rng(0)
    trees, sound = [], []
    for _ in range(300):
        leaves = random_leaves(rng)
        sound.append(bool(rng.random() < 0.5))
        trees.append(leaves if sound[-1] else spoilt(rng, leaves))
    tree, phases = np.repeat(np.arange(300), [len(leaves) for leaves in trees]), np.concatenate(trees)
    order = rng.permutation(tree.size)
    found = covered(tree[order], phases[order], 300)
    for leaves, good, said in zip(trees, sound, found.tolist(), strict=True):
        assert said >= good
        assert said <= covers_every_pattern(leaves)
        alone = covered(np.zeros(len(leaves), dtype=np.int64), leaves, 1)
        assert alone.tolist() == [said]
    assert 50 < found.sum() < 250


def test_a_tree_without_leaves_covers_nothing() -> None:
    leaves = np.full((1, 3), -1, dtype=np.int8)
    assert covered(np.array([1]), leaves, 3).tolist() == [False, True, False]
    assert covered(np.zeros(0, dtype=np.int64), leaves[:0], 2).tolist() == [False, False]
    assert covered(np.zeros(0, dtype=np.int64), leaves[:0], 0).tolist() == []
    none = np.zeros((2, 0), dtype=np.int8)
    assert covered(np.array([0, 2]), none, 3).tolist() == [True, False, True]
    assert covered(np.array([0, 0]), none, 1).tolist() == [False]


def random_boxes(rng: np.random.Generator, size: int, nodes: int) -> tuple[BoxTree, np.ndarray, np.ndarray]:
    """A random tree with so many inner nodes over the box [0, 1]ⁿ, cuts anywhere in their boxes and at their ends."""
    axes: list[int] = []
    cuts: list[float] = []

    def grow(lower: np.ndarray, upper: np.ndarray, inner: int) -> None:
        if not inner:
            axes.append(-1)
            cuts.append(float(rng.normal()))
            return
        axis, share = int(rng.integers(size)), rng.choice([0.0, 1.0, rng.random()], p=[0.05, 0.05, 0.9])
        cut = min(max(lower[axis] + share * (upper[axis] - lower[axis]), lower[axis]), upper[axis])
        axes.append(axis)
        cuts.append(float(cut))
        first = int(rng.integers(inner))
        below, above = upper.copy(), lower.copy()
        below[axis] = above[axis] = cut
        grow(lower, below, first)
        grow(above, upper, inner - 1 - first)

    lower, upper = np.zeros(size), np.ones(size)
    grow(lower, upper, nodes)
    return BoxTree(np.array(axes), np.array(cuts)), lower, upper


@pytest.mark.parametrize("seed", range(6))
def test_boxes_part_the_root(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Volumes add up exactly, every point lies in some box, and none sticks out."""
    monkeypatch.setattr("toolkit.certificates.coverage.MOST_BOXES", 7)
    rng = np.random.default_rng(seed)
    tree, lower, upper = random_boxes(rng, 3, 40)
    low, high = tree.leaves(lower, upper)
    assert len(low) == tree.count == 41
    assert np.all((low >= lower) & (low <= high) & (high <= upper))
    volume = Fraction(0)
    for one, other in zip(low.tolist(), high.tolist(), strict=True):
        sides = [Fraction(b) - Fraction(a) for a, b in zip(one, other, strict=True)]
        volume += sides[0] * sides[1] * sides[2]
    assert volume == 1
    points = np.concatenate([rng.random((200, 3)), low, high])
    inside = ((points[:, None] >= low[None]) & (points[:, None] <= high[None])).all(axis=2)
    assert inside.any(axis=1).all()


def test_a_lone_leaf_is_the_root() -> None:
    tree = BoxTree(np.array([-1]), np.array([np.nan]))
    low, high = tree.leaves(np.zeros(2), np.ones(2))
    assert low.tolist() == [[0.0, 0.0]]
    assert high.tolist() == [[1.0, 1.0]]


def test_a_deep_tree_is_walked_without_recursion() -> None:
    """A cut at the lower end every time: 20,000 levels, and boxes that are one point wide."""
    depth = 20_000
    axis = np.concatenate([np.tile([0, -1], depth), [-1]])
    low, high = BoxTree(axis, np.zeros(axis.size)).leaves(np.zeros(1), np.ones(1))
    assert len(low) == depth + 1
    assert not high[:-1].any()
    assert high[-1] == 1.0


@pytest.mark.parametrize(
    ("axis", "cut", "reason"),
    [
        ([0], [0.5], "not finished"),
        ([0, -1], [0.5, 0.0], "not finished"),
        ([0, 1, -1, -1], [0.5, 0.5, 0.0, 0.0], "not finished"),
        ([-1, -1], [0.0, 0.0], "ends before node 1"),
        ([0, -1, -1, -1], [0.5, 0.0, 0.0, 0.0], "ends before node 3"),
        ([2, -1, -1], [0.5, 0.0, 0.0], "coordinate 2"),
        ([0, -1, -1], [1.5, 0.0, 0.0], "not within its box"),
        ([0, -1, -1], [-0.5, 0.0, 0.0], "not within its box"),
        ([0, -1, -1], [np.nan, 0.0, 0.0], "not within its box"),
        ([0, -1, -1], [np.inf, 0.0, 0.0], "not within its box"),
        ([0, 0, -1, -1, -1], [0.5, 0.6, 0.0, 0.0, 0.0], "not within its box"),
        ([0, -1, 0, -1, -1], [0.5, 0.0, 0.4, 0.0, 0.0], "not within its box"),
        ([0, 1, 0, -1, -1, -1, 0, -1, -1], [0.5, 0.5, 0.25, 0.0, 0.0, 0.0, 0.25, 0.0, 0.0], "node 6"),
    ],
)
def test_what_is_no_tree_over_the_box_is_refused(axis: list[int], cut: list[float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        BoxTree(np.array(axis), np.array(cut)).leaves(np.zeros(2), np.ones(2))


@pytest.mark.parametrize(
    ("axis", "cut"),
    [
        (np.zeros(0, dtype=np.int64), np.zeros(0)),
        (np.array([-1.0]), np.zeros(1)),
        (np.array([[-1]]), np.zeros((1, 1))),
        (np.array([-1]), np.zeros(2)),
        (np.array([-1]), np.array([0])),
    ],
)
def test_nodes_are_whole_numbers_and_cuts_floats(axis: Any, cut: Any) -> None:
    with pytest.raises(ValueError, match=r"axis|cut"):
        BoxTree(axis, cut)
