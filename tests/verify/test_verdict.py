"""The verdict rule: one table of cases, and that everybody who gives verdicts follows it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.answers import Bound, Verdict
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.rungs import RUNGS
from toolkit.rungs.rung import Rung, Side, each_row
from toolkit.verify.ladder import certify
from toolkit.verify.verdict import counted_lower, is_safe, is_unsafe, verdict

INF, NAN, TINY = float("inf"), float("nan"), 5e-324
YES, NO, MAYBE = Verdict.YES, Verdict.NO, Verdict.MAYBE


@pytest.mark.parametrize(
    ("lower", "upper", "answer"),
    [
        ([1.0, 2.0], [INF, INF], YES),
        ([TINY, 2.0], [1.0, INF], YES),  # the smallest float above 0 is above 0
        ([0.0, 2.0], [1.0, INF], MAYBE),
        ([-1.0, 2.0], [TINY, INF], MAYBE),
        ([-1.0, 2.0], [0.0, INF], NO),  # a tie counts
        ([-1.0, 2.0], [-0.0, INF], NO),
        ([-INF, 2.0], [INF, -1.0], NO),
        ([2.0, 2.0], [-1.0, 3.0], NO),  # a point that anyone can replay comes first
        ([NAN, 2.0], [NAN, INF], MAYBE),
    ],
)
def test_the_rule(lower: list[float], upper: list[float], answer: Verdict) -> None:
    assert verdict(lower, upper) is answer
    assert verdict(lower[::-1], upper[::-1]) is answer


def test_a_tolerance_raises_the_bar_of_yes_alone() -> None:
    assert verdict([0.5], [1.0], tolerance=0.5) is MAYBE
    assert verdict([0.5], [1.0], tolerance=0.4) is YES
    assert verdict([-1.0], [0.0], tolerance=0.4) is NO


@pytest.mark.parametrize(("lower", "upper"), [([], []), ([1.0], []), ([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]])])
def test_nothing_asked_is_nothing_answered(lower: list[float], upper: list[float]) -> None:
    with pytest.raises(ValueError, match="one lower and one upper bound per target"):
        verdict(lower, upper)


def test_it_reads_columns_as_it_reads_numbers() -> None:
    column = pd.Series([-1.0, 0.0, 1.0, NAN])
    assert is_safe(column).tolist() == [is_safe(value) for value in column]
    assert is_unsafe(column).tolist() == [is_unsafe(value) for value in column] == [True, True, False, False]


def test_answers_are_equal_to_themselves_alone() -> None:
    network = Network([Dense(np.array([[1.0, -1.0], [0.0, 0.0]]), np.zeros(2))])
    one, other = (certify(network, LinfBall([0.5, 0.5], 0.1), 0, ["pgd"]) for _ in range(2))
    assert one.witness is not None
    assert one == one
    assert one != other
    assert [other, one].index(one) == 1
    assert len({one, other, *one.margins, *other.margins}) == 4


def test_only_exact_rungs_have_a_word_and_only_on_request() -> None:
    bound = Bound(lower=1.0, certified_lower=-1.0)
    trust = Settings(rigorous=False)
    for rung in RUNGS.values():
        assert counted_lower(bound, rung, Settings()) == -1.0
        assert counted_lower(bound, rung, trust) == (1.0 if rung.side is Side.EXACT else -1.0)


class TestWords:
    """A MILP solver that states a margin which is false, though no point at hand shows it, and nobody's duals prove."""

    network = Network([Dense([[1.0], [-1.0]]), Dense([[1.0, 1.0], [0.0, 0.0]], [-0.5, 0.0])])  # F0 − F1 = |x| − 0.5
    ball = LinfBall([1.0], 1.0)

    @pytest.fixture(autouse=True)
    def _liar(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stated = Bound(0.3, solver="liar")
        word = Rung("exact", Side.EXACT, "", "", each_row(lambda problem: [stated for _ in problem.rows]))
        monkeypatch.setitem(RUNGS, "exact", word)

    def test_it_is_not_believed(self) -> None:
        answer = certify(self.network, self.ball, 0, ("exact",), settings=Settings(solver="highs"))
        assert answer.verdict is NO  # the certifying rung was asked, and found the point
        assert answer.rung == "bab"
        assert answer.margins[0].certified_upper <= 0

    def test_it_counts_on_request_and_is_told_as_such(self) -> None:
        answer = certify(self.network, self.ball, 0, ("exact",), settings=Settings(solver="highs", rigorous=False))
        assert (answer.verdict, answer.trusts_solver, answer.certified) == (YES, True, False)
        assert "the MILP solver's word" in answer.reason

    def test_what_another_rung_states_does_not_count_even_then(self, monkeypatch: pytest.MonkeyPatch) -> None:
        word = Rung("lipschitz", Side.LOWER, "", "", each_row(lambda problem: [Bound(0.3) for _ in problem.rows]))
        monkeypatch.setitem(RUNGS, "lipschitz", word)
        answer = certify(self.network, self.ball, 0, ("lipschitz",), settings=Settings(rigorous=False))
        assert answer.verdict is MAYBE


def test_known_bounds_settle_what_they_prove_and_the_ladder_the_rest() -> None:
    network = Network([Dense(np.eye(3), np.zeros(3))])
    ball = LinfBall([1.0, 0.0, 0.0], 0.1)
    known = {"lp": [Bound(0.5, target=1, certified_lower=0.5), Bound(-1.0, target=2, certified_lower=-1.0)]}
    answer = certify(network, ball, 0, ("interval",), known=known)
    assert (answer.verdict, answer.decided_by) == (YES, ("lp", "interval"))
    with pytest.raises(ValueError, match="one bound for each of the targets"):
        certify(network, ball, 0, known={"lp": known["lp"][:1]})


def test_a_yes_about_some_classes_says_so() -> None:
    network = Network([Dense(np.array([[1.0, 0], [0, 1], [-1, -1]]))])
    ball = LinfBall([0.55, 0.5], 0.1)
    whole, part = certify(network, ball, 0), certify(network, ball, 0, targets=[2])
    assert (whole.verdict, part.verdict) == (NO, YES)
    assert (whole.covers_all, part.covers_all) == (True, False)
    assert "to class 2 (no other class was asked)" in part.reason


def test_a_maybe_by_rounding_says_so() -> None:
    """F0 − F1 = x ≥ 0.4 on the ball, but beside 1e16 float64 sees 0: neither side may be claimed."""
    answer = certify(Network([Dense([[1.0], [0.0]], [1e16, 1e16])]), LinfBall([0.5], 0.1), 0)
    assert answer.verdict is MAYBE
    assert "rounding can explain it" in answer.reason


@pytest.mark.parametrize(
    ("bound", "answer"),
    [
        (Bound(0.1, target=1, certified_lower=0.1), YES),
        (Bound(0.1, target=1), MAYBE),  # float64's word
        (Bound(0.0, target=1, certified_lower=0.0), MAYBE),
        (Bound(1e-300, target=1, certified_lower=1e-300), YES),
        (Bound(-0.5, -0.5, target=1, certified_upper=-0.5), MAYBE),  # an upper bound without a point
        (Bound(-0.5, -0.5, target=1, witness=np.array([-0.5])), NO),
        (Bound(-9.0, -9.0, target=1, witness=np.array([-9.0])), MAYBE),  # a point outside the ball
        (Bound(-0.5, -0.5, target=1, witness=np.array([0.5])), MAYBE),  # a point that replays to something else
        (Bound(NAN, target=1, certified_lower=NAN), MAYBE),
    ],
)
def test_no_needs_a_point_that_replays_and_yes_what_is_certified(bound: Bound, answer: Verdict) -> None:
    """F₀ − F₁ = x on the ball of radius 1 around 1/2: 1/2 at the centre and −1/2 at worst, which interval sees."""
    network = Network([Dense(np.array([[1.0], [0.0]]), np.zeros(2))])
    found = certify(network, LinfBall([0.5], 1.0), 0, ("interval",), known={"lp": [bound]})
    assert found.verdict is answer
