"""The oracle itself: minima found by cutting polytopes, against two other exact methods and points it cannot miss."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from conftest import random_conv_network, random_dense_network
from oracle import forward, inside, least, least_margins, neuron_ranges, rounded, value_at

from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import ChannelAffine, Dense, Sparse
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall

Row = tuple[list[Fraction], Fraction]


def breakpoint_minimum(network: Network, ball: LinfBall, row: list[float]) -> Fraction:
    """One input: all breakpoints, layer by layer, by linear interpolation between those known already."""
    (center,) = ball.center.tolist()
    points = sorted({Fraction(center) - Fraction(ball.eps), Fraction(center) + Fraction(ball.eps)})
    for k in range(len(network.relu_sizes)):
        found = set(points)
        values = [forward(network.cut(k), [x]) for x in points]
        for (a, va), (b, vb) in itertools.pairwise(zip(points, values, strict=True)):
            found |= {a + (b - a) * p / (p - q) for p, q in zip(va, vb, strict=True) if p * q < 0}
        points = sorted(found)
    return min(value_at(network, row, [x]) for x in points)


def affine(layer: Dense, inputs: list[Row]) -> list[Row]:
    """The layer's outputs as functionals of the network's input."""
    rows = []
    for weights, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True):
        scaled = [(Fraction(w), row) for w, row in zip(weights, inputs, strict=True)]
        coefficients = [sum((w * row[0][j] for w, row in scaled), Fraction(0)) for j in range(len(inputs[0][0]))]
        rows.append((coefficients, sum((w * row[1] for w, row in scaled), Fraction(bias))))
    return rows


def value(row: Row, x: tuple[Fraction, ...]) -> Fraction:
    return sum((c * v for c, v in zip(row[0], x, strict=True)), row[1])


def plane_vertices(sides: list[Row]) -> Iterator[tuple[Fraction, ...]]:
    """Points of the plane where two of the inequalities row ≥ 0 are equalities and the others hold."""
    for ((a, b), e), ((c, d), f) in itertools.combinations(sides, 2):
        det = a * d - b * c
        points = [((b * f - d * e) / det, (c * e - a * f) / det)] if det else []
        yield from (x for x in points if all(value(side, x) >= 0 for side in sides))


def pattern_minimum(network: Network, ball: LinfBall, row: list[float]) -> Fraction:
    """Two inputs: the least over all activation patterns, each at the vertices of its own inequalities."""
    unit: list[Row] = [([Fraction(1), Fraction(0)], Fraction(0)), ([Fraction(0), Fraction(1)], Fraction(0))]
    eps, box = Fraction(ball.eps), []
    for (coefficients, _), center in zip(unit, ball.center.tolist(), strict=True):
        box += [(coefficients, eps - Fraction(center)), ([-c for c in coefficients], eps + Fraction(center))]
    found: list[Fraction] = []
    for pattern in itertools.product((False, True), repeat=sum(network.relu_sizes)):
        phases, rows, sides = iter(pattern), unit, list(box)
        for layer in network.layers[:-1]:
            hats = affine(layer, rows)
            own = [next(phases) for _ in hats]
            sides += [hat if on else ([-c for c in hat[0]], -hat[1]) for hat, on in zip(hats, own, strict=True)]
            zero = ([Fraction(0)] * 2, Fraction(0))
            rows = [hat if on else zero for hat, on in zip(hats, own, strict=True)]
        outputs = affine(network.layers[-1], rows)
        goal = [(Fraction(r), out) for r, out in zip(row, outputs, strict=True)]
        found += [sum((r * value(out, x) for r, out in goal), Fraction(0)) for x in plane_vertices(sides)]
    return min(found)


@pytest.mark.parametrize("seed", range(6))
def test_one_input_agrees_with_all_breakpoints(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = random_dense_network(rng, (1, 5, 4, 3))
    ball = LinfBall(rng.normal(size=1), float(rng.uniform(0.1, 3)))
    row = rng.normal(size=3).tolist()
    assert least(network, ball, [row])[0][0] == breakpoint_minimum(network, ball, row)


@pytest.mark.parametrize("seed", range(4))
def test_two_inputs_agree_with_all_activation_patterns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = random_dense_network(rng, (2, 3, 2, 2))
    if seed % 2:  # integers: three lines through a point, neurons that are equal or 0 on an edge
        network = Network([Dense(np.round(layer.weight), np.round(layer.bias)) for layer in network.layers])
    ball = LinfBall(np.round(rng.normal(size=2)), 1.0)
    ((found, point),) = least(network, ball, [[1, -1]])
    assert found == pattern_minimum(network, ball, [1, -1])
    assert value_at(network, [1, -1], point) == found
    assert inside(ball, point)


@pytest.mark.parametrize("seed", range(4))
def test_three_and_four_inputs_are_below_every_point_and_attained(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = random_dense_network(rng, (3 + seed % 2, 4, 3, 2))
    ball = LinfBall(rng.uniform(0.1, 0.9, 3 + seed % 2), 0.7, (0, 1))
    ((found, point),) = least(network, ball, [[1, -1]])
    assert inside(ball, point)
    assert value_at(network, [1, -1], point) == found
    outputs = network.forward(np.concatenate([ball.corners(), ball.sample(4000)]))
    assert found <= Fraction(float((outputs[:, 0] - outputs[:, 1]).min())) + Fraction(1e-12)
    for layer, ranges in enumerate(neuron_ranges(network, ball)):
        hats = network.preactivations(np.concatenate([ball.corners(), ball.sample(4000)]))[layer]
        for values, (low, high) in zip(hats.T, ranges, strict=True):
            assert low <= values.min() + Fraction(1e-12)
            assert high >= values.max() - Fraction(1e-12)
            if layer == 0:  # linear: attained at a corner
                assert float(low) == pytest.approx(values.min(), abs=1e-12)
                assert float(high) == pytest.approx(values.max(), abs=1e-12)


def test_every_kind_of_map_is_evaluated() -> None:
    """Values that float64 holds exactly, so that the exact ones are equal and not only near."""
    conv = Conv2d(np.array([[[[1.0, -2.0], [0.5, 4.0]]]]), np.array([0.25]), (1, 2, 3))
    channels = ChannelAffine(np.array([2.0]), np.array([-1.0]), (1, 1, 2))
    dense, sparse = Dense(np.array([[1.0, 3.0], [-1.0, 0.0]]), np.array([1.0, 2.0])), Sparse(np.eye(2), np.ones(2))
    network = Network([conv, channels, dense, sparse])
    points = np.random.default_rng(0).integers(-8, 9, (20, 6)) / 4
    for point, outputs in zip(points, network.forward(points), strict=True):
        assert forward(network, point) == [Fraction(v) for v in outputs]


def test_a_small_convolution_has_an_exact_minimum() -> None:
    rng = np.random.default_rng(0)
    network = random_conv_network(rng, (1, 2, 2), (1,), (2,), outputs=2)
    ball = LinfBall(rng.uniform(0, 1, 4), 0.4, (0, 1))
    (found,) = least_margins(network, ball, 0)
    outputs = network.forward(ball.sample(5000))
    sampled = float((outputs[:, 0] - outputs[:, 1]).min())
    assert sampled - 0.3 <= found <= sampled + 1e-12


def test_no_radius_is_a_point_and_a_domain_cuts() -> None:
    network = Network([Dense(np.array([[1.0], [-1.0]])), Dense(np.array([[1.0, 1.0], [0.0, 0.0]]))])
    assert least_margins(network, LinfBall([0.1], 0.0), 0) == [Fraction(0.1)]
    assert least_margins(network, LinfBall([0.5], 1.0), 0) == [0]
    assert least_margins(network, LinfBall([0.5], 1.0, (0.25, 1.0)), 0) == [Fraction(1, 4)]
    assert least_margins(network, LinfBall([0.5], 1.0, (-np.inf, 1.0)), 1) == [-1]


def test_the_ball_is_that_of_real_numbers() -> None:
    """0.1 + 0.2 is a float above the real sum of these floats; 1e16 ± 1.5 has no float ends."""
    assert Fraction(0.1) + Fraction(0.2) < Fraction(0.1 + 0.2)
    assert not inside(LinfBall([0.1], 0.2), [0.1 + 0.2])
    assert inside(LinfBall([0.1], 0.2), [np.nextafter(0.1 + 0.2, 0)])
    assert not inside(LinfBall([1e16], 1.5), [1e16 + 2])
    assert inside(LinfBall([0.5], 1.0, (0, 1)), [1.0])
    assert not inside(LinfBall([0.5], 1.0, (0, 1)), [np.nextafter(1.0, 2)])
    assert not inside(LinfBall([0.5], 1.0), [np.nan])
    assert rounded(Fraction(1, 3), np.inf) > Fraction(1, 3) > rounded(Fraction(1, 3), -np.inf)
    assert rounded(Fraction(0.3), np.inf) == rounded(Fraction(0.3), -np.inf) == 0.3
