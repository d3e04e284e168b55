"""l,u over many boxes hold the true ranges in every part, whatever the graph, the numbers and the room."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from box_problems import cubes, graph_problem, parts, problem_of, ranges_of
from oracle import neuron_ranges

from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.networks.stages import Stage
from toolkit.problems.input_sets import Box, LinfBall


@pytest.mark.parametrize("finer", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_the_true_ranges_lie_inside(seed: int, finer: bool) -> None:
    problem = graph_problem(seed, depth=3)
    lower, upper = cubes(problem, 3, seed)
    ranges = ranges_of(problem, lower, upper, finer)
    alive = [np.flatnonzero(~problem.relu_bounds.inactive(k)) for k in range(len(problem.relu_bounds))]
    for b in range(3):
        inside = LinfBall(0.5 * lower[b] + 0.5 * upper[b], float((upper[b] - lower[b]).min()) * 0.499)
        for k, true in enumerate(neuron_ranges(problem.network, inside)):
            for place, i in enumerate(alive[k].tolist()):
                assert Fraction(float(ranges.lower[k][place, b])) <= true[i][0]
                assert Fraction(float(ranges.upper[k][place, b])) >= true[i][1]


def test_branches_side_by_side_share_no_symbol() -> None:
    """relu(x) + relu(−x) = |x| in branches of their own: with one symbol for both, |x| ≤ 1 would look like a point."""
    one, zero = np.ones((1, 1)), np.zeros(1)
    stages = (
        Stage(((0, Dense(one, zero)),)),
        Stage(((0, Dense(-one, zero)),)),
        Stage(((1, Dense(one, zero)), (2, Dense(-2.0 * one, zero)))),
        Stage(((3, Dense(one, zero)),), False),
    )
    problem = problem_of(Network(stages, "branches"), Box([-1.0], [1.0]), np.ones((1, 1)))
    lower, upper = np.array([[-1.0]]), np.array([[1.0]])
    ranges = ranges_of(problem, lower, upper, False)
    assert ranges.lower[2][0, 0] <= -2.0
    assert ranges.upper[2][0, 0] >= 1.0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        branches = tuple(Stage(((0, Dense(rng.normal(size=(4, 2)), rng.normal(size=4))),)) for _ in range(3))
        joined = tuple((k, Dense(rng.normal(size=(3, 4)), rng.normal(size=3) * (k == 1))) for k in (1, 2, 3))
        last = Stage(((4, Dense(rng.normal(size=(1, 3)))),), False)
        problem = problem_of(Network((*branches, Stage(joined), last), "branches"), Box([-1, -1], [1, 1]), np.eye(1))
        lower, upper = parts(problem, 4, seed)
        ranges = ranges_of(problem, lower, upper, False)
        alive = np.flatnonzero(~problem.relu_bounds.inactive(3))
        for b in range(4):
            hats = problem.network.preactivations(rng.uniform(lower[b], upper[b], (500, 2)))[3][:, alive]
            assert (ranges.lower[3][:, b] <= hats.min(axis=0)).all()
            assert (ranges.upper[3][:, b] >= hats.max(axis=0)).all()


def test_forms_charge_what_rounding_does() -> None:
    """Sums that cancel: the float middle is off by far more than the exact width; l,u hold the truth all the same."""
    big, tiny = 2.0**60, 2.0**-30
    network = Network.from_arrays(
        [
            (np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([big, big])),
            (np.array([[3.0, -3.0], [1.0, -1.0]]), np.array([0.1, 0.2])),
            (np.array([[1.0, 1.0]]), np.zeros(1)),
        ],
        "out_in",
    )
    problem = problem_of(network, Box([-tiny, -tiny], [tiny, tiny]), np.ones((1, 1)))
    lower, upper = parts(problem, 4)
    ranges = ranges_of(problem, lower, upper, False)
    for b in range(4):
        for x in (lower[b], upper[b]):
            first = [Fraction(big) + Fraction(float(v)) for v in x]
            hats = [3 * (first[0] - first[1]) + Fraction(0.1), first[0] - first[1] + Fraction(0.2)]
            for place, hat in enumerate(hats):
                assert Fraction(float(ranges.lower[1][place, b])) <= hat <= Fraction(float(ranges.upper[1][place, b]))


def test_symbols_may_be_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no room for symbols the forms are intervals: weaker, and still sound."""
    problem = graph_problem(3, depth=3)
    lower, upper = cubes(problem, 3, 0)
    full = ranges_of(problem, lower, upper, False)
    for entries in (0, 60):
        monkeypatch.setattr("toolkit.certificates.box_ranges.GENERATOR_ENTRIES", entries)
        fewer = ranges_of(problem, lower, upper, False)
        for k in range(len(full)):
            assert (fewer.lower[k] <= full.lower[k] + 1e-9).all()
            assert (fewer.upper[k] >= full.upper[k] - 1e-9).all()
