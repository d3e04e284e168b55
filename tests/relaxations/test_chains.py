"""Every rung that bounds from below may tighten layers: every chain, with every rung on the l,u it gives."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import random_dense_network

from toolkit.problems.answers import Status, Verdict
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.rungs import RUNGS, get_rung
from toolkit.rungs.rung import Side
from toolkit.verify.ladder import certify
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margins

BELOW = [name for name, rung in RUNGS.items() if rung.side is not Side.UPPER]
NETWORK = random_dense_network(np.random.default_rng(4), (2, 4, 4, 2))
BALL = LinfBall(np.full(2, 0.4), 0.25)
LABEL = int(NETWORK.predict(BALL.center))


@pytest.mark.parametrize("solver", ["auto", "highs"])
@pytest.mark.parametrize("first", ["interval", "dual"])
@pytest.mark.parametrize("last", BELOW)
def test_any_rung_may_follow_in_a_chain(first: str, last: str, solver: str) -> None:
    """l ≤ x̂ ≤ u at sampled points, no wider than without the last rung, and every rung answers on them."""
    settings = Settings(solver=solver)
    points = np.vstack([BALL.sample(300), BALL.corners()])
    hidden = NETWORK.preactivations(points)
    least = (NETWORK.forward(points) @ np.array([1.0, -1.0]) * (1 if LABEL == 0 else -1)).min()
    before = layer_bounds(NETWORK, BALL, (first,), settings)
    for chain in ((first, last), (first, "crown", last)):
        known = layer_bounds(NETWORK, BALL, chain, settings)
        assert known.chain == chain
        for k in range(len(known)):
            assert np.all(known.lower[k] <= hidden[k].min(axis=0) + 1e-6)
            assert np.all(known.upper[k] >= hidden[k].max(axis=0) - 1e-6)
            assert np.all(known.lower[k] >= before.lower[k] - 1e-9)
            assert np.all(known.upper[k] <= before.upper[k] + 1e-9)
        for name in BELOW:
            (bound,) = margins(NETWORK, BALL, LABEL, name, known, settings=settings)
            assert bound.status is not Status.FAILED
            assert -np.inf < bound.lower <= least + 1e-6


@pytest.mark.parametrize("last", BELOW)
def test_certify_takes_any_chain(last: str) -> None:
    answer = certify(NETWORK, BALL, LABEL, bounds=("interval", "dual", last), tighten=())
    plain = certify(NETWORK, BALL, LABEL)
    sure = RUNGS[last].certifies
    assert answer.verdict is plain.verdict if sure else answer.verdict in (plain.verdict, Verdict.MAYBE)


@pytest.mark.parametrize("name", BELOW)
def test_rows_may_be_sparse_or_dense(name: str) -> None:
    import scipy.sparse as sp

    known = layer_bounds(NETWORK, BALL)
    rows = np.array([[1.0, -1.0], [0.0, 2.0]])
    for given in (rows, sp.csr_array(rows), sp.csc_array(rows)):
        found = get_rung(name)(Problem.of(NETWORK, BALL, given, known))
        dense = get_rung(name)(Problem.of(NETWORK, BALL, rows, known))
        np.testing.assert_allclose([b.lower for b in found], [b.lower for b in dense], rtol=1e-9, atol=1e-9)
