"""Ideal cuts: valid for every integer point, as tight as the hull of one neuron, between LP and exact."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from conftest import random_conv_network, random_dense_network
from hypothesis import given
from hypothesis import strategies as st

from toolkit.data.datasets import load_dataset
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.answers import Bound, Status
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.region import Region
from toolkit.problems.settings import Settings
from toolkit.relaxations.ideal_cuts import CutFinder
from toolkit.relaxations.template import build_template
from toolkit.rungs import get_rung
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem, margins

HIGHS = Settings(solver="highs", mip_gap=0.0)


@given(seed=st.integers(0, 10**6))
def test_cuts_found_anywhere_hold_at_every_real_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = random_dense_network(rng, (4, 7, 6, 3)) if seed % 2 else random_conv_network(rng)
    ball = LinfBall(rng.uniform(0, 1, network.input_size), eps=float(rng.uniform(0.05, 0.4)), domain=(0, 1))
    layout = build_template(Region(network, ball, layer_bounds(network, ball))).layout
    finder = CutFinder(layout, ball)
    points = np.vstack([ball.sample(30, seed), ball.corners(30, seed)])
    hidden = network.preactivations(points)
    x_hat = np.stack([hidden[k][:, i] for k, i in layout.neurons], axis=1) if layout.count else np.zeros((60, 0))
    real = np.hstack([points, np.maximum(x_hat, 0), np.maximum(-x_hat, 0), (x_hat > 0).astype(float)])
    for _ in range(3):  # any place will do to generate cuts from
        place = np.concatenate([ball.sample(1, seed)[0], rng.uniform(0, 1, 3 * layout.count) * 2])
        rows, upper = finder.violated(place, 1e-9)
        assert np.all(rows @ place > upper)
        assert np.all(real @ rows.T.toarray() <= upper + 1e-9)


@given(seed=st.integers(0, 10**6))
def test_one_neuron_reaches_its_convex_hull(seed: int) -> None:
    """min of a functional of (x, y) over the hull of {(x, max(w·x + b, 0))} is attained at a vertex of the box or
    where w·x + b = 0 on an edge; enumerating those gives the value that cuts must reach."""
    rng = np.random.default_rng(seed)
    size = 3
    weight, ball = rng.normal(size=(1, size)), LinfBall(np.zeros(size), eps=1.0)
    bias = np.array([float(rng.uniform(-0.5, 0.5)) * np.abs(weight).sum()])
    direction = rng.normal(size=size)
    # outputs of this network: y and x itself (through y₂ₖ − y₂ₖ₊₁ = x), so that a row can weigh both
    eye = np.eye(size)
    first = Dense(np.vstack([weight, eye]), np.concatenate([bias, np.ones(size)]))  # x + 1 ≥ 0: active, linear
    last = Dense(np.vstack([np.concatenate([[-1.0], direction]), np.zeros(size + 1)]))
    network = Network([first, last])
    (found,) = margins(network, ball, 0, "ideal", settings=HIGHS)
    values = []
    for corner in itertools.product((-1.0, 1.0), repeat=size):
        x = np.array(corner)
        values.append(direction @ (x + 1) - max(float(weight[0] @ x + bias[0]), 0.0))
        for j in range(size):
            edge = x.copy()
            edge[j] -= (weight[0] @ x + bias[0]) / weight[0, j]
            if abs(edge[j]) <= 1:
                values.append(direction @ (edge + 1))
    assert found.lower == pytest.approx(min(values), abs=1e-5)


@given(seed=st.integers(0, 10**6))
def test_between_lp_and_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = (
        random_dense_network(rng, (3, 6, 6, 2)) if seed % 2 else random_conv_network(rng, channels=(2, 2), outputs=2)
    )
    ball = LinfBall(rng.uniform(0, 1, network.input_size), eps=0.3)
    problem = margin_problem(network, ball, 0, settings=HIGHS)
    (lp,), (ideal,), (exact,) = (get_rung(name)(problem) for name in ("lp", "ideal", "exact"))
    assert lp.lower - 1e-7 <= ideal.lower <= exact.upper + 1e-6


def test_cuts_close_part_of_the_gap_and_later_rows_reuse_them(rng: np.random.Generator) -> None:
    network = random_dense_network(rng, (6, 20, 20, 5))
    ball = LinfBall(rng.normal(size=6), eps=0.25)
    problem = margin_problem(network, ball, 0, settings=HIGHS)
    lp, ideal, exact = (get_rung(name)(problem) for name in ("lp", "ideal", "exact"))
    gap = sum(e.lower - b.lower for e, b in zip(exact, lp, strict=True))
    closed = sum(i.lower - b.lower for i, b in zip(ideal, lp, strict=True))
    assert gap > 0.1
    assert closed / gap > 0.2
    again = get_rung("ideal")(problem)
    for first, second in zip(ideal, again, strict=True):
        assert second.lower >= first.lower - 1e-4 * abs(first.lower) - 1e-6


def test_time_limit_keeps_what_was_proven(rng: np.random.Generator) -> None:
    network = random_dense_network(rng, (10, 60, 60, 3))
    ball = LinfBall(rng.normal(size=10), eps=0.3)
    full = margin_problem(network, ball, 0, targets=[1], settings=Settings(solver="highs", time_limit=0.003))
    (ideal,) = get_rung("ideal")(full)
    assert ideal.status is Status.TIME_LIMIT
    (complete,) = margins(network, ball, 0, "ideal", full.relu_bounds, [1], HIGHS)
    assert ideal.lower <= complete.lower + 1e-6


def test_a_threshold_out_of_reach_is_given_up_and_one_in_reach_is_not(rng: np.random.Generator) -> None:
    """stop_at between the first and the last round's bound is reached; far above it, the rounds end early."""
    network = random_dense_network(rng, (20, 40, 40, 3))
    problem = margin_problem(network, LinfBall(rng.normal(size=20), eps=0.3), 0, targets=[1])
    (lp,), (full,) = get_rung("lp")(problem), get_rung("ideal")(problem)
    assert full.lower > lp.lower + 0.1

    def asked(stop_at: float) -> Bound:
        fresh = margin_problem(network, problem.input_set, 0, problem.relu_bounds, [1], Settings(stop_at=stop_at))
        return get_rung("ideal")(fresh)[0]

    near, far = asked(lp.lower + 0.9 * (full.lower - lp.lower)), asked(full.lower + 10 * (full.lower - lp.lower))
    assert near.lower > lp.lower + 0.9 * (full.lower - lp.lower)
    assert far.iterations < 0.7 * full.iterations
    assert lp.lower - 1e-6 <= far.lower <= full.lower + 1e-6
    assert far.certified_lower == pytest.approx(far.lower, abs=1e-6)


def test_published_network_passes_the_barrier(data_dir: Path) -> None:
    """MNIST image 8, target 6, ε = 0.1, l,u by dual then LP: LP −0.380, m* −0.2988; cuts must reach −0.308."""
    network = Network.load(data_dir / "convex_adversarial" / "mnist.pth", architecture="wong-kolter-small")
    ball = LinfBall(load_dataset("mnist").images[8], eps=0.1, domain=(0, 1))
    problem = margin_problem(network, ball, 5, layer_bounds(network, ball, ("dual", "lp"), HIGHS), [6], HIGHS)
    (lp,), (ideal,) = get_rung("lp")(problem), get_rung("ideal")(problem)
    assert lp.lower == pytest.approx(-0.380, abs=1e-3)
    assert -0.308 <= ideal.lower <= -0.2987


def test_the_finder_agrees_with_trying_every_subset(rng: np.random.Generator) -> None:
    """The linear-time choice of I is the most violated of all 2ⁿ subsets."""
    network = random_dense_network(rng, (4, 1, 2))
    layer = Dense(network.layers[0].weight, [0.1])
    network = Network([layer, *network.layers[1:]])
    ball = LinfBall(np.zeros(4), eps=1.0)
    layout = build_template(Region(network, ball, layer_bounds(network, ball))).layout
    assert layout.count == 1
    w, b = layer.weight[0], layer.bias[0]
    low, high = -np.abs(w), np.abs(w)
    for _ in range(50):
        x, y, a = rng.uniform(-1, 1, 4), rng.uniform(0, 2), rng.uniform(0, 1)
        sides = [
            sum(w[j] * x[j] - low[j] * (1 - a) for j in subset)
            + (b + sum(high[j] for j in range(4) if j not in subset)) * a
            for size in range(5)
            for subset in itertools.combinations(range(4), size)
        ]
        worst = y - min(sides)
        rows, upper = CutFinder(layout, ball).violated(np.concatenate([x, [y, 0.0, a]]), 1e-12)
        if worst <= 1e-12:
            assert rows.shape[0] == 0
        else:
            place = np.concatenate([x, [y, 0.0, a]])
            assert (rows @ place - upper)[0] == pytest.approx(worst, abs=1e-9)
