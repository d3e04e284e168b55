"""Networks from .pth state dicts: torch.load(weights_only=True) plus the architecture, which the file does not hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from toolkit.importers.chain import FloatArray, OperationChain, as_array
from toolkit.importers.torch_modules import import_torch
from toolkit.network import Network


@dataclass(frozen=True)
class Architecture:
    """What a state dict leaves out.

    layers: a specification as `from_state_dict_file` takes it; None = a linear layer per matrix, ReLUs between.
    """

    description: str
    layers: str | None


ARCHITECTURES: dict[str, Architecture] = {
    "mlp": Architecture("linear layers in the file's order with a ReLU between neighbours", None),
    "wong-kolter-small": Architecture(
        "the 16-32-100 convolutional network of Wong & Kolter 2018 for 1×28×28 images",
        "1x28x28 conv(stride=2,padding=1) relu conv(stride=2,padding=1) relu flatten linear relu linear",
    ),
}

EXAMPLE = "1x28x28 conv(stride=2,padding=1) relu flatten linear"
Parameters = dict[str, FloatArray]  # "weight" and perhaps "bias" of one layer


def from_state_dict_file(path: str | Path, architecture: str | None = None, name: str = "") -> Network:
    """The network of a .pth state dict and an architecture.

    architecture: a name in ARCHITECTURES, or a specification: the input shape, then one word per operation, in order:
    `linear`, `relu`, `flatten`, `conv(stride=…,padding=…,dilation=…,groups=…)` (all four optional), as in
    "1x28x28 conv(stride=2,padding=1) relu flatten linear". The weights are taken in the file's order. None means "mlp"
    if all weights are matrices. The state dict may be wrapped as {"state_dict": …} or as a list of one.
    name: default the file's stem. Raises ValueError naming the file for anything that does not fit.

    Checked: every parameter is used, once, and shapes chain. Trusted: the architecture's strides, paddings and ReLUs.
    """
    source = Path(path)
    try:
        modules = _modules(_load(source))
        layers = _layers(architecture, modules)
        if layers is None:
            return _mlp(modules).network(name or source.stem)
        return _from_specification(layers, modules).network(name or source.stem)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def _layers(architecture: str | None, modules: dict[str, Parameters]) -> str | None:
    named = f"{', '.join(ARCHITECTURES)}, or a specification such as {EXAMPLE!r}"
    if architecture is None:
        if all(part["weight"].ndim == 2 for part in modules.values()):
            return None
        raise ValueError(f"a state dict with convolutions needs an architecture; allowed: {named}")
    if architecture in ARCHITECTURES:
        return ARCHITECTURES[architecture].layers
    if " " not in architecture.strip():
        raise ValueError(f"unknown architecture {architecture!r}; allowed: {named}")
    return architecture


def _load(path: Path) -> dict[str, Any]:
    torch = import_torch()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise ValueError("not a state dict: only plain tensors are read; save model.state_dict()") from None
    except Exception as error:  # a damaged file surfaces as almost any exception, from EOFError to AttributeError
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"not a state dict that torch.load(weights_only=True) reads: {reason}") from None
    while True:
        if isinstance(state, dict) and "state_dict" in state:
            state = state["state_dict"]
        elif isinstance(state, list | tuple) and len(state) == 1:
            state = state[0]
        else:
            break
    if not isinstance(state, dict):
        raise ValueError(f"must hold one state dict, got {type(state).__name__}")
    wrong = [key for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise ValueError(f"entry {wrong[0]!r} must be a tensor, got {type(state[wrong[0]]).__name__}")
    return state


def _modules(state: dict[str, Any]) -> dict[str, Parameters]:
    """The state dict's tensors by layer, in the file's order."""
    modules: dict[str, Parameters] = {}
    for key, tensor in state.items():
        prefix, _, part = str(key).rpartition(".")
        if part not in ("weight", "bias"):
            raise ValueError(f"entry {key!r} is neither a weight nor a bias; load the model and use Network.from_torch")
        modules.setdefault(prefix, {})[part] = as_array(tensor)
    if not modules:
        raise ValueError("the state dict is empty")
    bare = [prefix for prefix, part in modules.items() if "weight" not in part]
    if bare:
        raise ValueError(f"layer {bare[0]!r} has a bias but no weight")
    return modules


def _mlp(modules: dict[str, Parameters]) -> OperationChain:
    for prefix, part in modules.items():
        if part["weight"].ndim != 2:
            raise ValueError(f"layer {prefix!r} of an mlp must have a matrix as weight, got {part['weight'].shape}")
    chain = OperationChain(next(iter(modules.values()))["weight"].shape[1:])
    for k, (prefix, part) in enumerate(modules.items()):
        if k:
            chain.relu()
        try:
            chain.dense(part["weight"], part.get("bias"))
        except ValueError as error:
            raise ValueError(f"layer {prefix!r}: {error}") from None
    return chain


def _from_specification(layers: str, modules: dict[str, Parameters]) -> OperationChain:
    shape, *words = layers.split()
    if not re.fullmatch(r"\d+(x\d+)*", shape):
        raise ValueError(f"an architecture starts with the input shape, such as 1x28x28, got {shape!r}")
    chain = OperationChain([int(n) for n in shape.split("x")])
    waiting = list(modules.items())
    for word in words:
        if word == "relu":
            chain.relu()
        elif word == "flatten":
            chain.reshape((chain.size,))
        else:
            if not waiting:
                raise ValueError(f"the architecture asks for {word!r}, but all {len(modules)} layers are used")
            prefix, part = waiting.pop(0)
            try:
                _weighted(chain, word, part)
            except ValueError as error:
                raise ValueError(f"layer {prefix!r}: {error}") from None
    if waiting:
        raise ValueError(f"the architecture uses {len(modules) - len(waiting)} layers, {waiting[0][0]!r} is left over")
    return chain


def _weighted(chain: OperationChain, word: str, part: Parameters) -> None:
    """Append the layer that `word` asks for, with the given parameters."""
    if word == "linear":
        chain.dense(part["weight"], part.get("bias"))
        return
    match = re.fullmatch(r"conv(?:\(((?:\w+=\d+,?)*)\))?", word)
    if match is None:
        raise ValueError(f"unknown operation {word!r}; allowed: linear, relu, flatten, conv, conv(stride=2,padding=1)")
    options = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    for item in filter(None, (match[1] or "").split(",")):
        key, _, value = item.partition("=")
        if key not in options:
            raise ValueError(f"unknown option {key!r} in {word!r}; allowed: {', '.join(options)}")
        options[key] = int(value)
    stride, padding, dilation = ((options[key],) * 2 for key in ("stride", "padding", "dilation"))
    chain.conv(part["weight"], part.get("bias"), stride, padding, padding, dilation, options["groups"])
