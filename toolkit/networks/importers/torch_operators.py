"""What torch's ATen operators do to features: the same as their ONNX namesakes, by the same functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.networks.importers import maps, values
from toolkit.networks.importers.compiler import bound_of, negative
from toolkit.networks.importers.tensors import AffineTensor
from toolkit.networks.importers.torch_calls import AtenCall
from toolkit.networks.importers.values import Value
from toolkit.networks.importers.windows import Windows, average_pool, max_pool
from toolkit.networks.weight_error import product_error

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}  # torch's, numpy's


def _repeated(given: Any, axes: int) -> tuple[int, ...]:
    """One number for every axis."""
    numbers = [given] if isinstance(given, int) else list(given)
    return tuple(int(n) for n in (numbers * axes if len(numbers) == 1 else numbers))


def _linear(call: AtenCall) -> Value:
    weight = call.parameter("weight")
    assert weight is not None
    product = values.matrix_product(call.compiler, call.tensor("input"), weight.T)
    bias = call.parameter("bias")
    return product if bias is None else values.add(product, bias)


def _matmul(left: str, right: str) -> Callable[[AtenCall], Value]:
    return lambda call: values.matrix_product(call.compiler, call.value(left), call.value(right))


def _addmm(call: AtenCall) -> Value:
    product = values.matrix_product(call.compiler, call.value("mat1"), call.value("mat2"))
    if call["alpha"] != 1 or call["beta"] != 1:
        raise ValueError("alpha and beta must be 1")
    return values.add(product, call.value("self"))


def _exactly(constant: FloatArray, factor: float) -> FloatArray:
    """constant·factor; ValueError where that rounds, which nothing would charge."""
    if np.any(product_error(constant, np.array(factor))):
        raise ValueError(f"alpha = {factor} times a constant rounds; multiply the constant itself")
    return constant * factor


def _sum(sign: float, swap: bool = False) -> Callable[[AtenCall], Value]:
    """self ± alpha·other, or the other way round."""

    def handler(call: AtenCall) -> Value:
        left, right, alpha = call.value("self"), call.value("other"), call["alpha"]
        if alpha not in (None, 1):
            if isinstance(right, AffineTensor):
                right = values.multiply(right, np.array(float(alpha)))
            else:
                right = _exactly(right, float(alpha))
        if swap:
            left, right = right, left
        return values.add(left, right) if sign > 0 else values.subtract(left, right)

    return handler


def _divide(call: AtenCall) -> Value:
    if call["rounding_mode"] is not None:
        raise ValueError("division that rounds is not continuous")
    return values.divide(call.value("self"), call.value("other"))


def _clamp(call: AtenCall) -> Value:
    low, high = (call.parameter(key) for key in ("min", "max"))
    x = call.tensor()
    if any(bound is not None and bound.size != 1 for bound in (low, high)):
        raise ValueError("the bounds must be numbers")
    return _clipped(call, x, *(None if bound is None else float(bound.item()) for bound in (low, high)))


def _clipped(call: AtenCall, x: AffineTensor, low: float | None, high: float | None) -> Value:
    ends = (-math.inf if low is None else low, -math.inf), (math.inf if high is None else high, math.inf)
    return call.compiler.clip(x, *(bound_of(value, none, call.doubles) for value, none in ends))


def _hardtanh(call: AtenCall) -> Value:
    return _clipped(call, call.tensor(), float(call["min_val"]), float(call["max_val"]))


def _hard_sigmoid(call: AtenCall) -> Value:
    shifted = values.add(call.tensor(), np.array(3.0))
    return values.divide(call.compiler.clip(shifted, 0.0, 6.0), np.array(6.0))


def _leaky(call: AtenCall) -> Value:
    return call.compiler.leaky_relu(call.tensor(), np.array(float(call["negative_slope"])))


def _prelu(call: AtenCall) -> Value:
    x, weight = call.tensor(), call.parameter("weight")
    assert weight is not None
    slope = weight if weight.size == 1 else weight.reshape(-1, *(1,) * (len(x.shape) - 2))
    return call.compiler.leaky_relu(x, slope.reshape(()) if slope.size == 1 else slope)


def _threshold(call: AtenCall) -> Value:
    if call["threshold"] != 0 or call["value"] != 0:
        raise ValueError("a threshold other than 0 is not continuous or not known here")
    return call.compiler.relu(call.tensor())


def _reduced(mean: bool) -> Callable[[AtenCall], Value]:
    def handler(call: AtenCall) -> Value:
        x = call.tensor()
        return values.sum_over(call.compiler, x, _axes(call, x), bool(call["keepdim"]), mean)

    return handler


def _axes(call: AtenCall, x: AffineTensor) -> list[int]:
    given = call["dim"]
    axes = [given] if isinstance(given, int) else list(given or [])
    return axes or list(range(len(x.shape)))


def _extreme_over(largest: bool) -> Callable[[AtenCall], Value]:
    def handler(call: AtenCall) -> Value:
        x = call.tensor()
        return values.extreme_over(call.compiler, x, _axes(call, x), bool(call["keepdim"]), largest)

    return handler


def _extreme(largest: bool) -> Callable[[AtenCall], Value]:
    def handler(call: AtenCall) -> Value:
        step = call.compiler.maximum if largest else call.compiler.minimum
        left, right = call.value("self"), call.value("other")
        return step(left, right) if isinstance(left, AffineTensor) else step(call.tensor("other"), left)

    return handler


def _batch_norm(call: AtenCall) -> Value:
    x = call.tensor("input")
    if call["training"]:
        raise ValueError("it is in training mode, where it is not piecewise linear")
    given = [call.parameter(key) for key in ("weight", "bias", "running_mean", "running_var")]
    defaults = (np.ones(x.shape[1]), np.zeros(x.shape[1]), None, None)
    filled = [default if found is None else found for found, default in zip(given, defaults, strict=True)]
    return values.batch_normalised(x, [part for part in filled if part is not None], float(call["eps"]))


def _convolution(call: AtenCall) -> Value:
    x, back = call.sample("input")
    axes, weight, bias = len(x.shape) - 1, call.parameter("weight"), call.parameter("bias")
    assert weight is not None
    stride, dilation = (_repeated(call[key], axes) for key in ("stride", "dilation"))
    if call["padding"] == "same":
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        before, after = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    else:
        before = after = _repeated(0 if call["padding"] == "valid" else call["padding"], axes)
    if call["transposed"]:
        return _transposed(call)
    geometry = (stride, before, after, dilation, int(call["groups"]))
    return back(call.compiler.applied(x, *maps.convolution(x.shape, weight, bias, *geometry)))


def _transposed(call: AtenCall) -> Value:
    x, back = call.sample("input")
    axes, weight, bias = len(x.shape) - 1, call.parameter("weight"), call.parameter("bias")
    assert weight is not None
    stride, padding, extra, dilation = (
        _repeated(call[key], axes) for key in ("stride", "padding", "output_padding", "dilation")
    )
    geometry = (stride, padding, padding, dilation, int(call["groups"]), extra)
    return back(call.compiler.applied(x, *maps.transposed_convolution(x.shape, weight, bias, *geometry)))


def _windows(call: AtenCall, axes: int) -> Windows:
    kernel = _repeated(call["kernel_size"], axes)
    stride = _repeated(call["stride"] or kernel, axes)
    padding = _repeated(call["padding"], axes)
    dilation = _repeated(call["dilation"] or 1, axes)
    return Windows(kernel, stride, padding, padding, dilation, bool(call["ceil_mode"]))


def _max_pool(call: AtenCall) -> Value:
    x, back = call.sample("self")
    return back(max_pool(call.compiler, x, _windows(call, len(x.shape) - 1)))


def _average_pool(call: AtenCall) -> Value:
    x, back = call.sample("self")
    windows, divisor = _windows(call, len(x.shape) - 1), call["divisor_override"]
    return back(average_pool(call.compiler, x, windows, bool(call["count_include_pad"]), divisor))


def _adaptive(call: AtenCall) -> tuple[AffineTensor, Callable[[AffineTensor], AffineTensor], Windows]:
    """The windows that give the output size asked for; they must be equally large."""
    x, back = call.sample("self")
    sizes, asked = x.shape[1:], _repeated(call["output_size"], len(x.shape) - 1)
    if any(n % m for n, m in zip(sizes, asked, strict=True)):
        raise ValueError(
            f"pooling {sizes} places to {asked} takes windows of different sizes, which are not known here"
        )
    kernel = tuple(n // m for n, m in zip(sizes, asked, strict=True))
    return x, back, Windows(kernel, kernel, (0,) * len(kernel), (0,) * len(kernel), (1,) * len(kernel))


def _adaptive_average(call: AtenCall) -> Value:
    x, back, windows = _adaptive(call)
    return back(average_pool(call.compiler, x, windows, True))


def _pad(call: AtenCall) -> Value:
    x, pads, mode = call.tensor(), list(call["pad"]), call["mode"] or "constant"
    before, after = [0] * len(x.shape), [0] * len(x.shape)
    for k in range(len(pads) // 2):
        before[-1 - k], after[-1 - k] = int(pads[2 * k]), int(pads[2 * k + 1])
    return values.padded(x, before, after, _PAD_MODES[mode], float(call["value"] or 0.0))


def _same(call: AtenCall) -> Value:
    """What does nothing in evaluation mode and real arithmetic."""
    if call["train"] or call["training"]:
        raise ValueError("it is in training mode, where it is random")
    dtype = call["dtype"]
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"casting a value that depends on the input to {dtype} is not continuous")
    return call.tensor() if call["self"] is not None else call.tensor("input")


ATEN_HANDLERS: dict[str, Callable[[AtenCall], Value]] = {
    "linear": _linear,
    "matmul": _matmul("self", "other"),
    "mm": _matmul("self", "mat2"),
    "bmm": _matmul("self", "mat2"),
    "mv": _matmul("self", "vec"),
    "addmm": _addmm,
    "add": _sum(1.0),
    "sub": _sum(-1.0),
    "rsub": _sum(-1.0, swap=True),
    "mul": lambda call: values.multiply(call.value("self"), call.value("other")),
    "div": _divide,
    "neg": lambda call: negative(call.tensor()),
    "relu": lambda call: call.compiler.relu(call.tensor()),
    "relu6": lambda call: call.compiler.clip(call.tensor(), 0.0, 6.0),
    "leaky_relu": _leaky,
    "prelu": _prelu,
    "threshold": _threshold,
    "abs": lambda call: call.compiler.absolute(call.tensor()),
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max", "clip"), _clamp),
    "hardtanh": _hardtanh,
    "hardsigmoid": _hard_sigmoid,
    "maximum": _extreme(True),
    "minimum": _extreme(False),
    "sum": _reduced(False),
    "mean": _reduced(True),
    "amax": _extreme_over(True),
    "amin": _extreme_over(False),
    **dict.fromkeys(("batch_norm", "_native_batch_norm_legit_no_training"), _batch_norm),
    **dict.fromkeys(("conv1d", "conv2d", "convolution"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d"), _transposed),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices"), _max_pool),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d"), _average_pool),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d"), _adaptive_average),
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "native_dropout"), _same),
    **dict.fromkeys(("_to_copy", "to", "detach", "clone", "alias", "contiguous", "lift_fresh_copy"), _same),
}
TUPLES = ("_native_batch_norm_legit_no_training", "max_pool2d_with_indices", "native_dropout")  # the first one counts
SMOOTH = frozenset(
    (
        *("sigmoid", "tanh", "exp", "log", "pow", "sqrt", "rsqrt", "reciprocal", "erf", "gelu", "elu", "selu", "celu"),
        *("silu", "mish", "softplus", "hardswish", "softmax", "_softmax", "log_softmax", "_log_softmax", "sin", "cos"),
        *("layer_norm", "native_layer_norm", "group_norm", "instance_norm", "scaled_dot_product_attention", "softsign"),
    )
)
JUMPING = frozenset(
    (
        "sign",
        "floor",
        "ceil",
        "round",
        "trunc",
        "argmax",
        "argmin",
        "gt",
        "lt",
        "ge",
        "le",
        "eq",
        "ne",
        "sgn",
        "heaviside",
    )
)


def aten_obstacle(operator: str) -> str:
    """Why an operator on features is refused."""
    if operator in SMOOTH:
        return f"{operator} is not piecewise linear"
    if operator in JUMPING:
        return f"{operator} is not continuous, so not what a ReLU network computes"
    return f"{operator} is not known here"
