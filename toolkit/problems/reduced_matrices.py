"""The alive network as plain matrices for iterative methods: hundreds of sweeps with points or rows as columns.

Columns, because scipy's sparse products want them contiguous; Wᵀ laid out once, because making it costs as much as a
small product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import FloatArray
from toolkit.networks.stages import ColumnStage
from toolkit.problems.problem import Problem
from toolkit.problems.reduced import alive_part, folded_rows
from toolkit.problems.region import Region


@dataclass(frozen=True, eq=False)
class AliveMatrices:
    """The hidden stages of the alive network, for rows and points as columns."""

    stages: tuple[ColumnStage, ...]
    widest: int
    """The largest layer, inputs not counted."""


def alive_matrices(problem: Problem) -> AliveMatrices:
    """The matrices of the problem's alive network, memoised on the problem."""

    return problem.region.derive(_matrices)


def _matrices(region: Region) -> AliveMatrices:
    stages = region.derive(alive_part).stages
    return AliveMatrices(tuple(map(ColumnStage.of, stages)), max((one.output_size for one in stages), default=0))


def folded_columns(problem: Problem) -> tuple[dict[int, FloatArray], FloatArray]:
    """(C·W_Lj)ᵀ over the alive neurons of every place the last stage reads, dense, and C·b_L: (alive, m), (m,)."""
    rows, constant = folded_rows(problem)
    return {place: _columns(part) for place, part in rows.items()}, constant


def _columns(rows: Any) -> FloatArray:
    dense = rows.toarray() if sp.issparse(rows) else rows
    return np.ascontiguousarray(np.asarray(dense, dtype=np.float64).T)
