"""Networks from ONNX files: a chain of affine nodes and Relus; what each node does is in onnx_operators.py."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from toolkit.arrays import AnyArray
from toolkit.networks.importers.chain import OperationChain
from toolkit.networks.importers.onnx_operators import OPERATORS
from toolkit.networks.parts import NetworkParts

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, ValueInfoProto

DOMAINS = ("", "ai.onnx")  # both name the standard operators
FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")  # types whose arithmetic is real up to rounding


def import_onnx() -> ModuleType:
    """The onnx package; ValueError says how to install it."""
    try:
        import onnx
        import onnx.numpy_helper
    except ImportError:
        raise ValueError("reading ONNX files needs onnx: pip install 'relugap[onnx]'") from None
    package: ModuleType = onnx
    return package


def read_onnx(path: str | Path, name: str = "") -> NetworkParts:
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
        return _Graph(_load(source)).parts(name or source.stem)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def _load(path: Path) -> GraphProto:
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

    def __init__(self, graph: GraphProto) -> None:
        self.to_array = import_onnx().numpy_helper.to_array
        self.graph = graph
        if graph.sparse_initializer:
            raise ValueError(f"sparse initializers are not supported, got {len(graph.sparse_initializer)}")
        self.constants: dict[str, AnyArray] = {}
        for item in graph.initializer:
            self._define(item.name, self.to_array(item))
        inputs = [item for item in graph.input if item.name not in self.constants]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise ValueError(f"must have one input and one output, got {len(inputs)} and {len(graph.output)}")
        self.current: str = inputs[0].name
        self.reached = {self.current}
        self.chain = OperationChain(_feature_shape(inputs[0]))

    def _define(self, name: str, values: AnyArray) -> None:
        if name in self.constants:
            raise ValueError(f"{name!r} is given two values")
        self.constants[name] = values

    def parts(self, name: str) -> NetworkParts:
        """The network of all nodes, in order."""
        for node in self.graph.node:
            try:
                self._step(node)
            except ValueError as error:
                raise ValueError(f"node {node.name or node.output[0]!r} ({node.op_type}): {error}") from None
        output = self.graph.output[0].name
        if self.current != output:
            raise ValueError(f"the output {output!r} is not the last node's, which is {self.current!r}")
        return self.chain.parts(name)

    def _step(self, node: NodeProto) -> None:
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

    def _constant(self, node: NodeProto) -> AnyArray:
        kind = node.attribute[0].name
        value = import_onnx().helper.get_attribute_value(node.attribute[0])
        if kind == "value":
            return np.asarray(self.to_array(value))
        if kind in ("value_float", "value_floats", "value_int", "value_ints"):
            return np.asarray(value, dtype=np.float32 if kind.startswith("value_float") else np.int64)
        raise ValueError(f"attribute {kind} is not supported; allowed: value, value_float(s), value_int(s)")


def _feature_shape(value: ValueInfoProto) -> tuple[int, ...]:
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
