"""What the handlers of ATen operators are given, and operators that only move entries about, run in torch itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.data.extras import install_line
from toolkit.networks.importers import values
from toolkit.networks.importers.compiler import StageCompiler
from toolkit.networks.importers.tensors import AffineTensor
from toolkit.networks.importers.values import Value

MOVES = frozenset(
    (
        *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "permute", "transpose", "t", "numpy_T", "squeeze"),
        *(
            "unsqueeze",
            "expand",
            "expand_as",
            "repeat",
            "tile",
            "slice",
            "select",
            "narrow",
            "split",
            "chunk",
            "unbind",
        ),
        *("split_with_sizes", "cat", "stack", "flip", "roll", "rot90", "index", "index_select", "gather", "where"),
        *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "upsample_nearest1d", "upsample_nearest2d", "movedim"),
        *("reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d", "diagonal", "fill", "copy"),
        *("select_scatter", "slice_scatter", "im2col", "unfold", "view_as", "reshape_as", "swapaxes", "tril", "triu"),
        *("tensor_split", "hsplit", "vsplit", "as_strided", "repeat_interleave", "broadcast_to", "concat", "hstack"),
        *(
            "unbind",
            "atleast_2d",
            "atleast_3d",
            "_reshape_alias",
            "view_copy",
            "expand_copy",
            "permute_copy",
            "slice_copy",
        ),
    )
)
SHAPED = ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "new_empty")  # constants


@dataclass(frozen=True)
class AtenCall:
    """A call of an operator. arguments: by the names of its schema, torch tensors where they are constants; doubles:
    whether the module has, or may have, values of that type."""

    arguments: Mapping[str, Any]
    compiler: StageCompiler
    doubles: bool

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    def tensor(self, name: str = "self") -> AffineTensor:
        """An argument that must be computed from the network's input."""
        found = self.arguments.get(name)
        if not isinstance(found, AffineTensor):
            raise ValueError(f"its argument {name!r} must depend on the input, the others not")
        return found

    def value(self, name: str) -> Value:
        """An argument as a value; numbers are constants too."""
        found = self.arguments.get(name)
        return found if isinstance(found, AffineTensor) else constant(found, name)

    def parameter(self, name: str) -> FloatArray | None:
        """An argument that must be a constant, None where it is left out."""
        found = self.arguments.get(name)
        return None if found is None else values.floating(self.value(name), name)

    def sample(self, name: str) -> tuple[AffineTensor, Callable[[AffineTensor], AffineTensor]]:
        """Features without their batch axis, and what puts it back."""
        x = self.tensor(name)
        if x.shape[:1] != (1,) or len(x.shape) < 3:
            raise ValueError(f"the features must have shape (1, channels, …), got {x.shape}")
        return x.reshape(x.shape[1:]), lambda made: made.reshape((1, *made.shape))


def constant(given: Any, name: str) -> FloatArray:
    """A constant argument as float64. Raises ValueError for anything that float64 would not hold as it is."""
    import torch

    if isinstance(given, int | float) and not isinstance(given, bool):
        return np.array(float(given))
    if not isinstance(given, torch.Tensor) or given.is_complex() or given.is_quantized:
        raise ValueError(f"its argument {name!r} must be real numbers, got {type(given).__name__}")
    return np.array(given.detach().cpu().double().numpy())


def moved_by_torch(target: Any, leaves: Sequence[Any], rebuild: Callable[[list[Any]], tuple[Any, Any]]) -> list[Value]:
    """The outputs of an operator that moves entries about, run on their numbers, from 1: it may fill with 0.

    leaves: its arguments in a row; rebuild: from them, its positional and named ones.
    """
    torch = import_torch()

    def is_data(leaf: Any) -> bool:
        return isinstance(leaf, AffineTensor) or (isinstance(leaf, torch.Tensor) and leaf.is_floating_point())

    data = [k for k, leaf in enumerate(leaves) if is_data(leaf)]
    own = [leaves[k] for k in data]
    given = [leaf if isinstance(leaf, AffineTensor) else constant(leaf, "an operand") for leaf in own]

    def run(numbers: Sequence[Any]) -> list[Any]:
        numbered = list(leaves)
        for k, rows in zip(data, numbers, strict=True):
            numbered[k] = torch.as_tensor(np.asarray(rows + 1.0))
        args, named = rebuild(numbered)
        found = target(*args, **named)
        tensors = [found] if isinstance(found, torch.Tensor) else list(found)
        return [np.asarray(tensor.numpy()) - 1 for tensor in tensors]

    return values.moved(given, range(len(given)), run)


def import_torch() -> ModuleType:
    """The torch package; ValueError says how to install it."""
    try:
        import torch
    except ImportError:
        raise ValueError(f"reading torch networks needs torch: {install_line('torch')}") from None
    package: ModuleType = torch
    return package
