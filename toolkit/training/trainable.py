"""Networks whose weights are torch tensors with gradients: the same Network, stages and layers, in training.

stage_builder.py makes fresh ones. `frozen` turns the result into a float64 network for certifying; the float32 weights
are exact there, and so are the maps of pooling and skip connections, whose entries are 0 and ±1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import AffineMap, Dense, Sparse
from toolkit.networks.merging import merge
from toolkit.networks.network import Network
from toolkit.networks.stages import Stage
from toolkit.training.fixed_maps import Composed, FixedMap
from toolkit.training.spec import LayerSpec
from toolkit.training.stage_builder import Signal, StageBuilder


def trainable_network(
    hidden: Sequence[LayerSpec],
    shape: Sequence[int],
    classes: int,
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Network:
    """A network with fresh weights: the hidden layers, then a dense one to the classes.

    shape: (channels, height, width) of an image. Raises ValueError for a convolution or pooling after a dense layer,
    for one that does not fit, and for a residual block whose ends have different shapes.
    """
    builder = StageBuilder(math.prod(shape), seed, dtype, device)
    value = Signal(tuple(shape), ((0, None),))
    for entry in hidden:
        value = builder.hidden(value, entry)
    return Network(builder.finished(value, classes), input_shape=tuple(shape))


def parameters(network: Network) -> list[torch.Tensor]:
    """Weights and biases in order, each once: the leaves an optimiser updates in place."""
    found: dict[int, torch.Tensor] = {}
    for layer in network.maps:
        own = layer.trained if isinstance(layer, Composed) else layer
        if isinstance(own, Dense | Conv2d):
            found.update((id(tensor), tensor) for tensor in (own.weight, own.bias) if tensor.requires_grad)
    return list(found.values())


def as_torch(network: Network, dtype: torch.dtype = torch.float64, device: str | torch.device = "cpu") -> Network:
    """The same network with torch weights, which carry gradients in Dense and Conv2d and are constant in Sparse maps.

    Raises ValueError for maps of other kinds.
    """

    def leaf(array: Any) -> torch.Tensor:
        return torch.tensor(np.asarray(array), dtype=dtype, device=device).requires_grad_()

    def change(layer: AffineMap, first: bool) -> AffineMap:
        if isinstance(layer, Sparse):
            return FixedMap(layer.matrix, leaf(layer.bias).detach())
        return _trained_like(layer, leaf(layer.weight), leaf(layer.bias) if first else None)  # type: ignore[attr-defined]

    return _rebuilt(network, change, network.name, network.metadata)


def frozen(network: Network, name: str = "", metadata: Mapping[str, Any] | None = None) -> Network:
    """The network with float64 numpy weights, as everything that certifies wants it."""

    def array(tensor: torch.Tensor) -> Any:
        return tensor.detach().cpu().numpy().astype(np.float64)

    def change(layer: AffineMap, first: bool) -> AffineMap:
        if isinstance(layer, FixedMap):
            return Sparse(layer.matrix, array(layer.bias))
        if isinstance(layer, Composed):
            return merge(change(layer.selection, first), change(layer.trained, first))
        return _trained_like(layer, array(layer.weight), array(layer.bias))  # type: ignore[attr-defined]

    return _rebuilt(network, change, name, metadata)


def _trained_like(layer: AffineMap, weight: Any, bias: Any) -> AffineMap:
    if isinstance(layer, Dense):
        return Dense(weight, bias)
    assert isinstance(layer, Conv2d)
    return Conv2d(weight, bias, layer.shape, layer.stride, layer.padding, layer.dilation, layer.groups)


def _rebuilt(
    network: Network, change: Callable[[AffineMap, bool], AffineMap], name: str, metadata: Mapping[str, Any] | None
) -> Network:
    """The network of the changed maps; `change` is told which of them are the first of their stage."""
    for k, stage in enumerate(network.stages):
        for _, layer in stage.sources:
            if not isinstance(layer, Dense | Conv2d | Sparse | FixedMap | Composed):
                raise ValueError(f"layer {k} must be Dense or Conv2d to be trained, got {type(layer).__name__}")
    stages = [
        Stage(tuple((place, change(layer, i == 0)) for i, (place, layer) in enumerate(stage.sources)), stage.relu)
        for stage in network.stages
    ]
    return Network(stages, name, metadata, network.input_shape)
