"""Which rows of a problem are above a mark everywhere: trees over ReLU phases for all rows, and the points they meet.

A tree that is not small begins again with planes of the first layer (hull_planes.py), where that can have any: they
take as long as some hundreds of nodes, and spare most of those of a larger tree. A row is proven once all leaves of its tree are certified above settings.stop_at, refuted once a replayed point is not.
Points come from the worst nodes' x̃ (phase_trees.py), a few per round.

Checked: leaves, in float64; points, by replay. Trusted: nothing of the search.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from toolkit.arrays import BoolArray, FloatArray, IndexArray
from toolkit.certificates.leaves import Forest
from toolkit.problems.problem import Problem
from toolkit.search.array_makers import ArrayMaker
from toolkit.search.hull_planes import takes_planes
from toolkit.search.incumbent import STOP_MARGIN
from toolkit.search.phase_trees import Grown, PhaseTrees

REPLAYED = 8  # points per round
PLAIN_NODES = 256  # of a row's tree before it begins again with planes


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
    nodes = np.iinfo(np.int64).max if budget is None else budget

    def grown(rows: IndexArray, budget: int, planes: bool) -> Grown:
        own = problem.with_rows(problem.rows[rows], [problem.targets[row] for row in rows.tolist()])
        trees = PhaseTrees(own, aim[rows], np.full(rows.size, budget), deadline, keep, make, planes)
        return trees.grow(lambda _: np.full(rows.size, True) if ended() else found.refuted[rows], found.offer)

    def ended() -> bool:
        return problem.settings.until_refuted and bool(found.refuted.any())

    planar = takes_planes(problem)
    known = grown(np.arange(count), min(nodes, PLAIN_NODES) if planar else nodes, False)
    signs = Signs(known.lower, found.upper, found.points, known.nodes, known.leaves)
    still = np.flatnonzero(~known.finished & ~found.refuted)
    if planar and nodes > PLAIN_NODES and still.size and not ended() and time.perf_counter() < deadline:
        return _better(signs, still, grown(still, nodes - PLAIN_NODES, True))
    return signs


def _better(signs: Signs, rows: IndexArray, grown: Grown) -> Signs:
    """With what a second search says of some of the rows, where it says more."""
    lower, nodes = signs.lower.copy(), signs.nodes.copy()
    more = grown.lower > lower[rows]
    lower[rows] = np.where(more, grown.lower, lower[rows])
    nodes[rows] += grown.nodes
    if signs.leaves is None or grown.leaves is None:
        return replace(signs, lower=lower, nodes=nodes)
    old = signs.leaves.take(~np.isin(signs.leaves.tree, rows[more]))
    new = grown.leaves.take(more[grown.leaves.tree]).renumbered(rows)
    return replace(signs, lower=lower, nodes=nodes, leaves=Forest.joined([old, new]))
