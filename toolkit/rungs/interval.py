"""Interval arithmetic pushed forward through the network: the cheapest bound.

Claim: with ŷ ∈ [lo, hi] on the inputs of the last affine map, cᵀ(W_L y + b_L) ≥ (cᵀW_L)⁺·lo + (cᵀW_L)⁻·hi + cᵀb_L.
For the first layer the inputs range over a box, so the bound is exact there. Given l,u are intersected on the way.

Source: Gowal et al. 2018, "On the effectiveness of interval bound propagation", §3.
Checked: rounding, which is taken off (rounding.py). Trusted: that given l,u hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace

from toolkit.arrays import FloatArray
from toolkit.certificates.rounding import Ledger, error_model_of, outward
from toolkit.problems.answers import RowBounds
from toolkit.problems.input_set import box_range_linear
from toolkit.problems.problem import Problem
from toolkit.problems.reduced import alive_network, folded_or_selected
from toolkit.rungs.rung import Cost, Rung, Side


def post_activation_box(lower: Any, upper: Any) -> tuple[Any, Any]:
    """The box that holds max(x̂, 0) for l ≤ x̂ ≤ u; array-API generic, any shape."""
    xp = array_namespace(lower, upper)
    zero = xp.zeros_like(lower)
    return xp.maximum(lower, zero), xp.maximum(upper, zero)


def interval_ranges(problem: Problem) -> tuple[FloatArray, FloatArray]:
    """Lower and upper bound of every row. The l,u of the ReLU layers that the last stage reads say it all."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        starts, middle = folded_or_selected(problem)
        network, half_width = alive_network(problem), np.zeros_like(middle)
        ledger = Ledger(error_model_of(problem), problem.rows.shape[0])
        ledger.product(len(network.alive), problem.rows)
        for place, nu in starts.items():
            ledger.terms(place, nu)
            own = (
                box_range_linear(nu, *post_activation_box(network.lower[place - 1], network.upper[place - 1]))
                if place
                else problem.input_set.linear_range(nu)
            )
            middle, half_width = middle + own[0], half_width + own[1]
        return outward(middle - half_width, ledger.error), -outward(-(middle + half_width), ledger.error)


def interval_bounds(problem: Problem) -> RowBounds:
    """Both sides of every row."""
    return RowBounds(*interval_ranges(problem))


RUNG = Rung(
    name="interval",
    side=Side.LOWER,
    claim="interval arithmetic through the last layer",
    source="Gowal et al. 2018",
    run=interval_bounds,
    cost=Cost.CLOSED_FORM,
    certifies=True,
)
