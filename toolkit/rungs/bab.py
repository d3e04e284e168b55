"""The exact margin by our own branch and bound: splits of unstable ReLUs, or of few inputs, and no MILP solver.

Claim: [lower, upper] holds m*; lower is the least certified bound over the leaves of a tree whose leaves cover the
region, every leaf's bound proven by multipliers (weak duality, or Farkas multipliers for an empty leaf) or from its
sub-box alone; upper is the value of a replayed point. At a time limit the interval reached so far is returned. The
status is optimal only where that interval is closed to the gap, decided only where it lies on one side of stop_at; a
search that ends with neither, by rounding, is "computed" and says so.

For a sign (settings.stop_at) the rows go to boxes of inputs where these are few (search/boxes.py), then to trees over
phases (search/sign_search.py), then to trees of LPs; `solver` names those that a row needed. For the value itself, to
the gap, l,u are refined by small trees first, then LPs with cuts answer (search/tree.py, bounder search/lp_nodes.py,
brancher search/branching.py). In a chain for l,u it is both sides of all unstable neurons at once
(search/refinement.py).

Source: Bunel et al. 2020, "Branch and bound for piecewise linear neural network verification"; Wang et al. 2021,
"Beta-CROWN". Checked: leaf bounds, witnesses. Trusted: given l,u.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from toolkit.arrays import FloatArray, IndexArray
from toolkit.certificates.leaves import Leaves
from toolkit.certificates.rounding import error_model_of
from toolkit.problems.answers import Bound, Status
from toolkit.problems.problem import Problem
from toolkit.problems.region import Region
from toolkit.rungs.rung import Cost, Rung, Side
from toolkit.search.boxes import search_boxes, splits_inputs
from toolkit.search.branching import PhaseBrancher, PseudoCosts
from toolkit.search.clock import Clock
from toolkit.search.cutting_planes import CuttingPlanes, cutting_planes
from toolkit.search.lp_bounder import bound_from_report, drop_of, failing_rows, template
from toolkit.search.lp_nodes import LpNodes, lp_nodes
from toolkit.search.refinement import neuron_ranges, refined_region
from toolkit.search.sign_search import search_signs, uses_planes
from toolkit.search.tree import Node, Tree

UNTIMED_NODES = 20_000  # of a row's tree over phases before LPs take over, where there is no clock
UNTIMED_BOXES = 200_000  # of a row's tree over boxes before phases are split
MANY_UNSTABLE = 20  # whose phases cannot be all enumerated
BOXES_PER_LEAF = 64  # of a tree over the phases of all unstable neurons: more boxes than that do not pay
SHARE = 0.85  # of the time left, for a search that another one follows
REFINING_NODES = 1  # of the trees for the l,u that values are searched on
REFINING_SHARE = 0.1  # of a value's time, for the l,u that all are searched on
ANOTHER_REFUTED = "left open: another row was refuted, which was all that was asked"
UNDECIDED = "left open by its budget of nodes, or by rounding"
PROGRAM_NODES, PROGRAM_NEURONS = 1000, 400  # where nodes are limited: from and up to how many LPs are tried
LEAST_PROGRAM_SECONDS = 1.0


def bab_bounds(problem: Problem) -> list[Bound]:
    """Branch and bound for every row: for a sign, trees of all rows at once; for what they leave open, and for the
    value itself, LPs, whose cuts and pseudo-costs are carried from row to row."""
    if problem.settings.stop_at is not None:
        return _signs(problem)
    count = len(problem.objective)
    if not count:
        return []
    clock = Clock(problem.settings)
    with problem.workspace.borrow(problem.region, "refined l,u", lambda: _refined(problem)) as region:
        spent = clock.seconds / count
        refined = replace(problem, region=region, settings=clock.rest())
        bounds = [_row_bound(refined, row) for row in range(count)]
    return [replace(bound, seconds=bound.seconds + spent) for bound in bounds]


def _refined(problem: Problem) -> Region:
    limit = problem.settings.time_limit
    deadline = np.inf if limit is None else time.perf_counter() + REFINING_SHARE * limit
    return refined_region(problem, REFINING_NODES, deadline)


def _signs(problem: Problem) -> list[Bound]:
    """Boxes of inputs where these are few, then trees over phases, then LPs, each for the rows that are still open."""
    count, limit = len(problem.objective), problem.settings.time_limit
    clock = Clock(replace(problem.settings, time_limit=None if limit is None else count * limit))
    nodes = problem.settings.nodes
    searches: list[Callable[[Problem, Clock], list[Bound]]] = [by_boxes] if splits_inputs(problem) else []
    searches.append(by_phases)
    # whoever limits the nodes comes back with more, or with better l,u; a try at LPs then takes no longer than that
    # and where trees have planes, LPs' cuts rarely say more
    few = error_model_of(problem).count <= PROGRAM_NEURONS and not uses_planes(problem, nodes)
    if nodes is None or (nodes >= PROGRAM_NODES and few):
        searches.append(by_programs)
    bounds: list[Bound] = []
    for place, search in enumerate(searches):
        still = [row for row in range(count) if not bounds or bounds[row].status is not Status.DECIDED]
        refuted = problem.settings.until_refuted and len(still) < count and any(map(_refuted(problem), bounds))
        if not still or refuted or (bounds and clock.struck):
            break
        share = 1.0 if place == len(searches) - 1 else SHARE
        rest = clock.rest()
        if rest.time_limit is not None:
            rest = replace(rest, time_limit=share * rest.time_limit)
        if nodes is not None and search is by_programs:
            tried = max(clock.seconds, LEAST_PROGRAM_SECONDS)
            rest = replace(rest, time_limit=tried if rest.time_limit is None else min(tried, rest.time_limit))
        own = problem.with_rows(problem.rows[still], [problem.targets[row] for row in still])
        found = search(own.with_settings(rest), Clock(rest))
        if not bounds:
            bounds = found
        else:
            for row, bound in zip(still, found, strict=True):
                bounds[row] = _better(problem, bounds[row], bound)
    return bounds


def _refuted(problem: Problem) -> Callable[[Bound], bool]:
    stop = problem.settings.stop_at
    return lambda bound: stop is not None and bound.upper <= stop


def by_boxes(problem: Problem, clock: Clock) -> list[Bound]:
    """Signs of all rows by sub-boxes of the input set."""
    settings = problem.settings
    budget = UNTIMED_BOXES if settings.time_limit is None and settings.nodes is None else settings.nodes
    unstable = error_model_of(problem).count
    if unstable < MANY_UNSTABLE:
        most = BOXES_PER_LEAF << unstable
        budget = most if budget is None else min(budget, most)
    found = search_boxes(problem, clock, budget, first_refuted=settings.until_refuted)
    return _sign_bounds(problem, "bab/boxes", clock, found.lower, found.upper, found.witnesses, found.nodes)


def by_phases(problem: Problem, clock: Clock) -> list[Bound]:
    """Signs of all rows by trees over ReLU phases."""
    settings = problem.settings
    budget = UNTIMED_NODES if settings.time_limit is None and settings.nodes is None else settings.nodes
    deadline = np.inf if settings.time_limit is None else time.perf_counter() + settings.time_limit
    found = search_signs(problem, deadline, budget)
    points = [point if upper < np.inf else None for point, upper in zip(found.points, found.upper, strict=True)]
    return _sign_bounds(problem, "bab/phases", clock, found.lower, found.upper, points, found.nodes)


def by_programs(problem: Problem, clock: Clock) -> list[Bound]:
    """Each row by a tree of LPs, in its share of what time is left; one refuted row ends it where that is enough."""
    bounds: list[Bound] = []
    count = len(problem.objective)
    for row in range(count):
        if clock.struck or (problem.settings.until_refuted and any(map(_refuted(problem), bounds))):
            bounds.append(Bound(-np.inf, status=Status.TIME_LIMIT if clock.struck else Status.COMPUTED, solver="bab",
                                message="" if clock.struck else ANOTHER_REFUTED))  # fmt: skip
            continue
        rest = clock.rest()
        if rest.time_limit is not None:
            rest = replace(rest, time_limit=rest.time_limit / (count - row))
        bounds.append(_row_bound(problem.with_settings(rest), row))
    return bounds


def _sign_bounds(
    problem: Problem,
    solver: str,
    clock: Clock,
    lower: FloatArray,
    upper: FloatArray,
    witnesses: Sequence[FloatArray | None],
    nodes: IndexArray,
) -> list[Bound]:
    stop, count = problem.settings.stop_at, len(problem.objective)
    assert stop is not None
    decided, struck = (lower > stop) | (upper <= stop), clock.struck
    enough = problem.settings.until_refuted and bool(np.any(upper <= stop))
    reason = "" if struck else ANOTHER_REFUTED if enough else UNDECIDED
    return [
        Bound(
            lower=float(min(lower[row], upper[row])),
            upper=float(upper[row]),
            status=Status.DECIDED if decided[row] else Status.TIME_LIMIT if struck else Status.COMPUTED,
            witness=witnesses[row],
            seconds=clock.seconds / count,
            nodes=int(nodes[row]),
            solver=solver,
            message="" if decided[row] else reason,
            certified_lower=float(lower[row]),
            drop=drop_of(problem, row, float(lower[row])),
        )
        for row in range(count)
    ]


def _better(problem: Problem, one: Bound, other: Bound) -> Bound:
    """What two searches of one row know together."""
    stop = problem.settings.stop_at
    assert stop is not None
    if other.status is Status.FAILED:
        return replace(one, message=other.message)
    best = one if one.upper < other.upper else other
    lower = max(one.certified_lower, other.certified_lower)
    decided = lower > stop or best.upper <= stop
    return replace(
        other,
        lower=min(lower, best.upper),
        certified_lower=lower,
        upper=best.upper,
        witness=best.witness,
        status=Status.DECIDED if decided else other.status,
        message="" if decided else other.message,
        seconds=one.seconds + other.seconds,
        nodes=one.nodes + other.nodes,
        solver=f"{one.solver}+{other.solver.removeprefix('bab/')}",
    )


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
    claim="branch and bound, leaf bounds proven by duals",
    source="Bunel et al. 2020; Wang et al. 2021",
    run=failing_rows(bab_bounds),
    cost=Cost.SEARCH,
    certifies=True,
    batched=True,
    version=4,
    ranges=neuron_ranges,
)
