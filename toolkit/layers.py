"""Affine maps x ↦ Wx + b on flat vectors: dense, convolutional, channel-wise and sparse.

Every map has `forward`, `adjoint` (ν ↦ Wᵀν, the backward step of every dual bound) and `to_sparse`. Vectors are flat
(C order over channels, height, width); leading axes are batch axes. Weights are float64 numpy arrays for certifying;
Dense and Conv2d also hold torch tensors unchanged, so that training runs the same bounds and keeps gradients.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from array_api_compat import is_torch_array
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]
Shape = tuple[int, int, int]
DENSE_ABOVE = 0.3  # share of non-zeros above which a sparse result is stored dense


def _checked(name: str, values: Any, ndim: int | tuple[int, ...]) -> Any:
    """Values as finite float64 numpy (torch tensors pass unchanged), with the number of axes checked."""
    array = values if is_torch_array(values) else np.asarray(values, dtype=np.float64)
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    if array.ndim not in allowed:
        raise ValueError(f"{name} must have {' or '.join(map(str, allowed))} axes, got shape {tuple(array.shape)}")
    if not is_torch_array(array) and not np.all(np.isfinite(array)):
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} must be finite, got {array[where]} at index {where}")
    return array


def _zeros(like: Any, size: int) -> Any:
    """Zeros of the library, dtype and device of `like`."""
    return like.new_zeros(size) if is_torch_array(like) else np.zeros(size)


def _pair(name: str, value: int | Sequence[int], least: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int | np.integer) else tuple(value)
    if len(pair) != 2 or any(int(v) < least for v in pair):
        raise ValueError(f"{name} must be an integer ≥ {least} or two of them, got {value!r}")
    return int(pair[0]), int(pair[1])


class AffineMap(ABC):
    """An affine map on flat vectors; `bias` has shape (output_size,) once `bias_vector` is read."""

    input_size: int
    output_size: int
    column_error: FloatArray | None = None
    bias_error: float = 0.0

    @property
    @abstractmethod
    def bias_vector(self) -> Any:
        """b, shape (output_size,)."""

    @abstractmethod
    def linear(self, x: Any) -> Any:
        """W x. Shapes: (…, input_size) → (…, output_size)."""

    @abstractmethod
    def adjoint(self, nu: Any) -> Any:
        """Wᵀ ν. Shapes: (…, output_size) → (…, input_size)."""

    @abstractmethod
    def to_sparse(self) -> Any:
        """W as scipy.sparse.csr_array of shape (output_size, input_size)."""

    def forward(self, x: Any) -> Any:
        """W x + b. Shapes: (…, input_size) → (…, output_size)."""
        return self.linear(x) + self.bias_vector

    def compose_rows(self, rows: Any) -> tuple[Any, FloatArray]:
        """rows·W and rows·b for `rows` of shape (m, output_size); sparse rows stay sparse on a sparse map."""
        if not sp.issparse(rows):
            dense = np.asarray(rows, dtype=np.float64)
            return self.adjoint(dense), dense @ self.bias_vector
        return _select_rows(rows, self.to_sparse()), np.asarray(rows @ self.bias_vector, dtype=np.float64)

    @cached_property
    def column_norms(self) -> tuple[FloatArray, int]:
        """‖W_:j‖₂ of every column, within rounding of it, and the largest number of entries in a column."""
        matrix = self.to_sparse().tocoo()
        peak = float(np.abs(matrix.data).max(initial=0.0)) or 1.0  # scaled, so that squares do not overflow
        squares = np.bincount(matrix.coords[1], np.square(matrix.data / peak), minlength=self.input_size)
        entries = np.bincount(matrix.coords[1], minlength=1)
        return peak * np.sqrt(squares), int(entries.max(initial=0))

    def restrict(self, outputs: IndexArray | None, inputs: IndexArray | None) -> AffineMap:
        """The map between the named outputs and inputs only (None = all)."""
        matrix = self.to_sparse()
        matrix = matrix if outputs is None else matrix[outputs]
        matrix = matrix if inputs is None else matrix[:, inputs]
        bias = self.bias_vector
        return Sparse(matrix, bias if outputs is None else bias[outputs])


class Dense(AffineMap):
    """x ↦ weight·x + bias, weight of shape (outputs, inputs), bias of shape (outputs,) or None for zeros."""

    def __init__(self, weight: Any, bias: Any = None) -> None:
        self.weight = _checked("Dense weight", weight, 2)
        self.output_size, self.input_size = map(int, self.weight.shape)
        self.bias = _zeros(self.weight, self.output_size) if bias is None else _checked("Dense bias", bias, 1)
        if tuple(self.bias.shape) != (self.output_size,):
            raise ValueError(
                f"Dense bias must have shape ({self.output_size},) for weight {tuple(self.weight.shape)}, "
                f"got {tuple(self.bias.shape)}"
            )

    @property
    def bias_vector(self) -> Any:
        return self.bias

    def linear(self, x: Any) -> Any:
        return x @ self.weight.T

    def adjoint(self, nu: Any) -> Any:
        return nu @ self.weight

    def to_sparse(self) -> Any:
        return sp.csr_array(self.weight)

    def compose_rows(self, rows: Any) -> tuple[Any, FloatArray]:
        return np.asarray(rows @ self.weight), np.asarray(rows @ self.bias, dtype=np.float64)

    def restrict(self, outputs: IndexArray | None, inputs: IndexArray | None) -> AffineMap:
        weight = self.weight if outputs is None else self.weight[outputs]
        return Dense(
            weight if inputs is None else weight[:, inputs],
            self.bias if outputs is None else self.bias[outputs],
        )


class Sparse(AffineMap):
    """x ↦ matrix·x + bias with a scipy.sparse matrix: what merging or restricting a convolution leaves."""

    def __init__(self, matrix: Any, bias: Any) -> None:
        self.matrix = sp.csr_array(matrix)
        _checked("Sparse matrix", self.matrix.data, 1)
        self.output_size, self.input_size = map(int, self.matrix.shape)
        self.bias = _checked("Sparse bias", bias, 1)
        if self.bias.shape != (self.output_size,):
            raise ValueError(f"Sparse bias must have shape ({self.output_size},), got {self.bias.shape}")

    @property
    def bias_vector(self) -> Any:
        return self.bias

    def linear(self, x: Any) -> Any:
        return _apply_sparse(self.matrix, x)

    def adjoint(self, nu: Any) -> Any:
        return _apply_sparse(self.matrix.T, nu)

    def to_sparse(self) -> Any:
        return self.matrix


class ChannelAffine(AffineMap):
    """x ↦ scale·x + shift per channel: input normalisation and batch normalisation in evaluation form.

    scale, shift: shape (channels,); shape: (channels, height, width), with height = width = 1 for flat features.
    """

    def __init__(self, scale: Any, shift: Any, shape: Shape) -> None:
        self.scale = _checked("ChannelAffine scale", scale, 1)
        self.shift = _checked("ChannelAffine shift", shift, 1)
        self.shape: Shape = (int(shape[0]), int(shape[1]), int(shape[2]))
        if self.scale.shape != (shape[0],) or self.shift.shape != (shape[0],):
            raise ValueError(
                f"ChannelAffine needs {shape[0]} scales and shifts for input shape {shape}, "
                f"got {self.scale.shape} and {self.shift.shape}"
            )
        self.input_size = self.output_size = math.prod(shape)

    @classmethod
    def batch_norm(cls, gamma: Any, beta: Any, mean: Any, variance: Any, eps: float, shape: Shape) -> ChannelAffine:
        """(x − mean)/√(variance + eps)·gamma + beta, as evaluation mode computes it."""
        spread = np.asarray(variance, dtype=np.float64) + eps
        if not np.all(spread > 0):
            raise ValueError(f"variance + eps must be > 0, got {spread[~(spread > 0)][0]}")
        scale = np.asarray(gamma, dtype=np.float64) / np.sqrt(spread)
        return cls(scale, np.asarray(beta, dtype=np.float64) - scale * np.asarray(mean, dtype=np.float64), shape)

    @classmethod
    def normalize(cls, mean: Any, std: Any, shape: Shape) -> ChannelAffine:
        """(x − mean)/std per channel, with scalars spread over the channels."""
        spread = np.broadcast_to(np.asarray(std, dtype=np.float64), (shape[0],))
        centre = np.broadcast_to(np.asarray(mean, dtype=np.float64), (shape[0],))
        if not np.all(spread != 0):
            raise ValueError(f"std must be ≠ 0, got {spread.tolist()}")
        return cls(1.0 / spread, -centre / spread, shape)

    def _spread(self, per_channel: Any) -> Any:
        return np.repeat(per_channel, self.shape[1] * self.shape[2])

    @property
    def bias_vector(self) -> Any:
        return self._spread(self.shift)

    def linear(self, x: Any) -> Any:
        return x * self._spread(self.scale)

    def adjoint(self, nu: Any) -> Any:
        return nu * self._spread(self.scale)

    def to_sparse(self) -> Any:
        return sp.csr_array(sp.diags_array(self._spread(self.scale)))


class Conv2d(AffineMap):
    """Cross-correlation with zero padding, as torch.nn.Conv2d computes it.

    weight: (out_channels, in_channels/groups, kernel_h, kernel_w). bias: (out_channels,), or (output_size,) when it
    differs from place to place (input normalisation folded in), or None. shape: input (channels, height, width).
    """

    def __init__(
        self,
        weight: Any,
        bias: Any,
        shape: Shape,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> None:
        self.weight = _checked("Conv2d weight", weight, 4)
        self.shape: Shape = (int(shape[0]), int(shape[1]), int(shape[2]))
        self.stride = _pair("stride", stride, 1)
        self.padding = _pair("padding", padding, 0)
        self.dilation = _pair("dilation", dilation, 1)
        self.groups = int(groups)
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
        self.output_shape: Shape = (out_channels, height, width)
        self.input_size = math.prod(self.shape)
        self.output_size = math.prod(self.output_shape)
        self.bias = _zeros(self.weight, out_channels) if bias is None else _checked("Conv2d bias", bias, 1)
        if int(self.bias.shape[0]) not in (out_channels, self.output_size):
            raise ValueError(
                f"Conv2d bias must have {out_channels} or {self.output_size} entries, got {int(self.bias.shape[0])}"
            )

    @property
    def bias_vector(self) -> Any:
        if int(self.bias.shape[0]) == self.output_size:
            return self.bias
        places = self.output_shape[1] * self.output_shape[2]
        if is_torch_array(self.bias):
            torch_bias: Any = self.bias
            return torch_bias.repeat_interleave(places)
        return np.repeat(self.bias, places)

    def linear(self, x: Any) -> Any:
        if not is_torch_array(self.weight):
            return _apply_sparse(self._matrix, x)
        from torch.nn.functional import conv2d

        images = x.reshape(-1, *self.shape)
        out = conv2d(images, self.weight, None, self.stride, self.padding, self.dilation, self.groups)
        return out.reshape(*x.shape[:-1], self.output_size)

    def adjoint(self, nu: Any) -> Any:
        if not is_torch_array(self.weight):
            return _apply_sparse(self._matrix.T, nu)
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

    def to_sparse(self) -> Any:
        return self._matrix

    @cached_property
    def _matrix(self) -> Any:
        """The convolution as a CSR matrix, one entry per (output place, kernel tap) inside the padded image."""
        out_channels, out_h, out_w = self.output_shape
        _, per_group, kernel_h, kernel_w = self.weight.shape
        o, c, kh, kw, oh, ow = np.ogrid[:out_channels, :per_group, :kernel_h, :kernel_w, :out_h, :out_w]
        in_h = oh * self.stride[0] - self.padding[0] + kh * self.dilation[0]
        in_w = ow * self.stride[1] - self.padding[1] + kw * self.dilation[1]
        channel = (o // (out_channels // self.groups)) * per_group + c
        inside = (in_h >= 0) & (in_h < self.shape[1]) & (in_w >= 0) & (in_w < self.shape[2])
        full = (out_channels, per_group, kernel_h, kernel_w, out_h, out_w)
        keep = np.broadcast_to(inside, full)
        row = np.broadcast_to((o * out_h + oh) * out_w + ow, full)[keep]
        column = np.broadcast_to((channel * self.shape[1] + in_h) * self.shape[2] + in_w, full)[keep]
        data = np.broadcast_to(self.weight[..., None, None], full)[keep]
        matrix = sp.csr_array((data, (row, column)), shape=(self.output_size, self.input_size))
        matrix.sum_duplicates()
        return matrix


def _select_rows(rows: Any, matrix: Any) -> Any:
    """rows·matrix; where `rows` are unit vectors, as layer bounds ask for, by slicing instead of multiplying."""
    if not (rows.nnz == rows.shape[0] and np.all(np.diff(rows.indptr) == 1) and np.all(rows.data == 1.0)):
        return rows @ matrix
    everything = rows.shape[0] == rows.shape[1] and np.array_equal(rows.indices, np.arange(rows.shape[1]))
    return matrix if everything else matrix[rows.indices]


def _apply_sparse(matrix: Any, x: Any) -> Any:
    """matrix·x along the last axis of a numpy array with any leading axes, or of the rows of a sparse matrix."""
    if sp.issparse(x):
        product = x @ matrix.T
        return product if product.nnz < DENSE_ABOVE * math.prod(product.shape) else product.toarray()
    flat = np.asarray(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return (matrix @ flat.T).T.reshape(*x.shape[:-1], matrix.shape[0])


def merge(first: AffineMap, second: AffineMap) -> AffineMap:
    """The single affine map second∘first, kept in the most structured form that holds it exactly.

    A channel-wise map before or after a Dense or Conv2d stays Dense or Conv2d; with zero padding the shift of a map
    before a Conv2d becomes a bias that differs from place to place. Everything else becomes Dense or Sparse.
    """
    if first.output_size != second.input_size:
        raise ValueError(f"cannot chain a map to {first.output_size} features into one from {second.input_size}")
    bias = second.forward(first.bias_vector)
    if isinstance(first, ChannelAffine) and isinstance(second, ChannelAffine) and first.shape == second.shape:
        return ChannelAffine(first.scale * second.scale, second.scale * first.shift + second.shift, first.shape)
    if isinstance(first, ChannelAffine) and isinstance(second, Conv2d) and first.shape[0] == second.shape[0]:
        per_group = second.weight.shape[1]
        group = np.arange(second.output_shape[0]) // (second.output_shape[0] // second.groups)
        scale = first.scale[group[:, None] * per_group + np.arange(per_group)]
        return _conv_like(second, second.weight * scale[:, :, None, None], bias)
    if isinstance(second, ChannelAffine) and isinstance(first, Conv2d) and second.shape == first.output_shape:
        return _conv_like(first, first.weight * second.scale[:, None, None, None], bias)
    if isinstance(first, Dense) and isinstance(second, Dense):
        return Dense(second.weight @ first.weight, bias)
    if isinstance(first, ChannelAffine) and isinstance(second, Dense):
        return Dense(first.adjoint(second.weight), bias)
    if isinstance(first, Dense) and isinstance(second, ChannelAffine):
        return Dense(second.adjoint(first.weight.T).T, bias)
    product = second.to_sparse() @ first.to_sparse()
    if product.nnz > DENSE_ABOVE * math.prod(product.shape):
        return Dense(product.toarray(), bias)
    return Sparse(product, bias)


def _conv_like(conv: Conv2d, weight: Any, bias_vector: Any) -> Conv2d:
    """`conv` with another weight and bias; a bias constant within each channel is stored per channel."""
    per_place = bias_vector.reshape(conv.output_shape[0], -1)
    constant = bool(np.all(per_place == per_place[:, :1]))
    bias = per_place[:, 0] if constant else bias_vector
    return Conv2d(weight, bias, conv.shape, conv.stride, conv.padding, conv.dilation, conv.groups)
