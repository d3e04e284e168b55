"""What a rung may say on its own authority: nothing that a verdict rests on, unless it claims to certify, or shows a
point."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest

from toolkit.balls import LinfBall
from toolkit.certify import certify
from toolkit.layer_bounds import layer_bounds
from toolkit.layers import Dense
from toolkit.margins import margin_problem
from toolkit.network import Network
from toolkit.problem import Bound, Rung, Settings, Side, Status, Verdict
from toolkit.rungs import RUNGS

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
    liar = Rung("liar", side, "", "", run=lambda problem: [LIES[lie]() for _ in problem.rows])
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
    layers = [
        Dense(1e150 * rng.normal(size=(m, n)), 1e100 * rng.normal(size=m)) for n, m in ((3, 4), (4, 4), (4, 3))
    ]
    network, ball = Network(layers), LinfBall(0.3 * rng.normal(size=3), 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        bounds = layer_bounds(network, ball)
        for bound in RUNGS[name](margin_problem(network, ball, 0, bounds, settings=Settings(time_limit=1.0))):
            assert not np.isnan([bound.lower, bound.upper]).any()
            assert bound.certified_lower <= bound.certified_upper
