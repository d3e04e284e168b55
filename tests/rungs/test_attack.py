"""Attacks: the gradient, the projection, the replay; never below the true minimum and, where it is known, near it."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from conftest import random_conv_network, random_dense_network
from hypothesis import given
from hypothesis import strategies as st

from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.answers import Bound, Status
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rung
from toolkit.rungs.attack import FALSIFY
from toolkit.rungs.rung import Rung
from toolkit.search import descent
from toolkit.search.descent import MarginGradient, polish
from toolkit.search.falsify import falsify
from toolkit.verify.margins import margin_problem

ATTACKS = ("fgsm", "pgd")


def random_problem(seed: int, settings: Settings = Settings(solver="highs", mip_gap=0.0)) -> Problem:
    """Margins of a random dense (even seeds) or convolutional network (odd seeds) over a ball cut by [0,1]."""
    rng = np.random.default_rng(seed)
    network = random_conv_network(rng) if seed % 2 else random_dense_network(rng, (6, 12, 10, 4))
    ball = LinfBall(rng.uniform(0, 1, network.input_size), eps=float(rng.uniform(0.02, 0.15)), domain=(0, 1))
    return margin_problem(network, ball, 1, settings=settings)


def uppers(bounds: list[Bound]) -> np.ndarray:
    return np.array([bound.upper for bound in bounds])


@given(seed=st.integers(0, 10**6))
def test_gradient_matches_finite_differences(seed: int) -> None:
    """Each column descends on its own row, through dense and convolutional layers."""
    problem = random_problem(seed)
    rng = np.random.default_rng(seed)
    points = problem.input_set.sample(4, seed)
    row = rng.integers(0, problem.rows.shape[0], 4)
    value, gradient = MarginGradient(problem)(points.T, row)
    np.testing.assert_allclose(value, problem.replay(points)[np.arange(4), row], atol=1e-10)
    inward, h = problem.input_set.center - points, 1e-6
    ahead = problem.replay(points + h * inward)[np.arange(4), row]
    np.testing.assert_allclose((ahead - value) / h, (gradient.T * inward).sum(axis=1), rtol=1e-3, atol=1e-4)


@given(seed=st.integers(0, 10**6), name=st.sampled_from((*ATTACKS, FALSIFY)))
def test_witness_lies_in_the_ball_and_replays_to_the_bound(seed: int, name: str | Rung) -> None:
    problem = random_problem(seed)
    for i, bound in enumerate(get_rung(name)(problem)):
        assert bound.lower == -np.inf
        assert bound.witness is not None
        assert problem.input_set.contains(bound.witness)
        logits = problem.network.forward(bound.witness)
        assert bound.upper == pytest.approx(float(problem.rows[i] @ logits), abs=1e-12)
        assert bound.target is not None
        assert bound.upper == pytest.approx(logits[1] - logits[bound.target], abs=1e-12)


@pytest.mark.parametrize("name", ATTACKS)
def test_affine_network_is_solved_exactly(name: str, rng: np.random.Generator) -> None:
    network = Network([Dense(rng.normal(size=(3, 7)), rng.normal(size=3))])
    ball = LinfBall(rng.uniform(0, 1, 7), eps=0.2, domain=(0, 1))
    problem = margin_problem(network, ball, 0)
    weight, bias = network.layers[0].to_sparse().toarray(), network.layers[0].bias_vector
    exact = ball.min_linear(problem.rows @ weight) + problem.rows @ bias
    np.testing.assert_allclose(uppers(get_rung(name)(problem)), exact, atol=1e-12)


def test_fgsm_is_one_signed_step_of_size_eps() -> None:
    """On max(x₀,0) + 2·max(−x₁,0) at (1, −1): the gradient is (1, −2), so the step goes to (1 − ε, −1 + ε)."""
    network = Network([Dense(np.diag([1.0, -1.0])), Dense([[1.0, 2.0]])])
    ball = LinfBall([1.0, -1.0], eps=0.25)
    problem = Problem.of(network, ball, np.eye(1), ReluBounds((np.full(2, -np.inf),), (np.full(2, np.inf),)))
    (bound,) = get_rung("fgsm")(problem)
    np.testing.assert_array_equal(bound.witness, [0.75, -0.75])
    assert bound.upper == pytest.approx(0.75 + 2 * 0.75)


def test_pgd_finds_the_minimum_of_small_networks() -> None:
    """Never below m*, most margins within 1 % of it, and together far closer than 5,000 random points and corners."""
    gaps, random_gaps = [], []
    for seed in range(10):
        problem = random_problem(seed)
        clean = problem.replay(problem.input_set.center)[0]
        truth = np.array([bound.lower for bound in get_rung("exact")(problem)])
        points = np.concatenate([problem.input_set.sample(2500), problem.input_set.corners(2500)])
        gaps.extend((uppers(get_rung("pgd")(problem)) - truth) / (clean - truth))
        random_gaps.extend((problem.replay(points).min(axis=0) - truth) / (clean - truth))
    assert np.min(gaps) > -1e-6
    assert np.mean(np.array(gaps) < 0.01) > 0.8
    assert np.mean(gaps) < 0.25 * np.mean(random_gaps)


def test_pgd_is_deterministic_and_rows_do_not_depend_on_their_company() -> None:
    problem = random_problem(5)
    first, second = get_rung("pgd")(problem), get_rung("pgd")(problem)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.witness, other.witness)
    for i, bound in enumerate(first):
        (alone,) = get_rung("pgd")(problem.with_rows(problem.rows[[i]]))
        assert alone.upper == pytest.approx(bound.upper, abs=1e-9)


def test_more_restarts_never_hurt_and_the_seed_matters() -> None:
    helped, reseeded = 0, 0
    for seed in range(6):
        problem = random_problem(seed)

        def found(restarts: int, own_seed: int, problem: Problem = problem) -> np.ndarray:
            settings = replace(problem.settings, attack_restarts=restarts, attack_steps=2, seed=own_seed)
            return uppers(get_rung("pgd")(problem.with_settings(settings)))

        one, three, nine = found(1, 0), found(3, 0), found(9, 0)
        assert np.all(three <= one + 1e-12)
        assert np.all(nine <= three + 1e-12)
        helped += int(np.sum(nine < one - 1e-6))
        reseeded += int(np.sum(found(9, 1) != nine))
    assert helped > 0
    assert reseeded > 0


def test_attacks_are_valid_whatever_the_layer_bounds() -> None:
    """fgsm does not depend on l,u at all; pgd searches better with them, and its replayed value holds without."""
    problem = random_problem(6)
    sizes = problem.network.relu_sizes
    unknown = ReluBounds(tuple(np.full(n, -np.inf) for n in sizes), tuple(np.full(n, np.inf) for n in sizes))
    blind = Problem.of(problem.network, problem.input_set, problem.rows, unknown, problem.settings)
    assert not get_rung("fgsm").uses_relu_bounds
    np.testing.assert_allclose(uppers(get_rung("fgsm")(blind)), uppers(get_rung("fgsm")(problem)), atol=1e-12)
    exact = [bound.lower for bound in get_rung("exact")(problem)]
    assert np.all(uppers(get_rung("pgd")(blind)) >= np.array(exact) - 1e-6)


def test_polish_improves_on_the_points_it_is_given() -> None:
    problem = random_problem(9)
    points = problem.input_set.sample(3, seed=5)
    given_values = problem.replay(points).min(axis=0)
    polished = uppers(polish(problem, points, first_step=0.1))
    assert np.all(polished <= given_values + 1e-12)
    assert np.any(polished < given_values - 1e-3)
    outside = polish(problem, problem.input_set.center + 10.0)
    assert all(problem.input_set.contains(bound.witness) for bound in outside)
    with pytest.raises(ValueError, match="first_step must be > 0, got 0"):
        polish(problem, points, first_step=0)


def test_time_limit_keeps_the_best_point_so_far() -> None:
    problem = random_problem(8)
    hurried = get_rung("pgd")(problem.with_settings(replace(problem.settings, time_limit=1e-9)))
    for i, bound in enumerate(hurried):
        assert bound.status is Status.TIME_LIMIT
        assert bound.upper == pytest.approx(problem.replay(bound.witness)[0, i], abs=1e-12)


@pytest.mark.parametrize("effort", [{"attack_steps": 10**9}, {"attack_restarts": 10**9}])
def test_a_time_limit_holds_for_any_number_of_steps_and_restarts(effort: dict[str, int]) -> None:
    problem = random_problem(8, Settings(time_limit=0.1, **effort))
    started = time.perf_counter()
    found = get_rung("pgd")(problem)
    assert time.perf_counter() - started < 0.1 * len(found) + 3
    for i, bound in enumerate(found):
        assert bound.status is Status.TIME_LIMIT
        assert bound.upper == pytest.approx(problem.replay(bound.witness)[0, i], abs=1e-12)
        assert bound.upper <= problem.clean_values()[i]


@pytest.mark.parametrize("steps", [1, 2, 7, 40, 300])
def test_lengths_fall_geometrically(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "SHARES_AT_A_TIME", 50)
    np.testing.assert_allclose([*descent.falling_shares(0.3, 0.01, steps)], np.geomspace(0.3, 0.01, steps), rtol=1e-14)


def test_restarts_that_do_not_fit_at_once_all_count(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(8, Settings(attack_restarts=7, attack_steps=3))
    few = get_rung("pgd")(problem.with_settings(replace(problem.settings, attack_restarts=3)))
    monkeypatch.setattr(descent, "POINT_ENTRIES", 3 * max(problem.input_set.size, *problem.network.relu_sizes))
    found = get_rung("pgd")(problem)
    assert [bound.iterations for bound in found] == [7 * 3] * len(found)
    assert {bound.status for bound in found} == {Status.COMPUTED}
    assert np.all(uppers(found) <= uppers(few) + 1e-12)
    np.testing.assert_allclose(uppers(found), np.diagonal(problem.replay(np.stack([b.witness for b in found]))))


@pytest.mark.parametrize("name", ATTACKS)
def test_ball_of_radius_zero_gives_the_clean_margin(name: str, rng: np.random.Generator) -> None:
    network = random_dense_network(rng, (4, 6, 3))
    problem = margin_problem(network, LinfBall(rng.normal(size=4), eps=0.0), 2)
    clean = problem.replay(problem.input_set.center)[0]
    np.testing.assert_allclose(uppers(get_rung(name)(problem)), clean, atol=1e-12)


def test_falsify_is_the_beginning_of_a_search_that_can_go_on(rng: np.random.Generator) -> None:
    """The rung's points are those of the first rounds; what goes on from them is never worse, and asks no l,u."""
    assert not FALSIFY.uses_relu_bounds
    network = random_dense_network(rng, (5, 12, 8, 3))
    problem = margin_problem(network, LinfBall(rng.uniform(0, 1, 5), eps=0.3), 0)
    above = problem.with_rows(problem.rows - 1e3 * np.abs(problem.rows))  # rows that are no margins, for their sizes
    for asked in (problem, above):
        bounds = FALSIFY(asked)
        first = falsify(asked, rounds=2)
        np.testing.assert_array_equal(uppers(bounds), uppers(first.bounds))
        more = falsify(asked, rounds=3, earlier=first)
        assert np.all(uppers(more.bounds) <= uppers(bounds) + 1e-12)
