"""By how much the float64 weights of a map differ from the real map they stand for.

Maps merged into one, and normalisations written as scale·x + shift, hold rounded numbers. With W₂, W₁ the float
weights, D₂, D₁ their own errors and M = fl(W₂W₁), the real product is (W₂ + D₂)(W₁ + D₁) = M + ΔW with

    |ΔW| ≤ γ_n |W₂||W₁| + |W₂D₁| + |D₂W₁| + |D₂D₁|,

column by column in the Euclidean norm: ‖ΔW_:j‖₂ ≤ γ_n ‖(|W₂||W₁|)_:j‖₂ + (σ(W₂) + ‖c₂‖₂)·c₁ⱼ + Σ_i c₂ᵢ|W₁ᵢⱼ|, where
c are the bounds of D's columns and σ ≥ ‖W‖₂. The bias b = fl(W₂b₁ + b₂) likewise. Products that are exact in float64
are charged nothing: one term per sum and a power of two in it, or integers below 2⁵³.

Source: Higham 2002, §3.5 (products); Dekker 1971 and Knuth (the error of a float sum is a float). Checked: tests hold
every term against rational arithmetic.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import BoolArray, FloatArray, Matrix, SparseMatrix
from toolkit.networks.float_error import FLOOR, SAFETY, TINY, UNIT, gamma, norm
from toolkit.networks.kernel_operators import KernelOperator

SMALLEST = 2.0**-960  # products above it have not lost digits to underflow
LARGEST_INTEGER = 2.0**53


def power_of_two(values: FloatArray) -> BoolArray:
    """Mask of entries that are 0 or ± a power of two: factors that do not round."""
    mantissa, _ = np.frexp(values)
    return np.asarray((np.abs(mantissa) == 0.5) | (np.asarray(values) == 0))


def product_error(left: FloatArray, right: FloatArray) -> FloatArray:
    """A bound on |fl(left·right) − left·right|, entry by entry; 0 where a factor is a power of two."""
    product = np.abs(np.asarray(left * right, dtype=np.float64))
    small = (product < SMALLEST) & (np.asarray(left) != 0) & (np.asarray(right) != 0)
    exact = (power_of_two(left) | power_of_two(right)) & ~small
    return np.where(exact, 0.0, UNIT * SAFETY * product + np.where(small, TINY, 0.0))


def sum_error(left: FloatArray, right: FloatArray | np.float64) -> FloatArray:
    """|fl(left + right) − (left + right)|, entry by entry, exact (Knuth's TwoSum)."""
    total = left + right
    virtual = total - left
    return np.asarray(np.abs((left - (total - virtual)) + (right - virtual)), dtype=np.float64)


def _entries(matrix: Matrix | KernelOperator) -> FloatArray:
    """The numbers of a matrix, without the zeros that a sparse one leaves out; of an operator, those of its kernel."""
    if isinstance(matrix, KernelOperator):
        return matrix.correlation.weight
    return np.asarray(matrix.data) if sp.issparse(matrix) else matrix


def column_norms(matrix: Matrix) -> FloatArray:
    """‖W_:j‖₂ of every column, rounded up; matrix: numpy or scipy.sparse."""
    peak = float(np.abs(_entries(matrix)).max(initial=0.0)) or 1.0  # scaled, so that squares do not overflow
    scaled = abs(matrix) / peak
    squares = (scaled * scaled).sum(axis=0)
    return SAFETY * peak * (np.sqrt(np.asarray(squares, dtype=np.float64).ravel()) + FLOOR)


def spectral_bound(weight: Matrix | KernelOperator) -> float:
    """σ ≥ ‖W‖₂: the smaller of the Frobenius norm and √(‖W‖₁‖W‖_∞)."""
    magnitude: Any = abs(weight)
    if 0 in magnitude.shape:
        return 0.0
    sums = (float(np.sqrt(magnitude.sum(axis=axis).max())) for axis in (0, 1))
    frobenius = norm(weight.norms(0) if isinstance(weight, KernelOperator) else _entries(weight))
    return min(frobenius, SAFETY * float(np.prod(list(sums))))


def _longest(weight: Matrix | KernelOperator, axis: int) -> int:
    """The largest number of non-zeros in a column (axis 0) or row (axis 1); of an operator, of entries."""
    if isinstance(weight, KernelOperator):
        return weight.most_entries[axis]
    present = weight != 0
    return int(np.asarray(present.sum(axis=axis)).max(initial=0))


def _integers(*parts: Matrix | KernelOperator) -> bool:
    return all(bool(np.all(v == np.rint(v))) for v in map(_entries, parts))


def _exact_factor(weight: Matrix | KernelOperator) -> bool:
    return bool(np.all(power_of_two(_entries(weight))))


class FloatMap(NamedTuple):
    """A map's float weights W and bias b, and how far the real map it stands for may lie from them.

    An operator goes with a diagonal matrix only.
    """

    weight: Matrix | KernelOperator
    bias: FloatArray
    column_error: FloatArray | None
    bias_error: float


def merged_error(first: FloatMap, second: FloatMap) -> tuple[FloatArray, float]:
    """Bounds of ‖ΔW_:j‖₂, shape (inputs,), and ‖Δb‖₂ for fl(W₂W₁), fl(W₂b₁ + b₂)."""
    (weight1, bias1, columns1, constant1), (weight2, bias2, columns2, constant2) = first, second
    own1 = np.zeros(weight1.shape[1]) if columns1 is None else columns1
    own2 = np.zeros(weight2.shape[1]) if columns2 is None else columns2
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        reach = spectral_bound(weight2) + norm(own2)
        columns = _product_columns(weight1, weight2) + reach * own1 + own2 @ abs(weight1)
        constant = _bias_error(bias1, weight2, bias2) + reach * constant1 + float(own2 @ np.abs(bias1)) + constant2
        raised = np.asarray(SAFETY * columns, dtype=np.float64).ravel(), SAFETY * constant
    # ∞·0 is no number: nothing is known then
    return np.where(np.isnan(raised[0]), np.inf, raised[0]), np.inf if np.isnan(raised[1]) else float(raised[1])


def _product_columns(weight1: Matrix | KernelOperator, weight2: Matrix | KernelOperator) -> FloatArray:
    """γ_n ‖(|W₂||W₁|)_:j‖₂ for every column, or 0 where all products and sums are exact."""
    if isinstance(weight1, KernelOperator):
        return _scaled_columns(weight1, weight2, weight1.norms(0, np.abs(_diagonal(weight2))))
    if isinstance(weight2, KernelOperator):
        return _scaled_columns(weight2, weight1, weight2.norms(0) * np.abs(_diagonal(weight1)))
    terms = min(_longest(weight2, 1), _longest(weight1, 0))
    if not terms:
        return np.zeros(weight1.shape[1])
    magnitude = abs(weight2) @ abs(weight1)
    whole = _integers(weight1, weight2) and bool(np.all(_entries(magnitude) <= LARGEST_INTEGER))
    single = terms == 1 and (_exact_factor(weight1) or _exact_factor(weight2)) and _no_underflow(weight1, weight2)
    if whole or single:
        return np.zeros(weight1.shape[1])
    return gamma(terms) * column_norms(magnitude) + TINY


def _diagonal(matrix: Matrix | KernelOperator) -> FloatArray:
    diagonal: SparseMatrix = matrix
    return np.asarray(diagonal.diagonal(), dtype=np.float64)


def _scaled_columns(weight: KernelOperator, diagonal: Matrix | KernelOperator, columns: FloatArray) -> FloatArray:
    """As `_product_columns` for a convolution times a diagonal matrix; columns: ‖(|W₂||W₁|)_:j‖₂."""
    largest = [float(np.abs(_entries(part)).max(initial=0.0)) for part in (weight, diagonal)]
    whole = _integers(weight, diagonal) and largest[0] * largest[1] <= LARGEST_INTEGER
    single = (_exact_factor(weight) or _exact_factor(diagonal)) and _no_underflow(weight, diagonal)
    return np.zeros_like(columns) if whole or single else SAFETY * gamma(1) * columns + TINY


def _no_underflow(weight1: Matrix | KernelOperator, weight2: Matrix | KernelOperator) -> bool:
    """Whether every product of non-zero entries stays clear of underflow."""
    values = [np.abs(_entries(part)) for part in (weight1, weight2)]
    least = [float(np.min(v[v > 0], initial=np.inf)) for v in values]
    return least[0] * least[1] >= SMALLEST


def _bias_error(bias1: FloatArray, weight2: Matrix | KernelOperator, bias2: FloatArray) -> float:
    """A bound on the rounding of W₂b₁ + b₂ in the Euclidean norm."""
    if not bias1.any():
        return 0.0
    magnitude = np.asarray(abs(weight2) @ np.abs(bias1), dtype=np.float64) + np.abs(bias2)
    if _integers(weight2, bias1, bias2) and bool(np.all(magnitude <= LARGEST_INTEGER)):
        return 0.0
    terms = _longest(weight2, 1)
    exact = _exact_factor(weight2) or _exact_factor(bias1)
    if terms <= 1 and exact and _no_underflow(bias1, weight2):
        return norm(sum_error(np.asarray(weight2 @ bias1, dtype=np.float64), bias2))
    return gamma(terms + 1) * norm(magnitude) + TINY
