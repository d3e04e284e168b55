"""Which rows of a problem are above a mark everywhere: trees over ReLU phases for all rows, and the points they meet.

A row is proven once all leaves of its tree are certified above settings.stop_at, refuted once a replayed point is not.
Points come from the worst nodes' x̃ (phase_trees.py), a few per round.

Checked: leaves, in float64; points, by replay. Trusted: nothing of the search.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolkit.arrays import BoolArray, FloatArray, IndexArray
from toolkit.certificates.leaves import Forest
from toolkit.problems.problem import Problem
from toolkit.search.array_makers import ArrayMaker
from toolkit.search.incumbent import STOP_MARGIN
from toolkit.search.phase_trees import PhaseTrees

REPLAYED = 8  # points per round


@dataclass(frozen=True, eq=False)
class Signs:
    """What is known of every row: lower: certified, (T,); upper: the least replayed value, (T,), at points (T, n), NaN
    where there is none; nodes: (T,); leaves: all trees', where they were kept."""

    lower: FloatArray
    upper: FloatArray
    points: FloatArray
    nodes: IndexArray
    leaves: Forest | None


class _Points:
    """The least value met per row, and where."""

    def __init__(self, problem: Problem, stop_at: float) -> None:
        self.problem, self.stop_at = problem, stop_at
        count = problem.rows.shape[0]
        self.upper = np.full(count, np.inf)
        self.points = np.full((count, problem.input_set.size), np.nan)

    def offer(self, tree: IndexArray, points: FloatArray) -> None:
        """Replay a few of these points, projected into the set, on all rows."""
        few = np.unique(np.linspace(0, tree.size - 1, REPLAYED).astype(np.int64))
        inside = self.problem.input_set.project(np.asarray(points[few], dtype=np.float64))
        values = np.nan_to_num(self.problem.replay(inside), nan=np.inf)
        best = values.argmin(axis=0)
        least = values[best, np.arange(best.size)]
        better = least < self.upper
        self.upper[better], self.points[better] = least[better], inside[best[better]]

    @property
    def refuted(self) -> BoolArray:
        """Rows with a point at or below stop_at."""
        return self.upper <= self.stop_at


def search_signs(
    problem: Problem,
    deadline: float = np.inf,
    budget: int | None = None,
    keep: bool = False,
    make: ArrayMaker | None = None,
) -> Signs:
    """Prove or refute lower > settings.stop_at for every row; with settings.until_refuted the first refuted row ends
    it for all. budget: nodes per row, None: any number. deadline: of time.perf_counter(). make: as of a DualFunction.
    """
    stop = problem.settings.stop_at
    assert stop is not None
    count = problem.rows.shape[0]
    found = _Points(problem, stop)
    center = problem.clean_values()
    aim = np.nextafter(stop + STOP_MARGIN * np.abs(np.nan_to_num(center)), np.inf)
    trees = PhaseTrees(problem, aim, np.full(count, np.iinfo(np.int64).max if budget is None else budget),
                       deadline, keep, make)  # fmt: skip

    def stopped(trees: PhaseTrees) -> BoolArray:
        refuted = found.refuted
        return np.full(count, True) if problem.settings.until_refuted and refuted.any() else refuted

    grown = trees.grow(stopped, found.offer)
    return Signs(grown.lower, found.upper, found.points, grown.nodes, grown.leaves)
