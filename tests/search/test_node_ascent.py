"""An ascent never loses what it has, says where it was, and does the same for a node whoever goes beside it."""

from __future__ import annotations

import time

import numpy as np
import pytest
from pieces import SETS, feasible_duals, met_phases, small_problem

from toolkit.search.array_makers import in_float32, in_float64
from toolkit.search.dual_function import DualFunction, Parts
from toolkit.search.node_ascent import Pace, ascend

PACE = Pace(60, 0.3, 0.01)


def _nodes(seed: int, kind: str = "linf", graph: bool = False) -> tuple[Parts, np.ndarray, np.ndarray]:
    problem, rng = small_problem(seed, kind=kind, graph=graph), np.random.default_rng(seed)
    rows, phases = rng.integers(3, size=20), met_phases(problem, rng, 20, 0.5)
    return DualFunction(problem, in_float64).parts(rows, phases), feasible_duals(rng, phases), phases


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("seed", range(3))
def test_the_value_is_g_at_the_duals_and_no_less_than_at_the_start(seed: int, kind: str, graph: bool) -> None:
    parts, start, phases = _nodes(seed, kind, graph)
    before = parts.values(start)
    kept = start.copy()
    found = ascend(parts, start, np.full(20, np.inf), PACE)
    np.testing.assert_array_equal(start, kept)
    np.testing.assert_allclose(found.value, parts.values(found.duals), atol=1e-10)
    assert np.all(found.value >= before)
    assert np.any(found.value > before + 1e-3)
    assert np.all(found.duals >= 0)
    assert np.all(found.duals[phases < 0] <= 1)
    assert np.all(found.scores >= 0)
    assert np.all(found.scores[phases >= 0] == 0)


@pytest.mark.parametrize("seed", range(4))
def test_nodes_that_leave_change_nothing_for_those_that_stay(seed: int) -> None:
    parts, start, _ = _nodes(seed)
    alone = ascend(parts, start, np.full(20, np.inf), PACE)
    cutoff = np.where(np.arange(20) % 2, np.inf, parts.values(start))  # half of them are done where they start
    mixed = ascend(parts, start, cutoff, PACE)
    for name in ("value", "duals", "scores", "arriving", "points"):
        one, other = getattr(alone, name)[..., 1::2], getattr(mixed, name)[..., 1::2]
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-9)
    assert np.all(mixed.value[::2] >= cutoff[::2])
    np.testing.assert_allclose(mixed.value, parts.values(mixed.duals), atol=1e-10)


@pytest.mark.parametrize("steps", [1, 2, 7, 13])
def test_more_steps_at_one_length_never_reach_less(steps: int) -> None:
    parts, start, _ = _nodes(1)
    few, more = (ascend(parts, start, np.full(20, np.inf), Pace(n, 0.1, 0.1)) for n in (steps, 2 * steps))
    assert np.all(more.value >= few.value - 1e-12)


def test_a_deadline_that_is_over_gives_what_one_step_gives() -> None:
    parts, start, _ = _nodes(2)
    found = ascend(parts, start, np.full(20, np.inf), Pace(10**6), time.perf_counter() - 1.0)
    np.testing.assert_allclose(found.value, parts.values(found.duals), atol=1e-10)


def test_nothing_to_climb() -> None:
    """No node, and nodes of a region without an unstable neuron."""
    parts, start, _ = _nodes(0)
    assert ascend(parts.keep(np.zeros(0, dtype=np.int64)), start[:, :0], np.zeros(0), PACE).value.shape == (0,)
    stable = small_problem(0, eps=0.0)
    function = DualFunction(stable)
    assert function.size == 0
    found = ascend(function.parts(), np.zeros((0, 3)), np.full(3, np.inf), PACE)
    np.testing.assert_allclose(found.value, stable.clean_values(), atol=1e-9)


def test_float32_climbs_as_far() -> None:
    problem, rng = small_problem(5), np.random.default_rng(5)
    phases = met_phases(problem, rng, 12, 0.5)
    start = feasible_duals(rng, phases)
    reached = []
    for make in (in_float64, in_float32):
        function = DualFunction(problem, make)
        parts = function.parts(np.arange(12) % 3, phases)
        reached.append(ascend(parts, make(start), make(np.full(12, np.inf)), PACE).value)
    np.testing.assert_allclose(reached[1], reached[0], rtol=0.02, atol=0.02)
