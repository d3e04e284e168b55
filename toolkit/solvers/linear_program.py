"""A linear or mixed-integer program as matrices, ready for any solver, and the lower bound its row duals prove."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import BoolArray, FloatArray, IndexArray


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """Σ_j ((z_j − center_j)/radius_j)² ≤ 1 over the first columns. Shapes: (k,)."""

    center: FloatArray
    radius: FloatArray


@dataclass(frozen=True, eq=False)
class CompiledModel:
    """min cost·z subject to row_lower ≤ A z ≤ row_upper, lower ≤ z ≤ upper, z_j ∈ ℤ for the marked columns.

    matrix: CSR, shape (rows, columns). Infinite row sides are ±inf; column bounds are finite. ellipsoid: what the first
    columns lie in besides, for solvers that take a quadratic constraint; `dual_bound` does without it.
    """

    matrix: sp.csr_array
    row_lower: FloatArray
    row_upper: FloatArray
    lower: FloatArray
    upper: FloatArray
    integer: BoolArray
    ellipsoid: Ellipsoid | None = None

    @property
    def is_mip(self) -> bool:
        """Whether any column is integer."""
        return bool(self.integer.any())

    def with_rows(self, rows: sp.sparray, lower: FloatArray, upper: FloatArray) -> CompiledModel:
        """The same model with more constraints lower ≤ rows·z ≤ upper after its own. rows: sparse, (k, columns)."""
        own, more = self.matrix.tocsr(), rows.tocsr()
        # a search adds rows hundreds of times: sp.vstack takes ten times as long
        ends = np.concatenate([own.indptr, own.indptr[-1] + more.indptr[1:]])
        entries = (np.concatenate([own.data, more.data]), np.concatenate([own.indices, more.indices]), ends)
        return replace(
            self,
            matrix=sp.csr_array(entries, shape=(own.shape[0] + more.shape[0], own.shape[1])),
            row_lower=np.concatenate([self.row_lower, lower]),
            row_upper=np.concatenate([self.row_upper, upper]),
        )

    def without_rows(self, keep: BoolArray) -> CompiledModel:
        """The model with only the constraints that `keep` marks."""
        return replace(
            self,
            matrix=self.matrix.tocsr()[keep],
            row_lower=self.row_lower[keep],
            row_upper=self.row_upper[keep],
        )

    def restricted_to(self, columns: int, ellipsoid: Ellipsoid) -> CompiledModel:
        """The model of the first so many columns, in an ellipsoid; every row with an entry elsewhere is dropped."""
        matrix = self.matrix.tocsr()
        keep = np.diff(matrix[:, columns:].indptr) == 0
        return CompiledModel(
            matrix[keep][:, :columns],
            self.row_lower[keep],
            self.row_upper[keep],
            self.lower[:columns],
            self.upper[:columns],
            self.integer[:columns],
            ellipsoid,
        )

    def with_bounds(self, columns: IndexArray, lower: FloatArray, upper: FloatArray) -> CompiledModel:
        """The model with other bounds on the named columns."""
        low, high = self.lower.copy(), self.upper.copy()
        low[columns], high[columns] = lower, upper
        return replace(self, lower=low, upper=high)

    def objective_scale(self, cost: FloatArray) -> float:
        """max_j |cost_j| times the range of column j: the size of an objective, in its own unit, that no shift changes.

        cost: shape (columns,) or shorter, the rest 0."""
        with np.errstate(over="ignore", invalid="ignore"):
            ranges = (self.upper - self.lower)[: cost.size]
            return float(np.nan_to_num(np.abs(cost) * ranges, nan=0.0).max(initial=0.0))

    def proves_empty(self, row_duals: FloatArray) -> bool:
        """Whether the multipliers, with either sign, prove that no z satisfies the relaxation (Farkas)."""
        zero = np.zeros(self.lower.size)
        scale = float(np.abs(row_duals[np.isfinite(row_duals)]).max(initial=0.0))
        return scale > 0 and any(self.dual_bound(zero, 0.0, sign * row_duals / scale) > 1e-9 for sign in (1.0, -1.0))

    def dual_bound(self, cost: FloatArray, offset: float, row_duals: FloatArray) -> float:
        """A lower bound on min cost·z + offset over the LP relaxation, for any row duals whatsoever.

        With ŷ the duals put into the dual cone (≥ rows: max(y,0); ≤ rows: min(y,0); equalities free; non-finite: 0)
        and r = cost − Aᵀŷ:  bound = offset + Σ_i ŷ_i·side_i + Σ_j min(r_j·lower_j, r_j·upper_j).

        Source: Neumaier & Shcherbina 2004, "Safe bounds in linear and mixed-integer programming". Checked: the duals
        are only candidates, so a solver cannot make this wrong. Trusted: float64 rounding of this evaluation.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # absurd duals give −inf or NaN, which prove nothing
            return self._dual_value(cost, offset, np.where(np.isfinite(row_duals), row_duals, 0.0))

    def _dual_value(self, cost: FloatArray, offset: float, duals: FloatArray) -> float:
        duals = np.where(np.isfinite(self.row_lower), duals, np.minimum(duals, 0.0))
        duals = np.where(np.isfinite(self.row_upper), duals, np.maximum(duals, 0.0))
        side = np.where(duals > 0, self.row_lower, self.row_upper)
        rows = float(duals @ np.where(duals == 0, 0.0, side))
        reduced = cost - self.matrix.T @ duals
        return offset + rows + float(np.minimum(reduced * self.lower, reduced * self.upper).sum())
