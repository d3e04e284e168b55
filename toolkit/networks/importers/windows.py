"""Where the windows of convolutions and pooling lie: padding, the size of what they give, the places each one reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.arrays import FloatArray, IndexArray
from toolkit.networks.importers import maps
from toolkit.networks.importers.compiler import StageCompiler
from toolkit.networks.importers.tensors import AffineTensor, check_entries, check_size


@dataclass(frozen=True)
class Windows:
    """Windows over the axes behind the channels: kernel sizes, steps, and padding on both sides, one number per axis.

    ceil: whether a last window that reaches over the padded image counts as well.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil: bool = False

    def __post_init__(self) -> None:
        lengths = {len(part) for part in (self.kernel, self.stride, self.before, self.after, self.dilation)}
        if len(lengths) != 1:
            raise ValueError(f"kernel, strides, pads and dilations must fit one another, got {self}")
        if min((*self.kernel, *self.stride, *self.dilation), default=1) < 1 or min((*self.before, *self.after)) < 0:
            raise ValueError(f"kernel, strides and dilations must be ≥ 1 and pads ≥ 0, got {self}")

    def counts(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Number of windows along every axis of an image of these sizes."""
        if len(sizes) != len(self.kernel):
            raise ValueError(f"windows of {len(self.kernel)} axes do not fit an image of sizes {tuple(sizes)}")
        found = []
        for k, size in enumerate(sizes):
            free = size + self.before[k] + self.after[k] - self.dilation[k] * (self.kernel[k] - 1) - 1
            count = (-(-free // self.stride[k]) if self.ceil else free // self.stride[k]) + 1
            if self.ceil and (count - 1) * self.stride[k] >= size + self.before[k]:
                count -= 1  # a window that starts behind the image does not count
            if free < 0 or count < 1:
                raise ValueError(f"a window of {self.kernel} is larger than the padded image of sizes {tuple(sizes)}")
            found.append(count)
        return tuple(found)

    def places(self, sizes: Sequence[int]) -> list[IndexArray]:
        """Per axis, the positions that every window reads, shape (windows, kernel); < 0 or ≥ size in the padding."""
        found = []
        for k, count in enumerate(self.counts(sizes)):
            check_size(count * self.kernel[k], "the places that windows read")
            starts = np.arange(count)[:, None] * self.stride[k] - self.before[k]
            found.append(starts + np.arange(self.kernel[k])[None] * self.dilation[k])
        return found

    def entries(self, shape: Sequence[int]) -> tuple[IndexArray, tuple[int, ...]]:
        """The entries of features (channels, …) that every window reads, −1 in the padding, shape (results, kernel
        size), and the results' shape."""
        channels, sizes = shape[0], tuple(shape[1:])
        counts = self.counts(sizes)
        check_entries(channels * math.prod(counts) * math.prod(self.kernel), "pooling")
        axes = len(sizes)
        total = np.arange(channels).reshape(-1, *(1,) * 2 * axes)
        inside = np.ones_like(total, dtype=np.bool_)
        for k, (places, size) in enumerate(zip(self.places(sizes), sizes, strict=True)):
            spread = [1] * (1 + 2 * axes)
            spread[1 + k], spread[1 + axes + k] = places.shape
            total = total * size + places.reshape(spread)
            inside = inside & ((places >= 0) & (places < size)).reshape(spread)
        results = (channels, *counts)
        return np.where(inside, total, -1).reshape(math.prod(results), -1), results

    def divisors(self, sizes: Sequence[int], padding: bool) -> FloatArray:
        """How many places every window reads, those in the padding too where `padding`; shape (*counts)."""
        total = np.ones(())
        for k, (places, size) in enumerate(zip(self.places(sizes), sizes, strict=True)):
            low, high = (-self.before[k], size + self.after[k]) if padding else (0, size)
            total = np.multiply.outer(total, np.sum((places >= low) & (places < high), axis=1).astype(np.float64))
        return np.asarray(total)

    def reaching(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """The padding behind the image that all windows together need."""
        ends = [int(places.max()) + 1 for places in self.places(sizes)]
        return tuple(max(a, end - size) for a, end, size in zip(self.after, ends, sizes, strict=True))


def same_padding(sizes: Sequence[int], windows: Windows, upper: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and after that gives ⌈size/stride⌉ windows; the odd one behind the image where `upper`."""
    spans = [d * (k - 1) + 1 for k, d in zip(windows.kernel, windows.dilation, strict=True)]
    axes = zip(sizes, windows.stride, spans, strict=True)
    total = [max((math.ceil(n / s) - 1) * s + span - n, 0) for n, s, span in axes]
    less, more = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    return (less, more) if upper else (more, less)


def average_pool(
    compiler: StageCompiler, x: AffineTensor, windows: Windows, padding: bool, divisor: int | None = None
) -> AffineTensor:
    """The mean of each window of features (channels, …), of the padding's zeros too where `padding`.

    The sum is exact; the division's rounding is accounted for.
    """
    channels, sizes = x.shape[0], x.shape[1:]
    if len(sizes) not in (1, 2):
        raise ValueError(f"average pooling takes (channels, height, width), but the features have shape {x.shape}")
    maps.check_kernel((channels, 1, *windows.kernel), math.prod(windows.counts(sizes)), "average pooling")
    after = windows.reaching(sizes) if windows.ceil else windows.after
    kernel = np.ones((channels, 1, *windows.kernel))
    layer, shape = maps.convolution(
        x.shape, kernel, None, windows.stride, windows.before, after, windows.dilation, channels
    )
    if shape[1:] != windows.counts(sizes):
        raise ValueError(f"windows over features of {x.shape} give {windows.counts(sizes)} places, not {shape[1:]}")
    counts = windows.divisors(sizes, padding) if divisor is None else np.array(float(divisor))
    if np.any(counts == 0):
        raise ValueError("a window lies outside the image")
    total = compiler.applied(x, layer, shape)
    one = counts.ravel()[0] if np.all(counts == counts.ravel()[0]) else counts[None]
    return total.apply(*maps.normalisation(shape, 0.0, one))


def max_pool(compiler: StageCompiler, x: AffineTensor, windows: Windows) -> AffineTensor:
    """The largest of each window of features (channels, …); the padding never counts."""
    if len(x.shape) != len(windows.kernel) + 1:
        raise ValueError(f"a window of {windows.kernel} does not fit features of shape {x.shape}")
    groups, shape = windows.entries(x.shape)
    return compiler.largest(x, groups, shape)
