"""Raised planes give a bound between the triangle's and the truth, and of one hidden layer that of all ideal cuts."""

from __future__ import annotations

import time

import numpy as np
import pytest
from oracle import least
from pieces import small_problem

from toolkit.problems.problem import Problem
from toolkit.rungs import get_rung
from toolkit.search.array_makers import in_float64
from toolkit.search.dual_function import DualFunction
from toolkit.search.hull_planes import FirstLayer
from toolkit.search.node_ascent import Pace
from toolkit.search.plane_ascent import Raised, raise_planes

LONG = Pace(400, 0.2, 0.001)


def _raised(problem: Problem, row: int, pace: Pace = LONG, aim: float = np.inf, deadline: float = np.inf) -> Raised:
    function = DualFunction(problem, in_float64)
    layer = FirstLayer.of(problem, function.make)
    assert layer is not None
    start = Raised(layer.plane(layer.chords()), np.full((function.size, 1), 0.5), -np.inf)
    phases = np.full((function.size, 1), -1, dtype=np.int8)
    return raise_planes(layer, function.parts(np.array([row]), phases), start, aim, pace, deadline)


@pytest.mark.parametrize("seed", range(4))
def test_one_hidden_layer_reaches_the_bound_of_all_ideal_cuts(seed: int) -> None:
    problem = small_problem(seed, (3, 8, 2))
    truths = least(problem.network, problem.input_set, problem.rows.tolist())
    cut = [bound.lower for bound in get_rung("ideal")(problem)]
    plain = [bound.lower for bound in get_rung("lp")(problem)]
    size = 0.02 * (1 + np.abs(cut))  # what the ascent may still lack
    for row, (truth, _) in enumerate(truths):
        value = _raised(problem, row).value
        assert value <= float(truth) + 1e-9
        assert value >= plain[row] - size[row]
        assert cut[row] - size[row] <= value <= cut[row] + 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_planes_below_further_layers_lose_nothing(seed: int) -> None:
    problem = small_problem(seed, (3, 6, 4, 2))
    truths = least(problem.network, problem.input_set, problem.rows.tolist())
    plain = [bound.lower for bound in get_rung("alpha")(problem)]
    for row, (truth, _) in enumerate(truths):
        value = _raised(problem, row).value
        assert plain[row] - 0.02 * (1 + abs(plain[row])) <= value <= float(truth) + 1e-9


def test_it_ends_at_its_aim_and_its_deadline() -> None:
    problem = small_problem(1, (3, 8, 2))
    start, best = _raised(problem, 0, Pace(0)), _raised(problem, 0)
    assert start.value < best.value
    aim = 0.5 * start.value + 0.5 * best.value
    assert aim <= _raised(problem, 0, LONG, aim).value < best.value
    assert _raised(problem, 0, LONG, np.inf, time.perf_counter() - 1.0).value == start.value
