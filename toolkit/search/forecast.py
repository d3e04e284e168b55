"""Whether a tree is worth its next nodes: what it has proven is looked at whenever its nodes have doubled.

A tree's bound grows by about as much with every doubling of its nodes, b(n) ≈ b(1) + c·log₂ n: from there a forecast of
the nodes at which it reaches its cutoff. Measured in results/PERFORMANCE.md. Checked: nothing; a tree given up keeps
the bound it has proven.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from toolkit.arrays import BoolArray, FloatArray
from toolkit.search.phase_trees import PhaseTrees

STALLED = 0.03  # of the way to 0 that is left: what a neuron's tree that goes on gains by twice the nodes


class _Looks:
    """When every tree is looked at next, and what it had proven before."""

    def __init__(self, count: int, first: int) -> None:
        self.first = first
        self.due, self.bound = np.zeros(count, dtype=np.int64), np.full(count, -np.inf)

    def __call__(self, trees: PhaseTrees, judge: Callable[[FloatArray, FloatArray], BoolArray]) -> BoolArray:
        """What judge says of bounds before and now, (T,), at trees that it is time to look at; False of the others."""
        due = trees.nodes >= self.due
        if not due.any():
            return due
        now = trees.bounds()
        found = due & judge(self.bound, now)
        self.due[due], self.bound[due] = np.maximum(2 * trees.nodes[due], self.first), now[due]
        return found


class Stalled:
    """Trees with cutoff 0 that came nearer to it by less than STALLED of what was left since they were last looked at:
    at the root, at `after` nodes, and at every doubling from there. after: None: none is."""

    def __init__(self, count: int, after: int | None) -> None:
        self.looks = None if after is None else _Looks(count, after)
        self.none = np.zeros(count, dtype=np.bool_)

    def __call__(self, trees: PhaseTrees) -> BoolArray:
        """Which trees are, (T,)."""
        if self.looks is None:
            return self.none
        return self.looks(trees, lambda before, now: now < (1.0 - STALLED) * before)


class Hopeless:
    """Trees that by the forecast reach their cutoff at more than `most` nodes; looked at from `after` nodes on, at each
    doubling."""

    def __init__(self, cutoff: FloatArray, after: int, most: int) -> None:
        self.looks, self.cutoff, self.most = _Looks(cutoff.size, after), cutoff, most
        self.root = np.full(cutoff.size, np.nan)

    def __call__(self, trees: PhaseTrees) -> BoolArray:
        """Which trees are, (T,)."""

        def judge(_: FloatArray, now: FloatArray) -> BoolArray:
            self.root = np.where(np.isnan(self.root), now, self.root)
            doublings = np.log2(np.maximum(trees.nodes, 1))
            with np.errstate(divide="ignore", invalid="ignore"):
                missing = (self.cutoff - now) / ((now - self.root) / doublings)
            return np.asarray((trees.nodes > 0) & ~(doublings + missing <= np.log2(self.most)) & (now < self.cutoff))

        return self.looks(trees, judge)
