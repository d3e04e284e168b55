"""Affine maps of every kind and geometry, on features of one shape."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import AffineMap, ChannelAffine, Dense, Sparse

SHAPE = (4, 6, 5)  # what the maps below take: 120 features
GEOMETRIES = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (1, 2), "padding": (2, 0)},
    {"dilation": (2, 1), "padding": 1},
    {"groups": 2, "padding": 1, "stride": 2},
    {"groups": 4, "dilation": 2, "padding": 2},
]


def random_conv(rng: np.random.Generator, geometry: dict[str, object], spatial_bias: bool = False) -> Conv2d:
    groups = int(geometry.get("groups", 1))  # type: ignore[call-overload]
    weight = rng.normal(size=(8, SHAPE[0] // groups, 3, 2))
    conv = Conv2d(weight, rng.normal(size=8), SHAPE, **geometry)  # type: ignore[arg-type]
    if spatial_bias:
        return Conv2d(weight, rng.normal(size=conv.output_size), SHAPE, **geometry)  # type: ignore[arg-type]
    return conv


def random_sparse(rng: np.random.Generator, outputs: int, inputs: int) -> Sparse:
    return Sparse(sp.random_array((outputs, inputs), density=0.1, rng=rng), rng.normal(size=outputs))


MAKERS: dict[str, Callable[[np.random.Generator], AffineMap]] = {
    "dense": lambda rng: Dense(rng.normal(size=(7, 120)), rng.normal(size=7)),
    "dense without bias": lambda rng: Dense(rng.normal(size=(7, 120))),
    "sparse": lambda rng: random_sparse(rng, 9, 120),
    "channel": lambda rng: ChannelAffine(rng.normal(size=4), rng.normal(size=4), SHAPE),
    "channel of flat features": lambda rng: ChannelAffine(rng.normal(size=120), rng.normal(size=120), (120, 1, 1)),
    "conv with a bias per place": lambda rng: random_conv(rng, {"padding": 1}, spatial_bias=True),
} | {f"conv {geometry}": (lambda rng, g=geometry: random_conv(rng, g)) for geometry in GEOMETRIES}


def matrix(layer: AffineMap) -> np.ndarray:
    """W by its columns: the map applied to the identity."""
    return np.asarray(layer.linear(np.eye(layer.input_size)).T)
