"""A node's split over the phases of a ReLU: which neurons come into question, where the children's variables start.

Columns are nodes. Nothing here is trusted: any dual variables give a bound.
"""

from __future__ import annotations

import numpy as np

from toolkit.arrays import FloatArray, IndexArray, PhaseArray


def children(
    phases: PhaseArray, duals: FloatArray, neurons: IndexArray, arriving: FloatArray
) -> tuple[PhaseArray, FloatArray]:
    """Nodes where each of the neurons (t, B) of each node is inactive, then those where it is active: 2·t·B columns.

    A neuron of −1 leaves the node as it is. A split neuron's d starts where its λ stays, λ = max(ν,0)·α, or where that
    would take d < 0, at 0; arriving: ν, (t, B).
    """
    tries, count = neurons.shape
    phases, duals = np.tile(phases, 2 * tries), np.tile(duals, 2 * tries)
    flat = np.tile(neurons.ravel(), 2)
    phase = np.repeat(np.array([0, 1], dtype=np.int8), tries * count)
    positive = np.tile(np.maximum(arriving.ravel(), 0.0), 2)
    column = np.flatnonzero(flat >= 0)
    flat, phase = flat[column], phase[column]
    slope = duals[flat, column]
    duals[flat, column] = positive[column] * np.where(phase == 0, slope, 1.0 - slope)
    phases[flat, column] = phase
    return phases, duals


def best_scores(scores: FloatArray, phases: PhaseArray, tries: int) -> IndexArray:
    """The free neurons with the highest scores, (tries, B), the best first; −1 where there are fewer.

    A free neuron without a score comes last, since its gap may be closed only at this point.
    """
    size, count = scores.shape
    ranked = np.where(phases < 0, np.nan_to_num(scores, nan=0.0, posinf=3e38), -1.0)
    found = np.full((tries, count), -1, dtype=np.int64)
    several = min(tries, size)
    if several:
        some = np.argpartition(-ranked, several - 1, axis=0)[:several]
        own = np.take_along_axis(ranked, some, axis=0)
        order = np.argsort(-own, axis=0, kind="stable")
        some, own = np.take_along_axis(some, order, axis=0), np.take_along_axis(own, order, axis=0)
        found[:several] = np.where((own > 0) | ((own == 0) & (np.arange(several)[:, None] == 0)), some, -1)
    return found
