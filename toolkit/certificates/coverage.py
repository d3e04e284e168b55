"""Whether the leaves of search trees cover every case: of trees over ReLU phases, and of a tree over the input box.

Of phases: the leaves are those of a binary tree, and so cover {0, 1}ᴺ, if some neuron is split in all of them, and
those with 0 and those with 1 are such leaves again, down to single leaves without further splits. Of the box: a cut
that lies within a box makes two boxes, both with the cut, that cover it; a tree written as its nodes in preorder covers
the box by construction, if every cut lies within its box and the array ends where the tree does.

Nothing is trusted of the arrays: they may come from a file. Checked: tests hold both against enumeration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from toolkit.arrays import BoolArray, FloatArray, IndexArray, PhaseArray

BOX_ENTRIES = 1 << 20  # numbers of either side of the boxes that are made at once
MOST_BOXES = 4096


def covered(tree: IndexArray, phases: PhaseArray, count: int) -> BoolArray:
    """Which of the trees 0 … count − 1 have leaves that cover every case; tree: (L,), phases: (L, N) of −1, 0 and 1.

    All trees are walked down at once, one split of every part a round: O(L·N) a round, as many as the deepest path.
    """
    sizes = np.bincount(tree, minlength=count)
    phases = phases[:, np.any(phases >= 0, axis=0)]
    if not phases.shape[1]:
        return np.asarray(sizes == 1)
    good = sizes > 0
    order = np.argsort(tree, kind="stable")
    owner, phases = tree[order], phases[order]
    part, waiting = owner, phases >= 0
    while part.size:
        starts = np.flatnonzero(np.concatenate([[True], part[1:] != part[:-1]]))
        of = np.cumsum(np.concatenate([[0], part[1:] != part[:-1]]))
        sizes = np.bincount(of)
        common = np.logical_and.reduceat(waiting, starts, axis=0)
        neuron = common.argmax(axis=1)
        split = common[np.arange(starts.size), neuron]
        taken = phases[np.arange(of.size), neuron[of]]
        active = np.bincount(of, taken == 1)
        halves = split & (active > 0) & (active < sizes)
        done = (sizes == 1) & ~split
        good[owner[starts[~(halves | done)]]] = False
        on = halves[of] & good[owner]
        place = np.argsort(2 * of[on] + taken[on], kind="stable")
        waiting[np.arange(of.size), neuron[of]] = False
        part = (2 * of[on] + taken[on])[place]
        owner, phases, waiting = owner[on][place], phases[on][place], waiting[on][place]
    return good


@dataclass(frozen=True, eq=False)
class BoxTree:
    """A tree over an input box, its nodes in preorder: the lower child's subtree follows its parent, then the upper's.

    axis: (K,) which coordinate a node halves, −1 at a leaf. cut: (K,) where; both children hold that value; any number
    at a leaf. Raises ValueError for arrays of another kind.
    """

    axis: IndexArray
    cut: FloatArray

    def __post_init__(self) -> None:
        if self.axis.ndim != 1 or self.axis.dtype.kind != "i" or not self.axis.size:
            raise ValueError(f"axis must be whole numbers, at least one, got {self.axis.shape} of {self.axis.dtype}")
        if self.cut.shape != self.axis.shape or self.cut.dtype.kind != "f":
            raise ValueError(f"cut must be {self.axis.size} floats, got shape {self.cut.shape} of {self.cut.dtype}")

    @property
    def count(self) -> int:
        """Number of leaves."""
        return int(np.count_nonzero(self.axis < 0))

    def leaves(self, lower: FloatArray, upper: FloatArray) -> tuple[FloatArray, FloatArray]:
        """`boxes`, all at once: (L, n) each."""
        sides = list(self.boxes(lower, upper))
        return np.concatenate([low for low, _ in sides]), np.concatenate([high for _, high in sides])

    def boxes(self, lower: FloatArray, upper: FloatArray) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Lower and upper ends of the leaves' boxes, (B, n) each, some at a time in preorder.

        lower, upper: the root's ends, (n,). Raises ValueError, maybe after some boxes, unless every cut lies in its box
        and the nodes are one whole tree: only then do the boxes cover the root.
        """
        low, high = lower.copy(), upper.copy()
        most = max(1, min(MOST_BOXES, BOX_ENTRIES // max(1, low.size)))
        found: list[tuple[FloatArray, FloatArray]] = []
        open_: list[tuple[int, float, float, bool]] = []  # (axis, cut, the end it replaced, in the upper child)
        closed = False
        for node, (axis, cut) in enumerate(zip(self.axis.tolist(), self.cut.tolist(), strict=True)):
            if closed:
                raise ValueError(f"the tree over the box ends before node {node}")
            if axis >= 0:
                if axis >= low.size or not low[axis] <= cut <= high[axis]:
                    raise ValueError(f"node {node} cuts coordinate {axis} at {cut}, which is not within its box")
                open_.append((axis, cut, float(high[axis]), False))
                high[axis] = cut
                continue
            found.append((low.copy(), high.copy()))
            if len(found) == most:
                yield np.array([one for one, _ in found]), np.array([one for _, one in found])
                found = []
            while open_ and open_[-1][3]:
                axis, _, end, _ = open_.pop()
                low[axis] = end
            if open_:
                axis, cut, end, _ = open_.pop()
                open_.append((axis, cut, float(low[axis]), True))
                low[axis], high[axis] = cut, end
            closed = not open_
        if not closed:
            raise ValueError(f"the tree over the box is not finished after {self.axis.size} nodes")
        if found:
            yield np.array([one for one, _ in found]), np.array([one for _, one in found])
