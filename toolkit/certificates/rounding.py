"""What float64 rounding can do to the evaluation of a bound: a-priori error terms, with no directed rounding.

A bound walks back through the network with row vectors λ (one multiplier per neuron's equation x̂ = Wy + b). Each λ is
a float vector, taken as exact; what is rounded is ν = λW, the sums, and the few products at a ReLU. With unit roundoff
u = 2⁻⁵³ and γ_n = n·u/(1 − n·u), in any order of summation and with or without fused operations (Higham 2002, §3.1):

    |fl(λW)_j − (λW)_j| ≤ γ_n Σ_i |λ_i||W_ij| ≤ γ_n ‖λ‖₂ ‖W_:j‖₂        (Cauchy–Schwarz),

so |Σ_j (error of ν_j)·y_j| ≤ γ_n ‖λ‖₂ Σ_j ‖W_:j‖₂ r_j for every y with |y_j| ≤ r_j: one number per map times one norm
per row. The sums and products at a ReLU and at the input have terms of absolute sum at most ‖ν‖₂‖r‖₂ (or ‖λ‖₂‖b‖₂),
and so an error of at most γ_{n+OPERATIONS} times that; the box's middle and half-widths, rounded once or twice each,
are covered by it too. W and b may themselves be rounded (AffineMap.column_error, bias_error): the map the user gave
differs by at most λ·(ΔW y + Δb) ≤ ‖λ‖₂(Σ_j ‖ΔW_:j‖₂ r_j + ‖Δb‖₂), added to the map's number. The constants are
themselves rounded, by much less than SAFETY. Underflow adds less than TINY per unit of r, and less than
γ‖ν‖₂·LEAST_SIZE in a product with ν. What overflows makes a norm, an error or the value infinite or NaN, and the bound
−∞ (`outward`).

Where the neurons of a layer (or the inputs) differ in size by more than SPREAD, one norm for all of them would charge
the small for the large. There each entry counts in units of its neuron's own size d (a power of two near r):
Σ_i |λ_i||W_ij| = Σ_i (|λ_i|d_i)(|W_ij|/d_i) ≤ ‖λ∘d‖₂ ‖W_:j/d‖₂, and Σ_i |ν_i|r_i ≤ ‖ν∘d‖₂‖r/d‖₂.

Source: Higham 2002, "Accuracy and Stability of Numerical Algorithms", §3.1, §3.5. Trusted: IEEE 754 binary64 with
rounding to nearest, and matrix products that only add products of entries (no Strassen). Checked: tests hold every term
against rational arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import Array, FloatArray, IndexArray
from toolkit.data.arguments import instance
from toolkit.networks.float_error import FLOOR, SAFETY, TINY, UNIT, UNIT32, gamma, norm, row_norms
from toolkit.networks.kernel_operators import KernelOperator
from toolkit.networks.layers import AffineMap
from toolkit.networks.network import Network
from toolkit.networks.stages import Stage, plain_weight, sequential
from toolkit.networks.weight_error import column_norms
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_set import InputSet, check_is_input_set
from toolkit.problems.problem import Problem
from toolkit.problems.reduced import AliveNetwork, alive_part
from toolkit.problems.region import Region
from toolkit.relaxations.relu import chord

__all__ = [
    "ErrorModel",
    "Ledger",
    "error_model_of",
    "float32_error",
    "gamma",
    "make_error_model",
    "norm",
    "outward",
    "row_norms",
    "staged_error_model",
]

OPERATIONS = 64  # roundings at one ReLU or one input besides those of a sum, and additions of layers' parts
LEAST_32, LARGEST_32 = 2.0**-126, 2.0**127  # float32: least normal number, and less than the largest
SPREAD = 2.0**16  # of the sizes in a layer from where on each neuron is measured in its own unit
LEAST_UNIT = 2.0**-200  # of the largest unit in a layer
LEAST_SHARE = 2.0**-8  # of the terms that a neuron sums up: a unit no larger than their rounding would cost others
LEAST_SIZE = 2.0**-960  # r at least, so that γ‖ν‖r covers what underflow takes from a product with ν


@dataclass(frozen=True, eq=False)
class ErrorModel:
    """The stages of a network over a ball with l,u, reduced to alive neurons, and their error coefficients.

    stages: all of them between alive neurons, the last one linear. lower, upper: l and u of alive neurons per hidden
    stage; of a linear one, bounds of its values. unstable: which of them have l < 0, none in a linear stage.
    input_set: where the input lies. product[k]: error of λ·b_k + Σ_j (λW_kj)·y⁽ʲ⁾ per unit of `after`; spread[j]:
    error of the terms at place j (0: the input) per unit of `before`, for ν and λ there; floor: the part that stands by
    itself. units[j]: d of the values at place j, at the end of the outputs; None: 1 for all of it.
    """

    stages: tuple[Stage, ...]
    lower: tuple[FloatArray, ...]
    upper: tuple[FloatArray, ...]
    unstable: tuple[IndexArray, ...]
    input_set: InputSet
    product: tuple[float, ...]
    spread: tuple[float, ...]
    floor: float
    units: tuple[FloatArray | None, ...]

    def before(self, place: int, rows: Array, chosen: IndexArray | None = None) -> FloatArray:
        """‖ν∘d‖₂ of every row, ν over the values of a place, or over the chosen part of them."""
        unit = self.units[place]
        if isinstance(rows, KernelOperator):
            return rows.norms(1, unit)
        if unit is None:
            return row_norms(rows)
        unit = unit if chosen is None else unit[chosen]
        return row_norms(rows.multiply(unit[None]).tocsr() if sp.issparse(rows) else rows * unit)

    def after(self, k: int, rows: Array) -> FloatArray:
        """‖λ∘d‖₂ of every row, λ over what stage k gives."""
        return self.before(k + 1, rows)

    @cached_property
    def own(self) -> tuple[slice, ...]:
        """Where the unstable neurons of each hidden stage stand among all of them."""
        ends = np.cumsum([0, *(index.size for index in self.unstable)]).tolist()
        return tuple(slice(start, stop) for start, stop in pairwise(ends))

    @cached_property
    def triangles(self) -> tuple[tuple[FloatArray, FloatArray, FloatArray], ...]:
        """l, u and the chord's slope of the unstable neurons of each hidden stage."""
        every = zip(self.lower, self.upper, self.unstable, strict=True)
        chosen = [(lower[index], upper[index]) for lower, upper, index in every]
        return tuple((lower, upper, chord(lower, upper)) for lower, upper in chosen)

    @cached_property
    def count(self) -> int:
        """Number of unstable neurons."""
        return sum(index.size for index in self.unstable)


def make_error_model(network: Network, alive: AliveNetwork, ball: InputSet) -> ErrorModel:
    """The error model of a network over a ball, reduced to its alive part."""
    stages = (*alive.stages, network.stages[-1].restrict(None, (None, *alive.alive)))
    unstable = tuple(np.flatnonzero(alive.unstable(k)) for k in range(len(alive.stages)))
    return staged_error_model(network.stages, stages, alive.alive, (alive.lower, alive.upper), unstable, ball)


def staged_error_model(
    whole: Sequence[Stage],
    stages: tuple[Stage, ...],
    alive: Sequence[IndexArray],
    bounds: tuple[tuple[FloatArray, ...], tuple[FloatArray, ...]],
    unstable: tuple[IndexArray, ...],
    ball: InputSet,
) -> ErrorModel:
    """The error model of `stages`, the part of the stages `whole` between alive neurons.

    alive, bounds (l, u), unstable: per hidden stage, over its alive neurons. Norms are those of the whole maps, kept
    from ball to ball: no smaller than those of their alive parts. ν⁽ʲ⁾ is a sum over the stages that read place j; its
    additions are among the roundings every product is charged for.
    """
    lower, upper = bounds
    places = ball.size, *(stage.output_size for stage in whole[:-1])
    sizes = [np.maximum(np.abs(ball.lower), np.abs(ball.upper))]
    sizes += [np.maximum(high, -low) for low, high in zip(lower, upper, strict=True)]
    extra = OPERATIONS + 8 * sum(len(stage.sources) for stage in whole)
    with np.errstate(over="ignore", invalid="ignore"):
        apart = [False, *(stage.stacked.row_spread > SPREAD for stage in whole[:-1]), False]
        reach = (*sizes, _output_sizes(whole[-1], stages[-1], sizes))
        units = [_unit(*of) for of in zip(reach, apart, strict=True)]
        for k, stage in enumerate(stages[:-1]):
            if units[k + 1] is not None:
                summed = _sums(_magnitudes(stage), sizes) + np.abs(stage.bias)
                units[k + 1] = _unit(np.maximum(sizes[k + 1], LEAST_SHARE * summed), apart[k + 1])
        sizes = [np.maximum(size, LEAST_SIZE) for size in sizes]
        alive = [np.arange(ball.size), *alive]
        product = tuple(
            _product_error(whole[k], stage, sizes, alive, units[k + 1], extra) for k, stage in enumerate(stages)
        )
        spread = tuple(
            gamma(count + extra) * norm(size if unit is None else size / unit)
            for count, size, unit in zip(places, sizes, units, strict=False)
        )
        floor = TINY * (1.0 + sum(float(size.sum()) for size in sizes))
    return ErrorModel(stages, lower, upper, unstable, ball, product, spread, floor, tuple(units))


def _output_sizes(whole: Stage, last: Stage, sizes: Sequence[FloatArray]) -> FloatArray:
    """How large each output may be, all 1 where the last stage's rows and biases show that none is much larger."""
    if whole.stacked.row_spread <= SPREAD:
        return np.ones(1)
    return np.asarray(_sums(_magnitudes(last), sizes) + np.abs(last.bias))


def _magnitudes(stage: Stage) -> list[tuple[int, Any]]:
    """(j, |W_j|) of every place j that the stage reads."""
    return [(place, abs(layer.operand())) for place, layer in stage.sources]


def _sums(weights: Sequence[tuple[int, Any]], sizes: Sequence[FloatArray]) -> FloatArray:
    """Σ_j W_j·r_j."""
    return np.asarray(sum(weight @ sizes[place] for place, weight in weights))


def _scaled_column_norms(layer: AffineMap, outer: FloatArray) -> FloatArray:
    """‖W_:j/outer‖₂ of every column, rounded up."""
    matrix = plain_weight(layer)
    if isinstance(matrix, KernelOperator):
        return matrix.norms(0, 1.0 / outer)
    return column_norms(
        matrix.multiply(1.0 / outer[:, None]).tocsr() if sp.issparse(matrix) else matrix / outer[:, None]
    )


def _unit(reach: FloatArray, apart: bool) -> FloatArray | None:
    """A power of two near every size, None where not all are numbers, or where they are alike and not `apart`: then
    inactive neurons of the layer, which the norms of its whole map count, are of another size."""
    largest, known = float(reach.max(initial=0.0)), reach[reach > 0]
    if not known.size or not np.isfinite(largest) or (largest <= SPREAD * float(known.min()) and not apart):
        return None
    # not below 2⁻⁹⁰⁰ either: quotients by it must stay numbers
    floor = max(largest * LEAST_UNIT, 2.0**-900)
    return np.asarray(np.ldexp(1.0, np.frexp(np.maximum(reach, floor))[1] - 1), dtype=np.float64)


def _product_error(
    whole: Stage,
    part: Stage,
    sizes: Sequence[FloatArray],
    alive: Sequence[IndexArray],
    outer: FloatArray | None,
    extra: int,
) -> float:
    """Error of λ·b + (λW)·y per unit of ‖λ∘outer‖₂, |y| ≤ sizes at the alive neurons: of rounding, and of W and b."""
    layer, size = whole.stacked, whole.gathered(sizes)
    chosen = whole.gathered_indices(alive)
    columns, terms = layer.column_norms
    made = 0.0 if layer.column_error is None else float(layer.column_error[chosen] @ size)
    if outer is None:
        own = float(columns[chosen] @ size) + FLOOR * float(columns.max(initial=0.0)) * float(size.sum())
        found = gamma(terms + extra) * SAFETY * own + gamma(layer.output_size + extra) * norm(layer.bias_vector)
        return found + SAFETY * (made + layer.bias_error)
    norms = np.concatenate([_scaled_column_norms(one, outer) for _, one in part.sources])
    own = SAFETY * float(norms @ size)
    found = gamma(terms + extra) * SAFETY * own + gamma(layer.output_size + extra) * norm(part.bias / outer)
    return found + SAFETY * (made + layer.bias_error) / float(outer.min())


def error_model_of(problem: Problem) -> ErrorModel:
    """The error model of the problem's region, memoised on the problem."""

    return problem.region.derive(_error_model)


def _error_model(region: Region) -> ErrorModel:
    return make_error_model(region.network, region.derive(alive_part), region.input_set)


class Ledger:
    """Adds up what rounding can have done to each of `count` rows of one evaluation, as relu.walk reports it."""

    def __init__(self, model: ErrorModel, count: int) -> None:
        self._model = model
        self.error = np.full(count, model.floor)

    def product(self, k: int, multipliers: Array) -> None:
        """λ·b_k and ν = λW_kj were formed, and ν added to what other stages give."""
        self.error = self.error + self._model.product[k] * self._model.after(k, multipliers)

    def terms(self, place: int, nu: Array, chosen: IndexArray | None = None) -> None:
        """Products with ν (or λ) at a place, or the chosen part of it, were summed up; 0: the input box."""
        self._norms = self._model.before(place, nu, chosen)
        self.error = self.error + self._model.spread[place] * self._norms

    def product_of_shrunk(self, k: int) -> None:
        """As `product`, for λ no larger in any entry than the ν of the last `terms` (within SAFETY)."""
        self.error = self.error + self._model.product[k] * self._norms


def outward(lower: FloatArray, error: FloatArray) -> FloatArray:
    """lower − error, rounded down; −inf where that is no number or infinite: a sum that overflowed proves nothing."""
    with np.errstate(invalid="ignore", over="ignore"):
        safe = lower - error * SAFETY
        moved = np.nextafter(safe - UNIT * np.abs(safe), -np.inf)
    return np.asarray(np.where(np.isfinite(safe) & np.isfinite(moved), moved, -np.inf), dtype=np.float64)


def _are_maps(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(one, AffineMap) for one in value)


def float32_error(
    network: Network | Sequence[AffineMap], ball: InputSet, relu_bounds: ReluBounds | None = None
) -> FloatArray:
    """By how much a float32 forward pass can differ from real arithmetic, per output, anywhere in the ball.

    network: whose stages the pass evaluates one after the other, or the maps of a sequential one.
    e ← |W|e + γ_{n+3}(|W|(r + e) + |b|) + (n+3)·2⁻¹²⁶(1 + Σ(r + e)), in u = 2⁻²⁴, from e = u·|x| + 2⁻¹²⁶ for the
    rounded input; r bounds |y| by |W|r + |b|, and by u where relu_bounds are given; the last term is underflow, flushed
    to zero or not; a stage of several maps sums over all of them. Covers weights rounded to float32, and the error that
    the maps carry themselves. +inf where a sum may overflow float32. Shape (outputs,). The margin of a row c loses at
    most |c|·error: a margin proven above that holds for float32 inference too. Trusted: float32 sums of products in any
    order, no reduced-precision units (TF32, Winograd).
    """
    if not isinstance(network, Network) and not _are_maps(network):
        instance("network", network, Network)
    check_is_input_set("ball", ball)
    if relu_bounds is not None:
        instance("relu_bounds", relu_bounds, ReluBounds, "as layer_bounds(network, ball) returns them")
    start = np.maximum(np.abs(ball.lower), np.abs(ball.upper))
    sizes, errors = [start], [UNIT32 * start + LEAST_32]
    overflows = bool(np.any(start + errors[0] > LARGEST_32))
    stages = network.stages if isinstance(network, Network) else sequential(network)
    with np.errstate(over="ignore", invalid="ignore"):
        for k, stage in enumerate(stages):
            layer = stage.stacked
            size, error = stage.gathered(sizes), stage.gathered(errors)
            weights, bias = _magnitudes(stage), np.abs(layer.bias_vector)
            count = layer.row_entries + 2 + len(stage.sources)
            total = _sums(weights, [one + other for one, other in zip(sizes, errors, strict=True)]) + bias
            overflows |= bool(np.any(~(total <= LARGEST_32)))
            made = layer.bias_error + (0.0 if layer.column_error is None else float(layer.column_error @ size))
            lost = count * LEAST_32 * (1.0 + float((size + error).sum()))
            wrong = SAFETY * (_sums(weights, errors) + gamma(count, UNIT32) * total + made + lost)
            size = SAFETY * (_sums(weights, sizes) + bias + made)
            errors.append(wrong)
            known = relu_bounds is not None and k < len(relu_bounds)
            sizes.append(np.minimum(size, np.maximum(relu_bounds.upper[k], 0.0)) if known and relu_bounds else size)
    return np.full(errors[-1].shape, np.inf) if overflows else np.asarray(errors[-1], dtype=np.float64)
