"""Networks from ONNX files: every piecewise-linear graph as ReLU stages.

What a node computes from constants alone is a constant (onnx_evaluation.py), as are the shapes of all values; what the
operators do to the features is in onnx_operators.py. All nodes that cannot go are named at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.networks.importers.compiler import StageCompiler
from toolkit.networks.importers.onnx_calls import Call
from toolkit.networks.importers.onnx_evaluation import attributes_of, constants_of, import_onnx
from toolkit.networks.importers.onnx_files import DOMAINS, has_doubles, load_model, operator_set, tensor_values
from toolkit.networks.importers.onnx_obstacles import kind_of, onnx_obstacle
from toolkit.networks.importers.onnx_operators import FLOATS, ONNX_HANDLERS
from toolkit.networks.importers.onnx_replay import check_onnx_replay
from toolkit.networks.importers.tensors import AffineTensor, Shape
from toolkit.networks.importers.values import Value
from toolkit.networks.parts import NetworkParts

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

# the last operators that keep the order of the outputs, and may be left out of a question about the largest one
_ORDER_KEEPING = ("Softmax", "LogSoftmax", "Sigmoid")
MOST_COMPUTED = 1 << 28  # numbers of constants that nodes make
_NAMED = 12  # obstacles that an error lists
_SHAPE_ONLY = ("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze")


def read_onnx(path: str | Path, name: str = "") -> NetworkParts:
    """The ReLU network of an ONNX file, .onnx or .onnx.gz, in float64.

    One input, of fixed sizes but for a first axis for the batch (symbolic: a batch of 1), or without a batch axis; one
    output. Any graph of the operators in onnx_operators.py: affine ones, ReLU and what ReLUs make up (LeakyRelu, PRelu,
    Clip, Abs, Max, Min, MaxPool, HardSigmoid), branches and all that moves entries about. A final Softmax, LogSoftmax
    or Sigmoid is left out, which keeps the order of the outputs, and stands in metadata["dropped"].
    name: default the file's stem. Raises ValueError naming the file and every node that cannot go, with the reason.

    Initializers that are listed as inputs too keep the value the file gives them. Constants are computed from constants
    in the file's own types.

    Checked: the file by onnx.checker, sizes before anything is stored, that no value has two meanings; the network
    against onnxruntime at random points where that is installed (onnx_replay.py). Trusted: that the file is the network
    you mean; rounding inside another runtime is not part of the network.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no ONNX file at {source}")
    try:
        model = load_model(source)
        graph = _Graph(model)
        output = graph.output()
        check_onnx_replay(model, graph.last, graph.input.fed, graph.compiler.stages(output))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    metadata = {}
    if graph.dropped is not None:
        metadata["dropped"] = f"the final {graph.dropped.op_type}, which keeps the order of the outputs"
    return graph.compiler.parts(output, name or source.name.removesuffix(".gz").removesuffix(".onnx"), metadata)


def read_model_output(path: str | Path) -> tuple[ModelProto, str]:
    """The checked model of a file, and the value of it that `read_onnx` takes as the output."""
    model = load_model(Path(path))
    producers = {key: node for node in model.graph.node for key in node.output if key}
    return model, _without_order_keeping(model.graph.output[0].name, producers)[0]


@dataclass(frozen=True)
class GraphInput:
    """The graph's input. fed: the shape that a runtime takes, with a batch of 1; features: without the batch axis."""

    name: str
    fed: Shape
    features: Shape


class _Graph:
    """A walk along the nodes that the output needs; `values` is what has been computed, by name."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.opset = operator_set(model)
        if self.graph.sparse_initializer:
            raise ValueError(f"sparse initializers are not supported, got {len(self.graph.sparse_initializer)}")
        named = {item.name for item in self.graph.initializer}
        inputs = [item for item in self.graph.input if item.name not in named]
        if len(inputs) != 1 or len(self.graph.output) != 1:
            raise ValueError(f"must have one input and one output, got {len(inputs)} and {len(self.graph.output)}")
        self.input = _graph_input(inputs[0])
        _check_names(self.graph, self.input.name)
        self.producers = {key: node for node in self.graph.node for key in node.output if key}
        self.last, self.dropped = _without_order_keeping(self.graph.output[0].name, self.producers)
        self.compiler = StageCompiler(self.input.features)
        self.setting = self.opset, self.compiler, has_doubles(model)
        self.values: dict[str, Value] = {}
        self.computed = 0  # numbers of constants that the file does not hold
        self.unknown: set[str] = set()  # what nodes that cannot go would give
        self.not_given: dict[str, str] = {}  # outputs that are not known here, and whose
        self.obstacles: list[str] = []

    def output(self) -> AffineTensor:
        """The output, of all nodes that it needs. Raises ValueError naming every node that cannot go."""
        self.values[self.input.name] = self.compiler.input.reshape(self.input.fed)
        needed = _needed(self.last, self.producers)
        for item in self.graph.initializer:
            self.values[item.name] = tensor_values(item)
        for node in self.graph.node:
            if needed.intersection(node.output):
                self._step(node)
        if self.obstacles:
            more = f"; and {len(self.obstacles) - _NAMED} more" if len(self.obstacles) > _NAMED else ""
            raise ValueError("; ".join(self.obstacles[:_NAMED]) + more)
        output = self.values.get(self.last)
        if not isinstance(output, AffineTensor):
            raise ValueError(f"the output {self.last!r} does not depend on the input")
        self._check_dropped(output)
        return output

    def _check_dropped(self, output: AffineTensor) -> None:
        """Raise ValueError where the operator left out compares some of the outputs only."""
        if self.dropped is None or self.dropped.op_type == "Sigmoid":
            return
        older = self.opset < 13  # all axes from `axis` on count as one
        axis = attributes_of(self.dropped).get("axis", 1 if older else -1)
        together = math.prod(output.shape[axis:]) if older else output.shape[axis]
        if together != output.size:
            kind = self.dropped.op_type
            raise ValueError(f"the final {kind} acts on {together} of the {output.size} outputs at a time")

    def _step(self, node: NodeProto) -> None:
        try:
            found = self._computed(node)
        except ValueError as error:
            self.obstacles.append(f"node {node.name or node.output[0]!r} ({node.op_type}): {error}")
            found = None
        if found is None:
            self.unknown.update(key for key in node.output if key)
            return
        for key, value in zip(node.output, found, strict=False):
            if key:
                self.values[key] = value
        for k in range(len(found), len(node.output)):
            self.not_given[node.output[k]] = f"output {k} of {node.name or node.output[0]!r} ({node.op_type})"

    def _computed(self, node: NodeProto) -> list[Value] | None:
        """The node's outputs; None where an input is one of a node that cannot go."""
        if node.domain not in DOMAINS:
            raise ValueError(f"operator {node.op_type} of {node.domain} is not supported: only standard operators are")
        if self.unknown.intersection(node.input):
            if kind_of(node.op_type):
                raise ValueError(onnx_obstacle(node.op_type))
            return None
        missing = [key for key in node.input if key and key not in self.values]
        if missing and missing[0] in self.not_given:
            raise ValueError(f"reads {missing[0]!r}, which is {self.not_given[missing[0]]} and not known here")
        if missing:
            raise ValueError(f"reads {missing[0]!r}, which nothing gives before it")
        constants = constants_of(node, self.opset, self.values)
        if constants is not None:
            self.computed += sum(value.size for value in constants)
            if self.computed > MOST_COMPUTED:
                raise ValueError(
                    f"constants computed so far are {self.computed:,} numbers; allowed are {MOST_COMPUTED:,}"
                )
            return list(constants)
        if node.op_type not in ONNX_HANDLERS:
            raise ValueError(onnx_obstacle(node.op_type))
        inputs = [self.values[key] if key else None for key in node.input]
        found = ONNX_HANDLERS[node.op_type](Call(node, inputs, attributes_of(node), *self.setting))
        return found if isinstance(found, list) else [found]


def _check_names(graph: GraphProto, given: str) -> None:
    """Raise ValueError where a name has two values."""
    names = [given, *(item.name for item in graph.initializer), *(k for node in graph.node for k in node.output if k)]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{name!r} is given two values")
        seen.add(name)


def _needed(output: str, producers: dict[str, NodeProto]) -> set[str]:
    """Names of all values that the output is computed from, its own too."""
    found: set[str] = set()
    waiting = [output]
    while waiting:
        name = waiting.pop()
        if name in found or not name:
            continue
        found.add(name)
        if name in producers:
            waiting.extend(producers[name].input)
    return found


def _without_order_keeping(output: str, producers: dict[str, NodeProto]) -> tuple[str, NodeProto | None]:
    """The value to take as the output, and the node left out behind it."""
    name = output
    while name in producers and producers[name].op_type in _SHAPE_ONLY and producers[name].input:
        name = producers[name].input[0]
    node = producers.get(name)
    if node is None or node.op_type not in _ORDER_KEEPING or node.domain not in DOMAINS or len(node.input) != 1:
        return output, None
    return node.input[0], node


def _graph_input(value: ValueInfoProto) -> GraphInput:
    """The shape of the graph's input with a batch of 1, and without a batch axis."""
    kind = import_onnx().TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    if kind not in FLOATS:
        raise ValueError(f"input {value.name!r} must be of type {', '.join(FLOATS)}, got {kind}")
    dims = value.type.tensor_type.shape.dim
    sizes = [int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims]
    if not sizes or None in sizes[1:] or (len(sizes) == 1 and sizes[0] is None):
        raise ValueError(f"input {value.name!r} must have fixed sizes but for a first axis for the batch, got {sizes}")
    fed = (sizes[0] or 1, *(size for size in sizes[1:] if size))
    batched = len(fed) > 1 and fed[0] == 1
    return GraphInput(value.name, fed, fed[1:] if batched else fed)
