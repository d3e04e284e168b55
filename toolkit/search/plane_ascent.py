"""The planes of one tree: an ascent on the shares θ of its first layer and on the dual variables d, together.

Where ν < 0 at neuron i, its plane takes μ = −min(ν,0)·d of it, and ∂g/∂θ_ij = −μ_i w_ij (x̃_j − c_j) with θ balanced
(hull_planes.py): θ moves so that what the neurons send to an input cancels. Its size is |μ_i||w_ij|r_j, its sign that
of w_ij times where x̃_j lies, so Adam's moments are those of x̃ and μ alone, n + k numbers in place of k·n. A step costs
a few passes over all shares, about as much as some dozens of nodes: it pays where a tree is not small.

Source: De Palma et al. 2021, "Scaling the convex barrier with active sets" (ascent on such cuts); here their
combination itself moves. Trusted: nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from array_api_compat import array_namespace

from toolkit.arrays import Array
from toolkit.search.dual_function import Parts
from toolkit.search.hull_planes import FirstLayer, NodePlanes, Plane
from toolkit.search.node_ascent import MOMENTS, DualMoves, Pace

LEAST_SPREAD, LEAST_RADIUS = 1e-12, 1e-30


@dataclass(frozen=True, eq=False)
class Raised:
    """Where an ascent ended: the planes, d (N, 1) and the bound there."""

    plane: Plane
    duals: Array
    value: float


def raise_planes(
    layer: FirstLayer, parts: Parts, start: Raised, aim: float, pace: Pace, deadline: float = np.inf
) -> Raised:
    """Planes for one node (parts of one column) and those below it, from others, until its bound exceeds `aim`, the
    steps are made or the deadline (of time.perf_counter()) is over. The best on the way counts."""
    xp = array_namespace(layer.weight)
    own, zero = parts.function.own[0], parts.function.zero
    radius = xp.maximum(layer.radius, zero + LEAST_RADIUS)
    where, taken = _Moments(), _Moments()
    plane, duals = start.plane, start.duals
    best, moves = replace(start, value=-np.inf), None
    for t in range(pace.steps + 1):
        parts = replace(parts, planes=NodePlanes((plane,), np.zeros(1, dtype=np.int64)))
        sweep = parts.sweep(duals)
        value = float(sweep.value[0])
        if value > best.value:
            best = Raised(plane, duals, value)
        if value >= aim or t == pace.steps or time.perf_counter() > deadline:
            break
        moves = DualMoves(parts, duals, sweep) if moves is None else moves
        length = pace.first * (pace.last / pace.first) ** ((t + 1) / pace.steps)
        where.hear((sweep.points - layer.center) / radius)
        taken.hear(-parts.planed(xp.minimum(sweep.arriving[own], zero), duals[own]))
        plane = layer.plane(layer.moved(plane.shares, where.mean.mT, taken.direction, length))
        moves.move(sweep.gradient, length)
        duals = moves.duals
    return best


class _Moments:
    """Adam's moments of an array that is told step by step."""

    def __init__(self) -> None:
        self.first: Array = 0.0
        self.second: Array = 0.0
        self.count = 0

    def hear(self, values: Array) -> None:
        """The array's next values."""
        beta, gamma = MOMENTS
        self.count += 1
        self.first = beta * self.first + (1 - beta) * values
        self.second = gamma * self.second + (1 - gamma) * (values * values)

    @property
    def mean(self) -> Array:
        """Their mean, of late."""
        return self.first / (1 - MOMENTS[0] ** self.count)

    @property
    def direction(self) -> Array:
        """That in units of their root mean square."""
        xp = array_namespace(self.second)
        return self.mean / (xp.sqrt(self.second / (1 - MOMENTS[1] ** self.count)) + LEAST_SPREAD)
