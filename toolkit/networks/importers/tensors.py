"""Tensors whose entries are affine in the outputs of a network's places, and what can be done to them exactly.

A place is the input or a ReLU stage (stages.py). An `AffineTensor` of n entries, in C order, is b + Σ W_j y⁽ʲ⁾ with one
map per place it reads. Moving entries about (reshape, transpose, slice, gather, concatenate, pad, expand) selects rows
and rounds nothing; every composition and sum charges the maps with the error of its rounding (weight_error.py).

Checked: no product of matrices larger than LARGEST entries is formed. This module knows neither ONNX nor torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import BoolArray, FloatArray, IndexArray, Matrix, SparseMatrix
from toolkit.networks.convolutions import Conv2d, ConvolutionPart
from toolkit.networks.float_error import SAFETY, norm
from toolkit.networks.layers import AffineMap, ChannelAffine, Dense, Sparse
from toolkit.networks.merging import conv_like, merge
from toolkit.networks.weight_error import column_norms, sum_error
from toolkit.networks.weights import DENSE_ABOVE, frozen_matrix

LARGEST = 2**25  # entries of a matrix that an import stores: 400 MB
Shape = tuple[int, ...]


class TooLargeError(ValueError):
    """A matrix would have more than LARGEST entries."""


@dataclass(frozen=True, eq=False)
class AffineTensor:
    """b + Σ W_j y⁽ʲ⁾ over the sources (j, W_j), places ascending, as a tensor of this shape.

    A map of None is the identity; it has no bias. The first map's bias is b, the others' are 0.
    """

    shape: Shape
    sources: tuple[tuple[int, AffineMap | None], ...]

    @property
    def size(self) -> int:
        """Number of entries n."""
        return math.prod(self.shape)

    @property
    def bias(self) -> FloatArray:
        """b, shape (n,)."""
        layer = self.sources[0][1]
        return np.zeros(self.size) if layer is None else np.asarray(layer.bias_vector)

    @property
    def is_place(self) -> bool:
        """Whether these are the outputs of one place, as they are."""
        return len(self.sources) == 1 and self.sources[0][1] is None

    def reshape(self, shape: Sequence[int]) -> AffineTensor:
        """The same entries in another shape. Raises ValueError for a shape of another size."""
        if math.prod(shape) != self.size:
            raise ValueError(f"features of shape {self.shape} cannot take shape {tuple(shape)}")
        return AffineTensor(tuple(int(n) for n in shape), self.sources)

    def apply(self, layer: AffineMap, shape: Sequence[int]) -> AffineTensor:
        """layer∘self, of the given shape."""
        (place, first), *others = self.sources
        found = [(place, _composed(first, layer))]
        if others:
            linear = with_bias(layer, np.zeros(layer.output_size)).with_error(layer.column_error, 0.0)
            found += [(j, _composed(other, linear)) for j, other in others]
        return AffineTensor(tuple(int(n) for n in shape), tuple(found))

    def plus(self, other: AffineTensor) -> AffineTensor:
        """self + other, of equal shapes."""
        if self.shape != other.shape:
            raise ValueError(f"features of shapes {self.shape} and {other.shape} cannot be added")
        mine, theirs = dict(self.sources), dict(other.sources)
        places = sorted(mine.keys() | theirs.keys())
        rounding = norm(sum_error(self.bias, other.bias))
        found: dict[int, AffineMap | None] = {}
        for place in places:
            if place in mine and place in theirs:
                found[place] = _sum(mine[place], theirs[place], self.size)
            else:
                found[place] = mine[place] if place in mine else theirs[place]
        return _with_total_bias(self.shape, found, self.bias + other.bias, rounding)


def _with_total_bias(
    shape: Shape, maps: Mapping[int, AffineMap | None], bias: FloatArray, bias_error: float
) -> AffineTensor:
    """The tensor of these maps with b in place of all their biases; bias_error: of b, beside the maps' own."""
    sources: list[tuple[int, AffineMap | None]] = []
    for k, place in enumerate(sorted(maps)):
        layer, own, extra = maps[place], bias if k == 0 else np.zeros_like(bias), bias_error if k == 0 else 0.0
        if layer is None and (own.any() or extra):
            layer = identity(bias.size)
        if layer is not None and (extra or not np.array_equal(layer.bias_vector, own)):
            layer = with_bias(layer, own).with_error(layer.column_error, SAFETY * (layer.bias_error + extra))
        sources.append((place, layer))
    return AffineTensor(shape, tuple(sources))


def identity(size: int) -> Sparse:
    """The map that changes nothing."""
    return Sparse(sp.eye_array(size, format="csr"), np.zeros(size))


def with_bias(layer: AffineMap, bias: FloatArray) -> AffineMap:
    """The map with another bias, shape (output_size,), and its own errors."""
    if isinstance(layer, Dense):
        twin: AffineMap = Dense.of_parts(layer.weight, bias)
    elif isinstance(layer, Conv2d):
        twin = conv_like(layer, layer.weight, bias)
    elif isinstance(layer, ChannelAffine) and not bias.any():
        twin = ChannelAffine(layer.scale, np.zeros_like(layer.scale), layer.shape)
    else:
        twin = Sparse.of_parts(layer.to_sparse(), bias)
    return twin.with_error(layer.column_error, layer.bias_error)


def entries(layer: AffineMap | None) -> int:
    """The most entries that the map's sparse matrix may have, found without building it."""
    if isinstance(layer, Conv2d):
        return int(np.prod(layer.weight.shape)) * layer.output_shape[1] * layer.output_shape[2]
    if isinstance(layer, Sparse):
        return int(layer.matrix.nnz)
    if layer is None or isinstance(layer, ChannelAffine):
        return 0 if layer is None else layer.output_size
    return layer.input_size * layer.output_size


def check_entries(count: int, what: str) -> None:
    """Raise TooLargeError for a matrix that would be too large to be stored."""
    if count > LARGEST:
        raise TooLargeError(f"{what} would need a matrix of up to {count:,} entries; at most {LARGEST:,} are stored")


def check_size(count: int, what: str) -> None:
    """Raise ValueError for more numbers than are stored."""
    if count > LARGEST:
        raise ValueError(f"{what} would be {count:,} numbers; at most {LARGEST:,} are stored")


def _composed(first: AffineMap | None, second: AffineMap) -> AffineMap:
    """second∘first. Raises TooLargeError where the product would be."""
    if first is None or isinstance(first, ChannelAffine) or isinstance(second, ChannelAffine):
        return second if first is None else merge(first, second)
    for layer in (first, second):
        check_entries(entries(layer), "composing two maps")
    if isinstance(first, Dense) and isinstance(second, Dense):
        check_entries(first.input_size * second.output_size, "composing two maps")
        return merge(first, second)
    per_row = np.diff(first.to_sparse().indptr).astype(np.int64)
    products = int(per_row[second.to_sparse().indices].sum())
    check_entries(min(products, first.input_size * second.output_size), "composing two maps")
    check_entries(products // 64, "composing two maps")  # work, not memory
    return merge(first, second)


def _sum(left: AffineMap | None, right: AffineMap | None, size: int) -> AffineMap:
    """The sum of two maps' matrices, with the error of its rounding; the bias is left to the caller."""
    ours, theirs = (identity(size) if layer is None else layer for layer in (left, right))
    zeros = np.zeros(size)
    if isinstance(ours, Dense) and isinstance(theirs, Dense):
        total: Matrix = ours.weight + theirs.weight
        rounding: Matrix = sum_error(ours.weight, theirs.weight)
        layer: AffineMap = Dense.of_parts(np.asarray(total), zeros)
    else:
        check_entries(entries(ours) + entries(theirs), "adding two maps")
        one, other = ours.to_sparse(), theirs.to_sparse()
        total = sp.csr_array(one + other)
        rounding = _sparse_sum_error(one, other, total)
        dense = total.nnz > DENSE_ABOVE * math.prod(total.shape)
        layer = Dense(total.toarray(), zeros) if dense else Sparse.of_parts(frozen_matrix(total), zeros)
    columns = column_norms(rounding) if abs(rounding).sum() > 0 else np.zeros(ours.input_size)
    for part in (ours, theirs):
        if part.column_error is not None:
            columns = SAFETY * (columns + part.column_error)
    return layer.with_error(columns, SAFETY * (ours.bias_error + theirs.bias_error))


def _sparse_sum_error(one: SparseMatrix, other: SparseMatrix, total: SparseMatrix) -> SparseMatrix:
    """|fl(a + b) − (a + b)| where both matrices have an entry: with t = a + b, the part of b that t − a leaves out."""
    virtual = total - one
    return sp.csr_array(abs((one - (total - virtual)) + (other - virtual)))


def rearrange(
    parts: Sequence[AffineTensor | FloatArray], rows: IndexArray, shape: Sequence[int]
) -> AffineTensor | FloatArray:
    """The tensor with entry rows[i] of all parts' entries, one part after another in C order, as its i-th; −1 gives 0.

    Constant arrays are parts as well; an array is the result where no entry depends on a place. Nothing is rounded.
    """
    starts = np.cumsum([0, *(part.size for part in parts)])
    if rows.size and not (rows.min() >= -1 and rows.max() < starts[-1]):
        raise ValueError(f"rows must be −1 … {starts[-1] - 1}, got {rows.min()} … {rows.max()}")
    own = [(part, start, _within(rows, start, start + part.size)) for part, start in zip(parts, starts, strict=False)]
    constant = np.zeros(rows.size)
    chosen: list[tuple[AffineTensor, IndexArray]] = []
    for part, start, mask in own:
        if not mask.any():
            continue
        if isinstance(part, AffineTensor):
            chosen.append((part, np.where(mask, rows - start, -1)))
        else:
            constant[mask] = part.ravel()[rows[mask] - start]
    if not chosen:
        return constant.reshape(shape)
    picked = [_picked(part, index, tuple(shape)) for part, index in chosen]
    maps: dict[int, AffineMap | None] = {}
    for tensor in picked:
        for place, layer in tensor.sources:
            maps[place] = _sum(maps[place], layer, rows.size) if place in maps else layer
    if len(picked) == 1 and not constant.any():
        return picked[0]
    for tensor in picked:
        constant = constant + tensor.bias  # rows of different parts: one of the two is 0
    return _with_total_bias(tuple(shape), maps, constant, 0.0)


def _within(rows: IndexArray, start: int, end: int) -> BoolArray:
    return np.asarray((rows >= start) & (rows < end))


def _picked(part: AffineTensor, index: IndexArray, shape: Shape) -> AffineTensor:
    """Rows of one tensor, zeros where the index is −1."""
    if index.size == part.size and np.array_equal(index, np.arange(part.size)):
        return part.reshape(shape)
    repeats = int(np.bincount(index[index >= 0], minlength=1).max(initial=1))
    sources = []
    for place, layer in part.sources:
        if layer is None:
            present = np.flatnonzero(index >= 0)
            picks = (np.ones(present.size), (present, index[present]))
            found: AffineMap = Sparse(sp.csr_array(picks, shape=(index.size, part.size)), np.zeros(index.size))
        else:
            found = _rows(layer, index)
            if repeats > 1 and (layer.column_error is not None or layer.bias_error):
                growth = SAFETY * math.sqrt(repeats)
                columns = None if layer.column_error is None else growth * layer.column_error
                found = found.with_error(columns, growth * layer.bias_error)
        sources.append((place, found))
    return AffineTensor(shape, tuple(sources))


def _rows(layer: AffineMap, index: IndexArray) -> AffineMap:
    """The map to the named outputs, 0 where the index is −1."""
    if index.size == 0 or index.min() >= 0:
        check_entries(
            entries(layer) if not isinstance(layer, Dense) else index.size * layer.input_size, "rows of a map"
        )
        found = layer.restrict(index, None)
        if isinstance(found, ConvolutionPart):  # a network's own maps are stored
            stored = Sparse.of_parts(found.to_sparse(), np.asarray(found.bias_vector))
            return stored.with_error(found.column_error, found.bias_error)
        return found
    check_entries(entries(layer), "rows of a map")
    present = np.flatnonzero(index >= 0)
    picks = sp.csr_array((np.ones(present.size), (present, index[present])), shape=(index.size, layer.output_size))
    bias = np.zeros(index.size)
    bias[present] = np.asarray(layer.bias_vector)[index[present]]
    product = frozen_matrix(sp.csr_array(picks @ layer.to_sparse()))
    return Sparse.of_parts(product, bias).with_error(layer.column_error, layer.bias_error)
