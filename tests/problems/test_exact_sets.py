"""Numbers of an input set are those that were given: what float64 would round is refused, of whatever type it is."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from toolkit import Box, Dense, L1Ball, L2Ball, LinfBall, Network, Property, certify
from toolkit.problems.vnnlib_box import RationalBox

ROUNDED = (Fraction(1, 3), Decimal("0.1"), 2**53 + 1, np.int64(2**53 + 1))
EXACT = ((Fraction(1, 4), 0.25), (Decimal("0.5"), 0.5), (2**53, 2.0**53), (np.float32(0.1), float(np.float32(0.1))))
LONG = [np.longdouble(1) / 3] if np.finfo(np.longdouble).nmant > 52 else []  # double itself on some machines
PLACES: dict[str, Callable[[Any], Any]] = {
    "LinfBall.eps": lambda value: LinfBall([1.0], value).eps,
    "L1Ball.eps": lambda value: L1Ball([1.0], value).eps,
    "L2Ball.eps": lambda value: L2Ball([1.0], value).eps,
    "one of several eps": lambda value: LinfBall([1.0, 2.0], [value, 0.5]).eps[0],
    "center": lambda value: LinfBall([value], 0.1).center[0],
    "center beside a float": lambda value: LinfBall([0.5, value], 0.1).center[1],
    "center of objects": lambda value: LinfBall(np.array([value], dtype=object), 0.1).center[0],
    "lower": lambda value: Box([value, 0.25], [2.0**54] * 2).lower[0],
    "upper": lambda value: Box([0.0, 0.25], [value, 0.5]).upper[0],
    "domain": lambda value: LinfBall([0.0], 0.1, (-1, value)).domain[1],
    "domain per coordinate": lambda value: LinfBall([0.0, 0.0], 0.1, ([-1, -1], [value, 0.5])).domain[1][0],
    "rows": lambda value: Property.of([[value, 1.5]]).objective.rows[0, 0],
}


@pytest.mark.parametrize("place", PLACES)
def test_what_float64_would_round_is_refused(place: str) -> None:
    for value in (*ROUNDED, *LONG):
        with pytest.raises(ValueError, match="must fit into float64 exactly, got "):
            PLACES[place](value)
    for value, right in EXACT:
        assert PLACES[place](value) == right


def test_nothing_is_no_number() -> None:
    for values in ([None, 1.0], np.array([None, 1.0])):
        with pytest.raises(ValueError, match=r"center must be an array of real numbers, got None at index \(0,\)"):
            LinfBall(values, 0.1)
        with pytest.raises(ValueError, match=r"lower must be an array of real numbers, got None at index \(0,\)"):
            Box(values, [1.0, 1.0])


@pytest.mark.filterwarnings("error")
def test_a_box_as_wide_as_floats_go() -> None:
    wide = (Fraction(-1e308), Fraction(-1)), (Fraction(1e308), Fraction(1))
    for box in (Box([-1e308, -1.0], [1e308, 1.0]), RationalBox(*wide)):
        assert box.title == "largest half-width = 1e+308"
        assert np.all(box.reach == [1e308, 1.0])
        middle, half = box.linear_range(np.array([[0.5, 1.0], [0.0, 2.0]]))
        assert middle.tolist() == [0.0, 0.0]
        assert half.tolist() == [0.5e308, 2.0]
        assert box.support(np.array([[1.0, -1.0]])).tolist() == [[-1e308, 1.0]]
        assert certify(Network([Dense(np.eye(2))]), box, 0).verdict == "NO"
    assert Box([-1.0], [2.0]).title == "largest width = 3.0"
