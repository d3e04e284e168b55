"""Networks from ONNX files: a chain of affine nodes and Relus.

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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.importers.chain import FloatArray, OperationChain
from toolkit.network import Network

Values = NDArray[Any]
Arrays = list[Values | None]  # a node's inputs: None for the features and for inputs left out
Attributes = dict[str, Any]
Handler = Callable[[OperationChain, Arrays, Attributes], None]
DOMAINS = ("", "ai.onnx")  # both name the standard operators
FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")  # types whose arithmetic is real up to rounding
EPSILON = float(np.float32(1e-5))  # BatchNormalization's default


@dataclass(frozen=True)
class Operator:
    """What appends a node to a chain. features: the inputs that may be the features, by position and by ONNX's name."""

    handler: Handler
    features: dict[int, str]


def import_onnx() -> Any:
    """The onnx package; ValueError says how to install it."""
    try:
        import onnx
        import onnx.numpy_helper
    except ImportError:
        raise ValueError("reading ONNX files needs onnx: pip install 'relugap[onnx]'") from None
    return onnx


def from_onnx(path: str | Path, name: str = "") -> Network:
    """The ReLU network of an ONNX file, in float64.

    The graph must be sequential: one input whose first axis is the batch (symbolic or 1), one output, every node
    reading the node before it and constants. Operators: Gemm, MatMul, Add, Sub, Mul, Div with constants, Conv,
    AveragePool, BatchNormalization, Relu, Flatten, Reshape (batch axis kept), Identity, Dropout, Constant.
    name: default the file's stem. Raises ValueError naming the file, and the operator and node it refuses.

    Initializers that are listed as inputs too keep the value the file gives them.

    Checked: the file by onnx.checker, shapes, types, that nothing branches and no value has two meanings. Trusted: that
    the file is the network you mean; rounding inside another runtime is not part of the network.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no ONNX file at {source}")
    try:
        return _Graph(_load(source)).network(name or source.stem)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def _load(path: Path) -> Any:
    onnx = import_onnx()
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)  # with types and shapes
    except Exception as error:  # protobuf, the checker and missing external data each raise their own types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"not a valid ONNX model: {reason}") from None
    versions = {item.version for item in model.opset_import if item.domain in DOMAINS}
    newest = onnx.defs.onnx_opset_version()  # what later sets mean is not known
    if len(versions) != 1 or not 7 <= min(versions) <= newest:  # Add and Gemm broadcast differently before 7
        raise ValueError(f"the ONNX operator set must be one of 7 … {newest}, got {sorted(versions)}")
    if model.functions:
        raise ValueError(f"functions of the file's own are not supported, got {model.functions[0].name!r}")
    return model.graph


class _Graph:
    """A walk along the nodes; `current` is the value the chain has reached, `constants` the named arrays."""

    def __init__(self, graph: Any) -> None:
        self.to_array = import_onnx().numpy_helper.to_array
        self.graph = graph
        if graph.sparse_initializer:
            raise ValueError(f"sparse initializers are not supported, got {len(graph.sparse_initializer)}")
        self.constants: dict[str, Values] = {}
        for item in graph.initializer:
            self._define(item.name, self.to_array(item))
        inputs = [item for item in graph.input if item.name not in self.constants]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise ValueError(f"must have one input and one output, got {len(inputs)} and {len(graph.output)}")
        self.current: str = inputs[0].name
        self.reached = {self.current}
        self.chain = OperationChain(_feature_shape(inputs[0]))

    def _define(self, name: str, values: Values) -> None:
        if name in self.constants:
            raise ValueError(f"{name!r} is given two values")
        self.constants[name] = values

    def network(self, name: str) -> Network:
        """The network of all nodes, in order."""
        for node in self.graph.node:
            try:
                self._step(node)
            except ValueError as error:
                raise ValueError(f"node {node.name or node.output[0]!r} ({node.op_type}): {error}") from None
        output = self.graph.output[0].name
        if self.current != output:
            raise ValueError(f"the output {output!r} is not the last node's, which is {self.current!r}")
        return self.chain.network(name)

    def _step(self, node: Any) -> None:
        if any(key in self.reached or key in self.constants for key in node.output if key):
            raise ValueError(f"{node.output[0]!r} is given two values")
        if node.op_type == "Constant" and node.domain in DOMAINS:
            self._define(node.output[0], self._constant(node))
            return
        if node.op_type not in OPERATORS or node.domain not in DOMAINS:
            name = node.op_type if node.domain in DOMAINS else f"{node.op_type} of {node.domain}"
            raise ValueError(f"operator {name} is not supported; allowed: Constant, {', '.join(OPERATORS)}")
        moving = [key for key in node.input if key and key not in self.constants]
        if node.op_type == "Identity" and not moving:
            self._define(node.output[0], self.constants[node.input[0]])
            return
        if moving != [self.current]:
            raise ValueError(
                f"must read {self.current!r}, the node before it, and constants; reads {moving}: "
                "only sequential graphs are supported"
            )
        operator, place = OPERATORS[node.op_type], list(node.input).index(self.current)
        if place not in operator.features:
            allowed = " or ".join(operator.features.values())
            raise ValueError(f"the features must be input {allowed}, the others constants; got them as input {place}")
        arrays = [None if key == self.current else self.constants.get(key) for key in node.input]
        attributes = {item.name: import_onnx().helper.get_attribute_value(item) for item in node.attribute}
        if node.op_type == "BatchNormalization" and any(list(node.output)[1:]):
            raise ValueError("must give one output: with statistics as outputs it is in training mode")
        operator.handler(self.chain, arrays, attributes)
        self.current = node.output[0]
        self.reached.add(self.current)

    def _constant(self, node: Any) -> Values:
        kind = node.attribute[0].name
        value = import_onnx().helper.get_attribute_value(node.attribute[0])
        if kind == "value":
            return np.asarray(self.to_array(value))
        if kind in ("value_float", "value_floats", "value_int", "value_ints"):
            return np.asarray(value, dtype=np.float32 if kind.startswith("value_float") else np.int64)
        raise ValueError(f"attribute {kind} is not supported; allowed: value, value_float(s), value_int(s)")


def _feature_shape(value: Any) -> tuple[int, ...]:
    """The shape of the graph's input without its batch axis."""
    kind = import_onnx().TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    if kind not in FLOATS:
        raise ValueError(f"input {value.name!r} must be of type {', '.join(FLOATS)}, got {kind}")
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim]
    if len(sizes) < 2 or sizes[0] not in (None, 1, -1):
        raise ValueError(f"input {value.name!r} must have a first axis for the batch (symbolic or 1), got {sizes}")
    if any(not size for size in sizes[1:]):
        raise ValueError(f"input {value.name!r} must have fixed sizes after the batch axis, got {sizes}")
    return tuple(int(size) for size in sizes[1:] if size)


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
