"""The LP bound m̲: the template with every indicator relaxed to [0,1], solved to optimality.

Claim: the tightest bound the triangle relaxation gives on these l,u. The lower side is what the LP's row duals certify
on the network itself, rounding taken off (dual_bound.py), not the solver's objective: however the solver did, it is at
most m*. A solver without duals leaves the dual rung's multipliers. The minimiser x̃, projected into the ball and
replayed through the network, gives the upper side.

Source: Ehlers 2017; Wong & Kolter 2018, eq. (4); Salman et al. 2019, "A convex relaxation barrier".
Checked: the duals, the minimiser. Trusted: that the given l,u hold.
"""

from __future__ import annotations

import time

from toolkit.problems.answers import Bound
from toolkit.problems.problem import Problem
from toolkit.rungs.rung import Rung, Side
from toolkit.search.lp_bounder import failing_rows, minimize_rows, template


def lp_bounds(problem: Problem) -> list[Bound]:
    """The LP optimum of every row. Raises TemplateError where there is no template in floats."""
    started = time.perf_counter()
    program = template(problem).relaxed
    building = (time.perf_counter() - started) / max(1, len(problem.objective))
    return [bound.with_build(building) for bound in minimize_rows(problem, program)]


RUNG = Rung(
    name="lp",
    side=Side.LOWER,
    claim="optimum of the triangle relaxation, bound proven by its duals",
    source="Ehlers 2017; Wong & Kolter 2018",
    run=failing_rows(lp_bounds),
    dominates=("interval", "dual", "crown", "alpha"),
    certifies=True,
)
