"""Lipschitz bounds: the margin at a point of the ball minus what it can lose at most on the way to any other.

Along a segment a ReLU network's output changes by c·W_L·D_{L−1}·W_{L−1} … D_1·W_1·(x̃ − x), where every D is diagonal
with entries in [0,1], 1 at active and 0 at inactive neurons. Two bounds on that:

- product:    c·F(x) − ‖c·W_L‖₁ · ‖W_{L−1}‖_{∞→∞} … ‖W_1‖_{∞→∞} · ε,  with ‖W‖_{∞→∞} the largest ℓ1 norm of a row,
              summed over all paths where stages read several places, and ε how far a coordinate may move from x;
- per margin: c·F(p) − max_{x̃∈P} Σ_j max(|J̲_j|, |J̄_j|)·|x̃_j − p_j|,  with p the set's middle and J̲ ≤ J ≤ J̄ the range
  of the row vectors above over all such D, by interval arithmetic from the output back. For an ℓ1 or ℓ2 ball that
  maximum is at most the radius times the dual norm (`InputSet.deviation`), for a box the sum with its half-widths.

The rung gives the larger. The second never loses more than the first does per unit of radius.

Source: Szegedy et al. 2014, "Intriguing properties of neural networks", §4.3 (product); Hein & Andriushchenko 2017,
"Formal guarantees on the robustness of a classifier", Thm 2.1 (margin minus radius times a local constant); Weng et
al. 2018, "Towards fast computation of certified robustness for ReLU networks", Alg. 2 Fast-Lip (the range of J).
Rounding is taken off: constants and half-widths are raised by what their sums can lose, γ_n = nu/(1 − nu) of them, and
the map's own errors ΔW, Δb are part of them; the value at the point has the error bound of replay.py. Trusted: what
rounding.py trusts, and for the second bound that the given l,u hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.arrays import BoolArray, FloatArray
from toolkit.certificates.rounding import outward
from toolkit.networks.float_error import TINY, UNIT, gamma, row_norms
from toolkit.networks.layers import AffineMap
from toolkit.networks.replay import evaluation_errors
from toolkit.networks.stages import plain_weight
from toolkit.networks.weights import dense_array
from toolkit.problems.answers import RowBounds
from toolkit.problems.problem import Problem
from toolkit.problems.reduced import alive_last, alive_network, alive_part, folded_rows
from toolkit.problems.region import Region
from toolkit.relaxations.relu import walk
from toolkit.rungs.rung import Cost, Rung, Side


def product_values(problem: Problem) -> FloatArray:
    """c·F(x) − ‖c·W_L‖₁·Π‖W_l‖_{∞→∞}·ε for every row, shape (m,); no l,u needed."""
    with np.errstate(over="ignore", invalid="ignore"):
        constants, count = np.zeros(problem.rows.shape[0]), 0
        for place, layer in problem.network.stages[-1].sources:
            middle, half_width = _row_vectors(problem.rows, layer)
            sums = (np.abs(middle) + half_width).sum(axis=1)
            constants = constants + sums * problem.region.derive(_products_of_norms)[place]
            count += middle.shape[1]
        loss = _raised(constants * problem.input_set.radius, count)
        return _below(problem, problem.input_set.center, loss)


def jacobian_values(problem: Problem) -> FloatArray:
    """c·F(p) − max over the set of Σ_j max(|J̲_j|, |J̄_j|)·|x̃_j − p_j| for every row, shape (m,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        middle, half_width = jacobian_ranges(problem)
        loss = _raised(problem.input_set.deviation(np.abs(middle) + half_width), middle.shape[1])
        return _below(problem, problem.input_set.middle, loss)


def jacobian_ranges(problem: Problem) -> tuple[FloatArray, FloatArray]:
    """Middle and half-width of J̲ ≤ J ≤ J̄: every difference quotient of c·F between points of the ball lies there.

    Shapes: (m, n) each.
    """
    network = alive_network(problem)
    rows, _ = folded_rows(problem)
    sizes = problem.region.derive(_absolute_weights)
    stages = [RangeStage(stage.sources, size) for stage, size in zip(network.stages, sizes, strict=True)]
    step = JacobianStep([network.unstable(k) for k in range(len(stages))])
    last = problem.region.derive(alive_last).sources
    starts = {place: RowRange(*_row_vectors(problem.rows, layer, rows[place])) for place, layer in last}
    found, _ = walk(stages, starts, step)
    return found.middle, found.half_width


@dataclass(frozen=True, eq=False)
class RowRange:
    """Row vectors J with |J − middle| ≤ half_width. Shapes: (m, n) each."""

    middle: FloatArray
    half_width: FloatArray

    def __add__(self, other: RowRange) -> RowRange:
        """The range of sums, raised by what adding rounds."""
        middle, half_width = self.middle + other.middle, self.half_width + other.half_width
        return RowRange(middle, _raised(half_width + 2 * UNIT * np.abs(middle), 4))


@dataclass(frozen=True, eq=False)
class RangeStage:
    """A stage that passes ranges of rows back: the middle by W, the half-width by |W|, and what rounding may have done.

    sources: (j, W) as of a Stage; sizes: |W| of each.
    """

    sources: tuple[tuple[int, AffineMap], ...]
    sizes: tuple[Any, ...]
    relu: bool = True

    def adjoint(self, multipliers: RowRange) -> list[tuple[int, RowRange]]:
        """(j, the range of λW) for every source."""
        middle, half_width = multipliers.middle, multipliers.half_width
        found = []
        for (place, layer), size in zip(self.sources, self.sizes, strict=True):
            spread = half_width + gamma(layer.output_size + 4) * np.abs(middle)
            merged = _merge_error(layer, np.abs(middle) + half_width)
            reach = _raised(np.asarray((size.T @ spread.T).T) + merged, layer.output_size) + TINY
            found.append((place, RowRange(layer.adjoint(middle), reach)))
        return found

    def constant(self, multipliers: RowRange) -> float:
        """A difference quotient has no constant."""
        return 0.0


class JacobianStep:
    """With J̲ ≤ J ≤ J̄ behind a ReLU, D ∈ [0,1] gives min(J̲, 0) ≤ J·D ≤ max(J̄, 0) at unstable neurons."""

    shrinks = False

    def __init__(self, unstable: Sequence[BoolArray]) -> None:
        self.unstable = unstable

    def relu(self, k: int, nu: RowRange) -> RowRange:
        middle, half_width, unstable = nu.middle, nu.half_width, self.unstable[k]
        low = np.where(unstable, np.minimum(middle - half_width, 0.0), middle - half_width)
        high = np.where(unstable, np.maximum(middle + half_width, 0.0), middle + half_width)
        return RowRange(0.5 * (low + high), 0.5 * (high - low) + 4 * UNIT * (np.abs(low) + np.abs(high)))


def _row_vectors(rows: Any, last: AffineMap, product: Any = None) -> tuple[FloatArray, FloatArray]:
    """c·W_L and by how much it may differ from its real value. Shapes: (m, inputs of the last map) each."""
    dense = dense_array(rows)
    nu = last.compose_rows(rows)[0] if product is None else product
    middle = dense_array(nu)
    size = np.asarray((absolute_weight(last).T @ np.abs(dense).T).T)
    error = gamma(last.output_size + 4) * size + _merge_error(last, np.abs(dense)) + TINY
    return middle, _raised(error, 4)


def _merge_error(layer: AffineMap, rows: FloatArray) -> FloatArray | float:
    """Bounds |λΔW|_j ≤ ‖λ‖₂‖ΔW_:j‖₂ for |λ| ≤ rows. Shape (m, inputs), or 0 for an exact map."""
    return 0.0 if layer.column_error is None else np.outer(row_norms(rows), layer.column_error)


def _raised(values: FloatArray, terms: int) -> FloatArray:
    """Sums of that many numbers ≥ 0, and a few products, rounded up."""
    return values * (1.0 + gamma(terms + 8))


def _below(problem: Problem, point: FloatArray, loss: FloatArray) -> FloatArray:
    """c·F at the point minus the loss, less rounding; −inf where that is no number."""
    value = problem.replay(point)[0]
    return outward(value - loss, evaluation_errors(problem.network, problem.rows, point)[0][0] + TINY)


def absolute_weight(layer: AffineMap) -> Any:
    """|W|, dense for a Dense map and scipy.sparse for any other."""
    return abs(plain_weight(layer))


def _absolute_weights(region: Region) -> list[tuple[Any, ...]]:
    stages = region.derive(alive_part).stages
    return [tuple(absolute_weight(layer) for _, layer in stage.sources) for stage in stages]


def _products_of_norms(region: Region) -> list[float]:
    """L_0 = 1, L_k = Σ_j ‖W_kj‖_{∞→∞}·L_j of every hidden stage, rounded up: how far a step of the input moves y⁽ᵏ⁾."""
    found = [1.0]
    for stage, norms in zip(region.network.stages[:-1], region.network.operator_norms, strict=False):
        total = 0.0
        for (place, layer), (norm, _, terms) in zip(stage.sources, norms, strict=True):
            merged = 0.0 if layer.column_error is None else float(np.sum(layer.column_error))
            total += found[place] * ((norm + merged) * (1.0 + gamma(terms + layer.input_size + 8)) + TINY)
        found.append(total * (1.0 + gamma(2 * (len(stage.sources) - 1))))
    return found


def lipschitz_values(problem: Problem) -> FloatArray:
    """The larger of the two bounds for every row, shape (m,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.fmax(product_values(problem), jacobian_values(problem))
    return np.where(np.isfinite(found), found, -np.inf)  # a sum that overflowed proves nothing


def lipschitz_bounds(problem: Problem) -> RowBounds:
    """The lower side of every row."""
    return RowBounds(lipschitz_values(problem))


RUNG = Rung(
    name="lipschitz",
    side=Side.LOWER,
    claim="margin minus radius times a bound on its gradient",
    source="Szegedy et al. 2014; Hein & Andriushchenko 2017; Weng et al. 2018",
    run=lipschitz_bounds,
    cost=Cost.CLOSED_FORM,
    certifies=True,
)
