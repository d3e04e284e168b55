"""Branch and bound over boxes: bounds below the true minimum of every part, trees that cover, and exact minima."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from graphs import random_network
from hypothesis import given
from hypothesis import strategies as st
from oracle import least, neuron_ranges, value_at
from strategies import balls, networks

from toolkit.certificates.box_bounds import BoxRows
from toolkit.certificates.box_ranges import BoxRanges, box_maps, box_ranges
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.networks.stages import Stage
from toolkit.problems.input_sets import Box, L2Ball, LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.search.box_queue import BoxNodes, BoxQueue
from toolkit.search.box_trees import BoxTree
from toolkit.search.boxes import BoxBounder, search_boxes, splits_inputs
from toolkit.search.clock import Clock
from toolkit.verify.layer_bounds import layer_bounds

EXACT = Settings(mip_gap=0.0, mip_gap_abs=1e-6)


def problem_of(network: Network, ball: LinfBall | Box, rows: np.ndarray, settings: Settings = EXACT) -> Problem:
    return Problem.of(network, ball, rows, layer_bounds(network, ball), settings)


def graph_problem(seed: int, settings: Settings = EXACT, depth: int = 2) -> Problem:
    rng = np.random.default_rng(seed)
    network = random_network(rng, depth)
    rows = np.vstack([np.eye(network.output_size), -np.ones((1, network.output_size))])
    return problem_of(network, LinfBall(rng.normal(size=network.input_size), 0.7), rows, settings)


def parts(problem: Problem, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random sub-boxes of the problem's box whose ends are floats, the whole one first."""
    box, rng = problem.input_set, np.random.default_rng(seed)
    ends = np.sort(rng.uniform(box.inner_lower, box.inner_upper, (2, count, box.size)), axis=0)
    ends[0, 0], ends[1, 0] = box.lower, box.upper
    return ends[0], ends[1]


def ranges_of(problem: Problem, lower: np.ndarray, upper: np.ndarray, finer: bool) -> BoxRanges:
    rows = BoxRows(problem)
    low, high = np.ascontiguousarray(lower.T), np.ascontiguousarray(upper.T)
    found = box_ranges(rows.maps, low, high)
    return rows.refined(low, high, found) if finer else found


def cubes(problem: Problem, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random cubes in the problem's box: the oracle's balls have one radius."""
    box, rng = problem.input_set, np.random.default_rng(seed)
    middle = 0.5 * box.lower + 0.5 * box.upper
    reach = float((box.upper - middle).min())
    size = rng.uniform(0.0, 0.5, (count, 1)) * reach
    centre = middle + rng.uniform(-0.4, 0.4, (count, box.size)) * reach
    return centre - size, centre + size


@given(network=networks(3, 2), ball=balls(3), seed=st.integers(0, 99))
def test_layers_and_rows_of_every_part_hold_in_real_arithmetic(network: Network, ball: LinfBall, seed: int) -> None:
    problem = problem_of(network, ball, np.eye(network.output_size)[:1])
    lower, upper = cubes(problem, 2, seed)
    value = BoxRows(problem).bounds(lower, upper, np.zeros(2, dtype=np.int64), np.full(2, np.inf))
    for b, (low, high) in enumerate(zip(lower, upper, strict=True)):
        inside = LinfBall(0.5 * low + 0.5 * high, float((high - low).min()) * 0.499)
        (truth, _), *_ = least(network, inside, problem.rows.tolist())
        assert Fraction(float(value[b])) <= truth


@pytest.mark.parametrize("finer", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_bounds_hold_at_points_and_at_the_exact_ranges(seed: int, finer: bool) -> None:
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
    rng = np.random.default_rng(seed)
    row = np.arange(3) % len(problem.objective)
    value = BoxRows(problem).bounds(lower, upper, row, np.full(3, np.inf))
    for b in range(3):
        points = rng.uniform(lower[b], upper[b], (50, lower.shape[1]))
        points = np.vstack([points, np.where(rng.integers(0, 2, points.shape), lower[b], upper[b])])
        assert value[b] <= problem.replay(points)[:, row[b]].min()


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


@pytest.mark.parametrize("seed", range(4))
def test_smaller_boxes_have_no_worse_leaves_in_the_end(seed: int) -> None:
    """Over a fine cover the least comes near the true minimum; and more nodes never take a bound back."""
    problem = graph_problem(seed)
    (truth, _), *_ = least(problem.network, problem.input_set, problem.rows.tolist())
    box, rows = problem.input_set, BoxRows(problem)
    ends = np.linspace(box.lower, box.upper, 13)
    index = np.stack(np.meshgrid(*[np.arange(12)] * box.size, indexing="ij"), axis=-1).reshape(-1, box.size)
    axes, zero = np.arange(box.size), np.zeros(12**box.size, dtype=np.int64)
    fine = rows.bounds(ends[index, axes], ends[index + 1, axes], zero, np.full(zero.size, np.inf))
    assert Fraction(float(fine.min())) <= truth
    assert float(truth) - fine.min() <= 0.02 * (1 + abs(float(truth)))
    searches = [search_boxes(problem, Clock(Settings()), budget=budget).lower for budget in (1, 3, 9, 27, 81)]
    assert all((later >= earlier).all() for earlier, later in itertools.pairwise(searches))


@pytest.mark.parametrize("seed", range(6))
def test_the_search_finds_the_exact_minimum_and_a_point_of_the_set(seed: int) -> None:
    problem = graph_problem(seed)
    answer = search_boxes(problem, Clock(Settings(time_limit=20.0)))
    truths = least(problem.network, problem.input_set, problem.rows.tolist())
    assert answer.finished.all()
    for r, (truth, _) in enumerate(truths):
        assert Fraction(float(answer.lower[r])) <= truth
        assert answer.upper[r] - answer.lower[r] <= 1e-6 + 1e-12
        witness = answer.witnesses[r]
        assert witness is not None
        assert problem.input_set.contains(witness)
        exact = value_at(problem.network, problem.rows[r], witness.tolist())
        assert truth <= exact
        assert abs(float(exact) - answer.upper[r]) <= 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_a_kept_tree_covers_the_box_and_gives_its_bound_again(seed: int) -> None:
    problem = graph_problem(seed)
    box = problem.input_set
    truths = [float(truth) for truth, _ in least(problem.network, box, problem.rows.tolist())]
    problem = problem.with_settings(Settings(stop_at=min(truths) - 1e-3))
    answer = search_boxes(problem, Clock(Settings(time_limit=20.0)), keep=True)
    assert answer.finished.all()
    assert (answer.lower > problem.settings.stop_at).all()
    rows, rng = BoxRows(problem), np.random.default_rng(seed)
    for r, tree in enumerate(answer.trees):
        lower, upper = tree.leaves(box.lower, box.upper)
        assert np.isclose(np.prod(upper - lower, axis=1).sum(), np.prod(box.upper - box.lower))
        for point in rng.uniform(box.lower, box.upper, (50, box.size)):
            assert ((lower <= point) & (point <= upper)).all(axis=1).any()
        claim = np.full(len(lower), answer.lower[r])
        again = rows.bounds(lower, upper, np.full(len(lower), r), claim)
        assert (again >= claim - 1e-12 * (1 + np.abs(claim))).all()


def test_a_sign_is_decided_both_ways() -> None:
    for seed in range(4):
        problem = graph_problem(seed)
        truth = float(least(problem.network, problem.input_set, problem.rows.tolist()[:1])[0][0])
        first = problem.with_rows(problem.rows[:1])
        for stop, refuted in ((truth - 1e-4, False), (truth + 1e-4, True)):
            one = first.with_settings(Settings(stop_at=stop))
            answer = search_boxes(one, Clock(Settings(time_limit=20.0)), first_refuted=True)
            assert answer.finished.all()
            assert (answer.upper[0] <= stop) == refuted
            assert (answer.lower[0] > stop) != refuted
            assert answer.lower[0] <= truth <= answer.upper[0] + 1e-9


def test_clock_and_budget_end_the_search_with_what_is_proven() -> None:
    problem = graph_problem(2)
    truths = [truth for truth, _ in least(problem.network, problem.input_set, problem.rows.tolist())]
    late = Clock(Settings(time_limit=1e-9))
    for answer in (search_boxes(problem, late), search_boxes(problem, Clock(Settings()), budget=3)):
        assert not answer.finished.all()
        assert (answer.nodes <= 3).all()
        assert all(low <= truth for low, truth in zip(answer.lower.tolist(), truths, strict=True))
        assert (answer.upper >= answer.lower).all()


def test_point_coordinates_are_never_cut_and_a_point_is_decided_at_once() -> None:
    rng = np.random.default_rng(0)
    network = random_network(rng, 2)
    x = rng.normal(size=3)
    wide = np.array([0.0, 0.5, 0.0])
    problem = problem_of(network, Box(x - wide, x + wide), np.eye(2))
    answer = search_boxes(problem, Clock(Settings(time_limit=20.0)), keep=True)
    assert answer.finished.all()
    assert all(set(tree.axis.tolist()) <= {-1, 1} for tree in answer.trees)
    point = problem_of(network, Box(x, x), np.eye(2))
    at = search_boxes(point, Clock(Settings(time_limit=20.0)))
    np.testing.assert_allclose(at.lower, network.forward(x), rtol=1e-9)


def test_no_relu_and_one_neuron() -> None:
    network = Network.from_arrays([(np.array([[2.0, -1.0]]), np.array([0.5]))], "out_in")
    problem = problem_of(network, Box([0.0, 0.0], [1.0, 1.0]), np.ones((1, 1)))
    answer = search_boxes(problem, Clock(Settings()))
    assert answer.finished.all()
    np.testing.assert_allclose([answer.lower[0], answer.upper[0]], -0.5, atol=1e-9)


def test_which_problems_boxes_are_for() -> None:
    problem = graph_problem(0)
    assert splits_inputs(problem)
    round_one = Problem.of(
        problem.network, L2Ball(problem.input_set.center, 0.1), problem.rows, problem.relu_bounds.__class__(
            problem.relu_bounds.lower, problem.relu_bounds.upper)
    )  # fmt: skip
    assert not splits_inputs(round_one)
    with pytest.raises(TypeError, match="L2Ball"):
        search_boxes(round_one, Clock(Settings()))


def test_the_queue_gives_every_node_once_and_the_least_first() -> None:
    rng = np.random.default_rng(0)
    queue, expected = BoxQueue(1), []
    for name in range(40):
        count = int(rng.integers(1, 30))
        key = rng.normal(size=count)
        names = np.arange(count) + 100 * name
        queue.push(BoxNodes(key[:, None], key[:, None], names, key, key, names))
        expected += list(zip(key.tolist(), names.tolist(), strict=True))
        found = queue.take(int(rng.integers(1, 20)))
        expected.sort()
        taken, expected = expected[: found.row.size], expected[found.row.size :]
        assert sorted(zip(found.key.tolist(), found.name.tolist(), strict=True)) == taken
        assert (found.lower[:, 0] == found.key).all()
        assert len(queue) == len(expected)


@pytest.mark.parametrize(
    ("axis", "cut"),
    [([0, -1], [0.5, 0.0]), ([-1, -1], [0.0, 0.0]), ([0, -1, -1], [1.5, 0.0, 0.0]), ([2, -1, -1], [0.5, 0.0, 0.0])],
)
def test_arrays_that_are_no_tree_are_refused(axis: list[int], cut: list[float]) -> None:
    with pytest.raises(ValueError, match=r"tree|cut"):
        BoxTree(np.array(axis), np.array(cut)).leaves(np.zeros(2), np.ones(2))


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


def test_bounder_gives_children_no_worse_than_it_says() -> None:
    problem = graph_problem(1)
    bounder = BoxBounder(problem)
    lower, upper = parts(problem, 8)
    row = np.zeros(8, dtype=np.int64)
    found = bounder(lower, upper, row, np.full(8, np.inf))
    assert found.open.tolist() == list(range(8))
    points = found.points
    assert ((points >= lower) & (points <= upper)).all()
    assert (found.value <= problem.replay(points)[:, 0]).all()
    assert bounder.maps is problem.region.derive(box_maps)
