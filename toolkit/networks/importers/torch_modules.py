"""Networks from torch modules in evaluation mode.

A module counts as what its class says only while its class's own forward computes it: a class that overrides forward,
a forward set on the module and hooks are refused by name, whatever they do. On top, module and network are compared at
points of five scales, in double precision, every output relative to its own size.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray
from toolkit.networks.importers.chain import OperationChain, as_array
from toolkit.networks.parts import NetworkParts

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.nn import Module

_Handler = Callable[[OperationChain, "Module"], None]
ALLOWED_MODULES = (
    "Sequential, Linear, Conv2d, ReLU, Flatten, BatchNorm1d, BatchNorm2d, AvgPool2d, Identity, Dropout, "
    "and a module named *Normal* with mean and std"
)
COMPUTING = (
    "forward",
    "__call__",
    "_wrapped_call_impl",
    "_call_impl",
    "_slow_forward",
    "_conv_forward",
)  # in torch's classes
SCALES = (0.0, 1e-3, 1.0, 30.0, 1e3)  # of the points compared: from biases alone to weights alone
POINTS = 4  # per scale, half of them in the positive orthant
AGREEMENT = 1e-7  # relative to the largest value of that output at points of that scale, in double precision
REPLAY_ULPS = 64  # units in the last place of an output's own sum of absolute terms


def import_torch() -> ModuleType:
    """The torch package; ValueError says how to install it."""
    try:
        import torch
    except ImportError:
        raise ValueError("reading torch networks needs torch: pip install 'relugap[train]'") from None
    package: ModuleType = torch
    return package


def read_torch(module: Module, input_shape: Sequence[int] | None = None, name: str = "") -> NetworkParts:
    """The ReLU network that a torch.nn.Sequential computes in evaluation mode, in float64.

    module: Sequential, nested or not, of Linear, Conv2d (zero padding), ReLU, Flatten, BatchNorm1d/2d, AvgPool2d,
    Identity, Dropout, and input normalisation (x − mean)/std (a class named *Normal* with `mean` and `std`).
    input_shape: without the batch axis, e.g. (1, 28, 28); None reads it off a leading Linear or BatchNorm1d.
    Neighbouring affine maps are merged. Weights are read in evaluation mode, after pruning and weight or spectral
    normalisation. Raises ValueError for any other module, naming its class.

    Checked: no class but *Normal* has a forward of its own, no hook but pruning's and normalisation's; network and
    module agree at points of five scales (see `_check_replay`). Trusted: that *Normal* normalises at other points too.
    The module is left as it was.
    """
    import_torch()
    leaves = list(_leaves(module))
    for leaf in leaves:
        _handler(leaf)
    with _evaluation_mode(module):
        chain = OperationChain(_first_shape(leaves) if input_shape is None else input_shape)
        _refresh(module, chain.input_shape)
        for leaf in leaves:
            _append(chain, leaf)
        parts = chain.parts(name)
        _check_replay(module, parts)
    return parts


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
    """Raise ValueError where something besides the base class's forward may change what the module computes."""
    kind, home = type(module), "" if type(module) is base else f", a {base.__name__}"
    own = [key for key in COMPUTING if getattr(kind, key, None) is not getattr(base, key, None) or key in vars(module)]
    if own:
        raise ValueError(f"cannot import {kind.__name__}{home} with a forward of its own: what it computes is unknown")
    from torch.nn.utils.prune import BasePruningMethod
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm

    known = (BasePruningMethod, SpectralNorm, WeightNorm)  # these only set `weight`
    from torch.nn.modules import module as everywhere

    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks:
        raise ValueError("cannot import while forward hooks for all modules are registered; remove them")
    before = [hook for hook in module._forward_pre_hooks.values() if not isinstance(hook, known)]
    if before or module._forward_hooks:
        raise ValueError(f"cannot import {kind.__name__} with a forward hook: what it computes is unknown; remove it")


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
    inside = [key for key, child in getattr(leaf, "_modules", {}).items() if isinstance(child, nn.Sequential)]
    hint = f"; is its attribute {inside[0]!r}, a Sequential, the network you mean?" if inside else ""
    raise ValueError(f"cannot import a module of class {kind}; allowed: {ALLOWED_MODULES}{hint}")


def _append(chain: OperationChain, leaf: Module) -> None:
    try:
        _handler(leaf)(chain, leaf)
    except ValueError as error:
        raise ValueError(f"{type(leaf).__name__}: {error}") from None


def _linear(chain: OperationChain, leaf: nn.Linear) -> None:
    chain.dense(as_array(leaf.weight), None if leaf.bias is None else as_array(leaf.bias))


def _conv(chain: OperationChain, leaf: nn.Conv2d) -> None:
    if leaf.padding_mode != "zeros":
        raise ValueError(f"padding_mode must be 'zeros', got {leaf.padding_mode!r}")
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
        raise ValueError(f"Flatten must keep the batch axis only (start_dim=1, end_dim=-1), got {leaf}")
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
        raise ValueError("must have ceil_mode=False, and count_include_pad=True when it pads")
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


def _points(shape: Sequence[int]) -> list[FloatArray]:
    """Points of each scale, shape (POINTS, *shape): half of both signs, so that neurons switch, half positive."""
    rng = np.random.default_rng(0)
    signs = np.array([-1.0] * (POINTS // 2) + [0.0] * (POINTS - POINTS // 2)).reshape(-1, *(1,) * len(shape))
    return [scale * rng.uniform(np.broadcast_to(signs, (POINTS, *shape)), 1.0) for scale in SCALES]


def _refresh(module: Module, shape: Sequence[int]) -> None:
    """Run the module once: pruning and weight normalisation renew `weight` in a hook before each forward."""
    if any(part._forward_pre_hooks for part in module.modules()):
        _output(module, np.zeros((1, *shape)), *_home(module))


def _in_double(module: Module) -> Module:
    """A copy in double precision, with the weights that pruning and normalisation give now, to the last bit."""
    torch = import_torch()
    from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

    own = copy.deepcopy(module).cpu()
    for part in list(own.modules()):
        made: dict[str, Tensor] = {}
        if is_parametrized(part):
            made = {name: getattr(part, name) for name in part.parametrizations}
            part.__class__ = type_before_parametrizations(part)  # torch's own remover would change the original's class
            del part.parametrizations
        elif part._forward_pre_hooks:
            made = {key: value for key, value in vars(part).items() if isinstance(value, torch.Tensor)}
            part._forward_pre_hooks.clear()
        for name, values in made.items():
            vars(part).pop(name, None)
            part.register_parameter(name, torch.nn.Parameter(values.detach().clone()))
    return own.double()


def _check_replay(module: Module, parts: NetworkParts) -> None:
    """Raise ValueError unless maps and module agree at points of every scale, on every output by itself.

    The module is run in double precision, where only summation order separates the two: |difference| ≤ 1e-7 of that
    output's largest value at that scale, plus its rounding (64 ulp of Σ|w||x| through the layers). A module that
    cannot be copied to double runs in its own precision, with both terms in that precision's ulps.
    """
    torch = import_torch()
    dtype, device = torch.float64, "cpu"
    try:
        run = _in_double(module)
    except (RuntimeError, TypeError, NotImplementedError):
        run, (dtype, device) = module, _home(module)
    eps = float(torch.finfo(dtype).eps)
    for points in _points(parts.input_shape):
        expected = _output(run, points, dtype, device)
        given = as_array(torch.as_tensor(points, dtype=dtype))  # as the module sees them
        found = _forward(parts, given)
        if expected.shape != found.shape:
            raise ValueError(f"{type(module).__name__} has outputs {expected.shape}, its layers give {found.shape}")
        own_size = np.max(np.abs(expected), axis=0)
        allowed = max(AGREEMENT, 16 * eps) * own_size + REPLAY_ULPS * eps * _magnitude(parts, given)
        if not np.all(np.abs(found - expected) <= allowed):
            where = int(np.argmax(np.max(np.abs(found - expected) - allowed, axis=0)))
            raise ValueError(
                f"the layers of {type(module).__name__} do not add up to its own output {where}: at an input of size "
                f"{np.max(np.abs(points)):g} they differ by {np.max(np.abs(found - expected)[:, where]):.3g}"
            )


def _forward(parts: NetworkParts, points: FloatArray) -> FloatArray:
    """The outputs of the maps with ReLUs between them. Shapes: (k, *input_shape) → (k, outputs)."""
    values: FloatArray = points.reshape(len(points), -1)
    for k, layer in enumerate(parts.layers):
        values = np.asarray(layer.forward(np.maximum(values, 0.0) if k else values))
    return values


def _magnitude(parts: NetworkParts, points: FloatArray) -> FloatArray:
    """Σ|w||x| + |b| through the layers, the largest over the points, shape (outputs,): what rounding is relative to."""
    size: FloatArray = np.max(np.abs(points.reshape(len(points), -1)), axis=0)
    for layer in parts.layers:
        matrix = layer.to_sparse().copy()  # scipy may sort a matrix's entries in place, which its digest would show
        size = np.asarray(abs(matrix) @ size + np.abs(layer.bias_vector), dtype=np.float64)
    return size


def _output(module: Module, points: FloatArray, dtype: torch.dtype, device: torch.device | str) -> FloatArray:
    """The module's output at points, shape (points, outputs)."""
    torch = import_torch()
    try:
        values = module(torch.as_tensor(points, dtype=dtype, device=device))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{type(module).__name__} fails on inputs of shape {points.shape[1:]}: {reason}") from None
    if not isinstance(values, torch.Tensor) or values.shape[:1] != (len(points),):
        raise ValueError(f"{type(module).__name__} must give one row of outputs per input, got {type(values).__name__}")
    return as_array(values).reshape(len(points), -1)


def _home(module: Module) -> tuple[torch.dtype, torch.device]:
    """dtype and device of the module's first floating-point parameter or buffer."""
    torch = import_torch()
    tensors = (tensor for group in (module.parameters(), module.buffers()) for tensor in group)
    first = next((tensor for tensor in tensors if tensor.dtype.is_floating_point), torch.zeros(()))
    return first.dtype, first.device
