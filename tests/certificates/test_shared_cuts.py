"""Cuts with shares of a neuron's inputs: valid in rational arithmetic, weighed by forests, and held by proof files."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import random_dense_network
from oracle import least

from toolkit.certificates.check import RejectedProofError, check_proof
from toolkit.certificates.dual_bound import derive_cuts, linear_forms
from toolkit.certificates.leaves import CutStore, Evidence, Forest, SharedCuts, forest_bounds, leaf_bounds
from toolkit.certificates.rounding import error_model_of
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.search.plane_trees import PlaneTrees
from toolkit.verify.margins import margin_problem
from toolkit.verify.proof_trees import Searches
from toolkit.verify.prove import write_proof

ROWS = np.array([[1.0, -1.0], [-1.0, 1.0], [0.5, 2.0]])


SEEDS = (1, 3, 5, 8)  # of networks with several unstable neurons in the first layer, and others in the second


def small(seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    return margin_problem(random_dense_network(rng, (2, 6, 3, 2)), LinfBall(rng.normal(size=2), 0.8), 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_cuts_with_shares_hold_in_rational_arithmetic(seed: int) -> None:
    """With θ' = the float θw over w, in [0, 1]: fixed ≤ Σ θ' min w v, slope ≥ fixed + Σ (1 − θ') max w v + b + δ."""
    model, rng = error_model_of(small(seed)), np.random.default_rng(seed)
    neurons, inputs = np.arange(model.count), model.input_set.size
    shares = rng.uniform(-0.2, 1.2, (model.count, inputs + model.count))  # those outside of [0, 1] count as its ends
    shares[0, 0] = np.nan
    cuts = derive_cuts(model, neurons, shares)
    weight, bias, slack = linear_forms(model, neurons)
    high = [u[i] for u, i in zip(model.upper, model.unstable, strict=True)]
    low, up = (
        [Fraction(float(v)) for v in side]
        for side in (
            np.concatenate([model.input_set.lower, np.zeros(model.count)]),
            np.concatenate([model.input_set.upper, *high]),
        )
    )
    for r in neurons:
        inside, outside, row = Fraction(0), Fraction(0), np.array(cuts.rows[r])
        row[inputs + r] -= 1.0
        for taken, w, least_v, most_v in zip(row, weight[r], low, up, strict=True):
            exact = Fraction(float(w))
            share = -Fraction(float(taken)) / exact if exact else Fraction(0)
            assert 0 <= share <= 1
            ends = sorted((exact * least_v, exact * most_v))
            inside, outside = inside + share * ends[0], outside + (1 - share) * ends[1]
        fixed, slope = Fraction(float(cuts.constant[r])), Fraction(float(cuts.slope[r]))
        assert fixed <= inside
        assert slope >= fixed + outside + Fraction(float(bias[r])) + Fraction(float(slack[r]))


def forest_with_cuts(problem: Problem, seed: int, trees: int = 3) -> Forest:
    """Every tree splits one neuron or two in full; the second one's leaves have no cuts; all numbers at random."""
    model, rng = error_model_of(problem), np.random.default_rng(seed)
    first = np.arange(model.own[0].stop)
    cuts = [SharedCuts(first, rng.uniform(0, 1, (first.size, model.input_set.size)).astype(np.float32)) for _ in "ab"]
    tree, phases = [], []
    for t in range(trees):
        split = rng.permutation(model.count)[: 1 + t % 2]
        for pattern in itertools.product((0, 1), repeat=split.size):
            phases.append(np.full(model.count, -1, dtype=np.int8))
            phases[-1][split] = pattern
            tree.append(t)
    count = len(tree)
    weights = rng.exponential(0.3, (count, first.size + 1)).astype(np.float32)
    family = np.array([-1 if t == 1 else t % 2 for t in tree])
    parts = np.array(tree), np.array(phases), rng.normal(size=(count, model.count)), np.zeros(count, dtype=np.bool_)
    return Forest(*parts, weights, family, tuple(cuts))


@pytest.mark.parametrize("seed", SEEDS)
def test_leaves_that_weigh_cuts_count_as_alone_and_no_tree_is_above_the_truth(seed: int) -> None:
    problem = small(seed)
    model, forest = error_model_of(problem), forest_with_cuts(problem, seed)
    found = forest_bounds(model, ROWS, forest)
    truths, store = least(problem.network, problem.input_set, ROWS.tolist()), CutStore()
    assert forest.weights is not None
    assert forest.family is not None
    for t, (bound, (truth, _)) in enumerate(zip(found.tolist(), truths, strict=True)):
        assert Fraction(bound) <= truth
        leaves = []
        for i in np.flatnonzero(forest.tree == t).tolist():
            at = forest.family[i]
            own = np.arange(forest.cuts[at].neurons.size) if at >= 0 else np.zeros(0, dtype=np.int64)
            ids = own + (store.share(forest.cuts[at]) if at >= 0 else 0)
            weights = forest.weights[i, own].astype(float)
            leaves.append((forest.phases[i], Evidence(forest.multipliers[i], ids, weights)))
        assert bound == pytest.approx(leaf_bounds(model, ROWS[t], store, leaves).min(), abs=1e-9)
    order = np.random.default_rng(seed).permutation(forest.tree.size)
    again = Forest.joined([forest.take(order[:2]), forest.take(order[2:])])
    np.testing.assert_allclose(forest_bounds(model, ROWS, again), found, atol=1e-12)
    plain = forest.take(forest.tree == 1)
    assert not Forest.joined([plain]).cuts


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: Forest(f.tree, f.phases, f.multipliers, f.empty, f.weights[:1], f.family, f.cuts),
        lambda f: Forest(f.tree, f.phases, f.multipliers, f.empty, f.weights, f.family + 2, f.cuts),
        lambda f: Forest(f.tree, f.phases, f.multipliers, f.empty, f.weights, f.family - 1, f.cuts),
        lambda f: Forest(f.tree, f.phases, f.multipliers, f.empty, f.weights[:, :0], f.family, f.cuts),
        lambda f: Forest(f.tree, f.phases, f.multipliers, f.empty, f.weights, None, f.cuts),
        lambda f: Forest(f.tree, f.phases, f.multipliers, f.empty, None, f.family, f.cuts),
        lambda f: Forest(f.tree, f.phases, f.multipliers, f.empty, f.weights, f.family[:-1], f.cuts),
        lambda f: SharedCuts(f.cuts[0].neurons[:1], f.cuts[0].shares),
        lambda f: SharedCuts(f.cuts[0].neurons + 99, f.cuts[0].shares).derive(error_model_of(small(1))),
        lambda f: SharedCuts(f.cuts[0].neurons, f.cuts[0].shares[:, :1]).derive(error_model_of(small(1))),
    ],
)
def test_parts_that_do_not_fit_are_refused(spoil: Callable[[Forest], Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        spoil(forest_with_cuts(small(1), 1))


def with_planes(problem: Problem) -> Forest:
    count = problem.rows.shape[0]
    trees = PlaneTrees(problem, np.full(count, 1e9), 4, keep=True)
    leaves = trees.grow(np.arange(count), lambda: np.zeros(count, dtype=np.bool_)).leaves
    assert leaves is not None
    return leaves


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, LinfBall, dict[str, Any]]:
    """The margin to class 1, claimed as high as leaves with planes prove it."""
    rng = np.random.default_rng(7)
    network, ball = random_dense_network(rng, (2, 9, 2)), LinfBall(rng.normal(size=2), 0.8)
    path = tmp_path_factory.mktemp("shares") / "p.npz"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolkit.verify.proof_trees._by_search", lambda problem, rows, store: [None] * rows.size)
        write_proof(path, network, ball, 0, settings=Settings(stop_at=1e9), searches=Searches(grow=with_planes))
    with np.load(path, allow_pickle=False) as archive:
        return network, ball, {name: archive[name] for name in archive.files}


def test_a_proof_with_shares_is_checked_and_true(
    proof: tuple[Network, LinfBall, dict[str, Any]], tmp_path: Path
) -> None:
    network, ball, content = proof
    assert np.any((content["cut.shares"] > 0) & (content["cut.shares"] < 1))
    assert content["target1.weights"].any()
    np.savez(tmp_path / "p.npz", **content)
    claim = check_proof(tmp_path / "p.npz", network).claims[1]
    ((truth, _),) = least(network, ball, [[1.0, -1.0]])
    assert float(truth) - 1.0 <= claim
    assert Fraction(claim) <= truth


@pytest.mark.parametrize(
    "tamper",
    [
        lambda shares: shares * 2.0,
        lambda shares: -shares,
        lambda shares: np.where(shares > 0, np.nan, shares),
        lambda shares: shares[:-1],
        lambda shares: np.concatenate([shares, shares[-1:]]),
        lambda shares: shares[None],
        lambda shares: (shares > 0.5).astype(np.int64),
        lambda shares: 1.0 - shares,
        lambda shares: 0.0 * shares,
    ],
)
def test_other_shares_are_refused(
    tamper: Callable[[np.ndarray], Any], proof: tuple[Network, LinfBall, dict[str, Any]], tmp_path: Path
) -> None:
    """Those that are none, and those that prove less than is claimed."""
    network, _, content = proof
    np.savez(tmp_path / "p.npz", **content | {"cut.shares": tamper(content["cut.shares"])})
    with pytest.raises(RejectedProofError):
        check_proof(tmp_path / "p.npz", network)


@pytest.mark.parametrize("scale", [0.0, 2.0, -1.0, np.nan])
def test_other_weights_are_refused(
    scale: float, proof: tuple[Network, LinfBall, dict[str, Any]], tmp_path: Path
) -> None:
    network, _, content = proof
    np.savez(tmp_path / "p.npz", **content | {"target1.weights": scale * content["target1.weights"]})
    with pytest.raises(RejectedProofError):
        check_proof(tmp_path / "p.npz", network)


def test_shares_left_out_or_in_an_older_format_are_refused(
    proof: tuple[Network, LinfBall, dict[str, Any]], tmp_path: Path
) -> None:
    network, _, content = proof
    np.savez(tmp_path / "p.npz", **{key: array for key, array in content.items() if key != "cut.shares"})
    with pytest.raises(RejectedProofError, match="does not reach the claim"):
        check_proof(tmp_path / "p.npz", network)
    older = str(content["header"]).replace('"format": 2', '"format": 1')
    np.savez(tmp_path / "p.npz", **content | {"header": np.array(older)})
    with pytest.raises(RejectedProofError, match="malformed"):
        check_proof(tmp_path / "p.npz", network)
