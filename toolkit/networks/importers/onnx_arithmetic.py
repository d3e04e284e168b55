"""ONNX operators that add, multiply and compare: sums, products with constants, activations, reductions.

Attributes that the file leaves out have the operator's own defaults, in float32 where ONNX stores them so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import reduce

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.networks.importers import maps
from toolkit.networks.importers.compiler import StageCompiler, broadcast, expanded, features, negative, scaled, shifted
from toolkit.networks.importers.onnx_calls import Call, Handler, Value, floating
from toolkit.networks.importers.tensors import AffineTensor, rearrange

PRODUCT = "the product of two values that both depend on the input is not piecewise linear"
EPSILON = float(np.float32(1e-5))  # BatchNormalization's default
SLOPE = float(np.float32(0.01))  # LeakyRelu's
HARD_SLOPE = float(np.float32(0.2))  # HardSigmoid's
NO_BOUND = float(np.finfo(np.float32).max)


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
        return compiler.applied(left, *maps.matrix_product(left.shape, floating(right, "the right factor")))
    assert isinstance(right, AffineTensor)
    factor = floating(left, "the left factor")
    if len(right.shape) == 1:
        row = np.swapaxes(factor, -1, -2) if factor.ndim > 1 else factor
        return compiler.applied(right, *maps.matrix_product(right.shape, row))
    turned = swapped(right)
    if factor.ndim == 1:
        return compiler.applied(turned, *maps.matrix_product(turned.shape, factor))
    return swapped(compiler.applied(turned, *maps.matrix_product(turned.shape, np.swapaxes(factor, -1, -2))))


def gemm(call: Call) -> Value:
    """alpha·A·B + beta·C, A and B transposed with transA and transB."""
    factors = [call.at(0), call.at(1)]
    for k, key in enumerate(("transA", "transB")):
        value = factors[k]
        if value is None or len(value.shape) != 2:
            raise ValueError(f"A and B must be matrices, got shape {None if value is None else value.shape}")
        if call.attributes.get(key, 0):
            factors[k] = swapped(value) if isinstance(value, AffineTensor) else value.T
    left, right = factors
    assert left is not None
    assert right is not None
    if not isinstance(left, AffineTensor) and not isinstance(right, AffineTensor):
        raise ValueError("the features must be input A or B; as C alone they are not supported")
    product = matrix_product(call.compiler, left, right)
    alpha, beta = (float(call.attributes.get(key, 1.0)) for key in ("alpha", "beta"))
    if alpha != 1:
        product = scaled(product, np.array(alpha))
    third = call.at(2)
    if isinstance(third, AffineTensor):
        moving = scaled(third, np.array(beta)) if beta != 1 else third
        return product.plus(expanded(moving, product.shape))
    return product if third is None else _fitting(shifted, product, _exact_product(beta, floating(third, "C")))


def _fitting(
    function: Callable[[AffineTensor, FloatArray], AffineTensor], x: AffineTensor, constant: FloatArray
) -> AffineTensor:
    """The function of x and a constant, x widened first where the constant is larger."""
    widened, _ = broadcast(x, constant)
    return function(widened, constant)


def _exact_product(beta: float, bias: FloatArray) -> FloatArray:
    """beta·C, which float64 holds exactly for float32 numbers; nothing would account for its rounding otherwise."""
    product = beta * bias
    pairs = zip(bias.ravel().tolist(), product.ravel().tolist(), strict=True)
    if (
        beta != 1
        and np.all(np.isfinite(product))
        and any(Fraction(b) * Fraction(beta) != Fraction(p) for b, p in pairs)
    ):
        raise ValueError(f"beta·C must be exact in double precision; fold beta = {beta:g} into C")
    return product


def matmul(call: Call) -> Value:
    """A @ B."""
    left, right = call.inputs
    assert left is not None
    assert right is not None
    return matrix_product(call.compiler, left, right)


def add_values(left: Value, right: Value) -> Value:
    """left + right, broadcast."""
    if not isinstance(left, AffineTensor):
        left, right = right, left
    assert isinstance(left, AffineTensor)
    if not isinstance(right, AffineTensor):
        return _fitting(shifted, left, floating(right, "one operand"))
    first, second = broadcast(left, right)
    assert isinstance(second, AffineTensor)
    return first.plus(second)


def add(call: Call) -> Value:
    """The sum of all inputs: Add and Sum."""
    return reduce(add_values, [value for value in call.inputs if value is not None])


def subtract(call: Call) -> Value:
    """A − B."""
    left, right = call.inputs
    assert left is not None
    if isinstance(right, AffineTensor):
        if isinstance(left, AffineTensor):
            return add_values(left, negative(right))
        constant = floating(left, "one operand")
        return _fitting(lambda x, c: shifted(negative(x), c), right, constant)
    assert right is not None
    return add_values(left, -floating(right, "one operand"))


def multiply(call: Call) -> Value:
    """A·B, one of them a constant."""
    left, right = call.inputs
    assert left is not None
    assert right is not None
    if isinstance(left, AffineTensor) and isinstance(right, AffineTensor):
        raise ValueError(PRODUCT)
    x, constant = (left, right) if isinstance(left, AffineTensor) else (right, left)
    assert isinstance(x, AffineTensor)
    return _fitting(scaled, x, floating(constant, "one operand"))


def divided(x: AffineTensor, constant: FloatArray) -> AffineTensor:
    """x/constant, broadcast."""
    if np.any(constant == 0):
        raise ValueError("the divisor must not be 0")
    x, whole = broadcast(x, constant)
    assert isinstance(whole, np.ndarray)
    layer, _ = maps.normalisation(features(x.shape), 0.0, whole.reshape(features(x.shape)))
    return x.apply(layer, x.shape)


def divide(call: Call) -> Value:
    """A/B, B a constant."""
    left, right = call.inputs
    if not isinstance(left, AffineTensor) or isinstance(right, AffineTensor) or right is None:
        raise ValueError("division by a value that depends on the input is not piecewise linear")
    return divided(left, floating(right, "the divisor"))


def mean(call: Call) -> Value:
    """The mean of all inputs."""
    total = add(call)
    assert isinstance(total, AffineTensor)
    return divided(total, np.array(float(len(call.inputs))))


def relu(call: Call) -> Value:
    """max(x, 0)."""
    return call.compiler.relu(call.tensor(0, "X"))


def leaky_relu(call: Call) -> Value:
    """x where x > 0, else alpha·x."""
    slope = float(call.attributes.get("alpha", SLOPE))
    return call.compiler.leaky_relu(call.tensor(0, "X"), np.array(slope))


def prelu(call: Call) -> Value:
    """x where x > 0, else slope·x, the slope broadcast to x."""
    x, slope = call.tensor(0, "X"), call.parameter(1, "slope")
    return call.compiler.leaky_relu(x, np.broadcast_to(slope, x.shape))


def clip(call: Call) -> Value:
    """min(max(x, min), max); the bounds are inputs from operator set 11 on."""
    x = call.tensor(0, "input")
    low, high = call.real(1, "min", -NO_BOUND), call.real(2, "max", NO_BOUND)
    return call.compiler.clip(x, low, high)


def absolute(call: Call) -> Value:
    """|x|."""
    return call.compiler.absolute(call.tensor(0, "X"))


def hard_sigmoid(call: Call) -> Value:
    """max(0, min(1, alpha·x + beta))."""
    alpha, beta = float(call.attributes.get("alpha", HARD_SLOPE)), float(call.attributes.get("beta", 0.5))
    x = shifted(scaled(call.tensor(0, "X"), np.array(alpha)), np.array(beta))
    return call.compiler.clip(x, 0.0, 1.0)


def extreme(largest: bool) -> Handler:
    """Max or Min of any number of inputs, broadcast."""

    def handler(call: Call) -> Value:
        given = [value for value in call.inputs if value is not None]
        constants = [floating(value, "an operand") for value in given if not isinstance(value, AffineTensor)]
        tensors = [value for value in given if isinstance(value, AffineTensor)]
        step = call.compiler.maximum if largest else call.compiler.minimum
        found = reduce(step, tensors)
        if not constants:
            return found
        return step(found, reduce(np.maximum if largest else np.minimum, constants))

    return handler


def _axes(call: Call, shape: tuple[int, ...]) -> list[int] | None:
    """The axes of a reduction; None where it reduces nothing."""
    axes = call.integers(1, "axes")
    if not axes:
        return None if call.attributes.get("noop_with_empty_axes", 0) else list(range(len(shape)))
    return axes


def reduce_sum(mean_of: bool) -> Handler:
    """ReduceSum or ReduceMean."""

    def handler(call: Call) -> Value:
        x = call.tensor(0, "data")
        axes = _axes(call, x.shape)
        if axes is None:
            return x
        sums = maps.axis_sums(x.shape, axes, bool(call.attributes.get("keepdims", 1)))
        total = call.compiler.applied(x, *sums)
        return divided(total, np.array(x.size / total.size)) if mean_of else total

    return handler


def reduce_extreme(largest: bool) -> Handler:
    """ReduceMax or ReduceMin."""

    def handler(call: Call) -> Value:
        x = call.tensor(0, "data")
        axes = _axes(call, x.shape)
        if axes is None:
            return x
        groups, shape = maps.reduction(x.shape, axes, bool(call.attributes.get("keepdims", 1)))
        if largest:
            return call.compiler.largest(x, groups, shape)
        return negative(call.compiler.largest(negative(x), groups, shape))

    return handler


def batch_norm(call: Call) -> Value:
    """(x − mean)/√(var + epsilon)·scale + B per channel, the second axis."""
    if call.attributes.get("training_mode", 0):
        raise ValueError("training_mode must be 0, got 1")
    if any(list(call.node.output)[1:]):
        raise ValueError("must give one output: with statistics as outputs it is in training mode")
    if not call.attributes.get("spatial", 1):
        raise ValueError("spatial must be 1, got 0")
    x = call.tensor(0, "X")
    given = [call.parameter(k, what) for k, what in enumerate(("scale", "B", "mean", "var"), start=1)]
    shapes = {values.shape for values in given}
    if len(x.shape) < 2 or shapes != {x.shape[1:2]}:
        raise ValueError(f"scale, B, mean and var must have shape {x.shape[1:2]}, got {sorted(shapes)}")
    own = features(x.shape)
    if own == x.shape:  # several samples: one value per entry
        per_channel = [np.reshape(values, (-1, *(1,) * (len(x.shape) - 2))) for values in given]
        given = [np.broadcast_to(values, x.shape).ravel() for values in per_channel]
        own = (math.prod(x.shape),)
    gamma, beta, centre, variance = given
    layer, _ = maps.batch_norm(own, gamma, beta, centre, variance, call.attributes.get("epsilon", EPSILON))
    return x.apply(layer, x.shape)
