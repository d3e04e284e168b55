"""Models as matrices: what duals prove of small LPs with rows of every kind, and rows that come and go."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from scipy.optimize import linprog
from strategies import arrays

from toolkit.solvers.linear_program import CompiledModel

SIDES = np.array([[0.0, np.inf], [-np.inf, 1.0], [-1.0, 2.0], [0.5, 0.5]])  # one row of each kind


def model_of(matrix: np.ndarray, sides: np.ndarray = SIDES) -> CompiledModel:
    columns = matrix.shape[1]
    box = np.full(columns, -2.0), np.full(columns, 2.0)
    return CompiledModel(sp.csr_array(matrix), sides[:, 0], sides[:, 1], *box, np.zeros(columns, dtype=np.bool_))


def solved(model: CompiledModel, cost: np.ndarray) -> tuple[float, np.ndarray] | None:
    """The LP's minimum by scipy, and one dual per row; None if it is infeasible."""
    dense, parts, right, sign, row = model.matrix.toarray(), [], [], [], []
    for r, (low, high) in enumerate(zip(model.row_lower, model.row_upper, strict=True)):
        for side, factor in ((low, -1.0), (high, 1.0)):
            if np.isfinite(side):
                parts.append(factor * dense[r])
                right.append(factor * side)
                sign.append(factor)
                row.append(r)
    box = list(zip(model.lower, model.upper, strict=True))
    found = linprog(cost, A_ub=np.array(parts), b_ub=right, bounds=box, method="highs")
    if found.status != 0:
        return None
    duals = np.zeros(len(model.row_lower))
    np.add.at(duals, row, np.array(sign) * found.ineqlin.marginals)
    return float(found.fun), duals


@given(matrix=arrays(4, 3), cost=arrays(3), duals=arrays(4), point=arrays(3))
def test_any_duals_bound_every_feasible_point(
    matrix: np.ndarray, cost: np.ndarray, duals: np.ndarray, point: np.ndarray
) -> None:
    """Eighths times eighths: sums are exact, so no tolerance is needed. The rows are widened to hold the point."""
    rows = matrix @ point
    sides = np.stack([np.minimum(SIDES[:, 0], rows), np.maximum(SIDES[:, 1], rows)], axis=1)
    model = model_of(matrix, sides)
    for chosen in (duals, -duals, np.where(np.arange(4) == 1, np.nan, duals), duals * 1e3):
        assert model.dual_bound(cost, 0.25, chosen) <= cost @ point + 0.25
    assert np.isfinite(model.dual_bound(cost, 0.0, np.array([np.nan, np.inf, -np.inf, 1.0])))
    assert not model.proves_empty(duals)


@pytest.mark.parametrize("seed", range(8))
def test_an_lps_own_duals_prove_its_minimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, cost = model_of(rng.normal(size=(4, 3))), rng.normal(size=3)
    found = solved(model, cost)
    assert found is not None
    least, duals = found
    assert model.dual_bound(cost, 0.0, duals) == pytest.approx(least, abs=1e-9)
    wrong = np.where(np.isinf(SIDES).any(axis=1), -duals, duals)  # of the other sign where only one side is there
    assert -np.inf < model.dual_bound(cost, 0.0, wrong) <= least + 1e-9


def test_emptiness_needs_multipliers_that_prove_it() -> None:
    """x ≥ 1 and x ≤ 0.5 on [−2, 2] are infeasible, x ≥ 0 and x ≤ 0 are not, by a hair."""
    crossing, touching = np.array([[1.0, np.inf], [-np.inf, 0.5]]), np.array([[0.0, np.inf], [-np.inf, 0.0]])
    empty, point = (model_of(np.ones((2, 1)), sides) for sides in (crossing, touching))
    assert empty.proves_empty(np.array([1.0, -1.0]))
    assert empty.proves_empty(np.array([-2.0, 2.0]))  # with either sign
    assert not empty.proves_empty(np.array([1.0, 0.0]))
    assert not empty.proves_empty(np.zeros(2))
    for duals in ([1.0, -1.0], [-1.0, 1.0], [1.0, 0.0], [0.0, -1.0], [1e300, -1e300]):
        assert not point.proves_empty(np.array(duals))


def test_rows_come_and_go() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(4, 3)), sp.csr_array(np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0], [0.0, 3.0, 0.0]]))
    model = model_of(first).with_rows(second, np.zeros(3), np.ones(3))
    np.testing.assert_array_equal(model.matrix.toarray(), np.vstack([first, second.toarray()]))
    np.testing.assert_array_equal(model.row_upper, [*SIDES[:, 1], 1, 1, 1])
    kept = model.without_rows(np.array([True, False, False, True, True, False, True]))
    np.testing.assert_array_equal(kept.matrix.toarray(), np.vstack([first, second.toarray()])[[0, 3, 4, 6]])
    np.testing.assert_array_equal(kept.row_lower, [0, 0.5, 0, 0])
    moved = kept.with_bounds(np.array([1]), np.array([-1.0]), np.array([0.5]))
    np.testing.assert_array_equal(moved.lower, [-2, -1, -2])
    np.testing.assert_array_equal(kept.lower, [-2, -2, -2])
