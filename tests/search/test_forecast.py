"""Trees that are given up early: which, by their own progress; what they have proven holds all the same."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import random_dense_network
from oracle import least_margins

from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.search.forecast import STALLED, Hopeless, Stalled
from toolkit.search.refinement import refine
from toolkit.search.sign_search import search_signs
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem


def _trees(nodes: list[int], bounds: list[float]) -> Any:
    return SimpleNamespace(nodes=np.array(nodes), bounds=lambda: np.array(bounds))


def test_a_neurons_tree_is_stalled_once_twice_the_nodes_bring_less_than_its_share() -> None:
    stalled = Stalled(3, 4)
    assert not stalled(_trees([0, 0, 0], [-1.0, -1.0, -np.inf])).any()
    assert not stalled(_trees([2, 2, 2], [-1.0, -1.0, -np.inf])).any()  # not looked at before 4
    better = -1.0 * (1 - STALLED)
    found = stalled(_trees([4, 4, 4], [better + 1e-3, better - 1e-3, -np.inf]))
    assert found.tolist() == [False, True, False]
    assert not stalled(_trees([6, 6, 6], [better, -1.0, -1.0])).any()  # looked at again at 8
    assert stalled(_trees([8, 4, 8], [better, -1.0, -5.0])).tolist() == [True, False, False]
    assert not Stalled(2, None)(_trees([64, 64], [-1.0, -1.0])).any()


@pytest.mark.parametrize(("most", "hopeless"), [(127, True), (128, False)])
def test_a_row_is_hopeless_where_its_line_over_doublings_meets_the_cutoff_past_its_nodes(
    most: int, hopeless: bool
) -> None:
    """−7 at the root, +1 a doubling: −2 after 2⁵ nodes, 0 after 2⁷."""
    search = Hopeless(np.zeros(2), 32, most)
    assert not search(_trees([0, 0], [-7.0, -7.0])).any()
    assert not search(_trees([16, 16], [-7.0, -7.0])).any()
    assert search(_trees([32, 32], [-2.0, -7.0])).tolist() == [hopeless, True]


def test_a_row_that_has_reached_its_cutoff_is_not_hopeless() -> None:
    search = Hopeless(np.zeros(1), 1, 2)
    search(_trees([0], [0.5]))
    assert not search(_trees([2], [0.5])).any()


def test_bounds_of_what_is_given_up_hold_and_giving_up_spares_nodes() -> None:
    """Rows whose least value lies just above the cutoff: proving them takes more nodes than the budget."""
    spent = np.zeros(2, dtype=int)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        network, ball = random_dense_network(rng, (3, 8, 8, 3)), LinfBall(rng.normal(size=3), 0.5)
        label = int(network.predict(ball.center))
        bounds = layer_bounds(network, ball)
        truth = np.array([float(value) for value in least_margins(network, ball, label)])
        for i, after in enumerate((None, 4)):
            settings = Settings(stop_at=float(truth.min()) - 1e-4, hopeless=after)
            found = search_signs(margin_problem(network, ball, label, bounds, None, settings), budget=8)
            assert np.all(found.lower <= truth + 1e-9)
            spent[i] += found.nodes.sum()
    assert spent[1] < spent[0]


def test_without_a_number_of_nodes_no_row_is_hopeless() -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        network, ball = random_dense_network(rng, (3, 8, 8, 3)), LinfBall(rng.normal(size=3), 0.5)
        label = int(network.predict(ball.center))
        truth = np.array([float(value) for value in least_margins(network, ball, label)])
        settings = Settings(stop_at=float(truth.min()) - 1e-3, hopeless=1)
        found = search_signs(margin_problem(network, ball, label, layer_bounds(network, ball), None, settings))
        assert np.all(found.lower > truth.min() - 1e-3)


def test_ranges_of_stalled_trees_hold_and_say_less() -> None:
    more = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        network, ball = random_dense_network(rng, (3, 8, 8, 6)), LinfBall(rng.normal(size=3), 0.5)
        widths = []
        for after in (None, 1):
            problem = margin_problem(network, ball, 0, None, None, Settings(hopeless=after))
            found = refine(problem, np.arange(6), 64)
            points = network.forward(ball.sample(200))
            assert np.all(found.lower <= points.min(axis=0) + 1e-9)
            assert np.all(found.upper >= points.max(axis=0) - 1e-9)
            widths.append(found.upper - found.lower)
        assert np.all(widths[1] >= widths[0] - 1e-4)
        more.append(np.max(widths[1] - widths[0]))
    assert max(more) > 1e-3
