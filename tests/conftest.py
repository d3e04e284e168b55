"""Shared by all tests: random networks, the hypothesis profile and the folder of downloaded data.

Test files import the network makers by name: `from conftest import random_dense_network`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings

from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import AffineMap, Dense
from toolkit.networks.network import Network

# Wall-clock deadlines fail on busy machines. By default the same few examples are run every time; `make test-all` draws
# many new ones each time, and a failure is kept in .hypothesis and printed so that it can be run again.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("relugap", max_examples=25, derandomize=True, **_COMMON)
settings.register_profile("long", max_examples=300, derandomize=False, print_blob=True, **_COMMON)
# For mutants: that a test fails is all there is to know.
settings.register_profile(
    "unshrunk", max_examples=25, derandomize=True, phases=(Phase.explicit, Phase.generate), **_COMMON
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "relugap"))


def random_dense_network(rng: np.random.Generator, sizes: Sequence[int], name: str = "") -> Network:
    """A ReLU network with Gaussian weights of variance 2/fan-in and biases of variance 1/4; sizes as in 784-100-10."""
    layers = [
        Dense(rng.normal(0, np.sqrt(2 / fan_in), (fan_out, fan_in)), rng.normal(0, 0.5, fan_out))
        for fan_in, fan_out in pairwise(sizes)
    ]
    return Network(layers, name)


def random_conv_network(
    rng: np.random.Generator,
    shape: tuple[int, int, int] = (1, 6, 6),
    channels: Sequence[int] = (3, 4),
    hidden: Sequence[int] = (8,),
    outputs: int = 3,
) -> Network:
    """3×3 convolutions with stride 2 and padding 1, one per entry of `channels`, then dense layers."""
    layers: list[AffineMap] = []
    for count in channels:
        weight = rng.normal(0, np.sqrt(2 / (9 * shape[0])), (count, shape[0], 3, 3))
        conv = Conv2d(weight, rng.normal(0, 0.5, count), shape, stride=2, padding=1)
        layers.append(conv)
        shape = conv.output_shape
    sizes = (layers[-1].output_size, *hidden, outputs)
    return Network([*layers, *random_dense_network(rng, sizes).layers])


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with the same seed in every test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of downloaded data and published weights; the test is skipped without it."""
    folder = os.environ.get("RELUGAP_DATA")
    if not folder:
        pytest.skip("set RELUGAP_DATA to the folder with the downloaded data sets and published weights")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"RELUGAP_DATA must name a folder, got {folder!r}")
    return path
