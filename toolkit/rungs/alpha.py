"""The optimised dual bound: max g(α) over the slopes α ∈ [0,1] of every objective row's unstable neurons.

Claim: every iterate is a dual feasible point, so the best value seen is a bound whenever the ascent stops; on l,u no
tighter than the LP's own, its maximum is the LP optimum (strong duality). The ascent is search/ascent.py's: a row stops
where that says it is done; after MAX_ITERATIONS; when settings.time_limit, times the number of rows, is over; or, if
settings.stop_at is given, once g exceeds it.

Source: Wong & Kolter 2018, Thm 1 (g); Xu et al. 2021, "Fast and complete" (optimised slopes); Salman et al. 2019, "A
convex relaxation barrier", §4 (strong duality). Checked: the returned value is evaluated by the dual rung's own
function. Trusted: the given l,u.
"""

from __future__ import annotations

import time

import numpy as np

from toolkit.problems.answers import Bound, RowBounds, Status
from toolkit.problems.problem import Problem
from toolkit.problems.reduced_matrices import alive_matrices
from toolkit.rungs.dual import certified_values
from toolkit.rungs.rung import Cost, Rung, Side
from toolkit.search.ascent import Ascent

MAX_ITERATIONS = 1400
CHECK_EVERY = 10
ENTRIES = 500_000  # rows × widest layer at a time


def alpha_rung(problem: Problem) -> RowBounds:
    """max g(α) of every row to the stopping rule above, in chunks of rows that fit into memory."""
    widest = max(problem.input_set.size, alive_matrices(problem).widest)
    count = max(1, ENTRIES // widest)
    chunks = (problem.rows[k : k + count] for k in range(0, problem.rows.shape[0], count))
    with np.errstate(over="ignore", invalid="ignore"):  # iterates may overflow: only what is certified counts
        return RowBounds.of([bound for rows in chunks for bound in climb(problem.with_rows(rows))])


def climb(problem: Problem) -> list[Bound]:
    """The ascent of every row of the problem, all at once; rows that have finished leave it."""
    started = time.perf_counter()
    ascent = Ascent(problem)
    rows = problem.rows.shape[0]
    time_limit, stop_at = problem.settings.time_limit, problem.settings.stop_at
    status, iterations, slopes = [Status.COMPUTED] * rows, [0] * rows, ascent.slopes.copy()
    going = np.arange(rows if ascent.parts.function.size else 0)
    while going.size:
        ascent.step()
        late = time_limit is not None and time.perf_counter() - started > rows * time_limit
        if ascent.iterations % CHECK_EVERY and not late:
            continue
        done = ascent.finished()
        decided = ascent.best > (np.inf if stop_at is None else stop_at)
        stopped = done | decided | late | (ascent.iterations >= MAX_ITERATIONS)
        for i in np.flatnonzero(stopped):
            row = int(going[i])
            status[row] = _status(bool(done[i]), bool(decided[i]), late)
            iterations[row], slopes[:, row] = ascent.iterations, ascent.slopes[:, i]
        going = going[~stopped]
        ascent.keep(~stopped)
    lower = certified_values(problem, ascent.parts.function.spread(slopes)).tolist()
    each = (time.perf_counter() - started) / max(1, rows)
    found = zip(lower, status, iterations, strict=True)
    return [
        Bound(lower=value, certified_lower=value, status=how, seconds=each, iterations=count)
        for value, how, count in found
    ]


def _status(done: bool, decided: bool, late: bool) -> Status:
    if late and not done:
        return Status.TIME_LIMIT
    return Status.DECIDED if decided and not done else Status.COMPUTED


RUNG = Rung(
    name="alpha",
    side=Side.LOWER,
    claim="best dual feasible point α ∈ [0, 1], by gradient ascent",
    source="Wong & Kolter 2018; Xu et al. 2021",
    run=alpha_rung,
    cost=Cost.ITERATIVE,
    dominates=("dual", "crown"),
    certifies=True,
)
