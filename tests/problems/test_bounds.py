"""l,u of two chains together, and what Settings say of searches."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import random_dense_network

from toolkit.networks.network import Network
from toolkit.problems.bounds import ReluBounds, region_digest
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.verify.layer_bounds import layer_bounds


def _case() -> tuple[Network, LinfBall]:
    rng = np.random.default_rng(0)
    return random_dense_network(rng, (3, 6, 5, 2)), LinfBall(rng.normal(size=3), 0.4)


def test_two_chains_together_are_the_tighter_of_both_on_every_side() -> None:
    network, ball = _case()
    one, two = layer_bounds(network, ball, ("interval",)), layer_bounds(network, ball, ("dual",))
    both = one.intersected(two)
    for k in range(len(both)):
        np.testing.assert_array_equal(both.lower[k], np.maximum(one.lower[k], two.lower[k]))
        np.testing.assert_array_equal(both.upper[k], np.minimum(one.upper[k], two.upper[k]))
    assert both.certified
    assert both.chain == one.chain
    assert both.region == region_digest(network, ball)


def test_they_are_certified_only_if_both_are_and_of_one_region() -> None:
    network, ball = _case()
    one, other = layer_bounds(network, ball), layer_bounds(network, LinfBall(ball.center, 0.5))
    by_hand = ReluBounds(one.lower, one.upper)
    assert not one.intersected(by_hand).certified
    assert not by_hand.intersected(one).certified
    assert not one.intersected(other).certified


def test_where_uncertified_bounds_cross_these_stay_and_certified_ones_are_refused() -> None:
    low, high = np.array([-1.0, 0.2]), np.array([1.0, 0.3])
    moved = np.array([-0.5, 0.3 + 1e-9]), np.array([2.0, 0.4])
    found = ReluBounds((low,), (high,)).intersected(ReluBounds(*((side,) for side in moved)))
    np.testing.assert_array_equal(found.lower[0], [-0.5, 0.2])
    np.testing.assert_array_equal(found.upper[0], [1.0, 0.3])
    sealed = [ReluBounds.sealed([a], [b], ("dual",), True, "somewhere") for a, b in ((low, high), moved)]
    with pytest.raises(ValueError, match="neuron 1"):
        sealed[0].intersected(sealed[1])


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("nodes", 0), ("nodes", -3), ("nodes", 1.5), ("nodes", "many"), ("until_refuted", "yes"), ("until_refuted", 2)],
)
def test_settings_of_searches_are_checked(name: str, wrong: object) -> None:
    with pytest.raises((ValueError, TypeError), match=name):
        Settings(**{name: wrong})  # type: ignore[arg-type]
    assert Settings(nodes=1, until_refuted=True).nodes == 1
