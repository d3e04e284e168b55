"""Networks from torch modules in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from toolkit.importers.chain import OperationChain, as_array
from toolkit.network import Network

ALLOWED = (
    "Sequential, Linear, Conv2d, ReLU, Flatten, BatchNorm1d, BatchNorm2d, AvgPool2d, Identity, Dropout, "
    "and a module named *Normal* with mean and std"
)


def import_torch() -> Any:
    """The torch package; ValueError says how to install it."""
    try:
        import torch
    except ImportError:
        raise ValueError("reading torch networks needs torch: pip install 'relugap[train]'") from None
    return torch


def from_torch(module: Any, input_shape: Sequence[int] | None = None, name: str = "") -> Network:
    """The ReLU network that a torch.nn.Sequential computes in evaluation mode, in float64.

    module: Sequential, nested or not, of Linear, Conv2d (zero padding), ReLU, Flatten, BatchNorm1d/2d, AvgPool2d,
    Identity, Dropout, and input normalisation (x − mean)/std (a class named *Normal* with `mean` and `std`).
    input_shape: without the batch axis, e.g. (1, 28, 28); None reads it off a leading Linear or BatchNorm1d.
    Neighbouring affine maps are merged. Raises ValueError for any other module, naming its class.

    Checked: the network agrees with the module's own output at three random points, to 1e-3 of their scale (more in
    half precision), so that an overridden `forward` is refused. Trusted: that this holds everywhere. The module is
    left as it was.
    """
    import_torch()
    leaves = list(_leaves(module))
    chain = OperationChain(_first_shape(leaves) if input_shape is None else input_shape)
    for leaf in leaves:
        _append(chain, leaf)
    network = chain.network(name)
    _check_replay(module, network)
    return network


def _leaves(module: Any) -> Iterator[Any]:
    torch = import_torch()
    if isinstance(module, torch.nn.Sequential):
        for child in module:
            yield from _leaves(child)
    else:
        yield module


def _first_shape(leaves: Sequence[Any]) -> tuple[int, ...]:
    nn = import_torch().nn
    for leaf in leaves:
        if isinstance(leaf, nn.Linear):
            return (int(leaf.in_features),)
        if isinstance(leaf, nn.BatchNorm1d):
            return (int(leaf.num_features),)
        if not isinstance(leaf, nn.Flatten | nn.Identity | nn.ReLU | nn.Dropout):
            raise ValueError(f"input_shape is needed before {type(leaf).__name__}, e.g. input_shape=(1, 28, 28)")
    raise ValueError("the module has no affine layer")


def _append(chain: OperationChain, leaf: Any) -> None:
    nn = import_torch().nn
    handlers: list[tuple[Any, Callable[[OperationChain, Any], None]]] = [
        (nn.Linear, _linear),
        (nn.Conv2d, _conv),
        (nn.ReLU, lambda chain, _: chain.relu()),
        (nn.Flatten, _flatten),
        ((nn.BatchNorm1d, nn.BatchNorm2d), _batch_norm),
        (nn.AvgPool2d, _average_pool),
        ((nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d), lambda chain, _: None),
    ]
    for kinds, handler in handlers:
        if isinstance(leaf, kinds):
            handler(chain, leaf)
            return
    if "Normal" in type(leaf).__name__ and hasattr(leaf, "mean") and hasattr(leaf, "std"):
        _normalize(chain, leaf)
        return
    raise ValueError(f"cannot import a module of class {type(leaf).__name__}; allowed: {ALLOWED}")


def _linear(chain: OperationChain, leaf: Any) -> None:
    chain.dense(as_array(leaf.weight), None if leaf.bias is None else as_array(leaf.bias))


def _conv(chain: OperationChain, leaf: Any) -> None:
    if leaf.padding_mode != "zeros":
        raise ValueError(f"Conv2d padding_mode must be 'zeros', got {leaf.padding_mode!r}")
    if leaf.padding == "valid":
        before = after = (0, 0)
    elif leaf.padding == "same":
        total = [d * (k - 1) for d, k in zip(leaf.dilation, leaf.kernel_size, strict=True)]
        before, after = (total[0] // 2, total[1] // 2), (total[0] - total[0] // 2, total[1] - total[1] // 2)
    else:
        before = after = leaf.padding
    bias = None if leaf.bias is None else as_array(leaf.bias)
    chain.conv(as_array(leaf.weight), bias, leaf.stride, before, after, leaf.dilation, leaf.groups)


def _flatten(chain: OperationChain, leaf: Any) -> None:
    if leaf.start_dim != 1 or leaf.end_dim not in (-1, len(chain.shape)):
        raise ValueError(f"Flatten must keep the batch axis only (start_dim=1, end_dim=-1), got {leaf}")
    chain.reshape((chain.size,))


def _batch_norm(chain: OperationChain, leaf: Any) -> None:
    if leaf.running_mean is None:
        raise ValueError(f"{type(leaf).__name__} has no running statistics, so its evaluation form is not affine")
    ones = np.ones(leaf.num_features)
    gamma, beta = (ones, 0 * ones) if leaf.weight is None else (as_array(leaf.weight), as_array(leaf.bias))
    chain.batch_norm(gamma, beta, as_array(leaf.running_mean), as_array(leaf.running_var), leaf.eps)


def _average_pool(chain: OperationChain, leaf: Any) -> None:
    kernel, stride, padding = (
        (v, v) if isinstance(v, int) else tuple(v) for v in (leaf.kernel_size, leaf.stride, leaf.padding)
    )
    if leaf.ceil_mode or (any(padding) and not leaf.count_include_pad):
        raise ValueError("AvgPool2d must have ceil_mode=False, and count_include_pad=True when it pads")
    chain.average_pool(kernel, stride, padding, leaf.divisor_override)


def _normalize(chain: OperationChain, leaf: Any) -> None:
    torch = import_torch()
    mean, std = (as_array(torch.as_tensor(v)) for v in (leaf.mean, leaf.std))
    channels, axes = chain.shape[0], len(chain.shape)

    def per_channel(values: Any) -> Any:
        """One value per channel, for values of shape (), (C,), (C, 1, 1) or (1, C, 1, 1)."""
        if values.size not in (1, channels):
            raise ValueError(f"{type(leaf).__name__} must have 1 or {channels} values, got shape {values.shape}")
        return values.reshape(-1, *(1,) * (axes - 1))

    if np.any(std == 0):
        raise ValueError(f"{type(leaf).__name__} must have std ≠ 0, got {std.tolist()}")
    chain.normalize(per_channel(mean), per_channel(std))


def _check_replay(module: Any, network: Network) -> None:
    """Raise ValueError unless network and module agree at random points of the network's input shape."""
    torch = import_torch()
    dtype, device = _home(module)
    points = np.random.default_rng(0).uniform(-1, 1, (3, *network.input_shape))
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.no_grad():
            expected = as_array(module(torch.as_tensor(points, dtype=dtype, device=device))).reshape(3, -1)
    except RuntimeError as error:
        raise ValueError(f"{type(module).__name__} fails on inputs of shape {network.input_shape}: {error}") from None
    finally:
        for part in training:
            part.training = True
    found = network.forward(points)
    allowed = max(1e-3, float(torch.finfo(dtype).eps) ** 0.5) * float(np.max(np.abs(expected))) + 1e-6
    if expected.shape != found.shape or not np.max(np.abs(found - expected)) <= allowed:
        raise ValueError(
            f"the layers of {type(module).__name__} do not add up to its own output: is a forward method overridden?"
        )


def _home(module: Any) -> tuple[Any, Any]:
    """dtype and device of the module's first parameter."""
    torch = import_torch()
    first = next(iter(module.parameters()), torch.zeros(()))
    return first.dtype, first.device
