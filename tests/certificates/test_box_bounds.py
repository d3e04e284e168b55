"""Bounds of rows over many boxes: below the true minimum of every part, and near it where parts are small."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from box_problems import bounds_of, cubes, graph_problem, problem_of
from hypothesis import given
from hypothesis import strategies as st
from oracle import least
from strategies import balls, networks

from toolkit.certificates.box_bounds import BoxRows
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall


@given(network=networks(3, 2), ball=balls(3), seed=st.integers(0, 99))
def test_bounds_of_every_part_hold_in_real_arithmetic(network: Network, ball: LinfBall, seed: int) -> None:
    problem = problem_of(network, ball, np.eye(network.output_size)[:1])
    lower, upper = cubes(problem, 2, seed)
    value = bounds_of(BoxRows(problem), lower, upper, np.zeros(2, dtype=np.int64), np.full(2, np.inf))
    for b, (low, high) in enumerate(zip(lower, upper, strict=True)):
        inside = LinfBall(0.5 * low + 0.5 * high, float((high - low).min()) * 0.499)
        (truth, _), *_ = least(network, inside, problem.rows.tolist())
        assert Fraction(float(value[b])) <= truth


@pytest.mark.parametrize("seed", range(6))
def test_bounds_hold_at_points(seed: int) -> None:
    problem = graph_problem(seed, depth=3)
    lower, upper = cubes(problem, 3, seed)
    rng = np.random.default_rng(seed)
    row = np.arange(3) % len(problem.objective)
    value = bounds_of(BoxRows(problem), lower, upper, row, np.full(3, np.inf))
    for b in range(3):
        points = rng.uniform(lower[b], upper[b], (50, lower.shape[1]))
        points = np.vstack([points, np.where(rng.integers(0, 2, points.shape), lower[b], upper[b])])
        assert value[b] <= problem.replay(points)[:, row[b]].min()


@pytest.mark.parametrize("seed", range(4))
def test_a_fine_cover_comes_near_the_minimum(seed: int) -> None:
    """Over a fine cover the least comes near the true minimum."""
    problem = graph_problem(seed)
    (truth, _), *_ = least(problem.network, problem.input_set, problem.rows.tolist())
    box, rows = problem.input_set, BoxRows(problem)
    ends = np.linspace(box.lower, box.upper, 13)
    index = np.stack(np.meshgrid(*[np.arange(12)] * box.size, indexing="ij"), axis=-1).reshape(-1, box.size)
    axes, zero = np.arange(box.size), np.zeros(12**box.size, dtype=np.int64)
    fine = bounds_of(rows, ends[index, axes], ends[index + 1, axes], zero, np.full(zero.size, np.inf))
    assert Fraction(float(fine.min())) <= truth
    assert float(truth) - fine.min() <= 0.02 * (1 + abs(float(truth)))
