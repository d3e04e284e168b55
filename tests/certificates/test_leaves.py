"""Leaves of a search tree: each one's bound below the true minimum of its part, and the least of all counts."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import random_dense_network
from hypothesis import given
from hypothesis import strategies as st
from oracle import cells, forward
from strategies import balls, networks

from toolkit.certificates.check import RejectedProofError, check_proof
from toolkit.certificates.coverage import covered
from toolkit.certificates.dual_bound import CHORD, certified_bounds, derive_cuts
from toolkit.certificates.leaves import CutStore, Evidence, Leaves, leaf_bounds
from toolkit.certificates.rounding import ErrorModel, error_model_of
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.rungs import RUNGS
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem
from toolkit.verify.proof_trees import Searches
from toolkit.verify.prove import write_proof

NO_CUTS = np.zeros(0, dtype=np.int64), np.zeros(0)
ROW = np.array([1.0, -1.0])


def unstable_neurons(problem: Problem) -> list[tuple[int, int]]:
    """(layer, neuron) of every unstable neuron, in the order of a region."""
    bounds = problem.relu_bounds
    return [(k, int(i)) for k in range(len(bounds)) for i in np.flatnonzero(bounds.unstable(k))]


def truths(problem: Problem, splits: list[np.ndarray]) -> list[Fraction | None]:
    """The true minimum of F_0 − F_1 over the part of the ball where the ReLUs are as split; None for an empty part."""
    least: list[Fraction | None] = [None] * len(splits)
    neurons = unstable_neurons(problem)
    for vertices, forms, scales in cells(problem.network, problem.input_set):
        goal = [a - b for a, b in zip(*forms[-1], strict=True)]
        value = min(Fraction(v.on(tuple(goal)), v.at[-1] * scales[-1]) for v in vertices)
        signs = [[v.on(forms[k][i]) for v in vertices] for k, i in neurons]
        for s, split in enumerate(splits):
            fits = all(
                phase < 0 or (min(own) >= 0 if phase else max(own) <= 0)
                for phase, own in zip(split, signs, strict=True)
            )
            known = least[s]
            if fits and (known is None or value < known):
                least[s] = value
    return least


def small(seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    network = random_dense_network(rng, (2, 4, 3, 2))
    return margin_problem(network, LinfBall(rng.normal(size=2), 0.8), 0)


def all_splits(count: int, of: int) -> list[np.ndarray]:
    """The leaves that split the first `count` of `of` neurons."""
    return [
        np.array([*phases, *[-1] * (of - count)], dtype=np.int8) for phases in itertools.product((0, 1), repeat=count)
    ]


def random_evidence(rng: np.random.Generator, count: int, cuts: int) -> Evidence:
    ids = np.sort(rng.permutation(cuts)[: rng.integers(0, cuts + 1)]).astype(np.int64)
    return Evidence(rng.normal(size=count), ids, rng.uniform(-0.5, 1, ids.size))


def random_cuts(rng: np.random.Generator, problem: Problem, store: CutStore, many: int) -> None:
    """Cuts of random neurons over random subsets of the inputs and the neurons of earlier layers."""
    neurons = unstable_neurons(problem)
    for _ in range(many):
        own = int(rng.integers(len(neurons)))
        earlier = sum(layer < neurons[own][0] for layer, _ in neurons)
        variables = problem.input_set.size + earlier
        store.neurons.append(own)
        store.subsets.append(np.flatnonzero(rng.random(variables) < 0.6).astype(np.int64))


@given(data=st.data())
def test_no_leaf_is_above_the_truth_of_its_part(data: st.DataObject) -> None:
    """Any multipliers, any cuts with weights of either sign, any splits; empty parts may claim anything finite."""
    network = data.draw(networks(2, 2))
    problem = margin_problem(network, data.draw(balls(2)), 0)
    region = error_model_of(problem)
    rng = np.random.default_rng(data.draw(st.integers(0, 99), label="multipliers"))
    store = CutStore()
    if region.count:
        random_cuts(rng, problem, store, 4)
    splits = all_splits(min(3, region.count), region.count)
    chosen = [random_evidence(rng, region.count, len(store.neurons)) if k % 4 else None for k in range(len(splits))]
    found = leaf_bounds(region, ROW, store, list(zip(splits, chosen, strict=True)))
    for bound, truth in zip(found.tolist(), truths(problem, splits), strict=True):
        assert bound < np.inf
        assert truth is None or bound == -np.inf or Fraction(bound) <= truth


def test_splits_and_cuts_are_each_leafs_own() -> None:
    """Every leaf in a batch has the bound it has alone, by certificate.py itself."""
    told = 0
    for seed in range(4):
        problem, rng = small(seed), np.random.default_rng(seed)
        region, store = error_model_of(problem), CutStore()
        random_cuts(rng, problem, store, 6)
        splits = all_splits(2, region.count)
        evidence = [random_evidence(rng, region.count, 6) for _ in splits]
        together = leaf_bounds(region, ROW, store, list(zip(splits, evidence, strict=True)))
        every = store.derive(region, np.arange(6))
        for phases, own, found in zip(splits, evidence, together, strict=True):
            weights: Any = np.zeros((1, 6))
            weights[0, own.cuts] = own.weights
            alone = certified_bounds(
                region, ROW[None], own.multipliers[None], phases[None], every, sp.csr_array(weights)
            )
            assert found == pytest.approx(alone[0], abs=1e-9)
        free = leaf_bounds(region, ROW, store, [(np.full(region.count, -1, dtype=np.int8), own) for own in evidence])
        told += bool(np.any(together > free + 1e-6))
        assert np.all(together >= free - 1e-9)  # a part of a region has no lower minimum
    assert told


def test_cuts_hold_at_every_point() -> None:
    """left ≤ slope·a with a = 1 exactly where the neuron is active, in fractions."""
    tight = 0
    for seed in range(6):
        problem, rng = small(seed), np.random.default_rng(seed)
        region, store = error_model_of(problem), CutStore()
        random_cuts(rng, problem, store, 8)
        cuts = store.derive(region, np.arange(8))
        neurons = unstable_neurons(problem)
        for point in [*problem.input_set.corners(), *problem.input_set.sample(10, seed)]:
            hats = [forward(problem.network.cut(k), point.tolist()) for k in range(2)]
            values = [Fraction(v) for v in point.tolist()] + [max(hats[k][i], Fraction(0)) for k, i in neurons]
            for r in range(8):
                row = cuts.rows[[r]].toarray()[0].tolist()
                left = sum((Fraction(c) * v for c, v in zip(row, values, strict=True)), Fraction(cuts.constant[r]))
                layer, neuron = neurons[int(cuts.neuron[r])]
                right = Fraction(cuts.slope[r]) if hats[layer][neuron] > 0 else Fraction(0)
                assert left <= right
                tight += right - left < 1e-6
    assert tight > 5


def test_the_least_leaf_of_all_batches_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.certificates.leaves.BATCH", 2)
    problem, rng = small(1), np.random.default_rng(1)
    region = error_model_of(problem)
    splits = all_splits(3, region.count)
    own = [random_evidence(rng, region.count, 0) for _ in splits]
    alone = leaf_bounds(region, ROW, CutStore(), list(zip(splits, own, strict=True)))
    assert np.diff(np.sort(alone)).min() > 1e-6
    for order in (np.argsort(alone), np.argsort(-alone), np.roll(np.argsort(alone), 3)):
        for count in (len(splits), len(splits) - 1):  # the last batch full, or still waiting
            leaves = Leaves(region, ROW, CutStore())
            for k in order[:count].tolist():
                leaves.add(splits[k], own[k])
            assert leaves.certified == pytest.approx(alone[order[:count]].min(), abs=1e-9)
    truth = [value for value in truths(problem, splits) if value is not None]
    assert Fraction(leaves.certified) <= min(truth)


def two_sided() -> ErrorModel:
    """x̂₁ = x − 1/2, x̂₂ = −x − 1/2 on [−1, 1]: never active together."""
    hidden = Dense(np.array([[1.0], [-1.0]]), np.array([-0.5, -0.5]))
    return error_model_of(margin_problem(Network([hidden, Dense(np.eye(2))]), LinfBall([0.0], 1.0), 0))


@pytest.mark.parametrize(
    ("phases", "multipliers", "proven"),
    [
        ((1, 1), (-1.0, -1.0), True),  # 0·F ≥ −x̂₁ − x̂₂ = 1 there
        ((1, 1), (0.0, 0.0), False),  # proves 0 ≥ 0
        ((1, 1), (1.0, 1.0), False),
        ((1, 0), (-1.0, -1.0), False),  # not empty
        ((-1, -1), (-1.0, -1.0), False),
        ((1, 1), (CHORD, CHORD), False),
    ],
)
def test_a_part_is_empty_only_by_proof(phases: tuple[int, int], multipliers: tuple[float, float], proven: bool) -> None:
    region = two_sided()
    evidence = Evidence(np.array(multipliers), *NO_CUTS, empty=True)
    (found,) = leaf_bounds(region, ROW, CutStore(), [(np.array(phases, dtype=np.int8), evidence)])
    assert found == (np.inf if proven else -np.inf)


def test_a_leaf_said_to_be_empty_leaves_nothing_certified() -> None:
    region = two_sided()
    leaves = Leaves(region, ROW, CutStore())
    leaves.add(np.array([-1, 0], dtype=np.int8), None)
    assert np.isfinite(leaves.certified)
    leaves.add(np.array([-1, 1], dtype=np.int8), Evidence(np.zeros(2), *NO_CUTS, empty=True))
    assert leaves.certified == -np.inf


def test_derived_cuts_do_not_depend_on_how_they_are_asked_for() -> None:
    problem, rng = small(2), np.random.default_rng(2)
    region, store = error_model_of(problem), CutStore()
    random_cuts(rng, problem, store, 5)
    members = np.zeros((5, region.input_set.size + region.count), dtype=np.bool_)
    for r, subset in enumerate(store.subsets):
        members[r, subset] = True
    every = derive_cuts(region, np.array(store.neurons), members)
    some = store.derive(region, np.array([3, 1]))
    np.testing.assert_array_equal(some.rows.toarray(), every.rows.toarray()[[3, 1]])
    np.testing.assert_array_equal(some.constant, every.constant[[3, 1]])
    np.testing.assert_array_equal(some.slope, every.slope[[3, 1]])
    assert layer_bounds(problem.network, problem.input_set).certified


@pytest.mark.parametrize("seed", range(4))
def test_a_cut_of_negative_weight_counts_for_nothing(seed: int) -> None:
    problem, rng = small(seed), np.random.default_rng(seed)
    model, store = error_model_of(problem), CutStore()
    random_cuts(rng, problem, store, 5)
    ids = np.arange(5)
    cuts, multipliers = store.derive(model, ids), np.full((1, model.count), CHORD)
    weights = rng.uniform(0.5, 2.0, (1, ids.size)) * np.array([1.0, -1.0, 1.0, -1.0, -1.0])
    given, taken = (
        certified_bounds(model, problem.rows[:1], multipliers, None, cuts, sp.csr_array(own))
        for own in (weights, np.maximum(weights, 0.0))
    )
    np.testing.assert_array_equal(given, taken)


@pytest.mark.parametrize(
    ("leaves", "whole"),
    [
        ([[-1, -1]], True),
        ([[0, -1], [1, 0], [1, 1]], True),
        ([[0, -1], [-1, 1]], False),  # misses (1, 0), and no neuron is split in both
        ([[0, -1], [-1, 1], [1, 0]], False),  # covers, but is no tree: not accepted either
        ([[0, -1]], False),
        ([[0, 0], [0, 1], [1, 0]], False),
        ([[0, -1], [0, -1]], False),
    ],
)
def test_a_checker_accepts_trees_alone(leaves: list[list[int]], whole: bool) -> None:
    assert covered(np.zeros(len(leaves), dtype=np.int64), np.array(leaves, dtype=np.int8), 1).tolist() == [whole]


def test_a_checker_believes_no_leaf_to_be_empty(tmp_path: Path) -> None:
    """Each leaf of a proof in turn is said to be empty, with the multipliers that proved its bound."""
    rng = np.random.default_rng(3)
    network = random_dense_network(rng, (4, 10, 10, 2))
    ball = LinfBall(rng.normal(size=4), 0.8)
    (least,) = RUNGS["bab"](margin_problem(network, ball, 0))
    goal = Settings(stop_at=least.lower - 1e-3)
    proof = write_proof(tmp_path / "p.npz", network, ball, 0, [1], goal, searches=Searches())
    assert check_proof(tmp_path / "p.npz", network).leaves == proof.leaves
    assert proof.leaves >= 3
    with np.load(tmp_path / "p.npz", allow_pickle=False) as archive:
        content = {name: archive[name] for name in archive.files}
    told = 0
    for leaf in np.flatnonzero(~content["target1.empty"]):
        empty = content["target1.empty"].copy()
        empty[leaf] = True
        np.savez(tmp_path / "q.npz", **(content | {"target1.empty": empty}))
        with pytest.raises(RejectedProofError):
            check_proof(tmp_path / "q.npz", network)
        told += 1
    assert told >= 2
