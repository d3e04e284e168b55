"""The trees of a search over boxes, as it makes them, and in preorder for a proof."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from toolkit.arrays import FloatArray, IndexArray


@dataclass(frozen=True, eq=False)
class BoxTree:
    """A box cut into sub-boxes, in preorder: axis[i] is the coordinate that node i is cut at, −1 at a leaf, and cut[i]
    where; the next node is the part below, then, after all of that, the part above. Both hold the cut."""

    axis: IndexArray
    cut: FloatArray

    def leaves(self, lower: FloatArray, upper: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The leaves of the box [lower, upper], which they cover: (L, n) each. Raises ValueError for arrays that are no
        tree, and for a cut outside its part."""
        if self.axis.shape != self.cut.shape or self.axis.ndim != 1:
            raise ValueError(f"axis and cut must be one row each, got {self.axis.shape} and {self.cut.shape}")
        found, waiting = [], [(np.array(lower, dtype=np.float64), np.array(upper, dtype=np.float64))]
        for axis, cut in zip(self.axis.tolist(), self.cut.tolist(), strict=True):
            if not waiting:
                raise ValueError(f"a tree of {self.axis.size} nodes ends before the last of them")
            low, high = waiting.pop()
            if axis == -1:
                found.append((low, high))
                continue
            if not 0 <= axis < low.size or not low[axis] <= cut <= high[axis]:
                raise ValueError(f"a cut must lie in its part, got coordinate {axis} at {cut}")
            above, below = low.copy(), high.copy()
            above[axis] = below[axis] = cut
            waiting += [(above, high), (low, below)]
        if waiting:
            raise ValueError(f"a tree of {self.axis.size} nodes leaves {len(waiting)} parts out")
        return np.stack([low for low, _ in found]), np.stack([high for _, high in found])


class TreeRecord:
    """Every cut that was made. Nodes are numbered as they come, the roots first; two children have successive names."""

    def __init__(self, roots: int) -> None:
        self.roots, self.count = roots, roots
        self.cuts: dict[int, tuple[int, float, int]] = {}

    def split(self, names: IndexArray, axis: IndexArray, cut: FloatArray) -> IndexArray:
        """Names of the lower children; those of the upper ones are one more."""
        first = self.count + 2 * np.arange(names.size)
        every = zip(names.tolist(), axis.tolist(), cut.tolist(), first.tolist(), strict=True)
        self.cuts.update({name: (a, c, child) for name, a, c, child in every})
        self.count += 2 * names.size
        return first

    def trees(self) -> Iterator[BoxTree]:
        """One tree per root."""
        for root in range(self.roots):
            axis, cut, waiting = [], [], [root]
            while waiting:
                at, where, child = self.cuts.get(waiting.pop(), (-1, 0.0, 0))
                axis.append(at)
                cut.append(where)
                if at >= 0:
                    waiting += [child + 1, child]
            yield BoxTree(np.array(axis, dtype=np.int64), np.array(cut))
