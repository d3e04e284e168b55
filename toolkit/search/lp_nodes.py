"""The LP as a tree's bounder: one objective row over the template, its cuts, and the splits of a node as column bounds.

One persistent warm LP: after a split only column bounds change, so every basis met on the way is dual feasible, and a
node's LP stops once its duals reach the cutoff. The root is tightened by the ideal rung's cuts, which hold in the whole
region and so serve every node and every later row; nodes near the root add theirs. Points come from the minimisers,
replayed, and from a descent that starts at the root's best.

Bounds are those of the template in float64, and steer the search only: what is handed out, `certificates/leaves.py`
proves by the evidence noted here. Checked: points, by replay. Trusted: given l,u.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from toolkit.arrays import PhaseArray
from toolkit.problems.answers import Status
from toolkit.problems.problem import Problem
from toolkit.search.branching import ON_RELU
from toolkit.search.clock import Clock
from toolkit.search.cutting_planes import VIOLATION, CuttingPlanes
from toolkit.search.descent import polish
from toolkit.search.incumbent import Incumbent, Point
from toolkit.search.lp_bounder import replayed
from toolkit.search.tree import Node, Relaxed
from toolkit.solvers.solve_report import SolveReport

TRIAL_ITERATIONS = 60
CUT_DEPTH, CUT_ROUNDS = 6, 2
POLISH_STEP = 0.3  # of the descent from the root's best point, in units of ε
TANGENT_ROUNDS, TANGENT_GAIN = 100, 0.1  # TANGENT_GAIN: as CUT_GAIN
CUT_GAIN = 0.2  # share of the open gap that a round of cuts must close for another to follow


class LpNodes:
    """Nodes of one row's tree, solved in the region's cut LP. Make it by `lp_nodes`, which puts the LP back.

    problem: of one row. root: the root's report, once it is solved. iterations: of all LPs.
    """

    def __init__(self, problem: Problem, planes: CuttingPlanes, clock: Clock) -> None:
        self.problem, self.planes, self.clock = problem, planes, clock
        self.session, self.layout = planes.session, planes.layout
        cost, offset = self.layout.objective(problem.rows)
        self.cost, self.offset = cost[0], float(offset[0])
        drop = planes.compiled.objective_scale(self.cost) or 1.0
        self.incumbent = Incumbent(problem.settings, float(problem.clean_values()[0]), drop)
        self.root: SolveReport | None = None
        self.root_bound = -np.inf
        self.iterations = 0
        spans = [self.layout.block(name) for name in ("y", "s", "a")]
        self.columns = np.concatenate([np.arange(span.start, span.stop) for span in spans])
        model = planes.compiled
        self.free_lower, self.free_upper = model.lower[self.columns], model.upper[self.columns]

    def solve(self, node: Node) -> Relaxed:
        """The node's LP with cuts, and the minimiser's replay; at the root all rounds of cuts and a descent."""
        if node.split is None:
            return self._solve_root(node)
        self.fix(node.phases)
        report = self._minimize(node)
        first = node.bound if report.status in (Status.OPTIMAL, Status.DECIDED) else None
        if node.depth <= CUT_DEPTH:
            report = self._tighten(node, report)
        if not self.problem.input_set.polyhedral:
            report = self._touch(node, report)
        return replace(self._relaxed(report, first), point=self._replayed(report))

    def trial(self, node: Node) -> None:
        """The node's LP for a few iterations; its duals prove a bound all the same."""
        self.fix(node.phases)
        self._minimize(node, TRIAL_ITERATIONS)

    def fix(self, phases: PhaseArray) -> None:
        """Column bounds of a node: inactive y = a = 0, active s = 0, a = 1."""
        low, high = self.free_lower.copy(), self.free_upper.copy()
        count = self.layout.count
        inactive, active = np.flatnonzero(phases == 0), np.flatnonzero(phases == 1)
        high[inactive] = high[2 * count + inactive] = 0.0
        high[count + active] = 0.0
        low[2 * count + active] = 1.0
        self.session.set_bounds(self.columns, low, high)

    def _solve_root(self, node: Node) -> Relaxed:
        """Rounds of cuts over the whole region; a first incumbent that is good makes the tree small."""
        report = self.root = self.planes.minimize(self.cost, self.offset, self.clock.rest(), self._root_is_done)
        self.iterations += report.iterations
        node.raise_bound(report.bound, self.planes.best)
        if not self.problem.input_set.polyhedral:
            report = self.root = self._touch(node, report)
        best = self.incumbent
        best.measure(report.bound)
        if report.bound < best.cutoff and not best.refuted and best.witness is not None:
            (found,) = polish(self.problem.with_settings(self.clock.rest()), best.witness, POLISH_STEP)
            best.offer(found.witness, found.upper)
        if report.status is Status.FAILED:  # its point is an earlier round's, and no LP can be trusted to split there
            report = replace(report, x=None)
        return self._relaxed(report, None)

    def _root_is_done(self, report: SolveReport) -> bool:
        """Whether the root's cuts have done their work: at the cutoff, or the last round closed little of the gap."""
        self.incumbent.offer(*self._replayed(report))
        gained, self.root_bound = report.bound - self.root_bound, max(self.root_bound, report.bound)
        left = self.incumbent.cutoff - self.root_bound
        return bool(left <= 0 or gained < CUT_GAIN * left)

    def _minimize(self, node: Node, iterations: int | None = None) -> SolveReport:
        """The LP as it is fixed; the node takes its bound if that is better than what it had."""
        cutoff = self.incumbent.solver_cutoff
        report = self.session.minimize(self.cost, self.offset, self.clock.rest(), iterations, cutoff)
        self.iterations += report.iterations
        if report.bound > node.bound:
            node.raise_bound(report.bound, self.planes.evidence(report))
        return report

    def _tighten(self, node: Node, report: SolveReport) -> SolveReport:
        """Rounds of cuts, while they are worth it; the last round's report."""
        cutoff = self.incumbent.cutoff
        for _ in range(CUT_ROUNDS):
            if report.x is None or report.status is not Status.OPTIMAL or report.bound >= cutoff:
                break
            rows, upper = self.planes.finder.violated(report.x, VIOLATION)
            if not upper.size:
                break
            self.planes.add(report, rows, upper)
            before, report = report, self._minimize(node)
            if not report.bound > before.bound + CUT_GAIN * (cutoff - before.bound):
                break
        return report

    def _touch(self, node: Node, report: SolveReport) -> SolveReport:
        """Tangents of the input set: while they close the gap, and to the end where no ReLU is left to split."""
        cutoff = self.incumbent.cutoff
        self.planes.shed_tangents(report)
        for _ in range(TANGENT_ROUNDS):
            if report.x is None or report.status is not Status.OPTIMAL or report.bound >= cutoff:
                break
            self.incumbent.offer(*self._replayed(report))
            cutoff = self.incumbent.cutoff
            touching = self.planes.touching(report, self.cost)
            if not touching[1].size:
                break
            self.planes.touch(*touching)
            before, report = report, self._minimize(node)
            slow = not report.bound > before.bound + TANGENT_GAIN * (cutoff - before.bound)
            if slow and self._slack(report, node) > ON_RELU:
                break
        return report

    def _slack(self, report: SolveReport, node: Node) -> float:
        """How far the minimiser is from a ReLU that may still be split, of the neuron's range."""
        if report.x is None:
            return np.inf
        y, s = report.x[self.layout.block("y")], report.x[self.layout.block("s")]
        return float(np.max(np.minimum(y, s) / self.planes.ranges, where=node.phases < 0, initial=0.0))

    def _relaxed(self, report: SolveReport, first: float | None) -> Relaxed:
        """What the tree is told of an LP."""
        message = report.message or f"a node's LP ended as {report.status}"
        if report.x is None:
            return Relaxed(None, False, message, first)
        distances = np.stack([report.x[self.layout.block("y")], report.x[self.layout.block("s")]]) / self.planes.ranges
        inside = self.problem.input_set.polyhedral or not self.planes.touching(report, self.cost)[1].size
        return Relaxed(distances, report.status is Status.OPTIMAL and inside, message, first)

    def _replayed(self, report: SolveReport) -> Point:
        """The minimiser's x̃, projected into the input set, and the objective there; nothing without a minimiser."""
        if report.x is None:
            return None, np.inf
        return replayed(self.problem, report.x[: self.layout.inputs])


@contextmanager
def lp_nodes(problem: Problem, planes: CuttingPlanes, clock: Clock) -> Iterator[LpNodes]:
    """The bounder of the problem's one row; the LP belongs to the region: whatever happens, no split stays in it."""
    nodes = LpNodes(problem, planes, clock)
    try:
        yield nodes
    finally:
        nodes.fix(np.full(planes.layout.count, -1, dtype=np.int8))
