"""Layer bounds: sound for every chain, exact in the first layer, never looser with one more rung."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from conftest import random_conv_network, random_dense_network
from hypothesis import given
from hypothesis import strategies as st
from structures import Case, cases

from toolkit.networks.network import Network
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rung
from toolkit.verify.layer_bounds import layer_bounds

CHAINS = [("interval",), ("dual",), ("interval", "dual"), ("interval", "dual", "lp"), ("interval", "exact")]
HIGHS = Settings(solver="highs", mip_gap=0.0)


def _case(seed: int) -> tuple[Network, LinfBall]:
    rng = np.random.default_rng(seed)
    network = random_dense_network(rng, (4, 6, 5, 5, 3)) if seed % 2 else random_conv_network(rng, channels=(2, 2))
    return network, LinfBall(rng.uniform(0, 1, network.input_size), eps=float(rng.uniform(0, 0.3)), domain=(0, 1))


@pytest.mark.parametrize("chain", CHAINS, ids="+".join)
@given(data=st.data())
def test_pre_activations_of_sampled_points_lie_within(chain: tuple[str, ...], data: st.DataObject) -> None:
    """In units of a neuron's own terms: up to 1e-6 where a solver's tolerance is trusted, else up to rounding."""
    case = data.draw(cases(1 if {"lp", "exact"} & set(chain) else 12))
    network, ball = case.network, case.ball
    bounds = layer_bounds(network, ball, chain, HIGHS)
    assert bounds.chain == chain
    points = np.vstack([ball.sample(50, case.seed), ball.corners(50, case.seed), ball.center[None]])
    y = points
    for k, layer in enumerate(network.layers[:-1]):
        values = layer.forward(y)
        scale = np.abs(y) @ np.abs(layer.to_sparse().toarray()).T + np.abs(layer.bias_vector)
        slip = (1e-6 if "exact" in chain else 1e-13) * scale
        assert np.all(values >= bounds.lower[k] - slip)
        assert np.all(values <= bounds.upper[k] + slip)
        y = np.maximum(values, 0)


@given(case=cases())
def test_first_layer_is_exact(case: Case) -> None:
    """Both ends are attained at corners of the box."""
    network, ball = case.network, case.ball
    bounds = layer_bounds(network, ball, ("dual",))
    matrix, bias = network.layers[0].to_sparse().toarray(), network.layers[0].bias_vector
    scale = float((np.abs(matrix).sum(axis=1) + np.abs(bias)).max())
    np.testing.assert_allclose(bounds.lower[0], ball.min_linear(matrix) + bias, atol=1e-12 * scale)
    np.testing.assert_allclose(bounds.upper[0], -ball.min_linear(-matrix) + bias, atol=1e-12 * scale)


@given(seed=st.integers(0, 10**6))
def test_one_more_rung_never_loosens(seed: int) -> None:
    """For neurons that stay unstable; of one that a rung proved inactive the lower side is left as it was."""
    network, ball = _case(seed)
    before: ReluBounds | None = None
    for chain in (("interval",), ("interval", "dual"), ("interval", "dual", "lp"), ("interval", "dual", "lp", "exact")):
        bounds = layer_bounds(network, ball, chain, HIGHS)
        if before is not None:
            for k in range(len(bounds)):
                mask = bounds.unstable(k)
                assert np.all(bounds.lower[k][mask] >= before.lower[k][mask] - 1e-6)
                assert np.all(bounds.upper[k][mask] <= before.upper[k][mask] + 1e-6)
            assert sum(c[0] for c in bounds.counts()) <= sum(c[0] for c in before.counts())
        before = bounds


def test_exact_chain_meets_the_range_over_the_ball(rng: np.random.Generator) -> None:
    """With one input the range of every neuron can be scanned; MIP tightening must meet it for unstable neurons."""
    network = random_dense_network(rng, (1, 6, 6, 2))
    ball = LinfBall(np.array([0.1]), eps=0.7)
    bounds = layer_bounds(network, ball, ("interval", "exact"), HIGHS)
    grid = np.linspace(ball.lower[0], ball.upper[0], 20001)[:, None]
    for k, values in enumerate(network.preactivations(grid)[:-1]):
        mask = bounds.unstable(k)
        np.testing.assert_allclose(bounds.lower[k][mask], values.min(0)[mask], atol=2e-3)
        np.testing.assert_allclose(bounds.upper[k][mask], values.max(0)[mask], atol=2e-3)


def test_only_unstable_neurons_go_on_and_progress_counts_them(rng: np.random.Generator) -> None:
    network = random_dense_network(rng, (4, 12, 12, 12, 3))
    ball = LinfBall(rng.normal(size=4), eps=0.15)
    seen: list[tuple[int, str, int, int]] = []
    bounds = layer_bounds(network, ball, ("interval", "dual"), progress=lambda *what: seen.append(what))
    by_layer = {(layer, rung): (tried, gained) for layer, rung, tried, gained in seen}
    assert by_layer[(0, "interval")][0] == 12
    for layer in (1, 2):
        tried, gained = by_layer[(layer, "interval")]
        assert tried == 12
        assert by_layer[(layer, "dual")][0] == tried - gained
        assert bounds.counts()[layer][0] == by_layer[(layer, "dual")][0] - by_layer[(layer, "dual")][1]


def test_the_point_ball_has_the_values_themselves(rng: np.random.Generator) -> None:
    network = random_conv_network(rng)
    ball = LinfBall(rng.uniform(0, 1, network.input_size), eps=0.0)
    bounds = layer_bounds(network, ball)
    for k, values in enumerate(network.preactivations(ball.center)[:-1]):
        np.testing.assert_allclose(bounds.lower[k], values, atol=1e-9)
        np.testing.assert_allclose(bounds.upper[k], values, atol=1e-9)
        assert bounds.counts()[k][0] == 0


def test_bad_chains_are_named(rng: np.random.Generator) -> None:
    network, ball = _case(1)
    with pytest.raises(ValueError, match="unknown rung 'magic'; allowed: interval"):
        layer_bounds(network, ball, ("magic",))
    with pytest.raises(ValueError, match="at least one rung"):
        layer_bounds(network, ball, ())


def test_a_search_gets_what_time_is_left_for_its_layer_alone() -> None:
    """Over the deadline it is not asked where there are bounds; and what follows it does not inherit its share."""
    network, ball = _case(1)
    asked: list[float | None] = []

    def searched(problem: Problem, neurons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.append(problem.settings.time_limit)
        return np.full(neurons.size, -np.inf), np.full(neurons.size, np.inf)

    search, rung, now = replace(get_rung("bab"), ranges=searched), get_rung("lp"), time.perf_counter()
    plain = layer_bounds(network, ball, ("interval", "dual"))
    late = layer_bounds(network, ball, ("interval", "dual", search), deadline=now - 1.0)
    assert not asked
    for k in range(len(plain)):
        np.testing.assert_array_equal(late.lower[k], plain.lower[k])
    kept: list[float | None] = []

    def run(problem: Problem) -> object:
        kept.append(problem.settings.time_limit)
        return rung.run(problem)

    layer_bounds(
        network, ball, ("interval", search, replace(rung, run=run)), Settings(time_limit=9.0), deadline=now + 60.0
    )
    assert asked
    assert 9.0 not in asked
    assert set(kept) == {9.0}
