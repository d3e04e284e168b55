"""Layer bounds keep their deadline whatever rung of the chain solves or searches."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from conftest import random_dense_network

from toolkit.problems.answers import RowBounds
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rung
from toolkit.rungs.rung import Cost, Rung
from toolkit.verify.layer_bounds import layer_bounds

NETWORK = random_dense_network(np.random.default_rng(1), (4, 40, 40, 3))
BALL = LinfBall(np.zeros(4), 1.0)
SECONDS = 0.01  # that the slow rung takes for a row, whatever its limit


class Slow:
    """A run that takes SECONDS for a row and proves nothing, and the limits it was given, per call."""

    def __init__(self) -> None:
        self.limits: list[tuple[int, float | None]] = []

    def __call__(self, problem: Problem) -> RowBounds:
        count = len(problem.objective)
        self.limits.append((count, problem.settings.time_limit))
        time.sleep(SECONDS * count)
        return RowBounds(np.full(count, -np.inf))

    def rung(self, like: str) -> Rung:
        return replace(get_rung(like), name="slow", run=self, ranges=None)


@pytest.mark.parametrize("like", ["lp", "ideal", "exact"])
def test_no_more_than_one_neuron_is_asked_about_after_the_deadline(like: str) -> None:
    slow = Slow()
    tight = layer_bounds(NETWORK, BALL, ("interval", slow.rung(like)))
    asked = sum(count for count, _ in slow.limits)
    assert asked > 40
    assert {limit for _, limit in slow.limits} == {None}
    slow.limits.clear()
    allowed = 0.1
    found = layer_bounds(NETWORK, BALL, ("interval", slow.rung(like)), deadline=time.perf_counter() + allowed)
    assert sum(count for count, _ in slow.limits) <= allowed / SECONDS + 2
    np.testing.assert_array_equal(found.lower[1], tight.lower[1])


@pytest.mark.parametrize("like", ["lp", "ideal", "exact"])
def test_a_row_gets_no_more_than_what_is_left(like: str) -> None:
    """An LP half of it, as a neuron has two sides; a search its share among the neurons that are to come."""
    slow, allowed = Slow(), 100.0
    rung = slow.rung(like)
    unstable = layer_bounds(NETWORK, BALL).counts()[1][0]
    layer_bounds(NETWORK, BALL, ("interval", "dual", rung), deadline=time.perf_counter() + allowed)
    first = slow.limits[0][1]
    assert first is not None
    most = allowed / (2 if rung.cost is Cost.LINEAR_PROGRAM else 2 * unstable)
    assert 0.9 * most < first <= most
    assert all(limit is not None and limit <= allowed / 2 for _, limit in slow.limits)
    slow.limits.clear()
    own = Settings(time_limit=0.25)
    layer_bounds(NETWORK, BALL, ("interval", rung), own, deadline=time.perf_counter() + 1000.0)
    assert {limit for _, limit in slow.limits} == {0.25}


def test_without_bounds_a_late_rung_is_asked_all_the_same() -> None:
    slow = Slow()
    run = get_rung("lp").run
    late = replace(get_rung("lp"), name="late", run=lambda problem: slow(problem) and run(problem))
    bounds = layer_bounds(NETWORK, BALL, (late,), deadline=time.perf_counter() - 1.0)
    assert all(np.isfinite(bounds.lower[1]) | np.isfinite(bounds.upper[1]))
    assert {limit for _, limit in slow.limits} == {1e-3}


def test_a_deadline_is_a_number() -> None:
    with pytest.raises(ValueError, match="deadline must be a number or None, got nan"):
        layer_bounds(NETWORK, BALL, deadline=float("nan"))
    assert layer_bounds(NETWORK, BALL, deadline=float("inf")).certified
