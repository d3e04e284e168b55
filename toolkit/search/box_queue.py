"""The open parts of a search over boxes, as arrays; the worst go first."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from toolkit.arrays import FloatArray, IndexArray


@dataclass(frozen=True, eq=False)
class BoxNodes:
    """Sub-boxes, each for one row. lower, upper: (B, n); row, bound (proven so far), key (the least go first), name (in
    the kept tree): (B,)."""

    lower: FloatArray
    upper: FloatArray
    row: IndexArray
    bound: FloatArray
    key: FloatArray
    name: IndexArray

    def take(self, chosen: IndexArray) -> BoxNodes:
        """These of them, in this order."""
        return BoxNodes(*(getattr(self, one.name)[chosen] for one in fields(self)))


class BoxQueue:
    """Arrays with room to grow, holes filled from their end."""

    def __init__(self, inputs: int) -> None:
        none = np.zeros(0, dtype=np.int64)
        self._store = BoxNodes(np.zeros((0, inputs)), np.zeros((0, inputs)), none, np.zeros(0), np.zeros(0), none)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, nodes: BoxNodes) -> None:
        """Add nodes."""
        stop = self._count + nodes.row.size
        if stop > self._store.row.size:
            self._grow(max(2 * self._store.row.size, stop, 64))
        for one in fields(nodes):
            getattr(self._store, one.name)[self._count : stop] = getattr(nodes, one.name)
        self._count = stop

    def take(self, most: int) -> BoxNodes:
        """Up to so many nodes of the least keys, removed."""
        count = self._count
        chosen = np.arange(count) if count <= most else np.argpartition(self._store.key[:count], most - 1)[:most]
        found = self._store.take(chosen)
        self._count = count - chosen.size
        holes = chosen[chosen < self._count]
        gone = np.zeros(count - self._count, dtype=np.bool_)
        gone[chosen[chosen >= self._count] - self._count] = True
        movers = self._count + np.flatnonzero(~gone)
        for one in fields(found):
            array = getattr(self._store, one.name)
            array[holes] = array[movers]
        return found

    def _grow(self, size: int) -> None:
        old = self._store
        grown = {}
        for one in fields(old):
            array = getattr(old, one.name)
            grown[one.name] = np.zeros((size, *array.shape[1:]), dtype=array.dtype)
            grown[one.name][: self._count] = array[: self._count]
        self._store = BoxNodes(**grown)
