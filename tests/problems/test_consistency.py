"""No interval that contradicts itself, or a point of the ball, leaves a rung as a bound: for every caller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from conftest import random_dense_network
from hypothesis import given
from hypothesis import strategies as st

from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.networks.replay import evaluation_errors
from toolkit.problems.answers import Bound, Status
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.rungs.rung import Rung, Side, each_row
from toolkit.verify.margins import margin_problem


def asked() -> Problem:
    network = random_dense_network(np.random.default_rng(0), (3, 6, 6, 3))
    return margin_problem(network, LinfBall(np.full(3, 0.5), 0.2), 0)


def answer(problem: Problem, make: Callable[[float], Bound], certifies: bool = True) -> Bound:
    """What a rung hands out that answers `make(clean)` for every row."""
    clean = problem.replay(problem.input_set.center)[0]
    rung = Rung("made_up", Side.EXACT, "", "", each_row(lambda _: [make(float(v)) for v in clean]), certifies=certifies)
    return rung(problem)[0]


@pytest.mark.parametrize(
    ("make", "kept"),
    [
        (lambda clean: Bound(np.nan), -np.inf),
        (lambda clean: Bound(np.inf), -np.inf),
        (lambda clean: Bound(clean + 1e-6), -np.inf),  # above the value at the centre
        (lambda clean: Bound(clean - 1, clean - 1 - 1e-6), -np.inf),
        (lambda clean: Bound(clean - 1, clean - 2, certified_lower=clean - 3), -3.0),
        (lambda clean: Bound(clean - 3, clean - 2, certified_lower=clean - 1), -np.inf),
        (lambda clean: Bound(clean - 9, certified_lower=clean + 1), -np.inf),
        (lambda clean: Bound(clean - 9, clean, certified_lower=clean - 2, certified_upper=clean - 3), -np.inf),
        (lambda clean: Bound(clean - 9, np.nan, certified_lower=clean - 9), -9.0),
        (lambda clean: Bound(clean - 9, certified_lower=np.nan), -np.inf),
    ],
)
def test_contradictions_are_failed_with_the_reason(make: Callable[[float], Bound], kept: float) -> None:
    problem = asked()
    clean = float(problem.replay(problem.input_set.center)[0, 0])
    found = answer(problem, make)
    assert found.status is Status.FAILED
    assert found.lower == -np.inf
    assert not np.isnan(found.upper)
    assert "nonsense from the rung" in found.message
    assert found.certified_lower == pytest.approx(kept if kept == -np.inf else clean + kept)


@pytest.mark.parametrize(
    "make",
    [
        lambda clean: Bound(clean),
        lambda clean: Bound(clean * (1 + 1e-16) + 1e-16, clean),
        lambda clean: Bound(-np.inf, clean - 5),
        lambda clean: Bound(clean - 2, clean - 1, certified_lower=clean - 2, certified_upper=clean - 1),
        lambda clean: Bound(-np.inf),
    ],
)
def test_true_bounds_pass_and_are_ordered(make: Callable[[float], Bound]) -> None:
    found = answer(asked(), make)
    assert found.status is Status.COMPUTED
    assert found.lower <= found.upper


def test_a_failed_bound_keeps_its_own_reason_and_an_uncertified_one_certifies_nothing() -> None:
    found = answer(asked(), lambda clean: Bound(clean + 9, status=Status.FAILED, message="lost"))
    assert (found.status, found.message) == (Status.FAILED, "lost")
    problem = asked()
    loose = replace(problem, region=problem.region.with_bounds(replace(problem.relu_bounds, certified=False)))
    assert answer(loose, lambda clean: Bound(clean - 2, certified_lower=clean - 1)).certified_lower == -np.inf


@given(seed=st.integers(0, 10**6), unit=st.sampled_from([1e-9, 1.0, 1e9]))
def test_the_replay_error_covers_what_float64_does(seed: int, unit: float) -> None:
    """The value at a float point in rational arithmetic is within the error of the one in float64."""
    rng = np.random.default_rng(seed)
    network = random_dense_network(rng, (3, 5, 4, 2))
    factors = zip(network.layers, (unit, 1.0, 1.0 / unit), strict=True)
    network = Network([Dense(layer.weight * factor, layer.bias) for layer, factor in factors])
    ball = LinfBall(rng.normal(size=3), 0.1)
    problem = margin_problem(network, ball, 0)
    y = [Fraction(v) for v in ball.center.tolist()]
    size = np.abs(ball.center)
    for k, layer in enumerate(network.layers):
        y = [max(v, Fraction(0)) for v in y] if k else y
        rows = zip(layer.weight.tolist(), layer.bias_vector.tolist(), strict=True)
        size = np.abs(layer.weight) @ size + np.abs(layer.bias_vector)
        y = [sum((Fraction(w) * v for w, v in zip(row, y, strict=True)), Fraction(b)) for row, b in rows]
    exact = y[0] - y[1]
    error = float(evaluation_errors(network, problem.rows[[0]], ball.center)[0][0, 0])
    assert abs(Fraction(float(problem.replay(ball.center)[0, 0])) - exact) <= Fraction(error)
    assert error <= 1e-14 * size.sum()
