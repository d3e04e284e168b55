"""`Checked.require` by ε asks for one very ball: its norm and its domain are part of the question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import random_dense_network

from toolkit.certificates.check import Checked, RejectedProofError, check_proof
from toolkit.networks.network import Network
from toolkit.problems.input_set import InputSet
from toolkit.problems.input_sets import Box, L1Ball, L2Ball, LinfBall
from toolkit.verify.prove import write_proof

CENTER = np.array([0.5, 0.5])
NETWORK: Network = random_dense_network(np.random.default_rng(1), (2, 4, 4, 3))
LABEL = int(NETWORK.predict(CENTER))


def checked(folder: Path, input_set: InputSet) -> Checked:
    write_proof(folder / "p.npz", NETWORK, input_set, LABEL)
    return check_proof(folder / "p.npz", NETWORK)


@pytest.mark.parametrize("kind", [L1Ball, L2Ball])
def test_a_ball_in_another_norm_or_cut_is_not_the_ball_in_linf(kind: Any, tmp_path: Path) -> None:
    cut = (0.4999, 0.5001)
    proof = checked(tmp_path, kind(CENTER, 0.01, cut))
    for asked in ({}, {"domain": cut}, {"norm": "linf"}, {"norm": kind.norm}, {"norm": kind.norm, "domain": (0, 1)}):
        with pytest.raises(RejectedProofError, match=r"norm says which|domain says which|a set in l"):
            proof.require(CENTER, 0.01, LABEL, **asked)
    proof.require(CENTER, 0.01, LABEL, norm=kind.norm, domain=cut)
    proof.require(CENTER, label=LABEL, norm=kind.norm)
    with pytest.raises(RejectedProofError, match="a set in"):
        proof.require(norm="linf")


def test_a_domain_that_cuts_nothing_is_none(tmp_path: Path) -> None:
    proof = checked(tmp_path, LinfBall(CENTER, 0.01, (0, 1)))
    for domain in (None, (0, 1), (-5.0, 0.6)):
        proof.require(CENTER, 0.01, LABEL, domain=domain)
    with pytest.raises(RejectedProofError, match=r"cut by the domain \(0.*, not by \(0.5, 1\)"):
        proof.require(eps=0.01, domain=(0.5, 1))
    proof = checked(tmp_path, LinfBall(CENTER, 0.01, (0.5, 1)))
    with pytest.raises(RejectedProofError, match="cut by the domain"):
        proof.require(eps=0.01)


def test_radii_per_coordinate_and_boxes(tmp_path: Path) -> None:
    proof = checked(tmp_path, LinfBall(CENTER, [0.01, 0.02]))
    proof.require(eps=np.array([0.01, 0.02]))
    for eps in (0.01, 0.02, [0.02, 0.01]):
        with pytest.raises(RejectedProofError, match="not ε ="):
            proof.require(eps=eps)
    proof = checked(tmp_path, LinfBall(CENTER, 0.01))
    with pytest.raises(RejectedProofError, match="not ε ="):
        proof.require(eps=np.array([0.01, 0.02]))
    proof = checked(tmp_path, Box(CENTER - 0.01, CENTER + 0.01))
    with pytest.raises(RejectedProofError, match="not ε ="):
        proof.require(eps=0.01)
    proof.require(norm="box")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"center": np.ma.masked_array([0.5, 0.5], [1, 1])}, "center must have no masked entries"),
        ({"center": "abc"}, "center must be an array of real numbers"),
        ({"eps": "0.01"}, "eps must be"),
        ({"eps": np.nan}, "eps must be"),
        ({"eps": 0.01, "norm": "l7"}, "norm must be one of linf, box, l1, l2, got 'l7'"),
        ({"domain": (0, 1)}, "domain goes with eps"),
        ({"eps": [0.01, 0.01], "norm": "l2"}, "in l2"),
    ],
)
def test_what_is_no_ball_is_refused(asked: dict[str, Any], words: str, tmp_path: Path) -> None:
    proof = checked(tmp_path, LinfBall(CENTER, 0.01))
    with pytest.raises(ValueError, match=words) as caught:
        proof.require(**asked)
    assert isinstance(caught.value, RejectedProofError) == (words == "in l2")
