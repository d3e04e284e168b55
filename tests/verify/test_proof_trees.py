"""Proofs made of trees: layers refined by trees and margins by trees over phases and boxes, held to rational minima."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import random_dense_network
from lp_sides import sides_by_lps
from oracle import least_margins, neuron_ranges
from phase_trees import grown, halved, refined

from toolkit.certificates.check import RejectedProofError, check_proof
from toolkit.certificates.leaves import Forest, SideTrees
from toolkit.networks.network import Network
from toolkit.problems.input_sets import Box, L2Ball, LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.verify.margins import margins
from toolkit.verify.proof_trees import SEARCHES, Searches, rows_by_trees, sides_by_trees
from toolkit.verify.prove import provable_bounds, write_proof

ALL = Settings(stop_at=1e9, time_limit=2.0)  # nothing is enough: every search has its turn
KINDS = {
    "phases": Searches(refined, grown),
    "boxes": Searches(refined, None, halved),
    "boxes without layers": Searches(None, None, halved),
    "lp": Searches(sides_by_lps),
    "default": SEARCHES,
    "trees": Searches(sides_by_trees, rows_by_trees),
}


def case(seed: int) -> tuple[Network, LinfBall]:
    rng = np.random.default_rng(seed)
    return random_dense_network(rng, (2, 5, 4, 3)), LinfBall(rng.normal(size=2), 0.8)


def read(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_every_kind_of_proof_is_verified_and_claims_no_more_than_the_truth(
    seed: int, kind: str, tmp_path: Path
) -> None:
    network, ball = case(seed)
    proof = write_proof(tmp_path / "p.npz", network, ball, 0, settings=ALL, searches=KINDS[kind])
    checked = check_proof(tmp_path / "p.npz", network)
    assert tuple(checked.claims.values()) == proof.claims
    assert checked.leaves == proof.leaves
    for claim, truth in zip(proof.claims, least_margins(network, ball, 0), strict=True):
        assert -np.inf < claim
        assert Fraction(claim) <= truth
    content = read(tmp_path / "p.npz")
    for k, own in enumerate(neuron_ranges(network, ball)):
        for low, high, (true_low, true_high) in zip(content[f"lower{k}"], content[f"upper{k}"], own, strict=True):
            assert Fraction(float(low)) <= true_low
            assert Fraction(float(high)) >= true_high


@pytest.mark.parametrize("seed", range(4))
def test_trees_tighten_what_the_dual_leaves_and_only_they_are_stored(seed: int) -> None:
    network, ball = case(seed)
    plain, none = provable_bounds(network, ball, Settings(), None)
    better, content = provable_bounds(network, ball, Settings(), refined)
    widths = [sum(float((u - l).sum()) for l, u in zip(one.lower, one.upper, strict=True)) for one in (plain, better)]  # noqa: E741
    assert widths[1] < widths[0] - 1e-2
    assert none["tight1.neurons"].size == content["tight0.neurons"].size == 0
    sides = list(zip(content["tight1.neurons"].tolist(), content["tight1.signs"].tolist(), strict=True))
    assert len(sides) == len(set(sides)) > 0
    for i, sign in sides:
        moved = better.lower[1][i] - plain.lower[1][i] if sign > 0 else plain.upper[1][i] - better.upper[1][i]
        assert moved > 0
    assert content["tight1.multipliers"].dtype == np.float32
    assert content["tight1.phases"].dtype == np.int8
    assert content["tight1.ends"][-1] == len(content["tight1.phases"])
    assert better.certified


def test_the_best_of_several_trees_counts_and_others_are_left_out() -> None:
    """Good trees, then the same with worse multipliers: the file holds one per side, and l,u are the good ones'."""

    def both(problem: Problem, neurons: np.ndarray) -> SideTrees:
        good = refined(problem, neurons)
        own, count = good.forest, good.neurons.size
        worse = Forest(own.tree + count, own.phases, own.multipliers - 1.0, np.zeros_like(own.empty))
        joined = Forest.joined([worse, own])
        return SideTrees(np.tile(good.neurons, 2), np.tile(good.signs, 2), joined)

    network, ball = case(2)
    alone, first = provable_bounds(network, ball, Settings(), refined)
    several, second = provable_bounds(network, ball, Settings(), both)
    np.testing.assert_array_equal(alone.lower[1], several.lower[1])
    np.testing.assert_array_equal(alone.upper[1], several.upper[1])
    assert first["tight1.ends"].tolist() == second["tight1.ends"].tolist()


def test_leaves_that_are_empty_are_proven_so() -> None:
    """Some leaves of refined layers say that they are empty, and l,u rest on it."""
    network, ball = case(2)
    _, content = provable_bounds(network, ball, Settings(), refined)
    assert content["tight1.empty"].any()
    assert not content["tight1.empty"].all()


def test_a_tree_that_does_not_cover_is_not_used(tmp_path: Path) -> None:
    """A search that forgets a leaf of a margin: the row is left to the next search, and the file is sound."""

    def forgetful(problem: Problem) -> Forest:
        whole = grown(problem)
        kept = np.arange(whole.tree.size) != 1
        return Forest(whole.tree[kept], whole.phases[kept], whole.multipliers[kept], whole.empty[kept])

    network, ball = case(0)
    sound = write_proof(tmp_path / "p.npz", network, ball, 0, settings=ALL, searches=KINDS["phases"])
    proof = write_proof(tmp_path / "q.npz", network, ball, 0, settings=ALL, searches=Searches(refined, forgetful))
    checked = check_proof(tmp_path / "q.npz", network)
    assert checked.leaves == proof.leaves != sound.leaves


def test_a_layer_tree_that_does_not_cover_is_rejected(tmp_path: Path) -> None:
    def forgetful(problem: Problem, neurons: np.ndarray) -> SideTrees:
        whole = refined(problem, neurons)
        bad = np.flatnonzero(whole.forest.phases[:, -1] == 0)
        kept = ~np.isin(np.arange(whole.forest.tree.size), bad)
        own = whole.forest
        return replace(whole, forest=Forest(own.tree[kept], own.phases[kept], own.multipliers[kept], own.empty[kept]))

    network, ball = case(2)
    write_proof(tmp_path / "p.npz", network, ball, 0, settings=ALL, searches=Searches(forgetful))
    with pytest.raises(RejectedProofError, match="do not cover every case"):
        check_proof(tmp_path / "p.npz", network)


@pytest.mark.parametrize("norm", ["l2", "box"])
def test_trees_over_the_box_are_about_any_set(norm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over an ℓ2 ball the leaves part its hull; small boxes prove more than the dual does of the ball."""
    monkeypatch.setattr("toolkit.verify.proof_trees._by_search", lambda problem, rows, store: [None] * rows.size)
    network, ball = case(1)
    own = L2Ball(ball.center, 0.8) if norm == "l2" else Box(ball.lower, ball.upper)
    searches = Searches(None, None, partial(halved, depth=6))
    proof = write_proof(tmp_path / "p.npz", network, own, 0, settings=ALL, searches=searches)
    assert check_proof(tmp_path / "p.npz", network).leaves == proof.leaves > 2
    assert any(key.endswith(".axis") for key in read(tmp_path / "p.npz"))
    for claim, bound in zip(proof.claims, margins(network, own, 0, "exact"), strict=True):
        assert claim <= bound.upper


@pytest.mark.parametrize("seed", range(3))
def test_few_inputs_are_halved(seed: int, tmp_path: Path) -> None:
    """Nearly all there is to prove, by the default searches: trees over the box, none over phases for the layers."""
    network, ball = case(seed)
    truths = [float(truth) for truth in least_margins(network, ball, 0)]
    for target, truth in enumerate(truths, start=1):
        goal = Settings(stop_at=truth - 1e-2 * (1 + abs(truth)))
        proof = write_proof(tmp_path / "p.npz", network, ball, 0, [target], goal)
        checked = check_proof(tmp_path / "p.npz", network)
        assert goal.stop_at is not None
        assert goal.stop_at < checked.claims[target] <= truth
        assert checked.leaves == proof.leaves
        content = read(tmp_path / "p.npz")
        assert f"target{target}.axis" in content or proof.leaves == 1
        assert not content["tight1.neurons"].size


def test_a_proof_of_format_one_is_still_checked(tmp_path: Path) -> None:
    """What it held: one leaf without splits per side, in float64, and no ends, phases or empty leaves."""
    network, ball = case(0)
    write_proof(tmp_path / "p.npz", network, ball, 0, settings=ALL, searches=KINDS["lp"])
    content = read(tmp_path / "p.npz")
    assert content["tight1.neurons"].size
    assert content["tight1.ends"].tolist() == list(range(1, content["tight1.neurons"].size + 1))
    for k in range(2):
        for part in ("ends", "phases", "empty"):
            del content[f"tight{k}.{part}"]
        content[f"tight{k}.multipliers"] = content[f"tight{k}.multipliers"].astype(np.float64)
    header = json.loads(str(content["header"]))
    for given, reason in ((1, ""), (2, "tight0.ends is missing"), (3, "format must be 1 or 2, got 3")):
        content["header"] = np.array(json.dumps(header | {"format": given}))
        np.savez(tmp_path / "old.npz", **content)
        if not reason:
            assert check_proof(tmp_path / "old.npz", network).claims
            continue
        with pytest.raises(RejectedProofError, match=reason):
            check_proof(tmp_path / "old.npz", network)


def test_lps_are_the_tree_of_one_leaf() -> None:
    network, ball = case(2)
    problem = Problem.of(
        network.cut(1), ball, np.zeros((0, 4)), provable_bounds(network.cut(1), ball, Settings(), None)[0]
    )
    trees = sides_by_lps(problem, np.arange(4))
    assert trees.forest.tree.tolist() == list(range(trees.neurons.size))
    assert np.all(trees.forest.phases == -1)
    assert not trees.forest.empty.any()


def test_a_file_that_cannot_be_written_is_refused_before_the_search(tmp_path: Path) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the search began")

    (tmp_path / "plain").write_text("", encoding="utf-8")
    (tmp_path / "folder.npz").mkdir()
    searches = Searches(never, never, never)
    for path, error in ((tmp_path / "plain" / "p.npz", OSError), (tmp_path / "folder.npz", IsADirectoryError)):
        with pytest.raises(error):
            write_proof(path, *case(0), 0, searches=searches)
