"""verify: queries about networks that were read without their last operator, and about machine numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toolkit import Dense, Network, check_proof, write_proof
from toolkit.problems.vnnlib_reader import VnnlibQuery, parse_vnnlib
from toolkit.verify.queries import asked_network, fitting_questions, verify_query

SOFTMAX = Network([Dense(np.eye(2), [-10.0, -10.0])], metadata={"dropped": "the final Softmax"})
BOX = "(assert (>= X_0 0))(assert (<= X_0 1))(assert (>= X_1 0))(assert (<= X_1 1))"


def query(text: str) -> VnnlibQuery:
    declared = "".join(f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1"))
    return parse_vnnlib(declared + BOX + text)


@pytest.mark.parametrize(
    "row", ["(>= Y_0 X_0)", "(<= Y_0 X_0)", "(>= Y_0 (+ Y_1 X_0))", "(>= (+ Y_0 X_0) (+ Y_1 X_1))"]
)
def test_rows_of_inputs_and_outputs_are_refused(row: str, tmp_path: Path) -> None:
    asked = query(f"(assert {row})")
    with pytest.raises(ValueError, match="was read without the final Softmax"):
        verify_query(SOFTMAX, asked, timeout=10)
    question = fitting_questions(SOFTMAX, asked)[0]
    network = asked_network(SOFTMAX, question)
    with pytest.raises(ValueError, match="was read without the final Softmax"):
        write_proof(tmp_path / "proof.npz", network, question.box, question.asked)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("(assert (<= (+ X_0 X_1) 1))(assert (>= Y_0 Y_1))", "sat"),
        ("(assert (<= (+ X_0 X_1) 0.5))(assert (>= (- X_0 X_1) 0.75))", "unsat"),
        ("(assert (>= X_1 (+ X_0 0.5)))(assert (>= Y_0 Y_1))", "unsat"),
        ("(assert (<= (+ X_0 X_1) 1))", "sat"),
    ],
)
def test_rows_of_either_are_answered(text: str, status: str) -> None:
    found = verify_query(SOFTMAX, query(text), timeout=30)
    assert (found.status, found.certified) == (status, True)
    assert ("Y are the outputs without the final Softmax" in found.message) == (status == "sat")


def test_a_proof_of_a_query_with_rows_of_either(tmp_path: Path) -> None:
    question = fitting_questions(SOFTMAX, query("(assert (>= X_1 (+ X_0 0.5)))(assert (>= Y_0 Y_1))"))[0]
    network = asked_network(SOFTMAX, question)
    assert write_proof(tmp_path / "proof.npz", network, question.box, question.asked).positive
    assert check_proof(tmp_path / "proof.npz", network).positive


def test_machine_numbers_are_taken_as_reals_only_where_asked() -> None:
    text = "(vnnlib-version <2.0>)(declare-network f (declare-input X float32 [2])(declare-output Y Real [2]))"
    bounds = "(>= X[0] 0)(<= X[0] 1)(>= X[1] 0)(<= X[1] 1)"
    asked = parse_vnnlib(f"{text}(assert (and {bounds}(>= Y[0] 2)))")
    network = Network([Dense(np.eye(2))])
    with pytest.raises(ValueError, match=r"the query is about float32, .* or say as_real"):
        verify_query(network, asked, timeout=10)
    assert verify_query(network, asked, timeout=10, as_real=True).status == "unsat"
    with pytest.raises(ValueError, match="as_real must be True or False, got 1"):
        verify_query(network, asked, timeout=10, as_real=1)  # type: ignore[arg-type]
