"""Networks from any torch module: torch.export's graph of it, in evaluation mode and double precision, compiled."""

from __future__ import annotations

import logging
import operator
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.networks.importers.compiler import StageCompiler
from toolkit.networks.importers.tensors import AffineTensor, check_size
from toolkit.networks.importers.torch_calls import MOVES, SHAPED, AtenCall, import_torch, moved_by_torch
from toolkit.networks.importers.torch_operators import ATEN_HANDLERS, TUPLES, aten_obstacle
from toolkit.networks.importers.values import Value

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node
    from torch.nn import Module

_NAMED = 8  # obstacles that an error lists
_ORDER_KEEPING = ("softmax", "_softmax", "log_softmax", "_log_softmax", "sigmoid")
_SHAPE_ONLY = ("view", "reshape", "flatten", "squeeze", "unsqueeze", "clone", "contiguous", "alias")


@dataclass(frozen=True)
class Exported:
    """A module compiled to stages. dropped: the final operator left out, which keeps the order of the outputs.

    replay: what computes the same output as the stages; the module itself where nothing is dropped.
    """

    compiler: StageCompiler
    output: AffineTensor
    dropped: str | None
    replay: Module | None


def compile_module(module: Module, shape: Sequence[int], kind: str, doubles: bool) -> Exported:
    """The stages of a module in double precision, for one input of this shape without its batch axis.

    kind: the class that errors name. doubles: whether it may have had values of that type before. Raises ValueError
    naming every part of the module that cannot go.
    """
    torch = import_torch()
    example = torch.zeros((1, *shape), dtype=torch.float64)
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # what cannot go is said by the error
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # what torch says of its own code
            program = torch.export.export(module, (example,), strict=False).run_decompositions({})
    except Exception as error:  # the module's own code runs, and may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        said = f"cannot import a module of class {kind} for inputs of shape {tuple(shape)}"
        raise ValueError(f"{said}: {reason}") from None
    finally:
        logging.disable(before)
    return _Walk(program, StageCompiler(shape), kind, doubles).exported()


class _Walk:
    """A walk along the exported graph; `values` holds tensors, constants and lists of them by node."""

    def __init__(self, program: ExportedProgram, compiler: StageCompiler, kind: str, doubles: bool) -> None:
        self.program, self.compiler, self.kind, self.doubles = program, compiler, kind, doubles
        self.values: dict[Node, Any] = {}
        self.unknown: set[Node] = set()
        self.obstacles: dict[str, None] = {}  # in order, once each

    def exported(self) -> Exported:
        """The compiled graph."""
        wanted, dropped = self._output()
        self._place_inputs()
        for node in self.program.graph.nodes:
            if node.op == "call_function" and node is not dropped:
                self._step(node)
            if node is wanted:
                break
        if self.obstacles:
            named = list(self.obstacles)
            more = f"; and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
            raise ValueError(f"cannot import a module of class {self.kind}: {'; '.join(named[:_NAMED])}{more}")
        output = self.values[wanted]
        if not isinstance(output, AffineTensor):
            raise ValueError(f"cannot import a module of class {self.kind}: its output does not depend on its input")
        if dropped is None:
            return Exported(self.compiler, output, None, None)
        name = _name(dropped)
        if name != "sigmoid" and output.shape[dropped.args[1]] != output.size:
            raise ValueError(f"cannot import a module of class {self.kind}: its {name} acts on parts of the outputs")
        return Exported(self.compiler, output, name.strip("_"), self._cut(wanted))

    def _output(self) -> tuple[Node, Node | None]:
        """The node to take as the output, and the one that keeps the order and is left out."""
        last = next(node for node in self.program.graph.nodes if node.op == "output")
        results = last.args[0]
        import_torch()
        if len(results) != 1 or not hasattr(results[0], "op"):
            raise ValueError(f"{self.kind} must give one row of outputs per input, got {len(results)} results")
        node = results[0]
        inner = node
        while inner.op == "call_function" and _name(inner) in _SHAPE_ONLY:
            inner = inner.args[0]
        if inner.op == "call_function" and _name(inner) in _ORDER_KEEPING:
            return inner.args[0], inner
        return node, None

    def _cut(self, wanted: Node) -> Module:
        """The exported module up to a node."""
        module = self.program.module()
        end = next(node for node in module.graph.nodes if node.op == "output")
        same = next(node for node in module.graph.nodes if node.name == wanted.name)
        end.args = (same,)
        module.graph.eliminate_dead_code()
        module.graph._codegen = import_torch().fx.graph.CodeGen()
        module.recompile()
        return module

    def _place_inputs(self) -> None:
        """The values of parameters, buffers and constants, and the input."""
        stored = {**self.program.state_dict, **self.program.constants}
        for spec, node in zip(
            self.program.graph_signature.input_specs,
            (node for node in self.program.graph.nodes if node.op == "placeholder"),
            strict=True,
        ):
            if spec.target is None:
                self.values[node] = self.compiler.input.reshape((1, *self.compiler.input_shape))
            else:
                self.values[node] = stored[spec.target].detach()

    def _step(self, node: Node) -> None:
        if self.unknown.intersection(node.all_input_nodes):
            self.unknown.add(node)
            return
        try:
            self.values[node] = self._computed(node)
        except ValueError as error:
            self.unknown.add(node)
            self.obstacles[f"{_where(node)}: {error}"] = None

    def _computed(self, node: Node) -> Any:
        torch = import_torch()
        for made in torch.utils._pytree.tree_leaves(node.meta.get("val")):
            check_size(made.numel() if isinstance(made, torch.Tensor) else 1, f"what {_name(node)} gives")
        target, name = node.target, _name(node)
        args, named = torch.fx.node.map_arg((node.args, node.kwargs), self.values.__getitem__)
        leaves, structure = torch.utils._pytree.tree_flatten((args, named))
        if target is operator.getitem:
            whole, index = args
            return whole[index]
        if name in SHAPED:
            leaves = [torch.zeros(v.shape, dtype=torch.float64) if isinstance(v, AffineTensor) else v for v in leaves]
        if not any(isinstance(leaf, AffineTensor) for leaf in leaves):
            if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()):
                raise ValueError(f"{name} is random")
            args, named = structure.unflatten(leaves)
            return target(*args, **named)
        if name in MOVES:
            found = [_held(value) for value in moved_by_torch(target, leaves, structure.unflatten)]
            single = len(target._schema.returns) == 1 and str(target._schema.returns[0].type) == "Tensor"
            return found[0] if single else found
        if name not in ATEN_HANDLERS:
            raise ValueError(aten_obstacle(name))
        value = _held(ATEN_HANDLERS[name](AtenCall(_arguments(target, args, named), self.compiler, self.doubles)))
        return [value] if name in TUPLES else value


def _held(value: Value) -> Any:
    """A value as the walk holds it: constants are torch tensors."""
    return value if isinstance(value, AffineTensor) else import_torch().as_tensor(value)


def _arguments(target: Any, args: Sequence[Any], named: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, defaults among them."""
    found = {}
    for k, argument in enumerate(target._schema.arguments):
        default = argument.default_value if argument.has_default_value() else None
        found[argument.name] = args[k] if k < len(args) else named.get(argument.name, default)
    return found


def _name(node: Node) -> str:
    """The operator's name without its overload."""
    schema = getattr(node.target, "_schema", None)
    return str(node.target) if schema is None else str(schema.name).split("::")[-1]


def _where(node: Node) -> str:
    """The innermost module that a node belongs to, its path and class."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    if not stack:
        return "the module"
    path, kind = stack[-1]
    shown = str(kind if isinstance(kind, str) else kind.__name__).rsplit(".", 1)[-1]
    return f"module {path!r} ({shown})" if path else f"the module's own forward ({shown})"
