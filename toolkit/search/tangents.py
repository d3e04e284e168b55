"""Tangents of an input set that no finite number of rows describes: added to an LP until its minimiser lies in the set.

In two places for every minimiser that lies outside. One cuts the point off (Kelley). The other makes the LP at least as
good as its own multipliers are over the true set: with ν = c_x − Aᵀπ, the objective that the duals π of all other rows
leave to x̃, the tangents where the ball's ν·x̃ is least prove as much of ν in the LP as the ball does. Every LP on the
way holds the set, so that its bound and its multipliers are valid; certificates never read a tangent, but evaluate the
input's part over the true set.

Source: Kelley 1960, "The cutting-plane method for solving convex programs". Trusted: nothing.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import BoolArray, FloatArray
from toolkit.problems.input_set import InputSet
from toolkit.solvers.linear_program import CompiledModel
from toolkit.solvers.solve_report import SolveReport

TANGENT_OUTSIDE = 1e-6  # of the radius: nearer than this a minimiser counts as a point of the set


def touching_rows(
    input_set: InputSet,
    layout_columns: int,
    program: CompiledModel,
    tangent: BoolArray,
    report: SolveReport,
    cost: FloatArray,
) -> tuple[sp.csr_array, FloatArray]:
    """Rows d·z ≤ top that a solve of the program calls for; none where its minimiser lies in the set.

    layout_columns: the template's own, behind which stand those of `InputSet.constrain`. tangent: which rows of the
    program are such rows already. cost: the objective. Shapes: (k, columns), (k,).
    """
    inputs, columns = input_set.size, program.lower.size
    none = sp.csr_array((0, columns)), np.zeros(0)
    if input_set.polyhedral or report.x is None:
        return none
    left = None
    if report.duals is not None and report.duals.size == tangent.size:
        others = np.where(tangent, 0.0, np.nan_to_num(report.duals))
        left = cost[:inputs] - (program.matrix.T @ others)[:inputs]
    rows, tops = input_set.tangents(report.x[:inputs], report.x[layout_columns:], left, TANGENT_OUTSIDE)
    places = np.concatenate([np.arange(inputs), np.arange(layout_columns, columns)])
    return sp.csr_array((rows.data, places[rows.indices], rows.indptr), shape=(len(tops), columns)), tops
