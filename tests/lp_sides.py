"""Sides of a layer proven by LPs, as evidence for a proof: trees of one leaf."""

from __future__ import annotations

import numpy as np

from toolkit.arrays import FloatArray, IndexArray
from toolkit.certificates.leaves import Forest, SideTrees
from toolkit.certificates.rounding import error_model_of
from toolkit.problems.problem import Problem
from toolkit.problems.properties import selection_rows
from toolkit.rungs.lp import RUNG as LP


def sides_by_lps(problem: Problem, neurons: IndexArray) -> SideTrees:
    """One leaf without splits per side, with the row duals of its LP; no lower side where u ≤ 0."""
    found: list[tuple[int, int, FloatArray]] = []
    for i in neurons.tolist():
        for sign in (-1, 1):
            (bound,) = LP(problem.with_rows(selection_rows(problem.network.output_size, [i], sign)))
            if bound.multipliers is not None:
                found.append((i, sign, bound.multipliers))
            if sign < 0 and bound.certified_lower >= 0:
                break
    count = error_model_of(problem).count
    multipliers = np.array([m for _, _, m in found]).reshape(len(found), count)
    place = np.arange(len(found))
    free = np.full(multipliers.shape, -1, dtype=np.int8)
    forest = Forest(place, free, multipliers, np.zeros(place.size, dtype=np.bool_))
    signs = np.array([sign for _, sign, _ in found], dtype=np.int8)
    return SideTrees(np.array([i for i, _, _ in found], dtype=np.int64), signs, forest)
