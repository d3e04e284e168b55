"""Single ONNX nodes computed by ONNX's own reference evaluator: constants, and where operators move entries to.

A node whose inputs are all constants becomes its outputs. A node that only moves entries about is given, in place of
the features, the numbers of their entries: what comes out says which entry stands where, exactly as the operator's
definition in that operator set has it. Checked: the sizes of all outputs, before anything is computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.arrays import AnyArray
from toolkit.data.extras import install_line
from toolkit.networks.importers.tensors import LARGEST

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, ValueInfoProto

SMALL = 4096  # numbers of a constant that shape inference is told
NO_LARGER = (
    "Compress",
    "Flatten",
    "NonZero",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unique",
    "Unsqueeze",
)
EVALUATED_AS = {"DequantizeLinear": 19}  # the first operator set that the evaluator has; earlier ones mean the same
RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def import_onnx() -> ModuleType:
    """The onnx package; ValueError says how to install it."""
    try:
        import onnx
        import onnx.numpy_helper
        import onnx.reference
        import onnx.shape_inference
    except ImportError:
        raise ValueError(f"reading ONNX files needs onnx: {install_line('onnx')}") from None
    package: ModuleType = onnx
    return package


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """The node's attributes by name."""
    return {item.name: import_onnx().helper.get_attribute_value(item) for item in node.attribute}


def evaluate_node(node: NodeProto, inputs: Sequence[AnyArray | None], opset: int) -> list[AnyArray]:
    """The node's outputs from its inputs; None stands for an input left out.

    Raises ValueError for nodes with graphs inside, for random ones, for outputs of more than LARGEST numbers or of a
    size that is not known before, and where the evaluator fails.
    """
    onnx = import_onnx()
    if node.op_type in RANDOM or any(item.type in (5, 10) for item in node.attribute):  # graphs inside
        raise ValueError(f"operator {node.op_type} is not supported on constants")
    model = _single(node, inputs, max(opset, EVALUATED_AS.get(node.op_type, opset)))
    _check_sizes(model, node.op_type)
    feeds = {f"input{k}": values for k, values in enumerate(inputs) if values is not None}
    try:
        with np.errstate(all="ignore"):
            found = onnx.reference.ReferenceEvaluator(model).run(None, feeds)
    except Exception as error:  # the evaluator's operators raise whatever numpy raises
        raise ValueError(f"onnx cannot compute it from constants: {_first_line(error)}") from None
    if not all(isinstance(values, np.ndarray | np.generic) for values in found):
        raise ValueError("it gives something else than tensors")
    return [np.asarray(values) for values in found]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _single(node: NodeProto, inputs: Sequence[AnyArray | None], opset: int) -> ModelProto:
    """A model of this node alone; small constants are initializers, so that shape inference sees them."""
    onnx = import_onnx()
    own = onnx.NodeProto()
    own.CopyFrom(node)
    for k, values in enumerate(inputs):
        own.input[k] = "" if values is None else f"input{k}"
    kinds: list[ValueInfoProto] = []
    known = []
    for k, values in enumerate(inputs):
        if values is None:
            continue
        kind = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
        kinds.append(onnx.helper.make_tensor_value_info(f"input{k}", kind, values.shape))
        if values.size <= SMALL and values.dtype.kind in "iufb":
            known.append(onnx.numpy_helper.from_array(np.asarray(values, order="C"), f"input{k}"))
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = onnx.helper.make_graph([own], "node", kinds, outputs, known)
    model: ModelProto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    return model


def _check_sizes(model: ModelProto, operator: str) -> None:
    onnx = import_onnx()
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
    except Exception as error:
        raise ValueError(f"its shapes do not fit: {_first_line(error)}") from None
    for value in inferred.graph.output:
        kind = value.type.tensor_type
        dims = [int(dim.dim_value) for dim in kind.shape.dim]
        known = kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim)
        if not known and operator not in NO_LARGER:
            raise ValueError("it computes a size that is not known beforehand")
        if known and (
            math.prod(n for n in dims if n is not None) > LARGEST or any(n < 0 for n in dims if n is not None)
        ):
            raise ValueError(f"it asks for a tensor of shape {dims}; at most {LARGEST:,} numbers are stored")


def constants_of(node: NodeProto, opset: int, values: Mapping[str, Any]) -> list[AnyArray] | None:
    """The node's outputs where all its inputs are constants among `values`, else None."""
    inputs = [values[key] if key else None for key in node.input]
    if not all(given is None or isinstance(given, np.ndarray) for given in inputs):
        return None
    return evaluate_node(node, inputs, opset)
