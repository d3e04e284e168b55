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
from typing import Any

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import FloatArray, IndexArray
from toolkit.networks.float_error import FLOOR, SAFETY, TINY, UNIT, UNIT32, gamma, norm, row_norms
from toolkit.networks.layers import AffineMap
from toolkit.networks.network import Network
from toolkit.networks.weight_error import column_norms
from toolkit.problems import region as problem_region
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_set import InputSet
from toolkit.problems.problem import Problem
from toolkit.problems.reduced import AliveNetwork, alive_part

__all__ = ["Ledger", "Region", "float32_error", "gamma", "make_region", "norm", "outward", "region_of", "row_norms"]

OPERATIONS = 64  # roundings at one ReLU or one input besides those of a sum, and additions of layers' parts
LEAST_32, LARGEST_32 = 2.0**-126, 2.0**127  # float32: least normal number, and less than the largest
SPREAD = 2.0**16  # of the sizes in a layer from where on each neuron is measured in its own unit
LEAST_UNIT = 2.0**-200  # of the largest unit in a layer
LEAST_SIZE = 2.0**-960  # r at least, so that γ‖ν‖r covers what underflow takes from a product with ν


@dataclass(frozen=True, eq=False)
class Region:
    """A network over a ball with l,u, reduced to alive neurons, and its error coefficients.

    maps: all affine maps between alive neurons. lower, upper: l and u of alive neurons per ReLU layer. unstable: which
    of them have l < 0. ball_lower, ball_upper: the input box. product[k]: error of λ·b_k + (λW_k)·y per unit of
    `after`; spread[k]: error of the terms in front of map k (k = 0: the input's) per unit of `before`, for ν and λ
    there; floor: the part that stands by itself. units[k]: d of what map k takes, at the end of the outputs; None: 1
    for all of it.
    """

    maps: tuple[AffineMap, ...]
    lower: tuple[FloatArray, ...]
    upper: tuple[FloatArray, ...]
    unstable: tuple[IndexArray, ...]
    ball_lower: FloatArray
    ball_upper: FloatArray
    product: tuple[float, ...]
    spread: tuple[float, ...]
    floor: float
    units: tuple[FloatArray | None, ...]

    def before(self, k: int, rows: Any, chosen: IndexArray | None = None) -> FloatArray:
        """‖ν∘d‖₂ of every row, ν over what map k takes, or over the chosen part of it."""
        unit = self.units[k]
        if unit is None:
            return row_norms(rows)
        unit = unit if chosen is None else unit[chosen]
        return row_norms(rows.multiply(unit[None]).tocsr() if sp.issparse(rows) else rows * unit)

    def after(self, k: int, rows: Any) -> FloatArray:
        """‖λ∘d‖₂ of every row, λ over what map k gives."""
        return self.before(k + 1, rows)

    @property
    def count(self) -> int:
        """Number of unstable neurons."""
        return sum(index.size for index in self.unstable)


def make_region(network: Network, alive: AliveNetwork, ball: InputSet) -> Region:
    """The region of a network over a ball, reduced to its alive part.

    Norms are those of the network's whole maps, kept from ball to ball: no smaller than those of their alive parts.
    """
    last = network.layers[-1]
    maps = (*alive.layers, last.restrict(None, alive.alive[-1]) if alive.alive else last)
    sizes = [np.maximum(np.abs(ball.lower), np.abs(ball.upper))]
    sizes += [np.maximum(high, -low) for low, high in zip(alive.lower, alive.upper, strict=True)]
    extra = OPERATIONS + 8 * len(maps)
    product, spread, floor = [], [], TINY
    inputs = [np.arange(ball.size), *alive.alive]
    with np.errstate(over="ignore", invalid="ignore"):
        apart = [False, *(layer.row_spread > SPREAD for layer in network.layers[:-1]), False]
        units = tuple(
            _unit(*of) for of in zip((*sizes, _output_sizes(network, maps[-1], sizes[-1])), apart, strict=True)
        )
        for k, (layer, reach, chosen) in enumerate(zip(network.layers, sizes, inputs, strict=True)):
            size = np.maximum(reach, LEAST_SIZE)
            outer, unit = units[k + 1], units[k]
            if outer is None:
                product.append(_product_error(layer, size, chosen, extra))
            else:
                product.append(_product_error_in_units(layer, maps[k], outer, size, chosen, extra))
            spread.append(gamma(layer.input_size + extra) * norm(size if unit is None else size / unit))
            floor += TINY * float(size.sum())
    unstable = tuple(np.flatnonzero(alive.unstable(k)) for k in range(len(alive.layers)))
    box = ball.lower, ball.upper
    return Region(maps, alive.lower, alive.upper, unstable, *box, tuple(product), tuple(spread), floor, units)


def _output_sizes(network: Network, last: AffineMap, size: FloatArray) -> FloatArray:
    """How large each output may be, all 1 where the last map's rows and biases show that none is much larger."""
    if network.layers[-1].row_spread <= SPREAD:
        return np.ones(1)
    return np.asarray(abs(last.to_sparse()) @ size + np.abs(last.bias_vector))


def _unit(reach: FloatArray, apart: bool) -> FloatArray | None:
    """A power of two near every size, None where not all are numbers, or where they are alike and not `apart`: then
    inactive neurons of the layer, which the norms of its whole map count, are of another size."""
    largest, known = float(reach.max(initial=0.0)), reach[reach > 0]
    if not known.size or not np.isfinite(largest) or (largest <= SPREAD * float(known.min()) and not apart):
        return None
    # not below 2⁻⁹⁰⁰ either: quotients by it must stay numbers
    floor = max(largest * LEAST_UNIT, 2.0**-900)
    return np.asarray(np.ldexp(1.0, np.frexp(np.maximum(reach, floor))[1] - 1), dtype=np.float64)


def _product_error(layer: AffineMap, size: FloatArray, chosen: IndexArray, extra: int) -> float:
    """Error of λ·b + (λW)·y per unit of ‖λ‖₂, |y_j| ≤ size_j at the chosen inputs: of rounding, and of W and b."""
    columns, terms = layer.column_norms
    own = float(columns[chosen] @ size) + FLOOR * float(columns.max(initial=0.0)) * float(size.sum())
    found = gamma(terms + extra) * SAFETY * own + gamma(layer.output_size + extra) * norm(layer.bias_vector)
    if layer.column_error is not None:
        found += SAFETY * float(layer.column_error[chosen] @ size)
    return found + SAFETY * layer.bias_error


def _product_error_in_units(
    layer: AffineMap, alive: AffineMap, outer: FloatArray, size: FloatArray, chosen: IndexArray, extra: int
) -> float:
    """The same per unit of ‖λ∘outer‖₂; alive: the part of the layer between alive neurons."""
    scaled = abs(alive.to_sparse()).multiply(1.0 / outer[:, None])
    own = SAFETY * float(column_norms(sp.csr_array(scaled)) @ size)
    terms = layer.column_norms[1]
    found = gamma(terms + extra) * SAFETY * own + gamma(layer.output_size + extra) * norm(alive.bias_vector / outer)
    made = 0.0 if layer.column_error is None else float(layer.column_error[chosen] @ size)
    return found + SAFETY * (made + layer.bias_error) / float(outer.min())


def region_of(problem: Problem) -> Region:
    """The problem's region, memoised on the problem."""

    return problem.region.derive(_error_terms)


def _error_terms(region: problem_region.Region) -> Region:
    return make_region(region.network, region.derive(alive_part), region.input_set)


class Ledger:
    """Adds up what rounding can have done to each row of one evaluation."""

    def __init__(self, region: Region, rows: Any) -> None:
        self._region = region
        self.error = np.full(rows.shape[0], region.floor)
        self.product(len(region.maps) - 1, rows)

    def product(self, k: int, multipliers: Any) -> None:
        """λ·b_k and ν = λW_k were formed."""
        self.error = self.error + self._region.product[k] * self._region.after(k, multipliers)

    def terms(self, k: int, nu: Any, chosen: IndexArray | None = None) -> None:
        """Products with ν (or λ) in front of map k, or the chosen part of it, were summed up; k = 0: the input box."""
        self._norms = self._region.before(k, nu, chosen)
        self.error = self.error + self._region.spread[k] * self._norms

    def product_of_shrunk(self, k: int) -> None:
        """As `product`, for λ no larger in any entry than the ν of the last `terms` (within SAFETY)."""
        self.error = self.error + self._region.product[k] * self._norms


def outward(lower: FloatArray, error: FloatArray) -> FloatArray:
    """lower − error, rounded down; −inf where that is no number or infinite: a sum that overflowed proves nothing."""
    with np.errstate(invalid="ignore", over="ignore"):
        safe = lower - error * SAFETY
        moved = np.nextafter(safe - UNIT * np.abs(safe), -np.inf)
    return np.asarray(np.where(np.isfinite(safe) & np.isfinite(moved), moved, -np.inf), dtype=np.float64)


def float32_error(layers: Sequence[AffineMap], ball: InputSet, relu_bounds: ReluBounds | None = None) -> FloatArray:
    """By how much a float32 forward pass can differ from real arithmetic, per output, anywhere in the ball.

    e ← |W|e + γ_{n+3}(|W|(r + e) + |b|) + (n+3)·2⁻¹²⁶(1 + Σ(r + e)), in u = 2⁻²⁴, from e = u·|x| + 2⁻¹²⁶ for the
    rounded input; r bounds |y| by |W|r + |b|, and by u where relu_bounds are given; the last term is underflow, flushed
    to zero or not. Covers weights rounded to float32, and the error that the maps carry themselves. +inf where a sum
    may overflow float32. Shape (outputs,). The margin of a row c loses at most |c|·error: a margin proven above that
    holds for float32 inference too. Trusted: float32 sums of products in any order, no reduced-precision units (TF32,
    Winograd).
    """
    size = np.maximum(np.abs(ball.lower), np.abs(ball.upper))
    error = UNIT32 * size + LEAST_32
    overflows = bool(np.any(size + error > LARGEST_32))
    with np.errstate(over="ignore", invalid="ignore"):
        for k, layer in enumerate(layers):
            weight = abs(layer.to_sparse())
            bias = np.abs(layer.bias_vector)
            count = int(np.diff(weight.indptr).max(initial=0)) + 3
            total = weight @ (size + error) + bias
            overflows |= bool(np.any(~(total <= LARGEST_32)))
            made = layer.bias_error + (0.0 if layer.column_error is None else float(layer.column_error @ size))
            lost = count * LEAST_32 * (1.0 + float((size + error).sum()))
            error = SAFETY * (weight @ error + gamma(count, UNIT32) * total + made + lost)
            size = SAFETY * (weight @ size + bias + made)
            if relu_bounds is not None and k < len(relu_bounds):
                size = np.minimum(size, np.maximum(relu_bounds.upper[k], 0.0))
    return np.full(error.shape, np.inf) if overflows else np.asarray(error, dtype=np.float64)
