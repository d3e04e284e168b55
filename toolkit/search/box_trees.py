"""The trees of a search over boxes, as it makes them, and in preorder for a proof."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from toolkit.arrays import FloatArray, IndexArray
from toolkit.certificates.coverage import BoxTree


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
