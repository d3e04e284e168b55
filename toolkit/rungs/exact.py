"""The exact margin m*: the template with binary indicators, a MILP.

Claim: [lower, upper] holds m*, and upper − lower is within the MILP gap when the status is optimal; "computed" says
that the solver was done, but that its replayed minimiser does not close the interval it claims. Under settings.solver =
"auto" the bab rung answers, whose lower side is certified: always where settings.rigorous (the default) asks for that,
and else where no MILP solver at hand measured faster; the row's solver field says so. By a solver asked for by name,
lower is that solver's word (its dual bound, never its incumbent, and never below the LP bound of the same template),
certified_lower the LP's; upper is the value of the replayed minimiser. A word above a replayed value by more than
WORD of the objective's drop makes the row FAILED. Over an ℓ2 ball the named solver gets the template with the ball's
quadratic constraint, where it takes one (Gurobi, up to its licence's size; SCIP); else bab answers, and says why.

Source: Tjeng, Xiao & Tedrake 2019, "Evaluating robustness of neural networks with mixed integer programming".
Checked: the minimiser, by replay, against the solver's dual bound. Trusted: that dual bound, to its tolerances.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from toolkit.problems.answers import Bound, Status
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.rungs.bab import bab_bounds
from toolkit.rungs.lp import lp_bounds
from toolkit.rungs.rung import Cost, Rung, Side
from toolkit.search.incumbent import promised_gap
from toolkit.search.lp_bounder import failing_rows, minimize_rows, template
from toolkit.solvers.linear_program import CompiledModel, Ellipsoid
from toolkit.solvers.registry import SOLVERS, automatic_milp_solver

WORD = 1e-6  # of the drop: by how much a MILP solver's tolerances may put its dual bound above the optimum


def exact_bounds(problem: Problem) -> list[Bound]:
    """The MILP optimum of every row, or what was proven when its time limit struck."""
    if takes_tree(problem):
        reason = _refusal(problem)
        return [replace(bound, message=_texts(reason, bound.message)) for bound in bab_bounds(problem)]
    started = time.perf_counter()
    relaxed = lp_bounds(problem)
    shared = time.perf_counter() - started
    each = shared / max(1, len(relaxed))
    program = exact_program(problem)
    if not program.is_mip:  # no unstable neuron: the LP is the exact problem
        return relaxed
    found = minimize_rows(problem, program, relaxed)
    return [_best(row, own.with_build(each), problem.settings) for row, own in zip(relaxed, found, strict=True)]


def takes_tree(problem: Problem) -> bool:
    """Whether the bab rung answers: over an input set that no rows describe, where no solver was named or the named one
    does not take its quadratic constraint; and under "auto" where bounds are to be rigorous or no better MILP solver
    than HiGHS takes the model."""
    settings = problem.settings
    if not problem.input_set.polyhedral:
        return settings.solver == "auto" or not exact_program(problem).is_mip or bool(_refusal(problem))
    if settings.solver != "auto":
        return False
    return settings.rigorous or automatic_milp_solver(template(problem).relaxed) == "highs"


def exact_program(problem: Problem) -> CompiledModel:
    """The MILP of the problem's region; over an input set that no rows describe with its quadratic constraint."""
    built, input_set = template(problem), problem.input_set
    if input_set.quadratic is None:
        return built.exact
    radius = np.full(input_set.size, input_set.quadratic)
    return built.exact.within(Ellipsoid(input_set.center, radius), built.layout.columns)


def _refusal(problem: Problem) -> str:
    """Why the solver that was named does not take an input set that no rows describe, "" where it does."""
    name = problem.settings.solver
    if problem.input_set.polyhedral or name == "auto":
        return ""
    reason = SOLVERS[name].refusal(exact_program(problem))
    return f"answered by bab: {reason}" if reason else ""


def _texts(*texts: str) -> str:
    return "; ".join(text for text in texts if text)


def _best(relaxed: Bound, exact: Bound, settings: Settings) -> Bound:
    """`exact` with the better of the two replayed points, and a status that its interval keeps."""
    if relaxed.upper < exact.upper:
        exact = replace(exact, upper=relaxed.upper, witness=relaxed.witness)
    if exact.upper < exact.lower <= exact.upper + WORD * max(relaxed.drop, abs(exact.upper)):
        exact = replace(exact, lower=exact.upper)
    return replace(exact, slack=None, slack_range=None) if kept(exact, settings) else _broken(exact, settings)


def kept(bound: Bound, settings: Settings) -> bool:
    """Whether the interval is what its status says: closed to the gap, or on one side of stop_at."""
    if bound.status is Status.OPTIMAL:
        return bound.upper - bound.lower <= promised_gap(settings, bound.upper, bound.drop)
    if bound.status is Status.DECIDED and settings.stop_at is not None:
        return bound.lower > settings.stop_at or bound.upper <= settings.stop_at
    return True


def _broken(bound: Bound, settings: Settings) -> Bound:
    reason = f"{bound.solver} calls this {bound.status}, but its minimiser, replayed, leaves the interval open"
    if settings.stop_at is not None and not bound.lower <= settings.stop_at < bound.upper:
        return replace(bound, status=Status.DECIDED)
    return replace(bound, status=Status.COMPUTED, message=_texts(reason, bound.message))


RUNG = Rung(
    name="exact",
    side=Side.EXACT,
    claim="optimum of the MILP with binary ReLU indicators",
    source="Tjeng, Xiao & Tedrake 2019",
    run=failing_rows(exact_bounds),
    cost=Cost.SEARCH,
    certifies=True,
    states=True,
)
