"""Pseudo-costs and the choice of the ReLU to split."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.problems.settings import Settings
from toolkit.search.branching import FINE_SPLITS, PhaseBrancher, PseudoCosts
from toolkit.search.incumbent import Incumbent
from toolkit.search.tree import Node, Relaxed


def test_pseudo_costs_prefer_the_neuron_that_gained_most_per_distance() -> None:
    costs = PseudoCosts(3)
    y = s = np.ones(3)
    assert np.ptp(costs.estimate(y, s)) == 0.0  # nothing seen, nothing preferred
    for neuron, gain in enumerate((0.1, 0.4)):
        for phase in (0, 1):
            costs.learn(neuron, phase, gain, 2.0)
            costs.learn(neuron, phase, 3 * gain, 2.0)
    np.testing.assert_allclose(costs.estimate(y, s), [0.1**2, 0.4**2, 0.25**2])  # the unseen: the average


class NoTrial:
    """A bounder whose trials prove nothing, and that counts them."""

    count = 0

    def trial(self, node: Node) -> None:
        self.count += 1


def brancher(upper: float = np.inf, stop_at: float | None = None) -> PhaseBrancher:
    incumbent = Incumbent(Settings(mip_gap=0.0, mip_gap_abs=1e-3, stop_at=stop_at), 1.0, 1.0)
    incumbent.offer(np.zeros(1), upper)
    return PhaseBrancher(NoTrial(), PseudoCosts(3), incumbent)


def test_children_cover_the_node_and_the_nearer_phase_comes_first() -> None:
    """y > s: the minimiser is nearer to active (s = 0)."""
    for y, s, expected in ((0.3, 0.1, 1), (0.1, 0.3, 0), (0.2, 0.2, 0)):
        node = Node(-1.0, np.array([1, -1, -1], dtype=np.int8))
        found = Relaxed(np.array([[0.4, y, 0.0], [0.4, s, 0.7]]), True)  # neuron 0 is split already, 2 is on its ReLU
        children = brancher().split(node, found)
        assert children is not None
        assert [child.phases.tolist() for child in children] == [[1, expected, -1], [1, 1 - expected, -1]]
        for child in children:
            assert child.split is not None
            assert child.split.distance == (y, s)[child.split.phase]
            assert (child.bound, child.split.origin, child.depth) == (-1.0, -1.0, 1)


def test_trials_end_where_both_costs_are_known() -> None:
    one = brancher()
    node, found = Node.root(3), Relaxed(np.full((2, 3), 0.5), True)  # nothing proven: no gain is a number
    assert one.split(node, found) is not None
    assert one.bounder.count == 4  # both children of two candidates
    one.costs.seen[:] = 1.0
    one.split(node, found)
    assert one.bounder.count == 4


def test_an_almost_exact_minimiser_is_split_only_where_the_interval_stays_open() -> None:
    found = Relaxed(np.full((2, 3), 1e-9), True)
    closed, opened, sign = brancher(upper=1.0), brancher(upper=1.0), brancher(upper=1.0, stop_at=0.0)
    assert closed.split(Node(1.0 - 1e-4, Node.root(3).phases), found) is None
    low = Node(0.5, Node.root(3).phases)
    assert opened.split(low, found) is not None
    assert sign.split(Node(1.0 - 1e-4, Node.root(3).phases), found) is not None  # no width decides a sign
    assert opened.split(low, Relaxed(np.zeros((2, 3)), True)) is None
    for _ in range(FINE_SPLITS - 1):
        assert opened.split(low, found) is not None
    assert opened.split(low, found) is None


def test_gains_past_the_cutoff_are_worth_nothing() -> None:
    one = brancher(upper=1.0)
    child = Node(0.0, Node.root(3).phases).child(1, 0, 0.5)
    one.learn(child, Relaxed(None, False, first=np.inf))
    assert one.costs.total[0, 1] * 0.5 == pytest.approx(one.incumbent.cutoff, abs=1e-5)
    one.learn(child, Relaxed(None, False, first=None))  # not solved: nothing to learn
    assert one.costs.seen.sum() == 1
