"""What float64 rounding can do to the evaluation of a bound: a-priori error terms, with no directed rounding.

A bound walks back through the network with row vectors λ (one multiplier per neuron's equation x̂ = Wy + b). Each λ is
a float vector, taken as exact; what is rounded is ν = λW, the sums, and the few products at a ReLU. With unit roundoff
u = 2⁻⁵³ and γ_n = n·u/(1 − n·u), in any order of summation and with or without fused operations (Higham 2002, §3.1):

    |fl(λW)_j − (λW)_j| ≤ γ_n Σ_i |λ_i||W_ij| ≤ γ_n ‖λ‖₂ ‖W_:j‖₂        (Cauchy–Schwarz),

so |Σ_j (error of ν_j)·y_j| ≤ γ_n ‖λ‖₂ Σ_j ‖W_:j‖₂ r_j for every y with |y_j| ≤ r_j: one number per map times one norm
per row. The sums and products at a ReLU and at the input have terms of absolute sum at most ‖ν‖₂‖r‖₂ (or ‖λ‖₂‖b‖₂),
and so an error of at most γ_{n+OPERATIONS} times that; the ball's ends x ± ε, rounded once each, are covered by it too.
The constants are themselves rounded, by much less than SAFETY; underflow adds less than TINY per unit of r.

Source: Higham 2002, "Accuracy and Stability of Numerical Algorithms", §3.1, §3.5. Trusted: IEEE 754 binary64 with
rounding to nearest, and matrix products that only add products of entries (no Strassen).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from toolkit.alive import AliveNetwork, alive_network
from toolkit.balls import FloatArray, LinfBall
from toolkit.layers import AffineMap, IndexArray
from toolkit.network import Network
from toolkit.problem import Problem, ReluBounds

UNIT = 2.0**-53
UNIT32 = 2.0**-24
SAFETY = 1.0 + 1e-6
OPERATIONS = 64  # roundings at one ReLU or one input besides those of a sum, and additions of layers' parts
TINY = 2.0**-1000
FLOOR = 1e-150  # what squares that underflow can take from a norm, relative to 1


def gamma(n: int, unit: float = UNIT) -> float:
    """γ_n = n·u/(1 − n·u), raised by SAFETY. Raises ValueError where it is not defined (n·u ≥ 1/2)."""
    if n * unit >= 0.5:
        raise ValueError(f"sums of {n} terms are too long for an error bound at unit roundoff {unit}")
    return SAFETY * n * unit / (1.0 - n * unit)


def norm(values: Any) -> float:
    """Euclidean norm of all entries, scaled against overflow, rounded up."""
    peak = float(np.abs(values).max(initial=0.0))
    if peak == 0.0 or not np.isfinite(peak):
        return peak
    return SAFETY * peak * (float(np.sqrt(np.square(values / peak).sum())) + FLOOR)


def row_norms(rows: Any) -> FloatArray:
    """Euclidean norm of every row, rounded up; +inf where squares overflow. rows: numpy or scipy.sparse, (m, n)."""
    with np.errstate(over="ignore", under="ignore"):
        if sp.issparse(rows):
            matrix = rows.tocsr()
            squares = np.zeros(matrix.shape[0])
            filled = np.flatnonzero(np.diff(matrix.indptr))
            if filled.size:
                squares[filled] = np.add.reduceat(np.square(matrix.data), matrix.indptr[filled])
        else:
            squares = np.einsum("ij,ij->i", rows, rows)
        return np.asarray(SAFETY * np.sqrt(squares) + FLOOR, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Region:
    """A network over a ball with l,u, reduced to alive neurons, and its error coefficients.

    maps: all affine maps between alive neurons. lower, upper: l and u of alive neurons per ReLU layer. unstable: which
    of them have l < 0. ball_lower, ball_upper: the input box. product[k]: error of λ·b_k + (λW_k)·y per unit of ‖λ‖₂;
    spread[k]: error of the terms in front of map k (k = 0: the input's) per unit of ‖ν‖₂ and ‖λ‖₂ there; floor: the
    part that stands by itself.
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

    @property
    def count(self) -> int:
        """Number of unstable neurons."""
        return sum(index.size for index in self.unstable)


def make_region(network: Network, alive: AliveNetwork, ball: LinfBall) -> Region:
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
    for layer, size, chosen in zip(network.layers, sizes, inputs, strict=True):
        columns, terms = layer.column_norms
        with np.errstate(over="ignore"):
            own = SAFETY * (float(columns[chosen] @ size) + FLOOR * float(columns.max(initial=0.0)) * float(size.sum()))
        bias = norm(layer.bias_vector)
        product.append(gamma(terms + extra) * own + gamma(layer.output_size + extra) * bias)
        spread.append(gamma(layer.input_size + extra) * norm(size))
        floor += TINY * float(size.sum())
    unstable = tuple(np.flatnonzero(alive.unstable(k)) for k in range(len(alive.layers)))
    box = ball.lower, ball.upper
    return Region(maps, alive.lower, alive.upper, unstable, *box, tuple(product), tuple(spread), floor)


def region_of(problem: Problem) -> Region:
    """The problem's region, memoised on the problem."""

    def make() -> Region:
        return make_region(problem.network, alive_network(problem), problem.ball)

    return problem.shared("region", make)


class Ledger:
    """Adds up what rounding can have done to each row of one evaluation."""

    def __init__(self, region: Region, rows: Any) -> None:
        self._region = region
        self.error = np.full(rows.shape[0], region.floor)
        self.product(len(region.maps) - 1, rows)

    def product(self, k: int, multipliers: Any) -> None:
        """λ·b_k and ν = λW_k were formed."""
        self.error = self.error + self._region.product[k] * row_norms(multipliers)

    def terms(self, k: int, nu: Any) -> None:
        """Products with ν (or λ) in front of map k were summed up; k = 0: over the input box."""
        self._norms = row_norms(nu)
        self.error = self.error + self._region.spread[k] * self._norms

    def product_of_shrunk(self, k: int) -> None:
        """As `product`, for λ no larger in any entry than the ν of the last `terms` (within SAFETY)."""
        self.error = self.error + self._region.product[k] * self._norms


def outward(lower: FloatArray, error: FloatArray) -> FloatArray:
    """lower − error, rounded down; −inf where that is no number."""
    with np.errstate(invalid="ignore", over="ignore"):
        safe = lower - error * SAFETY
        moved = np.nextafter(safe - UNIT * np.abs(safe), -np.inf)
    return np.asarray(np.where(np.isnan(moved), -np.inf, moved), dtype=np.float64)


def float32_error(layers: Sequence[AffineMap], ball: LinfBall, relu_bounds: ReluBounds | None = None) -> FloatArray:
    """By how much a float32 forward pass can differ from real arithmetic, per output, anywhere in the ball.

    e ← |W|e + γ_{n+3}(|W|(r + e) + |b|), in u = 2⁻²⁴, from e = u·|x| for the rounded input; r bounds |y| by |W|r + |b|,
    and by u where relu_bounds are given. Covers weights rounded to float32. Shape (outputs,). The margin of a row c
    loses at most |c|·error: a margin proven above that holds for float32 inference too. Trusted: float32 sums of
    products in any order, no reduced-precision units (TF32, Winograd), no overflow.
    """
    size = np.maximum(np.abs(ball.lower), np.abs(ball.upper))
    error = UNIT32 * size
    for k, layer in enumerate(layers):
        weight = abs(layer.to_sparse())
        bias = np.abs(layer.bias_vector)
        rounding = gamma(int(np.diff(weight.indptr).max(initial=0)) + 3, UNIT32)
        error = SAFETY * (weight @ error + rounding * (weight @ (size + error) + bias))
        size = SAFETY * (weight @ size + bias)
        if relu_bounds is not None and k < len(relu_bounds):
            size = np.minimum(size, np.maximum(relu_bounds.upper[k], 0.0))
    return np.asarray(error, dtype=np.float64)
