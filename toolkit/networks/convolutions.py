"""Convolutions as affine maps on flat vectors: by a sparse matrix for certifying, by torch while training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from array_api_compat import is_torch_array

from toolkit.arrays import Array, SparseMatrix
from toolkit.data.arguments import whole_number, whole_numbers
from toolkit.networks.layers import AffineMap, ImageShape, image_shape
from toolkit.networks.weights import apply_sparse, checked_weights, frozen_matrix, zero_weights


class Conv2d(AffineMap):
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
            return apply_sparse(self._matrix, x)
        from torch.nn.functional import conv2d

        images = x.reshape(-1, *self.shape)
        out = conv2d(images, self.weight, None, self.stride, self.padding, self.dilation, self.groups)
        return out.reshape(*x.shape[:-1], self.output_size)

    def adjoint(self, nu: Array) -> Array:
        if not is_torch_array(self.weight):
            return apply_sparse(self._matrix.T, nu)
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
        return self._matrix

    @cached_property
    def _matrix(self) -> SparseMatrix:
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
        return frozen_matrix(matrix)


def _pair(name: str, value: int | Sequence[int], least: int) -> tuple[int, int]:
    given = (value, value) if np.ndim(value) == 0 else value
    try:
        first, second = whole_numbers(name, given, least)
    except ValueError:
        raise ValueError(f"{name} must be an integer ≥ {least} or two of them, got {value!r}") from None
    return first, second
