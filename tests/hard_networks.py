"""Small networks of every awkward kind: hidden values of any scale, near ties, twins, cancelling biases, tiny balls.

A `Recipe` says of what kind a network is, field by field, so that a generator of random numbers can draw one
(`random_recipe`) and hypothesis can draw and shrink one (strategies.py). `build` makes the network from it; they are
small enough for the exact minima of oracle.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
from oracle import least_margins, rounded

from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import AffineMap, ChannelAffine, Dense, Sparse
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall

SHAPES = ((1, (3,)), (1, (4, 3)), (1, (3, 2, 2)), (2, (4,)), (2, (3, 3)), (2, (3, 2, 2)), (3, (4,)), (3, (3, 2)))
CHOICES: dict[str, tuple[Any, ...]] = {
    "shape": SHAPES,  # inputs, neurons per ReLU layer
    "outputs": (2, 2, 3),
    "map": ("dense", "dense", "sparse", "convolution", "channels"),
    "numbers": ("real", "real", "integers", "quarters", "subnormal"),
    "scales": (0, 0, 3, 6, 8, 12, 150),  # exponents of ten up to which layers' sizes differ
    "compensated": (True, True, False),  # the layer after divides by what one multiplied with
    "spread": (0, 0, 4, 9),  # exponents of ten up to which neurons of a layer differ
    "twins": ("none", "none", "equal", "opposite", "zero row", "dead", "active"),
    "bias": ("real", "centred", "none", "boundary", "cancelling", "logits"),
    "tie": ("none", "none", "near", "near", "equal outputs"),
    "ulps": (-3, -1, 0, 0, 1, 3, 1000),
    "center": (0.0, 0.0, 1.0, 1e8, 1e16, 1e-9, "real"),
    "eps": (0.0, 1e-300, 1e-12, 1.2e-16, 0.1, 0.3, 1.0, 1.5, 1e6),
    "domain": ("none", "none", "wide", "below", "tight", "half"),
}

LARGEST = 1e300  # of weights, so that all are numbers


@dataclass(frozen=True)
class Recipe:
    """What kind of network and ball; the fields are those of CHOICES."""

    shape: tuple[int, tuple[int, ...]]
    outputs: int
    map: str
    numbers: str
    scales: int
    compensated: bool
    spread: int
    twins: str
    bias: str
    tie: str
    ulps: int
    center: float | str
    eps: float
    domain: str

    def __str__(self) -> str:
        """The fields that are out of the ordinary."""
        plain = {name: choices[0] for name, choices in CHOICES.items() if name not in ("shape", "center", "eps")}
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return ", ".join(f"{name} {value}" for name, value in named.items() if plain.get(name, ...) != value)


@dataclass(frozen=True)
class Case:
    """A network, a ball, the class at its centre, and the true least margins of all other classes."""

    recipe: Recipe
    network: Network
    ball: LinfBall
    label: int
    truth: tuple[Any, ...]


Draw = Callable[..., np.ndarray]  # numbers of a shape, of size about 1


def random_case(seed: int) -> Case:
    """The network of a seed."""
    rng = np.random.default_rng(seed)
    picked = {name: choices[rng.integers(len(choices))] for name, choices in CHOICES.items()}
    if rng.random() < 0.3:  # half of all kinds of trouble at once hides the effect of each: some cases have few
        for name in rng.permutation(sorted(CHOICES))[: len(CHOICES) // 2]:
            picked[name] = CHOICES[name][0] if name not in ("shape", "eps") else picked[name]
    return build(Recipe(**picked), lambda *shape: rng.normal(size=shape))


def build(recipe: Recipe, draw: Draw) -> Case:
    """The case of a recipe, its numbers drawn by `draw`."""
    inputs, widths = recipe.shape
    center = _numbers("real", draw(inputs)) if recipe.center == "real" else np.full(inputs, recipe.center)
    sizes = (inputs, *widths, recipe.outputs)
    pairs = [(_numbers(recipe.numbers, draw(m, n)), _numbers(recipe.numbers, draw(m))) for n, m in pairwise(sizes)]
    with np.errstate(over="ignore", invalid="ignore"):
        _scale(recipe, pairs, draw)
        _set_twins(recipe, pairs)
        _set_bias(recipe, pairs, center)
    pairs = [(np.clip(weight, -LARGEST, LARGEST), np.clip(bias, -LARGEST, LARGEST)) for weight, bias in pairs]
    if recipe.map == "convolution" and inputs > 1:
        pairs[0] = _convolution_like(pairs[0])
    if recipe.tie == "equal outputs":
        pairs[-1][0][1], pairs[-1][1][1] = pairs[-1][0][0], pairs[-1][1][0]
    ball = LinfBall(center, recipe.eps, _domain(recipe, center))
    network = Network(_maps(recipe, pairs))
    with np.errstate(all="ignore"):
        label = int(np.argmax(np.nan_to_num(network.forward(center), nan=0.0)))
    truth = least_margins(network, ball, label)
    if recipe.tie == "near":  # moves the least margin to a few units in the last place of 0
        bias = pairs[-1][1]
        moved = rounded(-min(truth), np.inf) + bias[label]
        if np.isfinite(moved):
            for _ in range(abs(recipe.ulps)):
                moved = np.nextafter(moved, np.inf if recipe.ulps > 0 else -np.inf)
            bias[label] = moved
            network = Network(_maps(recipe, pairs))
            truth = least_margins(network, ball, label)
    return Case(recipe, network, ball, label, tuple(truth))


def _numbers(kind: str, values: np.ndarray) -> np.ndarray:
    match kind:
        case "integers":
            return np.round(2 * values)
        case "quarters":
            return np.round(4 * values) / 4
        case "subnormal":  # one number in three
            return np.where(np.round(3 * values) % 3 == 0, np.round(9 * values) * 5e-324, values)
    return np.array(values)


def _scale(recipe: Recipe, pairs: list[tuple[np.ndarray, np.ndarray]], draw: Draw) -> None:
    """Multiply what neurons hold by powers of ten, and divide by them in the layer after, or not."""
    for k in range(len(pairs) - 1):
        exponent = recipe.scales * np.clip(draw(1), -1, 1) + recipe.spread * np.clip(draw(pairs[k][1].size), -1, 1)
        factor = 10.0 ** np.round(exponent)
        weight, bias = pairs[k]
        weight *= factor[:, None]
        bias *= factor
        if recipe.compensated:
            pairs[k + 1][0][:] = pairs[k + 1][0] / factor


def _set_twins(recipe: Recipe, pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    weight, bias = pairs[0]
    reach = np.abs(weight[0]).sum() * recipe.eps
    match recipe.twins:
        case "equal":
            weight[1], bias[1] = weight[0], bias[0]
        case "opposite":
            weight[1], bias[1] = -weight[0], -bias[0]
        case "zero row":
            weight[0] = 0.0
        case "dead":
            bias[0] = -2 * reach - abs(bias[0])
        case "active":
            bias[0] = 2 * reach + abs(bias[0])


def _set_bias(recipe: Recipe, pairs: list[tuple[np.ndarray, np.ndarray]], center: np.ndarray) -> None:
    weight, bias = pairs[0]
    if recipe.bias == "none":
        for _, own in pairs:
            own[:] = 0.0
    if recipe.bias in ("centred", "boundary", "logits") or recipe.center in (1e8, 1e16):
        bias -= weight @ center
    if recipe.bias == "boundary":  # the first neuron's l is 0, the second's u, up to rounding
        reach = np.abs(weight).sum(axis=1) * recipe.eps
        bias[0], bias[1] = reach[0] - weight[0] @ center, -reach[1] - weight[1] @ center
    if recipe.bias == "cancelling":  # a neuron far from 0, taken away again by the layer after
        bias[0] += 1e16
        pairs[1][1][:] -= pairs[1][0][:, 0] * 1e16
    if recipe.bias == "logits":
        pairs[-1][1][:] += 1e16


def _domain(recipe: Recipe, center: np.ndarray) -> tuple[float, float] | None:
    low, high = float(center.min()), float(center.max())
    match recipe.domain:
        case "wide":
            return low - 2 * recipe.eps - 1e20, high + 2 * recipe.eps + 1e20
        case "below":
            return -np.inf, high
        case "tight":
            return low, max(high + recipe.eps / 3, float(np.nextafter(high, np.inf)))
        case "half":
            return low - recipe.eps / 2 - np.spacing(abs(low)), np.inf
    return None


def _convolution_like(pair: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias with the pattern of a convolution: two channels with kernels over neighbouring inputs."""
    weight, bias = pair
    inputs, neurons = weight.shape[1], weight.shape[0]
    kernels = weight[: max(1, neurons // (inputs - 1)), :2]
    rows = [np.concatenate([np.zeros(j), kernel, np.zeros(inputs - 2 - j)]) for kernel in kernels
            for j in range(inputs - 1)]  # fmt: skip
    made = np.array(rows)[:neurons]
    weight[: len(made)] = made
    return weight, bias


def _maps(recipe: Recipe, pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[AffineMap]:
    """The affine maps; a convolution and a channel-wise map only where the weights are those of one."""
    maps: list[AffineMap] = [Dense(weight.copy(), bias.copy()) for weight, bias in pairs]
    if recipe.map == "sparse":
        maps = [Sparse(layer.to_sparse(), layer.bias_vector) for layer in maps]
    if recipe.map == "channels":
        size = maps[0].output_size
        maps.insert(1, ChannelAffine(np.full(size, 0.1), np.full(size, 0.3), (size, 1, 1)))
    if recipe.map == "convolution":
        weight, bias = pairs[0]
        inputs, channels = weight.shape[1], max(1, weight.shape[0] // max(1, weight.shape[1] - 1))
        if inputs > 1 and channels * (inputs - 1) == weight.shape[0]:
            kernels = weight[:: inputs - 1, :2]
            conv = Conv2d(kernels[:, None, None, :], bias, (1, 1, inputs))
            if np.array_equal(conv.to_sparse().toarray(), weight):
                maps[0] = conv
    return maps
