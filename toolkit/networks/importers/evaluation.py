"""The outputs of stages in the making, and how large they may be: what an import is compared with its original by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.networks.stages import Stage


def stage_outputs(stages: Sequence[Stage], points: FloatArray) -> FloatArray:
    """The network's outputs. Shapes: (k, inputs) → (k, outputs)."""
    places: list[FloatArray] = [points]
    for stage in stages:
        values = np.asarray(stage.forward(places))
        places.append(np.maximum(values, 0.0) if stage.relu else values)
    return places[-1]


def stage_magnitude(stages: Sequence[Stage], points: FloatArray) -> FloatArray:
    """Σ|W||x| + |b| through the stages, the largest over the points, shape (outputs,): what rounding is relative to."""
    places: list[FloatArray] = [np.max(np.abs(points), axis=0)]
    for stage in stages:
        total = np.abs(np.asarray(stage.bias, dtype=np.float64))
        for place, layer in stage.sources:
            total = total + abs(layer.operand()) @ places[place]
        places.append(total)
    return places[-1]
