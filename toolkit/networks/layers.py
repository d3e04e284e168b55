"""Affine maps x ↦ Wx + b on flat vectors: dense, convolutional, channel-wise and sparse.

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
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from array_api_compat import is_torch_array

from toolkit.arrays import FloatArray, IndexArray
from toolkit.data.arguments import whole_number, whole_numbers
from toolkit.networks.float_error import SAFETY, TINY, gamma, norm
from toolkit.networks.weight_error import SMALLEST, column_norms, merged_error, power_of_two, product_error, sum_error

Shape = tuple[int, int, int]
_ROUNDED = gamma(4)  # relative error of a quotient, its divisor's root and sum
DENSE_ABOVE = 0.3  # share of non-zeros above which a sparse result is stored dense


def exact_float64(name: str, values: Any) -> FloatArray:
    """A float64 copy of real numbers; ValueError for any other dtype and for numbers that float64 would round."""
    given = np.asarray(values)
    if given.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be real numbers, got dtype {given.dtype}")
    with np.errstate(over="ignore"):
        array = np.array(given, dtype=np.float64)
    if given.dtype.kind == "f" and given.dtype.itemsize > 8:
        rounded = (array.astype(given.dtype) != given) & ~np.isnan(given)
    elif given.dtype.kind in "iu" and given.dtype.itemsize == 8:
        rounded = np.zeros(given.shape, dtype=np.bool_)
        for index in np.argwhere(np.abs(array) >= 2.0**53):
            rounded[tuple(index)] = int(array[tuple(index)]) != int(given[tuple(index)])
    else:
        return array
    if rounded.any():
        where = tuple(int(i) for i in np.argwhere(rounded)[0])
        raise ValueError(f"{name} must fit into float64 exactly, got {given[where]} ({given.dtype}) at index {where}")
    return array


def read_only(array: Any) -> Any:
    """The array itself, no longer writable."""
    array.setflags(write=False)
    return array


def _checked(name: str, values: Any, ndim: int | tuple[int, ...]) -> Any:
    """Values as finite float64 numpy of their own, read-only (torch tensors pass unchanged), axes checked."""
    array = values if is_torch_array(values) else exact_float64(name, values)
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    if array.ndim not in allowed:
        raise ValueError(f"{name} must have {' or '.join(map(str, allowed))} axes, got shape {tuple(array.shape)}")
    if is_torch_array(array):
        return array
    if not np.all(np.isfinite(array)):
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} must be finite, got {array[where]} at index {where}")
    return read_only(array)


def _canonical(matrix: Any) -> Any:
    """A CSR copy with sorted, single entries, read-only; ValueError where the same entry is given twice."""
    if not sp.issparse(matrix):
        matrix = sp.csr_array(exact_float64("Sparse matrix", matrix))
    if matrix.format in ("csr", "csc", "bsr"):
        matrix.check_format(full_check=True)  # indices outside the shape would be read as memory
    entries = matrix.tocoo()
    data = _checked("Sparse matrix", entries.data, 1)
    whole = sp.csr_array((data, entries.coords), shape=matrix.shape)
    whole.sum_duplicates()
    if whole.nnz != data.size:
        raise ValueError(f"Sparse matrix must give every entry once, got {data.size - whole.nnz} entries again")
    return _frozen_matrix(whole)


def _frozen_matrix(matrix: Any) -> Any:
    matrix.sort_indices()
    for part in (matrix.data, matrix.indices, matrix.indptr):
        read_only(part)
    return matrix


def _zeros(like: Any, size: int) -> Any:
    """Zeros of the library, dtype and device of `like`."""
    return like.new_zeros(size) if is_torch_array(like) else read_only(np.zeros(size))


def _pair(name: str, value: int | Sequence[int], least: int) -> tuple[int, int]:
    given = (value, value) if np.ndim(value) == 0 else value
    try:
        first, second = whole_numbers(name, given, least)
    except ValueError:
        raise ValueError(f"{name} must be an integer ≥ {least} or two of them, got {value!r}") from None
    return first, second


def _image_shape(shape: object) -> Shape:
    found = whole_numbers("shape", shape, 1)
    if len(found) != 3:
        raise ValueError(f"shape must be (channels, height, width), got {found}")
    return found[0], found[1], found[2]


class AffineMap(ABC):
    """An affine map on flat vectors; `bias` has shape (output_size,) once `bias_vector` is read.

    column_error: ‖ΔW_:j‖₂ per input, at most, shape (input_size,), None where W is exact; bias_error: ‖Δb‖₂, at most:
    the real map is x ↦ (W + ΔW)x + b + Δb. Attributes are set once.
    """

    input_size: int
    output_size: int
    column_error: FloatArray | None = None
    bias_error: float = 0.0

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            raise AttributeError(f"{type(self).__name__}.{name} is set once; make another map instead")
        object.__setattr__(self, name, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickled and deep copies are read-only as well."""
        self.__dict__.update(state)
        for value in state.values():
            if isinstance(value, np.ndarray):
                read_only(value)
            elif sp.issparse(value):
                _frozen_matrix(value)

    def with_error(self, column_error: Any, bias_error: float) -> AffineMap:
        """The same map with these errors in place of its own; column_error: shape (input_size,), or None for zeros.

        Raises ValueError for another shape, and for numbers that are negative or NaN.
        """
        columns = None if column_error is None else exact_float64("column_error", column_error)
        if columns is not None and (columns.shape != (self.input_size,) or not np.all(columns >= 0)):
            raise ValueError(f"column_error must be {self.input_size} numbers ≥ 0, got shape {columns.shape}")
        if not bias_error >= 0:
            raise ValueError(f"bias_error must be ≥ 0, got {bias_error}")
        twin = copy.copy(self)
        exact = columns is None or not columns.any()
        twin.__dict__["column_error"] = None if exact else read_only(columns)
        twin.__dict__["bias_error"] = float(bias_error)
        return twin

    def rounded(self, weight: int, bias: int) -> AffineMap:
        """The same map, whose every weight and bias has been rounded so often (after arithmetic that made them)."""
        own = np.zeros(self.input_size) if self.column_error is None else self.column_error
        columns = SAFETY * (own + gamma(weight) * column_norms(self.to_sparse()) + (TINY if weight else 0.0))
        constant = gamma(bias) * norm(self.bias_vector) + (TINY if bias else 0.0)
        return self.with_error(columns, SAFETY * (self.bias_error + constant))

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

    @cached_property
    def row_spread(self) -> float:
        """The largest over the least of all rows' largest entries, biases among them, zero rows left out."""
        matrix = abs(self.to_sparse()).tocsr()
        filled = np.flatnonzero(np.diff(matrix.indptr))
        largest = np.abs(np.asarray(self.bias_vector, dtype=np.float64))
        if filled.size:
            largest[filled] = np.maximum(largest[filled], np.maximum.reduceat(matrix.data, matrix.indptr[filled]))
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
        return self._part(Sparse.of_parts(matrix, bias if outputs is None else bias[outputs]), inputs)

    def _part(self, part: AffineMap, inputs: IndexArray | None) -> AffineMap:
        """The part of this map with this map's errors, which are no less than its own."""
        if self.column_error is None and not self.bias_error:
            return part
        columns = self.column_error if self.column_error is None or inputs is None else self.column_error[inputs]
        return part.with_error(columns, self.bias_error)


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

    @classmethod
    def of_parts(cls, weight: Any, bias: Any) -> Dense:
        """A map with parts of another map's checked arrays, which nobody else can write."""
        part = cls.__new__(cls)
        part.weight, part.bias = read_only(weight), read_only(bias)
        part.output_size, part.input_size = weight.shape
        return part

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
        weight = weight if inputs is None else weight[:, inputs]
        bias = self.bias if outputs is None else self.bias[outputs]
        part = Dense(weight, bias) if is_torch_array(weight) else Dense.of_parts(weight, bias)
        return self._part(part, inputs)


class Sparse(AffineMap):
    """x ↦ matrix·x + bias with a scipy.sparse matrix: what merging or restricting a convolution leaves."""

    def __init__(self, matrix: Any, bias: Any) -> None:
        self.matrix = _canonical(matrix)
        self.output_size, self.input_size = map(int, self.matrix.shape)
        self.bias = _checked("Sparse bias", bias, 1)
        if self.bias.shape != (self.output_size,):
            raise ValueError(f"Sparse bias must have shape ({self.output_size},), got {self.bias.shape}")

    @classmethod
    def of_parts(cls, matrix: Any, bias: Any) -> Sparse:
        """A map with parts of another map's checked matrix and bias, which nobody else can write."""
        part = cls.__new__(cls)
        for array in (matrix.data, matrix.indices, matrix.indptr):
            read_only(array)
        part.matrix, part.bias = matrix, read_only(bias)
        part.output_size, part.input_size = matrix.shape
        return part

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
        self.shape: Shape = _image_shape(shape)
        if self.scale.shape != (shape[0],) or self.shift.shape != (shape[0],):
            raise ValueError(
                f"ChannelAffine needs {shape[0]} scales and shifts for input shape {shape}, "
                f"got {self.scale.shape} and {self.shift.shape}"
            )
        self.input_size = self.output_size = math.prod(shape)

    @classmethod
    def batch_norm(cls, gamma: Any, beta: Any, mean: Any, variance: Any, eps: float, shape: Shape) -> ChannelAffine:
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
    def normalize(cls, mean: Any, std: Any, shape: Shape) -> ChannelAffine:
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
        self.shape: Shape = _image_shape(shape)
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
        return _frozen_matrix(matrix)


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
    """The single affine map second∘first in the most structured form, with the error of its rounded weights.

    A channel-wise map before or after a Dense or Conv2d stays Dense or Conv2d; with zero padding the shift of a map
    before a Conv2d becomes a bias that differs from place to place. Everything else becomes Dense or Sparse.
    """
    if first.output_size != second.input_size:
        raise ValueError(f"cannot chain a map to {first.output_size} features into one from {second.input_size}")
    merged = _merged(first, second)
    if any(is_torch_array(layer.bias_vector) for layer in (first, second)):
        return merged
    return merged.with_error(*merged_error(_with_errors(first), _with_errors(second)))


def _with_errors(layer: AffineMap) -> tuple[Any, FloatArray, FloatArray | None, float]:
    weight = layer.weight if isinstance(layer, Dense) else layer.to_sparse()
    return weight, layer.bias_vector, layer.column_error, layer.bias_error


def _merged(first: AffineMap, second: AffineMap) -> AffineMap:
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
