"""A Pyomo model with a row of every kind becomes the matrices it says."""

from __future__ import annotations

import numpy as np
import pyomo.environ as pyo
import pytest

from toolkit.relaxations.compile import compile_model, integer_columns


@pytest.fixture
def model() -> pyo.ConcreteModel:
    """Three variables, declared in another order than the rows name them."""
    model = pyo.ConcreteModel()
    model.x = pyo.Var(bounds=(-1, 2))
    model.a = pyo.Var(domain=pyo.Binary)
    model.y = pyo.Var(bounds=(0, 5))
    model.below = pyo.Constraint(expr=3 * model.y - model.x <= 4)
    model.above = pyo.Constraint(expr=model.a + 2 * model.x + 1 >= 0)
    model.equal = pyo.Constraint(expr=model.y + model.a == 1.5)
    model.both = pyo.Constraint(expr=(-2, model.x + model.y, 3))
    model.objective = pyo.Objective(expr=model.x)
    return model


def test_rows_columns_and_bounds_are_those_of_the_model(model: pyo.ConcreteModel) -> None:
    found = compile_model(model)
    rows = {
        (tuple(row), low, high)
        for row, low, high in zip(found.matrix.toarray().tolist(), found.row_lower, found.row_upper, strict=True)
    }
    inf = np.inf
    assert rows == {
        ((-1, 0, 3), -inf, 4),
        ((2, 1, 0), -1, inf),
        ((0, 1, 1), 1.5, 1.5),
        ((1, 0, 1), -2, inf),  # a row with two sides is two rows
        ((1, 0, 1), -inf, 3),
    }
    np.testing.assert_array_equal(found.lower, [-1, 0, 0])
    np.testing.assert_array_equal(found.upper, [2, 1, 5])
    np.testing.assert_array_equal(found.integer, [False, True, False])
    assert found.is_mip


def test_integer_columns_follow_the_model_as_it_stands(model: pyo.ConcreteModel) -> None:
    model.a.domain = pyo.UnitInterval
    assert not integer_columns(model).any()
    assert not compile_model(model).is_mip
    model.y.domain = pyo.Integers
    np.testing.assert_array_equal(integer_columns(model), [False, False, True])
