"""Branching: which ReLU to split, by pseudo-costs that strong branching starts and every node keeps up.

A split is worth the product of both children's gains. Pseudo-costs say what a split of a ReLU has been worth so far,
per unit of the distance it had to move; callers give gains in units of the objective's scale and distances in units of
the neuron's range: no unit matters.

Source: Achterberg, Koch & Martin 2005, "Branching rules revisited".
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.search.incumbent import Incumbent
from toolkit.search.tree import Node, Relaxed, Split

LEAST_GAIN = 1e-6
LEAST_DISTANCE = 1e-7
MOST_GAIN = 1e3  # an empty child has an infinite one
ON_RELU = 1e-7  # of a neuron's range: what an LP's own tolerance leaves of y and s at a point on every ReLU
FINE, FINE_SPLITS = 1e-11, 500  # slacks split all the same, so often, where such a point leaves the interval open
TRIALS, RELIABLE = 2, 1


class PseudoCosts:
    """Average gain of the bound per unit of y (when fixed inactive) or s (when fixed active), per neuron."""

    def __init__(self, count: int) -> None:
        self.total = np.zeros((2, count))
        self.seen = np.zeros((2, count))

    def learn(self, neuron: int, phase: int, gain: float, distance: float) -> None:
        """A split of the neuron to the phase (0 inactive, 1 active) raised the bound by `gain`."""
        self.total[phase, neuron] += min(gain, MOST_GAIN) / max(distance, LEAST_DISTANCE)
        self.seen[phase, neuron] += 1

    def estimate(self, y: FloatArray, s: FloatArray) -> FloatArray:
        """Product of both children's expected gains, per neuron; the average cost stands in for a cost never seen."""
        mean = self.total.sum(axis=1) / np.maximum(1, self.seen.sum(axis=1))
        cost = np.where(self.seen > 0, self.total / np.maximum(1, self.seen), mean[:, None])
        return np.asarray(np.maximum(cost[0] * y, LEAST_GAIN) * np.maximum(cost[1] * s, LEAST_GAIN))


class Trial(Protocol):
    """Strong branching's part of a bounder."""

    def trial(self, node: Node) -> None:
        """Raise a child's bound a little, at little cost."""
        ...


class PhaseBrancher:
    """Splits a node at the ReLU of the best score: pseudo-costs, or trials of both children where too few are known."""

    def __init__(self, bounder: Trial, costs: PseudoCosts, incumbent: Incumbent) -> None:
        self.bounder, self.costs, self.incumbent = bounder, costs, incumbent
        self.fine_splits = 0

    def learn(self, node: Node, found: Relaxed) -> None:
        """Note what the split that made the node was worth."""
        if node.split is not None and found.first is not None:
            self._learn(node.split, found.first)

    def split(self, node: Node, found: Relaxed) -> tuple[Node, Node] | None:
        """Both children at the chosen neuron, first the one whose phase the minimiser is nearer to; None on every ReLU.

        found: with distances."""
        assert found.distances is not None
        distances = found.distances
        slack = np.where(node.phases < 0, distances.min(axis=0), 0.0)
        if self._on_every_relu(slack, node.bound):
            return None
        inactive, active = self._choose(node, distances, slack)
        assert active.split is not None
        y, s = distances[:, active.split.neuron]
        return (active, inactive) if y > s else (inactive, active)

    def _on_every_relu(self, slack: FloatArray, bound: float) -> bool:
        """Whether the minimiser is a point of the network, as far as the relaxation's tolerance can say.

        Where such a point does not close the interval, slacks under the tolerance are split as well, down to FINE.
        """
        largest = float(slack.max(initial=0.0))
        if largest <= FINE or largest > ON_RELU:
            return largest <= FINE
        if self.incumbent.closes(bound):
            return True
        self.fine_splits += 1
        return self.fine_splits > FINE_SPLITS

    def _choose(self, node: Node, distances: FloatArray, slack: FloatArray) -> tuple[Node, Node]:
        """Children (inactive, active) at the neuron to split, with what trials proved of them."""
        least = ON_RELU if slack.max() > ON_RELU else FINE
        score = np.where(slack > least, self.costs.estimate(*distances), -1.0)
        candidates = [i for i in np.argsort(-score)[:TRIALS].tolist() if score[i] >= 0]
        best, best_score = None, -1.0
        for neuron in candidates:
            children = node.child(neuron, 0, distances[0, neuron]), node.child(neuron, 1, distances[1, neuron])
            value = float(score[neuron])
            if self.costs.seen[:, neuron].min() < RELIABLE:
                value = self._try_children(node, children)
            if value > best_score:
                best, best_score = children, value
        assert best is not None
        return best

    def _try_children(self, node: Node, children: tuple[Node, Node]) -> float:
        """Strong branching: the product of both children's gains, as far as their trials go."""
        gains = []
        for child in children:
            self.bounder.trial(child)
            assert child.split is not None
            self._learn(child.split, child.bound)
            gain = (child.bound - node.bound) / self.incumbent.drop
            gains.append(max(LEAST_GAIN, gain))  # in this order: NaN, where nothing is proven of either, is no gain
        return gains[0] * gains[1]

    def _learn(self, split: Split, bound: float) -> None:
        """A split raised the bound to this; more than what closes a node is of no use to anybody."""
        best = self.incumbent
        useful = min(bound, best.cutoff + LEAST_GAIN * best.drop) if np.isfinite(best.upper) else bound
        self.costs.learn(split.neuron, split.phase, max(0.0, useful - split.origin) / best.drop, split.distance)
