"""Networks whose weights are torch tensors with gradients: the same Network and layers, in training.

Parameters start as torch.nn starts them, uniform in ±1/√fan_in, drawn from the seed. `frozen` turns the result into
a float64 network for certifying; the float32 weights are exact there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import AffineMap, Dense
from toolkit.networks.network import Network
from toolkit.training.spec import LayerSpec


def trainable_network(
    hidden: Sequence[LayerSpec],
    shape: Sequence[int],
    classes: int,
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Network:
    """A network with fresh weights: the hidden layers, then a dense one to the classes.

    shape: (channels, height, width) of an image. Raises ValueError for a convolution after a dense layer, or one
    that does not fit.
    """
    generator = torch.Generator().manual_seed(seed)
    layers: list[AffineMap] = []
    width, image = math.prod(shape), tuple(shape)
    for entry in (*hidden, LayerSpec(dense=classes)):
        if entry.conv is not None:
            if len(image) != 3:
                raise ValueError(f"a convolution (conv = {entry.conv}) cannot follow a dense layer")
            kernel = (entry.conv, image[0], entry.kernel, entry.kernel)
            weight, bias = _fresh(kernel, generator, dtype, device)
            conv = Conv2d(weight, bias, (image[0], image[1], image[2]), entry.stride, entry.padding)
            layers.append(conv)
            image, width = conv.output_shape, conv.output_size
        else:
            outputs = int(entry.dense or classes)
            layers.append(Dense(*_fresh((outputs, width), generator, dtype, device)))
            image, width = (outputs,), outputs
    return Network(layers, input_shape=tuple(shape))


def _fresh(shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype, device: Any) -> tuple[Any, Any]:
    """A weight and a bias as leaves of the gradient graph."""
    limit = 1.0 / math.sqrt(math.prod(shape[1:]))
    draws = (torch.rand(size, generator=generator, dtype=torch.float64) for size in (shape, shape[:1]))
    weight, bias = (((2 * draw - 1) * limit).to(device, dtype).requires_grad_() for draw in draws)
    return weight, bias


def parameters(network: Network) -> list[torch.Tensor]:
    """Weights and biases in order: the leaves an optimiser updates in place."""
    return [
        tensor for layer in network.layers if isinstance(layer, Dense | Conv2d) for tensor in (layer.weight, layer.bias)
    ]


def as_torch(network: Network, dtype: torch.dtype = torch.float64, device: str | torch.device = "cpu") -> Network:
    """The same Dense and Conv2d network with torch weights that carry gradients; ValueError for other maps."""

    def leaf(array: Any) -> torch.Tensor:
        return torch.tensor(np.asarray(array), dtype=dtype, device=device).requires_grad_()

    return _rebuilt(network, leaf, network.name, network.metadata)


def frozen(network: Network, name: str = "", metadata: Mapping[str, Any] | None = None) -> Network:
    """The network with float64 numpy weights, as everything that certifies wants it."""

    def array(tensor: torch.Tensor) -> Any:
        return tensor.detach().cpu().numpy().astype(np.float64)

    return _rebuilt(network, array, name, metadata)


def _rebuilt(network: Network, change: Any, name: str, metadata: Mapping[str, Any] | None) -> Network:
    layers: list[AffineMap] = []
    for k, layer in enumerate(network.layers):
        if isinstance(layer, Dense):
            layers.append(Dense(change(layer.weight), change(layer.bias)))
        elif isinstance(layer, Conv2d):
            geometry = layer.shape, layer.stride, layer.padding, layer.dilation, layer.groups
            layers.append(Conv2d(change(layer.weight), change(layer.bias), *geometry))
        else:
            raise ValueError(f"layer {k} must be Dense or Conv2d to be trained, got {type(layer).__name__}")
    return Network(layers, name, metadata, network.input_shape)
