"""Upper bounds by replay: against rational arithmetic, at every scale and at ties; witnesses must lie in the ball."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import Dense, Sparse
from toolkit.networks.network import Network
from toolkit.networks.replay import exact_margins, replay_margins, replay_pairwise
from toolkit.problems.answers import Bound, Verdict
from toolkit.problems.input_sets import LinfBall
from toolkit.rungs.rung import Rung, Side, each_row
from toolkit.verify.ladder import certify
from toolkit.verify.margins import margin_problem

scales = st.integers(-12, 12).map(lambda k: 10.0**k)


def rational_margins(network: Network, rows: np.ndarray, point: np.ndarray) -> list[Fraction]:
    """rows·F(point) in fractions, written independently of the module."""
    y = [Fraction(float(value)) for value in point]
    for k, layer in enumerate(network.layers):
        y = [max(value, Fraction(0)) for value in y] if k else y
        weight, bias = layer.to_sparse().toarray(), np.asarray(layer.bias_vector)
        y = [
            sum((Fraction(float(w)) * v for w, v in zip(row, y, strict=True) if w), Fraction(float(b)))
            for row, b in zip(weight, bias, strict=True)
        ]
    return [sum((Fraction(float(w)) * v for w, v in zip(row, y, strict=True)), Fraction(0)) for row in rows]


@st.composite
def replays(draw: st.DrawFn) -> tuple[Network, np.ndarray, np.ndarray]:
    """A network whose layers have scales of their own, rows and points; often with values that cancel."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    layers = []
    for n, m in itertools.pairwise(sizes):
        weight, bias = rng.normal(size=(m, n)), rng.normal(size=m)
        if draw(st.booleans()):
            weight, bias = np.round(2 * weight), np.round(2 * bias)
        shift = draw(st.sampled_from([0.0, 1e16, 2.0**53]))
        layers.append(Dense(weight * draw(scales), (bias + shift) * draw(scales)))
    return Network(layers), rng.normal(size=(2, sizes[-1])), rng.normal(size=(3, sizes[0])) * draw(scales)


@given(replays())
def test_upper_bounds_hold_and_have_the_true_sign(case: tuple[Network, np.ndarray, np.ndarray]) -> None:
    network, rows, points = case
    values, upper = replay_margins(network, rows, points)
    np.testing.assert_allclose(values, network.forward(points) @ rows.T, rtol=1e-12, atol=0)
    for k, point in enumerate(points):
        truth = rational_margins(network, rows, point)
        assert truth == exact_margins(network, rows, point)
        for exact, bound in zip(truth, upper[k].tolist(), strict=True):
            assert bound == np.inf or Fraction(bound) >= exact
            assert (bound <= 0) == (exact <= 0)
    _, own = replay_pairwise(network, rows, points[:2])
    np.testing.assert_array_equal(own, [upper[0, 0], upper[1, 1]])


@pytest.mark.parametrize("terms", [3, 1000, 30_000])
def test_sums_that_cancel_are_charged_by_their_length(terms: int) -> None:
    """2⁵³ + 1 + 1 + … − 2⁵³ in float64 loses up to every 1: the value may be 0 where the truth is `terms` − 2."""
    weight = np.ones((1, terms))
    weight[0, 0], weight[0, -1] = 2.0**53, -(2.0**53)
    network = Network([Dense(weight)])
    for row in (1.0, -1.0):
        _, upper = replay_margins(network, [[row]], np.ones(terms))
        assert upper[0, 0] >= row * (terms - 2)
        assert (upper[0, 0] <= 0) == (row * (terms - 2) <= 0)


def test_a_value_without_a_float_is_still_decided() -> None:
    """Hidden values overflow float64 (1e400) though the margin does not: only integers can tell."""
    network = Network([Dense([[1e200]]), Dense([[1e200], [-1e200]]), Dense([[1e-300, 0.0]], [-1e99])])
    for factor, wrong in ((1.0, False), (0.05, True)):
        _, upper = replay_margins(network, [[1.0]], [factor])
        assert (upper[0, 0] <= 0) == wrong


def test_maps_with_an_error_of_their_own_are_charged_for_it() -> None:
    """F = x − 1e-3 within 1e-3·|x| + 1e-4: at x = 1e-3 the float margin is 0, and no proof of anything."""
    layer = Dense([[1.0]], [-1e-3])
    network = Network([layer])
    assert replay_margins(network, [[1.0]], [[1e-3]])[1][0, 0] == 0.0
    loose = layer.with_error(np.array([1e-3]), 1e-4)
    upper = replay_margins(Network([loose]), [[1.0]], [[1e-3]])[1][0, 0]
    assert 1e-4 + 1e-6 <= upper <= 1.1e-4 + 1e-5
    deeper = Network([loose, Dense([[5.0]], [0.0])])
    assert replay_margins(deeper, [[1.0]], [[2e-3]])[1][0, 0] >= 5 * (1e-3 + 2e-6 + 1e-4)


def test_convolutions_and_sparse_rows() -> None:
    rng = np.random.default_rng(0)
    conv = Conv2d(rng.normal(size=(2, 1, 2, 2)), rng.normal(size=2), (1, 4, 4))
    network = Network([conv, Sparse(sp.random_array((3, 18), density=0.4, rng=rng), rng.normal(size=3))])
    rows, point = sp.csr_array(np.array([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]])), rng.uniform(size=16)
    values, upper = replay_margins(network, rows, point)
    for exact, value, bound in zip(rational_margins(network, rows.toarray(), point), values[0], upper[0], strict=True):
        assert exact <= bound <= value + 1e-9


class TestWitnesses:
    """A rung's point counts only where it lies in the true ball."""

    network = Network([Dense([[1.0], [-1.0]], [-1.0, 1.0]), Dense([[-1.0, 0.0], [0.0, 0.0]], [2.0e-16, 0.0])])
    ball = LinfBall([1.0], 1.2e-16)  # 1 + 2⁻⁵² is the next float, outside; F0 − F1 = 2e-16 − max(x − 1, 0)

    def test_the_float_end_of_the_ball_is_no_witness(self) -> None:
        assert not self.ball.contains([1 + 2.0**-52])
        assert self.ball.upper[0] == 1 + 2.0**-52  # bounds must still hold there
        assert certify(self.network, self.ball, 0).verdict is not Verdict.NO

    def test_a_rung_that_offers_it_is_not_believed(self) -> None:
        outside = np.array([1 + 2.0**-52])
        offered = Bound(-np.inf, -1.0, witness=outside)
        liar = Rung("liar", Side.UPPER, "", "", each_row(lambda problem: [offered for _ in problem.rows]))
        (bound,) = liar(margin_problem(self.network, self.ball, 0))
        assert (bound.upper, bound.certified_upper, bound.witness) == (np.inf, np.inf, None)

    def test_a_point_of_the_ball_proves_what_it_shows(self) -> None:
        wide = LinfBall([1.0], 0.5)
        offered = Bound(-np.inf, witness=np.array([1.5]))
        found = Rung("found", Side.UPPER, "", "", each_row(lambda problem: [offered for _ in problem.rows]))
        (bound,) = found(replace(margin_problem(self.network, wide, 0)))
        assert -0.5 <= bound.certified_upper < -0.4
