"""Planes above single neurons of the first layer, past the convex barrier of the triangle, and nodes that share them.

For y = max(x̂, 0), x̂ = w·x + b, on a box with centre c and half-widths r, and any shares θ ∈ [0, 1]ⁿ,

    y ≤ Σ_j θ_j w_j x_j + max(−Σ_j θ_j w_j L̆_j, b + Σ_j (1 − θ_j) w_j Ŭ_j),

L̆_j and Ŭ_j being the ends of the box that minimise and maximise w_j x_j: the combinations of the ideal formulation's
cuts (relaxations/ideal_cuts.py) without the indicator, so that the best θ of every neuron gives the bound of all those
cuts together. Moving θ until both terms of the max are equal loses nothing, that is until the mean of θ, weighted by
|w_j|r_j, is the chord's slope; all θ_j equal to that slope are the chord itself.

Every tree of a search has one plane per neuron, which its nodes mix with the chord (dual_function.py).

Source: Anderson et al. 2020, "Strong mixed-integer programming formulations for trained neural networks", Prop. 12;
Tjandraatmadja et al. 2020, "The convex relaxation barrier, revisited", Thm 1. Trusted: nothing; a certificate derives
its cuts from θ again (certificates/dual_bound.py, derive_cuts).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from toolkit.arrays import Array, FloatArray, IndexArray
from toolkit.problems.boxes import BoxShaped
from toolkit.problems.problem import Problem
from toolkit.problems.reduced import alive_network
from toolkit.problems.reduced_matrices import alive_matrices
from toolkit.search.array_makers import ArrayMaker, on_host

LAYER_ENTRIES = 1 << 20  # weights of the unstable neurons at most: as many shares has every tree
LEAST_PART = 1e-3  # of a neuron's reach, that is taken to be free to move when θ is balanced


class Plane(NamedTuple):
    """θ and what it says: y ≤ slopes·x + offset. shares, slopes: (k, n); offset: (k, 1)."""

    shares: Array
    slopes: Array
    offset: Array


@dataclass(frozen=True, eq=False)
class FirstLayer:
    """The unstable neurons of a first layer over a box, k of n inputs.

    weight, and its sign: (k, n). center, radius: c and r, (n, 1). part: |w_j|r_j of its sum over j, (k, n). reach: that
    sum, and middle: w·c + b, (k, 1). slope: of the chord over middle ± reach, (k, 1).
    """

    weight: Array
    sign: Array
    center: Array
    radius: Array
    part: Array
    reach: Array
    middle: Array
    slope: Array

    @classmethod
    def of(cls, problem: Problem, make: ArrayMaker) -> FirstLayer | None:
        """None where there are no planes (`takes_planes`), or numbers overflow."""
        if not takes_planes(problem):
            return None
        first, box = alive_matrices(problem).stages[0], problem.input_set
        chosen = np.flatnonzero(alive_network(problem).unstable(0))
        weight: FloatArray = first.sources[0][1][chosen]
        bias = np.zeros(chosen.size) if first.bias is None else np.ravel(first.bias)[chosen]
        center, radius = 0.5 * box.lower + 0.5 * box.upper, 0.5 * box.upper - 0.5 * box.lower
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            part = np.abs(weight) * radius
            reach, middle = part.sum(axis=1, keepdims=True), (weight @ center + bias)[:, None]
            part, slope = part / reach, (0.5 * middle / reach + 0.5).clip(0.0, 1.0)
        if not all(np.all(np.isfinite(one)) for one in (part, reach, middle, slope)):
            return None
        return cls(*map(make, (weight, np.sign(weight), center[:, None], radius[:, None], part, reach, middle, slope)))

    @property
    def entries(self) -> int:
        """Number of weights."""
        return int(self.weight.shape[0]) * int(self.weight.shape[1])

    def chords(self) -> Array:
        """The shares of the chords."""
        return self.slope + 0.0 * self.weight

    def plane(self, shares: Array) -> Plane:
        """What these shares say, each in [0, 1]."""
        xp = array_namespace(shares)
        slopes = shares * self.weight
        low = self.reach * xp.sum(shares * self.part, axis=1, keepdims=True)
        top = xp.maximum(low, self.middle + self.reach - low)
        return Plane(shares, slopes, top - slopes @ self.center)

    def moved(self, shares: Array, toward: Array, neurons: Array, length: float) -> Array:
        """Shares after a step that lowers the planes at a point, and balances them again, nearly.

        toward: (1, n), the point, in half-widths of the box from its centre; neurons: (k, 1), how far planes move.
        """
        xp = array_namespace(shares)
        zero = 0.0 * self.slope
        step = self.sign * toward
        step *= -length * neurons
        step += shares
        inside = xp.minimum(xp.maximum(step, zero), zero + 1.0)
        own = inside == step
        lack = self.slope - xp.sum(inside * self.part, axis=1, keepdims=True)
        room = xp.sum(own * self.part, axis=1, keepdims=True)
        inside += lack / (room + LEAST_PART) * own
        return xp.minimum(xp.maximum(inside, zero), zero + 1.0)


def takes_planes(problem: Problem) -> bool:
    """Whether the input set is a box, and the first stage a dense one of ReLUs, of which some are unstable, but not
    of too many weights."""
    network = alive_network(problem)
    if not network.lower or not isinstance(problem.input_set, BoxShaped):
        return False
    first, entries = alive_matrices(problem).stages[0], int(network.unstable(0).sum()) * problem.input_set.size
    dense = first.relu and len(first.sources) == 1 and isinstance(first.sources[0][1], np.ndarray)
    return dense and 0 < entries <= LAYER_ENTRIES


class NodePlanes:
    """Planes of the trees that columns belong to. tree: (B,); planes: one per tree."""

    def __init__(self, planes: Sequence[Plane], tree: IndexArray) -> None:
        self.planes, self.tree = planes, tree
        names = np.unique(tree)
        self.groups: list[tuple[int, Any]] = [(t, np.flatnonzero(tree == t)) for t in names.tolist()]
        if names.size == 1:  # no copies of columns
            self.groups = [(int(names[0]), slice(None))]

    def keep(self, columns: Any) -> NodePlanes:
        """The same for these columns only (a mask or indices)."""
        return NodePlanes(self.planes, self.tree[on_host(columns)])

    def back(self, weights: Array) -> tuple[Array, Array]:
        """Σ_i weight_i·plane_i: its coefficients (n, B) and its constant (B,); weights: (k, B)."""
        found = [(columns, self.planes[t], weights[:, columns]) for t, columns in self.groups]
        slopes = [(columns, plane.slopes.mT @ own) for columns, plane, own in found]
        constants = [(columns, (plane.offset.mT @ own)[0]) for columns, plane, own in found]
        return _joined(slopes, weights.shape[1]), _joined(constants, weights.shape[1])

    def above(self, points: Array) -> Array:
        """The planes' values (k, B) at points (n, B)."""
        found = [(columns, self.planes[t], points[:, columns]) for t, columns in self.groups]
        return _joined([(columns, plane.slopes @ own + plane.offset) for columns, plane, own in found], points.shape[1])


def _joined(parts: list[tuple[Any, Array]], count: int) -> Array:
    """Columns that groups have, in their places."""
    if len(parts) == 1:
        return parts[0][1]
    first = parts[0][1]
    xp = array_namespace(first)
    whole = xp.zeros((*first.shape[:-1], count), dtype=first.dtype, device=getattr(first, "device", None))
    for columns, part in parts:
        whole[..., columns] = part
    return whole
