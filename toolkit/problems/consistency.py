"""An interval that contradicts itself, or a point of the ball, is no bound: the one place where that is looked at.

A lower bound above the value of the row at a point of the ball is false, whoever proved it: l,u, a solver or our own
code is wrong. Two real numbers (certified_lower, certified_upper) are compared as they are. A value replayed in float64
carries rounding, bounded by the running error analysis of replay.py: a lower bound may exceed it by ALLOWANCE times
that error, since uncertified rungs round as much as the replay does.

Checked: every bound that a rung hands out, once. l,u from closed forms are looked at as arrays instead: l ≤ u, where
they are made (layer_bounds.py).
"""

from __future__ import annotations

import numpy as np

from toolkit.networks.replay import evaluation_errors
from toolkit.problems.answers import Bound
from toolkit.problems.problem import Problem

ALLOWANCE = 4.0


def contradiction(problem: Problem, row: int, bound: Bound, clean: float) -> str:
    """Why the bound of this row cannot be true, "" if nothing speaks against it. clean: its value at the centre."""
    who = f"nonsense from {bound.solver or 'the rung'}"
    if bound.certified_lower > bound.certified_upper:
        return f"{who}: certified lower {bound.certified_lower} above certified upper {bound.certified_upper}"
    said = f"{who}: lower {bound.lower}, upper {bound.upper}, clean {clean}"
    low = bound.best_lower
    if np.isnan(bound.lower) or np.isnan(bound.upper) or np.isnan(bound.certified_lower) or not low < np.inf:
        return said
    at_witness = bound.upper <= clean or not np.isfinite(clean)
    high = bound.upper if at_witness else clean
    if not low > high:
        return ""
    point = problem.input_set.center if bound.witness is None or not at_witness else bound.witness
    excess = low - high
    error = float(evaluation_errors(problem.network, problem.rows[[row]], point)[0][0, 0])
    return said if excess > ALLOWANCE * error else ""  # never where the error is NaN
