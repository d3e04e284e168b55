"""Equilibration: a model in which every column's range and every row's largest term is about 1, the same in any unit.

A solver's tolerances are absolute numbers, so they mean something only in a model whose units do. With D_j the range of
column j, R_i the reciprocal of max_j |A_ij| D_j, σ that of max_j |c_j| D_j, each rounded to a power of two:

    z = shift + D z′,   A′ = R A D,   row sides′ = R (sides − A·shift),   c′ = σ D c,   offset′ = σ (offset + c·shift).

Back: z as above, objective values divided by σ, and the row duals of the model are y = R y′/σ, because
c′ − A′ᵀy′ = σ D (c − Aᵀ(R y′/σ)). Integer columns keep D = 1 and shift 0. A column that is fixed keeps its value as
shift and takes the D that makes it no larger than the other terms of its rows.

Checked: that nothing overflows (ValueError). Exact but for the sums A·shift and c·shift and for underflow of terms that
are 2¹⁰⁷⁴ times smaller than their row's largest. Source: equilibration, as in any LP code (Tomlin 1975, "On scaling
linear programming problems"), with powers of two, which round nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import BoolArray, FloatArray, IndexArray
from toolkit.solvers.linear_program import CompiledModel, Ellipsoid

LEAST_RADIUS = 2.0**-20  # of a column's range: else the column is fixed by rounding
LOWEST = -(2**20)  # exponent that stands for that of 0


def exponents(values: FloatArray) -> IndexArray:
    """e with 2^(e−1) ≤ |value| < 2^e, LOWEST for 0; values finite."""
    mantissa, power = np.frexp(values)
    return np.where(mantissa == 0.0, LOWEST, power).astype(np.int64)


def row_maxima(matrix: sp.csr_array, values: IndexArray) -> IndexArray:
    """Largest of the values of each row's stored entries, LOWEST for a row that has none."""
    found = np.full(matrix.shape[0], LOWEST, dtype=np.int64)
    filled = np.flatnonzero(np.diff(matrix.indptr))
    if filled.size:
        found[filled] = np.maximum.reduceat(values, matrix.indptr[filled])
    return found


@dataclass(frozen=True, eq=False)
class ColumnScaling:
    """z = shift + 2^power z′ for every column; fixed: those whose bounds were one number, whose cost means nothing."""

    shift: FloatArray
    power: IndexArray
    fixed: BoolArray

    @classmethod
    def of(cls, model: CompiledModel) -> ColumnScaling:
        """From the ranges of the model's columns. Raises ValueError for a model with numbers that are not finite."""
        for name, values in (
            ("column bound", model.lower),
            ("column bound", model.upper),
            ("entry", model.matrix.data),
        ):
            if not np.all(np.isfinite(values)):
                raise ValueError(f"the model has a {name} that is not finite")
        half = 0.5 * model.upper - 0.5 * model.lower  # a range may be larger than the largest float
        fixed = (half <= 0.0) & ~model.integer
        power = np.where(fixed, LOWEST, exponents(half))  # 2^power ≤ range < 2^(power + 1)
        power[model.integer] = 0
        matrix = model.matrix.tocsr()
        own = exponents(matrix.data)
        known = np.where(own > LOWEST, own + power[matrix.indices], LOWEST)
        largest = np.repeat(row_maxima(matrix, known), np.diff(matrix.indptr))
        room = np.full(power.size, -LOWEST, dtype=np.int64)
        usable = fixed[matrix.indices] & (own > LOWEST) & (largest > LOWEST // 2)
        np.minimum.at(room, matrix.indices[usable], (largest - own)[usable])
        power = np.where(fixed, np.where(room < -LOWEST, room, 0), power)
        shift = np.where(model.integer, 0.0, model.lower)
        return cls(shift, power, fixed)

    def bounds(self, columns: IndexArray, values: FloatArray) -> FloatArray:
        """Bounds of the named columns in the scaled model."""
        power = -self.power[columns]  # a difference of bounds may be larger than the largest float
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.ldexp(values, power) - np.ldexp(self.shift[columns], power)
        return _finite(scaled, "a column bound")

    def ellipsoid(self, found: Ellipsoid) -> Ellipsoid:
        """An ellipsoid of the first columns in the scaled model."""
        columns = np.arange(found.center.size)
        with np.errstate(over="ignore"):
            radius = _finite(np.ldexp(found.radius, -self.power[columns]), "a radius")
        if radius.min(initial=1.0) < LEAST_RADIUS:
            raise ValueError("a radius of the model is lost in the rounding of its columns")
        return Ellipsoid(self.bounds(columns, found.center), radius)

    def rows(
        self, rows: sp.sparray, lower: FloatArray, upper: FloatArray
    ) -> tuple[sp.csr_array, FloatArray, FloatArray, IndexArray]:
        """Constraints in the scaled model, and the exponents of R. rows: scipy.sparse, (k, columns)."""
        matrix = rows.tocsr()
        mantissa, power = np.frexp(matrix.data)
        total = np.where(mantissa == 0.0, LOWEST, power + self.power[matrix.indices])
        largest = row_maxima(matrix, total)
        factor = np.where(largest > LOWEST // 2, -largest, 0)
        data = np.ldexp(mantissa, np.where(mantissa == 0.0, 0, total + np.repeat(factor, np.diff(matrix.indptr))))
        with np.errstate(over="ignore", invalid="ignore"):
            base = matrix @ self.shift
            sides = [np.where(np.isfinite(side), np.ldexp(side - base, factor), side) for side in (lower, upper)]
        for side, scaled in zip((lower, upper), sides, strict=True):
            _finite(np.where(np.isfinite(side), scaled, 0.0), "a row side")
        return sp.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape), *sides, factor

    def objective(self, cost: FloatArray, offset: float) -> tuple[FloatArray, float, int]:
        """c′, offset′ and the exponent of σ. Raises ValueError for an objective that is not finite."""
        _finite(cost, "a cost")
        mantissa, power = np.frexp(cost)
        total = np.where((mantissa == 0.0) | self.fixed, LOWEST, power + self.power)
        largest = int(total.max(initial=LOWEST))
        factor = -largest if largest > LOWEST // 2 else 0
        scaled = np.ldexp(mantissa, np.where(total > LOWEST // 2, total + factor, LOWEST).astype(np.int64))
        with np.errstate(over="ignore", invalid="ignore"):
            constant = float(np.ldexp(offset + cost @ self.shift, factor))
        _finite(np.array([constant]), "the objective's constant")
        return scaled, constant, factor

    def point(self, scaled: FloatArray) -> FloatArray:
        """z of a point z′."""
        return np.asarray(self.shift + np.ldexp(scaled, self.power), dtype=np.float64)


def scaled_model(model: CompiledModel, columns: ColumnScaling) -> tuple[CompiledModel, IndexArray]:
    """The model in scaled columns and rows, and the exponents of R. Raises ValueError where numbers overflow."""
    matrix, row_lower, row_upper, factor = columns.rows(model.matrix, model.row_lower, model.row_upper)
    if np.isnan(row_lower).any() or np.isnan(row_upper).any():
        raise ValueError("the model has a row side that is no number")
    every = np.arange(model.lower.size)
    lower, upper = columns.bounds(every, model.lower), columns.bounds(every, model.upper)
    ellipsoid = None if model.ellipsoid is None else columns.ellipsoid(model.ellipsoid)
    return CompiledModel(matrix, row_lower, row_upper, lower, upper, model.integer, ellipsoid), factor


def _finite(values: FloatArray, what: str) -> FloatArray:
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{what} of the model is not finite, or overflows when it is scaled")
    return values
