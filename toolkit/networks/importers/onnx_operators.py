"""The ONNX operators that an import knows, each with what it does to the features."""

from __future__ import annotations

import math

import numpy as np

from toolkit.arrays import IndexArray
from toolkit.networks.importers import onnx_arithmetic as arithmetic
from toolkit.networks.importers import onnx_windows as windows
from toolkit.networks.importers.compiler import negative
from toolkit.networks.importers.onnx_calls import Call, Handler
from toolkit.networks.importers.onnx_evaluation import import_onnx
from toolkit.networks.importers.tensors import LARGEST, AffineTensor, check_size, rearrange
from toolkit.networks.importers.values import Value, padded

FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")  # types whose arithmetic is real up to rounding
_PAD_MODES = ("constant", "reflect", "edge", "wrap")  # numpy's names too


def _moving(*data: int) -> Handler:
    """A node that moves entries of its inputs `data` about (none named: of all inputs)."""

    def handler(call: Call) -> Value | list[Value]:
        return call.moved(*data)

    return handler


def _pad(call: Call) -> Value:
    """Pad, with negative numbers cutting off; the value is an input from operator set 11 on."""
    x = call.tensor(0, "data")
    pads = call.integers(1, "pads")
    axes = call.integers(3, "axes") or list(range(len(x.shape)))
    mode = call.attributes.get("mode", b"constant").decode()
    if pads is None or len(pads) != 2 * len(axes) or mode not in _PAD_MODES:
        raise ValueError(
            f"pads must be two numbers per axis and mode one of {', '.join(_PAD_MODES)}, got {pads}, {mode}"
        )
    if not all(-len(x.shape) <= axis < len(x.shape) for axis in axes):
        raise ValueError(f"axes must be ones of −{len(x.shape)} … {len(x.shape) - 1}, got {axes}")
    before, after = [0] * len(x.shape), [0] * len(x.shape)
    for k, axis in enumerate(axes):
        before[axis], after[axis] = pads[k], pads[len(axes) + k]
    fill = call.real(2, "constant_value", float(call.attributes.get("value", 0.0)))
    return padded(x, before, after, mode, fill)


def _cast(call: Call) -> Value:
    """Cast between floating-point types, which is nothing in real arithmetic."""
    return _cast_to(call, import_onnx().TensorProto.DataType.Name(call.attributes["to"]))


def _cast_like(call: Call) -> Value:
    """Cast to the type of another value, which need not be a constant."""
    target = call.at(1)
    if target is None or isinstance(target, AffineTensor):
        return _cast_to(call, FLOATS[0])
    onnx = import_onnx()
    return _cast_to(call, onnx.TensorProto.DataType.Name(onnx.helper.np_dtype_to_tensor_dtype(target.dtype)))


def _cast_to(call: Call, kind: str) -> Value:
    if kind not in FLOATS:
        raise ValueError(f"casting a value that depends on the input to {kind} is not continuous; allowed: {FLOATS}")
    return call.tensor(0, "input")


def _dropout(call: Call) -> list[Value]:
    """Nothing outside training; the mask, its second output, is true then from operator set 12 on."""
    training, x = call.at(2), call.tensor(0, "data")
    if training is not None and (isinstance(training, AffineTensor) or np.any(training)):
        raise ValueError("training_mode must be false, got true")
    return [x] if call.opset < 12 else [x, np.ones(x.shape, dtype=np.bool_)]


def _scatter(call: Call) -> Value | list[Value]:
    if call.attributes.get("reduction", b"none") != b"none":
        raise ValueError("reduction must be none")
    return call.moved(0, 2)


def _shape(call: Call) -> Value:
    shape = np.array(call.tensor(0, "data").shape, dtype=np.int64)
    return shape[slice(call.attributes.get("start", 0), call.attributes.get("end"))]


def _resize(call: Call) -> Value:
    """Resize and Upsample to the nearest neighbour, whole numbers of copies or not."""
    x = call.tensor(0, "X")
    if call.attributes.get("mode", b"nearest") != b"nearest" or (call.node.op_type == "Resize" and call.opset < 11):
        raise ValueError("only mode nearest is supported, from operator set 11 on; other modes are affine as well")
    scales = call.optional(1 if call.node.op_type == "Upsample" else 2, "scales")
    sizes = call.integers(3, "sizes")
    if (
        call.attributes.get("axes") is not None
        or call.attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch"
    ):
        raise ValueError("axes and keep_aspect_ratio_policy are not supported")
    if scales is None or not scales.size:
        if sizes is None or len(sizes) != len(x.shape):
            raise ValueError("needs as many scales or sizes as there are axes")
        factors = [size / n for size, n in zip(sizes, x.shape, strict=True)]
    else:
        factors = [float(v) for v in scales.ravel()]
        if len(factors) != len(x.shape) or not all(0 < v < LARGEST for v in factors):
            raise ValueError(f"needs one scale > 0 per axis, got {factors}")
        sizes = [math.floor(n * v) for n, v in zip(x.shape, factors, strict=True)]
    if min(sizes, default=1) < 1:
        raise ValueError(f"resizing must leave every axis ≥ 1, got {sizes}")
    check_size(math.prod(sizes), "resized features")
    rows = np.arange(x.size).reshape(x.shape)
    for axis, (size, factor) in enumerate(zip(sizes, factors, strict=True)):
        rows = np.take(rows, _nearest(call, x.shape[axis], size, factor), axis=axis)
    return rearrange([x], rows.ravel(), rows.shape)


def _nearest(call: Call, old: int, new: int, factor: float) -> IndexArray:
    """The place of an axis of `old` entries that each of `new` ones copies."""
    upsample = call.node.op_type == "Upsample"
    transform = b"asymmetric" if upsample else call.attributes.get("coordinate_transformation_mode", b"half_pixel")
    rounding = b"floor" if upsample else call.attributes.get("nearest_mode", b"round_prefer_floor")
    places = np.arange(new, dtype=np.float64)
    if transform == b"half_pixel" or (transform == b"pytorch_half_pixel" and new > 1):
        places = (places + 0.5) / factor - 0.5
    elif transform == b"align_corners":
        places = places * (old - 1) / (new - 1) if new > 1 else places * 0
    elif transform == b"asymmetric":
        places = places / factor
    else:
        raise ValueError(f"coordinate_transformation_mode {transform.decode()} is not supported")
    rounded = {
        b"floor": np.floor(places),
        b"ceil": np.ceil(places),
        b"round_prefer_floor": np.ceil(places - 0.5),
        b"round_prefer_ceil": np.floor(places + 0.5),
    }
    if rounding not in rounded:
        raise ValueError(f"nearest_mode must be one of {[key.decode() for key in rounded]}, got {rounding.decode()}")
    return np.clip(rounded[rounding], 0, old - 1).astype(np.int64)


ONNX_HANDLERS: dict[str, Handler] = {
    "Gemm": arithmetic.gemm,
    "MatMul": arithmetic.matmul,
    "Add": arithmetic.onnx_add,
    "Sum": arithmetic.onnx_add,
    "Sub": arithmetic.onnx_subtract,
    "Mul": arithmetic.onnx_multiply,
    "Div": arithmetic.onnx_divide,
    "Mean": arithmetic.mean,
    "Neg": lambda call: negative(call.tensor(0, "X")),
    "Relu": arithmetic.relu,
    "LeakyRelu": arithmetic.leaky_relu,
    "PRelu": arithmetic.prelu,
    "Clip": arithmetic.clip,
    "Abs": arithmetic.absolute,
    "HardSigmoid": arithmetic.onnx_hard_sigmoid,
    "Max": arithmetic.extreme(True),
    "Min": arithmetic.extreme(False),
    "ReduceSum": arithmetic.reduce_sum(False),
    "ReduceMean": arithmetic.reduce_sum(True),
    "ReduceMax": arithmetic.reduce_extreme(True),
    "ReduceMin": arithmetic.reduce_extreme(False),
    "BatchNormalization": arithmetic.onnx_batch_norm,
    "Conv": windows.conv,
    "ConvTranspose": windows.conv_transpose,
    "AveragePool": windows.average,
    "MaxPool": windows.largest,
    "GlobalAveragePool": windows.over_the_image(arithmetic.reduce_sum(True)),
    "GlobalMaxPool": windows.over_the_image(arithmetic.reduce_extreme(True)),
    "Pad": _pad,
    "Cast": _cast,
    "Resize": _resize,
    "Upsample": _resize,
    "CastLike": _cast_like,
    "Dropout": _dropout,
    "Identity": lambda call: call.tensor(0, "input"),
    "Shape": _shape,
    "Size": lambda call: np.array(call.tensor(0, "data").size, dtype=np.int64),
    "Concat": _moving(),
    "Where": _moving(1, 2),
    "ScatterND": _scatter,
    "ScatterElements": _scatter,
    **dict.fromkeys(("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile"), _moving(0)),
    **dict.fromkeys(("Slice", "Split", "Gather", "GatherElements", "GatherND"), _moving(0)),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _moving(0)),
}
