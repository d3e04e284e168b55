"""What a rung may say on its own authority: nothing that a verdict rests on, unless it claims to certify, or shows a
point."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import random_dense_network
from solver_models import CLAIMED, ClaimingSession

from toolkit.certificates.check import check_proof
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.answers import Bound, Status, Verdict
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.rungs import RUNGS
from toolkit.rungs.rung import Rung, Side, each_row
from toolkit.solvers.registry import SOLVERS
from toolkit.solvers.solve_report import SolveReport
from toolkit.verify.ladder import certify
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem, margins
from toolkit.verify.prove import write_proof

NETWORK = Network([Dense(np.array([[1.0], [0.0]]), np.zeros(2))])  # F₀ − F₁ = x
BALL = LinfBall([0.5], 1.0)  # −1/2 at worst, 1/2 at the centre

LIES: dict[str, Callable[[], Bound]] = {
    "certified": lambda: Bound(0.1, certified_lower=0.1),
    "certified, though failed": lambda: Bound(0.1, certified_lower=0.1, status=Status.FAILED),
    "upper without a point": lambda: Bound(-9.0, -5.0, certified_upper=-5.0),
    "upper at a point outside": lambda: Bound(-9.0, -5.0, certified_upper=-5.0, witness=np.array([9.0])),
    "upper at another point": lambda: Bound(-9.0, -5.0, certified_upper=-5.0, witness=np.array([1.0])),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("side", list(Side))
def test_a_rung_that_does_not_certify_proves_nothing_but_points(
    lie: str, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar = Rung("liar", side, "", "", run=each_row(lambda problem: [LIES[lie]() for _ in problem.rows]))
    monkeypatch.setitem(RUNGS, "liar", liar)
    (bound,) = liar(margin_problem(NETWORK, BALL, 0))
    assert bound.certified_lower == -np.inf
    assert bound.certified_upper >= 0.5 - 1e-9
    assert bound.upper >= 0.5 - 1e-9
    answer = certify(NETWORK, BALL, 0, ("liar",))  # an exact rung's word makes it ask bab, which finds the truth
    assert answer.verdict is (Verdict.NO if "bab" in answer.rung_seconds else Verdict.MAYBE)


@pytest.mark.parametrize("name", list(RUNGS))
def test_weights_past_what_float64_holds_are_no_reason_to_warn(name: str) -> None:
    """Sums of 1e308 and more overflow; every rung says −∞ or fails by name, without numpy's word about it."""
    rng = np.random.default_rng(0)
    layers = [Dense(1e150 * rng.normal(size=(m, n)), 1e100 * rng.normal(size=m)) for n, m in ((3, 4), (4, 4), (4, 3))]
    network, ball = Network(layers), LinfBall(0.3 * rng.normal(size=3), 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        bounds = layer_bounds(network, ball)
        for bound in RUNGS[name](margin_problem(network, ball, 0, bounds, settings=Settings(time_limit=1.0))):
            assert not np.isnan([bound.lower, bound.upper]).any()
            assert bound.certified_lower <= bound.certified_upper


@pytest.mark.parametrize("order", [("word", "point"), ("point", "word")])
def test_a_word_that_a_point_refutes_is_neither_shown_nor_counted(
    order: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The word is 0.4; another rung shows a point of the ball with margin 0.11."""
    ball = LinfBall([0.5], 0.4)
    word = Rung("word", Side.EXACT, "", "", run=each_row(lambda problem: [Bound(0.4) for _ in problem.rows]))
    shown = [Bound(-np.inf, 0.11, witness=np.array([0.11]))]
    point = Rung("point", Side.UPPER, "", "", run=each_row(lambda problem: shown))
    monkeypatch.setitem(RUNGS, "word", word)
    monkeypatch.setitem(RUNGS, "point", point)
    known = {"point": point(margin_problem(NETWORK, ball, 0)), "word": [Bound(0.4, target=1)]}
    known = {name: known[name] for name in order}
    answer = certify(NETWORK, ball, 0, ("word",), settings=Settings(rigorous=False), known=known)
    (margin,) = answer.margins
    assert margin.lower <= margin.upper
    assert answer.verdict is Verdict.MAYBE
    assert answer.decided_by == ("",)


def test_neurons_of_any_size_side_by_side_change_no_bound() -> None:
    """Every hidden neuron in a unit of its own, 2⁻⁴⁰ … 2⁴⁰, taken back by the layer after: the same function."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        pairs = [(rng.normal(size=(m, n)), 0.3 * rng.normal(size=m)) for n, m in ((3, 5), (5, 4), (4, 2))]
        plain, scaled = [], []
        taken = np.ones(3)
        for weight, bias in pairs:
            plain.append(Dense(weight, bias))
            unit = 2.0 ** np.round(rng.uniform(-40, 40, size=bias.size)) if bias.size > 2 else np.ones(bias.size)
            scaled.append(Dense(weight * unit[:, None] / taken, bias * unit))
            taken = unit
        ball = LinfBall(rng.normal(size=3), 0.15)
        for name in ("interval", "dual", "crown", "alpha", "lp", "ideal", "bab"):
            one, other = (RUNGS[name](margin_problem(Network(layers), ball, 0))[0] for layers in (plain, scaled))
            np.testing.assert_allclose(other.certified_lower, one.certified_lower, rtol=2e-3, atol=1e-3)
            assert other.status is one.status


def test_a_proof_holds_for_logits_of_any_size(tmp_path: Path) -> None:
    """Margins of 1e-13 and neurons of 1e-12 are proven as those of size 1 are: nothing is loosened by 1e-10 of 1."""
    rng = np.random.default_rng(3)
    weights = [rng.normal(size=(6, 3)), rng.normal(size=(5, 6)), rng.normal(size=(3, 5))]
    biases = [rng.normal(size=6), rng.normal(size=5), rng.normal(size=3)]
    ball = LinfBall(np.zeros(3), 0.02)
    claims = []
    for hidden, logit in ((1.0, 1.0), (2.0**-40, 2.0**-44)):
        factors = zip((hidden, hidden, logit), (1.0, hidden, hidden), (hidden, hidden, logit), strict=True)
        layers = [
            Dense(weight * (out / into), bias * unit)
            for weight, bias, (out, into, unit) in zip(weights, biases, factors, strict=True)
        ]
        network = Network(layers)
        label = int(np.argmax(network.forward(np.zeros(3))))
        proof = write_proof(tmp_path / "proof.npz", network, ball, label)
        assert proof.positive
        assert check_proof(tmp_path / "proof.npz", network).positive
        claims.append(np.array(proof.claims) / logit)
    np.testing.assert_allclose(claims[1], claims[0], rtol=1e-6)


def test_known_bounds_of_another_question_are_refused() -> None:
    """On the ball of radius 0.1 the margin is at least 0.4, which says nothing of radius 1, or of the other class."""
    small = LinfBall([0.5], 0.1)
    known = {"dual": margins(NETWORK, small, 0, "dual")}
    assert certify(NETWORK, small, 0, ("interval",), known=known).decided_by == ("dual",)
    twice = Network([Dense(np.array([[2.0], [0.0]]), np.zeros(2))])
    for network, ball in ((NETWORK, BALL), (twice, small)):
        with pytest.raises(ValueError, match="another network, ball or label"):
            certify(network, ball, 0, ("interval",), known=known)
    other = {"dual": [replace(known["dual"][0], target=0)]}
    with pytest.raises(ValueError, match="another network, ball or label"):
        certify(NETWORK, small, 1, ("interval",), known=other)


@pytest.mark.parametrize("shown", [False, True])
def test_exact_calls_no_open_interval_optimal(shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A solver that says optimal of a bound far below its point's value, or gives no point at all."""
    rng = np.random.default_rng(3)
    network, ball = random_dense_network(rng, (3, 6, 6, 3)), LinfBall(np.full(3, 0.5), 0.3)

    class Claiming(ClaimingSession):
        def _solve(self, cost: np.ndarray, offset: float, settings: Settings) -> SolveReport:
            rows, columns = self.model.matrix.shape
            return SolveReport(Status.OPTIMAL, -1e3, 0.0, np.zeros(columns) if shown else None, np.zeros(rows))

    monkeypatch.setitem(SOLVERS, "claimed", replace(CLAIMED, session=Claiming))
    found = margins(network, ball, 0, "exact", settings=Settings(solver="claimed"))
    assert [bound.status for bound in found] == [Status.COMPUTED] * 2
    for bound in found:
        assert np.isfinite(bound.upper) == shown
        said = "leaves the interval open" if shown else "gives no minimiser"
        assert said in bound.message
