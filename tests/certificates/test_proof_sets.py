"""Proofs about every input set: written, verified, and rejected where the set in the file is not the one proven."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import random_dense_network

from toolkit.certificates.check import RejectedProofError, check_proof
from toolkit.certificates.proof_file import PROVABLE
from toolkit.cli import main
from toolkit.networks.network import Network
from toolkit.problems.input_set import InputSet
from toolkit.problems.input_sets import INPUT_SETS, Box, L1Ball, L2Ball, LinfBall
from toolkit.problems.settings import Settings
from toolkit.verify.margins import margins
from toolkit.verify.prove import write_proof

CENTER = np.random.default_rng(1).uniform(0.2, 0.8, 6)
SETS: list[InputSet] = [
    L1Ball(CENTER, 0.4),
    L1Ball(CENTER, 0.6, (0.0, 1.0)),
    L2Ball(CENTER, 0.25),
    L2Ball(CENTER, 0.35, (0.0, 1.0)),
    Box(CENTER - 0.1, CENTER + np.arange(6) / 40),
    LinfBall(CENTER, np.arange(6) / 40, (0.0, 1.0)),
    LinfBall(CENTER, 0.1),
]


@pytest.fixture(scope="module")
def network() -> Network:
    return random_dense_network(np.random.default_rng(0), (6, 12, 10, 3))


@pytest.fixture(params=SETS, ids=lambda one: f"{one.norm}-{one.title}")
def written(request: pytest.FixtureRequest, network: Network, tmp_path: Path) -> tuple[InputSet, Path]:
    write_proof(tmp_path / "p.npz", network, request.param, 0, settings=Settings(stop_at=-1e9))
    return request.param, tmp_path / "p.npz"


def test_every_norm_can_be_proven() -> None:
    assert set(PROVABLE) == set(INPUT_SETS) == {one.norm for one in SETS}


def test_a_proof_is_about_its_set(written: tuple[InputSet, Path], network: Network) -> None:
    input_set, path = written
    checked = check_proof(path, network)
    assert type(checked.ball) is type(input_set)
    assert checked.ball.digest == input_set.digest
    for target, claim in checked.claims.items():
        (bound,) = margins(network, input_set, 0, "exact", targets=[target])
        assert claim <= bound.upper


def test_search_trees_over_an_l2_ball_are_verified(network: Network, tmp_path: Path) -> None:
    ball = L2Ball(CENTER, 0.9, (0.0, 1.0))
    (least,) = margins(network, ball, 0, "exact", targets=[1])
    proof = write_proof(tmp_path / "p.npz", network, ball, 0, [1], Settings(stop_at=least.lower - 1e-3))
    checked = check_proof(tmp_path / "p.npz", network)
    assert checked.leaves == proof.leaves > 1
    assert least.lower - 2e-3 <= checked.claims[1] <= least.upper


def changed(path: Path, arrays: dict[str, Any] | None = None, **header: Any) -> None:
    with np.load(path, allow_pickle=False) as archive:
        content = {name: archive[name] for name in archive.files}
    content["header"] = np.array(json.dumps(json.loads(str(content["header"])) | header))
    content |= arrays or {}
    np.savez(path, **{name: array for name, array in content.items() if array is not None})


@pytest.mark.parametrize(
    ("header", "arrays", "reason"),
    [
        ({"norm": "linf"}, {}, "another digest"),
        ({"norm": "l1"}, {}, "another digest"),
        ({"norm": "l3"}, {}, "norm must be one of linf, l1, l2, box"),
        ({"norm": ["l2"]}, {}, "norm"),
        ({"norm": "box"}, {}, "set.lower"),
        ({"eps": 0.3}, {}, "another digest"),
        ({"eps": None}, {}, "eps must be a number for a ball in l2"),
        ({"eps": -1.0}, {}, "eps"),
        ({"domain": None}, {}, "another digest"),
        ({}, {"set.eps": np.full(6, 0.1)}, "set.eps"),
        ({}, {"center": CENTER + 1e-9}, "another digest"),
        ({}, {"center": CENTER[:5]}, "center"),
        ({}, {"center": np.full(6, np.nan)}, "center"),
        ({"norm": "linf", "eps": None}, {"set.eps": -np.ones(6)}, "eps must be finite and ≥ 0"),
        ({"norm": "box", "eps": None}, {"set.lower": np.ones(6), "set.upper": np.zeros(6), "center": None}, "lower"),
    ],
)
def test_another_set_is_rejected(
    header: dict[str, Any], arrays: dict[str, Any], reason: str, network: Network, tmp_path: Path
) -> None:
    write_proof(tmp_path / "p.npz", network, L2Ball(CENTER, 0.2, (0.0, 1.0)), 0)
    changed(tmp_path / "p.npz", arrays, **header)
    with pytest.raises(RejectedProofError, match=reason):
        check_proof(tmp_path / "p.npz", network)


def test_a_file_without_a_norm_is_about_a_ball_in_linf(network: Network, tmp_path: Path) -> None:
    write_proof(tmp_path / "p.npz", network, LinfBall(CENTER, 0.1), 0)
    with np.load(tmp_path / "p.npz", allow_pickle=False) as archive:
        content = {name: archive[name] for name in archive.files}
    header = json.loads(str(content["header"]))
    assert header.pop("norm") == "linf"
    np.savez(tmp_path / "old.npz", **content | {"header": np.array(json.dumps(header))})
    assert check_proof(tmp_path / "old.npz", network).ball.digest == LinfBall(CENTER, 0.1).digest


def test_the_set_is_asked_for_and_shown(network: Network, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ball = L2Ball(CENTER, 0.2, (0.0, 1.0))
    network.save(tmp_path / "net.npz")
    write_proof(tmp_path / "p.npz", network, ball, 0)
    checked = check_proof(tmp_path / "p.npz", network)
    checked.require(CENTER, 0.2, 0, norm="l2", domain=(0.0, 1.0))
    with pytest.raises(RejectedProofError, match=r"about eps = 0.2 in l2, not ε = 0.1"):
        checked.require(CENTER, 0.1, norm="l2")
    main(["check", str(tmp_path / "p.npz"), "--network", str(tmp_path / "net.npz")])
    assert "ε = 0.2 in ℓ2 around the centre in the file, domain [0, 1]" in capsys.readouterr().out
    write_proof(tmp_path / "box.npz", network, Box(CENTER, CENTER + 0.01), 0)
    main(["check", str(tmp_path / "box.npz"), "--network", str(tmp_path / "net.npz")])
    assert "the box in the file" in capsys.readouterr().out
