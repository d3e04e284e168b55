"""Bounds of functionals over many boxes at once, by walks back on the boxes' own l,u, rounding taken off.

A column is one functional Σ_j ν⁽ʲ⁾·y⁽ʲ⁾ + constant over one box. Its bound is the dual value at slopes α ∈ [0,1]
(relaxations/relu.py, rungs/dual.py), the better of α = s (Wong & Kolter) and CROWN's (0 or 1); `ascended` climbs from
there along the gradient. `refined` asks it for both sides of every neuron that the zonotopes leave unstable, layer
after layer: CROWN's slopes cut where parallel lines do not.

Rounding: a sub-box lies in the region, so every |y| there is at most the region's r, and what rounding does to a walk
over a sub-box is at most what the region's Ledger charges (rounding.py): its coefficients are sums over r of the
alive neurons, times the norms of the λ and ν that this walk formed. The roundings of s = u/(u − l), −s·l and of the
box's middle and half-width are among a ReLU's and an input's OPERATIONS, since |l|, |u| ≤ r: l,u of a box are cut by
the region's. The box's ends themselves are floats.

Source: Zhang et al. 2018 (CROWN); Xu et al. 2021, "Fast and complete" (optimised slopes). Certified, in real
arithmetic, where the region's own l,u hold, whatever the slopes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.arrays import BoolArray, FloatArray, IndexArray
from toolkit.certificates.box_ranges import BoxRanges, box_maps
from toolkit.certificates.rounding import ErrorModel, Ledger, error_model_of, outward
from toolkit.networks.stages import ColumnStage
from toolkit.networks.weights import dense_array
from toolkit.problems.boxes import BoxShaped
from toolkit.problems.problem import Problem
from toolkit.problems.reduced_matrices import folded_columns
from toolkit.relaxations.relu import evaluate, walk

STEPS = 3  # up the gradient of the slopes
# of a step up, in units of the root mean square of the gradient
SLOPE_RATE, SLOPE_DECAY, SLOPE_MOMENTUM = 1.0, 0.7, 0.5
COLUMN_ENTRIES = 1 << 20  # neurons × columns of the walks that are taken at once


class BoxStep:
    """λ = max(ν,0)·α + min(ν,0)·s, value += min(ν,0)·(−s·l), with l,u of each column's own box.

    positive[k]: max(ν,0) of stage k; arriving: ν there.
    """

    shrinks = True

    def __init__(self, ranges: BoxRanges, slopes: Sequence[FloatArray]) -> None:
        self.ranges, self.slopes = ranges, slopes
        self.value: FloatArray | float = 0.0
        self.positive: dict[int, FloatArray] = {}
        self.negative: dict[int, FloatArray] = {}

    def relu(self, k: int, nu: FloatArray) -> FloatArray:
        positive = np.maximum(nu, 0.0)
        negative = nu - positive
        self.value = self.value + np.einsum("ij,ij->j", negative, self.ranges.height[k])
        self.positive[k], self.negative[k] = positive, negative
        return positive * self.slopes[k] + negative * self.ranges.chord[k]


class ColumnLedger:
    """A Ledger whose rows are columns."""

    def __init__(self, model: ErrorModel, error: FloatArray) -> None:
        self.ledger = Ledger(model, error.size)
        self.ledger.error = self.ledger.error + error

    def terms(self, place: int, nu: FloatArray, chosen: IndexArray | None = None) -> None:
        self.ledger.terms(place, nu.T, chosen)

    def product(self, k: int, multipliers: FloatArray) -> None:
        self.ledger.product(k, multipliers.T)

    def product_of_shrunk(self, k: int) -> None:
        self.ledger.product_of_shrunk(k)


@dataclass(frozen=True, eq=False)
class ColumnBound:
    """value: certified, (R,). nu: the functional of the input at which it was taken, (n, R). step: the walk's."""

    value: FloatArray
    nu: FloatArray
    step: BoxStep


@dataclass(frozen=True, eq=False)
class BoxColumns:
    """Functionals, each over a box of its own: starts ν per place (n_j, R) and constant (R,) over the hidden `stages`,
    error: what forming them rounded, (R,); lower, upper: the boxes, (n, R); ranges: their l,u."""

    model: ErrorModel
    stages: tuple[ColumnStage, ...]
    starts: Mapping[int, FloatArray]
    constant: FloatArray
    error: FloatArray
    lower: FloatArray
    upper: FloatArray
    ranges: BoxRanges

    def at(self, slopes: Sequence[FloatArray]) -> ColumnBound:
        """The bound at these slopes, in [0,1], per stage (n, R); 0 or 1 at stable neurons as in `ranges.chord`."""
        ledger = ColumnLedger(self.model, self.error)
        step = BoxStep(self.ranges, slopes)
        nu, value = walk(self.stages, self.starts, step, self.constant, ledger)
        ledger.terms(0, nu)
        middle, half = 0.5 * self.lower + 0.5 * self.upper, 0.5 * self.upper - 0.5 * self.lower
        value = value + step.value + np.einsum("ij,ij->j", nu, middle) - np.einsum("ij,ij->j", np.abs(nu), half)
        return ColumnBound(outward(value, ledger.ledger.error), nu, step)

    def better(self) -> ColumnBound:
        """The better of α = s and CROWN's for every column."""
        first, second = self.at(self.ranges.chord), self.at(self.ranges.floor)
        wins = second.value > first.value
        return second if wins.all() else first if not wins.any() else _chosen(wins, second, first)

    def ascended(self, found: ColumnBound, steps: int) -> ColumnBound:
        """The best bound of a few steps up the gradient from the slopes of `found`."""
        unstable = [self.ranges.unstable(k) for k in range(len(self.ranges))]
        count = np.sqrt(1.0 + sum(mask.sum(axis=0) for mask in unstable))
        current, best, velocity = found, found, [np.zeros_like(mask, dtype=np.float64) for mask in unstable]
        for step in range(steps):
            gradient = self._gradient(current, unstable)
            size = np.sqrt(sum(np.einsum("ij,ij->j", part, part) for part in gradient)) + 1e-300
            slopes = []
            for k, part in enumerate(gradient):
                velocity[k] = SLOPE_MOMENTUM * velocity[k] + part * (count / size)
                moved = current.step.slopes[k] + SLOPE_RATE * SLOPE_DECAY**step * velocity[k]
                slopes.append(np.where(unstable[k], np.clip(moved, 0.0, 1.0), self.ranges.chord[k]))
            current = self.at(slopes)
            wins = current.value > best.value
            best = best if not wins.any() else current if wins.all() else _chosen(wins, current, best)
        return best

    def _gradient(self, found: ColumnBound, unstable: list[BoolArray]) -> list[FloatArray]:
        """∂/∂α of the bound: max(ν,0)·x̂ along the forward pass from the box's minimiser (search/ascent.py)."""
        gradient = [np.zeros(mask.shape) for mask in unstable]
        ranges, step = self.ranges, found.step

        def activation(k: int, x_hat: FloatArray) -> FloatArray:
            positive = step.positive.get(k)
            if positive is None:  # nothing reads it
                return np.maximum(x_hat, 0.0)
            gradient[k] = np.where(unstable[k], positive * x_hat, 0.0)
            relaxed = np.where(positive > 0, step.slopes[k] * x_hat, ranges.chord[k] * x_hat + ranges.height[k])
            return np.asarray(relaxed)

        evaluate(self.stages, self.minimisers(found), activation)
        return gradient

    def minimisers(self, found: ColumnBound) -> FloatArray:
        """The corner of every box where the bound's functional of the input is least, (n, R)."""
        return np.where(found.nu > 0, self.lower, self.upper)


class BoxRows:
    """A problem's rows over sub-boxes of its input set. Raises TypeError for a set that is no box, ValueError for
    convolutions that have no matrix."""

    def __init__(self, problem: Problem) -> None:
        if not isinstance(problem.input_set, BoxShaped):
            raise TypeError(f"sub-boxes cover a box or an ℓ∞ ball, got {type(problem.input_set).__name__}")
        self.maps = problem.region.derive(box_maps)
        self.model = error_model_of(problem)
        self.stages = self.maps.columns
        self.starts, self.constant = folded_columns(problem)
        last = len(self.stages)
        self.error = self.model.product[last] * self.model.after(last, problem.rows)

    def columns(self, lower: FloatArray, upper: FloatArray, row: IndexArray, ranges: BoxRanges) -> BoxColumns:
        """One row over each box: lower, upper (n, B), row (B,)."""
        starts = {place: nu[:, row] for place, nu in self.starts.items()}
        return BoxColumns(self.model, self.stages, starts, self.constant[row], self.error[row], lower, upper, ranges)

    def refined(self, lower: FloatArray, upper: FloatArray, ranges: BoxRanges) -> BoxRanges:
        """`refined` over these boxes."""
        return refined(self.model, self.stages, lower, upper, ranges)


def _chosen(wins: BoolArray, one: ColumnBound, other: ColumnBound) -> ColumnBound:
    """Column by column the one where it wins, else the other."""
    first, second = one.step, other.step
    slopes = [np.where(wins, a, b) for a, b in zip(first.slopes, second.slopes, strict=True)]
    step = BoxStep(first.ranges, slopes)
    for k in first.positive:
        step.positive[k] = np.where(wins, first.positive[k], second.positive[k])
        step.negative[k] = np.where(wins, first.negative[k], second.negative[k])
    return ColumnBound(np.where(wins, one.value, other.value), np.where(wins, one.nu, other.nu), step)


def refined(
    model: ErrorModel,
    stages: tuple[ColumnStage, ...],
    lower: FloatArray,
    upper: FloatArray,
    ranges: BoxRanges,
) -> BoxRanges:
    """Tighter l,u of unstable neurons, from the second stage on, by CROWN's bound of both sides. Shapes as `ranges`."""
    found = ranges.take(np.arange(lower.shape[1]))
    for k in range(1, len(stages)):
        neuron, box = np.nonzero(found.unstable(k))
        if not neuron.size:
            continue
        low, high = found.lower[k].copy(), found.upper[k].copy()
        some = max(1, COLUMN_ENTRIES // max(max(stage.sources[0][1].shape) for stage in stages[: k + 1]))
        for start in range(0, neuron.size, some):
            i, b = neuron[start : start + some], box[start : start + some]
            sides = [_neurons(model, stages[: k + 1], sign, i, b, lower, upper, found) for sign in (1.0, -1.0)]
            least, most = sides[0], -sides[1]
            sound = np.maximum(least, low[i, b]) <= np.minimum(most, high[i, b])
            low[i, b] = np.where(sound, np.maximum(least, low[i, b]), low[i, b])
            high[i, b] = np.where(sound, np.minimum(most, high[i, b]), high[i, b])
        found.replace(k, low, high)
    return found


def _neurons(
    model: ErrorModel,
    stages: tuple[ColumnStage, ...],
    sign: float,
    neuron: IndexArray,
    box: IndexArray,
    lower: FloatArray,
    upper: FloatArray,
    ranges: BoxRanges,
) -> FloatArray:
    """Lower bounds of sign·x̂ of the last stage's neurons, each in a box; the first stages' l,u are read."""
    *before, last = stages
    unit = model.units[len(before) + 1]
    size = np.ones(neuron.size) if unit is None else unit[neuron]
    starts = {place: sign * _columns(transposed, neuron) for place, _, transposed in last.sources}
    bias = np.zeros(neuron.size) if last.bias is None else sign * last.bias[neuron, 0]
    own = ranges.take(box, len(before))
    error = model.product[len(before)] * size
    columns = BoxColumns(model, tuple(before), starts, bias, error, lower[:, box], upper[:, box], own)
    return columns.at(own.floor).value


def _columns(matrix: Any, chosen: IndexArray) -> FloatArray:
    return dense_array(matrix[:, chosen])
