"""The ball's ends as floats: outward for bounds, inward for points, each the nearest such float to the real end."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from oracle import inside, rounded, sides

from toolkit.problems.input_sets import LinfBall

DOMAINS = st.sampled_from([None, (0.0, 1.0), (-1e300, 1e300), (-np.inf, 0.75), (0.1, np.inf)])
numbers = st.floats(-1e300, 1e300) | st.sampled_from([0.0, 0.1, 0.3, 1.0, 1e8, 1e16, -1e16, 5e-324, 2.0**53])
radii = st.floats(0, 1e300) | st.sampled_from([0.0, 5e-324, 1.2e-16, 0.1, 0.2, 0.3, 1.5, 1e16])


@given(center=st.lists(numbers, min_size=1, max_size=3), eps=radii, domain=DOMAINS)
@example(center=[1.0], eps=1.2e-16, domain=None)
@example(center=[1e16], eps=1.5, domain=None)
@example(center=[0.1], eps=0.2, domain=None)
@example(center=[0.3, 0.7], eps=0.1, domain=(0.0, 0.75))
def test_ends_are_the_floats_next_to_the_real_ones(
    center: list[float], eps: float, domain: tuple[float, float] | None
) -> None:
    assume(domain is None or all(domain[0] <= c <= domain[1] for c in center))
    ball = LinfBall(center, eps, domain)
    for j, (low, high) in enumerate(sides(ball)):
        assert ball.lower[j] == rounded(low, -np.inf)
        assert ball.inner_lower[j] == rounded(low, np.inf)
        assert ball.upper[j] == rounded(high, np.inf)
        assert ball.inner_upper[j] == rounded(high, -np.inf)
        assert low <= Fraction(float(ball.inner_lower[j])) <= Fraction(center[j]) <= high


@given(center=st.lists(numbers, min_size=1, max_size=3), eps=radii, steps=st.integers(-2, 2), side=st.booleans())
@example(center=[0.1], eps=0.2, steps=0, side=True)
@example(center=[1.0], eps=1.2e-16, steps=1, side=True)
def test_a_point_is_contained_exactly_where_it_lies_inside(
    center: list[float], eps: float, steps: int, side: bool
) -> None:
    """Points a few floats from the end of one coordinate, on either side of either end."""
    ball = LinfBall(center, eps)
    point = ball.center.copy()
    point[0] = ball.upper[0] if side else ball.lower[0]
    for _ in range(abs(steps)):
        point[0] = np.nextafter(point[0], np.inf if steps > 0 else -np.inf)
    assert ball.contains(point) == inside(ball, point.tolist())


@pytest.mark.parametrize(("center", "eps"), [(0.1, 0.2), (1.0, 1.2e-16), (1e16, 1.5), (-0.7, 0.1), (5e-324, 1e-300)])
@pytest.mark.parametrize("cut", ["not", "above", "below"])
def test_every_point_handed_out_lies_inside(center: float, eps: float, cut: str) -> None:
    next_to = float(np.nextafter(center, np.inf if cut == "above" else -np.inf))
    domain = {"not": None, "above": (-np.inf, next_to), "below": (next_to, np.inf)}[cut]
    ball = LinfBall([center, center], eps, domain)
    rows = np.array([[1.0, -1.0], [0.0, 2.0], [-1.0, -1.0]])
    outside = np.random.default_rng(0).normal(center, 3 * eps, (50, 2))
    for points in (ball.sample(50), ball.corners(), ball.corners(5), ball.argmin_linear(rows), ball.project(outside)):
        assert len(points) > 0
        assert all(inside(ball, point) for point in points.tolist())
