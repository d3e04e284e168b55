"""The exact margin by our own branch and bound: splits of unstable ReLUs over the template's LP, no MILP solver.

Claim: [lower, upper] holds m*; lower is the least certified bound (leaves.py) over the leaves of a tree whose leaves
cover all activation patterns, every leaf's bound proven by its row duals (weak duality, or Farkas multipliers for an
empty leaf); upper is the value of a replayed point. At a time limit the interval reached so far is returned. The status
is optimal only where that interval is closed to the gap, decided only where it lies on one side of stop_at; a search
that ends with neither, by rounding, is "computed" and says so.

Source: Bunel et al. 2020, "Branch and bound for piecewise linear neural network verification". The search itself is
search/tree.py. Checked: leaf bounds, witnesses. Trusted: given l,u.
"""

from __future__ import annotations

from functools import partial

from toolkit.problems.answers import Bound
from toolkit.problems.problem import Problem
from toolkit.rungs.rung import Cost, Rung, Side
from toolkit.search.branching import PseudoCosts
from toolkit.search.cutting_planes import cutting_planes
from toolkit.search.lp_bounder import failing_rows, template
from toolkit.search.tree import TreeSearch


def bab_bounds(problem: Problem) -> list[Bound]:
    """Branch and bound for every row; cuts and pseudo-costs are carried from row to row."""
    return [_row_bound(problem, row) for row in range(len(problem.objective))]


def _row_bound(problem: Problem, row: int) -> Bound:
    fresh = partial(PseudoCosts, template(problem).layout.count)
    with cutting_planes(problem) as planes, problem.workspace.borrow(problem.region, "pseudo-costs", fresh) as costs:
        return TreeSearch(problem, planes, row, costs).run()


RUNG = Rung(
    name="bab",
    side=Side.EXACT,
    claim="branch and bound over the template's LP, leaf bounds proven by duals",
    source="Bunel et al. 2020",
    run=failing_rows(bab_bounds),
    cost=Cost.SEARCH,
    certifies=True,
)
