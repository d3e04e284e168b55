"""Networks from ONNX files: a chain of affine nodes and Relus."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.importers.chain import FloatArray, OperationChain
from toolkit.network import Network
from toolkit.weight_error import product_error

Values = NDArray[Any]
Arrays = list[Values | None]  # a node's inputs: None for the features and for inputs left out
Attributes = dict[str, Any]
DOMAINS = ("", "ai.onnx")  # both name the standard operators


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

    Checked: the file by onnx.checker, shapes, that nothing branches. Trusted: that the file is the network you mean;
    float32 rounding inside another runtime is not part of the network.
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
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf, the checker and missing external data each raise their own types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"not a valid ONNX model: {reason}") from None
    versions = [item.version for item in model.opset_import if item.domain in DOMAINS]
    if not versions or versions[0] < 7:  # earlier Add and Gemm broadcast differently
        raise ValueError(f"the ONNX operator set must be ≥ 7, got {versions}")
    return model.graph


class _Graph:
    """A walk along the nodes; `current` is the value the chain has reached, `constants` the named arrays."""

    def __init__(self, graph: Any) -> None:
        self.to_array = import_onnx().numpy_helper.to_array
        self.graph = graph
        self.constants: dict[str, Values] = {item.name: self.to_array(item) for item in graph.initializer}
        inputs = [item for item in graph.input if item.name not in self.constants]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise ValueError(f"must have one input and one output, got {len(inputs)} and {len(graph.output)}")
        self.current: str = inputs[0].name
        self.chain = OperationChain(_feature_shape(inputs[0]))

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
        if node.op_type == "Constant":
            self.constants[node.output[0]] = self._constant(node)
            return
        if node.op_type not in OPERATORS or node.domain not in DOMAINS:
            operator = node.op_type if node.domain in DOMAINS else f"{node.op_type} of {node.domain}"
            raise ValueError(f"operator {operator} is not supported; allowed: Constant, {', '.join(OPERATORS)}")
        moving = [key for key in node.input if key and key not in self.constants]
        if node.op_type == "Identity" and not moving:
            self.constants[node.output[0]] = self.constants[node.input[0]]
            return
        if moving != [self.current]:
            raise ValueError(
                f"must read {self.current!r}, the node before it, and constants; reads {moving}: "
                "only sequential graphs are supported"
            )
        arrays = [None if key == self.current else self.constants.get(key) for key in node.input]
        attributes = {item.name: import_onnx().helper.get_attribute_value(item) for item in node.attribute}
        OPERATORS[node.op_type](self.chain, arrays, attributes)
        self.current = node.output[0]

    def _constant(self, node: Any) -> Values:
        value = import_onnx().helper.get_attribute_value(node.attribute[0])
        if node.attribute[0].name == "value":
            return np.asarray(self.to_array(value))
        if node.attribute[0].name in ("value_float", "value_floats", "value_int", "value_ints"):
            return np.asarray(value)
        raise ValueError(
            f"attribute {node.attribute[0].name} is not supported; allowed: value, value_float(s), value_int(s)"
        )


def _feature_shape(value: Any) -> tuple[int, ...]:
    """The shape of the graph's input without its batch axis."""
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim]
    if len(sizes) < 2 or sizes[0] not in (None, 1):
        raise ValueError(f"input {value.name!r} must have a first axis for the batch (symbolic or 1), got {sizes}")
    if any(not size for size in sizes[1:]):
        raise ValueError(f"input {value.name!r} must have fixed sizes after the batch axis, got {sizes}")
    return tuple(int(size) for size in sizes[1:] if size)


def _parameter(arrays: Arrays, index: int, what: str) -> FloatArray:
    """Input `index` of a node as float64; it must be a constant."""
    values = arrays[index] if index < len(arrays) else None
    if values is None:
        raise ValueError(f"{what} must be a constant")
    return np.asarray(values, dtype=np.float64)


def _optional(arrays: Arrays, index: int) -> FloatArray | None:
    values = arrays[index] if index < len(arrays) else None
    return None if values is None else np.asarray(values, dtype=np.float64)


def _gemm(chain: OperationChain, arrays: Arrays, attributes: Attributes) -> None:
    """alpha·x·B + beta·C, B transposed with transB."""
    weight = _parameter(arrays, 1, "B")
    if attributes.get("transA", 0):
        raise ValueError("transA must be 0: it would mix the batch axis into the features, got 1")
    weight = weight if attributes.get("transB", 0) else weight.T
    bias = _optional(arrays, 2)
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    chain.dense(weight, None)
    if alpha != 1.0:
        chain.elementwise(alpha, 0.0)  # a map of its own, so that merging charges the rounding of alpha·B
    if bias is not None:
        shift, error = (_without_batch(chain, v) for v in (beta * bias, product_error(beta, bias)))
        chain.elementwise(1.0, shift, error)


def _matmul(chain: OperationChain, arrays: Arrays, attributes: Attributes) -> None:
    weight = _parameter(arrays, 1, "the right factor")
    if weight.ndim != 2:
        raise ValueError(f"the right factor must be a matrix, got shape {weight.shape}")
    chain.dense(weight.T, None)


def _arithmetic(operator: str) -> Callable[[OperationChain, Arrays, Attributes], None]:
    """Add, Sub, Mul or Div of the features and a constant."""

    def handler(chain: OperationChain, arrays: Arrays, attributes: Attributes) -> None:
        left = arrays[0] is not None
        constant = _without_batch(chain, _parameter(arrays, 0 if left else 1, "one operand"))
        if operator == "Add":
            chain.elementwise(1.0, constant)
        elif operator == "Sub":
            chain.elementwise(-1.0 if left else 1.0, constant if left else -constant)
        elif operator == "Mul":
            chain.elementwise(constant, 0.0)
        elif left:
            raise ValueError("a constant divided by the features is not affine")
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
    windows = _windows(chain, attributes, weight.shape[2:])
    chain.conv(weight, _optional(arrays, 2), groups=attributes.get("group", 1), **windows)


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
    chain.batch_norm(gamma, beta, mean, variance, attributes.get("epsilon", 1e-5))


def _flatten(chain: OperationChain, arrays: Arrays, attributes: Attributes) -> None:
    axis = attributes.get("axis", 1)
    if axis not in (1, -len(chain.shape)):
        raise ValueError(f"axis must be 1, which keeps the batch axis, got {axis}")
    chain.reshape((chain.size,))


def _reshape(chain: OperationChain, arrays: Arrays, attributes: Attributes) -> None:
    target = [int(n) for n in _parameter(arrays, 1, "the shape")]
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


OPERATORS: dict[str, Callable[[OperationChain, Arrays, Attributes], None]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _arithmetic("Add"),
    "Sub": _arithmetic("Sub"),
    "Mul": _arithmetic("Mul"),
    "Div": _arithmetic("Div"),
    "Conv": _conv,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Relu": lambda chain, arrays, attributes: chain.relu(),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Identity": lambda chain, arrays, attributes: None,
    "Dropout": _dropout,
}
