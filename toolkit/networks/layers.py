"""Affine maps x ↦ Wx + b on flat vectors: dense, sparse, channel-wise (convolutions.py has Conv2d).

Every map has `forward`, `adjoint` (ν ↦ Wᵀν, the backward step of every dual bound) and `to_sparse`. Vectors are flat
(C order over channels, height, width); leading axes are batch axes. Weights are float64 numpy arrays for certifying,
copied and read-only, so that what was computed from them stays true; Dense and Conv2d also hold torch tensors
unchanged, so that training runs the same bounds and keeps gradients.

A map made from others by arithmetic (merging, normalisation) carries the error of its float weights against the real
map it stands for: `column_error`, `bias_error` (weight_error.py). A certificate covers both.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from array_api_compat import is_torch_array
from numpy.typing import ArrayLike

from toolkit.arrays import Array, FloatArray, IndexArray, Matrix, SparseMatrix
from toolkit.data.arguments import whole_numbers
from toolkit.networks.float_error import TINY, gamma, norm
from toolkit.networks.weight_error import SMALLEST, power_of_two, product_error, sum_error
from toolkit.networks.weights import (
    apply_sparse,
    checked_matrix,
    checked_weights,
    exact_float64,
    frozen_matrix,
    map_line,
    read_only,
    select_rows,
    zero_weights,
)

ImageShape = tuple[int, int, int]  # channels, height, width
_ROUNDED = gamma(4)  # relative error of a quotient, its divisor's root and sum


class Flatten:
    """Marks where images become vectors; a no-op, since features are flat everywhere."""

    def __repr__(self) -> str:
        return "Flatten()"


class ReLU:
    """Marks y = max(x, 0) between affine maps, in importers."""


class AffineMap(ABC):
    """An affine map on flat vectors; `bias` has shape (output_size,) once `bias_vector` is read.

    column_error: ‖ΔW_:j‖₂ per input, at most, shape (input_size,), None where W is exact; bias_error: ‖Δb‖₂, at most:
    the real map is x ↦ (W + ΔW)x + b + Δb. Attributes are set once.
    """

    input_size: int
    output_size: int
    column_error: FloatArray | None = None
    bias_error: float = 0.0

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.__dict__:
            raise AttributeError(f"{type(self).__name__}.{name} is set once; make another map instead")
        object.__setattr__(self, name, value)

    def __setstate__(self, state: dict[str, object]) -> None:
        """Unpickled and deep copies are read-only as well."""
        self.__dict__.update(state)
        for value in state.values():
            if isinstance(value, np.ndarray):
                read_only(value)
            elif sp.issparse(value):
                frozen_matrix(value)

    def __repr__(self) -> str:
        return map_line(self)

    def with_error(self, column_error: ArrayLike | None, bias_error: float) -> AffineMap:
        """The same map with these errors in place of its own; column_error: shape (input_size,), or None for zeros.

        Raises ValueError for another shape, and for numbers that are negative or NaN.
        """
        columns = np.zeros(self.input_size) if column_error is None else exact_float64("column_error", column_error)
        if columns.shape != (self.input_size,) or not np.all(columns >= 0):
            raise ValueError(f"column_error must be {self.input_size} numbers ≥ 0, got shape {columns.shape}")
        if not bias_error >= 0:
            raise ValueError(f"bias_error must be ≥ 0, got {bias_error}")
        twin = copy.copy(self)
        twin.__dict__["column_error"] = read_only(columns) if columns.any() else None
        twin.__dict__["bias_error"] = float(bias_error)
        return twin

    @property
    @abstractmethod
    def bias_vector(self) -> Array:
        """b, shape (output_size,)."""

    @abstractmethod
    def linear(self, x: Array) -> Array:
        """W x. Shapes: (…, input_size) → (…, output_size)."""

    @abstractmethod
    def adjoint(self, nu: Array) -> Array:
        """Wᵀ ν. Shapes: (…, output_size) → (…, input_size)."""

    @abstractmethod
    def to_sparse(self) -> SparseMatrix:
        """W as scipy.sparse.csr_array of shape (output_size, input_size)."""

    def forward(self, x: Array) -> Array:
        """W x + b. Shapes: (…, input_size) → (…, output_size)."""
        return self.linear(x) + self.bias_vector

    def compose_rows(self, rows: Matrix) -> tuple[Array, FloatArray]:
        """rows·W and rows·b for `rows` of shape (m, output_size); sparse rows stay sparse on a sparse map."""
        if not sp.issparse(rows):
            dense = np.asarray(rows, dtype=np.float64)
            return self.adjoint(dense), dense @ self.bias_vector
        return select_rows(rows, self.to_sparse()), np.asarray(rows @ self.bias_vector, dtype=np.float64)

    @cached_property
    def column_norms(self) -> tuple[FloatArray, int]:
        """‖W_:j‖₂ of every column, within rounding of it, and the largest number of entries in a column."""
        matrix = self.to_sparse().tocoo()
        peak = float(np.abs(matrix.data).max(initial=0.0)) or 1.0  # scaled, so that squares do not overflow
        squares = np.bincount(matrix.coords[1], np.square(matrix.data / peak), minlength=self.input_size)
        entries = np.bincount(matrix.coords[1], minlength=1)
        return peak * np.sqrt(squares), int(entries.max(initial=0))

    def operand(self) -> Any:
        """W as what `@` takes: CSR, or an KernelOperator, which a convolution too large for a matrix is."""
        return self.to_sparse()

    @property
    def row_entries(self) -> int:
        """The largest number of entries in a row."""
        return int(np.diff(self.to_sparse().indptr).max(initial=0))

    def row_peaks(self) -> FloatArray:
        """The largest |entry| of every row, 0 for one without, shape (output_size,)."""
        matrix = abs(self.to_sparse()).tocsr()
        filled = np.flatnonzero(np.diff(matrix.indptr))
        largest = np.zeros(self.output_size)
        if filled.size:
            largest[filled] = np.maximum.reduceat(matrix.data, matrix.indptr[filled])
        return largest

    @cached_property
    def row_spread(self) -> float:
        """The largest over the least of all rows' largest entries, biases among them, zero rows left out."""
        largest = np.maximum(np.abs(np.asarray(self.bias_vector, dtype=np.float64)), self.row_peaks())
        with np.errstate(over="ignore"):
            return float(largest.max() / (largest[largest > 0].min(initial=np.inf) or 1.0))

    def restrict(self, outputs: IndexArray | None, inputs: IndexArray | None) -> AffineMap:
        """The map between the named outputs and inputs only (None = all)."""
        matrix = self.to_sparse()
        matrix = matrix if outputs is None else matrix[outputs]
        matrix = matrix if inputs is None else matrix[:, inputs]
        if inputs is None or np.all(inputs[1:] > inputs[:-1]):
            matrix.has_sorted_indices = True  # as this map's are; scipy would look at every entry
        else:
            matrix.sort_indices()
        bias = self.bias_vector
        part = Sparse.of_parts(matrix, bias if outputs is None else bias[outputs])
        return with_errors_of(self, part, inputs)


def with_errors_of(whole: AffineMap, part: AffineMap, inputs: IndexArray | None) -> AffineMap:
    """A part of a map with the whole map's errors, which are no less than its own."""
    if whole.column_error is None and not whole.bias_error:
        return part
    columns = whole.column_error if whole.column_error is None or inputs is None else whole.column_error[inputs]
    return part.with_error(columns, whole.bias_error)


class Dense(AffineMap):
    """x ↦ weight·x + bias, weight of shape (outputs, inputs), bias of shape (outputs,) or None for zeros."""

    def __init__(self, weight: Array, bias: Array | None = None) -> None:
        self.weight = checked_weights("Dense weight", weight, 2)
        self.output_size, self.input_size = map(int, self.weight.shape)
        self.bias = (
            zero_weights(self.weight, self.output_size) if bias is None else checked_weights("Dense bias", bias, 1)
        )
        if tuple(self.bias.shape) != (self.output_size,):
            raise ValueError(
                f"Dense bias must have shape ({self.output_size},) for weight {tuple(self.weight.shape)}, "
                f"got {tuple(self.bias.shape)}"
            )

    @classmethod
    def of_parts(cls, weight: FloatArray, bias: FloatArray) -> Dense:
        """A map with parts of another map's checked arrays, which nobody else can write."""
        part = cls.__new__(cls)
        part.weight, part.bias = read_only(weight), read_only(bias)
        part.output_size, part.input_size = weight.shape
        return part

    @property
    def bias_vector(self) -> Array:
        return self.bias

    def linear(self, x: Array) -> Array:
        return x @ self.weight.T

    def adjoint(self, nu: Array) -> Array:
        return nu @ self.weight

    def to_sparse(self) -> SparseMatrix:
        return sp.csr_array(self.weight)

    def compose_rows(self, rows: Matrix) -> tuple[Array, FloatArray]:
        return np.asarray(rows @ self.weight), np.asarray(rows @ self.bias, dtype=np.float64)

    def restrict(self, outputs: IndexArray | None, inputs: IndexArray | None) -> AffineMap:
        weight = self.weight if outputs is None else self.weight[outputs]
        weight = weight if inputs is None else weight[:, inputs]
        bias = self.bias if outputs is None else self.bias[outputs]
        part = Dense(weight, bias) if is_torch_array(weight) else Dense.of_parts(weight, bias)
        return with_errors_of(self, part, inputs)


class Sparse(AffineMap):
    """x ↦ matrix·x + bias with a scipy.sparse matrix: what merging or restricting a convolution leaves."""

    def __init__(self, matrix: ArrayLike | Matrix, bias: ArrayLike) -> None:
        self.matrix = checked_matrix(matrix)
        self.output_size, self.input_size = map(int, self.matrix.shape)
        self.bias = checked_weights("Sparse bias", bias, 1)
        if self.bias.shape != (self.output_size,):
            raise ValueError(f"Sparse bias must have shape ({self.output_size},), got {self.bias.shape}")

    @classmethod
    def of_parts(cls, matrix: SparseMatrix, bias: FloatArray) -> Sparse:
        """A map with parts of another map's checked matrix and bias, which nobody else can write."""
        part = cls.__new__(cls)
        for array in (matrix.data, matrix.indices, matrix.indptr):
            read_only(array)
        part.matrix, part.bias = matrix, read_only(bias)
        part.output_size, part.input_size = matrix.shape
        return part

    @property
    def bias_vector(self) -> Array:
        return self.bias

    def linear(self, x: Array) -> Array:
        return apply_sparse(self.matrix, x)

    def adjoint(self, nu: Array) -> Array:
        return apply_sparse(self.matrix.T, nu)

    def to_sparse(self) -> SparseMatrix:
        return self.matrix


def image_shape(shape: object) -> ImageShape:
    """The shape as three whole numbers ≥ 1. Raises ValueError for anything else."""
    found = whole_numbers("shape", shape, 1)
    if len(found) != 3:
        raise ValueError(f"shape must be (channels, height, width), got {found}")
    return found[0], found[1], found[2]


class ChannelAffine(AffineMap):
    """x ↦ scale·x + shift per channel: input normalisation and batch normalisation in evaluation form.

    scale, shift: shape (channels,); shape: (channels, height, width), with height = width = 1 for flat features.
    """

    def __init__(self, scale: ArrayLike, shift: ArrayLike, shape: ImageShape) -> None:
        self.scale = checked_weights("ChannelAffine scale", scale, 1)
        self.shift = checked_weights("ChannelAffine shift", shift, 1)
        self.shape: ImageShape = image_shape(shape)
        if self.scale.shape != (shape[0],) or self.shift.shape != (shape[0],):
            raise ValueError(
                f"ChannelAffine needs {shape[0]} scales and shifts for input shape {shape}, "
                f"got {self.scale.shape} and {self.shift.shape}"
            )
        self.input_size = self.output_size = math.prod(shape)

    @classmethod
    def batch_norm(
        cls, gamma: ArrayLike, beta: ArrayLike, mean: ArrayLike, variance: ArrayLike, eps: float, shape: ImageShape
    ) -> ChannelAffine:
        """(x − mean)/√(variance + eps)·gamma + beta, as evaluation mode computes it."""
        given = (gamma, beta, mean, variance)
        names = ("batch_norm gamma", "beta", "mean", "variance")
        gammas, betas, means, variances = (exact_float64(n, v) for n, v in zip(names, given, strict=True))
        spread = variances + eps
        allowed = (spread > 0) & np.isfinite(spread)
        if not np.all(allowed):
            raise ValueError(f"variance + eps must be > 0 and finite, got {spread[~allowed][0]}")
        root = np.sqrt(spread)
        scale = gammas / root
        # exact where √(variance + eps) is a power of two; else three roundings: of the sum, the root and the quotient
        plain = (sum_error(variances, np.float64(eps)) == 0) & power_of_two(root) & (root * root == spread)
        plain &= np.abs(scale) >= SMALLEST
        scale_error = np.where(plain | (gammas == 0), 0.0, _ROUNDED * np.abs(scale) + TINY)
        product = scale * means
        shift_error = scale_error * np.abs(means) + product_error(scale, means) + sum_error(betas, -product)
        return cls(scale, betas - product, shape)._with_channel_error(scale_error, shift_error)

    @classmethod
    def normalize(cls, mean: ArrayLike, std: ArrayLike, shape: ImageShape) -> ChannelAffine:
        """(x − mean)/std per channel, with scalars spread over the channels."""
        spread = np.broadcast_to(exact_float64("std", std), (shape[0],))
        centre = np.broadcast_to(exact_float64("mean", mean), (shape[0],))
        if not np.all(spread != 0):
            raise ValueError(f"std must be ≠ 0, got {spread.tolist()}")
        scale, shift = 1.0 / spread, -centre / spread
        plain = power_of_two(spread) & (np.abs(scale) >= SMALLEST)
        scale_error = np.where(plain, 0.0, _ROUNDED * np.abs(scale) + TINY)
        plain &= np.abs(shift) >= SMALLEST
        shift_error = np.where(plain | (centre == 0), 0.0, _ROUNDED * np.abs(shift) + TINY)
        return cls(scale, shift, shape)._with_channel_error(scale_error, shift_error)

    def _with_channel_error(self, scale_error: FloatArray, shift_error: FloatArray) -> ChannelAffine:
        """With bounds of the error of every scale and shift."""
        found = self.with_error(self._spread(scale_error), norm(self._spread(shift_error)))
        assert isinstance(found, ChannelAffine)
        return found

    def _spread(self, per_channel: FloatArray) -> FloatArray:
        return np.repeat(per_channel, self.shape[1] * self.shape[2])

    @property
    def bias_vector(self) -> Array:
        return self._spread(self.shift)

    def linear(self, x: Array) -> Array:
        return x * self._spread(self.scale)

    def adjoint(self, nu: Array) -> Array:
        return nu * self._spread(self.scale)

    def to_sparse(self) -> SparseMatrix:
        return sp.csr_array(sp.diags_array(self._spread(self.scale)))
