"""Convolutions as affine maps on flat vectors: for certifying by a sparse matrix, or where that would have more than
MATRIX_ENTRIES by the kernel itself (correlation.py, kernel_operators.py); by torch while training.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from array_api_compat import is_torch_array

from toolkit.arrays import Array, FloatArray, IndexArray, Matrix, SparseMatrix
from toolkit.data.arguments import whole_number, whole_numbers
from toolkit.networks.correlation import Correlation, matrix_rows
from toolkit.networks.kernel_operators import KernelOperator, sparse_product
from toolkit.networks.layers import AffineMap, ImageShape, Sparse, image_shape, with_errors_of
from toolkit.networks.weights import DENSE_ABOVE, apply_sparse, checked_weights, frozen_matrix, read_only, zero_weights

MATRIX_ENTRIES = 1 << 21  # of a convolution's matrix, above which it is not built
KERNEL_PLACES = 1 << 12  # of a kernel that is run over images; a larger one is as good as dense


class Convolution(AffineMap):
    """A convolution or a part of one; a large one is an operator, which has no matrix."""

    @property
    @abstractmethod
    def operator(self) -> KernelOperator | None:
        """W without a matrix; None where it has one."""

    def operand(self) -> Any:
        return self.to_sparse() if self.operator is None else self.operator

    @cached_property
    def column_norms(self) -> tuple[FloatArray, int]:
        if self.operator is None:
            return super().column_norms
        return self.operator.norms(0), self.operator.most_entries[0]

    @property
    def row_entries(self) -> int:
        return super().row_entries if self.operator is None else self.operator.most_entries[1]

    def row_peaks(self) -> FloatArray:
        return super().row_peaks() if self.operator is None else self.operator.row_peaks()

    def compose_rows(self, rows: Matrix) -> tuple[Array, FloatArray]:
        if self.operator is None or not sp.issparse(rows):
            return super().compose_rows(rows)
        return sparse_product(rows, self.operator), np.asarray(rows @ self.bias_vector, dtype=np.float64)

    def restrict(self, outputs: IndexArray | None, inputs: IndexArray | None) -> AffineMap:
        if self.operator is None:
            return super().restrict(outputs, inputs)
        part, bias = self.operator.restrict(outputs, inputs), self.bias_vector
        bias = read_only(bias if outputs is None else bias[outputs])
        if part.shape[0] * part.most_entries[1] > MATRIX_ENTRIES:
            return with_errors_of(self, ConvolutionPart(part, bias), inputs)
        return with_errors_of(self, Sparse.of_parts(part.rows(), bias), inputs)

    def _adjoint(self, nu: Array, operator: KernelOperator) -> Array:
        """Wᵀν of an operator; sparse rows stay sparse while they are."""
        if not sp.issparse(nu):
            return operator.adjoint(nu)
        product = sparse_product(nu.tocsr(), operator)
        return product if product.nnz < DENSE_ABOVE * math.prod(product.shape) else product.toarray()


class ConvolutionPart(Convolution):
    """x ↦ Wx + bias for an operator: what restricting a large convolution leaves."""

    def __init__(self, operator: KernelOperator, bias: FloatArray) -> None:
        self._operator, self.bias = operator, bias
        self.output_size, self.input_size = operator.shape

    @property
    def operator(self) -> KernelOperator:
        return self._operator

    @property
    def bias_vector(self) -> Array:
        return self.bias

    def linear(self, x: Array) -> Array:
        return self._operator.linear(x)

    def adjoint(self, nu: Array) -> Array:
        return self._adjoint(nu, self._operator)

    def to_sparse(self) -> SparseMatrix:
        return frozen_matrix(self._operator.rows())


class Conv2d(Convolution):
    """Cross-correlation with zero padding, as torch.nn.Conv2d computes it.

    weight: (out_channels, in_channels/groups, kernel_h, kernel_w). bias: (out_channels,), or (output_size,) when it
    differs from place to place (input normalisation folded in), or None. shape: input (channels, height, width).
    """

    def __init__(
        self,
        weight: Array,
        bias: Array | None,
        shape: ImageShape,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> None:
        self.weight = checked_weights("Conv2d weight", weight, 4)
        self.shape: ImageShape = image_shape(shape)
        self.stride = _pair("stride", stride, 1)
        self.padding = _pair("padding", padding, 0)
        self.dilation = _pair("dilation", dilation, 1)
        self.groups = whole_number("groups", groups, 1)
        out_channels, per_group, *kernel = map(int, self.weight.shape)
        if self.groups < 1 or per_group * self.groups != self.shape[0] or out_channels % self.groups:
            raise ValueError(
                f"Conv2d weight {tuple(self.weight.shape)} with groups={groups} does not fit "
                f"{self.shape[0]} input channels"
            )
        height, width = (
            (self.shape[1 + i] + 2 * self.padding[i] - self.dilation[i] * (kernel[i] - 1) - 1) // self.stride[i] + 1
            for i in (0, 1)
        )
        if height < 1 or width < 1:
            raise ValueError(f"Conv2d kernel {tuple(kernel)} is larger than the padded input {self.shape}")
        self.output_shape: ImageShape = (out_channels, height, width)
        self.input_size = math.prod(self.shape)
        self.output_size = math.prod(self.output_shape)
        self.bias = zero_weights(self.weight, out_channels) if bias is None else checked_weights("Conv2d bias", bias, 1)
        if int(self.bias.shape[0]) not in (out_channels, self.output_size):
            raise ValueError(
                f"Conv2d bias must have {out_channels} or {self.output_size} entries, got {int(self.bias.shape[0])}"
            )

    @property
    def bias_vector(self) -> Array:
        if int(self.bias.shape[0]) == self.output_size:
            return self.bias
        places = self.output_shape[1] * self.output_shape[2]
        if is_torch_array(self.bias):
            return self.bias.repeat_interleave(places)
        return np.repeat(self.bias, places)

    def linear(self, x: Array) -> Array:
        if not is_torch_array(self.weight):
            return apply_sparse(self._matrix, x) if self.operator is None else self.operator.linear(x)
        from torch.nn.functional import conv2d

        images = x.reshape(-1, *self.shape)
        out = conv2d(images, self.weight, None, self.stride, self.padding, self.dilation, self.groups)
        return out.reshape(*x.shape[:-1], self.output_size)

    def adjoint(self, nu: Array) -> Array:
        if not is_torch_array(self.weight):
            return apply_sparse(self._matrix.T, nu) if self.operator is None else self._adjoint(nu, self.operator)
        from torch.nn.functional import conv_transpose2d

        images = nu.reshape(-1, *self.output_shape)
        kernel = self.weight.shape[2:]
        # rows and columns of the padded image behind the last kernel position, which a stride leaves unread
        unread = tuple(
            (self.shape[1 + i] + 2 * self.padding[i] - self.dilation[i] * (kernel[i] - 1) - 1) % self.stride[i]
            for i in (0, 1)
        )
        out = conv_transpose2d(images, self.weight, None, self.stride, self.padding, unread, self.groups, self.dilation)
        return out.reshape(*nu.shape[:-1], self.input_size)

    def to_sparse(self) -> SparseMatrix:
        return self._matrix if self.operator is None else frozen_matrix(self.operator.rows())

    @cached_property
    def operator(self) -> KernelOperator | None:
        if is_torch_array(self.weight) or self.correlation.taps <= MATRIX_ENTRIES:
            return None
        if math.prod(self.weight.shape[2:]) > KERNEL_PLACES:
            return None
        return KernelOperator(self.correlation)

    @cached_property
    def correlation(self) -> Correlation:
        """The kernel and its geometry."""
        geometry = self.stride, self.padding, self.dilation, self.groups
        return Correlation(self.weight, self.shape, self.output_shape, *geometry)

    @cached_property
    def _matrix(self) -> SparseMatrix:
        """The convolution as a CSR matrix, one entry per (output place, kernel tap) inside the padded image."""
        return frozen_matrix(matrix_rows(self.correlation))


def compose_or_select(layer: AffineMap, rows: Matrix) -> tuple[Any, FloatArray]:
    """As `layer.compose_rows`; but rows ±e_i of a large convolution, if they are many, are its KernelOperator there."""
    operator = layer.operator if isinstance(layer, Convolution) else None
    if operator is None or not sp.issparse(rows) or rows.shape[0] * operator.most_entries[1] <= MATRIX_ENTRIES:
        return layer.compose_rows(rows)
    picks: SparseMatrix = rows
    sign = float(picks.data[0]) if picks.nnz else 0.0
    if abs(sign) != 1.0 or np.any(np.diff(picks.indptr) != 1) or np.any(picks.data != sign):
        return layer.compose_rows(rows)
    return operator.restrict(picks.indices, None, sign), np.asarray(rows @ layer.bias_vector, dtype=np.float64)


def _pair(name: str, value: int | Sequence[int], least: int) -> tuple[int, int]:
    given = (value, value) if np.ndim(value) == 0 else value
    try:
        first, second = whole_numbers(name, given, least)
    except ValueError:
        raise ValueError(f"{name} must be an integer ≥ {least} or two of them, got {value!r}") from None
    return first, second
