"""Rows and labels made by hand: kept as they were given, and refused where a label would claim more than they say."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.answers import Verdict
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.properties import Objective, Property, checked_rows, robustness
from toolkit.verify.ladder import certify

NETWORK = Network([Dense(np.array([[1.0], [0.0], [-1.0]]), np.zeros(3))])  # (x, 0, −x)
BALL = LinfBall([0.5], 0.25)


@pytest.mark.parametrize("make", [np.array, sp.csr_array, sp.csc_array, sp.coo_array], ids=lambda make: make.__name__)
def test_what_becomes_of_the_callers_rows_changes_no_question(make: type) -> None:
    rows = make([[1.0, -1.0, 0.0]])
    question = Property(Objective(rows), np.array([0]))
    values = rows if isinstance(rows, np.ndarray) else rows.data
    values *= -1.0
    assert certify(NETWORK, BALL, question).verdict is Verdict.YES
    kept = question.objective.rows
    for part in (kept,) if isinstance(kept, np.ndarray) else (kept.data, kept.indices, kept.indptr):
        assert not part.flags.writeable


def test_rows_that_nobody_can_write_to_are_not_copied() -> None:
    rows = checked_rows(np.eye(3))
    assert checked_rows(rows) is rows
    assert checked_rows(rows[1:]).base is rows
    own = np.eye(3)
    view = own[1:]
    view.setflags(write=False)
    assert not np.shares_memory(checked_rows(view), own)


def _margins(targets: tuple[int, ...], label: int = 0) -> np.ndarray:
    rows = np.zeros((len(targets), 3))
    rows[:, label] = 1.0
    rows[range(len(targets)), targets] = -1.0
    return rows


def test_a_class_asked_twice_is_not_all_classes() -> None:
    rows = Objective(_margins((1, 1)), None, (1, 1))
    with pytest.raises(ValueError, match="targets must not repeat a class, got 1 twice"):
        Property(rows, np.array([0, 1]), label=0)
    with pytest.raises(ValueError, match="targets must not repeat a class in another group, got 1 in 2 groups"):
        Property(rows, np.array([0, 1]))
    assert Property(rows, np.array([0, 0])).count == 1


@pytest.mark.parametrize(
    ("objective", "groups", "words"),
    [
        (Objective(np.eye(3)[:2]), [0, 1], "every entry of targets must be a whole number, got None"),
        (Objective(np.eye(3)[:2], None, (1, 2)), [0, 1], "rows e_0 − e_target.* got another row for target 1"),
        (Objective(_margins((1, 2)), None, (2, 1)), [0, 1], "got another row for target 2"),
        (Objective(_margins((1, 2)), np.array([0.0, 9.0]), (1, 2)), [0, 1], "got constants or groups"),
        (Objective(_margins((1, 2)), None, (1, 2)), [0, 0], "got constants or groups of several rows"),
        (Objective(_margins((1, 2)), None, (1, 3)), [0, 1], "target must be in 0 … 2"),
    ],
)
def test_a_label_belongs_to_its_own_margins(objective: Objective, groups: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Property(objective, np.array(groups), label=0)
    assert Property(objective, np.array(groups)).label is None


def test_a_label_is_one_of_the_classes() -> None:
    rows = Objective(_margins((1, 2)), None, (1, 2))
    for label in (3, -1, "0", 0.0):
        with pytest.raises(ValueError, match="label must be"):
            Property(rows, np.array([0, 1]), label=label)  # type: ignore[arg-type]
    by_hand = Property(Objective(sp.csr_array(_margins((1, 2))), None, (1, 2)), np.array([0, 1]), label=0)
    answers = [certify(NETWORK, BALL, question) for question in (by_hand, robustness(3, 0), 0)]
    assert {(one.verdict, one.covers_all) for one in answers} == {(Verdict.YES, True)}
