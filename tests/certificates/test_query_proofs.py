"""Proofs of VNN-LIB questions: about a box that holds the rational one, true on all of it, and of no other question."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import random_dense_network
from oracle import forward

from toolkit import Box, LinfBall, check_proof, write_proof
from toolkit.certificates.check import RejectedProofError
from toolkit.networks.network import Network
from toolkit.problems.properties import Property
from toolkit.problems.vnnlib import VnnlibQuestion
from toolkit.problems.vnnlib_box import RationalBox
from toolkit.problems.vnnlib_reader import parse_vnnlib
from toolkit.verify.queries import asked_network, fitting_questions, verify_query

DECLARED = "".join(f"(declare-const {name} Real)" for name in ("X_0", "X_1", "X_2", "Y_0", "Y_1"))
ENDS = ((Fraction(1, 10), Fraction(3, 10)), (Fraction(1, 3), Fraction(7, 10)), (Fraction(1, 10), Fraction(1, 10)))
BOX = (
    "(assert (>= X_0 0.1))(assert (<= X_0 0.3))(assert (>= X_1 (/ 1 3)))(assert (<= X_1 0.7))"
    "(assert (<= X_2 0.1))(assert (>= X_2 0.1))"  # a sliver: no float lies in it
)
NETWORK = random_dense_network(np.random.default_rng(5), (3, 6, 5, 2))


def unsafe(level: float) -> str:
    """Y below a level in both, or in one with more; rows about inputs as well."""
    both = f"(and (<= Y_0 {level!r}) (<= Y_1 {level!r}))"
    return f"(assert (or {both} (<= Y_0 (- {level!r} 1)) (<= (+ Y_1 X_0) (- {level!r} 2))))"


def asked(level: float) -> VnnlibQuestion:
    (question,) = fitting_questions(NETWORK, parse_vnnlib(DECLARED + BOX + unsafe(level)))
    return question


def safe_level() -> float:
    """Below both outputs on the box, by intervals and a little."""
    lower, upper = (np.array([float(end[side]) for end in ENDS]) for side in (0, 1))
    ball = Box(lower - 1e-9, upper + 1e-9)
    values = NETWORK.forward(ball.sample(2000))
    return float(values.min()) - 0.05


def margin(question: VnnlibQuestion, point: tuple[Fraction, ...], group: int) -> Fraction:
    """max_j c_j·F + E_j·x + d_j over the group's rows, exactly."""
    both = [*forward(NETWORK, point), *point]
    rows, constants = question.asked.objective.rows, question.asked.objective.constants
    shift = np.zeros(len(rows)) if constants is None else constants
    return max(
        sum((Fraction(float(c)) * v for c, v in zip(rows[j], both, strict=True)), Fraction(float(shift[j])))
        for j in np.flatnonzero(question.groups == group)
    )


@pytest.fixture
def written(tmp_path: Path) -> tuple[VnnlibQuestion, Network, Path]:
    question = asked(safe_level())
    network = asked_network(NETWORK, question)
    proof = write_proof(tmp_path / "p.npz", network, question.box, question.asked)
    assert proof.positive
    return question, network, tmp_path / "p.npz"


def test_claims_hold_on_all_of_the_rational_box(written: tuple[VnnlibQuestion, Network, Path]) -> None:
    question, network, path = written
    checked = check_proof(path, network)
    assert checked.positive
    checked.require(input_set=question.box, question=question.asked)
    box = checked.ball
    assert type(box) is Box
    for (low, high), lower, upper in zip(ENDS, box.lower.tolist(), box.upper.tolist(), strict=True):
        assert Fraction(lower) <= low <= high <= Fraction(upper)
        assert np.nextafter(lower, np.inf) > low  # and no float more
        assert np.nextafter(upper, -np.inf) < high
    thirds = [[low + (high - low) * share / 3 for share in range(4)] for low, high in ENDS]
    for point, (group, claim) in itertools.product(itertools.product(*thirds), checked.claims.items()):
        assert Fraction(claim) <= margin(question, point, group)
    query = parse_vnnlib(DECLARED + BOX + unsafe(safe_level()))
    assert verify_query(NETWORK, query, timeout=30).status == "unsat"


def test_a_file_is_the_one_of_the_float_box(written: tuple[VnnlibQuestion, Network, Path], tmp_path: Path) -> None:
    question, network, path = written
    around = Box(question.box.lower, question.box.upper)
    write_proof(tmp_path / "q.npz", network, around, question.asked)
    with np.load(path) as own, np.load(tmp_path / "q.npz") as other:
        assert set(own.files) == set(other.files)
        assert json.loads(str(own["header"])) == json.loads(str(other["header"]))
        for name in own.files:
            np.testing.assert_array_equal(own[name], other[name])


def test_a_question_that_does_not_hold_is_not_positive(tmp_path: Path) -> None:
    question = asked(safe_level() + 100.0)
    network = asked_network(NETWORK, question)
    assert not write_proof(tmp_path / "p.npz", network, question.box, question.asked).positive
    assert not check_proof(tmp_path / "p.npz", network).positive


def moved(end: str, to: Any) -> Any:
    """Another box in the file, with the digest that it has."""

    def change(content: dict[str, Any]) -> None:
        content[f"set.{end}"] = to(content[f"set.{end}"])
        header = json.loads(str(content["header"]))
        header["ball"] = Box(content["set.lower"], content["set.upper"]).digest
        content["header"] = np.array(json.dumps(header))

    return change


def tampered(path: Path, change: Any) -> Path:
    with np.load(path) as archive:
        content = dict(archive)
    change(content)
    np.savez(path.with_name("t.npz"), **content)
    return path.with_name("t.npz")


@pytest.mark.parametrize("end", ["lower", "upper"])
def test_a_box_without_the_ends_is_not_the_questions(end: str, written: tuple[VnnlibQuestion, Network, Path]) -> None:
    """One float less at one end is true and no proof of the question; ends without their digest are rejected at once,
    and a wider box is not what was proven."""
    question, network, path = written
    inward = np.inf if end == "lower" else -np.inf
    less = tampered(path, moved(end, lambda ends: np.append(np.nextafter(ends[:1], inward), ends[1:])))
    checked = check_proof(less, network)
    with pytest.raises(RejectedProofError, match="does not hold all of the one asked about"):
        checked.require(input_set=question.box)
    with pytest.raises(RejectedProofError, match="another digest"):
        check_proof(
            tampered(
                path, lambda content: content.update({f"set.{end}": content[f"set.{end}"] - 0.01 * np.sign(inward)})
            ),
            network,
        )
    with pytest.raises(RejectedProofError, match=r"not proven|does not reach"):
        check_proof(tampered(path, moved(end, lambda ends: ends - np.sign(inward) * 5.0)), network)


def test_other_sets_and_questions_are_not_the_proofs(
    written: tuple[VnnlibQuestion, Network, Path], tmp_path: Path
) -> None:
    question, network, path = written
    checked, tenth = check_proof(path, network), Fraction(1, 10)
    inner = RationalBox((tenth * 2, tenth * 4, tenth), (tenth * 2, tenth * 5, tenth))
    checked.require(input_set=inner)  # what holds on a box holds inside it
    checked.require(input_set=LinfBall([0.2, 0.5, 0.1], 0.0))
    for other in (
        RationalBox((tenth, tenth, tenth), (tenth, tenth * 5, tenth)),
        RationalBox((tenth,), (tenth,)),
        LinfBall([0.2, 0.5, 0.1], 1e-9),
    ):
        with pytest.raises(RejectedProofError, match="does not hold all"):
            checked.require(input_set=other)
    rows, constants = question.asked.objective.rows, question.asked.objective.constants
    assert constants is not None
    for asked_other in (
        Property.of(rows, constants - 1e-9, question.groups),
        Property.of(rows, constants),
        Property.of(-rows, constants, question.groups),
    ):
        with pytest.raises(RejectedProofError, match="another question"):
            checked.require(question=asked_other)
    ball = LinfBall([0.2, 0.5, 0.1], 0.01, (0.0, 1.0))
    write_proof(tmp_path / "ball.npz", network, ball, question.asked)
    of_ball = check_proof(tmp_path / "ball.npz", network)
    of_ball.require(input_set=ball)  # its hull is rounded outward, itself it is all the same
    with pytest.raises(RejectedProofError, match="does not hold all"):
        of_ball.require(input_set=Box(ball.lower, ball.upper))


def test_what_is_no_set_and_no_question_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    network, ball = random_dense_network(rng, (2, 3, 2)), LinfBall([0.0, 0.0], 0.01)
    write_proof(tmp_path / "p.npz", network, ball, int(network.predict(ball.center)))
    checked = check_proof(tmp_path / "p.npz", network)
    for wrong in ("x", np.zeros(2), 3):
        with pytest.raises(ValueError, match="input_set must be"):
            checked.require(input_set=wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="question must be"):
            checked.require(question=wrong)  # type: ignore[arg-type]
