"""The planes of one row's tree: an ascent on the shares θ of its first layer and on the dual variables d, together.

Where ν < 0 at neuron i, its plane takes μ = −min(ν,0)·d of it, and ∂g/∂θ_ij = −μ_i w_ij (x̃_j − c_j) with θ balanced
(hull_planes.py): θ moves so that what the neurons send to an input cancels. Its size is |μ_i||w_ij|r_j, its sign that
of w_ij times where x̃_j lies, so Adam's moments are those of x̃ and μ alone, n + k numbers in place of k·n. A step costs
a few passes over all shares, about as much as some dozens of nodes: it pays where a tree is not small.

Source: De Palma et al. 2021, "Scaling the convex barrier with active sets" (ascent on such cuts); here their
combination itself moves. Trusted: nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace

from toolkit.arrays import Array, FloatArray
from toolkit.search.array_makers import on_host
from toolkit.search.dual_function import DualFunction, Parts
from toolkit.search.hull_planes import FirstLayer, Plane
from toolkit.search.node_ascent import MOMENTS, Pace

PACE = Pace(60, 0.3, 0.02)
LEAST_SPREAD, LEAST_RADIUS = 1e-12, 1e-30


@dataclass(frozen=True, eq=False)
class Raised:
    """Where an ascent ended: the planes, d of the root (N, 1) and the bound there."""

    plane: Plane
    duals: Array
    value: float


def raise_planes(
    function: DualFunction, layer: FirstLayer, row: int, aim: float, pace: Pace = PACE, deadline: float = np.inf
) -> Raised:
    """Planes for the tree of this row, from its chords, until its root's bound exceeds `aim`, the steps are made or the
    deadline (of time.perf_counter()) is over. The best on the way counts."""
    xp = array_namespace(layer.weight)
    own, zero = function.own[0], function.zero
    shares = layer.chords()
    planes = {row: layer.plane(shares)}
    parts = function.parts(np.array([row]), None, planes)
    duals = _start(function, parts)
    radius = xp.maximum(layer.radius, zero + LEAST_RADIUS)
    where, taken, slopes = _Adam(), _Adam(), _Adam()
    best = Raised(planes[row], duals, -np.inf)
    for t in range(pace.steps + 1):
        sweep = parts.sweep(duals)
        value = float(sweep.value[0])
        if value > best.value:
            best = Raised(planes[row], duals, value)
        if value >= aim or t == pace.steps or time.perf_counter() > deadline:
            break
        length = pace.first * (pace.last / pace.first) ** ((t + 1) / pace.steps)
        where.hear((sweep.points - layer.center) / radius)
        taken.hear(-xp.minimum(sweep.arriving[own], zero) * duals[own])
        slopes.hear(sweep.gradient)
        shares = layer.moved(shares, where.mean.mT, taken.direction, length)
        duals = xp.minimum(xp.maximum(duals + length * slopes.direction, zero), zero + 1)
        planes[row] = layer.plane(shares)
    return best


def _start(function: DualFunction, parts: Parts) -> Array:
    """The dual rung's slopes, rounded, and planes alone where ν < 0 in the first layer."""
    start: FloatArray = np.clip(np.rint(function.starting_slopes()[0]), 0.0, 1.0)
    own = function.own[0]
    arriving = on_host(parts.sweep(function.make(start)).arriving)
    start[own] = np.where(arriving[own] < 0, 1.0, start[own])
    return function.make(start)


class _Adam:
    """Moments of an array that is told step by step."""

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
