"""Which rows of a problem are above a mark everywhere: trees over ReLU phases for all rows, and the points they meet.

A tree that is not small begins again with planes of the first layer (plane_trees.py), where that can have any: they
take as long as some hundreds of nodes, and spare most of those of a larger tree. A row is proven once all leaves of its
tree are certified above settings.stop_at, refuted once a replayed point is not. Points come from the worst nodes' x̃
(phase_trees.py), a few per round.

Checked: leaves, in float64; points, by replay. Trusted: nothing of the search.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from toolkit.arrays import BoolArray, FloatArray, IndexArray
from toolkit.certificates.leaves import Forest
from toolkit.problems.problem import Problem
from toolkit.search.array_makers import ArrayMaker
from toolkit.search.forecast import Hopeless
from toolkit.search.hull_planes import takes_planes
from toolkit.search.incumbent import STOP_MARGIN
from toolkit.search.phase_trees import Grown, PhaseTrees
from toolkit.search.plane_trees import PlaneTrees

REPLAYED = 8  # points per round
PLAIN_NODES = 256  # of a row's tree before it begins again with planes
SHALLOW_NODES = 14  # the same where no other layer is: planes then are all that its bound lacks


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


def uses_planes(problem: Problem, budget: int | None) -> bool:
    """Whether a tree that is not small, of so many nodes (None: any number), begins again with planes: elsewhere than
    on a core wide batches of plain nodes are cheaper, since planes are raised root by root."""
    planar = takes_planes(problem) and problem.settings.device == "cpu"
    return planar and _nodes_for_all(problem, budget) > _plain_nodes(problem)


def _plain_nodes(problem: Problem) -> int:
    return SHALLOW_NODES if len(problem.relu_bounds.lower) == 1 else PLAIN_NODES


def _nodes_for_all(problem: Problem, budget: int | None) -> int:
    """Nodes that a row gets however hopeless it looks."""
    nodes = np.iinfo(np.int64).max if budget is None else budget
    return nodes if budget is None or problem.settings.hopeless is None else problem.settings.hopeless


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
    planar = uses_planes(problem, budget)
    plain = _plain_nodes(problem)

    def stopped() -> BoolArray:
        refuted = found.refuted
        return np.full(count, True) if problem.settings.until_refuted and refuted.any() else refuted

    after = _nodes_for_all(problem, budget)
    hopeless = Hopeless(aim, min(after, plain) if planar else after, nodes)
    first = np.full(count, min(nodes, plain) if planar else nodes)
    plain_trees = PhaseTrees(problem, aim, first, deadline, keep, make)
    grown = plain_trees.grow(lambda trees: stopped() | hopeless(trees), found.offer)
    still = np.flatnonzero(~grown.finished & ~stopped())
    if planar and still.size and time.perf_counter() < deadline:
        trees = PlaneTrees(problem, aim, after - plain, deadline, keep, make)
        grown = _better(grown, trees.grow(still, stopped, found.offer))
    return Signs(grown.lower, found.upper, found.points, grown.nodes, grown.leaves)


def _better(one: Grown, other: Grown) -> Grown:
    """What two searches say of the rows together: of each the one that says more."""
    more, leaves = other.lower > one.lower, None
    if one.leaves is not None and other.leaves is not None:
        leaves = Forest.joined([one.leaves.take(~more[one.leaves.tree]), other.leaves.take(more[other.leaves.tree])])
    lower = np.where(more, other.lower, one.lower)
    return Grown(lower, one.finished | other.finished, one.nodes + other.nodes, leaves)
