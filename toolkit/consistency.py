"""An interval that contradicts itself, or a point of the ball, is no bound: the one place where that is looked at.

A lower bound above the value of the row at a point of the ball is false, whoever proved it: l,u, a solver or our own
code is wrong. Two real numbers (certified_lower, certified_upper) are compared as they are. A value replayed in float64
carries rounding, bounded by a running error analysis of that very replay, e ← |W|e + γ_{n+3}(|W||y| + |b|): a lower
bound may exceed it by ALLOWANCE times that error, since uncertified rungs round as much as the replay does.

Source: Higham 2002, "Accuracy and Stability of Numerical Algorithms", §3.3. Checked: every bound of every rung, once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from toolkit.balls import FloatArray

if TYPE_CHECKING:
    from toolkit.problem import Bound, Problem

ALLOWANCE = 4.0
UNIT = 2.0**-53


def clean_values(problem: Problem) -> FloatArray:
    """C·F at the ball's centre, shape (m,); the network's outputs there are memoised on the problem."""

    def outputs() -> FloatArray:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(problem.network.forward(problem.ball.center), dtype=np.float64)

    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(problem.rows @ problem.shared("outputs at the centre", outputs), dtype=np.float64)


def contradiction(problem: Problem, row: int, bound: Bound, clean: float) -> str:
    """Why the bound of this row cannot be true, "" if nothing speaks against it. clean: its value at the centre."""
    who = f"nonsense from {bound.solver or 'the rung'}"
    if bound.certified_lower > bound.certified_upper:
        return f"{who}: certified lower {bound.certified_lower} above certified upper {bound.certified_upper}"
    said = f"{who}: lower {bound.lower}, upper {bound.upper}, clean {clean}"
    low = max(bound.lower, bound.certified_lower)
    if np.isnan(bound.lower) or np.isnan(bound.upper) or np.isnan(bound.certified_lower) or not low < np.inf:
        return said
    at_witness = bound.upper <= clean or not np.isfinite(clean)
    high = bound.upper if at_witness else clean
    if not low > high:
        return ""
    point = problem.ball.center if bound.witness is None or not at_witness else bound.witness
    excess = low - high
    return said if excess > ALLOWANCE * replay_error(problem, row, point) else ""


def replay_error(problem: Problem, row: int, point: FloatArray) -> float:
    """By how much c·F at a point, computed in float64 in any order, can differ from its value in real arithmetic."""
    size, error = np.asarray(point, dtype=np.float64), np.zeros(problem.ball.size)
    with np.errstate(over="ignore", invalid="ignore"):
        for k, layer in enumerate(problem.network.layers):
            weight, bias = layer.to_sparse(), layer.bias_vector
            y = size if k == 0 else np.maximum(size, 0.0)
            error = _step(abs(weight), np.abs(y), np.abs(bias), error)
            size = weight @ y + bias
        chosen: Any = problem.rows[[row]]
        c = np.abs(chosen.toarray() if sp.issparse(chosen) else np.asarray(chosen))
        found = float(_step(c, np.abs(size), np.zeros(1), error)[0])
    return found if np.isfinite(found) else float("inf")


def _step(weight: Any, size: FloatArray, bias: FloatArray, error: FloatArray) -> FloatArray:
    """e of one affine map: what the map makes of the error before it, and its own rounding."""
    terms = (weight.shape[1] + 3) * UNIT
    return np.asarray(weight @ error + terms / (1.0 - terms) * (weight @ (size + error) + bias), dtype=np.float64)
