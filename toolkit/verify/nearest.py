"""Unsafe points brought near the centre: along the segment to it, replayed, their distance rounded outward.

Claim: `nearest` returns a point of the segment from the centre to a witness that is provably unsafe, and a float at
least its distance in the norm, in exact arithmetic: that ball, cut by a box that holds both ends, holds the point.
Checked: the point, by replay with rounding against it. Trusted: that the witness given is unsafe.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.networks.network import Network
from toolkit.networks.replay import replay_margins
from toolkit.problems.lowering import lowered
from toolkit.problems.properties import Property
from toolkit.verify.verdict import is_unsafe

NORM_ORDER = {"linf": math.inf, "l2": 2.0, "l1": 1.0}  # p of every norm that a distance is measured in
SEGMENT_POINTS, SEGMENT_ROUNDS = 16, 6  # looked at together, and how often between two neighbours of them
BACK = (0.0, 1e-9, 1e-6, 1e-3, 1.0)  # shares of the way back to the witness, where rounding hides the sign


def distance_above(norm: str, first: FloatArray, second: FloatArray) -> float:
    """The smallest float that is at least ‖first − second‖_p. Shapes: (n,) each. Raises ValueError for a norm without
    distances."""
    if norm not in NORM_ORDER:
        raise ValueError(f"norm must be one of {', '.join(NORM_ORDER)}, got {norm!r}")
    moves = [abs(Fraction(a) - Fraction(b)) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    if norm == "linf":
        power, total = 1, max(moves)
    else:
        power = int(NORM_ORDER[norm])
        total = sum((move**power for move in moves), Fraction(0))
    found = float(_root(total) if power == 2 else total)
    while Fraction(found) ** power < total:
        found = math.nextafter(found, math.inf)
    while found > 0 and Fraction(math.nextafter(found, 0.0)) ** power >= total:
        found = math.nextafter(found, 0.0)
    return found


def _root(square: Fraction) -> Fraction:
    """√square to more digits than a float has, whatever its size."""
    bits = 64 + max(0, square.denominator.bit_length() - square.numerator.bit_length())
    return Fraction(math.isqrt((square.numerator << 2 * bits) // square.denominator), 1 << bits)


class Unsafe:
    """Which points are unsafe for a question, and the nearest one towards a centre."""

    def __init__(self, network: Network, question: Property, center: FloatArray, norm: str) -> None:
        self.center, self.norm = center, norm
        self._network, question = lowered(network, question)
        self._rows = question.objective.rows

    def proven(self, point: FloatArray) -> bool:
        """Whether a replay proves the point unsafe."""
        upper = replay_margins(self._network, self._rows, point)[1][0]
        return bool(is_unsafe(upper).any())

    def nearest(self, witness: FloatArray) -> tuple[FloatArray, float]:
        """The point nearest to the centre that is found unsafe on the segment, and its distance rounded outward."""
        low, high = 0.0, 1.0
        for _ in range(SEGMENT_ROUNDS):
            steps = np.linspace(low, high, SEGMENT_POINTS + 2)
            inside = np.flatnonzero(self._least(self._at(steps[1:-1], witness)) < 0)
            first = int(inside[0]) + 1 if inside.size else SEGMENT_POINTS + 1
            low, high = float(steps[first - 1]), float(steps[first])
        for share in BACK:
            point = self._at(np.array([high + share * (1.0 - high)]), witness)[0]
            if share == 1.0 or self.proven(point):
                break
        return point, distance_above(self.norm, point, self.center)

    def _at(self, steps: FloatArray, witness: FloatArray) -> FloatArray:
        """Points center + t(witness − center), between both in every coordinate, the witness itself at t = 1."""
        moved = (1.0 - steps)[:, None] * self.center + steps[:, None] * witness
        ends = np.minimum(self.center, witness), np.maximum(self.center, witness)
        return np.clip(moved, *ends)

    def _least(self, points: FloatArray) -> FloatArray:
        """The least margin of any group at every point, in floats. Shapes: (k, n) → (k,)."""
        with np.errstate(over="ignore", invalid="ignore"):
            values = self._rows @ np.atleast_2d(self._network.forward(points)).T
        return np.asarray(values.min(axis=0))
