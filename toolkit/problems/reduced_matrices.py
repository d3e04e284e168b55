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
from toolkit.networks.layers import AffineMap, Dense
from toolkit.problems.problem import Problem
from toolkit.problems.reduced import alive_part, folded_rows
from toolkit.problems.region import Region


@dataclass(frozen=True, eq=False)
class AliveMatrices:
    """Per hidden map of the alive network: forward W, backward Wᵀ, and bias, shape (n_k, 1)."""

    forward: tuple[Any, ...]
    backward: tuple[Any, ...]
    bias: tuple[FloatArray, ...]

    @property
    def widest(self) -> int:
        """The largest layer, inputs not counted."""
        return max((bias.shape[0] for bias in self.bias), default=0)


def alive_matrices(problem: Problem) -> AliveMatrices:
    """The matrices of the problem's alive network, memoised on the problem."""

    return problem.region.derive(_matrices)


def _matrices(region: Region) -> AliveMatrices:
    layers = region.derive(alive_part).layers
    forward = tuple(plain_weight(layer) for layer in layers)
    backward = tuple(weight.T.tocsr() if sp.issparse(weight) else weight.T for weight in forward)
    return AliveMatrices(forward, backward, tuple(layer.bias_vector[:, None] for layer in layers))


def plain_weight(layer: AffineMap) -> Any:
    """W as a numpy array for a Dense map, as scipy.sparse for any other."""
    return layer.weight if isinstance(layer, Dense) else layer.to_sparse()


def folded_columns(problem: Problem) -> tuple[FloatArray, FloatArray]:
    """(C·W_L)ᵀ over the alive neurons of the last ReLU layer, dense, and C·b_L. Shapes: (alive, m), (m,)."""
    rows, constant = folded_rows(problem)
    dense = rows.toarray() if sp.issparse(rows) else rows
    return np.ascontiguousarray(np.asarray(dense, dtype=np.float64).T), constant
