"""What the handlers of ONNX operators are given: one node, its inputs as tensors or constants, and the compiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.arrays import AnyArray, FloatArray
from toolkit.networks.importers.compiler import StageCompiler
from toolkit.networks.importers.onnx_evaluation import evaluate
from toolkit.networks.importers.tensors import AffineTensor, check_entries, rearrange

if TYPE_CHECKING:
    from onnx import NodeProto

Value = AffineTensor | AnyArray


@dataclass(frozen=True)
class Call:
    """A node to be computed. inputs: None for those left out; opset: of the standard operators."""

    node: NodeProto
    inputs: Sequence[Value | None]
    attributes: dict[str, Any]
    opset: int
    compiler: StageCompiler

    def at(self, index: int) -> Value | None:
        """Input `index`, None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def tensor(self, index: int, what: str) -> AffineTensor:
        """Input `index`, which must be computed from the network's input."""
        found = self.at(index)
        if not isinstance(found, AffineTensor):
            raise ValueError(f"the features must be input {what}, the others constants")
        return found

    def optional(self, index: int, what: str) -> FloatArray | None:
        """Input `index` as float64, if it is there; it must be a constant of a floating-point type."""
        found = self.at(index)
        return None if found is None else floating(found, what)

    def parameter(self, index: int, what: str) -> FloatArray:
        """Input `index` as float64; it must be a constant of a floating-point type."""
        found = self.optional(index, what)
        if found is None:
            raise ValueError(f"{what} must be a constant")
        return found

    def integers(self, index: int, attribute: str) -> list[int] | None:
        """A list of whole numbers that is an input in newer operator sets and an attribute in older ones."""
        found = self.at(index)
        if found is None:
            given = self.attributes.get(attribute)
            return None if given is None else [int(n) for n in given]
        if isinstance(found, AffineTensor) or found.dtype.kind not in "iu":
            raise ValueError(f"{attribute} must be constant whole numbers")
        return [int(n) for n in found.ravel()]

    def real(self, index: int, attribute: str, default: float) -> float:
        """A number that is an input in newer operator sets and an attribute in older ones."""
        found = self.optional(index, attribute)
        if found is None:
            return float(self.attributes.get(attribute, default))
        if found.size != 1:
            raise ValueError(f"{attribute} must be one number, got shape {found.shape}")
        return float(found.ravel()[0])

    def moved(self, *data: int) -> list[Value]:
        """The outputs of a node that moves entries of its inputs `data` about and computes nothing.

        ONNX's evaluator moves the entries' numbers in their place (onnx_evaluation.py). No data named: all inputs.
        """
        own = set(data or range(len(self.inputs)))
        parts: list[AffineTensor | FloatArray] = []
        given: list[AnyArray | None] = []
        start = 0
        for k, value in enumerate(self.inputs):
            if isinstance(value, AffineTensor) and k not in own:
                raise ValueError(f"input {k} must be a constant, not computed from the network's input")
            if value is None or k not in own:
                given.append(None if value is None else np.asarray(value))
                continue
            part = value if isinstance(value, AffineTensor) else floating(value, f"input {k}")
            parts.append(part)
            given.append(np.arange(start, start + part.size).reshape(part.shape))
            start += part.size
        check_entries(start, "moving entries")
        moved = evaluate(self.node, given, self.opset)
        return [rearrange(parts, np.asarray(rows, dtype=np.int64).ravel(), rows.shape) for rows in moved]


def floating(value: Value, what: str) -> FloatArray:
    """A constant of a floating-point type, as float64. Raises ValueError for features and other types."""
    if isinstance(value, AffineTensor):
        raise ValueError(f"{what} must be a constant, not computed from the network's input")
    if value.dtype.kind != "f" and value.dtype.name != "bfloat16":
        raise ValueError(f"{what} must be of a floating-point type, got {value.dtype}")
    return value.astype(np.float64)


Handler = Callable[[Call], Value | list[Value]]
