"""Branch and bound over boxes: exact minima, signs both ways, trees that cover, clock and budget."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from box_problems import bounds_of, graph_problem, parts, problem_of
from graphs import random_network
from hard_networks import random_case
from oracle import least, value_at

from toolkit.certificates.box_bounds import BoxRows
from toolkit.certificates.box_ranges import box_maps
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.input_sets import Box, L2Ball
from toolkit.problems.problem import Problem
from toolkit.problems.properties import margin_rows
from toolkit.problems.settings import Settings
from toolkit.search.box_queue import BoxNodes, BoxQueue
from toolkit.search.boxes import BoxBounder, RefinementWorth, search_boxes, splits_inputs
from toolkit.search.clock import Clock


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
def test_more_nodes_never_take_a_bound_back(seed: int) -> None:
    problem = graph_problem(seed)
    searches = [search_boxes(problem, Clock(Settings()), budget=budget).lower for budget in (1, 3, 9, 27, 81)]
    assert all((later >= earlier).all() for earlier, later in itertools.pairwise(searches))


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
        again = bounds_of(rows, lower, upper, np.full(len(lower), r), claim)
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


def test_the_corners_lie_in_their_boxes_and_no_lower_than_the_bounds() -> None:
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


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("seed", [23, 27, 152, 309, 1174, *range(40)])
def test_awkward_networks_are_bounded_below_their_true_minima(seed: int) -> None:
    case = random_case(seed)
    rows, _ = margin_rows(case.network.output_size, case.label)
    problem = problem_of(case.network, case.ball, rows)
    answer = search_boxes(problem, Clock(Settings()), budget=15)
    for low, truth in zip(answer.lower.tolist(), case.truth, strict=True):
        assert low == -np.inf or Fraction(low) <= truth
    assert all(witness is None or case.ball.contains(witness) for witness in answer.witnesses)


def test_refining_is_not_asked_for_where_it_closed_nothing() -> None:
    worth, many, few = RefinementWorth(10.0), np.full(50, 100.0), np.full(50, 6.0)
    assert worth.asks(many).all()
    assert worth.asks(few).all()
    assert not worth.asks(np.zeros(1)).any()
    worth.learn(many, np.arange(50) < 5)
    worth.learn(few, np.arange(50) < 5)
    assert not worth.asks(many).any()
    assert worth.asks(few).all()


def test_the_queue_holds_no_coordinates_that_are_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """203 inputs of which three vary: the same bounds as over those three, and nodes of three numbers a side."""
    rng = np.random.default_rng(0)
    free, point = rng.normal(size=(2, 3)), np.full(200, 0.5)
    low, high = free.min(axis=0), free.max(axis=0)
    maps = [Dense(rng.normal(size=(m, n)), rng.normal(size=m)) for n, m in ((203, 6), (6, 4), (4, 2))]
    weight = maps[0].to_sparse().toarray()
    folded = Dense(weight[:, :3], maps[0].bias_vector + weight[:, 3:] @ point)
    whole = Box(np.concatenate([low, point]), np.concatenate([high, point]))
    wide = problem_of(Network(maps), whole, np.eye(2))
    narrow = problem_of(Network([folded, *maps[1:]]), Box(low, high), np.eye(2))
    seen: list[int] = []
    push = BoxQueue.push

    def watched(self: BoxQueue, nodes: BoxNodes) -> None:
        seen.append(nodes.lower.shape[1])
        push(self, nodes)

    monkeypatch.setattr(BoxQueue, "push", watched)
    found, same = (search_boxes(one, Clock(Settings(time_limit=20.0))) for one in (wide, narrow))
    assert found.nodes.sum() > 2
    assert set(seen) == {3}
    np.testing.assert_allclose(found.lower, same.lower, rtol=1e-3)
    for witness in found.witnesses:
        assert witness is not None
        assert whole.contains(witness)
