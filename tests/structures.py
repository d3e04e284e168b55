"""Hypothesis strategies for networks with their balls: kind, sizes, the scale of every map and ε are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from conftest import random_conv_network, random_dense_network
from hypothesis import strategies as st

from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import AffineMap, Dense
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall

EPSILONS = (0.0, 1e-12, 1e-3, 0.1, 0.4)


@dataclass(frozen=True)
class Case:
    """A network over a ball; `tame`: no map's scale is far from 1, so that solvers can be asked."""

    network: Network
    ball: LinfBall
    seed: int
    tame: bool


@st.composite
def tiny(draw: st.DrawFn, inputs: int = 3, outputs: int = 2) -> Case:
    """Networks whose activation patterns can be enumerated: 1 or 2 layers of up to 4 neurons, ε 0 or 0.001 … 0.8."""
    seed = draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    widths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=2))
    network = random_dense_network(rng, (inputs, *widths, outputs))
    return Case(network, LinfBall(rng.normal(size=inputs), draw(st.just(0.0) | st.floats(1e-3, 0.8))), seed, True)


@st.composite
def cases(draw: st.DrawFn, largest: int = 12, outputs: int = 3) -> Case:
    """1 to 3 hidden layers of 1 to 8 neurons, or two small convolutions; maps scaled by 1e-largest … 1e+largest."""
    seed = draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    if draw(st.booleans()):
        sizes = draw(st.lists(st.integers(1, 8), min_size=2, max_size=4))
        network = random_dense_network(rng, (*sizes, outputs))
    else:
        channels = draw(st.lists(st.integers(1, 2), min_size=1, max_size=2))
        network = random_conv_network(rng, (1, 4, 4), channels, (draw(st.integers(1, 5)),), outputs)
    exponents = [draw(st.integers(-largest, largest)) for _ in network.layers]
    scaled = [_scaled(layer, 10.0**exponent) for layer, exponent in zip(network.layers, exponents, strict=True)]
    eps = draw(st.sampled_from(EPSILONS))
    ball = LinfBall(rng.uniform(0, 1, network.input_size), eps, draw(st.sampled_from([None, (0.0, 1.0)])))
    return Case(Network(scaled), ball, seed, max(map(abs, exponents)) <= 1)


def _scaled(layer: AffineMap, factor: float) -> AffineMap:
    if isinstance(layer, Conv2d):
        return Conv2d(layer.weight * factor, layer.bias * factor, layer.shape, layer.stride, layer.padding)
    assert isinstance(layer, Dense)
    return Dense(layer.weight * factor, layer.bias * factor)
