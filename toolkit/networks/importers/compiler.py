"""From tensors to stages: every piecewise-linear function as affine maps and ReLUs.

    max(a, b) = a + ReLU(b − a)             min(a, b) = a − ReLU(a − b)          |x| = 2·ReLU(x) − x
    LeakyReLU_β(x) = βx + (1 − β)·ReLU(x)   Clip(x, a, b) = a + ReLU(x − a) − ReLU(x − b)

The maximum of many values is a tree of pairwise ones, all of one level in one stage. A network whose every operation
reads the one before it becomes the chain of maps that merging.py makes of it, map by map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray, IndexArray
from toolkit.data.arguments import whole_numbers
from toolkit.networks.importers.maps import elementwise
from toolkit.networks.importers.tensors import AffineTensor, Shape, TooLargeError, check_size, identity, rearrange
from toolkit.networks.layers import AffineMap
from toolkit.networks.parts import NetworkParts
from toolkit.networks.stages import Stage
from toolkit.networks.weight_error import sum_error

FLOAT32_MAX = float(np.finfo(np.float32).max)  # a bound of float32 features from here on is none


class StageCompiler:
    """The ReLU stages of a network in the making. input_shape: of one input, the batch axis left out."""

    def __init__(self, input_shape: Sequence[int]) -> None:
        self.input_shape = whole_numbers("input_shape", input_shape)
        if not self.input_shape or any(n < 1 for n in self.input_shape):
            raise ValueError(f"input_shape must be positive sizes without the batch axis, got {self.input_shape}")
        self.input = AffineTensor(self.input_shape, ((0, None),))
        check_size(self.input.size, f"an input of shape {self.input_shape}")
        self._stages: list[Stage] = []
        self._neurons = 0

    def relu(self, x: AffineTensor) -> AffineTensor:
        """max(x, 0), by a stage of its own; what a ReLU stage gives stays as it is."""
        if x.is_place and x.sources[0][0] > 0:
            return x
        self._neurons += x.size
        check_size(self._neurons, "the ReLUs so far")
        self._stages.append(_stage(x, True))
        return AffineTensor(x.shape, ((len(self._stages), None),))

    def applied(self, x: AffineTensor, layer: AffineMap, shape: Sequence[int]) -> AffineTensor:
        """layer∘x. Where composing the maps would take too large a matrix, x = ReLU(x) − ReLU(−x) stands between."""
        try:
            return x.apply(layer, shape)
        except TooLargeError:
            positive, opposite = self.relu(x), self.relu(negative(x))
            return positive.plus(negative(opposite)).apply(layer, shape)

    def maximum(self, x: AffineTensor, y: AffineTensor | FloatArray) -> AffineTensor:
        """max(x, y), entry by entry, broadcast."""
        x, y = broadcast(x, y)
        if not isinstance(y, AffineTensor):
            return _off(self.relu(_off(x, -y)), y)
        return x.plus(self.relu(y.plus(negative(x))))

    def minimum(self, x: AffineTensor, y: AffineTensor | FloatArray) -> AffineTensor:
        """min(x, y), entry by entry, broadcast."""
        x, y = broadcast(x, y)
        if not isinstance(y, AffineTensor):
            return x.plus(negative(self.relu(_off(x, -y))))
        return x.plus(negative(self.relu(x.plus(negative(y)))))

    def clip(self, x: AffineTensor, low: float, high: float) -> AffineTensor:
        """min(max(x, low), high), both pieces in one stage; infinite bounds are none.

        Beside bounds whose rounding would drown x it stands by itself: x + ReLU(low − x) − ReLU(x − high).
        """
        if not low <= high or low == np.inf or high == -np.inf:
            raise ValueError(f"the bounds must be low ≤ high, got {low} and {high}")
        if max(abs(bound) for bound in (low, high, 0.0) if np.isfinite(bound)) >= FLOAT32_MAX:
            below = [] if low == -np.inf else [self.relu(_off(negative(x), np.array(low)))]
            above = [] if high == np.inf else [negative(self.relu(_off(x, np.array(-high))))]
            return reduce(AffineTensor.plus, (x, *below, *above))
        if high == np.inf:
            return x if low == -np.inf else self.maximum(x, np.array(low))
        if low == -np.inf:
            return self.minimum(x, np.array(high))
        both = self.relu(stack([_off(x, np.array(-low)), _off(x, np.array(-high))]))
        above_low, above_high = split(both, 2)
        return _off(above_low.plus(negative(above_high)).reshape(x.shape), np.array(low))

    def leaky_relu(self, x: AffineTensor, slope: FloatArray) -> AffineTensor:
        """βx + (1 − β)·ReLU(x), β broadcast to x."""
        if not slope.any():
            return self.relu(x)
        rest = 1.0 - slope
        positive = scaled(self.relu(x), rest, sum_error(np.ones_like(slope), -slope))
        return scaled(x, slope).plus(positive)

    def absolute(self, x: AffineTensor) -> AffineTensor:
        """|x| = 2·ReLU(x) − x."""
        return scaled(self.relu(x), np.array(2.0)).plus(negative(x))

    def largest(self, x: AffineTensor, groups: IndexArray, shape: Sequence[int]) -> AffineTensor:
        """The largest of the entries that each row of `groups` names (−1 names none), as a tensor of this shape.

        groups: (results, candidates), every row with a candidate. Pairs that several windows share are computed once.
        """
        if np.any(groups.max(axis=1, initial=-1) < 0):
            raise ValueError("a maximum needs at least one value, but a window lies outside the image")
        order = np.argsort(groups < 0, axis=1, kind="stable")
        groups = np.take_along_axis(groups, order, axis=1)
        while groups.shape[1] > 1:
            x, groups = self._level(x, groups)
        found = rearrange([x], groups[:, 0], shape)
        assert isinstance(found, AffineTensor)
        return found

    def _level(self, x: AffineTensor, groups: IndexArray) -> tuple[AffineTensor, IndexArray]:
        """Every second candidate joined with the next: the joined values, and which of them each result reads."""
        if groups.shape[1] % 2:
            groups = np.pad(groups, ((0, 0), (0, 1)), constant_values=-1)
        pairs = groups.reshape(len(groups), -1, 2)
        single = pairs[..., 0] == pairs[..., 1]
        pairs = np.where(single[..., None], np.stack([pairs[..., 0], np.full_like(pairs[..., 0], -1)], axis=-1), pairs)
        different, where = np.unique(pairs.reshape(-1, 2), axis=0, return_inverse=True)
        different, where = _without_nothing(different, where.reshape(pairs.shape[:2]))
        first = _entries_of(x, different[:, 0])
        two = np.flatnonzero(different[:, 1] >= 0)
        if two.size:
            excess = self.relu(_entries_of(x, different[two, 1]).plus(negative(_entries_of(x, different[two, 0]))))
            spread = np.full(len(different), -1)
            spread[two] = np.arange(two.size)
            first = first.plus(_entries_of(excess, spread))
        keep = int(np.max(np.sum(where >= 0, axis=1)))
        return first, where[:, :keep]

    def stages(self, output: AffineTensor) -> tuple[Stage, ...]:
        """All stages, the output last."""
        return (*self._stages, _stage(output, False))

    def parts(self, output: AffineTensor, name: str, metadata: Mapping[str, Any] | None = None) -> NetworkParts:
        """The network that computes the output."""
        return NetworkParts(self.stages(output), name, dict(metadata or {}), self.input_shape)


def bound_of(value: float, none: float, doubles: bool) -> float:
    """A bound of features; `none`, one of ±∞, where the features are no doubles and float32 holds nothing beyond it."""
    return none if not doubles and value * np.sign(none) >= FLOAT32_MAX else value


def _without_nothing(pairs: IndexArray, where: IndexArray) -> tuple[IndexArray, IndexArray]:
    """The pairs without (−1, −1), which no result has, and the places that named it with −1."""
    nothing = np.flatnonzero(pairs[:, 0] < 0)
    if not nothing.size:
        return pairs, where
    assert nothing.tolist() == [0]  # sorted, so it is the first
    return pairs[1:], where - 1


def _entries_of(x: AffineTensor, rows: IndexArray) -> AffineTensor:
    found = rearrange([x], rows, rows.shape)
    if not isinstance(found, AffineTensor):
        raise ValueError("no entry depends on the input")
    return found


def _stage(x: AffineTensor, relu: bool) -> Stage:
    sources: list[tuple[int, AffineMap]] = []
    for place, layer in x.sources:
        sources.append((place, identity(x.size) if layer is None else layer))
    return Stage(tuple(sources), relu)


def broadcast(x: AffineTensor, y: AffineTensor | FloatArray) -> tuple[AffineTensor, AffineTensor | FloatArray]:
    """Both in the shape that numpy gives their sum."""
    try:
        shape = np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        raise ValueError(f"shapes {x.shape} and {y.shape} do not broadcast to one another") from None
    check_size(math.prod(shape), "broadcast features")
    widened = expanded(x, shape)
    return widened, expanded(y, shape) if isinstance(y, AffineTensor) else np.broadcast_to(y, shape)


def expanded(x: AffineTensor, shape: Shape) -> AffineTensor:
    """The tensor repeated to a shape it broadcasts to."""
    if x.shape == shape:
        return x
    rows = np.broadcast_to(np.arange(x.size).reshape(x.shape), shape)
    found = rearrange([x], rows.ravel(), shape)
    assert isinstance(found, AffineTensor)
    return found


def _apply_features(x: AffineTensor, scale: ArrayLike, shift: ArrayLike) -> tuple[AffineMap, Shape]:
    """The elementwise map on x, per channel where that is possible, a batch axis of 1 left out."""
    return elementwise(features(x.shape), *(_without_batch(x.shape, np.asarray(v)) for v in (scale, shift)))


def features(shape: Shape) -> Shape:
    """The shape without a first axis of length 1."""
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape


def _without_batch(shape: Shape, constant: FloatArray) -> FloatArray:
    """The constant as it broadcasts to `features(shape)`."""
    return np.asarray(constant[0]) if features(shape) != shape and constant.ndim == len(shape) else constant


def shifted(x: AffineTensor, shift: FloatArray) -> AffineTensor:
    """x + shift, the constant broadcast to x."""
    return x.apply(_apply_features(x, 1.0, shift)[0], x.shape)


def _off(x: AffineTensor, shift: FloatArray) -> AffineTensor:
    """x + shift; x itself where the shift is 0."""
    return shifted(x, shift) if np.any(shift) else x


def scaled(x: AffineTensor, scale: FloatArray, scale_error: FloatArray | None = None) -> AffineTensor:
    """scale·x, the constant broadcast to x; scale_error: of every scale, at most."""
    layer, _ = _apply_features(x, scale, 0.0)
    if scale_error is not None and np.any(scale_error):
        layer = layer.with_error(np.broadcast_to(scale_error, x.shape).ravel(), 0.0)
    return x.apply(layer, x.shape)


def negative(x: AffineTensor) -> AffineTensor:
    """−x."""
    return scaled(x, np.array(-1.0))


def stack(parts: Sequence[AffineTensor]) -> AffineTensor:
    """All entries of the tensors, one after another."""
    total = sum(part.size for part in parts)
    found = rearrange(parts, np.arange(total), (total,))
    assert isinstance(found, AffineTensor)
    return found


def split(x: AffineTensor, count: int) -> list[AffineTensor]:
    """The entries in `count` equal runs."""
    return [_entries_of(x, rows) for rows in np.arange(x.size).reshape(count, -1)]
