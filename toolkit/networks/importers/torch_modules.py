"""Networks from torch modules in evaluation mode.

A module counts as what its class says only while its class's own forward computes it: a class that overrides forward
and a forward set on the module are exported (torch_export.py), hooks are refused. On top, module and network are
compared at points of five scales, in double precision, every output relative to its own size (torch_replay.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray
from toolkit.data.arguments import whole_numbers
from toolkit.networks.importers.chain import OperationChain, as_array
from toolkit.networks.importers.torch_calls import import_torch
from toolkit.networks.importers.torch_export import compile_module
from toolkit.networks.importers.torch_replay import check_torch_replay, in_double, may_have_doubles, refresh
from toolkit.networks.parts import NetworkParts

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn import Module

_Handler = Callable[[OperationChain, "Module"], None]
COMPUTING = (
    "forward",
    "__call__",
    "_wrapped_call_impl",
    "_call_impl",
    "_slow_forward",
    "_conv_forward",
)  # in torch's classes


class _NotSequentialError(ValueError):
    """A module that is not one of those read by their class: its own forward has to be looked at."""


def read_torch(module: Module, input_shape: Sequence[int] | None = None, name: str = "") -> NetworkParts:
    """The ReLU network that a torch module computes in evaluation mode, in float64.

    module: a Sequential, nested or not, of Linear, Conv2d, ReLU, Flatten, BatchNorm1d/2d, AvgPool2d, Identity, Dropout,
    and input normalisation (x − mean)/std (a class named *Normal* with `mean` and `std`) is read module by module. Any
    other one is exported by torch.export and its graph compiled, whatever its forward does, as long as all of it is
    piecewise linear (torch_operators.py); a final Softmax, LogSoftmax or Sigmoid is left out, which stands in
    metadata["dropped"].
    input_shape: without the batch axis, e.g. (1, 28, 28); None reads it off a leading Linear or BatchNorm1d.
    Neighbouring affine maps are merged. Weights are read in evaluation mode, after pruning and weight or spectral
    normalisation. Raises ValueError naming the module that cannot go, and its class.

    Checked: no hook but pruning's and normalisation's; network and module agree at points of five scales (see
    torch_replay.py). Trusted: that *Normal* normalises at other points too, and that a forward that looks at its
    input's values takes the same path everywhere, which torch.export refuses otherwise. The module is left as it was.
    """
    torch = import_torch()
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    _check_hooks(module)
    try:
        leaves = list(_leaves(module))
        for leaf in leaves:
            _handler(leaf)
        with _evaluation_mode(module):
            return _read_sequential(module, leaves, input_shape, name)
    except _NotSequentialError:
        with _evaluation_mode(module):
            return _read_exported(module, input_shape, name)


def _read_sequential(
    module: Module, leaves: Sequence[Module], input_shape: Sequence[int] | None, name: str
) -> NetworkParts:
    chain = OperationChain(_first_shape(leaves) if input_shape is None else input_shape)
    refresh(module, chain.input_shape)
    for leaf in leaves:
        _append(chain, leaf)
    parts = chain.parts(name)
    check_torch_replay(module, chain.stages(), chain.input_shape)
    return parts


def _read_exported(module: Module, input_shape: Sequence[int] | None, name: str) -> NetworkParts:
    kind = type(module).__name__
    shape = whole_numbers("input_shape", _guessed_shape(module) if input_shape is None else input_shape, 1)
    refresh(module, shape)
    try:
        own = in_double(module)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise ValueError(f"cannot import a module of class {kind}: {str(error).splitlines()[0]}") from None
    found = compile_module(own, shape, kind, may_have_doubles(module))
    stages = found.compiler.stages(found.output)
    check_torch_replay(module, stages, shape, found.replay or own)
    metadata = {"dropped": f"the final {found.dropped}, which keeps the order of the outputs"} if found.dropped else {}
    return found.compiler.parts(found.output, name, metadata)


def _guessed_shape(module: Module) -> tuple[int, ...]:
    """The input's shape where the first layer inside is a Linear or BatchNorm1d."""
    nn = import_torch().nn
    for part in module.modules():
        if isinstance(part, nn.Linear):
            return (int(part.in_features),)
        if isinstance(part, nn.BatchNorm1d):
            return (int(part.num_features),)
        if any(True for _ in part.parameters(recurse=False)):
            break
    raise ValueError(
        f"cannot import a module of class {type(module).__name__} without its input_shape, e.g. input_shape=(1, 28, 28)"
    )


@contextmanager
def _evaluation_mode(module: Module) -> Iterator[None]:
    """The module in evaluation mode, without gradients; afterwards as it was."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with import_torch().no_grad():
            yield
    finally:
        for part in training:
            part.training = True


def _leaves(module: Module) -> Iterator[Module]:
    torch = import_torch()
    if isinstance(module, torch.nn.Sequential):
        _check_plain(module, torch.nn.Sequential)
        for child in module:
            yield from _leaves(child)
    else:
        yield module


def _check_plain(module: Module, base: type[Module]) -> None:
    """Raise _NotSequentialError where something besides the base class's forward says what the module computes."""
    kind, home = type(module), "" if type(module) is base else f", a {base.__name__}"
    own = [key for key in COMPUTING if getattr(kind, key, None) is not getattr(base, key, None) or key in vars(module)]
    if own:
        raise _NotSequentialError(f"{kind.__name__}{home} has a forward of its own")


def _check_hooks(module: Module) -> None:
    """Raise ValueError where a hook may change what a module inside computes."""
    from torch.nn.modules import module as everywhere
    from torch.nn.utils.prune import BasePruningMethod
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm

    known = (BasePruningMethod, SpectralNorm, WeightNorm)  # these only set `weight`
    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks:
        raise ValueError("cannot import while forward hooks for all modules are registered; remove them")
    for part in module.modules():
        before = [hook for hook in part._forward_pre_hooks.values() if not isinstance(hook, known)]
        if before or part._forward_hooks:
            raise ValueError(
                f"cannot import {type(part).__name__} with a forward hook: what it computes is unknown; remove it"
            )


def _first_shape(leaves: Sequence[Module]) -> tuple[int, ...]:
    nn = import_torch().nn
    for leaf in leaves:
        if isinstance(leaf, nn.Linear):
            return (int(leaf.in_features),)
        if isinstance(leaf, nn.BatchNorm1d):
            return (int(leaf.num_features),)
        if not isinstance(leaf, nn.Flatten | nn.Identity | nn.ReLU | nn.Dropout):
            raise ValueError(f"input_shape is needed before {type(leaf).__name__}, e.g. input_shape=(1, 28, 28)")
    raise ValueError("the module has no affine layer")


def _handler(leaf: Module) -> _Handler:
    """What appends this module to a chain; ValueError for a module of another class, or one that is not its class's."""
    nn = import_torch().nn
    handlers: dict[type[Module], _Handler] = {
        nn.Linear: _linear,
        nn.Conv2d: _conv,
        nn.ReLU: lambda chain, _: chain.relu(),
        nn.Flatten: _flatten,
        nn.BatchNorm1d: _batch_norm,
        nn.BatchNorm2d: _batch_norm,
        nn.AvgPool2d: _average_pool,
        **dict.fromkeys((nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d), lambda chain, _: None),
    }
    for base, handler in handlers.items():
        if isinstance(leaf, base):
            _check_plain(leaf, base)
            return handler
    kind = type(leaf).__name__
    if "Normal" in kind and hasattr(leaf, "mean") and hasattr(leaf, "std"):
        _check_plain(leaf, type(leaf))
        return _normalize
    raise _NotSequentialError(f"{kind} is not read by its class")


def _append(chain: OperationChain, leaf: Module) -> None:
    try:
        _handler(leaf)(chain, leaf)
    except _NotSequentialError:
        raise
    except ValueError as error:
        raise ValueError(f"{type(leaf).__name__}: {error}") from None


def _linear(chain: OperationChain, leaf: nn.Linear) -> None:
    chain.dense(as_array(leaf.weight), None if leaf.bias is None else as_array(leaf.bias))


def _conv(chain: OperationChain, leaf: nn.Conv2d) -> None:
    if leaf.padding_mode != "zeros":
        raise _NotSequentialError(f"padding_mode must be 'zeros', got {leaf.padding_mode!r}")
    if leaf.padding == "valid":
        before = after = (0, 0)
    elif leaf.padding == "same":
        total = [d * (k - 1) for d, k in zip(leaf.dilation, leaf.kernel_size, strict=True)]
        before, after = (total[0] // 2, total[1] // 2), (total[0] - total[0] // 2, total[1] - total[1] // 2)
    else:
        before = after = leaf.padding
    bias = None if leaf.bias is None else as_array(leaf.bias)
    chain.conv(as_array(leaf.weight), bias, leaf.stride, before, after, leaf.dilation, leaf.groups)


def _flatten(chain: OperationChain, leaf: nn.Flatten) -> None:
    if leaf.start_dim != 1 or leaf.end_dim not in (-1, len(chain.shape)):
        raise _NotSequentialError(f"Flatten must keep the batch axis only (start_dim=1, end_dim=-1), got {leaf}")
    chain.reshape((chain.size,))


def _batch_norm(chain: OperationChain, leaf: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    if leaf.running_mean is None or leaf.running_var is None:
        raise ValueError("it has no running statistics, so its evaluation form is not affine")
    gamma = np.ones(leaf.num_features) if leaf.weight is None else as_array(leaf.weight)
    beta = np.zeros(leaf.num_features) if leaf.bias is None else as_array(leaf.bias)
    chain.batch_norm(gamma, beta, as_array(leaf.running_mean), as_array(leaf.running_var), leaf.eps)


def _average_pool(chain: OperationChain, leaf: nn.AvgPool2d) -> None:
    kernel, stride, padding = (
        (v, v) if isinstance(v, int) else tuple(v) for v in (leaf.kernel_size, leaf.stride, leaf.padding)
    )
    if leaf.ceil_mode or (any(padding) and not leaf.count_include_pad):
        raise _NotSequentialError("must have ceil_mode=False, and count_include_pad=True when it pads")
    chain.average_pool(kernel, stride, padding, leaf.divisor_override)


def _normalize(chain: OperationChain, leaf: Module) -> None:
    torch = import_torch()
    channels, axes = chain.shape[0], len(chain.shape)

    def per_channel(values: Tensor | ArrayLike) -> FloatArray:
        """One value per channel, for values of shape (), (C,), (C, 1, 1) or (1, C, 1, 1)."""
        tensor = values if isinstance(values, torch.Tensor) else torch.as_tensor(values, dtype=torch.float64)
        array = as_array(tensor)
        if array.size not in (1, channels):
            raise ValueError(f"must have 1 or {channels} values, got shape {array.shape}")
        return np.reshape(array, (-1, *(1,) * (axes - 1)))

    mean, std = per_channel(leaf.mean), per_channel(leaf.std)
    if np.any(std == 0):
        raise ValueError(f"must have std ≠ 0, got {std.ravel().tolist()}")
    chain.normalize(mean, std)
