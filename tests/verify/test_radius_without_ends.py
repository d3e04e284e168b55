"""Radii where time, the domain or the largest ε has no end: they are asked for all the same, or refused by name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from conftest import random_dense_network

from toolkit.problems.input_sets import LinfBall
from toolkit.verify.bisection import is_narrow
from toolkit.verify.ladder import certify
from toolkit.verify.radius import asked_range, certified_radius, closest

NETWORK = random_dense_network(np.random.default_rng(1), (2, 5, 5, 3))
CENTER = np.array([0.5, 0.4])
LABEL = int(NETWORK.predict(CENTER))
INF = math.inf


@pytest.mark.parametrize(
    "given",
    [
        {"time_limit": INF},
        {"domain": (-INF, INF)},
        {"domain": (0, INF)},
        {"domain": (-INF, INF), "largest": 5.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_has_no_end_changes_no_radius(given: dict[str, Any], norm: str) -> None:
    plain, found = closest(NETWORK, CENTER, LABEL, norm), closest(NETWORK, CENTER, LABEL, norm, **given)
    assert 0 < plain.refuted < 0.4  # the nearest point lies in every domain above
    assert max(plain.certified, found.certified) <= min(plain.refuted, found.refuted)
    assert found.gap <= 1.1e-3 * found.refuted


@pytest.mark.parametrize("domain", [None, (-INF, INF), (0.0, INF)])
def test_the_largest_eps_is_cut_by_a_bounded_domain_alone(domain: tuple[float, float] | None) -> None:
    assert asked_range(CENTER, "linf", domain, None) == (2.0, 2.0)
    assert asked_range(CENTER, "linf", domain, 50.0) == (50.0, 2.0)
    assert asked_range(CENTER, "linf", (0.0, 1.0), 50.0) == (1.0, 1.0)


def test_an_end_at_infinity_is_refused() -> None:
    with pytest.raises(ValueError, match="largest must be finite, got inf"):
        closest(NETWORK, CENTER, LABEL, largest=INF)
    with pytest.raises(ValueError, match="largest must be finite, got inf"):
        certified_radius(NETWORK, CENTER, LABEL, largest=INF)
    with pytest.raises(ValueError, match="tolerance must be finite, got inf"):
        closest(NETWORK, CENTER, LABEL, tolerance=INF)


def test_an_interval_without_an_upper_end_is_never_narrow() -> None:
    assert not is_narrow(0.0, INF, 1e-6, 1e-3)
    assert is_narrow(1.0, 1.0005, 1e-6, 1e-3)


def test_certify_without_an_end_in_time_is_certify() -> None:
    ball = LinfBall(CENTER, 0.1)
    chain = ("interval", "dual", "lp")
    plain, endless = (certify(NETWORK, ball, LABEL, bounds=chain, time_limit=limit) for limit in (None, INF))
    assert endless.verdict is plain.verdict
