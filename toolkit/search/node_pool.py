"""The open nodes of many search trees, as arrays that grow: one row per node."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from toolkit.arrays import AnyArray, FloatArray, IndexArray, PhaseArray


class OpenNodes(NamedTuple):
    """Nodes taken out of a pool; columns are nodes, tree and bound (B,)."""

    tree: IndexArray
    bound: FloatArray
    phases: PhaseArray
    duals: AnyArray
    candidates: IndexArray
    arriving: AnyArray


class NodePool:
    """Open nodes: tree, bound, phases, dual variables, candidates for a split and ν there; no order."""

    def __init__(self, neurons: int, candidates: int, dtype: Any = np.float32) -> None:
        self._count = 0
        self._tree, self._bound = np.empty(0, dtype=np.int64), np.empty(0)
        self._phases = np.empty((0, neurons), dtype=np.int8)
        self._duals = np.empty((0, neurons), dtype=dtype)
        self._candidates = np.empty((0, candidates), dtype=np.int64)
        self._arriving = np.empty((0, candidates), dtype=dtype)

    @property
    def tree(self) -> IndexArray:
        """Which tree each node belongs to."""
        return self._tree[: self._count]

    @property
    def bound(self) -> FloatArray:
        """The bound of each node."""
        return self._bound[: self._count]

    @property
    def nbytes(self) -> int:
        """Memory of the nodes that are there."""
        own = self._duals.itemsize
        return self._count * ((1 + own) * self._phases.shape[1] + 16 + (8 + own) * self._candidates.shape[1])

    def get(self, index: IndexArray) -> OpenNodes:
        """Copies of some nodes, as columns."""
        columns = np.ascontiguousarray
        phases, duals = columns(self._phases[index].T), columns(self._duals[index].T)
        candidates, arriving = columns(self._candidates[index].T), columns(self._arriving[index].T)
        return OpenNodes(self._tree[index], self._bound[index], phases, duals, candidates, arriving)

    def add(self, nodes: OpenNodes) -> None:
        """More nodes; columns, as `get` gives them."""
        first, last = self._count, self._count + nodes.tree.size
        if last > self._tree.size:
            self._resize(max(last, 2 * self._tree.size))
        self._tree[first:last], self._bound[first:last] = nodes.tree, nodes.bound
        self._phases[first:last], self._duals[first:last] = nodes.phases.T, nodes.duals.T
        self._candidates[first:last], self._arriving[first:last] = nodes.candidates.T, nodes.arriving.T
        self._count = last

    def drop(self, index: IndexArray) -> None:
        """Forget some nodes; the last ones take their places."""
        rest = self._count - index.size
        gone = np.zeros(self._count, dtype=np.bool_)
        gone[index] = True
        holes, movers = np.flatnonzero(gone[:rest]), rest + np.flatnonzero(~gone[rest:])
        for one in (self._tree, self._bound, self._phases, self._duals, self._candidates, self._arriving):
            one[holes] = one[movers]
        self._count = rest

    def _resize(self, capacity: int) -> None:
        def grown(old: np.ndarray) -> np.ndarray:
            new = np.empty((capacity, *old.shape[1:]), dtype=old.dtype)
            new[: self._count] = old[: self._count]
            return new

        self._tree, self._bound, self._candidates = grown(self._tree), grown(self._bound), grown(self._candidates)
        self._phases, self._duals, self._arriving = grown(self._phases), grown(self._duals), grown(self._arriving)
