"""Cross-correlation of images with zero padding, in numpy: applied as it stands, or written out as rows of its matrix.

    out[o, i, j] = Σ_{c, p, q} weight[o, c, p, q] · image[c, i·stride − padding + p·dilation, …]

over the taps (p, q) that fall into the image. The matrix of a large one has too many entries to be stored; a sum over
patches, copied tile by tile, needs none of it. What is padded adds products with 0, so that sums have the terms of the
matrix's rows, in another order (rounding.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import AnyArray, FloatArray, IndexArray, SparseMatrix

PATCH_ENTRIES = 1 << 21  # numbers copied into patches at a time
BLOCK_ENTRIES = 1 << 20  # entries of the matrix made at a time
LARGEST_MATRIX = 1 << 28  # entries a matrix may have at all
Pair = tuple[int, int]
Span = tuple[int, int, int, int]  # tap, first and stop of the outputs it serves, the input it reads at the first


@dataclass(frozen=True, eq=False)
class Correlation:
    """x ↦ Wx for one kernel and geometry. Vectors are flat images (channels, height, width).

    weight: (out_channels, in_channels/groups, kernel_h, kernel_w), float64. shape, output_shape: of what goes in and
    comes out. The caller has checked that they fit.
    """

    weight: FloatArray
    shape: tuple[int, int, int]
    output_shape: tuple[int, int, int]
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def with_weight(self, weight: FloatArray) -> Correlation:
        """The same geometry with another kernel."""
        return replace(self, weight=weight)

    @cached_property
    def taps(self) -> int:
        """Multiplications of one pass: the entries of the matrix, those in the padding counted."""
        return int(self.weight.size) * self.output_shape[1] * self.output_shape[2]

    @cached_property
    def spans(self) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
        """For both axes the taps that read the image at all."""
        return tuple(tuple(self._axis_spans(axis)) for axis in (0, 1))  # type: ignore[return-value]

    def _axis_spans(self, axis: int) -> Iterator[Span]:
        stride, size, count = self.stride[axis], self.shape[1 + axis], self.output_shape[1 + axis]
        for tap in range(self.weight.shape[2 + axis]):
            shift = tap * self.dilation[axis] - self.padding[axis]
            first = max(0, -(shift // stride))  # the least i with i·stride + shift ≥ 0
            stop = min(count, (size - 1 - shift) // stride + 1)
            if first < stop:
                yield tap, first, stop, first * stride + shift

    def forward(self, images: FloatArray) -> FloatArray:
        """Wx for every row. Shapes: (k, inputs) → (k, outputs)."""
        kernel, own = self._kernel, self.weight.shape[0] // self.groups
        given = images.reshape(-1, self.groups, self.weight.shape[1], *self.shape[1:])
        found = np.empty((len(given), self.groups, own, *self.output_shape[1:]))
        for image, result in zip(given, found, strict=True):
            for rows, columns in self._tiles():
                patches = self._patches(image, rows, columns)
                size = patches.shape[-2:]
                sums = kernel @ patches.reshape(self.groups, kernel.shape[2], math.prod(size))
                result[:, :, rows.start : rows.stop, columns.start : columns.stop] = sums.reshape(-1, own, *size)
        return found.reshape(len(given), math.prod(self.output_shape))

    def adjoint(self, nu: FloatArray) -> FloatArray:
        """Wᵀν for every row. Shapes: (k, outputs) → (k, inputs)."""
        kernel = np.ascontiguousarray(self._kernel.transpose(0, 2, 1))
        taps = self.weight.shape[1:]
        given = nu.reshape(-1, self.groups, kernel.shape[2], *self.output_shape[1:])
        found = np.zeros((len(given), self.groups, taps[0], *self.shape[1:]))
        for row, result in zip(given, found, strict=True):
            for rows, columns in self._tiles():
                part = row[:, :, rows.start : rows.stop, columns.start : columns.stop]
                size = part.shape[2:]
                sums = kernel @ part.reshape(self.groups, kernel.shape[2], math.prod(size))
                spread = sums.reshape(self.groups, *taps, *size)
                for (p, high, below), (q, wide, right) in self._reads(rows, columns):
                    result[:, :, below, right] += spread[:, :, p, q, high, wide]
        return found.reshape(len(given), math.prod(self.shape))

    @cached_property
    def _kernel(self) -> FloatArray:
        return self.weight.reshape(self.groups, self.weight.shape[0] // self.groups, -1)

    def _tiles(self) -> Iterator[tuple[range, range]]:
        """Blocks of output rows and columns whose patches fit into PATCH_ENTRIES, or one place where none do."""
        _, height, width = self.output_shape
        each = math.prod(self.weight.shape[1:]) * self.groups
        across = min(width, max(1, PATCH_ENTRIES // each))
        down = min(height, max(1, PATCH_ENTRIES // (each * width)))
        for top in range(0, height, down):
            for left in range(0, width, across):
                yield range(top, min(top + down, height)), range(left, min(left + across, width))

    def _reads(self, rows: range, columns: range) -> Iterator[tuple[tuple[int, slice, slice], ...]]:
        """For every tap that serves the tile: (tap, outputs within the tile, inputs) on both axes."""
        for vertical in self._axis_reads(0, rows):
            for horizontal in self._axis_reads(1, columns):
                yield vertical, horizontal

    def _axis_reads(self, axis: int, tile: range) -> list[tuple[int, slice, slice]]:
        stride, found = self.stride[axis], []
        for tap, first, stop, start in self.spans[axis]:
            low, high = max(first, tile.start), min(stop, tile.stop)
            if low < high:
                at = start + stride * (low - first)
                reads = slice(at, at + stride * (high - low - 1) + 1, stride)
                found.append((tap, slice(low - tile.start, high - tile.start), reads))
        return found

    def _patches(self, image: FloatArray, rows: range, columns: range) -> FloatArray:
        """What every place of the tile reads: (groups, channels, kernel_h, kernel_w, rows, columns)."""
        found = np.zeros((self.groups, *self.weight.shape[1:], len(rows), len(columns)))
        for (p, high, below), (q, wide, right) in self._reads(rows, columns):
            found[:, :, p, q, high, wide] = image[:, :, below, right]
        return found


def tap_counts(correlation: Correlation, axis: int) -> tuple[IndexArray, int]:
    """How many taps along an axis fall into the image, per output, and the most that read one and the same input."""
    outputs = np.zeros(correlation.output_shape[1 + axis], dtype=np.int64)
    inputs = np.zeros(correlation.shape[1 + axis], dtype=np.int64)
    stride = correlation.stride[axis]
    for _, first, stop, start in correlation.spans[axis]:
        outputs[first:stop] += 1
        inputs[start : start + stride * (stop - first - 1) + 1 : stride] += 1
    return outputs, int(inputs.max(initial=0))


def row_peaks(correlation: Correlation) -> FloatArray:
    """The largest |entry| of every row of the matrix, 0 for an empty one, shape (outputs,)."""
    channels, height, width = correlation.output_shape
    found = np.zeros((channels, height, width))
    peaks = np.abs(correlation.weight).max(axis=1)
    for p, top, bottom, _ in correlation.spans[0]:
        for q, left, right, _ in correlation.spans[1]:
            part = found[:, top:bottom, left:right]
            np.maximum(part, peaks[:, p, q, None, None], out=part)
    return found.ravel()


def matrix_rows(correlation: Correlation, outputs: IndexArray | None = None) -> SparseMatrix:
    """The named rows of the matrix as CSR (None: all), an entry for every tap in the image, sorted.

    Raises ValueError where they are more than LARGEST_MATRIX.
    """
    size = math.prod(correlation.output_shape)
    chosen = np.arange(size) if outputs is None else np.asarray(outputs, dtype=np.int64)
    _, height, width = correlation.output_shape
    tall, wide = tap_counts(correlation, 0)[0], tap_counts(correlation, 1)[0]
    each = correlation.weight.shape[1] * tall[chosen // width % height] * wide[chosen % width]
    starts = np.concatenate([[0], np.cumsum(each)])
    total = int(starts[-1])
    if total > LARGEST_MATRIX:
        raise ValueError(f"the matrix of a convolution may have at most {LARGEST_MATRIX} entries, got {total}")
    kind = np.int32 if max(total, size, math.prod(correlation.shape)) < 2**31 else np.int64
    data, indices = np.empty(total), np.empty(total, dtype=kind)
    step = max(1, BLOCK_ENTRIES // math.prod(correlation.weight.shape[1:]))
    for first in range(0, chosen.size, step):
        own = slice(int(starts[first]), int(starts[min(first + step, chosen.size)]))
        data[own], indices[own] = _entries(correlation, chosen[first : first + step])
    shape = (chosen.size, math.prod(correlation.shape))
    return sp.csr_array((data, indices, starts.astype(kind)), shape=shape)


def _entries(correlation: Correlation, chosen: IndexArray) -> tuple[FloatArray, AnyArray]:
    """Values and columns of the rows, one after the other."""
    weight, (_, height, width) = correlation.weight, correlation.output_shape
    taps = [np.arange(count) for count in weight.shape[1:]]
    channel = chosen // (height * width)
    places = chosen // width % height, chosen % width
    starts = [at * correlation.stride[axis] - correlation.padding[axis] for axis, at in enumerate(places)]
    reads = [start[:, None] + taps[1 + axis] * correlation.dilation[axis] for axis, start in enumerate(starts)]
    inside = [(read >= 0) & (read < correlation.shape[1 + axis]) for axis, read in enumerate(reads)]
    first = channel // (weight.shape[0] // correlation.groups) * weight.shape[1]
    column = (first[:, None] + taps[0])[:, :, None, None] * correlation.shape[1] + reads[0][:, None, :, None]
    column = column * correlation.shape[2] + reads[1][:, None, None, :]
    keep = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    if keep.all():
        return weight[channel].ravel(), column.ravel()
    keep = np.broadcast_to(keep, column.shape)
    return weight[channel][keep], column[keep]
