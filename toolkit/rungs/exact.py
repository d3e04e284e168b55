"""The exact margin m*: the template with binary indicators, a MILP.

Claim: [lower, upper] holds m*, and upper − lower is within the MILP gap when the status is optimal; "computed" says
that the solver was done, but that its replayed minimiser does not close the interval it claims. Under settings.solver =
"auto" the bab rung answers, whose lower side is certified: always where settings.rigorous (the default) asks for that,
and else where no MILP solver at hand measured faster; the row's solver field says so. By a solver asked for by name,
lower is that solver's word (its dual bound, never its incumbent, and never below the LP bound of the same template),
certified_lower the LP's; upper is the value of the replayed minimiser. A word above a replayed value by more than
WORD of the objective's drop makes the row FAILED. Over an ℓ2 ball the named solver
gets the template with the ball's quadratic constraint, where it takes one (Gurobi, up to its licence's size; SCIP);
else bab answers, and says which solver was refused and why.

Source: Tjeng, Xiao & Tedrake 2019, "Evaluating robustness of neural networks with mixed integer programming".
Checked: the minimiser, by replay, against the solver's dual bound. Trusted: that dual bound, to its tolerances.
"""

from __future__ import annotations

import time
from dataclasses import replace

from toolkit.problems.answers import Bound, Status
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.rungs.bab import bab_bounds
from toolkit.rungs.lp import lp_bounds
from toolkit.rungs.rung import Cost, Rung, Side
from toolkit.search.incumbent import promised_gap
from toolkit.search.lp_bounder import failing_rows, minimize_rows, template
from toolkit.solvers.registry import SOLVERS, automatic_milp_solver

WORD = 1e-6  # of the drop: by how much a MILP solver's tolerances may put its dual bound above the optimum


def exact_bounds(problem: Problem) -> list[Bound]:
    """The MILP optimum of every row, or what was proven when its time limit struck."""
    if (reason := why_tree(problem)) is not None:
        return _by_tree(problem, reason)
    started = time.perf_counter()
    relaxed, settings = _relaxed(problem)
    shared = time.perf_counter() - started
    each = shared / max(1, len(relaxed))
    program = template(problem).exact
    if not program.is_mip:  # no unstable neuron: the LP is the exact problem
        return relaxed
    found = minimize_rows(problem.with_settings(settings), program, relaxed)
    if not problem.input_set.polyhedral and (failed := [row for row in found if row.status is Status.FAILED]):
        return _by_tree(problem, f"answered by bab: {failed[0].message}")
    return [_best(row, own.with_build(each), problem.settings) for row, own in zip(relaxed, found, strict=True)]


def why_tree(problem: Problem) -> str | None:
    """Why the bab rung answers, "" where that is the usual; None where a MILP solver does.

    It does over an input set that no rows describe, where no solver was named, no neuron is unstable, or the named one
    does not take the set's quadratic constraint; and under "auto" where bounds are to be rigorous or no better MILP
    solver than HiGHS takes the model.
    """
    settings, polyhedral = problem.settings, problem.input_set.polyhedral
    if settings.solver == "auto":
        rigorous = not polyhedral or settings.rigorous
        return "" if rigorous or automatic_milp_solver(template(problem).relaxed) == "highs" else None
    if polyhedral:
        return None
    program = template(problem).exact
    if not program.is_mip:
        return ""
    reason = SOLVERS[settings.solver].refusal(program)
    return f"answered by bab: {reason}" if reason else None


def _by_tree(problem: Problem, reason: str) -> list[Bound]:
    return [replace(bound, message=_texts(reason, bound.message)) for bound in bab_bounds(problem)]


def _relaxed(problem: Problem) -> tuple[list[Bound], Settings]:
    """The LP's bounds, and the settings left for the MILP.

    Over an input set that no rows describe an LP takes many rounds: they get half of the time, and a solver that stays
    warm.
    """
    settings, limit = problem.settings, problem.settings.time_limit
    if problem.input_set.polyhedral:
        return lp_bounds(problem), settings
    half = replace(settings, solver="auto", time_limit=None if limit is None else limit / 2)
    relaxed = lp_bounds(problem.with_settings(half))
    if limit is None:
        return relaxed, settings
    slowest = max((bound.seconds for bound in relaxed), default=0.0)
    return relaxed, replace(settings, time_limit=max(limit - slowest, limit / 4))


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
    why = "it gives no minimiser" if bound.witness is None else "its minimiser, replayed, leaves the interval open"
    reason = f"{bound.solver} calls this {bound.status}, but {why}"
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
