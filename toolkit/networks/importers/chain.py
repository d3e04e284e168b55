"""Operations in order, with the shape of the features between them: what state dicts and torch.nn.Sequential are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray
from toolkit.networks.importers import maps
from toolkit.networks.importers.compiler import StageCompiler
from toolkit.networks.importers.evaluation import stage_outputs
from toolkit.networks.importers.tensors import Shape
from toolkit.networks.layers import AffineMap
from toolkit.networks.parts import NetworkParts
from toolkit.networks.stages import Stage

if TYPE_CHECKING:
    from torch import Tensor


class OperationChain:
    """Affine maps and ReLUs in order; `shape` is the shape of the current features, batch axis left out.

    Methods raise ValueError when an operation does not fit the current shape.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self._compiler = StageCompiler(shape)
        self._features = self._compiler.input
        self._affine = 0  # maps so far
        self.input_shape = self._compiler.input_shape

    @property
    def shape(self) -> Shape:
        """Shape of the current features, without a batch axis."""
        return self._features.shape

    @property
    def size(self) -> int:
        """Number of current features."""
        return self._features.size

    def parts(self, name: str, metadata: Mapping[str, object] | None = None) -> NetworkParts:
        """The network so far, neighbouring affine maps merged."""
        if not self._affine:
            raise ValueError("a network needs at least one affine map, got none")
        return self._compiler.parts(self._features, name, metadata)

    def stages(self) -> tuple[Stage, ...]:
        """The network so far as stages."""
        return self._compiler.stages(self._features)

    def outputs(self, points: FloatArray) -> FloatArray:
        """What the network so far gives. Shapes: (k, *input_shape) → (k, outputs)."""
        return stage_outputs(self.stages(), np.reshape(points, (len(points), -1)))

    def append(self, layer: AffineMap, shape: Sequence[int]) -> None:
        """An affine map to features of this shape."""
        self._features = self._features.apply(layer, shape)
        self._affine += 1

    def relu(self) -> None:
        """y = max(x, 0)."""
        self._features = self._compiler.relu(self._features)

    def dense(self, weight: FloatArray, bias: FloatArray | None) -> None:
        """weight·x + bias along the last axis, which must be the only one longer than 1."""
        self.append(*maps.dense(self.shape, weight, bias))

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
        self.append(*maps.convolution(self.shape, weight, bias, stride, before, after, dilation, groups))

    def average_pool(
        self, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], divisor: int | None
    ) -> None:
        """The sum over each window (zeros outside the image) / divisor (None: the window's size), per channel.

        The sum is exact; the division goes through `normalize`, whose rounding is accounted for.
        """
        channels = maps.image(self.shape, "average pooling")[0]
        self.conv(np.ones((channels, 1, *kernel)), None, stride, padding, padding, (1,) * len(kernel), channels)
        self.normalize(0.0, math.prod(kernel) if divisor is None else divisor)

    def batch_norm(self, gamma: ArrayLike, beta: ArrayLike, mean: ArrayLike, variance: ArrayLike, eps: float) -> None:
        """(x − mean)/√(variance + eps)·gamma + beta per entry of the first axis."""
        self.append(*maps.batch_norm(self.shape, gamma, beta, mean, variance, eps))

    def elementwise(self, scale: ArrayLike, shift: ArrayLike) -> None:
        """scale·x + shift, both broadcast to the current shape."""
        self.append(*maps.elementwise(self.shape, scale, shift))

    def normalize(self, mean: ArrayLike, std: ArrayLike) -> None:
        """(x − mean)/std, both broadcast to the current shape."""
        self.append(*maps.normalisation(self.shape, mean, std))

    def reshape(self, shape: Sequence[int]) -> None:
        """Another shape for the same features in C order: nothing to compute."""
        self._features = self._features.reshape(shape)


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
