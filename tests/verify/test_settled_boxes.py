"""Trees over the input box that are split on where a leaf falls short: the same box, and no more than is true."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from conftest import random_dense_network
from oracle import least
from phase_trees import halved

from toolkit.certificates.box_leaves import box_leaf_bounds
from toolkit.certificates.coverage import BoxTree
from toolkit.certificates.rounding import error_model_of
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.settled_boxes import settled

ROW = np.array([1.0, -1.0, 0.0])
LONE = BoxTree(np.array([-1]), np.zeros(1))


def case(seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    network, ball = random_dense_network(rng, (2, 5, 4, 3)), LinfBall(rng.normal(size=2), 0.8)
    return Problem.of(network, ball, ROW[None], layer_bounds(network, ball))


@pytest.mark.parametrize("depth", [0, 4])
@pytest.mark.parametrize("seed", range(4))
def test_a_goal_within_reach_is_reached(seed: int, depth: int) -> None:
    """The claim is what the leaves' boxes give, at most the true minimum, and the tree still one over the box."""
    problem = case(seed)
    model, ball = error_model_of(problem), problem.input_set
    ((truth, _),) = least(problem.network, ball, [ROW.tolist()])
    (tree,) = halved(problem, depth)
    before = settled(model, ROW, tree, (ball.lower, ball.upper), -np.inf)
    assert before.tree.axis.tolist() == tree.axis.tolist()
    goal = min(before.certified + 0.5 * (float(truth) - before.certified), float(truth) - 1e-3)
    found = settled(model, ROW, tree, (ball.lower, ball.upper), goal)
    assert found.certified >= min(goal, before.certified)
    assert Fraction(found.certified) <= truth
    parts = [box_leaf_bounds(model, ROW, *part) for part in found.tree.boxes(ball.lower, ball.upper)]
    assert np.concatenate(parts).min() == pytest.approx(found.certified, abs=1e-9)
    assert np.concatenate(parts).size == found.tree.count
    if depth:
        assert found.certified >= goal


def test_what_is_out_of_reach_is_given_up() -> None:
    problem = case(0)
    ends = problem.input_set.lower, problem.input_set.upper
    found = settled(error_model_of(problem), ROW, LONE, ends, 1e9)
    assert 1 < found.tree.count <= 1 << 8
    assert np.isfinite(found.certified)


def test_a_coordinate_without_width_is_not_halved() -> None:
    problem = case(0)
    center = problem.input_set.center
    lower, upper = center.copy(), center.copy()
    upper[1] += 0.5
    found = settled(error_model_of(problem), ROW, LONE, (lower, upper), 1e9)
    assert set(found.tree.axis.tolist()) == {-1, 1}
