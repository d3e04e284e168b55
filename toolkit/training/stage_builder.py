"""From the layers of a training file to stages with fresh weights: dense, convolution, max pooling, residual block.

What a layer reads is Σ_j S_j y⁽ʲ⁾: one place where a ReLU has just been, several behind max pooling, which is a tree of

    max(a, b) = a + ReLU(b − a)

over all windows at once, a stage per level. A residual block is ReLU(W_n y⁽ⁿ⁻¹⁾ + b_n + y), its skip y or Py.
Parameters start as torch.nn starts them, uniform in ±1/√fan_in, drawn from the seed in the order of the layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from toolkit.arrays import IndexArray, SparseMatrix
from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import AffineMap, Dense
from toolkit.networks.stages import Stage
from toolkit.training.fixed_maps import Composed, FixedMap, TrainedMap, unbiased
from toolkit.training.spec import LayerSpec

Sources = tuple[tuple[int, AffineMap], ...]
LARGEST_NETWORK = 1 << 28  # weights: 1 GiB in single precision, and three times that for Adam
Selections = dict[int, SparseMatrix]  # S_j by place


@dataclass(frozen=True)
class Signal:
    """An image or a vector that a layer reads: Σ_j S_j y⁽ʲ⁾ over the terms (j, S_j); S_j None: all of place j."""

    shape: tuple[int, ...]
    terms: tuple[tuple[int, SparseMatrix | None], ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def image(self, entry: str) -> tuple[int, int, int]:
        """(channels, height, width). Raises ValueError where a dense layer has made a vector of it."""
        if len(self.shape) != 3:
            raise ValueError(f"{entry} cannot follow a dense layer")
        return self.shape[0], self.shape[1], self.shape[2]

    @property
    def selections(self) -> Selections:
        """The terms with identities written out."""
        return {place: sp.eye_array(self.size, format="csr") if part is None else part for place, part in self.terms}


class StageBuilder:
    """The stages so far, and the draws of their weights."""

    def __init__(self, inputs: int, seed: int, dtype: torch.dtype, device: str | torch.device) -> None:
        self.stages: list[Stage] = []
        self._sizes = [inputs]
        self._weights = 0
        self._generator = torch.Generator().manual_seed(seed)
        self._dtype, self._device = dtype, device

    def hidden(self, value: Signal, entry: LayerSpec) -> Signal:
        """What a hidden layer gives. Raises ValueError for a layer that does not fit what it reads."""
        if entry.max_pool is not None:
            return self._pooled(value, entry.max_pool)
        if entry.residual is not None:
            return self._residual(value, entry.residual, entry.skip == "projection")
        return self._relu(*self._trained(value, entry))

    def finished(self, value: Signal, classes: int) -> tuple[Stage, ...]:
        """All stages, a dense layer to the classes last."""
        sources, _ = self._trained(value, LayerSpec(dense=classes))
        return (*self.stages, Stage(sources, False))

    def _relu(self, sources: Sources, shape: tuple[int, ...]) -> Signal:
        self.stages.append(Stage(sources))
        self._sizes.append(math.prod(shape))
        return Signal(shape, ((len(self.stages), None),))

    def _trained(self, value: Signal, entry: LayerSpec) -> tuple[Sources, tuple[int, ...]]:
        """A dense layer's or convolution's maps from every place that it reads, and the shape of what it gives."""
        if entry.conv is not None:
            image = value.image(f"a convolution (conv = {entry.conv})")
            weight, bias = self._fresh((entry.conv, image[0], entry.kernel, entry.kernel))
            conv = Conv2d(weight, bias, image, entry.stride, entry.padding)
            return self._read(value, conv), conv.output_shape
        outputs = int(entry.dense or 0)
        return self._read(value, Dense(*self._fresh((outputs, value.size)))), (outputs,)

    def _read(self, value: Signal, layer: TrainedMap) -> Sources:
        """The layer on every term of what it reads; its bias counts once."""
        maps = [layer, *[unbiased(layer)] * (len(value.terms) - 1)]
        return tuple(
            (place, own if part is None else Composed(self._fixed(part), own))
            for (place, part), own in zip(value.terms, maps, strict=True)
        )

    def _fresh(self, shape: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """A weight and a bias as leaves of the gradient graph."""
        self._weights += math.prod(shape)
        if self._weights > LARGEST_NETWORK:
            raise ValueError(f"a network has at most {LARGEST_NETWORK:,} weights, {self._weights:,} with {list(shape)}")
        limit = 1.0 / math.sqrt(math.prod(shape[1:]))
        draws = (torch.rand(size, generator=self._generator, dtype=torch.float64) for size in (shape, shape[:1]))
        weight, bias = (((2 * draw - 1) * limit).to(self._device, self._dtype).requires_grad_() for draw in draws)
        return weight, bias

    def _fixed(self, matrix: SparseMatrix) -> FixedMap:
        return FixedMap(matrix, torch.zeros(matrix.shape[0], dtype=self._dtype, device=self._device))

    def _residual(self, value: Signal, block: Sequence[LayerSpec], project: bool) -> Signal:
        """ReLU of the block's last layer plus what the block reads."""
        inner = value
        for entry in block[:-1]:
            inner = self.hidden(inner, entry)
        sources, shape = self._trained(inner, block[-1])
        return self._relu((*sources, *self._skip(value, shape, project)), shape)

    def _skip(self, value: Signal, shape: tuple[int, ...], project: bool) -> Sources:
        """The block's input in the shape of its output: itself, or by a trained map without bias."""
        same = value.shape == shape or (len(shape) == 1 and value.size == shape[0])
        if same is project:
            told = "has no use there" if project else "puts a trained map there"
            raise ValueError(
                f"a residual block adds what it reads, of shape {value.shape}, to its last layer, of shape {shape}; "
                f'skip = "projection" {told}'
            )
        if not project:
            return tuple((place, self._fixed(part)) for place, part in value.selections.items())
        if len(shape) == 1:
            return self._read(value, Dense(self._fresh((shape[0], value.size))[0]))
        channels, height, width = value.image("a block's convolution")
        stride = -(-height // shape[1])
        weight = self._fresh((shape[0], channels, 1, 1))[0]
        conv = Conv2d(weight, None, (channels, height, width), stride)
        if conv.output_shape != shape:
            raise ValueError(f"no 1×1 convolution takes {value.shape} to {shape}: its stride {stride} gives "
                             f"{conv.output_shape}")  # fmt: skip
        return self._read(value, conv)

    def _pooled(self, value: Signal, window: int) -> Signal:
        """The largest value of every window × window square, none of which overlap."""
        channels, height, width = value.image(f"pooling (max_pool = {window})")
        if height % window or width % window:
            raise ValueError(f"max_pool = {window} must divide the image's height and width, got {height}×{width}")
        shape = (channels, height // window, width // window)
        grid = np.arange(value.size).reshape(channels, shape[1], window, shape[2], window)
        entries: IndexArray = grid.transpose(2, 4, 0, 1, 3).reshape(window * window, -1)
        waiting = [{place: part[chosen] for place, part in value.selections.items()} for chosen in entries]
        while len(waiting) > 1:
            waiting = self._larger_ones(waiting, math.prod(shape))
        return Signal(shape, tuple(waiting[0].items()))

    def _larger_ones(self, values: Sequence[Selections], count: int) -> list[Selections]:
        """max(a, b) of the first and second value, of the third and fourth …, by one stage; an odd last one stays."""
        pairs = list(zip(values[::2], values[1::2], strict=False))
        places = sorted({place for pair in pairs for one in pair for place in one})
        nothing = {place: sp.csr_array((count, self._sizes[place])) for place in places}
        excess = {j: sp.vstack([b.get(j, nothing[j]) - a.get(j, nothing[j]) for a, b in pairs]) for j in places}
        self._relu(tuple((place, self._fixed(part)) for place, part in excess.items()), (len(pairs) * count,))
        every: SparseMatrix = sp.eye_array(len(pairs) * count, format="csr")
        larger = [{**first, len(self.stages): every[i * count : (i + 1) * count]} for i, (first, _) in enumerate(pairs)]
        return [*larger, *values[2 * len(pairs) :]]
