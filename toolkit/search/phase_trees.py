"""Branch and bound over ReLU phases for many objective rows at once: the queue, whose nodes are arrays.

Every row has a tree. In each round the worst open nodes of all trees, up to a width together, are split: of the free
neurons with the highest scores (node_ascent.py) the one whose children's bounds at the parent's dual variables are
best; the children ascend from there, all trees' in one batch. A node whose bound reaches its row's cutoff is certified
at once (forest_leaf_bounds, float64, rounding included); one that fails stays open, and so is split on. A tree ends
when nothing is open, by its budget of nodes, by the clock, or when it is given up; the nodes then open are certified
too: leaves cover the region whenever the search ends, and the least of their certified bounds is the row's.

Trees that begin at given nodes (Roots) have planes of their own (hull_planes.py), found in an ascent at the root.

Source: Bunel et al. 2020, "Branch and bound for piecewise linear neural network verification"; Xu et al. 2021, "Fast
and complete" (batches). Checked: every leaf. Trusted: nothing of the search.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from toolkit.arrays import Array, BoolArray, FloatArray, IndexArray, PhaseArray
from toolkit.certificates.leaves import Forest, SharedCuts, forest_leaf_bounds
from toolkit.certificates.rounding import error_model_of
from toolkit.problems.problem import Problem
from toolkit.search.array_makers import ArrayMaker, on_host
from toolkit.search.dual_function import DualFunction, Parts
from toolkit.search.hull_planes import FirstLayer, NodePlanes, Plane
from toolkit.search.node_ascent import Climbed, Pace, ascend
from toolkit.search.node_pool import NodePool, OpenNodes
from toolkit.search.phase_splits import best_scores, children
from toolkit.search.plane_ascent import Raised, raise_planes

ROOT, CHILD, PLANTED = Pace(30), Pace(10, 0.2, 0.03), Pace(0)
LAST = (Pace(100, 0.5, 0.01), Pace(100, 0.1, 0.001))  # of a node with nothing left to split
TRIES = 3  # neurons tried per split
WIDTH, DEVICE_WIDTH = 256, 4096  # nodes split per round, on a core and elsewhere
BATCH_ENTRIES, DEVICE_ENTRIES = 1 << 21, 1 << 27  # numbers in a batch's widest array
SLIGHT = 1e-6
SMALLEST_SAMPLE, LARGEST_SAMPLE = 16, 64  # nodes certified to see what it takes
POOL_BYTES = 1 << 30  # of open nodes, from where on the best are split first, which frees more than it takes

Stopped = Callable[["PhaseTrees"], BoolArray]
Offer = Callable[[IndexArray, FloatArray], None]


@dataclass(frozen=True, eq=False)
class Roots:
    """Where trees with planes begin, T nodes. row: (T,) of the problem; phases, duals: (N, T); planes and their cuts:
    of the tree that each was a node of; pace: how far to raise them."""

    function: DualFunction
    layer: FirstLayer
    row: IndexArray
    phases: PhaseArray
    duals: FloatArray
    planes: list[Plane]
    cuts: list[SharedCuts]
    pace: Pace


@dataclass(frozen=True)
class Grown:
    """What the trees of all rows proved. lower: certified, (T,). finished: whether no node was left open below the
    cutoff. nodes: per tree, the root not counted. leaves: all of them, where they were to be kept."""

    lower: FloatArray
    finished: BoolArray
    nodes: IndexArray
    leaves: Forest | None


class PhaseTrees:
    """The trees of a problem's rows, or of the nodes `roots`.

    cutoff: what a node must reach, certified, (T,). budget: nodes per tree. deadline: of time.perf_counter(). keep:
    hold all leaves, for a proof, λ in float32 as it stores them. make: as of a DualFunction, where there are no roots.
    """

    def __init__(
        self,
        problem: Problem,
        cutoff: FloatArray,
        budget: IndexArray,
        deadline: float = np.inf,
        keep: bool = False,
        make: ArrayMaker | None = None,
        roots: Roots | None = None,
    ) -> None:
        self.problem, self.cutoff, self.budget, self.deadline = problem, cutoff, budget, deadline
        self.function = DualFunction(problem, make) if roots is None else roots.function
        self.roots, self.row = roots, np.arange(self.function.rows) if roots is None else roots.row
        self.planes = [] if roots is None else list(roots.planes)
        self.cuts = [] if roots is None else list(roots.cuts)
        self.model = error_model_of(problem)
        count = self.row.size
        self.nodes = np.zeros(count, dtype=np.int64)
        self.closed = np.full(count, np.inf)  # the least certified bound of a tree's leaves
        self.planted, self.given_up = np.ones(count, dtype=np.bool_), np.zeros(count, dtype=np.bool_)
        self.slack = np.zeros(count)  # by how much certifying has taken more off than hoped
        self.leaf_seconds, self.sample_from = 0.0, SMALLEST_SAMPLE
        self.kept: list[Forest] | None = [] if keep else None
        self.pool = NodePool(self.function.size, TRIES, on_host(self.function.zero).dtype)
        widest = max(problem.input_set.size, self.function.size, *self.function.alive, 1)
        core = problem.settings.device == "cpu"
        self.width = WIDTH if core else DEVICE_WIDTH
        self.batch = max(1, (BATCH_ENTRIES if core else DEVICE_ENTRIES) // widest)

    def grow(self, stopped: Stopped | None = None, offer: Offer | None = None) -> Grown:
        """Split until every tree has ended. stopped: told after every round, which trees to give up. offer: is given
        x̃ of the worst nodes of a round, (k,) trees and (k, n) points."""
        finished = self.split(stopped, offer)
        self.close(np.arange(self.pool.tree.size))
        leaves = None if self.kept is None else Forest.joined([Forest.none(self.function.size), *self.kept])
        return Grown(np.where(self.closed < np.inf, self.closed, -np.inf), finished, self.nodes, leaves)

    def split(self, stopped: Stopped | None = None, offer: Offer | None = None) -> BoolArray:
        """The same but for the nodes left open, which no leaf covers yet; which trees have none, (T,)."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # NaN and ±inf prove nothing
            self._split_until_ended(stopped, offer)
        finished = self.planted.copy()
        finished[self.pool.tree] = False
        return finished

    def _split_until_ended(self, stopped: Stopped | None, offer: Offer | None) -> None:
        self._plant()
        round_seconds = 0.0
        while True:
            if stopped is not None:
                self.given_up |= stopped(self)
            chosen = self._choose()
            due = round_seconds + self._closing_seconds(chosen.size)
            started = time.perf_counter()
            if not chosen.size or started + due > self.deadline:
                break
            self._split(chosen, offer)
            round_seconds = time.perf_counter() - started

    def _closing_seconds(self, more: int) -> float:
        """What certifying the open nodes and so many more will take, by what it takes for some of them, measured again
        as they become four times as many; 0 for few, where no clock runs, and where `close` is left to others."""
        size = self.pool.tree.size
        if self.roots is not None or self.deadline == np.inf:
            return 0.0
        if size >= self.sample_from and self.sample_from <= LARGEST_SAMPLE:
            some = self.pool.get(np.arange(self.sample_from))
            leaves = self._leaves(some.tree, some.phases, some.duals)
            seconds = []
            for _ in range(2):  # the first call may have to make what later ones find
                started = time.perf_counter()
                forest_leaf_bounds(self.model, self.problem.rows, leaves)
                seconds.append(time.perf_counter() - started)
            self.leaf_seconds = min(seconds) / self.sample_from
            self.sample_from *= 4
        return (size + more) * self.leaf_seconds

    @property
    def won(self) -> BoolArray:
        """Trees all of whose leaves are certified at the cutoff."""
        still = np.zeros(self.nodes.size, dtype=np.bool_)
        still[self.pool.tree] = True
        return self.planted & ~still & (self.closed >= self.cutoff)

    def bounds(self) -> FloatArray:
        """What the search hopes every tree to have proven: the least bound of its nodes, (T,)."""
        bound = np.where(self.planted, self.closed, -np.inf)
        np.minimum.at(bound, self.pool.tree, self.pool.bound)
        return bound

    def _plant(self) -> None:
        """All roots, or those there is time for; the other trees have no node, and prove nothing."""
        every, size = np.arange(self.nodes.size), self.function.size
        if self.roots is not None:
            duals = np.concatenate([self._raise_planes(self.roots, tree) for tree in every.tolist()], axis=1)
            found = ascend(self._parts(every, self.roots.phases), self.function.make(duals), self._aim(every), PLANTED)
            self._settle(every, self.roots.phases, found)
            return
        batch_seconds = 0.0
        for some in np.array_split(every, max(1, -(-every.size // self.batch))):
            started = time.perf_counter()
            if batch_seconds and started + batch_seconds + self._closing_seconds(some.size) > self.deadline:
                self.planted[some[0] :] = False
                break
            phases = np.full((size, some.size), -1, dtype=np.int8)
            parts = self.function.parts(some)
            start = np.clip(np.rint(self.function.starting_slopes()[0]), 0.0, 1.0)
            duals = self.function.make(np.broadcast_to(start, (size, some.size)))
            found = ascend(parts, duals, self._aim(some), ROOT, self.deadline)
            self._settle(some, phases, found)
            batch_seconds = time.perf_counter() - started

    def _raise_planes(self, roots: Roots, tree: int) -> FloatArray:
        """Planes for one root's tree if there is time, and the dual variables (N, 1) that go with them."""
        phases = roots.phases[:, [tree]]
        start = Raised(roots.planes[tree], self.function.make(roots.duals[:, [tree]]), -np.inf)
        if not self.given_up[tree] and time.perf_counter() < self.deadline:
            start = raise_planes(roots.layer, self._parts(np.array([tree]), phases), start, float(self.cutoff[tree]),
                                 roots.pace, self.deadline)  # fmt: skip
            known, self.planes[tree] = self.cuts[tree], start.plane
            self.cuts[tree] = SharedCuts(known.neurons, on_host(start.plane.shares), known)
        return on_host(start.duals)

    def _parts(self, tree: IndexArray, phases: PhaseArray) -> Parts:
        """Nodes to evaluate."""
        return self.function.parts(self.row[tree], phases, NodePlanes(self.planes, tree) if self.planes else None)

    def _aim(self, tree: IndexArray) -> Array:
        """What the search's bounds must reach."""
        return self.function.make(self.cutoff[tree] + self.slack[tree])

    def _choose(self) -> IndexArray:
        """Open nodes to split: the worst of every tree that goes on, as many as the width allows each."""
        pool = self.pool
        ended = self.given_up | (self.nodes >= self.budget)
        going = np.flatnonzero(~ended[pool.tree])
        if not going.size:
            return going
        worst = pool.bound[going] if pool.nbytes < POOL_BYTES else -pool.bound[going]
        order: IndexArray = going[np.lexsort((worst, pool.tree[going]))]
        tree = pool.tree[order]
        first = np.flatnonzero(np.r_[True, tree[1:] != tree[:-1]])
        rank = np.arange(tree.size) - np.repeat(first, np.diff(np.r_[first, tree.size]))
        chosen = order[rank < max(1, self.width // first.size)]
        if chosen.size > self.width:  # more trees than nodes to split: those with the fewest so far
            fewest: IndexArray = np.argsort(self.nodes[pool.tree[chosen]], kind="stable")
            chosen = chosen[fewest[: self.width]]
        return chosen

    def _split(self, chosen: IndexArray, offer: Offer | None) -> None:
        """Both children of every chosen node take its place."""
        some = max(1, self.batch // (2 * TRIES))
        for part in np.array_split(chosen, max(1, -(-chosen.size // some))):
            nodes = self.pool.get(part)
            best = self._best_of_tries(nodes)
            one = best, np.arange(best.size)
            phases, duals = children(nodes.phases, nodes.duals, nodes.candidates[one][None], nodes.arriving[one][None])
            tree, floor = np.tile(nodes.tree, 2), np.tile(nodes.bound, 2)
            np.add.at(self.nodes, tree, 1)
            found = ascend(self._parts(tree, phases), self.function.make(duals), self._aim(tree), CHILD, self.deadline)
            found = replace(found, value=np.fmax(found.value, floor))
            if offer is not None:
                offer(tree, found.points.T)
            self._settle(tree, phases, found)
        self.pool.drop(chosen)

    def _best_of_tries(self, nodes: OpenNodes) -> IndexArray:
        """Which candidate's worse child gains most where it starts, per node, (B,)."""
        tries, count = nodes.candidates.shape
        if tries == 1:
            return np.zeros(count, dtype=np.int64)
        phases, duals = children(nodes.phases, nodes.duals, nodes.candidates, nodes.arriving)
        parts = self._parts(np.tile(nodes.tree, 2 * tries), phases)
        values = on_host(parts.values(self.function.make(duals))).astype(np.float64).reshape(2, tries, count)
        gain = np.maximum(np.minimum(values, self.cutoff[nodes.tree]) - nodes.bound, SLIGHT)
        worth = gain.min(axis=0) + 0.1 * gain.max(axis=0)
        return np.asarray(np.where(nodes.candidates >= 0, worth, -1.0).argmax(axis=0))

    def _settle(self, tree: IndexArray, phases: PhaseArray, found: Climbed) -> None:
        """Nodes above their cutoff are certified; the others, and those that fail, wait to be split."""
        bound = np.asarray(found.value, dtype=np.float64)
        bound[np.isnan(bound)] = -np.inf
        above = np.flatnonzero(bound >= self.cutoff[tree] + self.slack[tree])
        candidates = best_scores(found.scores, phases, TRIES)
        still = np.ones(tree.size, dtype=np.bool_)
        if above.size:
            proven = self._certify(tree[above], phases[:, above], found.duals[:, above])
            fails = proven < self.cutoff[tree[above]]
            lost = np.where(np.isfinite(proven), bound[above] - proven, 0.0)[fails]
            np.maximum.at(self.slack, tree[above[fails]], np.where(np.isfinite(lost), lost, 0.0))
            bound[above] = proven
            still[above] = fails
        whole = still & (candidates[0] < 0)  # nothing left to split
        if whole.any():
            self._finish(tree[whole], phases[:, whole], found.duals[:, whole])
            still &= ~whole
        chosen = candidates[:, still]
        arriving = np.take_along_axis(found.arriving[:, still], np.maximum(chosen, 0), axis=0)
        self.pool.add(OpenNodes(tree[still], bound[still], phases[:, still], found.duals[:, still], chosen, arriving))

    def _finish(self, tree: IndexArray, phases: PhaseArray, duals: FloatArray) -> None:
        """Nodes with nothing left to split become leaves, after a long ascent: that alone can still raise them."""
        parts = self._parts(tree, phases)
        for pace in LAST:
            duals = ascend(parts, self.function.make(duals), self._aim(tree), pace, self.deadline).duals
        self._certify(tree, phases, duals, final=True)

    def _certify(self, tree: IndexArray, phases: PhaseArray, duals: FloatArray, final: bool = False) -> FloatArray:
        """Certified bounds of nodes, (k,); those that reach the cutoff, or all if `final`, become leaves."""
        proven = np.empty(tree.size)
        for some in np.array_split(np.arange(tree.size), max(1, -(-tree.size // self.batch))):
            leaves = self._leaves(tree[some], phases[:, some], duals[:, some])
            found = forest_leaf_bounds(self.model, self.problem.rows, leaves)
            proven[some] = found
            taken = np.ones(some.size, dtype=np.bool_) if final else found >= self.cutoff[tree[some]]
            np.minimum.at(self.closed, tree[some][taken], found[taken])
            if self.kept is not None and taken.any():
                self.kept.append(leaves.take(taken))
        return proven

    def _leaves(self, tree: IndexArray, phases: PhaseArray, duals: FloatArray) -> Forest:
        """Nodes as leaves."""
        return leaves_of(
            self._parts(tree, phases), self.row[tree], phases, duals, self.kept is not None, tree, self.cuts
        )

    def close(self, chosen: IndexArray) -> None:
        """These of the open nodes become leaves."""
        for some in np.array_split(chosen, max(1, -(-chosen.size // self.batch))):
            if some.size:
                nodes = self.pool.get(some)
                with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                    self._certify(nodes.tree, nodes.phases, nodes.duals, final=True)


def leaves_of(
    parts: Parts,
    row: IndexArray,
    phases: PhaseArray,
    duals: FloatArray,
    stored: bool,
    family: IndexArray,
    cuts: Sequence[SharedCuts],
) -> Forest:
    """Nodes (columns) as leaves of their rows' trees, with what their dual variables say; cuts, and which of them each
    node has, are read where the parts have planes. stored: in float32, since what a proof will hold is certified."""
    multipliers, planed = parts.evidence(parts.function.make(duals))
    kind = np.float32 if stored else None
    own = row, np.ascontiguousarray(phases.T), np.ascontiguousarray(on_host(multipliers).T, dtype=kind)
    empty = np.zeros(row.size, dtype=np.bool_)
    if planed is None:
        return Forest(*own, empty)
    return Forest(*own, empty, np.ascontiguousarray(-on_host(planed).T, dtype=kind), family, tuple(cuts))
