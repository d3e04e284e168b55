"""Units and norms of a-priori error analysis in float64; what they are for is in rounding.py.

γ_n = n·u/(1 − n·u) with u = 2⁻⁵³ bounds the relative error of n roundings, in any order of summation. Norms are rounded
up by SAFETY, far more than the rounding of any sum that fits into memory.

Source: Higham 2002, "Accuracy and Stability of Numerical Algorithms", §3.1. Trusted: IEEE 754 binary64.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import FloatArray, Matrix, SparseMatrix

UNIT = 2.0**-53
UNIT32 = 2.0**-24
SAFETY = 1.0 + 1e-6
TINY = 2.0**-1000
FLOOR = 1e-150  # what squares that underflow can take from a norm, relative to 1


def gamma(n: int, unit: float = UNIT) -> float:
    """γ_n = n·u/(1 − n·u), raised by SAFETY. Raises ValueError where it is not defined (n·u ≥ 1/2)."""
    if n * unit >= 0.5:
        raise ValueError(f"sums of {n} terms are too long for an error bound at unit roundoff {unit}")
    return SAFETY * n * unit / (1.0 - n * unit)


def norm(values: FloatArray) -> float:
    """Euclidean norm of all entries, scaled against overflow, rounded up; +inf where it overflows."""
    peak = float(np.abs(values).max(initial=0.0))
    if peak == 0.0 or not np.isfinite(peak):
        return peak
    return SAFETY * peak * (float(np.sqrt(np.square(values / peak).sum())) + FLOOR)


def row_norms(rows: Matrix) -> FloatArray:
    """Euclidean norm of every row, rounded up; +inf where squares overflow.

    rows: numpy or scipy.sparse without duplicate entries, (m, n), of any real dtype.
    """
    with np.errstate(over="ignore", under="ignore"):
        if sp.issparse(rows):
            given: SparseMatrix = rows
            matrix = given.tocsr()
            squares = np.zeros(matrix.shape[0])
            filled = np.flatnonzero(np.diff(matrix.indptr))
            if filled.size:
                entries = np.square(np.asarray(matrix.data, dtype=np.float64))
                squares[filled] = np.add.reduceat(entries, matrix.indptr[filled])
        else:
            dense = np.asarray(rows, dtype=np.float64)
            squares = np.einsum("ij,ij->i", dense, dense)
        return np.asarray(SAFETY * np.sqrt(squares) + FLOOR, dtype=np.float64)
