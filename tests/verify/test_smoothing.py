"""Randomized smoothing: certified radii against the closed form of linear networks, enumeration and exact binomials."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binomtest

from toolkit import Network, smoothed_radius
from toolkit.networks.layers import Dense
from toolkit.verify.smoothing import PixelGrid, QuantisedNoise, clopper_pearson, count_votes

WIDE = (-8.0, 9.0)  # cuts no noise of σ ≤ 1 that any test will see
NORMAL = NormalDist()


def halfspace(normal: np.ndarray, offset: float) -> Network:
    """Class 0 where normal·x > offset, class 1 behind."""
    return Network([Dense(np.stack([normal, np.zeros_like(normal)]), np.array([-offset, 0.0]))])


@pytest.mark.parametrize(("seed", "size"), [(0, 1), (1, 3), (2, 20)])
def test_a_linear_network_is_certified_up_to_its_margin_and_nearly_all_of_it(seed: int, size: int) -> None:
    """The smoothed classifier of a halfspace is the halfspace: its radius is margin/‖w‖. Finer grids round less."""
    rng = np.random.default_rng(seed)
    normal, x = rng.normal(size=size), np.round(rng.uniform(0.2, 0.8, size) * 1024) / 1024
    truth = 0.35
    network = halfspace(normal, float(normal @ x) - truth * float(np.linalg.norm(normal)))
    found = smoothed_radius(network, x, 0.25, n=40_000, seed=seed, domain=WIDE, levels=1024)
    assert found.label == 0
    assert 0.95 * truth < found.radius <= truth
    assert smoothed_radius(network, x, 0.25, n=1_000, seed=seed, domain=WIDE, levels=1024).radius < found.radius


def test_the_statement_fails_no_more_often_than_alpha_allows() -> None:
    """200 statements at α = 0.2, every pixel on its grid: as many are false as a Binomial(200, ≤ 0.2) makes likely."""
    network = halfspace(np.ones(1), 0.5 - 0.5 / 16)
    truth = NORMAL.cdf((0.75 - 0.5 + 0.5 / 16) / 0.25)
    below = [smoothed_radius(network, [0.75], 0.25, n=200, alpha=0.2, seed=k, levels=16).p_lower for k in range(200)]
    false = int((np.array(below) > truth).sum())
    assert binomtest(false, 200, 0.2, alternative="greater").pvalue > 1e-4
    assert false > 0  # and the bound is not needlessly far below


def test_noise_on_the_grid_is_distributed_as_rounded_gaussian_noise() -> None:
    """Frequencies of every place against Φ at the edges of its cell, both ends taking what lies beyond them."""
    grid = PixelGrid.of((0.0, 1.0), 8)
    noise, count = QuantisedNoise(grid, np.array([2, 7]), 0.3, seed=5), 60_000
    found = np.concatenate([index for index, settled in noise.draws(count) if settled.all()])
    assert len(found) == count
    for pixel, center in enumerate((2, 7)):
        edges = [-math.inf, *((k + 0.5 - center) / 8 / 0.3 for k in range(8)), math.inf]
        for k, (low, high) in enumerate(itertools.pairwise(edges)):
            expected = NORMAL.cdf(high) - NORMAL.cdf(low)
            seen = int((found[:, pixel] == k).sum())
            assert binomtest(seen, count, expected).pvalue > 1e-5


def test_leading_bits_and_a_search_place_every_draw_where_its_bits_fall() -> None:
    """The places of 65,536 draws against the thresholds Φ themselves, from the same bits."""
    grid, sigma, size = PixelGrid.of((0.0, 1.0), 255), 0.2, 256
    noise = QuantisedNoise(grid, np.full(size, 128), sigma, seed=9)
    uniform = (np.random.PCG64(9).random_raw(256 * size) >> np.uint64(11)) / 2.0**53
    edges = np.array([NORMAL.cdf((d + 0.5) / 255 / sigma) for d in range(-255, 255)])
    moves = (edges <= uniform[:, None]).sum(axis=1) - 255
    (index, settled), *_ = noise.draws(256)
    assert settled.all()
    assert np.array_equal(index.ravel(), np.clip(128 + moves, 0, 255))


def test_votes_estimate_the_probability_that_enumeration_gives() -> None:
    """A network of two pixels and five values each: Σ P(p) over the 25 points that it puts into class 0."""
    rng = np.random.default_rng(3)
    network = Network([Dense(rng.normal(size=(6, 2)), rng.normal(size=6)), Dense(rng.normal(size=(3, 6)), np.zeros(3))])
    grid, center, sigma, count = PixelGrid.of((0.0, 1.0), 4), np.array([1, 3]), 0.4, 40_000
    share = np.zeros(3)
    for places in itertools.product(range(5), repeat=2):
        chance = 1.0
        for place, middle in zip(places, center.tolist(), strict=True):
            low = -math.inf if place == 0 else (place - 0.5 - middle) / 4 / sigma
            high = math.inf if place == 4 else (place + 0.5 - middle) / 4 / sigma
            chance *= NORMAL.cdf(high) - NORMAL.cdf(low)
        share[int(network.predict(np.array(places) / 4))] += chance
    assert share.sum() == pytest.approx(1)
    for label in range(3):
        votes = count_votes(network, QuantisedNoise(grid, center, sigma, seed=label), label, count)
        assert binomtest(votes, count, min(1.0, share[label])).pvalue > 1e-4


@pytest.mark.parametrize(("votes", "n", "alpha"), [(1, 10, 0.05), (90, 100, 0.001), (100, 100, 0.001), (7, 9, 0.3)])
def test_the_lower_bound_is_that_of_an_exact_one_sided_binomial_test(votes: int, n: int, alpha: float) -> None:
    found = clopper_pearson(votes, n, alpha)
    expected = binomtest(votes, n, alternative="greater").proportion_ci(1 - alpha, method="exact").low
    assert found == pytest.approx(expected, rel=1e-8)
    assert binomtest(votes, n, found, alternative="greater").pvalue <= alpha


@pytest.mark.parametrize(("votes", "n", "alpha"), [(2, 5, 1e-300), (4, 5, 1e-300), (3, 17, 1e-100), (31, 60, 1e-300)])
def test_what_scipy_does_not_find_is_no_lower_bound(votes: int, n: int, alpha: float) -> None:
    """Its quantile is too large here by up to 10¹⁰⁰ times, or NaN."""
    found = Fraction(clopper_pearson(votes, n, alpha))
    tail = sum(math.comb(n, k) * found**k * (1 - found) ** (n - k) for k in range(votes, n + 1))
    assert tail <= Fraction(alpha)


def test_no_vote_proves_nothing() -> None:
    assert clopper_pearson(0, 100, 0.05) == 0.0


def test_it_abstains_where_two_classes_are_as_likely_and_where_logits_tie() -> None:
    even = halfspace(np.ones(1), 0.5 + 0.5 / 255)  # x at 128/255 is as far from it as 127/255 is
    found = smoothed_radius(even, [128 / 255], 0.25, n=2000)
    assert (found.label, found.radius) == (None, 0.0)
    assert found.votes > 0
    tied = smoothed_radius(halfspace(np.zeros(2), 0.0), [0.2, 0.4], 0.25, n=50)
    assert (tied.label, tied.radius, tied.votes, tied.p_lower) == (None, 0.0, 0, 0.0)


def test_an_order_that_rounding_leaves_open_is_no_vote() -> None:
    """F_0 − F_1 = 2⁻⁵²x₀ > 0, less than the rounding of 2⁵⁰: floats see class 0 wherever 1 + 2⁻⁵² survives."""
    near = Network([Dense([[1.0 + 2.0**-52, 1.0], [1.0, 1.0]], [0.0, 0.0])])
    found = smoothed_radius(near, [0.5, 0.5], 0.1, n=50, domain=(0.0, 1.0), levels=10)
    assert (found.label, found.votes) == (None, 0)


def test_a_seed_fixes_the_draws_and_another_changes_them() -> None:
    network = halfspace(np.ones(64), 31.0)
    first, again, other = (smoothed_radius(network, np.full(64, 0.5), 0.3, n=700, levels=16, seed=k) for k in (1, 1, 2))
    assert first == again
    assert replace(other, seed=1) != first
    assert first.label == 0


def test_an_image_off_the_grid_loses_its_distance_from_it() -> None:
    network = halfspace(np.ones(2), 0.6)
    on, off = (smoothed_radius(network, x, 0.25, n=500, levels=10) for x in ([0.5, 0.5], [0.53, 0.46]))
    assert off.radius == pytest.approx(on.radius - 0.05, abs=1e-6)
    assert off.radius <= on.radius - 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, "sigma must be > 0, got 0.0"),
        ({"sigma": math.inf}, "sigma must be finite, got inf"),
        ({"alpha": 0.0}, "alpha must be > 0"),
        ({"alpha": 1.0}, "alpha must be < 1, got 1.0"),
        ({"n": 0}, "n must be ≥ 1, got 0"),
        ({"n0": 1.5}, "n0 must be a whole number"),
        ({"seed": -1}, "seed must be ≥ 0, got -1"),
        ({"levels": 0}, "levels must be ≥ 1, got 0"),
        ({"domain": (0.0, 0.3)}, "domain must begin and end at multiples of 1/255"),
        ({"domain": (1.0, 0.0)}, "steps of 1/255 wide"),
        ({"domain": (0.0, math.inf)}, "steps of 1/255 wide"),
        ({"domain": 1.0}, r"domain must be \(low, high\), got 1.0"),
        ({"x": [0.5]}, "x must have the network's 2 inputs, got 1"),
        ({"x": [0.5, 1.5]}, r"x must lie in the domain \[0, 1\], got 1.5 at 1"),
        ({"x": [0.5, math.nan]}, "x must"),
        ({"network": "zoo:digits-standard"}, "network must be a Network"),
        ({"network": Network([Dense(np.ones((1, 2)), np.zeros(1))])}, "at least two outputs"),
    ],
)
def test_bad_input_is_refused_by_name(change: dict[str, object], message: str) -> None:
    given = {"network": halfspace(np.ones(2), 0.5), "x": [0.5, 0.7], "sigma": 0.25, "n": 10} | change
    with pytest.raises(ValueError, match=message):
        smoothed_radius(**given)  # type: ignore[arg-type]
