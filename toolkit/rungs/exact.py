"""The exact margin m*: the template with binary indicators, a MILP.

Claim: [lower, upper] holds m*, and upper − lower is within the MILP gap when the status is optimal. lower is the
solver's proven dual bound, never its incumbent, and never below the LP bound of the same template; upper is the value
of the replayed minimiser.

Source: Tjeng, Xiao & Tedrake 2019, "Evaluating robustness of neural networks with mixed integer programming".
Checked: the minimiser, by replay. Trusted: the solver's dual bound, to its tolerances
(certified_lower is the LP's). Under settings.solver = "auto" the bab rung answers where it measured faster than the
MILP solver at hand, or where settings.rigorous asks for certified bounds; the row's solver field says so.
"""

from __future__ import annotations

import time
from dataclasses import replace

from toolkit.compiled import CompiledModel, integer_columns
from toolkit.minimize import minimize_rows, shared_template
from toolkit.problem import Bound, Problem, Rung, Side
from toolkit.rungs.bab import bab_rung
from toolkit.rungs.lp import lp_rung
from toolkit.solvers import automatic_milp_solver
from toolkit.template import set_indicators


def exact_rung(problem: Problem) -> list[Bound]:
    """The MILP optimum of every row, or what was proven when its time limit struck."""
    if takes_tree(problem):
        return bab_rung(problem)
    started = time.perf_counter()
    relaxed = lp_rung(problem)
    shared = time.perf_counter() - started
    each = shared / max(1, len(relaxed))
    compiled = problem.shared("binary", lambda: _with_binaries(problem))
    if not compiled.is_mip:  # no unstable neuron: the LP is the exact problem
        return relaxed
    found = minimize_rows(problem, "exact", compiled, [bound.lower for bound in relaxed])
    return [_best(row, own.with_build(each)) for row, own in zip(relaxed, found, strict=True)]


def takes_tree(problem: Problem) -> bool:
    """Whether "auto" means the bab rung here: rigorous, or no better MILP solver than HiGHS takes the model."""
    settings = problem.settings
    if settings.solver != "auto":
        return False
    return settings.rigorous or automatic_milp_solver(shared_template(problem)[1]) == "highs"


def _with_binaries(problem: Problem) -> CompiledModel:
    """The compiled template with its flag flipped: the same matrices, the indicator columns integer."""
    model, compiled = shared_template(problem)
    set_indicators(model, "binary")
    integer = integer_columns(model)
    set_indicators(model, "relaxed")
    return replace(compiled, integer=integer)


def _best(relaxed: Bound, exact: Bound) -> Bound:
    """`exact` with the better of the two replayed points, and the certified part: the LP's."""
    exact = replace(exact, certified_lower=relaxed.certified_lower, multipliers=None)
    if relaxed.upper < exact.upper:
        return replace(exact, upper=relaxed.upper, witness=relaxed.witness)
    return exact


RUNG = Rung(
    name="exact",
    side=Side.EXACT,
    claim="optimum of the MILP with binary ReLU indicators",
    source="Tjeng, Xiao & Tedrake 2019",
    run=exact_rung,
)
