"""The question and its answers: objective rows, replay, the state of neurons, shared work, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import random_dense_network

from toolkit.networks.network import Network
from toolkit.problems.answers import Bound, RowBounds, Status
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.properties import margin_rows, selection_rows
from toolkit.problems.region import Region
from toolkit.problems.settings import Settings
from toolkit.rungs.rung import Rung, Side, each_row
from toolkit.verify.layer_bounds import layer_bounds


@pytest.fixture
def net(rng: np.random.Generator) -> Network:
    return random_dense_network(rng, (4, 6, 5, 3))


@pytest.fixture
def problem(net: Network) -> Problem:
    ball = LinfBall(np.full(4, 0.5), 0.1)
    rows, targets = margin_rows(3, 1)
    return Problem.of(net, ball, rows, layer_bounds(net, ball, rungs=("interval",)), targets=targets)


def test_margin_rows_are_label_minus_target(rng: np.random.Generator) -> None:
    logits = rng.normal(size=5)
    rows, targets = margin_rows(5, 2)
    assert targets == (0, 1, 3, 4)
    np.testing.assert_allclose(rows @ logits, logits[2] - logits[[0, 1, 3, 4]], atol=1e-15)
    chosen, order = margin_rows(5, 0, [4, 1])
    assert order == (4, 1)
    np.testing.assert_allclose(chosen @ logits, logits[0] - logits[[4, 1]], atol=1e-15)


@pytest.mark.parametrize(
    ("label", "targets", "message"),
    [
        (5, None, "label must be in 0 … 4, got 5"),
        (-1, None, "label must be in 0 … 4, got -1"),
        (2, [0, 2], "differ from the label 2, got 2"),
        (2, [0, 5], "target must be in 0 … 4 and differ from the label 2, got 5"),
        (2, [-1], "got -1"),
    ],
)
def test_margin_rows_refuse_classes_that_do_not_exist(label: int, targets: list[int] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        margin_rows(5, label, targets)


def test_selection_rows_pick_neurons_with_a_sign(rng: np.random.Generator) -> None:
    values = rng.normal(size=6)
    np.testing.assert_array_equal(selection_rows(6, [4, 0, 4], 1) @ values, values[[4, 0, 4]])
    np.testing.assert_array_equal(selection_rows(6, np.array([5]), -1) @ values, -values[[5]])
    assert selection_rows(6, [], 1).shape == (0, 6)


def test_replay_evaluates_the_rows_at_points(problem: Problem, rng: np.random.Generator) -> None:
    points = rng.normal(size=(7, 4))
    logits = problem.network.forward(points)
    expected = logits[:, [1]] - logits[:, [0, 2]]
    np.testing.assert_allclose(problem.replay(points), expected, atol=1e-13)
    sparse = problem.with_rows(selection_rows(3, [2, 0], -1))
    np.testing.assert_allclose(sparse.replay(points), -logits[:, [2, 0]], atol=1e-13)
    assert problem.replay(points[0]).shape == (1, 2)


def test_every_neuron_is_in_exactly_one_state() -> None:
    lower = np.array([-1.0, -1.0, -1.0, 0.0, 0.0, 1.0])
    upper = np.array([-0.5, 0.0, 1.0, 0.0, 1.0, 2.0])
    bounds = ReluBounds((lower,), (upper,))
    np.testing.assert_array_equal(bounds.inactive(0), [1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(bounds.unstable(0), [0, 0, 1, 0, 0, 0])
    np.testing.assert_array_equal(bounds.active(0), [0, 0, 0, 1, 1, 1])
    assert bounds.counts() == [(1, 3, 2)]
    assert len(bounds) == 1


def test_layer_bounds_hold_at_sampled_points(problem: Problem) -> None:
    points = np.vstack([problem.input_set.sample(200, seed=1), problem.input_set.corners()])
    hidden = problem.network.preactivations(points)[:-1]
    for values, low, high in zip(hidden, problem.relu_bounds.lower, problem.relu_bounds.upper, strict=True):
        assert np.all(values >= low - 1e-12)
        assert np.all(values <= high + 1e-12)


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        (([0.0],), (), "lower has 1 layers, upper has 0"),
        (([0.0],), ([1.0, 2.0],), r"layer 0: lower has shape \(1,\), upper \(2,\)"),
        (([0.0], [0.0, 2.0]), ([1.0], [1.0, 1.5]), "layer 1, neuron 1: lower must be ≤ upper, got 2.0 and 1.5"),
        (([np.nan],), ([1.0],), "layer 0, neuron 0: lower must be ≤ upper, got nan and 1.0"),
    ],
)
def test_bad_relu_bounds_are_refused(
    lower: tuple[list[float], ...], upper: tuple[list[float], ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ReluBounds(tuple(map(np.array, lower)), tuple(map(np.array, upper)))


def changed(problem: Problem, **change: Any) -> Problem:
    """A problem of the same parts but for these."""
    parts = {name: getattr(problem, name) for name in ("network", "input_set", "rows", "relu_bounds", "targets")}
    return Problem.of(**parts | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": np.zeros((2, 4))}, r"rows must have shape \(m, 3\), got \(2, 4\)"),
        ({"rows": np.zeros(3)}, r"rows must have shape \(m, outputs\), got \(3,\)"),
        ({"input_set": LinfBall(np.zeros(5), 0.1)}, "the ball has 5 coordinates, the network takes 4 inputs"),
        ({"relu_bounds": ReluBounds((), ())}, r"layer sizes \(6, 5\), got \(\)"),
        ({"targets": (0,)}, "one class per row: 1 for 2 rows"),
    ],
)
def test_problems_whose_parts_do_not_fit_are_refused(problem: Problem, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed(problem, **change)


def test_rows_of_one_region_share_work_and_other_regions_do_not(problem: Problem) -> None:
    calls: list[Region] = []

    def make(region: Region) -> int:
        calls.append(region)
        return len(calls)

    assert problem.region.derive(make) == 1
    assert problem.with_rows(np.eye(3)).region.derive(make) == 1
    assert problem.with_settings(Settings(solver="highs")).region.derive(make) == 1
    assert replace(problem.region).derive(make) == 2  # the very same parts, and yet a region of its own
    assert problem.region.with_bounds(problem.relu_bounds).derive(make) == 3
    assert problem.region.derive(lambda _: "another function") == "another function"
    assert calls[0] is problem.region


def test_a_tool_comes_back_to_the_workspace_unless_something_was_raised(problem: Problem) -> None:
    workspace, made = problem.workspace, []

    def make() -> list[int]:
        made.append(0)
        return [len(made)]

    for _ in range(2):
        with workspace.borrow(problem.region, "tool", make) as tool:
            assert tool == [1]
            assert not workspace.holds(problem.region, "tool")
            with workspace.borrow(problem.region, "tool", make) as nested:
                assert nested is not tool
        made[:] = [0]
    with pytest.raises(KeyboardInterrupt), workspace.borrow(problem.region, "tool", make) as tool:
        raise KeyboardInterrupt
    assert not workspace.holds(problem.region, "tool")
    with workspace.borrow(problem.region, "tool", make) as fresh:
        assert fresh is not tool
    with workspace.borrow(problem.region, "tool", make, usable=lambda tool: False) as another:
        assert another is not fresh
    elsewhere = problem.region.with_bounds(problem.relu_bounds)
    with workspace.borrow(elsewhere, "tool", make) as own:
        assert own is not another


def test_a_rung_labels_its_bounds_with_targets(problem: Problem) -> None:
    run = Rung("run", Side.LOWER, "", "", run=each_row(lambda p: [Bound(k - 99.0) for k in range(len(p.rows))]))
    values = Rung("values", Side.LOWER, "", "", run=lambda p: RowBounds(np.arange(len(p.rows)) - 99.0))
    for rung in (run, values):
        assert [(bound.lower, bound.target) for bound in rung(problem)] == [(-99.0, 0), (-98.0, 2)]
        np.testing.assert_array_equal(rung.lower_values(problem), [-99.0, -98.0])
        assert all(bound.upper == np.inf and bound.status is Status.COMPUTED for bound in rung(problem))


def test_a_rung_that_loses_a_row_is_an_error(problem: Problem) -> None:
    with pytest.raises(ValueError):
        Rung("short", Side.LOWER, "", "", run=each_row(lambda p: [Bound(0.0)]))(problem)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Settings(time_limit=0), "time_limit must be > 0 seconds or None, got 0"),
        (lambda: Settings(time_limit=float("nan")), "time_limit must be > 0"),
        (lambda: Settings(threads=0), "threads must be in 1 … 1024, got 0"),
        (lambda: Settings(threads=10**30), "threads must be in 1 … 1024, got 1000000000000000000000000000000"),
        (lambda: Settings(mip_gap=1.0), r"mip_gap must be in \[0, 1\), got 1.0"),
        (lambda: Settings(mip_gap=-1e-9), "mip_gap must be in"),
        (lambda: Settings(attack_steps=0), "attack_steps must be in 1 … 1000000000, got 0"),
        (lambda: Settings(attack_steps=10**30), "attack_steps must be in 1 … 1000000000, got 1000"),
        (lambda: Settings(attack_restarts=10**30), "attack_restarts must be in 1 … 1000000000, got 1000"),
        (lambda: Settings(nodes=0), "nodes must be in 1 … 1000000000, got 0"),
        (lambda: Settings(hopeless=10**30), "hopeless must be in 1 … 1000000000, got 1000"),
        (lambda: Settings(stop_at=float("nan")), "stop_at must be finite, got nan"),
        (lambda: Settings(stop_at=float("inf")), "stop_at must be finite, got inf"),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], Settings], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_neurons_are_told_apart_exactly() -> None:
    """The smallest number on the wrong side of 0 makes a neuron unstable."""
    tiny = 5e-324
    low, high = np.array([-tiny, -tiny, 0.0, -1.0, -1.0]), np.array([tiny, 0.0, tiny, tiny, -0.0])
    bounds = ReluBounds((low,), (high,))
    np.testing.assert_array_equal(bounds.unstable(0), [True, False, False, True, False])
    np.testing.assert_array_equal(bounds.active(0), [False, False, True, False, False])
    np.testing.assert_array_equal(bounds.inactive(0), [False, True, False, False, True])
