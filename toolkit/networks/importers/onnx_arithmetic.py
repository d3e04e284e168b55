"""ONNX operators that add, multiply and compare: sums, products with constants, activations, reductions.

Attributes that the file leaves out have the operator's own defaults, in float32 where ONNX stores them so.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import reduce

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.networks.importers import values
from toolkit.networks.importers.compiler import FLOAT32_MAX, bound_of, expanded, scaled
from toolkit.networks.importers.onnx_calls import Call, Handler
from toolkit.networks.importers.tensors import AffineTensor, check_size
from toolkit.networks.importers.values import Value, floating

EPSILON = float(np.float32(1e-5))  # BatchNormalization's default
SLOPE = float(np.float32(0.01))  # LeakyRelu's
HARD_SLOPE = float(np.float32(0.2))  # HardSigmoid's


def gemm(call: Call) -> Value:
    """alpha·A·B + beta·C, A and B transposed with transA and transB."""
    factors: list[Value] = []
    for k, key in enumerate(("transA", "transB")):
        value = call.at(k)
        if value is None or len(value.shape) != 2:
            raise ValueError(f"A and B must be matrices, got shape {None if value is None else value.shape}")
        if call.attributes.get(key, 0):
            value = values.swapped(value) if isinstance(value, AffineTensor) else value.T
        factors.append(value)
    if not any(isinstance(value, AffineTensor) for value in factors):
        raise ValueError("the features must be input A or B; as C alone they are not supported")
    product = values.matrix_product(call.compiler, *factors)
    alpha, beta = (float(call.attributes.get(key, 1.0)) for key in ("alpha", "beta"))
    if alpha != 1:
        product = scaled(product, np.array(alpha))
    third = call.at(2)
    if isinstance(third, AffineTensor):
        moving = scaled(third, np.array(beta)) if beta != 1 else third
        return product.plus(expanded(moving, product.shape))
    return product if third is None else values.add(product, _exact_product(beta, floating(third, "C")))


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
    return values.matrix_product(call.compiler, *call.pair())


def onnx_add(call: Call) -> Value:
    """The sum of all inputs: Add and Sum."""
    return reduce(values.add, sorted(call.given(), key=lambda value: not isinstance(value, AffineTensor)))


def onnx_subtract(call: Call) -> Value:
    """A − B."""
    return values.subtract(*call.pair())


def onnx_multiply(call: Call) -> Value:
    """A·B, one of them a constant."""
    return values.multiply(*call.pair())


def onnx_divide(call: Call) -> Value:
    """A/B, B a constant."""
    return values.divide(*call.pair())


def mean(call: Call) -> Value:
    """The mean of all inputs."""
    return values.divide(onnx_add(call), np.array(float(len(call.given()))))


def relu(call: Call) -> Value:
    """max(x, 0)."""
    return call.compiler.relu(call.tensor(0, "X"))


def leaky_relu(call: Call) -> Value:
    """x where x > 0, else alpha·x."""
    slope = float(call.attributes.get("alpha", SLOPE))
    return call.compiler.leaky_relu(call.tensor(0, "X"), np.array(slope))


def prelu(call: Call) -> Value:
    """x where x > 0, else slope·x, the slope broadcast to x."""
    return call.compiler.leaky_relu(call.tensor(0, "X"), call.parameter(1, "slope"))


def clip(call: Call) -> Value:
    """min(max(x, min), max); the bounds are inputs from operator set 11 on."""
    ends = ((1, "min", -math.inf), (2, "max", math.inf))
    return call.compiler.clip(call.tensor(0, "input"), *(_bound(call, *end) for end in ends))


def _bound(call: Call, index: int, name: str, none: float) -> float:
    given = call.at(index)
    value = call.real(index, name, none if call.opset >= 11 else math.copysign(FLOAT32_MAX, none))
    doubles = call.doubles if given is None or isinstance(given, AffineTensor) else given.dtype == np.float64
    return bound_of(value, none, doubles)


def absolute(call: Call) -> Value:
    """|x|."""
    return call.compiler.absolute(call.tensor(0, "X"))


def onnx_hard_sigmoid(call: Call) -> Value:
    """max(0, min(1, alpha·x + beta))."""
    alpha, beta = float(call.attributes.get("alpha", HARD_SLOPE)), float(call.attributes.get("beta", 0.5))
    return values.hard_sigmoid(call.compiler, call.tensor(0, "X"), alpha, beta)


def extreme(largest: bool) -> Handler:
    """Max or Min of any number of inputs, broadcast."""

    def handler(call: Call) -> Value:
        constants = [floating(value, "an operand") for value in call.given() if not isinstance(value, AffineTensor)]
        tensors = [value for value in call.given() if isinstance(value, AffineTensor)]
        step = call.compiler.maximum if largest else call.compiler.minimum
        found = reduce(step, tensors)
        if not constants:
            return found
        check_size(math.prod(np.broadcast_shapes(*(value.shape for value in constants))), "the largest of constants")
        return step(found, reduce(np.maximum if largest else np.minimum, constants))

    return handler


def _axes(call: Call, x: AffineTensor) -> list[int] | None:
    """The axes of a reduction; None where it reduces nothing."""
    axes = call.integers(1, "axes")
    if not axes:
        return None if call.attributes.get("noop_with_empty_axes", 0) else list(range(len(x.shape)))
    return axes


def reduce_sum(mean_of: bool) -> Handler:
    """ReduceSum or ReduceMean."""

    def handler(call: Call) -> Value:
        x = call.tensor(0, "data")
        axes, keep = _axes(call, x), bool(call.attributes.get("keepdims", 1))
        return x if axes is None else values.sum_over(call.compiler, x, axes, keep, mean_of)

    return handler


def reduce_extreme(largest: bool) -> Handler:
    """ReduceMax or ReduceMin."""

    def handler(call: Call) -> Value:
        x = call.tensor(0, "data")
        axes, keep = _axes(call, x), bool(call.attributes.get("keepdims", 1))
        return x if axes is None else values.extreme_over(call.compiler, x, axes, keep, largest)

    return handler


def onnx_batch_norm(call: Call) -> Value:
    """(x − mean)/√(var + epsilon)·scale + B per channel, the second axis."""
    if call.attributes.get("training_mode", 0):
        raise ValueError("training_mode must be 0, got 1")
    if any(list(call.node.output)[1:]):
        raise ValueError("must give one output: with statistics as outputs it is in training mode")
    if not call.attributes.get("spatial", 1):
        raise ValueError("spatial must be 1, got 0")
    given = [call.parameter(k, what) for k, what in enumerate(("scale", "B", "mean", "var"), start=1)]
    return values.batch_normalised(call.tensor(0, "X"), given, call.attributes.get("epsilon", EPSILON))
