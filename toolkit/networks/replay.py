"""Upper bounds that a point proves: its margins, replayed through the original network, in real arithmetic.

Claim: for every row c and every point x̃ given, c·F(x̃) ≤ the returned number, F being the network in real arithmetic
on its float weights. Three evaluations, each only where the one before leaves the sign open:

1. float64, with one error bound for the whole network: with R ≥ |y|, n = ‖W‖_{∞→∞}, β = ‖b‖_∞ and k terms a row,
   e ← n·e + γ_{k+2}(n·R + β), R ← n·R + β (n·e and n·R summed over the maps of a stage);
2. float64, with an error bound of its own for every neuron: e ← |W|e + γ_{k+2}(|W||y| + |b|);
3. exactly: floats are integers times powers of two, and so are the sums of their products.

Maps that carry an error of their own (merged by the importer, layers.py) add Σ_j ‖ΔW_:j‖·|y_j| + ‖Δb‖ in all three.

Source: Higham 2002, "Accuracy and Stability of Numerical Algorithms", §3.1. Trusted: IEEE 754 binary64; Python's
integers.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from toolkit.arrays import FloatArray, IntegerArray, Matrix, SparseMatrix
from toolkit.networks.float_error import SAFETY, TINY, gamma
from toolkit.networks.layers import AffineMap
from toolkit.networks.network import Network
from toolkit.networks.weights import dense_array

LARGEST_EXACT = 20_000_000  # non-zero weights that are still replayed in integers
EXACT_A_SECOND = 3_000_000  # of them, at least, on one core
Scaled = tuple[IntegerArray, int]  # integers and the exponent: values are integers·2^exponent


def exact_within(seconds: float) -> int:
    """The `largest` of replay_margins for so many seconds."""
    return int(min(LARGEST_EXACT, EXACT_A_SECOND * max(0.0, seconds)))


def replay_margins(
    network: Network,
    rows: Matrix,
    points: ArrayLike,
    outputs: FloatArray | None = None,
    largest: int = LARGEST_EXACT,
) -> tuple[FloatArray, FloatArray]:
    """rows·F at each point: the float64 values, and upper bounds of the true ones.

    Shapes: (m, outputs), (k, n) → (k, m).
    The upper bound is the tightest of the three above that decides whether the true value is ≤ 0. A network too large
    for the third keeps an upper bound > 0 where that is needed. outputs: F at the points in float64, where it is known.
    largest: non-zero weights of a network that is replayed in integers.
    """
    inputs = np.atleast_2d(np.asarray(points, dtype=np.float64))
    dense = dense_array(rows)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        outputs = np.atleast_2d(np.asarray(network.forward(inputs) if outputs is None else outputs, dtype=np.float64))
        values = outputs @ dense.T
        upper = _above(values, _rough_error(network, dense, inputs, outputs))
        open_points = np.flatnonzero(_undecided(values, upper).any(axis=1))
        if open_points.size:
            some = inputs[open_points]
            finer = _above(values[open_points], evaluation_errors(network, dense, some)[0])
            upper[open_points] = np.fmin(upper[open_points], finer)
            open_points = open_points[_undecided(values[open_points], upper[open_points]).any(axis=1)]
    if open_points.size and most_weights(network) < largest:
        for k in open_points.tolist():
            upper[k] = np.fmin(upper[k], _exact_upper(network, dense, inputs[k]))
    return values, upper


def most_weights(network: Network) -> int:
    """At least the number of its non-zero weights."""
    return sum(layer.column_norms[1] * layer.input_size for layer in network.maps)


def replay_pairwise(network: Network, rows: Matrix, points: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Value and upper bound of row i at point i. Shapes: (m, outputs), (m, n) → (m,) each."""
    values, upper = replay_margins(network, rows, points)
    return np.diagonal(values).copy(), np.diagonal(upper).copy()


def _above(values: FloatArray, error: FloatArray) -> FloatArray:
    """values + error, rounded up; +inf where that is no number."""
    upper = np.nextafter(values + error * SAFETY, np.inf)
    return np.asarray(np.where(np.isnan(upper), np.inf, upper), dtype=np.float64)


def _undecided(values: FloatArray, upper: FloatArray) -> NDArray[np.bool_]:
    """Where the value with its error on either side may still be ≤ 0, and is not shown to be."""
    return np.asarray(~((values - (upper - values) > 0) | (upper <= 0)))


def _rough_error(network: Network, rows: FloatArray, points: FloatArray, outputs: FloatArray) -> FloatArray:
    largest = np.abs(points).max(axis=1)
    places = [(largest, np.zeros_like(largest))]  # |y| and the error of y, the largest of a place
    for stage, norms in zip(network.stages, network.operator_norms, strict=True):
        sums = error = merged = np.zeros_like(largest)
        count = 1
        for (place, layer), (norm, bias, terms) in zip(stage.sources, norms, strict=True):
            size, before = places[place]
            sums = sums + SAFETY * (norm * (size + before) + bias)
            error, count = error + norm * before, count + terms + 1
            merged = merged + _largest_merge_error(layer, size + before)
        error = SAFETY * (error + gamma(count) * SAFETY * sums + TINY + merged)
        places.append((sums + error, error))
    error = places[-1][1]
    weights = np.abs(rows).sum(axis=1)
    spread = error + gamma(rows.shape[1] + 2) * (np.abs(outputs).max(axis=1) + error)
    return np.outer(spread, SAFETY * weights) + TINY


def _largest_merge_error(layer: AffineMap, size: FloatArray) -> FloatArray | float:
    """Σ_j ‖ΔW_:j‖·|y_j| + ‖Δb‖ for |y_j| ≤ size, the same for all j; (k,) → (k,)."""
    columns = layer.column_error
    return (0.0 if columns is None else float(np.sum(columns)) * size) + layer.bias_error


def evaluation_errors(network: Network, rows: Matrix, points: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """|rows|·e with e from the second evaluation, and the part of it that the maps' own errors make.

    Claim: rows·F in float64, in any order of summation, differs from its value in real arithmetic by at most the first.
    Shapes: (m, outputs), (k, n) → (k, m) each; NaN or +inf where something overflows.
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        dense = dense_array(rows)
        return _errors(network, dense, np.atleast_2d(np.asarray(points, dtype=np.float64)))


def _errors(network: Network, rows: FloatArray, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    places = [(points.T, np.zeros_like(points.T), np.zeros_like(points.T))]  # y, its error, the maps' part of that
    for stage in network.stages:
        bias = np.asarray(stage.bias)[:, None]
        x_hat, sums, count = bias, np.abs(bias), 1
        error = own = np.zeros((len(bias), len(points)))
        for place, layer in stage.sources:
            y, before, own_before = places[place]
            weight, reach = layer.operand(), np.abs(y) + before
            size, merged = abs(weight), _merge_error(layer, reach)
            x_hat, sums = weight @ y + x_hat, size @ reach + sums
            error, own = error + size @ before + merged, own + size @ own_before + merged
            count += layer.row_entries + 1
        error = SAFETY * (error + gamma(count) * sums + TINY)
        places.append((np.maximum(x_hat, 0.0) if stage.relu else x_hat, error, SAFETY * own))
    y, error, own = places[-1]
    weights = np.abs(rows)
    total = weights @ error + gamma(rows.shape[1] + 2) * (weights @ (np.abs(y) + error)) + TINY
    return np.asarray((SAFETY * total).T), np.asarray((SAFETY * (weights @ own)).T)


def _merge_error(layer: AffineMap, reach: FloatArray) -> FloatArray | float:
    """Σ_j ‖ΔW_:j‖·|y_j| + ‖Δb‖ for |y| ≤ reach, one number per column of `reach`; (n, k) → (k,)."""
    columns = layer.column_error
    return (0.0 if columns is None else np.asarray(columns) @ reach) + layer.bias_error


def _exact_upper(network: Network, rows: FloatArray, point: FloatArray) -> FloatArray:
    """The third evaluation and the maps' own errors, rounded up to floats. Shapes: (m, outputs), (n,) → (m,)."""
    exact = np.array([_float_above(value) for value in exact_margins(network, rows, point)])
    if all(layer.column_error is None and not layer.bias_error for layer in network.maps):
        return exact
    with np.errstate(over="ignore", invalid="ignore"):
        return _above(exact, evaluation_errors(network, rows, point[None])[1][0])


def exact_margins(network: Network, rows: ArrayLike, point: ArrayLike) -> list[Fraction]:
    """rows·F(point) without any rounding, F with the float weights as they are. Shapes: (m, outputs), (n,) → m."""
    places = [_integers(np.asarray(point, dtype=np.float64))]
    for stage in network.stages:
        x_hat = _integers(np.asarray(stage.bias, dtype=np.float64))
        for place, layer in stage.sources:
            x_hat = _sum(x_hat, _product(layer.to_sparse(), places[place]))
        places.append((np.maximum(x_hat[0], 0), x_hat[1]) if stage.relu else x_hat)
    values, exponent = _product(sp.csr_array(np.asarray(rows, dtype=np.float64)), places[-1])
    return [Fraction(int(value)) * Fraction(2) ** exponent for value in values]


def _product(matrix: SparseMatrix, y: Scaled) -> Scaled:
    """matrix·y on integers; matrix: CSR of floats."""
    (weights, first), (values, second) = _integers(matrix.data), y
    sums = np.zeros(matrix.shape[0], dtype=object)
    filled = np.flatnonzero(np.diff(matrix.indptr))
    if filled.size:
        sums[filled] = np.add.reduceat(weights * values[matrix.indices], matrix.indptr[filled])
    return sums, first + second


def _sum(one: Scaled, other: Scaled) -> Scaled:
    low = min(one[1], other[1])
    return one[0] * (1 << (one[1] - low)) + other[0] * (1 << (other[1] - low)), low


def _integers(values: FloatArray) -> Scaled:
    """Finite floats as integers times one power of two."""
    mantissa, exponent = np.frexp(values)
    present = mantissa != 0
    lowest = int(exponent[present].min(initial=1024)) if present.any() else 0
    shift = np.where(present, exponent - lowest, 0)
    whole = (mantissa * 2.0**53).astype(np.int64).astype(object)
    return np.array([value << by for value, by in zip(whole, shift.tolist(), strict=True)], dtype=object), lowest - 53


def _float_above(value: Fraction) -> float:
    """The smallest float ≥ value, +inf past the largest."""
    try:
        nearest = float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.finfo(np.float64).max
    return nearest if Fraction(nearest) >= value else float(np.nextafter(nearest, np.inf))
