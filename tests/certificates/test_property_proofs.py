"""Proofs of properties with groups of rows: what they state, what the rational ball says, and what is tampered with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import random_network
from oracle import least

from toolkit.certificates.check import RejectedProofError, check_proof
from toolkit.cli import main
from toolkit.data.datasets import load_dataset
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.lowering import lowered
from toolkit.problems.properties import Property
from toolkit.verify.prove import write_proof

GROUPS = [0, 0, 0, 1]


def case(seed: int) -> tuple[Network, LinfBall, Property, list[float]]:
    """A network, a ball, a property of two groups shifted to hold, and the true margins."""
    rng = np.random.default_rng(seed)
    network, ball = random_network(rng, 2, inputs=2), LinfBall(rng.normal(size=2), 0.3)
    rows = rng.integers(-3, 4, (4, network.output_size)).astype(float)
    whole, low = lowered(network, Property.of(rows, groups=GROUPS))
    right = [float(value) for value, _ in least(whole, ball, low.objective.rows.tolist())]
    shift = 0.25 - min(right)
    return network, ball, Property.of(rows, np.full(4, shift), GROUPS), [value + shift for value in right]


@pytest.mark.parametrize("seed", range(4))
def test_claims_are_no_more_than_the_margins(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, ball, asked, right = case(seed)
    path = tmp_path / "proof.npz"
    proof = write_proof(path, network, ball, asked)
    checked = check_proof(path, network)
    assert proof.positive
    assert checked.positive
    assert checked.label is None
    assert tuple(checked.claims.values()) == proof.claims
    for claim, value in zip(proof.claims, right, strict=True):
        assert 0 < claim <= value + 1e-9
    np.testing.assert_array_equal(checked.question.objective.rows, asked.objective.rows)
    net = network.save(tmp_path / "net.npz")
    assert main(["check", str(path), "--network", str(net)]) == 0
    assert "the property holds everywhere in the set" in " ".join(capsys.readouterr().out.split())


def changed(path: Path, name: str, change: Any) -> Path:
    """The proof with one array or header entry changed."""
    with np.load(path) as archive:
        content = dict(archive)
    if name in content:
        content[name] = change(content[name])
    else:
        header = json.loads(str(content["header"]))
        header[name] = change(header[name])
        content["header"] = np.array(json.dumps(header))
    other = path.with_name("changed.npz")
    np.savez(other, **content)
    return other


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("question.rows", lambda rows: rows - 1e3),
        ("question.rows", lambda rows: rows[:, :1]),
        ("question.rows", lambda rows: rows * np.nan),
        ("question.constants", lambda shift: shift - 1e3),
        ("question.groups", lambda groups: groups[::-1].copy()),
        ("question.groups", lambda groups: np.arange(4)),
        ("question.groups", lambda groups: groups * 0),
        ("targets", lambda targets: targets[:1]),
        ("targets", lambda targets: targets[::-1]),
        ("claims", lambda claims: [claim + 1e3 for claim in claims]),
        ("label", lambda label: 0),
    ],
)
def test_a_changed_question_is_rejected(name: str, change: Any, tmp_path: Path) -> None:
    network, ball, asked, _ = case(0)
    write_proof(tmp_path / "proof.npz", network, ball, asked)
    with pytest.raises(RejectedProofError):
        check_proof(changed(tmp_path / "proof.npz", name, change), network)


def test_a_proof_of_another_property_is_none_of_the_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, data = Network.load("zoo:digits-standard"), load_dataset("digits")
    trivial = Property.of([[0.0] * 10], [1.0])
    write_proof(tmp_path / "proof.npz", network, LinfBall(data.features[0], 0.01, (0, 1)), trivial)
    command = ["check", str(tmp_path / "proof.npz"), "--network", "zoo:digits-standard"]
    assert main(command) == 0
    assert main([*command, "--data", "digits", "--index", "0"]) == 1
    assert "about a property" in " ".join(capsys.readouterr().out.split())
