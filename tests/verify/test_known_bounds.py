"""Bounds handed to `certify` by hand are believed, but for those that contradict themselves or a point of the ball."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import random_dense_network

from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.answers import Bound, Status, Verdict
from toolkit.problems.input_sets import LinfBall
from toolkit.verify.ladder import certify

NETWORK = Network([Dense(np.array([[1.0], [0.0]]), np.zeros(2))])  # F₀ − F₁ = x
BALL = LinfBall([0.5], 0.25)  # 1/4 at worst, 1/2 at the centre


@pytest.mark.parametrize("status", [Status.COMPUTED, Status.FAILED])
@pytest.mark.parametrize("said", [0.6, 1e9, np.inf])
@pytest.mark.parametrize("lower", [-np.inf, 0.1, np.inf])
def test_a_certified_bound_above_a_point_is_failed_and_counts_for_nothing(
    said: float, status: Status, lower: float
) -> None:
    known = {"dual": [Bound(lower, target=1, status=status, certified_lower=said)]}
    answer = certify(NETWORK, BALL, 0, ("dual",), known=known)
    (margin,) = answer.margins
    assert answer.verdict is Verdict.MAYBE
    assert not answer.certified
    assert answer.decided_by == ("",)
    assert margin.status is Status.FAILED
    assert margin.certified_lower == -np.inf
    assert "nonsense" in margin.message


@pytest.mark.parametrize("said", [1e9, np.inf])
def test_what_a_rung_proves_afterwards_counts(said: float) -> None:
    known = {"bab": [Bound(-np.inf, target=1, certified_lower=said)]}
    answer = certify(NETWORK, BALL, 0, ("dual",), known=known)
    assert answer.verdict is Verdict.YES
    assert answer.decided_by == ("dual",)
    np.testing.assert_allclose(answer.margins[0].certified_lower, 0.25, atol=1e-9)


def test_an_unsafe_ball_is_not_called_safe() -> None:
    network = random_dense_network(np.random.default_rng(3), (3, 6, 6, 3))
    ball = LinfBall(np.full(3, 0.5), 5.0)
    label = int(network.predict(ball.center))
    known = {"exact": [Bound(-np.inf, target=t, certified_lower=1e9) for t in range(3) if t != label]}
    assert certify(network, ball, label, known=known).verdict is Verdict.NO


def test_a_bound_that_nothing_refutes_is_believed() -> None:
    known = {"bab": [Bound(-np.inf, target=1, certified_lower=0.5)]}
    answer = certify(NETWORK, BALL, 0, ("interval",), known=known)
    assert (answer.verdict, answer.margins[0].certified_lower) == (Verdict.YES, 0.5)
