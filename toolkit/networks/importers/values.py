"""Arithmetic of values that are tensors or constants: what ONNX's and torch's operators have in common.

A value is an `AffineTensor` where it depends on the network's input, else a numpy array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from toolkit.arrays import AnyArray, FloatArray, IndexArray
from toolkit.networks.importers import maps
from toolkit.networks.importers.compiler import (
    StageCompiler,
    broadcast,
    features,
    negative,
    scaled,
    shifted,
)
from toolkit.networks.importers.tensors import AffineTensor, check_size, rearrange

Value = AffineTensor | AnyArray
PRODUCT = "the product of two values that both depend on the input is not piecewise linear"


def floating(value: object, what: str) -> FloatArray:
    """A constant of a floating-point type, as float64. Raises ValueError for features and other types."""
    if isinstance(value, AffineTensor):
        raise ValueError(f"{what} must be a constant, not computed from the network's input")
    given: AnyArray = np.asarray(value)
    if given.dtype.kind != "f" and given.dtype.name != "bfloat16":
        raise ValueError(f"{what} must be of a floating-point type, got {given.dtype}")
    return given.astype(np.float64)


def moved(
    values: Sequence[Value | None], data: Sequence[int], run: Callable[[list[AnyArray | None]], Sequence[AnyArray]]
) -> list[Value]:
    """What `run` gives, which moves entries of values[k], k in `data`, about and computes nothing.

    `run` is given the numbers of the entries in their place, counted through all data, and all other values as they
    are; where a number comes out, that entry stands.
    """
    parts: list[AffineTensor | FloatArray] = []
    given: list[AnyArray | None] = []
    start = 0
    for k, value in enumerate(values):
        if k not in data or value is None:
            if isinstance(value, AffineTensor):
                raise ValueError(f"input {k} must be a constant, not computed from the network's input")
            given.append(value)
            continue
        part = value if isinstance(value, AffineTensor) else floating(value, f"input {k}")
        parts.append(part)
        given.append(np.arange(start, start + part.size).reshape(part.shape))
        start += part.size
    check_size(start, "features moved about")
    return [rearrange(parts, _whole(rows).ravel(), rows.shape) for rows in run(given)]


def _whole(rows: AnyArray) -> IndexArray:
    """The numbers as places. Raises ValueError for others, which no moving of entries gives."""
    found = np.asarray(rows, dtype=np.int64)
    if not np.array_equal(found, rows):
        raise ValueError("it does not move entries alone: it gives other numbers than it is given")
    return found


def swapped(x: AffineTensor) -> AffineTensor:
    """The last two axes exchanged."""
    rows = np.swapaxes(np.arange(x.size).reshape(x.shape), -1, -2)
    found = rearrange([x], rows.ravel(), rows.shape)
    assert isinstance(found, AffineTensor)
    return found


def matrix_product(compiler: StageCompiler, left: Value, right: Value) -> AffineTensor:
    """left @ right, one of them a constant."""
    if isinstance(left, AffineTensor):
        if isinstance(right, AffineTensor):
            raise ValueError(PRODUCT)
        return compiler.applied(left, *maps.row_products(left.shape, floating(right, "the right factor")))
    assert isinstance(right, AffineTensor)
    factor = floating(left, "the left factor")
    turned_factor = np.swapaxes(factor, -1, -2) if factor.ndim > 1 else factor
    if len(right.shape) == 1:
        return compiler.applied(right, *maps.row_products(right.shape, turned_factor))
    turned = swapped(right)
    product = compiler.applied(turned, *maps.row_products(turned.shape, turned_factor))
    return product if factor.ndim == 1 else swapped(product)


def _fitting(
    function: Callable[[AffineTensor, FloatArray], AffineTensor], x: AffineTensor, constant: FloatArray
) -> AffineTensor:
    """The function of x and a constant, x widened first where the constant is larger."""
    widened, _ = broadcast(x, constant)
    return function(widened, constant)


def add(left: Value, right: Value) -> AffineTensor:
    """left + right, broadcast, one of them features."""
    if not isinstance(left, AffineTensor):
        left, right = right, left
    assert isinstance(left, AffineTensor)
    if not isinstance(right, AffineTensor):
        return _fitting(shifted, left, floating(right, "one operand"))
    first, second = broadcast(left, right)
    assert isinstance(second, AffineTensor)
    return first.plus(second)


def subtract(left: Value, right: Value) -> AffineTensor:
    """left − right, broadcast, one of them features."""
    if not isinstance(right, AffineTensor):
        return add(left, -floating(right, "one operand"))
    if isinstance(left, AffineTensor):
        return add(left, negative(right))
    return _fitting(lambda x, c: shifted(negative(x), c), right, floating(left, "one operand"))


def multiply(left: Value, right: Value) -> AffineTensor:
    """left·right, broadcast, one of them a constant."""
    if isinstance(left, AffineTensor) and isinstance(right, AffineTensor):
        raise ValueError(PRODUCT)
    x, constant = (left, right) if isinstance(left, AffineTensor) else (right, left)
    assert isinstance(x, AffineTensor)
    return _fitting(scaled, x, floating(constant, "one operand"))


def divide(left: Value, right: Value) -> AffineTensor:
    """left/right, broadcast, the divisor a constant."""
    if not isinstance(left, AffineTensor) or isinstance(right, AffineTensor):
        raise ValueError("division by a value that depends on the input is not piecewise linear")
    constant = floating(right, "the divisor")
    if np.any(constant == 0):
        raise ValueError("the divisor must not be 0")
    x, whole = broadcast(left, constant)
    assert isinstance(whole, np.ndarray)
    layer, _ = maps.normalisation(features(x.shape), 0.0, whole.reshape(features(x.shape)))
    return x.apply(layer, x.shape)


def sum_over(compiler: StageCompiler, x: AffineTensor, axes: Sequence[int], keep: bool, mean: bool) -> AffineTensor:
    """Sums or means over the axes, which stay with length 1 where `keep`."""
    total = compiler.applied(x, *maps.axis_sums(x.shape, axes, keep))
    return divide(total, np.array(x.size / total.size)) if mean else total


def extreme_over(
    compiler: StageCompiler, x: AffineTensor, axes: Sequence[int], keep: bool, largest: bool
) -> AffineTensor:
    """Maxima or minima over the axes, which stay with length 1 where `keep`."""
    groups, shape = maps.reduction(x.shape, axes, keep)
    if largest:
        return compiler.largest(x, groups, shape)
    return negative(compiler.largest(negative(x), groups, shape))


def hard_sigmoid(compiler: StageCompiler, x: AffineTensor, slope: float, shift: float) -> AffineTensor:
    """max(0, min(1, slope·x + shift))."""
    return compiler.clip(shifted(scaled(x, np.array(slope)), np.array(shift)), 0.0, 1.0)


def batch_normalised(x: AffineTensor, parameters: Sequence[FloatArray], eps: float) -> AffineTensor:
    """(x − mean)/√(variance + eps)·gamma + beta per channel, the second axis.

    parameters: gamma, beta, mean, variance, shape (channels,) each.
    """
    shapes = {values.shape for values in parameters}
    if len(x.shape) < 2 or shapes != {x.shape[1:2]}:
        raise ValueError(f"scale, B, mean and var must have shape {x.shape[1:2]}, got {sorted(shapes)}")
    own, given = features(x.shape), list(parameters)
    if own == x.shape:  # several samples: one value per entry
        per_channel = [np.reshape(values, (-1, *(1,) * (len(x.shape) - 2))) for values in given]
        given = [np.broadcast_to(values, x.shape).ravel() for values in per_channel]
        own = (math.prod(x.shape),)
    gamma, beta, centre, variance = given
    layer, _ = maps.batch_norm(own, gamma, beta, centre, variance, eps)
    return x.apply(layer, x.shape)


def padded(x: AffineTensor, before: Sequence[int], after: Sequence[int], mode: str, fill: float) -> Value:
    """The tensor with entries added before and behind every axis; negative numbers cut off.

    mode: numpy's: "constant" (`fill`), "reflect", "edge", "wrap".
    """
    shape = [n + b + a for n, b, a in zip(x.shape, before, after, strict=True)]
    check_size(math.prod(max(n, 0) for n in shape), "padded features")
    kept = tuple(slice(max(-b, 0), n - max(-a, 0)) for n, b, a in zip(x.shape, before, after, strict=True))
    widths = [(max(b, 0), max(a, 0)) for b, a in zip(before, after, strict=True)]
    rows: IndexArray = np.arange(x.size).reshape(x.shape)[kept]
    if mode != "constant":
        rows = np.pad(rows, widths, mode=mode)  # type: ignore[call-overload]
        return rearrange([x], rows.ravel(), rows.shape)
    rows = np.pad(rows, widths, constant_values=x.size)
    return rearrange([x, np.array([fill])], rows.ravel(), rows.shape)
