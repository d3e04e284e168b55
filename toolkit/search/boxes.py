"""Branch and bound over the box of inputs: sub-boxes in batches, many rows' trees in one queue.

A node is (sub-box, row). Its l,u come from one pass of zonotopes (box_ranges.py), its bound from walks back on them
(box_bounds.py); a node that stays open gets CROWN's l,u where its unstable neurons are few, and a few steps up the
gradient of the slopes. All of it is certified as it is computed, so that the search trusts nothing and no leaf needs a
second look. What is open is halved at the coordinate of the largest

    |ν_j|·width_j + Σ_i |ν_i|·(−s_i·l_i)·(share of coordinate j in neuron i's range):

what the input's own functional loses, and what the triangles lose that shrink with it (without the second term, ACAS
Xu's property 1 takes 1000 times the boxes). The worst nodes go first, relative to each row's own scale; the corners
where their functionals are least are replayed, and the best now and then descended from.

A tree ends where every part of it reaches the row's cutoff (search/incumbent.py), at a point that refutes it, at its
budget or when the clock strikes; its lower bound is the least over all parts, whenever that is.

Source: Wang et al. 2018, "Formal security analysis of neural networks using symbolic intervals" (splits of inputs).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from toolkit.arrays import BoolArray, FloatArray, IndexArray
from toolkit.certificates.box_bounds import STEPS, BoxColumns, BoxRows, ColumnBound
from toolkit.certificates.box_ranges import BoxRanges, box_ranges, free_inputs
from toolkit.certificates.coverage import BoxTree
from toolkit.networks.kernel_operators import KernelOperator
from toolkit.problems.boxes import BoxShaped
from toolkit.problems.problem import Problem
from toolkit.problems.reduced import alive_network
from toolkit.search.box_queue import BoxNodes, BoxQueue
from toolkit.search.box_trees import TreeRecord
from toolkit.search.clock import Clock
from toolkit.search.descent import polish
from toolkit.search.incumbent import Incumbent

SYMBOL_ENTRIES = 1 << 19  # neurons × boxes × symbols in the widest layer of a batch: what a cache holds
WIDEST = 1024  # boxes in a batch
SAVED = 10.0  # nodes below one that refinement closes
MOST_INPUTS = 16  # that are no points, of problems that are for boxes
DESCENT_STEPS = (1.0, 0.2)  # the first of a descent, of the whole box; in turns
DESCENTS = 8  # points that a descent starts from
BETWEEN_DESCENTS = 160  # nodes, from which on a descent costs little beside them; fewer at first


@dataclass(frozen=True, eq=False)
class BoxAnswer:
    """What a search proved, per row: certified lower; upper, the least replayed value, and its point; nodes; whether
    every part of the tree was closed, or a point refutes the row; and the trees, where they were asked for."""

    lower: FloatArray
    upper: FloatArray
    witnesses: tuple[FloatArray | None, ...]
    nodes: IndexArray
    finished: BoolArray
    trees: tuple[BoxTree, ...] = field(default=(), repr=False)


@dataclass(frozen=True, eq=False)
class BoxBound:
    """A batch's answers. value: certified, (B,). score: of every coordinate as one to halve, (B, n); points: the
    corners where the functionals are least, (B, n); both of the nodes `open`, by index."""

    value: FloatArray
    open: IndexArray
    score: FloatArray
    points: FloatArray


class RefinementWorth:
    """Whether better l,u of a node's unstable neurons pay, by how often they closed nodes of as many before.

    Refining costs about count/12 of a node; what it closes saves the nodes below, SAVED of them.
    """

    def __init__(self, saved: float) -> None:
        self.saved = saved
        self.tried, self.closed = np.ones(64), np.ones(64)

    @staticmethod
    def _bucket(count: FloatArray) -> IndexArray:
        return np.asarray(np.ceil(2.0 * np.log2(np.maximum(count, 1.0))), dtype=np.int64)

    def asks(self, count: FloatArray) -> BoolArray:
        """Of every node, by the number of its unstable neurons from the second layer on."""
        rate = (self.closed / self.tried)[self._bucket(count)]
        return (count > 0) & (rate * self.saved * 12.0 >= count)

    def learn(self, count: FloatArray, closed: BoolArray) -> None:
        bucket = self._bucket(count)
        np.add.at(self.tried, bucket, 1.0)
        np.add.at(self.closed, bucket, closed)
        decay = self.tried > 1000.0
        self.tried[decay] *= 0.5
        self.closed[decay] *= 0.5


class BoxBounder:
    """Bounds of a problem's rows over sub-boxes of its input set."""

    def __init__(self, problem: Problem, steps: int = STEPS, saved: float = SAVED) -> None:
        self.rows = BoxRows(problem)
        self.maps = self.rows.maps
        self.steps, self.worth = steps, RefinementWorth(saved)
        self.widest = max((int(low.size) for low in self.maps.lower if low.size), default=1)
        self.symbols = self.maps.free.size + sum(int(low.size) for low in self.maps.lower)

    @property
    def batch(self) -> int:
        """How many boxes to ask for at once, by the symbols the last ones had."""
        return int(np.clip(SYMBOL_ENTRIES // (self.widest * max(1, self.symbols)), 1, WIDEST))

    def __call__(self, lower: FloatArray, upper: FloatArray, row: IndexArray, cutoff: FloatArray) -> BoxBound:
        """lower, upper: (B, n); row, cutoff: (B,): a bound at or above the cutoff is enough."""
        with np.errstate(all="ignore"):  # what overflows proves nothing
            return self._bound(lower, upper, row, cutoff)

    def _bound(self, lower: FloatArray, upper: FloatArray, row: IndexArray, cutoff: FloatArray) -> BoxBound:
        low, high = np.ascontiguousarray(lower.T), np.ascontiguousarray(upper.T)
        ranges = box_ranges(self.maps, low, high, shares=True)
        self.symbols = max(ranges.symbols, self.maps.free.size)
        columns = self.rows.columns(low, high, row, ranges)
        found = columns.better()
        value = found.value.copy()
        still = np.flatnonzero(~(value >= cutoff))
        if still.size:
            columns, found, tried = self._harder(columns, found, still, row, cutoff[still])
            value[still] = np.maximum(value[still], tried)
            left = np.flatnonzero(~(value[still] >= cutoff[still]))
            still = still[left]
        else:
            left = still
        score = self._score(columns, found, ranges, still, left)
        return BoxBound(value, still, score, columns.minimisers(found)[:, left].T)

    def _harder(
        self, columns: BoxColumns, found: ColumnBound, still: IndexArray, row: IndexArray, cutoff: FloatArray
    ) -> tuple[BoxColumns, ColumnBound, FloatArray]:
        """The open nodes again, on better l,u where these are cheap, and with better slopes."""
        low, high = columns.lower[:, still], columns.upper[:, still]
        ranges = columns.ranges.take(still)
        count = sum((ranges.unstable(k).sum(axis=0) for k in range(1, len(ranges))), np.zeros(still.size))
        few = np.flatnonzero(self.worth.asks(count))
        if few.size:
            better = self.rows.refined(low[:, few], high[:, few], ranges.take(few))
            for k in range(1, len(ranges)):
                sides = ranges.lower[k].copy(), ranges.upper[k].copy()
                sides[0][:, few], sides[1][:, few] = better.lower[k], better.upper[k]
                ranges.replace(k, *sides)
        columns = self.rows.columns(low, high, row[still], ranges)
        found = columns.better()
        if self.steps:
            found = columns.ascended(found, self.steps)
        self.worth.learn(count[few], found.value[few] >= cutoff[few])
        return columns, found, found.value

    def _score(
        self, columns: BoxColumns, found: ColumnBound, ranges: BoxRanges, still: IndexArray, left: IndexArray
    ) -> FloatArray:
        """What halving each coordinate may gain, (open, n); `left`: the open ones among the columns."""
        width = columns.upper[:, left] - columns.lower[:, left]
        score = (np.abs(found.nu[:, left]) * width).T
        step = found.step
        for k in step.positive:
            loss = (step.positive[k] - step.negative[k])[:, left] * columns.ranges.height[k][:, left]
            score[:, self.maps.free] += np.einsum("ij,ijf->jf", loss, ranges.shares[k][:, still])
        splittable = np.zeros(width.shape[0], dtype=np.bool_)
        splittable[self.maps.free] = True
        return np.where(splittable, np.nan_to_num(score), -1.0)


def search_boxes(
    problem: Problem,
    clock: Clock,
    budget: int | None = None,
    keep: bool = False,
    first_refuted: bool = False,
) -> BoxAnswer:
    """Branch and bound for all rows. budget: nodes per row, None: no limit. keep: the trees as well. first_refuted:
    whether one refuted row ends them all. Raises as `BoxRows`."""
    search = _BoxSearch(problem, clock, budget, keep)
    return search.run(first_refuted)


class _BoxSearch:
    """One search: the queue, and what is known of every row."""

    def __init__(self, problem: Problem, clock: Clock, budget: int | None, keep: bool) -> None:
        self.problem, self.clock = problem, clock
        self.budget = np.inf if budget is None else budget
        rows = len(problem.objective)
        clean = problem.clean_values()
        self.incumbents = [Incumbent(problem.settings, value, 0.0) for value in clean.tolist()]
        self.record = TreeRecord(rows) if keep else None
        self.bounder = BoxBounder(problem)
        self.lower, self.nodes = np.full(rows, np.inf), np.zeros(rows, dtype=np.int64)
        self.given_up = np.zeros(rows, dtype=np.bool_)
        self.open = np.ones(rows, dtype=np.int64)  # parts of every row that are in the queue
        self.free = self.bounder.maps.free
        self.queue = BoxQueue(self.free.size)
        box = problem.input_set
        self._push(
            np.tile(box.lower, (rows, 1)), np.tile(box.upper, (rows, 1)), np.arange(rows), np.full(rows, -np.inf)
        )
        self.descents = self.descended_at = 0
        self._offer(box.center[None])

    def run(self, first_refuted: bool) -> BoxAnswer:
        while len(self.queue) and not self.clock.struck:
            refuted = np.array([one.refuted for one in self.incumbents])
            if first_refuted and refuted.any():
                break
            cutoff = np.array([one.cutoff for one in self.incumbents])
            nodes = self.queue.take(self.bounder.batch)
            done = refuted[nodes.row] | (self.nodes[nodes.row] >= self.budget)
            # a kept tree's leaves are proven by their own bounds, not by their parents'
            done |= (nodes.bound >= cutoff[nodes.row]) & (self.record is None)
            self._close(nodes.row[done], nodes.bound[done], cutoff)
            if not done.all():
                self._expand(self._whole(nodes.take(np.flatnonzero(~done))), cutoff)
        return self._answer()

    def _whole(self, nodes: BoxNodes) -> BoxNodes:
        """The nodes with all coordinates: the queue holds the free ones, since a picture's others would fill memory."""
        box, count = self.problem.input_set, nodes.row.size
        lower, upper = np.tile(box.lower, (count, 1)), np.tile(box.upper, (count, 1))
        lower[:, self.free], upper[:, self.free] = nodes.lower, nodes.upper
        return replace(nodes, lower=lower, upper=upper)

    def _expand(self, nodes: BoxNodes, cutoff: FloatArray) -> None:
        """Bound the nodes; close those that reach the cutoff, halve the others."""
        row = nodes.row
        np.add.at(self.nodes, row, 1)
        found = self.bounder(nodes.lower, nodes.upper, row, cutoff[row])
        value = found.value if self.record is not None else np.maximum(found.value, nodes.bound)
        for i in np.flatnonzero(nodes.bound == -np.inf).tolist():  # roots
            self.incumbents[int(row[i])].measure(float(value[i]))
        if found.open.size and not self.clock.struck:
            values = self._offer(found.points)
            total = int(self.nodes.sum())
            if total - self.descended_at >= min(BETWEEN_DESCENTS, total // 4):
                self.descended_at = total
                self._descend(row[found.open], found.points, values)
        closed = np.ones(row.size, dtype=np.bool_)
        closed[found.open] = value[found.open] >= cutoff[row[found.open]]
        axis, cut, can = self._halves(nodes, found)
        stuck = found.open[~can & ~closed[found.open]]
        self.given_up[row[stuck]] = True
        closed[stuck] = True
        self._close(row[closed], value[closed], cutoff)
        rest = ~closed[found.open]
        self._split(nodes.take(found.open[rest]), value[found.open[rest]], axis[rest], cut[rest])

    @staticmethod
    def _halves(nodes: BoxNodes, found: BoxBound) -> tuple[IndexArray, FloatArray, BoolArray]:
        """The coordinate and where to cut it, of every open node, and whether any can be cut."""
        low, high = nodes.lower[found.open], nodes.upper[found.open]
        middle = 0.5 * low + 0.5 * high
        score = np.where((low < middle) & (middle < high), found.score, -1.0)
        axis = score.argmax(axis=1)
        own = np.arange(axis.size)
        return axis, middle[own, axis], score[own, axis] >= 0

    def _split(self, nodes: BoxNodes, value: FloatArray, axis: IndexArray, cut: FloatArray) -> None:
        own = np.arange(axis.size)
        below, above = nodes.upper.copy(), nodes.lower.copy()
        below[own, axis] = above[own, axis] = cut
        first = np.zeros(axis.size, dtype=np.int64)
        if self.record is not None:
            first = self.record.split(nodes.name, axis, cut)
        self.open -= np.bincount(nodes.row, minlength=self.open.size)
        self._push(nodes.lower, below, nodes.row, value, first)
        self._push(above, nodes.upper, nodes.row, value, first + 1)

    def _push(
        self, lower: FloatArray, upper: FloatArray, row: IndexArray, bound: FloatArray, name: IndexArray | None = None
    ) -> None:
        marks = np.array([one.clean for one in self.incumbents])
        scale = np.array([max(one.drop, 1e-300) for one in self.incumbents])
        with np.errstate(over="ignore", invalid="ignore"):
            key = np.nan_to_num((bound - marks[row]) / scale[row], nan=0.0)
        ends = lower[:, self.free], upper[:, self.free]
        self.queue.push(BoxNodes(*ends, row, bound, key, row if name is None else name))
        if name is not None:
            self.open += np.bincount(row, minlength=self.open.size)

    def _close(self, row: IndexArray, bound: FloatArray, cutoff: FloatArray) -> None:
        """Nothing more is done about these parts."""
        np.minimum.at(self.lower, row, bound)
        self.given_up[row[bound < cutoff[row]]] = True
        self.open -= np.bincount(row, minlength=self.open.size)

    def _offer(self, points: FloatArray) -> FloatArray:
        """Replay points, moved into the set, for all rows; their values, (K, m)."""
        box = self.problem.input_set
        inside = box.project(points)
        values = self.problem.replay(inside)
        values = np.where(np.isfinite(values), values, np.inf)
        for row, (one, point) in enumerate(zip(self.incumbents, values.argmin(axis=0).tolist(), strict=True)):
            value = float(values[point, row])
            if value < one.upper and box.contains(inside[point]):
                one.offer(inside[point].copy(), value)
        return values

    def _descend(self, row: IndexArray, points: FloatArray, values: FloatArray) -> None:
        """Descend on one row, the next in turn, from the corners of its parts in the batch that are lowest."""
        rows = [r for r in np.unique(row).tolist() if not self.incumbents[r].refuted]
        if not rows:
            return
        turn, self.descents = self.descents, self.descents + 1
        chosen = rows[turn % len(rows)]
        own = np.flatnonzero(row == chosen)
        starts = points[own[np.argsort(values[own, chosen], kind="stable")[:DESCENTS]]]
        one = self.problem.with_rows(self.problem.rows[[chosen]]).with_settings(self.clock.rest())
        for bound in polish(one, starts, DESCENT_STEPS[turn // len(rows) % len(DESCENT_STEPS)]):
            if bound.witness is not None:
                self._offer(bound.witness[None])

    def _answer(self) -> BoxAnswer:
        refuted = np.array([one.refuted for one in self.incumbents])
        finished = refuted | ((self.open == 0) & ~self.given_up)
        rest = self.queue.take(len(self.queue))
        np.minimum.at(self.lower, rest.row, rest.bound)
        upper = np.array([one.upper for one in self.incumbents])
        witnesses = tuple(one.witness for one in self.incumbents)
        trees = () if self.record is None else tuple(self.record.trees())
        return BoxAnswer(np.minimum(self.lower, upper), upper, witnesses, self.nodes, finished, trees)


def splits_inputs(problem: Problem) -> bool:
    """Whether a problem's few inputs are to be halved rather than its many ReLUs.

    A box of at most MOST_INPUTS coordinates that are no points, in networks whose maps have matrices.
    """
    if not isinstance(problem.input_set, BoxShaped):
        return False
    stages = alive_network(problem).stages
    if any(isinstance(layer.operand(), KernelOperator) for stage in stages for _, layer in stage.sources):
        return False
    return free_inputs(problem.input_set.lower, problem.input_set.upper).size <= MOST_INPUTS
