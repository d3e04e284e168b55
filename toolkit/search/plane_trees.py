"""Trees over phases with planes of the first layer, in stages: the nodes that a small tree leaves open begin trees.

A tree's planes are the best for its root; a few splits further on others are. So every tree gets few nodes, and each
node then open is the root of another, whose planes are raised from those of the tree it was in: about as dear as some
dozens of nodes, for a bound that only several splits would reach. A few roots at a time are split, those found last
first, which holds no more planes than a way down has.

Checked: every leaf (phase_trees.py). Trusted: nothing of the search.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from toolkit.arrays import BoolArray, FloatArray, IndexArray
from toolkit.certificates.leaves import Forest, SharedCuts, forest_leaf_bounds
from toolkit.certificates.rounding import error_model_of
from toolkit.problems.problem import Problem
from toolkit.search.array_makers import ArrayMaker, on_host
from toolkit.search.dual_function import DualFunction
from toolkit.search.hull_planes import FirstLayer, NodePlanes
from toolkit.search.node_ascent import Pace
from toolkit.search.phase_trees import Grown, Offer, PhaseTrees, Roots, leaves_of

OF_ROWS, OF_NODES = Pace(60, 0.3, 0.02), Pace(5, 0.1, 0.03)
TREE_NODES, SMALL_LAYER_NODES = 254, 2046  # of one tree: seven splits in a row, ten where nodes are the cheaper way
SMALL_LAYER = 100_000  # weights of the first layer, from where on passes over all shares, not calls, take the time
ROOTS = 16  # at a time


class PlaneTrees:
    """The trees of a problem's rows. cutoff: (T,), budget: nodes per row; the others as of PhaseTrees."""

    def __init__(
        self,
        problem: Problem,
        cutoff: FloatArray,
        budget: int,
        deadline: float = np.inf,
        keep: bool = False,
        make: ArrayMaker | None = None,
    ) -> None:
        self.problem, self.cutoff, self.budget, self.deadline = problem, cutoff, budget, deadline
        self.keep, self.make = keep, make
        count = problem.rows.shape[0]
        self.nodes, self.closed = np.zeros(count, dtype=np.int64), np.full(count, np.inf)
        self.kept: list[Forest] = []

    def grow(self, rows: IndexArray, stopped: Callable[[], BoolArray], offer: Offer | None = None) -> Grown:
        """Split the trees of these rows until they have ended; stopped: which of all rows to give up. offer: as of
        PhaseTrees. Rows without a tree, and all where the first layer has no planes, get −inf and count as open."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # NaN and ±inf prove nothing
            return self._grown(rows, stopped, offer)

    def _grown(self, rows: IndexArray, stopped: Callable[[], BoolArray], offer: Offer | None) -> Grown:
        finished = np.zeros(self.nodes.size, dtype=np.bool_)
        function = DualFunction(self.problem, self.make)
        layer = FirstLayer.of(self.problem, function.make)
        if layer is not None:
            finished[rows] = True
            waiting, over = _several(_of_rows(function, layer, rows)), []
            while waiting:
                roots = waiting.pop()
                if np.all(self._ended(stopped)[roots.row]):
                    over.append(roots)
                    finished[roots.row] = False
                    continue
                more, opened = self._split(roots, stopped, offer)
                finished[opened] = False
                waiting += _several(more)
            self._close(over)
        leaves = Forest.joined([Forest.none(function.size), *self.kept]) if self.keep else None
        return Grown(np.where(self.closed < np.inf, self.closed, -np.inf), finished, self.nodes, leaves)

    def _ended(self, stopped: Callable[[], BoolArray]) -> BoolArray:
        """Which of all rows are given up, have spent their nodes, or have no time left."""
        late = time.perf_counter() > self.deadline
        return np.asarray(stopped() | (self.nodes >= self.budget) | late)

    def _split(self, roots: Roots, stopped: Callable[[], BoolArray], offer: Offer | None) -> tuple[Roots, IndexArray]:
        """Trees from these roots: what is open becomes roots, or leaves of rows that have ended, which are named."""
        row = roots.row
        nodes = TREE_NODES if roots.layer.entries >= SMALL_LAYER else SMALL_LAYER_NODES
        budget = np.minimum(nodes, np.maximum(self.budget - self.nodes[row], 0))
        trees = PhaseTrees(self.problem, self.cutoff[row], budget, self.deadline, self.keep, roots=roots)
        trees.given_up = self._ended(stopped)[row]
        trees.split(lambda _: self._ended(stopped)[row], offer)
        np.add.at(self.nodes, row, trees.nodes)
        left = trees.pool.get(np.arange(trees.pool.tree.size))
        over = self._ended(stopped)[row[left.tree]]
        trees.close(np.flatnonzero(over))
        np.minimum.at(self.closed, row, trees.closed)
        self.kept += [Forest.joined(trees.kept)] if trees.kept else []
        for one in trees.cuts:
            one.forget()
        tree, phases, duals = left.tree[~over], left.phases[:, ~over], left.duals[:, ~over]
        planes, cuts = [trees.planes[t] for t in tree.tolist()], [trees.cuts[t] for t in tree.tolist()]
        found = Roots(roots.function, roots.layer, row[tree], phases, duals, planes, cuts, OF_NODES)
        return found, np.unique(row[left.tree[over]])

    def _close(self, waiting: list[Roots]) -> None:
        """Roots for which no time is left become leaves, with the planes that they have; those of the same together."""
        nodes = [(roots, t, id(plane)) for roots in waiting for t, plane in enumerate(roots.planes)]
        for name in dict.fromkeys(which for _, _, which in nodes):
            own = [(roots, t) for roots, t, which in nodes if which == name]
            (roots, first), row = own[0], np.array([roots.row[t] for roots, t in own])
            phases, duals = (np.stack([getattr(roots, of)[:, t] for roots, t in own], axis=1) for of in NODE)
            family = np.zeros(row.size, dtype=np.int64)
            parts = roots.function.parts(row, phases, NodePlanes([roots.planes[first]], family))
            leaves = leaves_of(parts, row, phases, duals, self.keep, family, [roots.cuts[first]])
            found = forest_leaf_bounds(error_model_of(self.problem), self.problem.rows, leaves)
            np.minimum.at(self.closed, row, found)
            roots.cuts[first].forget()
            self.kept += [leaves] if self.keep else []


NODE = ("phases", "duals")


def _of_rows(function: DualFunction, layer: FirstLayer, rows: IndexArray) -> Roots:
    """Whole trees, at the dual rung's slopes, rounded, and planes alone where ν < 0 in the first layer."""
    start = np.clip(np.rint(function.starting_slopes()[0]), 0.0, 1.0)
    own = function.own[0]
    duals = np.repeat(start, rows.size, axis=1)
    arriving = on_host(function.parts(rows).sweep(function.make(duals)).arriving)
    duals[own] = np.where(arriving[own] < 0, 1.0, duals[own])
    plane = layer.plane(layer.chords())
    shares = on_host(plane.shares)
    cuts = SharedCuts(np.arange(len(shares)), shares)
    phases = np.full((function.size, rows.size), -1, dtype=np.int8)
    return Roots(function, layer, rows, phases, duals, [plane] * rows.size, [cuts] * rows.size, OF_ROWS)


def _several(roots: Roots) -> list[Roots]:
    """Some at a time."""
    count = roots.row.size
    parts = np.array_split(np.arange(count), -(-count // ROOTS)) if count else []
    return [
        replace(
            roots,
            row=roots.row[some],
            phases=roots.phases[:, some],
            duals=roots.duals[:, some],
            planes=[roots.planes[t] for t in some.tolist()],
            cuts=[roots.cuts[t] for t in some.tolist()],
        )
        for some in parts
    ]
