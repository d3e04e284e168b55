"""What the handlers of ONNX operators are given: one node, its inputs as tensors or constants, and the compiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.arrays import FloatArray
from toolkit.networks.importers.compiler import StageCompiler
from toolkit.networks.importers.onnx_evaluation import evaluate_node
from toolkit.networks.importers.tensors import AffineTensor
from toolkit.networks.importers.values import Value, floating, moved

if TYPE_CHECKING:
    from onnx import NodeProto


@dataclass(frozen=True)
class Call:
    """A node to be computed. inputs: None for those left out; opset: of the standard operators; doubles: whether the
    file has values of that type."""

    node: NodeProto
    inputs: Sequence[Value | None]
    attributes: dict[str, Any]
    opset: int
    compiler: StageCompiler
    doubles: bool = False

    def at(self, index: int) -> Value | None:
        """Input `index`, None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def given(self) -> list[Value]:
        """All inputs that are not left out."""
        return [value for value in self.inputs if value is not None]

    def pair(self) -> tuple[Value, Value]:
        """Both inputs of a node of two."""
        left, right = self.given()
        return left, right

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
        """The outputs of a node that moves entries of its inputs `data` (none named: all) about, as ONNX's evaluator
        moves their numbers (onnx_evaluation.py)."""
        data = data or tuple(range(len(self.inputs)))
        return moved(self.inputs, data, lambda given: evaluate_node(self.node, given, self.opset))


Handler = Callable[[Call], Value | list[Value]]
