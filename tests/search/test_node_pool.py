"""The pool holds what a list of nodes holds, whatever is added and dropped."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.search.node_pool import NodePool, OpenNodes


def _nodes(rng: np.random.Generator, first: int, count: int, neurons: int, tries: int) -> OpenNodes:
    return OpenNodes(
        np.arange(first, first + count),
        rng.normal(size=count),
        rng.integers(-1, 2, (neurons, count)).astype(np.int8),
        rng.normal(size=(neurons, count)).astype(np.float32),
        rng.integers(-1, neurons + 1, (tries, count)),
        rng.normal(size=(tries, count)).astype(np.float32),
    )


def _listed(nodes: OpenNodes) -> dict[int, tuple[object, ...]]:
    """By the number of its tree, which is another one for every node here."""
    return {
        int(tree): tuple(np.asarray(one[..., i]).tolist() for one in nodes[1:]) for i, tree in enumerate(nodes.tree)
    }


@pytest.mark.parametrize("neurons", [0, 1, 5])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_added_is_there_until_it_is_dropped(seed: int, neurons: int) -> None:
    rng = np.random.default_rng(seed)
    pool, expected, first = NodePool(neurons, 2), {}, 0
    for _ in range(30):
        count = int(rng.integers(0, 12))
        more = _nodes(rng, first, count, neurons, 2)
        pool.add(more)
        expected |= _listed(more)
        first += count
        gone = np.flatnonzero(rng.random(pool.tree.size) < rng.choice([0.0, 0.3, 1.0]))
        for tree in pool.tree[gone].tolist():
            del expected[tree]
        pool.drop(gone)
        every = np.arange(pool.tree.size)
        assert _listed(pool.get(every)) == expected
        np.testing.assert_array_equal(pool.get(every).bound, pool.bound)
        assert pool.nbytes == sum(one.nbytes for one in pool.get(every))


def test_what_is_taken_out_is_a_copy() -> None:
    pool = NodePool(3, 1)
    pool.add(_nodes(np.random.default_rng(0), 0, 4, 3, 1))
    taken = pool.get(np.array([1, 2]))
    taken.phases[:], taken.duals[:], taken.bound[:] = 1, 9.0, 9.0
    assert not np.any(pool.bound == 9.0)
    assert not np.any(pool.get(np.arange(4)).duals == 9.0)


def test_duals_beyond_float32_are_held_in_float64() -> None:
    pool = NodePool(1, 1, np.float64)
    nodes = _nodes(np.random.default_rng(0), 0, 1, 1, 1)
    pool.add(nodes._replace(duals=np.full((1, 1), 1e200), arriving=np.full((1, 1), -1e200)))
    assert pool.get(np.array([0])).duals[0, 0] == 1e200
    assert pool.get(np.array([0])).arriving[0, 0] == -1e200
    assert pool.nbytes == sum(one.nbytes for one in pool.get(np.array([0])))
