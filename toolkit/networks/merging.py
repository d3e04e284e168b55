"""Neighbouring affine maps made one, with the error of what that rounds; operations in order made a network's maps."""

from __future__ import annotations

import math

import numpy as np
from array_api_compat import is_torch_array

from toolkit.arrays import Array
from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import AffineMap, ChannelAffine, Dense, Sparse
from toolkit.networks.weight_error import FloatMap, merged_error
from toolkit.networks.weights import DENSE_ABOVE


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
    return merged.with_error(*merged_error(_with_errors(first, second), _with_errors(second, first)))


def _with_errors(layer: AffineMap, other: AffineMap) -> FloatMap:
    """The map's numbers; a large convolution needs a matrix only where it is multiplied by another."""
    scaled = isinstance(other, ChannelAffine)
    weight = layer.weight if isinstance(layer, Dense) else layer.operand() if scaled else layer.to_sparse()
    return FloatMap(weight, layer.bias_vector, layer.column_error, layer.bias_error)


def _merged(first: AffineMap, second: AffineMap) -> AffineMap:
    bias = second.forward(first.bias_vector)
    if isinstance(first, ChannelAffine) and isinstance(second, ChannelAffine) and first.shape == second.shape:
        return ChannelAffine(first.scale * second.scale, second.scale * first.shift + second.shift, first.shape)
    if isinstance(first, ChannelAffine) and isinstance(second, Conv2d) and first.shape[0] == second.shape[0]:
        per_group = second.weight.shape[1]
        group = np.arange(second.output_shape[0]) // (second.output_shape[0] // second.groups)
        scale = first.scale[group[:, None] * per_group + np.arange(per_group)]
        return conv_like(second, second.weight * scale[:, :, None, None], bias)
    if isinstance(second, ChannelAffine) and isinstance(first, Conv2d) and second.shape == first.output_shape:
        return conv_like(first, first.weight * second.scale[:, None, None, None], bias)
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


def conv_like(conv: Conv2d, weight: Array, bias_vector: Array) -> Conv2d:
    """`conv` with another weight and bias; a bias constant within each channel is stored per channel."""
    per_place = bias_vector.reshape(conv.output_shape[0], -1)
    constant = bool(np.all(per_place == per_place[:, :1]))
    bias = per_place[:, 0] if constant else bias_vector
    return Conv2d(weight, bias, conv.shape, conv.stride, conv.padding, conv.dilation, conv.groups)
