"""Small searches that stand in for the real ones in tests of proofs: whole trees over phases, and over halved boxes."""

from __future__ import annotations

import itertools

import numpy as np

from toolkit.arrays import FloatArray, IndexArray
from toolkit.certificates.coverage import BoxTree
from toolkit.certificates.dual_bound import certified_bounds
from toolkit.certificates.leaves import Forest, SideTrees
from toolkit.certificates.rounding import ErrorModel, error_model_of
from toolkit.networks.weights import dense_array
from toolkit.problems.problem import Problem
from toolkit.problems.properties import selection_rows

STEPS, NUDGE = 40, 1e-4


def grown(problem: Problem, most: int = 4) -> Forest:
    """For every row the tree that splits the last `most` unstable neurons in full; empty leaves are said to be."""
    model, rows = error_model_of(problem), dense_array(problem.rows)
    split = min(most, model.count)
    patterns = np.array(list(itertools.product((0, 1), repeat=split)), dtype=np.int8).reshape(2**split, split)
    phases = np.full((2**split, model.count), -1, dtype=np.int8)
    phases[:, model.count - split :] = patterns
    tree = np.repeat(np.arange(len(rows)), len(phases))
    phases = np.tile(phases, (len(rows), 1))
    bounded, _ = ascended(model, rows[tree], phases)
    proofs, values = ascended(model, 0.0 * rows[tree], phases)
    empty = values > 1e-3
    return Forest(tree, phases, np.where(empty[:, None], proofs, bounded), empty)


def ascended(model: ErrorModel, rows: FloatArray, phases: np.ndarray) -> tuple[FloatArray, FloatArray]:
    """Good λ of every leaf by a few steps along the difference quotients of its certified bound, and that bound."""
    leaves, count = phases.shape
    current, best = np.zeros((leaves, count)), np.zeros((leaves, count))
    value = np.full(leaves, -np.inf)
    around = np.concatenate([np.zeros((1, count)), NUDGE * np.eye(count)])
    for step in range(STEPS):
        points = (current[:, None] + around[None]).reshape(leaves * (count + 1), count)
        every = [np.repeat(part, count + 1, axis=0) for part in (rows, phases)]
        found = certified_bounds(model, every[0], points, every[1]).reshape(leaves, count + 1)
        better = found[:, 0] > value
        best[better], value[better] = current[better], found[better, 0]
        slope = found[:, 1:] - found[:, :1]
        length = np.linalg.norm(slope, axis=1, keepdims=True)
        current = current + 0.5 * 0.92**step * slope / np.where(length > 0, length, 1.0)
    return best, value


def refined(problem: Problem, neurons: IndexArray) -> SideTrees:
    """`grown` for both sides of every neuron named."""
    size = problem.network.output_size
    forests = [grown(problem.with_rows(selection_rows(size, neurons, sign))) for sign in (1, -1)]
    first, second = forests
    shifted = Forest(second.tree + neurons.size, second.phases, second.multipliers, second.empty)
    signs = np.repeat(np.array([1, -1], dtype=np.int8), neurons.size)
    return SideTrees(np.tile(neurons, 2), signs, Forest.joined([first, shifted]))


def halved(problem: Problem, depth: int = 4) -> list[BoxTree]:
    """For every row the tree that halves the widest side `depth` times."""
    axes: list[int] = []
    cuts: list[float] = []

    def halve(lower: FloatArray, upper: FloatArray, left: int) -> None:
        axis = int(np.argmax(upper - lower))
        middle = 0.5 * (lower[axis] + upper[axis])
        axes.append(axis if left else -1)
        cuts.append(middle if left else 0.0)
        if left:
            for end, other in ((upper, lower), (lower, upper)):
                moved = end.copy()
                moved[axis] = middle
                halve(*((other, moved) if end is upper else (moved, other)), left - 1)

    halve(problem.input_set.lower, problem.input_set.upper, depth)
    return [BoxTree(np.array(axes), np.array(cuts)) for _ in range(problem.rows.shape[0])]
