"""ℓ1 and ℓ2 balls cut by a box: minima against exact ones in rational numbers, points inside, nearest points."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from rational import dot, dot_fractions, fractions

from toolkit.networks.float_error import UNIT
from toolkit.problems.input_sets import Ball, L1Ball, L2Ball, make_ball

DOMAINS = [None, (0.0, 1.0), (-np.inf, 0.7), (0.1, np.inf)]


@st.composite
def balls(draw: st.DrawFn) -> L1Ball | L2Ball:
    """Balls of up to six coordinates, cut by a domain or not, of all sizes; coordinates at its ends included."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    center = rng.uniform(0.1, 0.7, draw(st.integers(1, 6)))
    if draw(st.booleans()):
        center[0] = 0.7
    kind = draw(st.sampled_from([L1Ball, L2Ball]))
    return kind(center, draw(st.sampled_from([1e-12, 0.05, 0.3, 0.9, 2.0, 1e6])), draw(st.sampled_from(DOMAINS)))


def random_rows(ball: Ball, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(8, ball.size)) * 10.0 ** rng.integers(-6, 6, (8, 1))
    rows[0] = 0.0
    rows[1, 0] = 0.0
    rows[2] = np.sign(rows[2])  # ties
    return rows


def real_widths(ball: Ball) -> list[tuple[Fraction, Fraction]]:
    """How far each coordinate may move down and up, exactly."""
    eps, found = Fraction(float(ball.eps)), []
    low, high = ball.domain or (-np.inf, np.inf)
    for c in fractions(ball.center):
        down = min(eps, c - Fraction(low)) if np.isfinite(low) else eps
        found.append((down, min(eps, Fraction(high) - c) if np.isfinite(high) else eps))
    return found


def l1_minimum(ball: Ball, row: np.ndarray) -> Fraction:
    """min ν·x̃ over the real ball: ε spent on the largest |ν_j| first."""
    sides = zip(fractions(row), real_widths(ball), strict=True)
    steps = sorted(((abs(v), down if v > 0 else up) for v, (down, up) in sides), reverse=True)
    value, left = dot(row, ball.center), Fraction(float(ball.eps))
    for size, width in steps:
        moved = min(width, left)
        value, left = value - size * moved, left - moved
    return value


def slack(ball: Ball, row: np.ndarray) -> Fraction:
    """What the ledger charges at least: γ_{n+64}·Σ|ν_j| r_j, r the sizes in the hull."""
    sizes = np.maximum(np.abs(ball.lower), np.abs(ball.upper))
    return dot(np.abs(row), sizes) * (ball.size + 64) * Fraction(UNIT)


@given(balls())
def test_ranges_are_outside_the_real_ones_by_no_more_than_the_ledger_charges(ball: L1Ball | L2Ball) -> None:
    rows = random_rows(ball)
    middle, half_width = ball.linear_range(rows)
    sparse = ball.linear_range(sp.csr_array(rows))
    sizes = np.abs(rows) @ np.maximum(np.abs(ball.lower), np.abs(ball.upper))
    assert np.all(np.abs((sparse[0] - sparse[1]) - (middle - half_width)) <= 1e-14 * sizes)
    for row, low, high in zip(rows, middle - half_width, middle + half_width, strict=True):
        if isinstance(ball, L1Ball):
            exact = l1_minimum(ball, row), -l1_minimum(ball, -row)
            assert Fraction(low) <= exact[0] + slack(ball, row)
            assert Fraction(high) >= exact[1] - slack(ball, row)
            assert abs(Fraction(low) - exact[0]) <= 4 * slack(ball, row) + Fraction(1e-12) * abs(exact[0])
        elif ball.domain is None:  # ν·x − low ≥ ε‖ν‖₂, in squares
            fall = dot(row, ball.center) + slack(ball, row) - Fraction(low)
            assert fall >= 0
            assert fall**2 >= Fraction(float(ball.eps)) ** 2 * dot(row, row)
        for point in ball.argmin_linear(np.stack([row, -row])):
            assert Fraction(low) - slack(ball, row) <= dot(row, point) <= Fraction(high) + slack(ball, row)


@given(balls())
def test_minimisers_lie_in_the_real_ball_and_attain_the_minimum(ball: L1Ball | L2Ball) -> None:
    rows = random_rows(ball)
    points, least = ball.argmin_linear(rows), ball.min_linear(rows)
    for row, point, value in zip(rows, points, least, strict=True):
        moves = [Fraction(p) - c for p, c in zip(point.tolist(), fractions(ball.center), strict=True)]
        power = 1 if isinstance(ball, L1Ball) else 2
        assert sum(abs(move) ** power for move in moves) <= Fraction(float(ball.eps)) ** power
        scale = np.abs(row) @ np.maximum(np.abs(ball.lower), np.abs(ball.upper))
        assert abs(row @ point - value) <= 1e-9 * max(scale, 1e-300)


@given(balls(), st.integers(0, 1000))
def test_any_threshold_gives_a_bound(ball: L1Ball | L2Ball, seed: int) -> None:
    """The claim itself, in rational numbers: for every 0 ≤ q ≤ |ν| the bracket is at least what a point gains."""
    rng = np.random.default_rng(seed)
    row = random_rows(ball, seed)[3]
    q = np.abs(row) * rng.uniform(0, 1, ball.size)
    widths = [down if v > 0 else up for v, (down, up) in zip(row, real_widths(ball), strict=True)]
    rest = dot_fractions(widths, [abs(v) - s for v, s in zip(fractions(row), fractions(q), strict=True)])
    for point in np.vstack([ball.argmin_linear(row), ball.sample(5, seed)]):
        gained = dot(row, ball.center) - dot(row, point) - rest
        if isinstance(ball, L1Ball):
            assert gained <= Fraction(float(ball.eps)) * max(fractions(q))
        else:
            assert gained <= 0 or gained**2 <= Fraction(float(ball.eps)) ** 2 * dot(q, q)


@given(balls())
def test_projections_are_nearest(ball: L1Ball | L2Ball) -> None:
    rng = np.random.default_rng(2)
    outside = ball.center + float(ball.eps) * rng.normal(0, 2, (5, ball.size))
    nearest, others = ball.project(outside), np.vstack([ball.sample(100, seed=4), ball.corners(20, seed=4)])
    assert all(ball.contains(point) for point in nearest)
    np.testing.assert_array_equal(ball.project(nearest), nearest)
    for point, closest in zip(outside, nearest, strict=True):
        # the projection's variational inequality: (p − x)·(z − x) ≤ 0 for every z of the set
        assert np.max((others - closest) @ (point - closest)) <= 1e-9 * max(1e-12, float(ball.eps)) ** 2 + 1e-25


def test_containment_is_exact_where_floats_leave_it_open() -> None:
    for kind in (L1Ball, L2Ball):
        ball = kind([0.1, 0.2, 0.3], 0.5, (0.0, 1.0))
        inside = outside = 0
        for k in range(60):
            point = ball.argmin_linear(np.random.default_rng(k).normal(size=3))[0]
            for step in (0, 16, 20, 24, 28, 32, 60, 200):
                near = point + (point - ball.center) * step * UNIT
                moves = [Fraction(p) - c for p, c in zip(near.tolist(), fractions(ball.center), strict=True)]
                power = 1 if kind is L1Ball else 2
                real = sum(abs(m) ** power for m in moves) <= Fraction(0.5) ** power
                real &= bool(np.all((near >= 0) & (near <= 1)))
                assert ball.contains(near) == real
                inside, outside = inside + real, outside + (not real)
        assert inside > 60
        assert outside > 0


def test_corners_of_a_ball_need_a_count_and_radii_are_one_number() -> None:
    with pytest.raises(ValueError, match="give count"):
        L2Ball([0.5], 0.1).corners()
    with pytest.raises(ValueError, match=r"eps must be one number.*LinfBall"):
        L1Ball([0.5, 0.5], np.array([0.1, 0.2]))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="norm must be one of linf, l1, l2, got 'l3'"):
        make_ball("l3", [0.5], 0.1)
    with pytest.raises(ValueError, match=r"domain \[0.0, 1.0\], got 3.0"):
        L2Ball([3.0], 0.1, (0, 1))


@pytest.mark.parametrize("scale", [1e-250, 1e-8, 1e8, 1e250])
def test_no_size_of_rows_or_radius_overflows_or_vanishes(scale: float) -> None:
    rows = np.array([[3.0, -4.0], [0.0, 1.0]])
    expected = {L1Ball: [4.0, 1.0], L2Ball: [5.0, 1.0]}
    for kind, gains in expected.items():
        for ball, given_rows in ((kind([0.0, 0.0], scale), rows), (kind([0.0, 0.0], 1.0), rows * scale)):
            np.testing.assert_allclose(-ball.min_linear(given_rows), np.array(gains) * scale, rtol=1e-13)
    huge = L2Ball([0.0, 0.0], 1.0).linear_range(np.array([[np.inf, 1.0], [np.nan, 1.0]]))
    assert not np.isfinite(huge[0] - huge[1]).any()


def test_without_a_cut_the_range_is_radius_times_dual_norm() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 30))
    center = np.random.default_rng(1).normal(size=30)
    for kind, order in ((L1Ball, np.inf), (L2Ball, 2)):
        middle, half_width = kind(center, 0.7).linear_range(rows)
        np.testing.assert_allclose(middle, rows @ center)
        np.testing.assert_allclose(half_width, 0.7 * np.linalg.norm(rows, order, axis=1), rtol=1e-12)
        np.testing.assert_allclose(kind(center, 0.7).deviation(np.abs(rows)), half_width, rtol=1e-12)


def test_steepest_leads_to_the_largest_value() -> None:
    rng = np.random.default_rng(0)
    for kind in (L1Ball, L2Ball):
        ball = kind(rng.uniform(size=5), 0.8, (0, 1))
        gradient = rng.normal(size=(5, 3))
        ends = ball.center[:, None] + ball.reach * ball.steepest(gradient)
        np.testing.assert_allclose(np.einsum("ij,ij->j", gradient, ends), -ball.min_linear(-gradient.T), rtol=1e-9)
