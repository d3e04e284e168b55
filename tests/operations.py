"""Operations in order made the maps of a chain, as tests write networks down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from toolkit.networks.layers import AffineMap, Flatten, ReLU, Sparse
from toolkit.networks.merging import merge

Operation = AffineMap | Flatten | ReLU


def merge_operations(operations: Sequence[Operation]) -> list[AffineMap]:
    """The maps of the network that computes the operations in order; neighbouring affine maps are merged into one.

    A ReLU before the first or after the last affine map, or twice in a row, is bridged by an identity map or dropped
    (ReLU∘ReLU = ReLU). Raises ValueError for anything else than an operation, and where there is no affine map.
    """
    unknown = [type(op).__name__ for op in operations if not isinstance(op, Operation)]
    if unknown:
        raise ValueError(f"operations must be affine maps, Flatten or ReLU, got {unknown[0]}")
    steps = [op for op in operations if not isinstance(op, Flatten)]
    width = next((op.input_size for op in steps if isinstance(op, AffineMap)), None)
    if width is None:
        raise ValueError("a network needs at least one affine map, got none")
    layers: list[AffineMap] = []
    waiting: AffineMap | None = None
    for op in steps:
        if isinstance(op, AffineMap):
            waiting = op if waiting is None else merge(waiting, op)
            width = op.output_size
        elif waiting is not None or not layers:
            layers.append(waiting or _identity(width))
            waiting = None
    return [*layers, waiting or _identity(width)]


def _identity(size: int) -> AffineMap:
    return Sparse(sp.eye_array(size, format="csr"), np.zeros(size))
