"""Pseudo-costs: what a split of a ReLU has been worth so far, per unit of the distance it had to move.

Callers give gains in units of the objective's scale and distances in units of the neuron's range: no unit matters.

Source: Achterberg, Koch & Martin 2005, "Branching rules revisited".
"""

from __future__ import annotations

import numpy as np

from toolkit.arrays import FloatArray

LEAST_GAIN = 1e-6
LEAST_DISTANCE = 1e-7
MOST_GAIN = 1e3  # an empty child has an infinite one


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
