"""A rung whose l,u the centre refutes, that answers something else than numbers, or that declares what is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import random_dense_network

from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.answers import Bound, RowBounds
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.rungs.rung import Cost, Rung, Side
from toolkit.verify.ladder import certify
from toolkit.verify.layer_bounds import layer_bounds

NETWORK = random_dense_network(np.random.default_rng(3), (3, 6, 6, 3))
BALL = LinfBall(np.full(3, 0.5), 5.0)
Run = Callable[[Problem], Any]


def _rung(run: Run, certifies: bool = True, **more: Any) -> Rung:
    return Rung("liar", Side.LOWER, "lies", "-", run, Cost.CLOSED_FORM, certifies=certifies, **more)


def _all(value: float, dtype: Any = np.float64) -> Run:
    return lambda problem: RowBounds(np.full(len(problem.objective), value, dtype))


@pytest.mark.parametrize("certifies", [True, False])
def test_bounds_that_leave_out_the_centre_name_their_rung(certifies: bool) -> None:
    liar = _rung(_all(1e9), certifies)
    word = "certified bounds" if certifies else "bounds"
    with pytest.raises(ValueError, match=rf"'liar' gives {word} l = .*neuron 0 in ReLU layer 1, .* at the centre"):
        layer_bounds(NETWORK, BALL, (liar,))
    label = int(NETWORK.predict(BALL.center))
    with pytest.raises(ValueError, match="'liar' gives"):  # it was a certified YES, where the truth is NO
        certify(NETWORK, BALL, label, ladder=("dual",), bounds=(liar,))


def test_rounding_alone_is_no_contradiction() -> None:
    """At ε = 0 bounds are the value at the centre, up to rounding: sums that cancel are off by many units."""
    rng = np.random.default_rng(0)
    layers = [Dense(1e6 * rng.normal(size=(m, n)), rng.normal(size=m)) for n, m in ((40, 60), (60, 60), (60, 3))]
    network, point = Network(layers), LinfBall(rng.normal(size=40), 0.0)
    for chain in (("interval",), ("dual",), ("interval", "dual", "crown")):
        assert layer_bounds(network, point, chain).certified
    value = network.cut(1).forward(point.center)
    exact = _rung(lambda problem: RowBounds(problem.rows @ value))
    layer_bounds(network, point, (exact,))
    low = _rung(lambda problem: RowBounds(problem.rows @ value + 1e-3 * np.abs(value).max()))
    with pytest.raises(ValueError, match="'liar' gives"):
        layer_bounds(network, point, (low,))


ANSWERS: dict[str, tuple[Rung, type[Exception], str]] = {
    "complex": (_rung(_all(0.0, complex)), ValueError, "6 floats as lower, got complex128"),
    "nan": (_rung(_all(np.nan)), ValueError, "'liar' gives certified bounds l = .* u = nan of neuron 0"),
    "list": (_rung(lambda p: RowBounds([-9.0] * len(p.objective))), TypeError, "floats as lower, got"),  # type: ignore[arg-type]
    "one row": (_rung(lambda p: RowBounds(np.zeros(1))), ValueError, r"6 floats as lower, got float64 of shape \(1,\)"),
    "highest": (_rung(lambda p: RowBounds(np.zeros(6), np.zeros((6, 1)))), ValueError, "6 floats as highest, got"),
    "details": (_rung(lambda p: RowBounds(np.zeros(6), None, (Bound(0.0),))), ValueError, "6 details or none"),
    "no bound": (_rung(lambda p: RowBounds(np.zeros(6), None, (0.0,) * 6)), ValueError, "must be a Bound, got 0.0"),  # type: ignore[arg-type]
    "ranges of one": (
        _rung(_all(-9.0), ranges=lambda p, i: (np.zeros(1), np.zeros(1))),
        ValueError,
        r"6 floats as l, got float64 of shape \(1,\)",
    ),
    "ranges alone": (_rung(_all(-9.0), ranges=lambda p, i: np.zeros(6)), TypeError, r"must answer \(l, u\)"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_answers_of_another_kind_name_the_rung(what: str) -> None:
    rung, error, words = ANSWERS[what]
    with pytest.raises(error, match=words) as caught:
        layer_bounds(NETWORK, BALL, (rung,))
    assert "'liar'" in str(caught.value)


def test_floats_of_less_precision_are_taken() -> None:
    plain = layer_bounds(NETWORK, BALL, (_rung(_all(-1e4)),))
    single = layer_bounds(NETWORK, BALL, (_rung(_all(-1e4, np.float32)),))
    np.testing.assert_array_equal(single.lower[1], plain.lower[1])


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", "", "name must be a name, got ''"),
        ("claim", 3, "claim must be a str, got 3"),
        ("run", None, "run must be a function, got None"),
        ("ranges", 3, "ranges must be a function or None, got 3"),
        ("certifies", "no", "certifies must be True or False, got 'no'"),
        ("input_sets", "linf", "input_sets must be a tuple, got 'linf'"),
        ("input_sets", ("linf",), "input_sets must hold kinds of InputSet, got 'linf'"),
        ("dominates", "dual", "dominates must be a tuple, got 'dual'"),
        ("dominates", (3,), "dominates must hold names, got 3"),
        ("reads", ("foo",), r"reads must name Settings \(solver, .*\), got 'foo'"),
        ("version", "x", "version must be a whole number ≥ 1, got 'x'"),
    ],
)
def test_fields_of_a_rung_are_checked(field: str, value: object, words: str) -> None:
    given: dict[str, Any] = {"name": "a", "side": Side.LOWER, "claim": "c", "source": "s", "run": _all(0.0)}
    with pytest.raises(ValueError, match=words):
        Rung(**{**given, field: value})
    assert Rung(**given, reads=("seed",)).reads == ("seed",)
