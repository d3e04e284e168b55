"""The ideal bound: the LP plus cutting planes of every neuron's ideal formulation, added where they are violated.

Claim: m̲ ≤ ideal ≤ m*. The rounds are those of search/cutting_planes.py; the one whose row duals prove the best bound is
kept, and what is handed out is the certificate at its multipliers (leaves.py).

Source: Anderson et al. 2020; Tjandraatmadja et al. 2020. Checked and trusted: as in lp and ideal_cuts.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.certificates.leaves import Leaves
from toolkit.certificates.rounding import error_model_of
from toolkit.problems.answers import Bound, Status
from toolkit.problems.problem import Problem
from toolkit.rungs.rung import Cost, Rung, Side
from toolkit.search.cutting_planes import cutting_planes
from toolkit.search.lp_bounder import bound_from_report, drop_of, failing_rows, template


def ideal_bounds(problem: Problem) -> list[Bound]:
    """The cut LP's bound of every row, rows in order, cuts carried along."""
    started = time.perf_counter()
    with cutting_planes(problem):
        costs, offsets = template(problem).layout.objective(problem.rows)
    building = (time.perf_counter() - started) / max(1, len(costs))
    return [
        _row_bound(problem, i, cost, offset, building)
        for i, (cost, offset) in enumerate(zip(costs, offsets.tolist(), strict=True))
    ]


def _row_bound(problem: Problem, row: int, cost: FloatArray, offset: float, building: float) -> Bound:
    with cutting_planes(problem) as planes:
        report = planes.minimize(cost, offset, problem.settings)
        bound = bound_from_report(problem, row, report, building)
        if report.status is not Status.FAILED:
            leaves = Leaves(error_model_of(problem), problem.rows[[row]], planes.store)
            leaves.add(np.full(planes.layout.count, -1, dtype=np.int8), planes.best)
            lower = max(leaves.certified, bound.certified_lower)
            bound = replace(bound, lower=lower, certified_lower=lower, drop=drop_of(problem, row, lower))
    return replace(bound, multipliers=None)


RUNG = Rung(
    name="ideal",
    side=Side.LOWER,
    claim="LP plus cutting planes of each neuron's ideal formulation",
    source="Anderson et al. 2020; Tjandraatmadja et al. 2020",
    run=failing_rows(ideal_bounds),
    cost=Cost.SEARCH,
    dominates=("interval", "dual", "crown", "alpha", "lp"),
    certifies=True,
)
