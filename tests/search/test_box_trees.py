"""Trees of cuts as arrays."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.certificates.coverage import BoxTree
from toolkit.search.box_trees import TreeRecord


@pytest.mark.parametrize(
    ("axis", "cut"),
    [([0, -1], [0.5, 0.0]), ([-1, -1], [0.0, 0.0]), ([0, -1, -1], [1.5, 0.0, 0.0]), ([2, -1, -1], [0.5, 0.0, 0.0])],
)
def test_arrays_that_are_no_tree_are_refused(axis: list[int], cut: list[float]) -> None:
    with pytest.raises(ValueError, match=r"tree|cut"):
        BoxTree(np.array(axis), np.array(cut)).leaves(np.zeros(2), np.ones(2))


def test_a_record_becomes_trees_in_preorder() -> None:
    """Root 1 is cut at 0.5, its upper part at 0.25 of the other coordinate; root 0 is a leaf."""
    record = TreeRecord(2)
    first = record.split(np.array([1]), np.array([0]), np.array([0.5]))
    record.split(first + 1, np.array([1]), np.array([0.25]))
    leaf, tree = record.trees()
    assert leaf.axis.tolist() == [-1]
    assert tree.axis.tolist() == [0, -1, 1, -1, -1]
    lower, upper = tree.leaves(np.zeros(2), np.ones(2))
    assert lower.tolist() == [[0, 0], [0.5, 0], [0.5, 0.25]]
    assert upper.tolist() == [[0.5, 1], [1, 0.25], [1, 1]]
