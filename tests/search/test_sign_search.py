"""Signs agree with rational arithmetic, points are replayed, and the search ends where it is told to."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from oracle import least
from pieces import SETS, small_problem

from toolkit.certificates.coverage import covered
from toolkit.problems.answers import Bound, Status
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.rungs import bab
from toolkit.search.array_makers import in_torch
from toolkit.search.refinement import refine
from toolkit.search.sign_search import Signs, search_signs, uses_planes


def _at(problem: Problem, stop: float, **settings: object) -> Problem:
    return problem.with_settings(replace(problem.settings, stop_at=stop, **settings))  # type: ignore[arg-type]


def _replayed(problem: Problem, found: Signs) -> None:
    """Every point lies in the set and has the value that is said."""
    for row in np.flatnonzero(found.upper < np.inf):
        assert problem.input_set.contains(found.points[row])
        assert problem.replay(found.points[row])[0, row] == pytest.approx(found.upper[row], rel=1e-12, abs=1e-12)
    assert np.all(np.isnan(found.points[found.upper == np.inf]))


@pytest.mark.parametrize(("seed", "graph"), [*product(range(6), (False, True))])
def test_signs_are_those_of_the_true_minima(seed: int, graph: bool) -> None:
    plain = small_problem(seed, (3, 4, 3, 2), graph=graph)
    truth = np.array([float(value) for value, _ in least(plain.network, plain.input_set, plain.rows.tolist())])
    for stop in (0.0, float(np.median(truth)) - 0.02, float(np.median(truth)) + 0.02):
        problem = _at(plain, stop)
        found = search_signs(problem, budget=3000)
        assert np.all(found.lower <= truth + 1e-9)
        assert np.all(found.upper >= truth - 1e-9)
        _replayed(problem, found)
        np.testing.assert_array_equal(found.lower[truth > stop + 0.01] > stop, True)
        assert not np.any((found.lower > stop) & (found.upper <= stop))


@pytest.mark.parametrize("kind", SETS)
def test_most_minima_far_below_are_met_by_a_point(kind: str) -> None:
    met = []
    for seed in range(6):
        plain = small_problem(seed, (3, 6, 5, 2), kind=kind)
        outcomes = plain.replay(plain.input_set.sample(2000, seed)).min(axis=0)
        problem = _at(plain, float(outcomes.min()) + 0.3)
        found = search_signs(problem, budget=500)
        _replayed(problem, found)
        met.append(bool((found.upper <= problem.settings.stop_at).any()))
        assert not np.any(found.lower > outcomes + 1e-9)
    assert sum(met) >= 4


def test_one_refuted_row_ends_it_for_all_where_that_is_enough() -> None:
    plain = small_problem(2, (4, 10, 8, 2))
    outcomes = plain.replay(plain.input_set.sample(3000))
    stop = float(outcomes.min(axis=0).max()) - 0.01  # a row next to its minimum, which takes nodes
    everything, enough = (search_signs(_at(plain, stop, until_refuted=one), budget=400) for one in (False, True))
    for found in (everything, enough):
        _replayed(plain, found)
    assert (enough.upper <= stop).any()
    assert enough.nodes.sum() <= everything.nodes.sum()


def test_nodes_time_and_leaves() -> None:
    problem = _at(small_problem(2, (4, 10, 8, 2)), 0.0)
    stop = float(np.median(problem.replay(problem.input_set.sample(3000)).min(axis=0)))
    problem = _at(problem, stop)
    none = search_signs(problem, budget=0, keep=True)
    np.testing.assert_array_equal(none.nodes, 0)
    late = search_signs(problem, time.perf_counter() - 1.0)
    np.testing.assert_array_equal(late.nodes, 0)
    sampled = problem.replay(problem.input_set.sample(3000)).min(axis=0)
    for found in (none, late, search_signs(problem, budget=50)):
        assert np.all(found.lower <= sampled + 1e-9)
        assert np.all(np.isfinite(found.lower))
    assert none.leaves is not None
    assert np.all(covered(none.leaves.tree, none.leaves.phases, 3))


def test_rows_of_zeros_and_no_rows() -> None:
    problem = _at(small_problem(0), 0.0)
    zero = search_signs(problem.with_rows(np.zeros((1, 2))), budget=50)
    assert zero.lower[0] <= 0 <= zero.upper[0]
    below = search_signs(_at(problem, -0.5).with_rows(np.zeros((1, 2))), budget=50)
    assert below.lower[0] > -0.5
    none = search_signs(problem.with_rows(np.zeros((0, 2))))
    assert none.lower.shape == none.upper.shape == (0,)


def test_settings_are_settled_before() -> None:
    with pytest.raises(AssertionError):
        search_signs(small_problem(0, settings=Settings()))


def test_signs_and_layer_bounds_by_tensors() -> None:
    pytest.importorskip("torch")
    problem = _at(small_problem(3, (3, 5, 4, 2)), 0.0)
    sampled = problem.replay(problem.input_set.sample(3000)).min(axis=0)
    problem = _at(problem, float(sampled.min()) - 0.2)
    found = search_signs(problem, budget=2000, make=in_torch("cpu", "float64"))
    assert np.all(found.lower > problem.settings.stop_at)
    assert np.all(found.lower <= sampled + 1e-9)
    sides = refine(problem, np.arange(2), make=in_torch())
    outputs = problem.network.forward(problem.input_set.sample(3000))
    assert np.all(sides.lower <= outputs.min(axis=0) + 1e-9)
    assert np.all(sides.upper >= outputs.max(axis=0) - 1e-9)


@pytest.mark.parametrize(
    ("chosen", "planes"),
    [
        ({"nodes": 2000}, True),
        ({}, True),
        ({"nodes": 200}, False),
        ({"nodes": 2000, "hopeless": 100}, False),
        ({"nodes": 2000, "device": "cuda"}, False),
    ],
)
def test_lps_are_tried_in_between_only_where_no_planes_are(
    chosen: dict[str, object], planes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = _at(small_problem(1, (4, 8, 6, 2)), 1e9, **chosen)
    assert uses_planes(problem, problem.settings.nodes) is planes
    tried: list[int] = []
    undecided = [Bound(-np.inf, status=Status.COMPUTED)] * problem.rows.shape[0]
    monkeypatch.setattr(bab, "splits_inputs", lambda problem: False)
    monkeypatch.setattr(bab, "by_phases", lambda problem, clock: undecided)
    monkeypatch.setattr(bab, "by_programs", lambda problem, clock: tried.append(1) or undecided)
    bab.bab_bounds(problem)
    nodes = problem.settings.nodes
    assert bool(tried) is (nodes is None or (nodes >= bab.PROGRAM_NODES and not planes))
