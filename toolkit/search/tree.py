"""Branch and bound over one objective row: splits of unstable ReLUs over the template's LP and its cuts.

Search: root tightened by the ideal rung's cuts, which hold in the whole region and so serve every node and every later
row; best-first with plunging into the child that agrees with the relaxation's point; branching by pseudo-costs on the
product of both children's gains, started by strong branching and kept up by every node; incumbents from every LP's
minimiser, replayed, and a descent from the root's best. One persistent warm LP: after a split only column bounds
change, so every basis met on the way is dual feasible, and a node's LP stops once its duals reach the cutoff. They are
set back whatever happens. Decisions inside the search rest on float64 bounds of the template; what is handed out does
not. With stop_at, no gap closes a node before its sign is proven. Tolerances are relative to a neuron's range or to the
objective's drop from the ball's centre to the root bound.

Source: Bunel et al. 2020, "Branch and bound for piecewise linear neural network verification"; Achterberg, Koch &
Martin 2005, "Branching rules revisited". Checked: leaf bounds, witnesses. Trusted: given l,u.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, field, replace

import numpy as np

from toolkit.arrays import FloatArray, PhaseArray
from toolkit.certificates.leaves import Evidence, Leaves
from toolkit.certificates.rounding import error_model_of
from toolkit.problems.answers import Bound, Status
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.search.branching import LEAST_GAIN, PseudoCosts
from toolkit.search.cutting_planes import VIOLATION, CuttingPlanes
from toolkit.search.descent import polish
from toolkit.search.lp_bounder import (
    bound_from_report,
    drop_of,
    one_row,
    promised_gap,
    replayed,
)
from toolkit.solvers.solve_report import SolveReport

LP_SLACK = 1e-7  # of a neuron's range: what an LP's own tolerance leaves of y and s at a point on every ReLU
FINE, FINE_SPLITS = 1e-11, 500  # slacks split all the same, so often, where such a point leaves the interval open
TRIALS, RELIABLE, TRIAL_ITERATIONS = 2, 1, 60
CUT_DEPTH = 6
POLISH_STEP = 0.3  # of the descent from the root's best point, in units of ε
CUT_GAIN = 0.2  # share of the open gap that a round of cuts must close for another to follow
STOP_MARGIN = 1e-8  # of the objective's size: a bound must pass a mark by this much, lest certifying take it back
Split = tuple[int, int, float]  # neuron, phase, and how far the parent's point was from it, of the neuron's range
Known = tuple[float, Evidence | None]  # a proven bound and what proves it


@dataclass(order=True)
class Node:
    """A part of the region: phases[i] is 1 (active), 0 (inactive) or −1 (free) for unstable neuron i.

    evidence: what proves its bound. split: what made it of its parent, whose bound was `origin`.
    """

    bound: float
    order: int
    phases: PhaseArray = field(compare=False)
    depth: int = field(compare=False)
    evidence: Evidence | None = field(compare=False, repr=False)
    split: Split | None = field(compare=False, default=None)
    origin: float = field(compare=False, default=-np.inf)


class TreeSearch:
    """One objective row's tree over the region of a CuttingPlanes LP."""

    def __init__(
        self, problem: Problem, planes: CuttingPlanes, row: int, costs: PseudoCosts, keep_leaves: bool = False
    ) -> None:
        self.problem, self.planes, self.settings = one_row(problem, row), planes, problem.settings
        self.session, self.layout = planes.session, planes.layout
        cost, offset = self.layout.objective(self.problem.rows)
        self.cost, self.offset = cost[0], float(offset[0])
        self.costs = costs
        self.leaves = Leaves(error_model_of(problem), self.problem.rows[0], planes.store, keep_leaves)
        self.started = time.perf_counter()
        self.upper = np.inf
        self.witness: FloatArray | None = None
        self.root_bound = -np.inf
        self.clean = float(self.problem.clean_values()[0])
        self.drop = planes.compiled.objective_scale(self.cost) or 1.0
        self.ranges = self.layout.upper - self.layout.lower
        self.fine_splits = 0
        self.closed = np.inf  # least bound of the leaves done with
        self.open: list[Node] = []
        self.unfinished = ""  # why a leaf was closed under the cutoff
        self.nodes = self.iterations = self.made = 0
        model = planes.compiled
        spans = [self.layout.block(name) for name in ("y", "s", "a")]
        self.columns = np.concatenate([np.arange(span.start, span.stop) for span in spans])
        self.free_lower, self.free_upper = model.lower[self.columns], model.upper[self.columns]

    def run(self) -> Bound:
        try:
            root = self.planes.minimize(self.cost, self.offset, self._clocked(), self._root_is_done)
            self.iterations += root.iterations
            self._measure(root)
            if root.bound < self._cutoff() and not self._refuted():
                self._polish()
            if root.status is not Status.FAILED and root.x is not None:
                self._search(root)
            else:
                self._give_up(Node(root.bound, 0, self._all_free(), 0, self.planes.best), root)
        finally:
            self._fix(self._all_free())  # the LP belongs to the region: nothing of this tree may stay in it
        for node in self.open:
            self.leaves.add(node.phases, node.evidence)
        return self._answer(bound_from_report(self.problem, 0, root))

    def _answer(self, base: Bound) -> Bound:
        certified = self.leaves.certified
        if base.status is not Status.FAILED and not certified < np.inf:
            base = replace(base, status=Status.FAILED, message="every part of the ball is empty: l,u are wrong")
        if base.status is Status.FAILED:
            certified = -np.inf
        status, reason = self._status(min(certified, self.upper))
        texts = (base.message, self.unfinished, reason)
        return replace(
            base,
            lower=certified,
            upper=self.upper,
            witness=self.witness,
            slack=None,
            slack_range=None,
            status=status if base.status is not Status.FAILED else Status.FAILED,
            seconds=time.perf_counter() - self.started,
            nodes=self.nodes,
            iterations=self.iterations,
            solver=f"bab/{base.solver}",
            message="; ".join(dict.fromkeys(text for text in texts if text)),
            certified_lower=certified,
            multipliers=None,
            drop=drop_of(self.problem, 0, certified),
        )

    def _measure(self, root: SolveReport) -> None:
        """The unit of every gain and gap of this row: how far the objective drops to the root's bound."""
        if np.isfinite(self.clean - root.bound):
            self.drop = max(self.drop, self.clean - root.bound)

    def _margin(self) -> float:
        """What certifying may take off a bound, with room: relative to the objective's size."""
        return STOP_MARGIN * (self.drop + (abs(self.clean) if np.isfinite(self.clean) else 0.0))

    def _stop(self) -> float | None:
        """Where a node's LP may stop: past the cutoff by what certifying may take off."""
        cutoff = self._cutoff()
        return cutoff + self._margin() if np.isfinite(cutoff) else None

    def _root_is_done(self, report: SolveReport) -> bool:
        """Whether the root's cuts have done their work: at the cutoff, or the last round closed little of the gap."""
        self._try_point(report)
        gained, self.root_bound = report.bound - self.root_bound, max(self.root_bound, report.bound)
        left = self._cutoff() - self.root_bound
        return bool(left <= 0 or gained < CUT_GAIN * left)

    def _all_free(self) -> PhaseArray:
        return np.full(self.layout.count, -1, dtype=np.int8)

    def _close(self, node: Node, bound: float) -> None:
        """A leaf is done with at this bound."""
        self.closed = min(self.closed, bound)
        self.leaves.add(node.phases, node.evidence)

    def _give_up(self, node: Node, report: SolveReport) -> None:
        """The solver left a leaf's LP unfinished and shows nothing to split: what is proven so far has to do."""
        self.unfinished = report.message or f"a node's LP ended as {report.status}"
        self._close(node, max(node.bound, report.bound))

    def _cutoff(self) -> float:
        """A node whose bound reaches this is done with: past stop_at where a sign is asked for, else within the gap."""
        stop = self.settings.stop_at
        if stop is None or self.upper <= stop:
            return self.upper - self._closing_gap()
        return stop + (min(self._margin(), 0.5 * (self.upper - stop)) if np.isfinite(self.upper) else self._margin())

    def _gap(self) -> float:
        return promised_gap(self.settings, self.upper, self.drop) if np.isfinite(self.upper) else 0.0

    def _closing_gap(self) -> float:
        """The promised gap less what certifying may take off the bound."""
        gap = self._gap()
        return max(gap - self._margin(), 0.5 * gap)

    def _refuted(self) -> bool:
        return self.settings.stop_at is not None and self.upper <= self.settings.stop_at

    def _left(self) -> float | None:
        limit = self.settings.time_limit
        return None if limit is None else limit - (time.perf_counter() - self.started)

    def _clocked(self) -> Settings:
        left = self._left()
        return replace(self.settings, time_limit=None if left is None else max(left, 1e-3))

    def _status(self, lower: float) -> tuple[Status, str]:
        """What may be said of [lower, upper], and a reason where that is less than was asked for."""
        stop = self.settings.stop_at
        if stop is not None and (self._refuted() or lower > stop):
            return Status.DECIDED, ""
        if self.open or self.unfinished:
            return Status.TIME_LIMIT, ""
        if self.upper - lower <= self._gap():
            return Status.OPTIMAL, ""
        return Status.COMPUTED, "the search is finished, but rounding leaves its interval wider than the gap"

    def _search(self, root: SolveReport) -> None:
        """Best-first with plunging, until nothing open is under the cutoff or the clock strikes."""
        plunge = self._expand(Node(root.bound, 0, self._all_free(), 0, self.planes.best), root)
        while not self._refuted() and (plunge is not None or self.open):
            left = self._left()
            if left is not None and left <= 0:
                break
            node = plunge if plunge is not None else heapq.heappop(self.open)
            plunge = None
            if node.bound >= self._cutoff():
                self._close(node, node.bound)
                continue
            plunge = self._expand(node, self._solve(node))
        if plunge is not None:
            heapq.heappush(self.open, plunge)

    def _fix(self, phases: PhaseArray) -> None:
        """Column bounds of a node: inactive y = a = 0, active s = 0, a = 1."""
        low, high = self.free_lower.copy(), self.free_upper.copy()
        count = self.layout.count
        inactive, active = np.flatnonzero(phases == 0), np.flatnonzero(phases == 1)
        high[inactive] = high[2 * count + inactive] = 0.0
        high[count + active] = 0.0
        low[2 * count + active] = 1.0
        self.session.set_bounds(self.columns, low, high)

    def _solve(self, node: Node) -> SolveReport:
        self._fix(node.phases)
        self.nodes += 1
        report = self._minimize(node)
        if node.split is not None and report.status in (Status.OPTIMAL, Status.DECIDED):
            self._learn(node.split, node.origin, node.bound)
        rounds = 2 if node.depth <= CUT_DEPTH else 0
        while rounds and report.x is not None and report.status is Status.OPTIMAL and report.bound < self._cutoff():
            rows, upper = self.planes.finder.violated(report.x, VIOLATION)
            if not upper.size:
                break
            self.planes.add(report, rows, upper)
            tighter = self._minimize(node)
            worth = tighter.bound > report.bound + CUT_GAIN * (self._cutoff() - report.bound)
            rounds = rounds - 1 if worth else 0
            report = tighter
        self._try_point(report)
        return report

    def _minimize(self, node: Node) -> SolveReport:
        """The node's LP; the node takes its bound if that is better than what it had."""
        report = self.session.minimize(self.cost, self.offset, self._clocked(), cutoff=self._stop())
        self.iterations += report.iterations
        if report.bound > node.bound:
            node.bound, node.evidence = report.bound, self.planes.evidence(report)
        return report

    def _try_point(self, report: SolveReport) -> None:
        """Replay the minimiser's x̃; keep it if it is the best so far."""
        if report.x is None:
            return
        point, value = replayed(self.problem, report.x[: self.layout.inputs])
        if value < self.upper:
            self.upper, self.witness = value, point

    def _polish(self) -> None:
        """Descend from the best point so far: a first incumbent that is good makes the tree small."""
        if self.witness is None:
            return
        (found,) = polish(self.problem.with_settings(self._clocked()), self.witness, POLISH_STEP)
        if found.upper < self.upper:
            self.upper, self.witness = found.upper, found.witness

    def _expand(self, node: Node, report: SolveReport) -> Node | None:
        """Close a node or split it: one child goes to the heap, the other is returned to be plunged into."""
        bound = max(node.bound, report.bound)
        if bound >= self._cutoff():
            self._close(node, bound)
            return None
        if report.x is None:
            self._give_up(node, report)
            return None
        y, s = report.x[self.layout.block("y")], report.x[self.layout.block("s")]
        y, s = y / self.ranges, s / self.ranges
        slack = np.where(node.phases < 0, np.minimum(y, s), 0.0)
        if self._on_every_relu(slack, bound):
            if report.status is not Status.OPTIMAL:  # a point on every ReLU, but not the LP's least
                self._give_up(node, report)
            else:
                self._close(node, bound)  # feasible for the MILP: nothing better in here
            return None
        neuron, children_known = self._branch(node, bound, y, s, slack)
        children = []
        for phase in (0, 1):
            phases = node.phases.copy()
            phases[neuron] = phase
            self.made += 1
            known, evidence = children_known[phase]
            split = neuron, phase, float((y, s)[phase][neuron])
            children.append(Node(known, self.made, phases, node.depth + 1, evidence, split, bound))
        first = 1 if y[neuron] > s[neuron] else 0
        heapq.heappush(self.open, children[1 - first])
        return children[first]

    def _on_every_relu(self, slack: FloatArray, bound: float) -> bool:
        """Whether the LP's point is a point of the network, as far as the LP's tolerance can say.

        Where such a point does not close the interval, slacks under the tolerance are split as well, down to FINE.
        """
        largest = float(slack.max(initial=0.0))
        if largest <= FINE or largest > LP_SLACK:
            return largest <= FINE
        if self.settings.stop_at is None and self.upper - bound <= self._closing_gap():
            return True
        self.fine_splits += 1
        return self.fine_splits > FINE_SPLITS

    def _branch(
        self, node: Node, bound: float, y: FloatArray, s: FloatArray, slack: FloatArray
    ) -> tuple[int, tuple[Known, Known]]:
        """The neuron to split and what is proven of its children (by strong branching where that was done).

        y, s and slack in units of each neuron's range."""
        least = LP_SLACK if slack.max() > LP_SLACK else FINE
        score = np.where(slack > least, self.costs.estimate(y, s), -1.0)
        candidates = np.argsort(-score)[:TRIALS]
        parent = bound, node.evidence
        best, best_score, best_known = -1, -1.0, (parent, parent)
        for neuron in candidates.tolist():
            if score[neuron] < 0:
                break
            known = (parent, parent)
            value = float(score[neuron])
            if self.costs.seen[:, neuron].min() < RELIABLE:
                known = self._try_children(node, neuron, bound, float(y[neuron]), float(s[neuron]))
                gains = [max((child - bound) / self.drop, LEAST_GAIN) for child, _ in known]
                value = gains[0] * gains[1]
            if value > best_score:
                best, best_score, best_known = neuron, value, known
        return best, best_known

    def _learn(self, split: Split, origin: float, bound: float) -> None:
        """A split raised the bound from `origin` to `bound`; more than what closes a node is of no use to anybody."""
        neuron, phase, distance = split
        useful = min(bound, self._cutoff() + LEAST_GAIN * self.drop) if np.isfinite(self.upper) else bound
        self.costs.learn(neuron, phase, max(0.0, useful - origin) / self.drop, distance)

    def _try_children(self, node: Node, neuron: int, bound: float, y: float, s: float) -> tuple[Known, Known]:
        """Strong branching: both children's LPs for a few iterations; their duals prove bounds all the same."""
        found: list[Known] = []
        for phase, distance in ((0, y), (1, s)):
            phases = node.phases.copy()
            phases[neuron] = phase
            self._fix(phases)
            report = self.session.minimize(self.cost, self.offset, self._clocked(), TRIAL_ITERATIONS, self._stop())
            self.iterations += report.iterations
            child = max(bound, report.bound)
            self._learn((neuron, phase, distance), bound, child)
            better = report.bound > bound
            found.append((child, self.planes.evidence(report) if better else node.evidence))
        return found[0], found[1]
