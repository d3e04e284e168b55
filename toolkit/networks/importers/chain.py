"""What every importer builds: operations in order, with the shape of the features between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray
from toolkit.data.arguments import whole_numbers
from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import AffineMap, ChannelAffine, Dense, ImageShape, ReLU
from toolkit.networks.merging import merge_operations
from toolkit.networks.parts import NetworkParts
from toolkit.networks.stages import sequential

if TYPE_CHECKING:
    from torch import Tensor


class OperationChain:
    """Affine maps and ReLUs in order; `shape` is the shape of the current features, batch axis left out.

    Methods raise ValueError when an operation does not fit the current shape.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.input_shape = whole_numbers("input_shape", shape)
        if not self.input_shape or any(n < 1 for n in self.input_shape):
            raise ValueError(f"input_shape must be positive sizes without the batch axis, got {self.input_shape}")
        self.shape = self.input_shape
        self._operations: list[AffineMap | ReLU] = []

    @property
    def size(self) -> int:
        """Number of current features."""
        return math.prod(self.shape)

    def parts(self, name: str, metadata: Mapping[str, object] | None = None) -> NetworkParts:
        """The network so far, neighbouring affine maps merged."""
        return NetworkParts(
            sequential(merge_operations(self._operations)), name, dict(metadata or {}), self.input_shape
        )

    def relu(self) -> None:
        """y = max(x, 0)."""
        self._operations.append(ReLU())

    def dense(self, weight: FloatArray, bias: FloatArray | None) -> None:
        """weight·x + bias along the last axis, which must be the only one longer than 1."""
        if math.prod(self.shape[:-1]) != 1:
            raise ValueError(
                f"a dense map acts on the last axis, but the features have shape {self.shape}; flatten first"
            )
        layer = Dense(weight, bias)
        if layer.input_size != self.size:
            raise ValueError(f"a dense map takes {layer.input_size} features, got {self.size}")
        self._operations.append(layer)
        self.shape = (*self.shape[:-1], layer.output_size)

    def conv(
        self,
        weight: FloatArray,
        bias: FloatArray | None,
        stride: Sequence[int],
        before: Sequence[int],
        after: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> None:
        """A convolution with `before` zeros above and left of the image and `after` zeros below and right of it."""
        if tuple(before) != tuple(after):
            weight, padding = _symmetric(weight, before, after, dilation)
            dilation = (1, 1)
        else:
            padding = tuple(before)
        layer = Conv2d(weight, bias, _image_shape(self.shape, "a convolution"), stride, padding, dilation, groups)
        self._operations.append(layer)
        self.shape = layer.output_shape

    def average_pool(
        self, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], divisor: int | None
    ) -> None:
        """The sum over each window (zeros outside the image) / divisor (None: the window's size), per channel.

        The sum is exact; the division goes through `normalize`, whose rounding is accounted for.
        """
        channels = _image_shape(self.shape, "average pooling")[0]
        self.conv(np.ones((channels, 1, *kernel)), None, stride, padding, padding, (1, 1), channels)
        self.normalize(0.0, math.prod(kernel) if divisor is None else divisor)

    def batch_norm(self, gamma: ArrayLike, beta: ArrayLike, mean: ArrayLike, variance: ArrayLike, eps: float) -> None:
        """(x − mean)/√(variance + eps)·gamma + beta per entry of the first axis."""
        self._operations.append(ChannelAffine.batch_norm(gamma, beta, mean, variance, eps, _channel_shape(self.shape)))

    def elementwise(self, scale: ArrayLike, shift: ArrayLike) -> None:
        """scale·x + shift, both broadcast to the current shape."""
        scales, shifts, shape = self._spread(scale, shift)
        self._operations.append(ChannelAffine(scales, shifts, shape))

    def normalize(self, mean: ArrayLike, std: ArrayLike) -> None:
        """(x − mean)/std, both broadcast to the current shape."""
        means, deviations, shape = self._spread(mean, std)
        self._operations.append(ChannelAffine.normalize(means, deviations, shape))

    def _spread(self, first: ArrayLike, second: ArrayLike) -> tuple[FloatArray, FloatArray, ImageShape]:
        """Two constants as one value per channel, or per feature where they differ within a channel, and the shape."""
        try:
            both = [np.broadcast_to(np.asarray(v, np.float64), self.shape) for v in (first, second)]
        except ValueError:
            given = " and ".join(str(np.shape(v)) for v in (first, second) if np.shape(v))
            raise ValueError(f"constants of shape {given} do not broadcast to features of shape {self.shape}") from None
        channels = _channel_shape(self.shape)
        per_place = [np.reshape(v, (channels[0], -1)) for v in both]
        if all(np.all(v == v[:, :1]) for v in per_place):
            return per_place[0][:, 0], per_place[1][:, 0], channels
        return both[0].ravel(), both[1].ravel(), (self.size, 1, 1)

    def reshape(self, shape: Sequence[int]) -> None:
        """Another shape for the same features in C order: nothing to compute."""
        if math.prod(shape) != self.size:
            raise ValueError(f"features of shape {self.shape} cannot take shape {tuple(shape)}")
        self.shape = tuple(int(n) for n in shape)


def _image_shape(shape: Sequence[int], operation: str) -> ImageShape:
    if len(shape) != 3:
        raise ValueError(f"{operation} takes (channels, height, width), but the features have shape {tuple(shape)}")
    return shape[0], shape[1], shape[2]


def _channel_shape(shape: Sequence[int]) -> ImageShape:
    """The shape as (channels, height, width)."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return shape[0], math.prod(shape[1:]), 1


def _symmetric(
    weight: FloatArray, before: Sequence[int], after: Sequence[int], dilation: Sequence[int]
) -> tuple[FloatArray, tuple[int, ...]]:
    """The kernel with zero taps that turn uneven padding into even padding; its dilation is 1.

    With p = max(before, after), p − before zero taps in front and p − after behind, tap k of the old kernel reads the
    same pixel: o·stride − p + (p − before + k·dilation) = o·stride − before + k·dilation.
    """
    padding = tuple(max(b, a) for b, a in zip(before, after, strict=True))
    front = [p - b for p, b in zip(padding, before, strict=True)]
    behind = [p - a for p, a in zip(padding, after, strict=True)]
    spans = [d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    wide = np.zeros((*weight.shape[:2], *(f + s + b for f, s, b in zip(front, spans, behind, strict=True))))
    rows, columns = (slice(f, f + s, d) for f, s, d in zip(front, spans, dilation, strict=True))
    wide[:, :, rows, columns] = weight
    return wide, padding


def as_array(values: Tensor) -> FloatArray:
    """A torch tensor of plain real floating-point numbers as a float64 numpy array of its own, exactly.

    Raises ValueError for anything that float64 would not hold as it is: complex, quantised, integer or sparse tensors,
    tensor subclasses with arithmetic of their own, tensors without storage.
    """
    import torch

    kind = type(values).__name__
    if type(values) not in (torch.Tensor, torch.nn.Parameter):
        raise ValueError(f"weights must be plain tensors, got a {kind}")
    if values.layout is not torch.strided or values.is_quantized or values.device.type == "meta":
        raise ValueError(f"weights must be dense tensors with values, got {values.layout}, {values.dtype}")
    if not values.dtype.is_floating_point:
        raise ValueError(f"weights must be real floating-point numbers, got {values.dtype}")
    return np.array(values.detach().cpu().double().numpy(), dtype=np.float64)
