"""The ball: minima against its corners, nearest points, and what it refuses."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.problems.boxes import rounded_sum
from toolkit.problems.input_set import box_min_linear
from toolkit.problems.input_sets import LinfBall

DOMAINS = [None, (0.0, 1.0), (-np.inf, 0.7)]


@st.composite
def balls(draw: st.DrawFn) -> LinfBall:
    """Balls of up to five coordinates, cut by a domain or not, eps = 0 included."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    eps = draw(st.sampled_from([0.0, 1e-12, 0.05, 0.3, 2.0]))
    return LinfBall(rng.uniform(0, 0.7, draw(st.integers(1, 5))), eps, draw(st.sampled_from(DOMAINS)))


def random_rows(ball: LinfBall, count: int = 6) -> np.ndarray:
    rows = np.random.default_rng(1).normal(size=(count, ball.size))
    rows[0] = 0.0
    rows[1, 0] = 0.0
    return rows


@given(balls())
def test_min_linear_is_the_minimum_over_the_corners(ball: LinfBall) -> None:
    rows = random_rows(ball)
    by_enumeration = (rows @ ball.corners().T).min(axis=1)
    np.testing.assert_allclose(ball.min_linear(rows), by_enumeration, rtol=0, atol=1e-12)


@given(balls())
def test_argmin_lies_in_the_ball_and_attains_the_minimum(ball: LinfBall) -> None:
    rows = random_rows(ball)
    points = ball.argmin_linear(rows)
    assert all(ball.contains(point) for point in points)
    np.testing.assert_allclose(np.sum(rows * points, axis=1), ball.min_linear(rows), rtol=0, atol=1e-12)


@given(balls())
def test_samples_and_corners_lie_in_the_ball(ball: LinfBall) -> None:
    corners = ball.corners()
    assert len(corners) == 2**ball.size
    for points in (ball.sample(40, seed=3), corners, ball.corners(7, seed=3)):
        assert all(ball.contains(point) for point in points)
    assert set(corners.ravel()) <= set(ball.inner_lower) | set(ball.inner_upper)


@given(balls())
def test_ends_are_rounded_outward_for_bounds_and_inward_for_points(ball: LinfBall) -> None:
    """Against rationals: the true end lies between two neighbouring floats, or is one."""
    for i, center in enumerate(ball.center.tolist()):
        low, high = Fraction(center) - Fraction(ball.eps), Fraction(center) + Fraction(ball.eps)
        cuts = [Fraction(end) if np.isfinite(end) else end for end in ball.domain or ()]
        low, high = max([low, *cuts[:1]]), min([high, *cuts[1:]])
        assert Fraction(ball.lower[i]) <= low <= Fraction(ball.inner_lower[i]) <= Fraction(center)
        assert Fraction(center) <= Fraction(ball.inner_upper[i]) <= high <= Fraction(ball.upper[i])
        assert ball.inner_lower[i] in (ball.lower[i], np.nextafter(ball.lower[i], np.inf))
        assert ball.inner_upper[i] in (ball.upper[i], np.nextafter(ball.upper[i], -np.inf))


@pytest.mark.parametrize("towards", [-np.inf, np.inf])
def test_rounded_sums_are_next_to_the_real_sum(towards: float) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=4000) * 10.0 ** rng.integers(-20, 20, 4000)
    for step in (1e-17, 0.1, -3.3, 1e16, 5e-324):
        found = rounded_sum(values, step, towards)
        for value, total in zip(values.tolist(), found.tolist(), strict=True):
            exact, inner = Fraction(value) + Fraction(step), np.nextafter(total, -towards)
            assert Fraction(total) >= exact > Fraction(inner) if towards > 0 else Fraction(total) <= exact < inner


@given(balls())
def test_project_gives_the_nearest_point(ball: LinfBall) -> None:
    outside = np.random.default_rng(2).normal(0, 3, (5, ball.size))
    nearest = ball.project(outside)
    assert all(ball.contains(point) for point in nearest)
    np.testing.assert_array_equal(ball.project(nearest), nearest)
    others = ball.sample(50, seed=4)
    for point, closest in zip(outside, nearest, strict=True):
        distances = np.linalg.norm(others - point, axis=1)
        assert np.linalg.norm(closest - point) <= distances.min() + 1e-12


def test_contains_is_exact_and_widened_by_the_tolerance_only() -> None:
    ball = LinfBall([0.5, 0.95], 0.1, (0.0, 1.0))
    assert ball.contains([0.6, 1.0])
    assert not ball.contains([0.6, 1.0 + 1e-15])  # inside ‖·‖ ≤ eps, outside the domain
    assert not ball.contains([0.6 + 1e-9, 0.95])
    assert ball.contains([0.6 + 1e-9, 1.0 + 1e-9], tolerance=1e-8)
    assert not ball.contains([np.nan, 0.95])


def test_the_domain_cuts_the_box() -> None:
    ball = LinfBall([0.05, 0.5], 0.1, (0.0, 1.0))
    np.testing.assert_allclose(ball.lower, [0.0, 0.4])
    np.testing.assert_allclose(ball.upper, [0.15, 0.6])


def test_same_seed_same_points() -> None:
    ball = LinfBall(np.full(30, 0.5), 0.1)
    np.testing.assert_array_equal(ball.sample(4, seed=7), ball.sample(4, seed=7))
    assert not np.array_equal(ball.sample(4, seed=7), ball.sample(4, seed=8))
    np.testing.assert_array_equal(ball.corners(4, seed=7), ball.corners(4, seed=7))


def test_the_center_is_a_copy_that_cannot_be_written() -> None:
    image = np.full((1, 2, 2), 0.5)
    ball = LinfBall(image, 0.1)
    image[:] = 9.0
    np.testing.assert_array_equal(ball.center, np.full(4, 0.5))
    with pytest.raises(ValueError, match="read-only"):
        ball.center[0] = 1.0


def test_box_min_linear_agrees_on_numpy_sparse_and_torch_with_batches() -> None:
    torch = pytest.importorskip("torch")
    sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(0)
    lower = rng.normal(size=(3, 4))
    upper = lower + rng.uniform(0, 1, (3, 4))
    rows = rng.normal(size=(3, 2, 4))
    expected = np.minimum(rows * lower[:, None], rows * upper[:, None]).sum(axis=-1)
    np.testing.assert_allclose(box_min_linear(rows, lower, upper), expected, atol=1e-12)
    tensors = [torch.as_tensor(v) for v in (rows, lower, upper)]
    np.testing.assert_allclose(box_min_linear(*tensors).numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(box_min_linear(sparse.csr_array(rows[0]), lower[0], upper[0]), expected[0], atol=1e-12)


@pytest.mark.parametrize(
    ("center", "eps", "domain", "message"),
    [
        ([0.5], -0.1, None, "eps must be finite and ≥ 0, got -0.1"),
        ([0.5], np.nan, None, "eps must be finite and ≥ 0, got nan"),
        ([0.5], np.inf, None, "eps must be finite and ≥ 0, got inf"),
        ([0.5, 1.7e308], 1e308, None, r"center ± eps must be finite, got 1.7e\+308 ± 1e\+308 at index 1"),
        ([0.5, np.nan], 0.1, None, "center must be finite, got nan at index 1"),
        ([[0.5], [-np.inf]], 0.1, None, "center must be finite, got -inf at index 1"),
        ([], 0.1, None, "at least one entry"),
        ([0.5, 3.0, 1.5], 0.1, (0, 1), r"domain \[0.0, 1.0\], got 3.0 at index 1 \(2 such entries\)"),
        ([-0.2], 0.1, (0, 1), "got -0.2 at index 0"),
        ([0.5], 0.1, (1, 0), "low < high"),
        ([0.5], 0.1, (0, np.nan), "low < high"),
        ([0.5], 0.1, (0, 1, 2), r"domain must be \(low, high\)"),
        ([0.5], 0.1, 1.0, r"domain must be \(low, high\)"),
    ],
)
def test_bad_balls_are_refused(center: object, eps: float, domain: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinfBall(center, eps, domain)  # type: ignore[arg-type]


def test_wrong_lengths_are_refused() -> None:
    ball = LinfBall([0.5, 0.5], 0.1)
    with pytest.raises(ValueError, match=r"rows must have 2 columns, got shape \(1, 3\)"):
        ball.min_linear([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="rows must have 2 columns"):
        ball.argmin_linear([[1.0]])
    with pytest.raises(ValueError, match="point must have 2 entries, got 3"):
        ball.contains([0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match=r"points must end in 2 coordinates, got shape \(1,\)"):
        ball.project([0.5])


def test_all_corners_of_a_long_ball_need_a_count() -> None:
    with pytest.raises(ValueError, match="n ≤ 16 only, got n = 17"):
        LinfBall(np.zeros(17), 0.1).corners()
