"""What each ONNX operator appends to a chain of affine maps and ReLUs.

Every operator says in OPERATORS which of its inputs may be the features; the others must be constants of a
floating-point type, or left out. A node that reads the features anywhere else is refused by name, so no handler can
compute with an input it does not look at. Attributes that the file leaves out have the operator's own defaults, in
float32 where ONNX stores them so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from toolkit.arrays import AnyArray, FloatArray
from toolkit.networks.importers.chain import OperationChain

Arrays = list[AnyArray | None]  # a node's inputs: None for the features and for inputs left out
Attributes = dict[str, Any]
Handler = Callable[[OperationChain, Arrays, Attributes], None]
EPSILON = float(np.float32(1e-5))  # BatchNormalization's default


@dataclass(frozen=True)
class Operator:
    """What appends a node to a chain. features: the inputs that may be the features, by position and by ONNX's name."""

    handler: Handler
    features: dict[int, str]


def _parameter(arrays: Arrays, index: int, what: str) -> FloatArray:
    """Input `index` of a node as float64; it must be a constant of a floating-point type."""
    values = _optional(arrays, index, what)
    if values is None:
        raise ValueError(f"{what} must be a constant")
    return values


def _optional(arrays: Arrays, index: int, what: str) -> FloatArray | None:
    values = arrays[index] if index < len(arrays) else None
    if values is None:
        return None
    if values.dtype.kind != "f" and values.dtype.name != "bfloat16":
        raise ValueError(f"{what} must be of a floating-point type, got {values.dtype}")
    return values.astype(np.float64)


def _gemm(chain: OperationChain, arrays: Arrays, attributes: Attributes) -> None:
    """alpha·x·B + beta·C, B transposed with transB."""
    weight = _parameter(arrays, 1, "B")
    if attributes.get("transA", 0):
        raise ValueError("transA must be 0: it would mix the batch axis into the features, got 1")
    alpha, beta = float(attributes.get("alpha", 1.0)), float(attributes.get("beta", 1.0))
    bias = _optional(arrays, 2, "C")
    chain.dense(weight if attributes.get("transB", 0) else weight.T, None)
    if alpha != 1:
        chain.elementwise(alpha, 0.0)
    if bias is not None:
        chain.elementwise(1.0, _without_batch(chain, _exact_product(beta, bias)))


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


def _matmul(chain: OperationChain, arrays: Arrays, attributes: Attributes) -> None:
    weight = _parameter(arrays, 1, "the right factor")
    if weight.ndim != 2:
        raise ValueError(f"the right factor must be a matrix, got shape {weight.shape}")
    chain.dense(weight.T, None)


def _arithmetic(operator: str) -> Handler:
    """Add, Sub, Mul or Div of the features and a constant."""

    def handler(chain: OperationChain, arrays: Arrays, attributes: Attributes) -> None:
        left = arrays[0] is not None  # the constant is the left operand
        constant = _without_batch(chain, _parameter(arrays, 0 if left else 1, "one operand"))
        if operator == "Add":
            chain.elementwise(1.0, constant)
        elif operator == "Sub":
            chain.elementwise(-1.0 if left else 1.0, constant if left else -constant)
        elif operator == "Mul":
            chain.elementwise(constant, 0.0)
        elif np.any(constant == 0):
            raise ValueError("the divisor must not be 0")
        else:
            chain.normalize(0.0, constant)

    return handler


def _without_batch(chain: OperationChain, constant: FloatArray) -> FloatArray:
    """The constant without a leading axis of length 1 that stands for the batch."""
    if constant.ndim > len(chain.shape) and constant.shape[0] == 1:
        return np.asarray(constant[0])
    return constant


def _windows(chain: OperationChain, attributes: Attributes, kernel: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """stride, dilation, zeros before and after the image, of a Conv or AveragePool node."""
    axes = len(kernel)
    stride = tuple(attributes.get("strides", (1,) * axes))
    dilation = tuple(attributes.get("dilations", (1,) * axes))
    pads = tuple(attributes.get("pads", (0,) * 2 * axes))
    before, after = pads[:axes], pads[axes:]
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    if auto == "VALID":
        before = after = (0,) * axes
    elif auto.startswith("SAME"):
        spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        sizes = zip(chain.shape[1:], stride, spans, strict=True)
        total = [max((math.ceil(n / s) - 1) * s + span - n, 0) for n, s, span in sizes]
        less, more = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        before, after = (less, more) if auto == "SAME_UPPER" else (more, less)
    return {"stride": stride, "dilation": dilation, "before": before, "after": after}


def _conv(chain: OperationChain, arrays: Arrays, attributes: Attributes) -> None:
    weight = _parameter(arrays, 1, "W")
    if weight.ndim != 4 or len(chain.shape) != 3:
        raise ValueError(f"only 2-D convolutions are supported, got W {weight.shape} and features {chain.shape}")
    kernel = tuple(int(n) for n in attributes.get("kernel_shape", weight.shape[2:]))
    if kernel != weight.shape[2:]:
        raise ValueError(f"kernel_shape must be that of W, {weight.shape[2:]}, got {kernel}")
    bias = _optional(arrays, 2, "B")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"B must have shape ({weight.shape[0]},), one number per channel, got {bias.shape}")
    chain.conv(weight, bias, groups=attributes.get("group", 1), **_windows(chain, attributes, kernel))


def _average_pool(chain: OperationChain, arrays: Arrays, attributes: Attributes) -> None:
    kernel = tuple(attributes["kernel_shape"])
    if len(kernel) != 2 or len(chain.shape) != 3:
        raise ValueError(f"only 2-D pooling is supported, got kernel {kernel} and features {chain.shape}")
    windows = _windows(chain, attributes, kernel)
    padded = any(windows["before"]) or any(windows["after"])
    if attributes.get("ceil_mode", 0) or (padded and not attributes.get("count_include_pad", 0)):
        raise ValueError("ceil_mode must be 0, and count_include_pad 1 where there is padding")
    if windows["before"] != windows["after"] or windows["dilation"] != (1, 1):
        raise ValueError("padding must be the same on both sides and dilation 1")
    chain.average_pool(kernel, windows["stride"], windows["before"], None)


def _batch_norm(chain: OperationChain, arrays: Arrays, attributes: Attributes) -> None:
    if attributes.get("training_mode", 0):
        raise ValueError("training_mode must be 0, got 1")
    if not attributes.get("spatial", 1):
        raise ValueError("spatial must be 1, got 0")
    gamma, beta, mean, variance = (
        _parameter(arrays, k, what) for k, what in enumerate(("scale", "B", "mean", "var"), start=1)
    )
    shapes = {values.shape for values in (gamma, beta, mean, variance)}
    if shapes != {chain.shape[:1]}:
        raise ValueError(f"scale, B, mean and var must have shape {chain.shape[:1]}, got {sorted(shapes)}")
    chain.batch_norm(gamma, beta, mean, variance, attributes.get("epsilon", EPSILON))


def _flatten(chain: OperationChain, arrays: Arrays, attributes: Attributes) -> None:
    axis = attributes.get("axis", 1)
    if axis not in (1, -len(chain.shape)):
        raise ValueError(f"axis must be 1, which keeps the batch axis, got {axis}")
    chain.reshape((chain.size,))


def _reshape(chain: OperationChain, arrays: Arrays, attributes: Attributes) -> None:
    given = arrays[1] if len(arrays) > 1 else None
    if given is None or given.dtype != np.int64 or given.ndim != 1:
        raise ValueError("the shape must be a constant list of int64 numbers")
    target = [int(n) for n in given]
    old = (1, *chain.shape)
    copied = [
        old[k] if n == 0 and k < len(old) and not attributes.get("allowzero", 0) else n for k, n in enumerate(target)
    ]
    batch, *sizes = copied or [0]
    known = math.prod(n for n in sizes if n != -1)
    if batch == 1 and sizes.count(-1) == 1 and known > 0:
        sizes = [chain.size // known if n == -1 else n for n in sizes]
    if batch not in (1, -1) or not sizes or any(n < 1 for n in sizes) or math.prod(sizes) != chain.size:
        raise ValueError(
            f"the shape must keep the batch axis and the {chain.size} features of {chain.shape}, got {target}"
        )
    chain.reshape(sizes)


def _dropout(chain: OperationChain, arrays: Arrays, attributes: Attributes) -> None:
    if len(arrays) > 2 and arrays[2] is not None and bool(arrays[2]):
        raise ValueError("training_mode must be false, got true")


FIRST, EITHER = {0: "0"}, {0: "0", 1: "1"}
OPERATORS: dict[str, Operator] = {
    "Gemm": Operator(_gemm, {0: "A"}),
    "MatMul": Operator(_matmul, {0: "A"}),
    "Add": Operator(_arithmetic("Add"), EITHER),
    "Sub": Operator(_arithmetic("Sub"), EITHER),
    "Mul": Operator(_arithmetic("Mul"), EITHER),
    "Div": Operator(_arithmetic("Div"), FIRST),
    "Conv": Operator(_conv, {0: "X"}),
    "AveragePool": Operator(_average_pool, FIRST),
    "BatchNormalization": Operator(_batch_norm, {0: "X"}),
    "Relu": Operator(lambda chain, arrays, attributes: chain.relu(), FIRST),
    "Flatten": Operator(_flatten, FIRST),
    "Reshape": Operator(_reshape, FIRST),
    "Identity": Operator(lambda chain, arrays, attributes: None, FIRST),
    "Dropout": Operator(_dropout, FIRST),
}
