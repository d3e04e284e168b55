"""The queue of open parts."""

from __future__ import annotations

import numpy as np

from toolkit.search.box_queue import BoxNodes, BoxQueue


def test_the_queue_gives_every_node_once_and_the_least_first() -> None:
    rng = np.random.default_rng(0)
    queue, expected = BoxQueue(1), []
    for name in range(40):
        count = int(rng.integers(1, 30))
        key = rng.normal(size=count)
        names = np.arange(count) + 100 * name
        queue.push(BoxNodes(key[:, None], key[:, None], names, key, key, names))
        expected += list(zip(key.tolist(), names.tolist(), strict=True))
        found = queue.take(int(rng.integers(1, 20)))
        expected.sort()
        taken, expected = expected[: found.row.size], expected[found.row.size :]
        assert sorted(zip(found.key.tolist(), found.name.tolist(), strict=True)) == taken
        assert (found.lower[:, 0] == found.key).all()
        assert len(queue) == len(expected)
