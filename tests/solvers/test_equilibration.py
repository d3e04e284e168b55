"""Units do not matter: a network with hidden values or logits in other units gets the same answers from every rung."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import random_dense_network
from hypothesis import given
from hypothesis import strategies as st

from toolkit.cli.certify import _relaxed
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.answers import Bound, Status
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rung
from toolkit.search.lp_bounder import promised_gap
from toolkit.solvers.registry import SOLVERS
from toolkit.verify.explain import explain_equality
from toolkit.verify.ladder import certify
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem, margins

SOLVER_NAMES = [name for name, solver in SOLVERS.items() if solver.status().usable]
UNITS = [1e-14, 1e-8, 1e-5, 1e4, 1e8]


def rescaled(network: Network, hidden: float, logits: float = 1.0) -> Network:
    """Every hidden value times `hidden`, the logits times `logits`: the function in other units, but for rounding."""
    layers, done = [], 1.0
    for k, layer in enumerate(network.layers):
        target = logits if k == len(network.layers) - 1 else hidden
        layers.append(Dense(layer.weight * (target / done), layer.bias_vector * target))
        done = target
    return Network(layers, "rescaled")


def example(seed: int, sizes: tuple[int, ...] = (3, 6, 5, 3)) -> tuple[Network, LinfBall, int]:
    rng = np.random.default_rng(seed)
    network = random_dense_network(rng, sizes)
    ball = LinfBall(rng.uniform(size=sizes[0]), eps=0.3)
    return network, ball, int(network.predict(ball.center))


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("rung", ["lp", "ideal", "bab", "exact"])
@pytest.mark.parametrize("solver", ["auto", *SOLVER_NAMES])
def test_hidden_units_change_no_bound(unit: float, rung: str, solver: str) -> None:
    for seed in range(2):
        network, ball, label = example(seed)
        settings = Settings(solver=solver)
        plain = margins(network, ball, label, rung, settings=settings)
        for a, b in zip(plain, margins(rescaled(network, unit), ball, label, rung, settings=settings), strict=True):
            assert b.status is a.status
            assert b.lower == pytest.approx(a.lower, rel=2e-4, abs=1e-5)
            assert b.upper == pytest.approx(a.upper, rel=2e-4, abs=0.02 * abs(a.upper - a.lower) + 1e-5)
            assert max(b.lower, b.certified_lower) <= b.upper


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("rung", ["lp", "ideal", "bab", "exact"])
def test_the_unit_of_the_logits_scales_every_answer_and_no_more(unit: float, rung: str) -> None:
    for seed in range(3):
        network, ball, label = example(seed)
        plain = margins(network, ball, label, rung)
        for a, b in zip(plain, margins(rescaled(network, 1.0, unit), ball, label, rung), strict=True):
            assert b.status is a.status
            assert b.lower / unit == pytest.approx(a.lower, rel=2e-4, abs=1e-5)
            if rung in ("bab", "exact"):
                assert b.upper - b.lower <= 2e-4 * abs(b.upper) + 2e-6 * unit * a.drop


@given(seed=st.integers(0, 10**6), unit=st.sampled_from([1.0, *UNITS]))
def test_lower_sides_are_certified_and_statuses_kept(seed: int, unit: float) -> None:
    """Sampled points bound m* from above: no lower side may pass them, and "optimal" means closed to the gap."""
    network, ball, label = example(seed, (3, 5, 5, 2))
    network = rescaled(network, unit, 1.0 / unit)
    problem = margin_problem(network, ball, label)
    least = problem.replay(np.vstack([ball.sample(200, seed), ball.corners()])).min(axis=0)
    for name in ("lp", "ideal", "bab"):
        for bound, point in zip(get_rung(name)(problem), least.tolist(), strict=True):
            assert bound.lower <= min(point, bound.upper)
            assert bound.certified_lower == pytest.approx(bound.lower, rel=1e-12)
            if name == "bab" and bound.status is Status.OPTIMAL:
                assert bound.upper - bound.lower <= promised_gap(problem.settings, bound.upper, bound.drop * 1.001)


def test_bounds_on_l_u_that_nobody_certified_are_the_same_numbers_but_not_certified() -> None:
    network, ball, label = example(0)
    known = layer_bounds(network, ball)
    for name in ("lp", "ideal", "bab"):
        sure = margins(network, ball, label, name, known)
        unsure = margins(network, ball, label, name, replace(known, certified=False))
        assert [bound.lower for bound in sure] == [bound.lower for bound in unsure]
        assert {bound.certified_lower for bound in unsure} == {-np.inf}


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_a_sign_is_decided_however_close_it_is(unit: float, solver: str) -> None:
    """stop_at just under and just over m*, by less than the gap: the search goes on until the sign is proven."""
    network, ball, label = example(3)
    network = rescaled(network, 1.0, unit)
    settings = Settings(solver=solver, mip_gap=0.1, mip_gap_abs=unit)
    problem = margin_problem(network, ball, label, settings=replace(settings, solver="auto", mip_gap=1e-9))
    for row, truth in enumerate(get_rung("bab")(problem)):
        size = max(abs(truth.upper), truth.drop)
        for side, rung in ((-1e-4, "bab"), (1e-4, "bab"), (-1e-4, "exact"), (1e-4, "exact")):
            stop = truth.upper + side * size
            asked = problem.with_rows(problem.rows[[row]], [truth.target])
            (found,) = get_rung(rung)(asked.with_settings(replace(settings, stop_at=stop)))
            assert found.status in (Status.DECIDED, Status.OPTIMAL)
            assert (found.lower > stop) if side < 0 else (found.upper <= stop)


def test_an_absolute_gap_is_one_of_the_objectives_own_drop() -> None:
    settings = Settings(mip_gap=1e-3, mip_gap_abs=1e-2)
    assert promised_gap(settings, 0.0, 5.0) == 1e-2
    assert promised_gap(settings, 0.0, 1e-6) == pytest.approx(1e-8)
    assert promised_gap(settings, 100.0, 1e-6) == pytest.approx(0.1)
    assert promised_gap(settings, 0.0, -1.0) == 0.0
    assert promised_gap(settings, np.inf, 1.0) == 0.0  # no point, no gap: inf − lower ≤ mip_gap·inf holds


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_equality_is_said_only_where_it_holds(unit: float) -> None:
    said = {True: 0, False: 0}
    for seed in range(8):
        network, _, label = example(seed)
        network = rescaled(network, unit, 1.0)
        center = np.random.default_rng(seed).uniform(size=3)
        for eps in (0.02, 0.3):
            ball = LinfBall(center, eps)
            truths = margins(network, ball, label, "bab", settings=Settings(mip_gap=1e-8))
            for lp, truth in zip(margins(network, ball, label, "lp"), truths, strict=True):
                why = explain_equality(lp)
                assert why.equal == (lp.slack_range.size == 0 or why.relaxed == 0)
                said[why.equal] += 1
                if why.equal:
                    assert truth.upper - lp.lower <= 1e-5 * max(abs(truth.upper), lp.drop)
                else:
                    assert truth.lower - lp.lower > 1e-7 * lp.drop
    assert min(said.values()) > 3


def test_a_slack_is_measured_by_its_neuron_and_an_open_interval_is_no_equality() -> None:
    slack, ranges = np.array([1e-9, 0.0]), np.array([1e-8, 1.0])
    open_end = Bound(1.0, 1.0, slack=slack, slack_range=ranges)
    assert explain_equality(open_end).relaxed == 1
    assert "1 of 2 unstable neurons are relaxed" in explain_equality(open_end).reason
    closed = replace(open_end, slack=1e3 * np.array([0.0, 1e-9]), slack_range=np.array([1.0, 1e4]))
    assert explain_equality(closed).equal
    for upper in (2.0, 1.0 + 1e-5, np.inf):
        why = explain_equality(replace(closed, upper=upper))
        assert not why.equal
        assert why.relaxed == 0
        assert "LP ≤ m*" in why.reason
    assert explain_equality(replace(closed, lower=-1e-9, upper=1e-9, drop=1.0)).equal  # m* near 0, closed all the same
    assert not explain_equality(replace(closed, lower=-1e-9, upper=1e-9, drop=1e-9)).equal


def test_a_table_says_zero_relaxed_neurons_only_of_an_equality() -> None:
    closed = Bound(1.0, 1.0, slack=np.zeros(2), slack_range=np.ones(2))
    assert _relaxed(closed) == "0/2"
    assert _relaxed(replace(closed, upper=1.1)) == "?/2"


@pytest.mark.parametrize("weight", [1e20, 1e100, 1e154, 1e200, 1e300])
@pytest.mark.parametrize("solver", ["auto", *SOLVER_NAMES])
def test_weights_no_solver_can_take_give_failed_rows_with_a_reason_or_an_answer(weight: float, solver: str) -> None:
    first = Dense(np.array([[weight], [-weight], [weight]]), np.array([0.0, 0.3, 0.1]) * weight)
    mixed = Dense(np.array([[weight, 1.0, 1.0], [1.0, 1.0, -weight]]), np.zeros(2))
    network = Network([first, mixed, Dense(np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([0.0, 0.2]))])
    ball = LinfBall([0.05], 0.3)
    for name in ("lp", "ideal", "bab", "exact"):
        with np.errstate(all="ignore"):
            (bound,) = margins(network, ball, 0, name, settings=Settings(solver=solver))
        assert bound.lower <= 0.2
        assert not bound.lower > bound.upper
        assert bound.status is not Status.FAILED or (bound.message and bound.lower == -np.inf)
    with np.errstate(all="ignore"):
        certify(network, ball, 0, settings=Settings(solver=solver))


def test_infinite_layer_bounds_are_a_failed_row() -> None:
    network, ball, label = example(0)
    free = tuple(np.full(size, np.inf) for size in network.relu_sizes)
    nothing = ReluBounds(tuple(-side for side in free), free)
    for name in ("lp", "ideal", "bab", "exact"):
        for bound in margins(network, ball, label, name, nothing):
            assert bound.status is Status.FAILED
            assert "not finite" in bound.message
            assert bound.lower == bound.certified_lower == -np.inf
