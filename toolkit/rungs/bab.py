"""The exact margin by our own branch and bound: splits of unstable ReLUs over the template's LP, no MILP solver.

Claim: [lower, upper] holds m*; lower is the least certified bound (leaves.py) over the leaves of a tree whose leaves
cover all activation patterns, every leaf's bound proven by its row duals (weak duality, or Farkas multipliers for an
empty leaf); upper is the value of a replayed point. At a time limit the interval reached so far is returned. The status
is optimal only where that interval is closed to the gap, decided only where it lies on one side of stop_at; a search
that ends with neither, by rounding, is "computed" and says so.

Source: Bunel et al. 2020, "Branch and bound for piecewise linear neural network verification". The search itself is
search/tree.py, its bounder search/lp_nodes.py, its brancher search/branching.py. Checked: leaf bounds, witnesses.
Trusted: given l,u.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from toolkit.certificates.leaves import Leaves
from toolkit.certificates.rounding import error_model_of
from toolkit.problems.answers import Bound, Status
from toolkit.problems.problem import Problem
from toolkit.rungs.rung import Cost, Rung, Side
from toolkit.search.branching import PhaseBrancher, PseudoCosts
from toolkit.search.clock import Clock
from toolkit.search.cutting_planes import CuttingPlanes, cutting_planes
from toolkit.search.lp_bounder import bound_from_report, drop_of, failing_rows, template
from toolkit.search.lp_nodes import LpNodes, lp_nodes
from toolkit.search.refinement import neuron_ranges
from toolkit.search.tree import Node, Tree


def bab_bounds(problem: Problem) -> list[Bound]:
    """Branch and bound for every row; cuts and pseudo-costs are carried from row to row."""
    return [_row_bound(problem, row) for row in range(len(problem.objective))]


def _row_bound(problem: Problem, row: int) -> Bound:
    fresh = partial(PseudoCosts, template(problem).layout.count)
    with cutting_planes(problem) as planes, problem.workspace.borrow(problem.region, "pseudo-costs", fresh) as costs:
        leaves = Leaves(error_model_of(problem), problem.rows[[row]], planes.store)
        return search_row(problem, row, planes, costs, leaves)


def search_row(problem: Problem, row: int, planes: CuttingPlanes, costs: PseudoCosts, leaves: Leaves) -> Bound:
    """Branch and bound for one row, whose tree's leaves are put into `leaves`."""
    clock = Clock(problem.settings)
    problem = problem.with_rows(problem.rows[[row]], problem.targets[row : row + 1])
    with lp_nodes(problem, planes, clock) as bounder:
        brancher = PhaseBrancher(bounder, costs, bounder.incumbent)
        tree = Tree(bounder, brancher, bounder.incumbent, clock, lambda node: leaves.add(node.phases, node.evidence))
        tree.run(Node.root(planes.layout.count))
    return _answer(problem, tree, bounder, leaves, clock)


def _answer(problem: Problem, tree: Tree, bounder: LpNodes, leaves: Leaves, clock: Clock) -> Bound:
    """What the finished or broken off search proved of the problem's one row."""
    assert bounder.root is not None
    base, certified, incumbent = bound_from_report(problem, 0, bounder.root), leaves.certified, bounder.incumbent
    if base.status is not Status.FAILED and tree.bound == np.inf:
        base = replace(base, status=Status.FAILED, message="every part of the ball is empty: l,u are wrong")
    if base.status is Status.FAILED:
        certified = -np.inf
    status, reason = incumbent.status(min(certified, incumbent.upper), tree.finished)
    texts = (base.message, tree.unfinished, reason)
    return replace(
        base,
        lower=certified,
        upper=incumbent.upper,
        witness=incumbent.witness,
        slack=None,
        slack_range=None,
        status=Status.FAILED if base.status is Status.FAILED else status,
        seconds=clock.seconds,
        nodes=tree.nodes,
        iterations=bounder.iterations,
        solver=f"bab/{base.solver}",
        message="; ".join(dict.fromkeys(text for text in texts if text)),
        certified_lower=certified,
        multipliers=None,
        drop=drop_of(problem, 0, certified),
    )


RUNG = Rung(
    name="bab",
    side=Side.EXACT,
    claim="branch and bound over the template's LP, leaf bounds proven by duals",
    source="Bunel et al. 2020",
    run=failing_rows(bab_bounds),
    cost=Cost.SEARCH,
    certifies=True,
    ranges=neuron_ranges,
)
