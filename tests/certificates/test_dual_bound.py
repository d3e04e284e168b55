"""Certified bounds: below the exact values of rational arithmetic, and by no more than rounding."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from conftest import random_dense_network
from hypothesis import given
from structures import Case, cases

from toolkit.certificates.dual_bound import certified_bounds, certify_multipliers, linear_forms
from toolkit.certificates.rounding import error_model_of, float32_error
from toolkit.networks.float_error import gamma, norm, row_norms
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.answers import Verdict
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.rungs import RUNGS, get_rung
from toolkit.solvers.highs import HighsSession
from toolkit.solvers.registry import SOLVERS
from toolkit.verify.ladder import certify
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem
from toolkit.verify.radius import certified_radius

HIGHS = Settings(solver="highs")
CLOSED_FORMS = ("interval", "dual", "crown", "alpha")
CERTIFYING = [name for name, rung in RUNGS.items() if rung.certifies]


def exact_forward(network: Network, point: np.ndarray) -> list[Fraction]:
    """F(x) of the float network at a float point, in rational arithmetic."""
    values = [Fraction(float(v)) for v in point]
    for k, layer in enumerate(network.layers):
        weight, bias = layer.to_sparse().toarray(), layer.bias_vector
        if k:
            values = [max(v, Fraction(0)) for v in values]
        values = [
            sum((Fraction(float(w)) * v for w, v in zip(row, values, strict=True) if w), Fraction(float(b)))
            for row, b in zip(weight, bias, strict=True)
        ]
    return values


def problem_of(case: Case) -> Problem:
    return margin_problem(case.network, case.ball, 0, settings=HIGHS)


@given(case=cases())
def test_certified_bounds_lie_below_exact_values(case: Case) -> None:
    problem = problem_of(case)
    corners = problem.input_set.argmin_linear(np.random.default_rng(case.seed).normal(size=(4, problem.input_set.size)))
    outputs = [exact_forward(problem.network, x) for x in corners]
    least = [min(out[0] - out[t] for out in outputs) for t in (1, 2)]
    for name in CERTIFYING if case.tame else CLOSED_FORMS:
        for bound, value in zip(get_rung(name)(problem), least, strict=True):
            assert np.isfinite(bound.certified_lower)
            assert Fraction(bound.certified_lower) <= value, name
            if case.tame:
                assert bound.certified_lower >= bound.lower - 1e-8 * (1 + abs(bound.lower)), name


@given(case=cases(1))
def test_any_multipliers_are_sound(case: Case) -> None:
    """Made-up, huge, infinite or absent multipliers only loosen the bound."""
    problem = problem_of(case)
    (truth, _) = get_rung("bab")(problem)
    rng = np.random.default_rng(case.seed)
    count = error_model_of(problem).count
    for scale in (0.0, 1e-300, 1.0, 1e8, 1e200, 1e308):
        made_up = rng.uniform(-1, 1, size=count) * scale
        assert certify_multipliers(problem, 0, made_up) <= truth.upper
        if count:
            made_up[rng.integers(count)] = rng.choice([np.nan, np.inf, -np.inf])
        assert certify_multipliers(problem, 0, made_up) <= truth.upper


@given(case=cases())
def test_products_of_weights_are_within_their_error_bound(case: Case) -> None:
    """x̂ = w·v + b ± δ at points of the ball, evaluated in rational arithmetic on the float network."""
    problem = problem_of(case)
    region = error_model_of(problem)
    if not region.count:
        return
    neurons = np.arange(region.count)
    weight, bias, slack = linear_forms(region, neurons)
    alive = [(k, int(i)) for k, own in enumerate(region.unstable) for i in own]
    original = [np.flatnonzero(~problem.relu_bounds.inactive(k)) for k in range(len(problem.relu_bounds))]
    x = problem.input_set.sample(1, case.seed)[0]
    inputs = [Fraction(float(v)) for v in x]
    exact = [exact_forward(problem.network.cut(k), x) for k in range(len(problem.relu_bounds))]
    hats = [exact[k][int(original[k][i])] for k, i in alive]
    values = inputs + [max(v, Fraction(0)) for v in hats]
    assert not case.tame or slack.max() <= 1e-9
    for i in neurons:
        form = sum((Fraction(float(w)) * v for w, v in zip(weight[i], values, strict=True) if w), Fraction(bias[i]))
        assert abs(form - hats[i]) <= Fraction(slack[i])


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1.0, 1e30, 1e120])
def test_huge_and_tiny_weights_keep_sound_bounds(scale: float) -> None:
    rng = np.random.default_rng(2)
    first, second = random_dense_network(rng, (3, 6, 2)).layers
    network = Network([Dense(first.weight * scale, first.bias * scale), Dense(second.weight, second.bias * scale)])
    ball = LinfBall(rng.normal(size=3), 0.3)
    problem = margin_problem(network, ball, 0, settings=HIGHS)
    least = min((lambda out: out[0] - out[1])(exact_forward(network, x)) for x in ball.corners())
    for name in ("interval", "dual", "crown", *(["lp"] if scale <= 1 else [])):  # HiGHS takes 1e20 for infinity
        (bound,) = get_rung(name)(problem)
        assert Fraction(bound.certified_lower) <= least
        assert bound.certified_lower > -np.inf


def test_weights_beyond_float64_prove_nothing() -> None:
    network = Network([Dense(np.full((2, 2), 1e300)), Dense(np.array([[1e300, -1e300], [0.0, 1.0]]))])
    ball = LinfBall(np.zeros(2), 1.0)
    with np.errstate(all="ignore"):
        bounds = layer_bounds(network, ball)
        problem = Problem.of(network, ball, np.array([[1.0, -1.0]]), bounds)
        found = certified_bounds(error_model_of(problem), problem.rows, np.zeros((1, error_model_of(problem).count)))
    assert found[0] == -np.inf


def test_norms_are_not_below_the_true_ones() -> None:
    rng = np.random.default_rng(0)
    for scale in (1e-200, 1e-3, 1e200):
        values = rng.normal(size=50) * scale
        exact = sum((Fraction(float(v)) ** 2 for v in values), Fraction(0))
        assert Fraction(norm(values)) ** 2 >= exact
    rows = rng.normal(size=(3, 40))
    for row, found in zip(rows, row_norms(rows), strict=True):
        assert Fraction(found) ** 2 >= sum((Fraction(float(v)) ** 2 for v in row), Fraction(0))
    with pytest.raises(ValueError, match="too long for an error bound"):
        gamma(2**53)


def test_float32_inference_stays_within_its_margin() -> None:
    rng = np.random.default_rng(1)
    network = random_dense_network(rng, (20, 40, 30, 5))
    ball = LinfBall(rng.uniform(0, 1, 20), 0.1, (0, 1))
    bounds = layer_bounds(network, ball)
    margin, looser = float32_error(network.layers, ball, bounds), float32_error(network.layers, ball)
    assert np.all(margin <= looser)
    assert np.all(margin < 1e-3)
    for x in ball.sample(20):
        y = x.astype(np.float32)
        for k, layer in enumerate(network.layers):
            y = (np.maximum(y, 0) if k else y) @ layer.weight.T.astype(np.float32) + layer.bias.astype(np.float32)
        error = np.abs(y.astype(np.float64) - network.forward(x))
        assert np.all(error <= margin)
        assert error.max() > 0


def small_problem() -> Problem:
    network, ball = random_dense_network(np.random.default_rng(1), (4, 8, 7, 3)), LinfBall(np.full(4, 0.5), 0.2)
    return margin_problem(network, ball, 0, settings=HIGHS)


def test_yes_is_certified_and_a_solvers_word_alone_is_refused() -> None:
    decided = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        network = random_dense_network(rng, (6, 16, 16, 3))
        center = rng.normal(size=6)
        label = int(network.predict(center))
        eps = 1.02 * certified_radius(network, center, label, ("dual", "lp"), tolerance=1e-3).certified
        answer = certify(network, LinfBall(center, eps), label)
        assert answer.certified == (answer.verdict is Verdict.YES)
        trusting = Settings("highs", rigorous=False)
        word = certify(network, LinfBall(center, eps), label, ("exact",), tighten=("lp",), settings=trusting)
        refused = certify(
            network,
            LinfBall(center, eps),
            label,
            ("exact",),
            tighten=("lp",),
            settings=Settings("highs", rigorous=True),
        )
        assert word.verdict == answer.verdict
        assert refused.verdict in (answer.verdict, Verdict.MAYBE)
        assert refused.certified or refused.verdict is not Verdict.YES
        decided += answer.verdict is Verdict.YES and not word.certified
    assert decided > 0


def test_a_solver_without_duals_leaves_the_dual_rungs_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the LP's optimum is a mere word: neither side that is handed out as proven takes it."""
    solve = HighsSession._solve
    monkeypatch.setattr(HighsSession, "_solve", lambda self, *args: replace(solve(self, *args), duals=None))
    problem = small_problem()
    word = get_rung("lp")(problem.with_settings(Settings(solver="highs")))
    for lp, dual in zip(word, get_rung("dual")(problem), strict=True):
        assert lp.certified_lower == pytest.approx(dual.certified_lower, abs=1e-9)
        assert lp.lower == lp.certified_lower


@pytest.mark.parametrize("solver", ["gurobi", "scip"])
def test_every_solvers_duals_certify_its_lp(solver: str) -> None:
    if not SOLVERS[solver].status().usable:
        pytest.skip(SOLVERS[solver].status().reason)
    problem = small_problem()
    for own, highs in zip(
        get_rung("lp")(problem.with_settings(Settings(solver=solver))),
        get_rung("lp")(problem.with_settings(Settings(solver="highs"))),
        strict=True,
    ):
        assert own.solver == solver
        assert own.certified_lower == pytest.approx(highs.certified_lower, rel=1e-6, abs=1e-6)
