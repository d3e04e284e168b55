"""Proof files: what is written is verified, and what is tampered with is rejected with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import random_dense_network
from hard_networks import random_case
from lp_sides import sides_by_lps

from toolkit.certificates.check import RejectedProofError, all_shown, check_proof
from toolkit.certificates.coverage import covered
from toolkit.cli import main
from toolkit.data.datasets import load_dataset
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.properties import Property, robustness
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rung
from toolkit.verify.margins import margin_problem
from toolkit.verify.proof_trees import SEARCHES, Searches
from toolkit.verify.prove import Proof, write_proof

Content = dict[str, Any]
TIGHT = Settings(solver="highs", mip_gap=0.0, mip_gap_abs=1e-7)
LABEL, EPS = 0, 0.14
LPS = Searches(sides_by_lps)  # LPs and their cuts alone


def _proven(path: Path, tighten: bool, searches: Searches) -> tuple[Network, LinfBall, Proof]:
    """A proof whose trees have several leaves: a ball so large that LP and cuts at the root do not decide."""
    rng = np.random.default_rng(3)
    network = random_dense_network(rng, (20, 40, 40, 3))
    ball = LinfBall(rng.normal(size=20), EPS)
    (least,) = get_rung("bab")(margin_problem(network, ball, LABEL, targets=[1], settings=TIGHT))
    goal = Settings(stop_at=least.lower - 1e-3)  # nearly all there is to prove
    return network, ball, write_proof(path, network, ball, LABEL, [1], goal, tighten, searches)


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Network, LinfBall, Proof]:
    path = tmp_path_factory.mktemp("proofs") / "proof.npz"
    return path, *_proven(path, True, LPS)


@pytest.mark.parametrize("searches", [LPS, SEARCHES], ids=["lps", "trees"])
@pytest.mark.parametrize("tighten", [True, False])
def test_what_is_written_is_verified(tighten: bool, searches: Searches, tmp_path: Path) -> None:
    network, ball, proof = _proven(tmp_path / "p.npz", tighten, searches)
    checked = check_proof(tmp_path / "p.npz", network)
    assert checked.claims == dict(zip(proof.targets, proof.claims, strict=True))
    assert checked.leaves == proof.leaves > 3
    assert np.array_equal(checked.ball.center, ball.center)
    assert checked.ball.eps == ball.eps
    problem = margin_problem(network, ball, LABEL, targets=[1], settings=TIGHT)
    (bound,) = get_rung("bab")(problem)
    assert bound.lower - 2e-3 <= proof.claims[0] <= bound.upper
    assert proof.claims[0] <= problem.replay(ball.sample(300)).min()


def _read(path: Path) -> Content:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _with_header(content: Content, **changes: Any) -> None:
    content["header"] = np.array(json.dumps(json.loads(str(content["header"])) | changes))


def _claim_more(content: Content, rng: np.random.Generator) -> None:
    (claim,) = json.loads(str(content["header"]))["claims"]
    _with_header(content, claims=[claim + 10.0 ** rng.uniform(-6, 1)])


def _drop_leaf(content: Content, rng: np.random.Generator) -> None:
    gone = rng.integers(content["target1.empty"].size)
    ends = np.concatenate([[0], content["target1.ends"]])
    span = np.arange(ends[gone], ends[gone + 1])
    for part in ("cuts", "weights"):
        content[f"target1.{part}"] = np.delete(content[f"target1.{part}"], span)
    content["target1.ends"] = np.delete(content["target1.ends"] - np.where(ends[1:] > ends[gone], span.size, 0), gone)
    for part in ("phases", "multipliers", "empty"):
        content[f"target1.{part}"] = np.delete(content[f"target1.{part}"], gone, axis=0)


def _flip_split(content: Content, rng: np.random.Generator) -> None:
    phases = content["target1.phases"]
    leaf, neuron = rng.permutation(np.argwhere(phases >= 0))[0]
    phases[leaf, neuron] = 1 - phases[leaf, neuron]


def _spoil_multipliers(content: Content, rng: np.random.Generator) -> None:
    own = content["target1.multipliers"]
    own[rng.integers(len(own))] += 10 * rng.normal(size=own.shape[1]) * (1 + np.nanmax(np.abs(own)))


def _narrow_bounds(content: Content, rng: np.random.Generator) -> None:
    name, layer = rng.choice(["lower", "upper"]), rng.integers(2)
    side = content[f"{name}{layer}"]
    side[rng.integers(side.size)] += (1 if name == "lower" else -1) * 10.0 ** rng.uniform(-6, 0)


def _grow_ball(content: Content, rng: np.random.Generator) -> None:
    """A larger ball, with a digest to match."""
    ball = LinfBall(content["center"], EPS * (1 + 10.0 ** rng.uniform(-6, 0)))
    _with_header(content, eps=ball.eps, ball=ball.digest)


def _move_ball(content: Content, rng: np.random.Generator) -> None:
    content["center"][rng.integers(20)] += 1e-12


def _remove_part(content: Content, rng: np.random.Generator) -> None:
    del content[rng.choice(sorted(content))]


def _put_nan(content: Content, rng: np.random.Generator) -> None:
    side = content[f"lower{rng.integers(2)}"]
    side[rng.integers(side.size)] = np.nan


def _other_target(content: Content, rng: np.random.Generator) -> None:
    _with_header(content, targets=[int(rng.choice([-1, 0, 2, 3]))])


def _negative_weights_and_wrong_ids(content: Content, rng: np.random.Generator) -> None:
    content["target1.cuts"] = content["target1.cuts"] + content["cut.neurons"].size


TAMPERINGS: list[Callable[[Content, np.random.Generator], None]] = [
    _claim_more, _drop_leaf, _flip_split, _spoil_multipliers, _narrow_bounds, _grow_ball, _move_ball, _remove_part,
    _put_nan, _other_target, _negative_weights_and_wrong_ids,
]  # fmt: skip


@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda tamper: tamper.__name__.strip("_"))
def test_tampered_proofs_are_rejected(
    tamper: Callable[[Content, np.random.Generator], None],
    proven: tuple[Path, Network, LinfBall, Proof],
    tmp_path: Path,
) -> None:
    """Ten random tamperings of eleven kinds, each rejected with a reason of its own."""
    path, network, _, _ = proven
    for seed in range(10):
        content = _read(path)
        tamper(content, np.random.default_rng(seed))
        np.savez(tmp_path / "bad.npz", **content)
        with pytest.raises(RejectedProofError) as error:
            check_proof(tmp_path / "bad.npz", network)
        assert str(error.value)


def test_another_network_and_a_damaged_file_are_rejected(
    proven: tuple[Path, Network, LinfBall, Proof], tmp_path: Path
) -> None:
    path, network, _, _ = proven
    other = random_dense_network(np.random.default_rng(4), (20, 40, 40, 3))
    with pytest.raises(RejectedProofError, match="the network has another digest"):
        check_proof(path, other)
    for keep in (0, 10, 1000):
        (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:keep])
        with pytest.raises(RejectedProofError, match="malformed"):
            check_proof(tmp_path / "cut.npz", network)


def test_certify_writes_a_proof_that_check_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proof = str(tmp_path / "p.npz")
    image = ["--data", "digits", "--index", "3"]
    assert main(["certify", "zoo:digits-standard", *image, "--eps", "0.01", "--rung", "dual", "--proof", proof]) == 0
    assert "every margin is positive" in " ".join(capsys.readouterr().out.split())
    assert main(["check", proof, "--network", "zoo:digits-standard", *image]) == 0
    shown = capsys.readouterr().out
    assert "VERIFIED" in shown
    assert "no adversarial example in the ball" in shown
    assert main(["check", proof, "--network", "zoo:digits-standard", "--data", "digits", "--index", "4"]) == 1
    assert "REJECTED: the ball's centre is not test image 4 of digits" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "none.npz"), "--network", "zoo:digits-standard"]) == 2


def test_some_of_the_targets_are_not_a_proof_of_robustness(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Positive means that every other class was shown to lose, in the file and in what the command says."""
    network, data = Network.load("zoo:digits-standard"), load_dataset("digits")
    label = int(data.labels[0])
    others = [t for t in range(10) if t != label]
    path, ball = tmp_path / "p.npz", LinfBall(data.images[0], 0.01, (0, 1))
    for targets in (others[:1], others[:-1]):
        proof = write_proof(path, network, ball, label, targets)
        checked = check_proof(path, network)
        assert min(checked.claims.values()) > 0
        assert not proof.positive
        assert not checked.positive
        assert main(["check", str(path), "--network", "zoo:digits-standard"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        missing = ", ".join(str(t) for t in others if t not in targets)
        assert "no adversarial example in the ball" not in shown
        assert f"not shown free of adversarial examples; margins to classes not in the proof: {missing}" in shown
    proof = write_proof(path, network, ball, label)
    assert proof.positive
    assert check_proof(path, network).positive
    for targets in ([], [others[0], others[0]]):
        with pytest.raises(ValueError, match=r"targets must (name at least one|not repeat a) class"):
            write_proof(path, network, ball, label, targets)


def test_claims_that_are_not_positive_prove_nothing() -> None:
    assert all_shown(robustness(3, 0), {1: 1.0, 2: 1e-300})
    for claims in ({}, {1: 1.0}, {1: 1.0, 2: 0.0}, {1: 1.0, 2: np.nan}, {1: -np.inf, 2: 1.0}, {1: 1.0, 3: 1.0}):
        assert not all_shown(robustness(3, 0), claims)
    assert not all_shown(Property.of(np.eye(2)), {0: 1.0})
    assert all_shown(Property.of(np.eye(2), groups=[0, 0]), {0: 1.0})


def test_a_proof_about_another_class_or_ball_is_not_about_the_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, data = Network.load("zoo:digits-standard"), load_dataset("digits")
    found = network.predict(data.features)
    wrong = int(np.flatnonzero(found != data.labels)[0])
    path = tmp_path / "p.npz"
    write_proof(path, network, LinfBall(data.images[wrong], 1e-4, (0, 1)), int(found[wrong]))
    command = ["check", str(path), "--network", "zoo:digits-standard"]
    assert main(command) == 0
    assert main([*command, "--data", "digits", "--index", str(wrong)]) == 1
    reason = f"class {found[wrong]}, but test image {wrong} of digits has label {data.labels[wrong]}"
    assert reason in " ".join(capsys.readouterr().out.split())
    checked = check_proof(path, network)
    checked.require(data.images[wrong], 1e-4, int(found[wrong]), domain=(0, 1))
    for asked in ({"center": data.images[wrong + 1]}, {"eps": 1.1e-4}, {"label": int(data.labels[wrong])}):
        with pytest.raises(RejectedProofError):
            checked.require(**asked)


def _no_targets(content: Content) -> None:
    _with_header(content, targets=[], claims=[])


def _nan_claim(content: Content) -> None:
    _with_header(content, claims=[float("nan")])


def _all_empty(content: Content) -> None:
    content["target1.empty"] = np.ones_like(content["target1.empty"])


@pytest.mark.parametrize("tamper", [_no_targets, _nan_claim, _all_empty])
def test_proofs_of_nothing_are_rejected(
    tamper: Callable[[Content], None], proven: tuple[Path, Network, LinfBall, Proof], tmp_path: Path
) -> None:
    content = _read(proven[0])
    tamper(content)
    np.savez(tmp_path / "bad.npz", **content)
    with pytest.raises(RejectedProofError):
        check_proof(tmp_path / "bad.npz", proven[1])


def test_coverage_is_never_claimed_wrongly() -> None:
    """Random trees with leaves removed, doubled or changed, against all 2⁵ patterns."""
    rng = np.random.default_rng(0)
    patterns = (np.arange(32)[:, None] >> np.arange(5)) & 1
    accepted = refused = 0
    for _ in range(300):
        leaves = [np.full(5, -1, dtype=np.int8)]
        for _ in range(rng.integers(0, 6)):
            leaf = leaves.pop(rng.integers(len(leaves)))
            neuron = rng.choice(np.flatnonzero(leaf < 0)) if (leaf < 0).any() else 0
            for phase in (0, 1):
                child = leaf.copy()
                child[neuron] = phase
                leaves.append(child)
        assert covered(np.zeros(len(leaves), dtype=np.int64), np.array(leaves), 1).all()
        spoilt = np.array(leaves)
        if rng.random() < 0.5:
            spoilt = np.delete(spoilt, rng.integers(len(spoilt)), axis=0)
        else:
            spoilt[rng.integers(len(spoilt)), rng.integers(5)] = rng.integers(-1, 2)
        fits = ((spoilt[None] < 0) | (spoilt[None] == patterns[:, None])).all(axis=2)
        if covered(np.zeros(len(spoilt), dtype=np.int64), spoilt, 1).all():
            assert fits.any(axis=1).all()
            accepted += 1
        else:
            refused += 1
    assert min(accepted, refused) > 10


@pytest.mark.parametrize("seed", [0, 6, 15, 31, 56, 60])
def test_proofs_of_awkward_networks_are_accepted(seed: int, tmp_path: Path) -> None:
    """Domains without an end, terms that cancel, sizes of 1e-300, l,u that overflow."""
    case = random_case(seed)
    proof = write_proof(tmp_path / "p.npz", case.network, case.ball, case.label, settings=Settings(time_limit=1.0))
    checked = check_proof(tmp_path / "p.npz", case.network)
    for claim, least in zip(checked.claims.values(), case.truth, strict=True):
        assert claim == -np.inf or claim <= least
    assert tuple(checked.claims.values()) == proof.claims


def test_no_proof_and_a_folder_are_said_alike(tmp_path: Path) -> None:
    network = random_dense_network(np.random.default_rng(0), (2, 3, 2))
    for place in (tmp_path, tmp_path / "none.npz"):
        with pytest.raises(FileNotFoundError, match=f"no proof file at {place}"):
            check_proof(place, network)
