"""Networks from .pth state dicts: the weights, read without torch, plus the architecture, which the file does not hold.

The weights of a Tanh network, of one with skip connections or of one that normalises its input in `forward` look like
those of a ReLU network, so the architecture is never guessed: the caller names it, and what was assumed is kept in the
network's metadata under "assumed". Checked: every entry of the file is used, once, in order, and shapes chain.
Trusted: that the file's network is the one named.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.networks.importers.chain import OperationChain
from toolkit.networks.importers.stored_tensors import PickleError, StoredTensor
from toolkit.networks.importers.torch_files import TorchFile, open_torch_file
from toolkit.networks.parts import NetworkParts


@dataclass(frozen=True)
class Architecture:
    """What a state dict leaves out.

    layers: a specification as `read_state_dict` takes it; None = a linear layer per matrix, ReLUs between.
    """

    description: str
    layers: str | None


STATE_DICT_ARCHITECTURES: dict[str, Architecture] = {
    "mlp": Architecture("linear layers in the file's order with a ReLU between neighbours", None),
    "wong-kolter-small": Architecture(
        "the 16-32-100 convolutional network of Wong & Kolter 2018 for 1×28×28 images",
        "1x28x28 conv(stride=2,padding=1) relu conv(stride=2,padding=1) relu flatten linear relu linear",
    ),
}

EXAMPLE = "1x28x28 conv(stride=2,padding=1) relu flatten linear"
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "model.state")  # where training scripts put state dicts
DEEPEST = 10  # wrappers around each other; a pickle may wrap itself
SHOWN = 6  # entries of the file that an error lists
_Found = TypeVar("_Found")
Parameters = dict[str, FloatArray]  # "weight" and perhaps "bias" of one layer


def read_state_dict(path: str | Path, architecture: str | None = None, name: str = "") -> NetworkParts:
    """The network of a .pth state dict and an architecture.

    architecture: a name in STATE_DICT_ARCHITECTURES, or a specification: the input shape, then one word per operation,
    in order: `linear`, `relu`, `flatten`, `conv(stride=…,padding=…,dilation=…,groups=…)` (all four optional), as in
    "1x28x28 conv(stride=2,padding=1) relu flatten linear", and `normalize(mean=…,std=…)` for (x − mean)/std, both one
    number or one per channel, as in mean=0.49:0.48:0.45. The weights are taken in the file's order. The state dict
    may be wrapped, under one key of WRAPPERS or in a list of one. name: default the file's stem.

    What was assumed stands in metadata["assumed"], as in "mlp (Linear 784→100, ReLU, Linear 100→10)". Raises
    ValueError naming the file for anything that does not fit, and where no architecture is given.

    Checked: every entry is a weight or bias and used once, layers that bear numbers ascend, shapes chain. Trusted: the
    architecture's strides, paddings and ReLUs, and that nothing else happens in the model's forward.
    """
    source = Path(path)
    try:
        modules, layers = _read(source, architecture)
        chain, words = _mlp(modules) if layers is None else _from_specification(layers, modules)
        called = architecture if architecture in STATE_DICT_ARCHITECTURES else "as given"
        return chain.parts(name or source.stem, {"assumed": f"{called} ({', '.join(words)})"})
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def _layers(architecture: str | None, state: dict[str, StoredTensor]) -> str | None:
    """The specification that an architecture stands for, None for "mlp"."""
    named = f"{', '.join(STATE_DICT_ARCHITECTURES)}, or a specification such as {EXAMPLE!r}"
    if architecture is None:
        entries = [f"{str(key)[:60]!r} {'×'.join(map(str, value.shape)) or 'scalar'}" for key, value in state.items()]
        more = f", and {len(entries) - SHOWN} more" if len(entries) > SHOWN else ""
        raise ValueError(
            "a state dict does not say which activations and connections its network has: it needs an architecture "
            f"(--architecture, architecture=); allowed: {named}; the file holds {', '.join(entries[:SHOWN])}{more}"
        )
    if architecture in STATE_DICT_ARCHITECTURES:
        return STATE_DICT_ARCHITECTURES[architecture].layers
    if " " not in architecture.strip():
        raise ValueError(f"unknown architecture {architecture!r}; allowed: {named}")
    return architecture


def _read(path: Path, architecture: str | None) -> tuple[dict[str, Parameters], str | None]:
    """The weights by layer, and the specification of the architecture."""
    try:
        with open_torch_file(path) as file:
            state = _state(file.value)
            layers = _layers(architecture, state)
            return _modules(state, file), layers
    except PickleError as error:
        raise ValueError(f"not a state dict: {error}") from None


def _state(value: object) -> dict[str, StoredTensor]:
    state = _unwrapped(value)
    if not isinstance(state, dict):
        kind = "Tensor" if isinstance(state, StoredTensor) else type(state).__name__
        raise ValueError(f"must hold one state dict, got {kind}")
    if not state:
        raise ValueError("the state dict is empty")
    wrong = [key for key, value in state.items() if not isinstance(value, StoredTensor)]
    if wrong:
        raise ValueError(f"entry {wrong[0]!r} must be a tensor, got {type(state[wrong[0]]).__name__}")
    return state


def _unwrapped(state: Any) -> object:
    """The state dict inside a training script's checkpoint."""
    for _ in range(DEEPEST):
        inner = [key for key in WRAPPERS if isinstance(state, dict) and isinstance(state.get(key), dict | list | tuple)]
        if len(inner) > 1:
            raise ValueError(f"must hold one state dict, got several, under {', '.join(inner)}; save the one you mean")
        if inner:
            state = state[inner[0]]
        elif isinstance(state, list | tuple) and len(state) == 1:
            state = state[0]
        else:
            return state
    raise ValueError(
        f"must hold one state dict, got more than {DEEPEST} wrappers around each other, or one around itself"
    )


def _modules(state: dict[str, StoredTensor], file: TorchFile) -> dict[str, Parameters]:
    """The state dict's tensors by layer, in the file's order."""
    for key, tensor in state.items():
        if str(key).rpartition(".")[2] not in ("weight", "bias"):
            raise ValueError(
                f"entry {key!r} is neither a weight nor a bias, so no architecture here uses it; "
                "load the model and use Network.from_torch"
            )
        _told(key, tensor.check)
    if sum(tensor.size for tensor in state.values()) > file.size:  # a small file would fill the memory so
        raise ValueError("its entries show the same numbers again and again")
    modules: dict[str, Parameters] = {}
    for key, tensor in state.items():
        prefix, _, part = str(key).rpartition(".")
        modules.setdefault(prefix, {})[part] = _told(key, partial(tensor.values, file.content))
    bare = [prefix for prefix, part in modules.items() if "weight" not in part]
    if bare:
        raise ValueError(f"layer {bare[0]!r} has a bias but no weight")
    _check_order(list(modules))
    return modules


def _told(key: str, call: Callable[[], _Found]) -> _Found:
    """What the call gives; its error with the entry's name."""
    try:
        return call()
    except PickleError as error:
        raise ValueError(f"entry {key!r}: {error}") from None


def _check_order(prefixes: list[str]) -> None:
    """Raise ValueError where layers that differ by one number only, as in 0, 2, 4 or fc1, fc2, do not ascend."""
    pieces = [re.split(r"(\d+)", prefix) for prefix in prefixes]
    for k, (before, after) in enumerate(pairwise(pieces)):
        if len(before) == len(after) and before[::2] == after[::2]:
            numbers = [[int(n) for n in piece[1::2]] for piece in (before, after)]
            if numbers[0] > numbers[1]:
                raise ValueError(f"layers must be in order, got {prefixes[k]!r} before {prefixes[k + 1]!r}")


def _mlp(modules: dict[str, Parameters]) -> tuple[OperationChain, list[str]]:
    for prefix, part in modules.items():
        if part["weight"].ndim != 2:
            raise ValueError(f"layer {prefix!r} of an mlp must have a matrix as weight, got {part['weight'].shape}")
    width = next(iter(modules.values()))["weight"].shape[1]
    return _from_specification(f"{width} {' relu '.join(['linear'] * len(modules))}", modules)


def _from_specification(layers: str, modules: dict[str, Parameters]) -> tuple[OperationChain, list[str]]:
    """The operations of a specification, and each in words."""
    shape, *words = layers.split()
    if not re.fullmatch(r"[0-9]+(x[0-9]+)*", shape):
        raise ValueError(f"an architecture starts with the input shape, such as 1x28x28, got {shape!r}")
    chain = OperationChain([int(n) for n in shape.split("x")])
    waiting = list(modules.items())
    said: list[str] = []
    for word in words:
        if word == "relu":
            chain.relu()
            said.append("ReLU")
        elif word == "flatten":
            chain.reshape((chain.size,))
            said.append("Flatten")
        elif word.startswith("normalize"):
            said.append(_normalized(chain, word))
        else:
            if not waiting:
                raise ValueError(f"the architecture asks for {word!r}, but all {len(modules)} layers are used")
            prefix, part = waiting.pop(0)
            try:
                said.append(_weighted(chain, word, part))
            except ValueError as error:
                raise ValueError(f"layer {prefix!r}: {error}") from None
    if waiting:
        raise ValueError(f"the architecture uses {len(modules) - len(waiting)} layers, {waiting[0][0]!r} is left over")
    return chain, said


def _normalized(chain: OperationChain, word: str) -> str:
    """Append (x − mean)/std; what it is in words."""
    numbers = r"[-+.0-9e]+(?::[-+.0-9e]+)*"
    match = re.fullmatch(rf"normalize\(mean=({numbers}),std=({numbers})\)", word)
    try:
        mean, std = ([float(n) for n in text.split(":")] for text in (match.groups() if match else ("", "")))
    except ValueError:
        raise ValueError(
            f"normalize takes numbers, one or one per channel, as in normalize(mean=0.5:0.4:0.5,std=0.25), got {word!r}"
        ) from None
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, chain.shape[0]):
            raise ValueError(f"{name} must be one number or {chain.shape[0]}, one per channel, got {len(values)}")
        if not np.all(np.isfinite(values)):
            raise ValueError(f"{name} must be finite, got {values} in {word!r}")
    if min(std) <= 0:
        raise ValueError(f"std must be > 0, got {min(std)}")
    axes = (1,) * (len(chain.shape) - 1)
    chain.normalize(np.reshape(mean, (-1, *axes)), np.reshape(std, (-1, *axes)))
    return f"(x − {', '.join(f'{m:g}' for m in mean)})/{', '.join(f'{s:g}' for s in std)}"


def _weighted(chain: OperationChain, word: str, part: Parameters) -> str:
    """Append the layer that `word` asks for, with the given parameters; what it is in words."""
    before = "×".join(map(str, chain.shape))
    if word == "linear":
        chain.dense(part["weight"], part.get("bias"))
        return f"Linear {before}→{chain.size}"
    match = re.fullmatch(r"conv(?:\((\w+=[0-9]+(?:,\w+=[0-9]+)*)?\))?", word)
    if match is None:
        raise ValueError(
            f"unknown operation {word!r}; allowed: linear, relu, flatten, conv, conv(stride=2,padding=1), "
            "normalize(mean=0,std=1)"
        )
    options = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    given = [item.split("=") for item in (match[1] or "").split(",") if item]
    for key, value in given:
        if key not in options:
            raise ValueError(f"unknown option {key!r} in {word!r}; allowed: {', '.join(options)}")
        if [other for other, _ in given].count(key) > 1:
            raise ValueError(f"option {key!r} stands twice in {word!r}")
        options[key] = int(value)
    weight = part["weight"]
    if weight.ndim != 4:
        raise ValueError(f"a convolution's weight must have 4 axes, got {np.shape(weight)}")
    stride, padding, dilation = ((options[key],) * 2 for key in ("stride", "padding", "dilation"))
    chain.conv(weight, part.get("bias"), stride, padding, padding, dilation, options["groups"])
    bias = part.get("bias")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"a convolution of {weight.shape[0]} channels has as many biases, got {bias.shape}")
    kernel = "×".join(map(str, weight.shape[2:]))
    said = "".join(f", {key} {value}" for key, value in options.items() if value != (0 if key == "padding" else 1))
    return f"Conv2d {before}→{'×'.join(map(str, chain.shape))} (kernel {kernel}{said})"
