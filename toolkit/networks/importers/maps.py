"""The affine maps of layers on features without a batch axis: what dense layers, convolutions and pooling are.

Every function takes the shape of the features and gives the map and the shape of what it makes. Checked: shapes fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray, IndexArray
from toolkit.networks.convolutions import KERNEL_PLACES, Conv2d
from toolkit.networks.importers.tensors import Shape, check_entries, check_size
from toolkit.networks.layers import AffineMap, ChannelAffine, Dense, ImageShape, Sparse
from toolkit.networks.weights import frozen_matrix

Made = tuple[AffineMap, Shape]


def image(shape: Sequence[int], operation: str) -> ImageShape:
    """(channels, height, width); a signal of shape (channels, length) has height 1."""
    if len(shape) == 2:
        return int(shape[0]), 1, int(shape[1])
    if len(shape) != 3:
        raise ValueError(f"{operation} takes (channels, height, width), but the features have shape {tuple(shape)}")
    return int(shape[0]), int(shape[1]), int(shape[2])


def dense(shape: Sequence[int], weight: FloatArray, bias: FloatArray | None) -> Made:
    """weight·x + bias along the last axis, which must be the only one longer than 1."""
    if math.prod(shape[:-1]) != 1:
        raise ValueError(
            f"a dense map acts on the last axis, but the features have shape {tuple(shape)}; flatten first"
        )
    layer = Dense(weight, bias)
    if layer.input_size != math.prod(shape):
        raise ValueError(f"a dense map takes {layer.input_size} features, got {math.prod(shape)}")
    return layer, (*shape[:-1], layer.output_size)


def row_products(shape: Sequence[int], right: FloatArray) -> Made:
    """x @ right for x of this shape, as numpy.matmul broadcasts: every row of x by itself."""
    if not right.ndim or not len(shape):
        raise ValueError("a matrix product takes factors with axes, got a number")
    left = (1, *shape) if len(shape) == 1 else tuple(shape)
    factor = right[:, None] if right.ndim == 1 else right
    if left[-1] != factor.shape[-2]:
        raise ValueError(f"cannot multiply features of shape {tuple(shape)} by a constant of shape {right.shape}")
    lead = np.broadcast_shapes(left[:-2], factor.shape[:-2])
    made = (*lead, *(left[-2:-1] if len(shape) > 1 else ()), *(factor.shape[-1:] if right.ndim > 1 else ()))
    if math.prod(left[:-1]) == 1 and math.prod(factor.shape[:-2]) == 1:
        return Dense(np.reshape(factor, factor.shape[-2:]).T), made
    full = (*lead, left[-2], factor.shape[-1], left[-1])
    check_entries(math.prod(full), "a matrix product")
    places = np.arange(math.prod(left)).reshape(left)
    columns = np.broadcast_to(np.broadcast_to(places, (*lead, *left[-2:]))[..., :, None, :], full)
    rows = np.broadcast_to(np.arange(math.prod(full[:-1])).reshape(full[:-1])[..., None], full)
    data = np.broadcast_to(np.swapaxes(factor, -1, -2)[..., None, :, :], full)
    keep = data != 0
    size = (math.prod(full[:-1]), math.prod(left))
    matrix = sp.csr_array((data[keep], (rows[keep], columns[keep])), shape=size)
    return Sparse(matrix, np.zeros(size[0])), made


def convolution(
    shape: Sequence[int],
    weight: FloatArray,
    bias: FloatArray | None,
    stride: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Made:
    """A convolution with `before` zeros above and left of the image and `after` zeros below and right of it.

    weight: (out_channels, in_channels/groups, kernel_h, kernel_w), without kernel_h for signals (channels, length).
    """
    flat = weight.ndim == 3
    if weight.ndim not in (3, 4):
        raise ValueError(f"only 1-D and 2-D convolutions are supported, got W of shape {weight.shape}")
    if weight.ndim != len(shape) + 1:
        axes = "(channels, length)" if flat else "(channels, height, width)"
        raise ValueError(f"this convolution takes {axes}, but the features have shape {tuple(shape)}")
    if flat:
        weight = weight[:, :, None]
        stride, before, after, dilation = (1, *stride), (0, *before), (0, *after), (1, *dilation)
    if min((*before, *after)) < 0:
        raise ValueError(f"padding must be ≥ 0, got {tuple(before)} and {tuple(after)}")
    sizes, kernel = image(shape, "a convolution")[1:], weight.shape[2:]
    free = [sizes[k] + before[k] + after[k] - dilation[k] * (kernel[k] - 1) - 1 for k in (0, 1)]
    places = math.prod(max(0, free[k] // max(1, stride[k]) + 1) for k in (0, 1))
    check_size(weight.shape[0] * places, "the outputs of a convolution")
    if tuple(before) != tuple(after):
        weight, padding = _symmetric(weight, before, after, dilation, places)
        dilation = (1, 1)
    else:
        padding = tuple(before)
    layer = Conv2d(weight, bias, image(shape, "a convolution"), stride, padding, dilation, groups)
    channels, height, width = layer.output_shape
    return layer, (channels, width) if flat else (channels, height, width)


def _symmetric(
    weight: FloatArray, before: Sequence[int], after: Sequence[int], dilation: Sequence[int], places: int
) -> tuple[FloatArray, tuple[int, ...]]:
    """The kernel with zero taps that turn uneven padding into even padding; its dilation is 1.

    places: outputs per channel.

    With p = max(before, after), p − before zero taps in front and p − after behind, tap k of the old kernel reads the
    same pixel: o·stride − p + (p − before + k·dilation) = o·stride − before + k·dilation.
    """
    padding = tuple(max(b, a) for b, a in zip(before, after, strict=True))
    front = [p - b for p, b in zip(padding, before, strict=True)]
    behind = [p - a for p, a in zip(padding, after, strict=True)]
    spans = [d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    sizes = [f + s + b for f, s, b in zip(front, spans, behind, strict=True)]
    check_kernel((*weight.shape[:2], *sizes), places, "a kernel with uneven padding")
    wide = np.zeros((*weight.shape[:2], *sizes))
    rows, columns = (slice(f, f + s, d) for f, s, d in zip(front, spans, dilation, strict=True))
    wide[:, :, rows, columns] = weight
    return wide, padding


def check_kernel(shape: Sequence[int], places: int, what: str) -> None:
    """Raise TooLargeError for a kernel in the making, or its matrix, that would be too large to be stored."""
    matrix = math.prod(shape[2:]) > KERNEL_PLACES
    check_entries(math.prod(shape) * (max(1, places) if matrix else 1), what)


def transposed_convolution(
    shape: Sequence[int],
    weight: FloatArray,
    bias: FloatArray | None,
    stride: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    extra: Sequence[int],
) -> Made:
    """The transpose of the convolution that takes the output, of size stride·(n − 1) + span + extra − padding, back.

    weight: (in_channels, out_channels/groups, kernel…), the layout of ONNX and torch.
    """
    if weight.ndim != len(shape) + 1 or weight.ndim not in (3, 4) or weight.shape[0] != shape[0]:
        raise ValueError(f"W of shape {weight.shape} does not fit features of shape {tuple(shape)}")
    spans = [d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    sizes = [
        s * (n - 1) + span + e - b - a
        for n, s, span, e, b, a in zip(shape[1:], stride, spans, extra, before, after, strict=True)
    ]
    if any(e >= s for e, s in zip(extra, stride, strict=True)) or min(sizes) < 1:
        raise ValueError(f"output padding must be less than the stride {tuple(stride)}, got {tuple(extra)}")
    made = (weight.shape[1] * groups, *sizes)
    check_size(math.prod(made), "the outputs of a transposed convolution")
    check_entries(math.prod(weight.shape) * math.prod(shape[1:]), "a transposed convolution")
    back, start = convolution(made, weight, None, stride, before, after, dilation, groups)
    if start != tuple(shape):
        raise ValueError(f"the transposed convolution of {tuple(shape)} does not fit an output of {made}")
    matrix = frozen_matrix(sp.csr_array(back.to_sparse().T))
    shift = np.zeros(made[0]) if bias is None else bias
    if shift.shape != made[:1]:
        raise ValueError(f"B must have shape {made[:1]}, one number per channel, got {shift.shape}")
    return Sparse(matrix, np.repeat(shift, math.prod(sizes))), made


def batch_norm(
    shape: Sequence[int], gamma: ArrayLike, beta: ArrayLike, mean: ArrayLike, variance: ArrayLike, eps: float
) -> Made:
    """(x − mean)/√(variance + eps)·gamma + beta per entry of the first axis."""
    return ChannelAffine.batch_norm(gamma, beta, mean, variance, eps, _channel_shape(shape)), tuple(shape)


def elementwise(shape: Sequence[int], scale: ArrayLike, shift: ArrayLike) -> Made:
    """scale·x + shift, both broadcast to the features' shape."""
    scales, shifts, channels = _spread(shape, scale, shift)
    return ChannelAffine(scales, shifts, channels), tuple(shape)


def normalisation(shape: Sequence[int], mean: ArrayLike, std: ArrayLike) -> Made:
    """(x − mean)/std, both broadcast to the features' shape."""
    means, deviations, channels = _spread(shape, mean, std)
    return ChannelAffine.normalize(means, deviations, channels), tuple(shape)


def _spread(shape: Sequence[int], first: ArrayLike, second: ArrayLike) -> tuple[FloatArray, FloatArray, ImageShape]:
    """Two constants as one value per channel, or per feature where they differ within a channel, and the shape."""
    shape = tuple(shape) or (1,)
    try:
        both = [np.broadcast_to(np.asarray(v, np.float64), shape) for v in (first, second)]
    except ValueError:
        given = " and ".join(str(np.shape(v)) for v in (first, second) if np.shape(v))
        raise ValueError(f"constants of shape {given} do not broadcast to features of shape {shape}") from None
    channels = _channel_shape(shape)
    per_place = [np.reshape(v, (channels[0], -1)) for v in both]
    if all(np.all(v == v[:, :1]) for v in per_place):
        return per_place[0][:, 0], per_place[1][:, 0], channels
    return both[0].ravel(), both[1].ravel(), (math.prod(shape), 1, 1)


def _channel_shape(shape: Sequence[int]) -> ImageShape:
    """The shape as (channels, height, width)."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return shape[0], math.prod(shape[1:]), 1


def axis_sums(shape: Sequence[int], axes: Sequence[int], keep: bool) -> Made:
    """Sums over the axes, which stay with length 1 where `keep`."""
    groups, made = reduction(shape, axes, keep)
    rows = np.repeat(np.arange(len(groups)), groups.shape[1])
    size = (len(groups), math.prod(shape))
    return Sparse(sp.csr_array((np.ones(rows.size), (rows, groups.ravel())), shape=size), np.zeros(size[0])), made


def reduction(shape: Sequence[int], axes: Sequence[int], keep: bool) -> tuple[IndexArray, Shape]:
    """The entries that every result of a reduction reads, shape (results, entries each), and the results' shape."""
    count = len(shape)
    if any(not -count <= a < count for a in axes) or len({a % count for a in axes}) != len(axes):
        raise ValueError(f"axes must be different ones of −{count} … {count - 1}, got {tuple(axes)}")
    gone = {a % count for a in axes}
    kept = [a for a in range(count) if a not in gone]
    moved = np.arange(math.prod(shape)).reshape(shape).transpose((*kept, *sorted(gone)))
    made = tuple(1 if a in gone else n for a, n in enumerate(shape) if keep or a not in gone)
    return moved.reshape(math.prod(shape[a] for a in kept), -1), made
