"""Replays: each term of the error bound, and the rounding of an exact value, is needed."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
from oracle import value_at

from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.networks.replay import replay_margins


def test_errors_of_one_layer_are_carried_to_the_next() -> None:
    """y = 1e16 + 1 − 1e16 may be 0 in floats, where nothing in the next layer is large any more: y − 1/2 is 1/2."""
    lost = 0
    for terms in itertools.permutations((1e16, 1.0, -1e16)):
        network = Network([Dense([terms]), Dense([[1.0]]), Dense([[1.0]], [-0.5])])
        values, upper = replay_margins(network, [[1.0]], np.ones(3))
        assert upper[0, 0] >= 0.5
        lost += values[0, 0] <= 0
    assert lost > 0


def test_an_exact_value_between_two_floats_is_rounded_up() -> None:
    """1 − 1 + 2⁻⁶⁰ ± 2⁻¹²⁰: open in float64, and no float itself."""
    for last in (2.0**-120, -(2.0**-120)):
        for sign in (1.0, -1.0):
            terms = (sign, -sign, sign * 2.0**-60, sign * last)
            network = Network([Dense([terms])])
            exact = value_at(network, [1.0], [1.0] * 4)
            _, upper = replay_margins(network, [[1.0]], np.ones(4))
            assert exact == sum(map(Fraction, terms))
            assert exact < upper[0, 0] <= exact + Fraction(2.0**-110)
