"""Falsification: a point that is found is proven, a network without one is not refuted, and effort only adds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import random_dense_network
from hypothesis import given
from hypothesis import strategies as st

from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.networks.replay import exact_margins
from toolkit.problems.answers import Status
from toolkit.problems.input_sets import Box, InputSet, L1Ball, L2Ball, LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.properties import Objective
from toolkit.problems.region import Region
from toolkit.search import falsify as module
from toolkit.search.falsify import falsify
from toolkit.verify.margins import margin_problem

ABSOLUTE = Network([Dense([[1.0], [-1.0]], [0.0, 0.0]), Dense([[1.0, 1.0]], [0.0])])  # |x|


def free_problem(network: Network, input_set: InputSet, rows: np.ndarray | None = None) -> Problem:
    """A question about which no l,u are known."""
    asked = np.eye(network.output_size) if rows is None else rows
    return Problem(Region.unbounded(network, input_set), Objective(asked))


def needle(width: float, size: int) -> Network:
    """max_j |x_j − c_j| − width with c off the centre: ≤ 0 on a box of that half-width alone."""
    centre = np.linspace(0.13, 0.77, size)
    signed = np.repeat(np.eye(size), 2, axis=0) * np.tile([1.0, -1.0], size)[:, None]
    rows, biases = signed, -signed @ centre
    layers = []
    count = size
    sums = np.kron(np.eye(size), [[1.0, 1.0]])  # |x_j − c_j| for every j, from both halves
    layers.append(Dense(rows, biases))
    weight, bias = sums, np.zeros(size)
    while count > 1:  # max(a, b) = max(a − b, 0) + b, b ≥ 0
        pairs = count // 2
        new = np.zeros((2 * pairs + count % 2, count))
        for k in range(pairs):
            new[2 * k, [2 * k, 2 * k + 1]] = 1.0, -1.0
            new[2 * k + 1, 2 * k + 1] = 1.0
        if count % 2:
            new[-1, -1] = 1.0
        layers.append(Dense(new @ weight, new @ bias))
        count = pairs + count % 2
        weight, bias = np.zeros((count, new.shape[0])), np.zeros(count)
        for k in range(pairs):
            weight[k, [2 * k, 2 * k + 1]] = 1.0
        if new.shape[0] % 2:
            weight[-1, -1] = 1.0
    return Network([*layers, Dense(weight, bias - width)])


def test_the_needle_is_what_it_says(rng: np.random.Generator) -> None:
    points = rng.uniform(-1, 1, (50, 5))
    values = np.asarray(needle(0.01, 5).forward(points))[:, 0]
    np.testing.assert_allclose(values, np.abs(points - np.linspace(0.13, 0.77, 5)).max(axis=1) - 0.01, atol=1e-12)


@pytest.mark.parametrize("size", [3, 5, 40])
def test_a_needle_is_found_and_proven(size: int) -> None:
    """A millionth of the box and less: where inputs are few, by screening and Adam; else by sign steps."""
    network, box = needle(0.4 if size == 40 else 0.01, size), Box(np.full(size, -1.0), np.ones(size))
    found = falsify(free_problem(network, box), seconds=60)
    assert found.witness is not None
    assert box.contains(found.witness)
    assert exact_margins(network, np.eye(1), found.witness)[0] <= 0
    assert found.bounds[0].status is Status.DECIDED


@given(seed=st.integers(0, 10**6))
def test_what_is_found_is_proven_and_what_is_said_is_replayed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = random_dense_network(rng, (4, 9, 7, 3))
    centre, kind = rng.uniform(0, 1, 4), [LinfBall, L1Ball, L2Ball][seed % 3]
    ball = kind(centre, 0.2)
    problem = free_problem(network, ball, rng.normal(size=(2, 3)))
    found = falsify(problem, rounds=2)
    assert len(found.bounds) == 2
    for k, bound in enumerate(found.bounds):
        assert bound.witness is not None
        assert ball.contains(bound.witness)
        assert bound.upper == pytest.approx(problem.replay(bound.witness)[0, k], abs=1e-12)
        assert bound.upper <= problem.clean_values()[k] + 1e-9
        assert bound.lower == -np.inf
    assert (found.witness is None) == (found.rounds == 2)
    if found.witness is not None:
        assert min(exact_margins(network, problem.rows, found.witness)) <= 0


def test_a_network_above_zero_is_not_refuted_and_ties_are_settled_exactly() -> None:
    above = Network([*ABSOLUTE.layers[:1], Dense([[1.0, 1.0]], [1e-9])])
    box = Box([-1.0], [1.0])
    found = falsify(free_problem(above, box), rounds=3)
    assert found.witness is None
    assert found.rounds == 3
    assert 0 < found.bounds[0].upper < 0.1
    tie = falsify(free_problem(ABSOLUTE, box), rounds=1)  # |0| = 0, at the centre
    assert tie.witness is not None
    assert exact_margins(ABSOLUTE, np.eye(1), tie.witness) == [0]


def test_what_floats_say_is_not_believed() -> None:
    """(x + 1e16) − 1e16 is 0 in floats where x is ¼ to ¾, and x in real arithmetic."""
    network = Network([Dense([[1.0]], [1e16]), Dense([[1.0]], [-1e16])])
    problem = free_problem(network, Box([0.25], [0.75]))
    assert problem.clean_values()[0] == 0
    found = falsify(problem, rounds=2)
    assert found.witness is None
    assert found.rounds == 2


def test_effort_only_adds_and_a_search_can_be_taken_up() -> None:
    rng = np.random.default_rng(7)
    network = random_dense_network(rng, (6, 12, 10, 4))
    problem = margin_problem(network, LinfBall(rng.uniform(0, 1, 6), 0.05, (0, 1)), 1)
    lifted = free_problem(Network([*network.layers[:-1], shifted(network)]), problem.input_set, problem.rows)
    one, three = falsify(lifted, rounds=1), falsify(lifted, rounds=3)
    resumed = falsify(lifted, rounds=3, earlier=one)
    assert [one.rounds, three.rounds, resumed.rounds] == [1, 3, 3]
    for first, later, other in zip(one.bounds, three.bounds, resumed.bounds, strict=True):
        assert later.upper <= first.upper + 1e-12
        assert other.upper == pytest.approx(later.upper, abs=1e-6)
    seeded = replace(lifted.settings, seed=5)
    assert [b.upper for b in falsify(lifted.with_settings(seeded), rounds=1).bounds] != [b.upper for b in one.bounds]


def shifted(network: Network) -> Dense:
    """The last map with class 1 ahead by 100: no margin to it is ≤ 0."""
    last = network.layers[-1]
    return Dense(last.to_sparse().toarray(), last.bias_vector + 100.0 * np.eye(network.output_size)[1])


def test_the_clock_and_bad_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = free_problem(needle(-0.01, 5), Box(np.full(5, -1.0), np.ones(5)))
    hurried = falsify(problem, seconds=0)
    assert (hurried.rounds, hurried.witness) == (0, None)
    assert hurried.bounds[0].status is Status.TIME_LIMIT
    assert hurried.bounds[0].upper == pytest.approx(float(problem.clean_values()[0]))
    ticks = iter(range(10**6))
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(ticks)))
    assert falsify(problem, seconds=50).rounds < 2  # a look at the clock in every step: 50 looks are not two rounds
    monkeypatch.undo()
    with pytest.raises(ValueError, match="one of 1 rows, this of 2"):
        falsify(problem.with_rows(np.ones((2, 1))), earlier=hurried)
    with pytest.raises(ValueError, match="rounds must be ≥ 0"):
        falsify(problem, rounds=-1)
