"""What every input set of the registry promises: inside is inside, and no functional is lower than it says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp

from toolkit.problems.input_set import InputSet
from toolkit.problems.input_sets import INPUT_SETS, Box, L1Ball, L2Ball, LinfBall

Specimen = Callable[[np.random.Generator], InputSet]
# For every norm some sets; one that is registered later needs a line here, which the first test says.
SPECIMENS: dict[str, list[Specimen]] = {
    "linf": [
        lambda rng: LinfBall(rng.normal(size=5), 0.3),
        lambda rng: LinfBall(rng.uniform(0, 1, (1, 2, 3)), 0.2, (0, 1)),
        lambda rng: LinfBall(1e9 * rng.normal(size=4), 1e-7),
        lambda rng: LinfBall(rng.normal(size=3), 0.0),
        lambda rng: LinfBall(rng.uniform(0, 1, (2, 2)), rng.uniform(0, 0.4, (1, 2)), (0, 1)),
    ],
    "box": [
        lambda rng: Box(rng.normal(size=4) - 1.0, rng.normal(size=4) + 4.0),
        lambda rng: Box(np.zeros((2, 2)), rng.uniform(0, 2, (2, 2)), (0.0, 1.0)),
        lambda rng: Box(np.full(3, 0.1), np.full(3, 0.1)),
    ],
    "l1": [
        lambda rng: L1Ball(rng.normal(size=5), 0.3),
        lambda rng: L1Ball(rng.uniform(0, 1, (1, 2, 3)), 1.4, (0, 1)),
        lambda rng: L1Ball(1e9 * rng.normal(size=4), 1e-7),
        lambda rng: L1Ball(rng.normal(size=3), 0.0),
        lambda rng: L1Ball(rng.uniform(0, 1, 4), 50.0, (0, 1)),
    ],
    "l2": [
        lambda rng: L2Ball(rng.normal(size=5), 0.3),
        lambda rng: L2Ball(rng.uniform(0, 1, (1, 2, 3)), 0.7, (0, 1)),
        lambda rng: L2Ball(1e9 * rng.normal(size=4), 1e-7),
        lambda rng: L2Ball(rng.normal(size=3), 0.0),
        lambda rng: L2Ball(np.array([0.0, 1.0, 0.5]), 50.0, (0, 1)),
    ],
}
CASES = [(norm, k) for norm, made in SPECIMENS.items() for k in range(len(made))]


def test_every_registered_set_has_specimens() -> None:
    assert set(SPECIMENS) == set(INPUT_SETS)
    for norm, kind in INPUT_SETS.items():
        assert all(isinstance(make(np.random.default_rng(0)), kind) for make in SPECIMENS[norm])


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def input_set(request: pytest.FixtureRequest) -> InputSet:
    norm, k = request.param
    return SPECIMENS[norm][k](np.random.default_rng(k))


def points(input_set: InputSet) -> np.ndarray:
    return np.vstack([input_set.sample(300, seed=1), input_set.corners(50, seed=2), input_set.center[None]])


def test_points_that_it_gives_lie_in_it_and_in_its_hull(input_set: InputSet) -> None:
    for point in points(input_set):
        assert input_set.contains(point)
        assert np.all((input_set.lower <= point) & (point <= input_set.upper))
    assert np.abs(points(input_set) - input_set.center).max() <= input_set.radius
    assert not input_set.contains(input_set.upper + 1.0 + np.abs(input_set.upper))


def test_projections_lie_in_it_and_stay(input_set: InputSet) -> None:
    rng = np.random.default_rng(3)
    far = input_set.center + 10.0 * (1.0 + input_set.radius) * rng.normal(size=(50, input_set.size))
    near = input_set.project(far)
    assert all(input_set.contains(point) for point in near)
    np.testing.assert_array_equal(input_set.project(near), near)


def test_no_functional_is_lower_than_it_says(input_set: InputSet) -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(30, input_set.size)) * (rng.random((30, input_set.size)) < 0.7)
    values = points(input_set) @ rows.T
    scale = np.abs(rows) @ np.maximum(np.abs(input_set.lower), np.abs(input_set.upper)) + 1e-300
    for given in (rows, sp.csr_array(rows)):
        middle, half_width = input_set.linear_range(given)
        assert np.all(values.min(axis=0) >= middle - half_width - 1e-14 * scale)
        assert np.all(values.max(axis=0) <= middle + half_width + 1e-14 * scale)
    least = input_set.argmin_linear(rows)
    assert all(input_set.contains(point) for point in least)
    at = np.einsum("ij,ij->i", rows, least)
    np.testing.assert_allclose(at, input_set.min_linear(rows), atol=1e-12 * scale.max() + 1e-7)
    quick = np.einsum("ij,ij->i", rows, input_set.support(rows))
    np.testing.assert_allclose(quick, input_set.min_linear(rows), atol=1e-12 * scale.max() + 1e-7)


def test_equal_digests_are_the_same_set(input_set: InputSet) -> None:
    others = [make(np.random.default_rng(100 + k)) for made in SPECIMENS.values() for k, make in enumerate(made[:2])]
    assert input_set.digest not in {other.digest for other in others}
    assert input_set.title
