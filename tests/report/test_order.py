"""The order every rung must keep, run over the whole registry: a new rung is tested by being registered.

On shared l,u every rung is at least those it declares to dominate (interval, dual, crown, alpha ≤ lp ≤ ideal; dual,
crown ≤ alpha), and all are ≤ m* ≤ attacks and any point. An exact rung's interval holds m*.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import random_conv_network, random_dense_network

from toolkit.arrays import FloatArray
from toolkit.problems.answers import Bound, RowBounds
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.rungs import RUNGS
from toolkit.rungs.rung import Cost, Rung, Side
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem

SETTINGS = Settings(solver="highs", mip_gap=0.0)
TOLERANCE = 1e-6
CHAINS = [("interval",), ("interval", "dual"), ("dual", "crown"), ("interval", "alpha"), ("lp",), ("dual", "exact")]


def random_problem(seed: int, chain: tuple[str, ...]) -> Problem:
    """Margins of a random dense (even seeds) or convolutional network (odd seeds), cut by [0,1] for every third."""
    rng = np.random.default_rng(seed)
    if seed % 2:
        network = random_conv_network(rng, (1, 5, 5), channels=(3, 3), hidden=(5,), outputs=3)
    else:
        network = random_dense_network(rng, (4, 8, 7, 5, 3))
    domain = (0.0, 1.0) if seed % 3 == 0 else None
    ball = LinfBall(rng.uniform(0, 1, network.input_size), eps=float(rng.uniform(0.05, 0.2)), domain=domain)
    return margin_problem(network, ball, 0, layer_bounds(network, ball, chain, SETTINGS), settings=SETTINGS)


def lowest_found(problem: Problem, results: dict[str, list[Bound]]) -> FloatArray:
    """The least value at any point: sampled ones, corners, and every rung's witness."""
    witnesses = [bound.witness for bounds in results.values() for bound in bounds if bound.witness is not None]
    assert all(problem.input_set.contains(witness) for witness in witnesses)
    points = np.concatenate([problem.input_set.sample(300), problem.input_set.corners(300), np.array(witnesses)])
    return np.asarray(problem.replay(points).min(axis=0))


@pytest.mark.parametrize("chain", CHAINS, ids="+".join)
@pytest.mark.parametrize("seed", range(4))
def test_every_rung_keeps_the_order(seed: int, chain: tuple[str, ...]) -> None:
    problem = random_problem(seed, chain)
    results = {name: rung(problem) for name, rung in RUNGS.items()}
    lower = {name: np.array([bound.lower for bound in bounds]) for name, bounds in results.items()}
    found = lowest_found(problem, results)
    for name, rung in RUNGS.items():
        assert [bound.target for bound in results[name]] == list(problem.targets), name
        assert np.all(lower[name] <= found + TOLERANCE), f"{name} is above a point's value"
        assert np.all(lower[name] <= lower["exact"] + TOLERANCE), f"{name} is above m*"
        for weaker in rung.dominates:
            assert np.all(lower[weaker] <= lower[name] + TOLERANCE), f"{weaker} is above {name}"
        upper = np.array([bound.upper for bound in results[name]])
        assert np.all(upper >= lower["exact"] - TOLERANCE), f"{name}'s witness is below m*"
        if rung.side is Side.EXACT:
            assert np.all(upper - lower[name] <= 1e-4), f"{name} does not close the gap"
        if rung.side is Side.UPPER:
            assert np.all(lower[name] == -np.inf), name


def test_what_is_known_of_the_rungs_is_declared() -> None:
    """The facts the reports rest on: taking one back is no small change."""
    declared = {(weak, name) for name, rung in RUNGS.items() for weak in rung.dominates}
    below_lp = {"interval", "dual", "crown", "alpha"}
    assert declared >= {(weak, "lp") for weak in below_lp} | {(weak, "ideal") for weak in below_lp | {"lp"}}
    assert declared >= {("dual", "alpha"), ("crown", "alpha")}
    assert all(RUNGS[weak].side is RUNGS[strong].side is Side.LOWER for weak, strong in declared)


@pytest.mark.parametrize("name", [name for name, rung in RUNGS.items() if not rung.uses_relu_bounds])
def test_rungs_that_ignore_layer_bounds_really_do(name: str) -> None:
    """What a sweep computes once for all chains must not depend on the chain."""
    loose, tight = random_problem(2, ("interval",)), random_problem(2, ("lp",))
    assert any(np.any(a < b) for a, b in zip(loose.relu_bounds.lower, tight.relu_bounds.lower, strict=True))
    for one, other in zip(RUNGS[name](loose), RUNGS[name](tight), strict=True):
        assert one.lower == pytest.approx(other.lower, abs=1e-9)
        assert one.upper == pytest.approx(other.upper, abs=1e-9)


@pytest.mark.parametrize("name", list(RUNGS))
def test_every_rung_takes_single_rows_and_none(name: str) -> None:
    problem = random_problem(1, ("interval", "dual"))
    whole = RUNGS[name](problem)
    (single,) = RUNGS[name](problem.with_rows(problem.rows[[1]], problem.targets[1:]))
    assert single.target == whole[1].target
    assert single.lower == pytest.approx(whole[1].lower, abs=TOLERANCE)
    assert RUNGS[name](problem.with_rows(problem.rows[:0])) == []


@pytest.mark.parametrize("name", list(RUNGS))
def test_every_rung_is_tight_on_a_point(name: str) -> None:
    """ε = 0: nothing is left to bound, whatever the method."""
    rng = np.random.default_rng(3)
    network = random_dense_network(rng, (4, 8, 6, 3))
    problem = margin_problem(network, LinfBall(rng.normal(size=4), eps=0.0), 0, settings=replace(SETTINGS, seed=1))
    clean = problem.replay(problem.input_set.center)[0]
    for bound, value in zip(RUNGS[name](problem), clean, strict=True):
        known = bound.upper if RUNGS[name].side is Side.UPPER else bound.lower
        assert known == pytest.approx(value, abs=TOLERANCE)


@pytest.mark.parametrize("name", list(RUNGS))
def test_nothing_is_certified_on_layer_bounds_that_are_not(name: str) -> None:
    """l,u from a rung that does not certify: what rests on them is no certificate, whoever computed it."""
    problem = random_problem(1, ("interval", "dual"))
    believed = replace(problem, region=problem.region.with_bounds(replace(problem.relu_bounds, certified=False)))
    assert believed.relu_bounds.chain
    for sure, unsure in zip(RUNGS[name](problem), RUNGS[name](believed), strict=True):
        assert unsure.certified_lower == -np.inf
        if RUNGS[name].certifies:
            assert sure.certified_lower > -np.inf


def test_layer_bounds_are_certified_if_every_rung_of_the_chain_is(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ball = random_problem(1, ("interval",)).network, random_problem(1, ("interval",)).input_set
    for name in [name for name, rung in RUNGS.items() if rung.certifies and rung.side is Side.LOWER]:
        assert layer_bounds(network, ball, ("interval", name), SETTINGS).certified
    monkeypatch.setitem(RUNGS, "unsure", replace(RUNGS["interval"], name="unsure", certifies=False))
    for chain in (("unsure",), ("interval", "unsure"), ("unsure", "interval", "dual")):
        assert not layer_bounds(network, ball, chain, SETTINGS).certified


def test_layer_bounds_that_contradict_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rung whose l is above another's u by far: one of them is wrong, and nothing may rest on either."""
    network, ball = random_problem(1, ("interval",)).network, random_problem(1, ("interval",)).input_set

    def shifted(problem: Problem) -> RowBounds:
        high = RUNGS["interval"].run(problem).highest
        assert high is not None
        return RowBounds(high + 1.0, high + 2.0)

    monkeypatch.setitem(RUNGS, "liar", Rung("liar", Side.LOWER, "lies", "", shifted, Cost.CLOSED_FORM, certifies=True))
    with pytest.raises(ValueError, match="'liar'"):
        layer_bounds(network, ball, ("interval", "liar"), SETTINGS)
