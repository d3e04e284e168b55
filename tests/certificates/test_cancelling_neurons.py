"""Neurons whose terms are far larger than their values: rounding there must be charged, and to nobody else."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from oracle import forward

from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.answers import Verdict
from toolkit.problems.input_sets import Box, LinfBall
from toolkit.verify.ladder import certify
from toolkit.verify.margins import margins


def cancelling(rng: np.random.Generator, leak: float) -> Network:
    """Two equal neurons, of whose difference the first neuron of the next layer sees `leak` more at its end."""
    first, bias = rng.normal(size=(6, 4)), rng.normal(size=6) + 3
    first[1], bias[1] = first[0], bias[0]
    second, more = rng.normal(size=(5, 6)), rng.normal(size=5)
    second[0], more[0] = 0, leak
    second[0, :2] = 1, -1
    return Network([Dense(first, bias), Dense(second, more), Dense(rng.normal(size=(3, 5)), rng.normal(size=3))])


@pytest.mark.parametrize("leak", [0.0, 1e-13, -1e-9])
def test_a_neuron_that_cancels_costs_the_others_nothing(leak: float) -> None:
    rng = np.random.default_rng(7)
    for _ in range(5):
        network, x = cancelling(rng, leak), rng.normal(size=4)
        bound = margins(network, LinfBall(x, 0.01), int(network.predict(x)), "exact")[0]
        assert bound.upper - bound.certified_lower < 1e-4 * max(1.0, abs(bound.upper))


@pytest.mark.parametrize("leak", [0.0, 1e-13, -1e-9])
@pytest.mark.parametrize("rung", ["dual", "lp", "bab"])
def test_what_is_certified_of_it_holds_at_every_point(leak: float, rung: str) -> None:
    rng = np.random.default_rng(8)
    for _ in range(4):
        network, x = cancelling(rng, leak), rng.normal(size=4)
        ball = LinfBall(x, 0.3)
        found = margins(network, ball, int(network.predict(x)), rung)
        for point in rng.uniform(ball.inner_lower, ball.inner_upper, (20, 4)):
            outputs = forward(network, point.tolist())
            for bound in found:
                value = outputs[int(network.predict(x))] - outputs[bound.target]
                assert Fraction(float(bound.certified_lower)) <= value


def test_the_verdict_of_a_network_with_two_equal_neurons() -> None:
    first = Dense(np.array([[1.0, 0], [1.0, 0], [0, 1.0]]), np.full(3, 5.0))
    second = Dense(np.array([[1.0, -1.0, 0], [1.0, 0, 0], [0, 0, 1.0]]), np.zeros(3))
    for margin in (0.05, 1.0):
        last = Dense(np.array([[-4.0, 1.0, 0], [0, 0, 1.0]]), np.array([margin + 0.2, 0]))
        found = certify(Network([first, second, last]), LinfBall([0.0, 0.0], 0.1), 0)
        assert found.verdict is Verdict.YES
        exact = margins(Network([first, second, last]), LinfBall([0.0, 0.0], 0.1), 0, "exact")[0]
        assert exact.certified_lower == pytest.approx(margin, abs=1e-9)


def test_a_constant_neuron_over_a_point_is_exact() -> None:
    network = Network([Dense(np.array([[1.0], [-1.0]]), np.array([-1.0, 1.0])), Dense(np.array([[2.0, 3.0]]), [2.3])])
    bound = margins(Network([*network.maps[:1], Dense(np.array([[2.0, 3.0], [0, 0]]), [2.3, 0])]), Box([1.0], [1.0]), 0)
    assert bound[0].certified_lower == pytest.approx(2.3, abs=1e-9)
