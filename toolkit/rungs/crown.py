"""CROWN's dual point: the lower slope of every unstable ReLU is 0 or 1, whichever cuts off the smaller area.

Claim: g(α) with α = 1 where u ≥ −l and 0 elsewhere is a lower bound, because every α ∈ [0,1] is dual feasible
(rungs/dual.py). Neither it nor the dual rung's α = u/(u−l) is always the better one.

Source: Zhang et al. 2018, "Efficient neural network robustness certification with general activation functions", §3.3
(the adaptive choice for ReLU). Checked: rounding, which is taken off. Trusted: that the given l,u hold.
"""

from __future__ import annotations

from toolkit.arrays import FloatArray
from toolkit.problems.answers import RowBounds
from toolkit.problems.problem import Problem
from toolkit.problems.reduced import alive_network
from toolkit.relaxations.relu import adaptive_slope
from toolkit.rungs.dual import certified_values
from toolkit.rungs.rung import Cost, Rung, Side


def crown_slopes(problem: Problem) -> list[FloatArray]:
    """α of every alive neuron, one array of shape (n_k,) per ReLU layer: 1 if u ≥ −l, else 0."""
    network = alive_network(problem)
    return [adaptive_slope(low, high) for low, high in zip(network.lower, network.upper, strict=True)]


def crown_values(problem: Problem) -> FloatArray:
    """g(α) at CROWN's slopes for every row, shape (m,)."""
    return certified_values(problem, crown_slopes(problem))


def crown_bounds(problem: Problem) -> RowBounds:
    """The lower side of every row."""
    return RowBounds(crown_values(problem))


RUNG = Rung(
    name="crown",
    side=Side.LOWER,
    claim="dual feasible point α ∈ {0, 1}, closed form",
    source="Zhang et al. 2018",
    run=crown_bounds,
    cost=Cost.CLOSED_FORM,
    certifies=True,
)
