"""The dual bound g as a function of many nodes' dual variables: α of free, β of split neurons, with its gradient.

A node is an objective row on a part of the region, where some unstable ReLUs are split. With ν arriving at a ReLU (the
walk of relaxations/relu.py), s = u/(u − l) and one variable d per unstable neuron,

    free            λ = max(ν,0)·d + min(ν,0)·s,   0 ≤ d ≤ 1,   adds −s·l·min(ν,0) to g
    split active    λ = ν − d,                     d ≥ 0:  x̂ ≥ 0 there, and y = x̂
    split inactive  λ = d,                         d ≥ 0:  x̂ ≤ 0 there, and y = 0
    free, a plane   λ = max(ν,0)·d + min(ν,0)·(1 − d)·s: the plane (hull_planes.py) takes the chord's part d of min(ν,0)

is dual feasible for any d, so every g is a lower bound of the row on that part. g is concave in the box of these
variables where one ReLU layer is relaxed, and piecewise smooth; at x̃ = argmin ν·x̃, forward with y = λ's slope times x̂
(and the chord's offset where ν < 0), ∂g/∂d = x̂·max(ν,0), −x̂, x̂ in the first three cases; a plane adds min(ν,0) times
what it is above the chord.

Columns are nodes. Arrays are of any array-API library and floating type: float32 on a core or a GPU for a search,
float64 for an optimum. Source: Wong & Kolter 2018, Thm 1 (free neurons); Wang et al. 2021, "Beta-CROWN" (split ones).
Nothing here is trusted: what a bound rests on is evaluated again in float64 (certificates/leaves.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from toolkit.arrays import Array, FloatArray, PhaseArray
from toolkit.networks.stages import ColumnStage
from toolkit.problems.boxes import BoxShaped
from toolkit.problems.input_set import InputSet
from toolkit.problems.problem import Problem
from toolkit.problems.reduced import alive_network
from toolkit.problems.reduced_matrices import alive_matrices, folded_columns
from toolkit.relaxations.relu import adaptive_slope, chord, evaluate, walk
from toolkit.search.array_makers import ArrayMaker, fitting_maker, in_float64, on_host
from toolkit.search.hull_planes import NodePlanes


class Sweep(NamedTuple):
    """g and its gradient at some dual variables, and what the two walks went through; columns are nodes.

    value: (B,). gradient, arriving (ν), x_hat, outputs (y): per unstable neuron, (N, B). points: x̃, (n, B).
    """

    value: Array
    gradient: Array
    points: Array
    outputs: Array
    arriving: Array
    x_hat: Array


class DualFunction:
    """g of a problem's rows over the dual variables of all unstable neurons, layer after layer in one array (N, B).

    make: puts numpy and scipy.sparse arrays into the library, type and device to compute in; None: in float32 where the
    problem's numbers fit it, on settings.device. Numbers that are infinite, or overflow, make g infinite or NaN.
    """

    def __init__(self, problem: Problem, make: ArrayMaker | None = in_float64) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            self._read(problem, make)

    def _read(self, problem: Problem, make: ArrayMaker | None) -> None:
        starts, constant = folded_columns(problem)
        network, stages = alive_network(problem), alive_matrices(problem).stages
        if make is None:
            sides = (*network.lower, *network.upper, *starts.values(), constant)
            weights = (weight for stage in stages for _, weight, _ in stage.sources)
            biases = (stage.bias for stage in stages if stage.bias is not None)
            make = fitting_maker((*sides, *weights, *biases), problem.settings.device)
        self.make = make
        self.starts = {place: make(rows) for place, rows in starts.items()}
        self.constant = make(constant)
        self.stages = tuple(_moved(stage, make) for stage in stages)
        self.reach = _reach(problem.input_set, make)
        self.alive = [low.size for low in network.lower]
        unstable = [np.flatnonzero(network.unstable(k)) for k in range(len(self.alive))]
        xp = array_namespace(self.constant)
        self.unstable = [xp.asarray(index, device=_device(self.constant)) for index in unstable]
        ends = np.cumsum([0, *(index.size for index in unstable)]).tolist()
        self.own = [slice(first, last) for first, last in pairwise(ends)]
        self.size = int(ends[-1])
        pick = [np.zeros(0), *(low[index] for low, index in zip(network.lower, unstable, strict=True))]
        self.low = np.concatenate(pick)[:, None]
        pick = [np.zeros(0), *(high[index] for high, index in zip(network.upper, unstable, strict=True))]
        self.high = np.concatenate(pick)[:, None]
        slope = chord(self.low, self.high)
        self.chord, self.height = make(slope), make(slope * self.low)
        self.zero = make(np.zeros(()))

    @property
    def rows(self) -> int:
        """Number of objective rows."""
        return int(self.constant.shape[0])

    def parts(self, rows: Any = None, phases: PhaseArray | None = None, planes: NodePlanes | None = None) -> Parts:
        """The nodes of these rows (None: one per row) with these phases (N, B), None: nothing is split."""
        starts, constant = self.starts, self.constant
        if rows is not None:
            xp = array_namespace(constant)
            chosen = xp.asarray(rows, device=_device(constant))
            starts, constant = {place: nu[:, chosen] for place, nu in starts.items()}, constant[chosen]
        splits = None if phases is None or not (phases >= 0).any() else Splits.of(self, phases)
        return Parts(self, starts, constant, splits, planes)

    def starting_slopes(self) -> tuple[FloatArray, FloatArray]:
        """The dual rung's slopes and CROWN's, (N, 1) each."""
        return np.asarray(chord(self.low, self.high)), np.asarray(adaptive_slope(self.low, self.high))

    def spread(self, slopes: Array) -> list[FloatArray]:
        """Slopes (N, m) as `certified_values` takes them: (m, n_k) per layer over alive neurons; 0 where none is known
        because l or u is infinite."""
        found = on_host(slopes)
        full = [np.zeros((found.shape[1], size)) for size in self.alive]
        for layer, index, own in zip(full, self.unstable, self.own, strict=True):
            layer[:, on_host(index)] = np.nan_to_num(found[own].T)
        return full


@dataclass(frozen=True, eq=False)
class Splits:
    """Which neurons of each node are split, as factors: all (N, B).

    free: 1 at free neurons, else 0; active: 1 at those split active; sign: 1 at active, −1 at inactive ones; chord,
    height: s and s·l at free neurons, 1 and 0 at active, 0 at inactive ones.
    """

    free: Array
    active: Array
    sign: Array
    chord: Array
    height: Array

    @classmethod
    def of(cls, function: DualFunction, phases: PhaseArray) -> Splits:
        """From phases −1, 0, 1."""
        free, active = function.make(phases < 0), function.make(phases == 1)
        sign = active + active + free - 1
        return cls(free, active, sign, function.chord * free + active, function.height * free)

    def keep(self, columns: Any) -> Splits:
        """The same for these columns only."""
        own = (one[:, columns] for one in (self.free, self.active, self.sign, self.chord, self.height))
        return Splits(*own)


@dataclass(frozen=True, eq=False)
class Parts:
    """Nodes to evaluate together. starts: their rows at every place, (n_j, B); constant: (B,); planes: of the first
    layer, or none."""

    function: DualFunction
    starts: dict[int, Array]
    constant: Array
    splits: Splits | None
    planes: NodePlanes | None = None

    def keep(self, columns: Any) -> Parts:
        """The same for these columns only (a mask or indices)."""
        starts = {place: nu[:, columns] for place, nu in self.starts.items()}
        splits = None if self.splits is None else self.splits.keep(columns)
        planes = None if self.planes is None else self.planes.keep(columns)
        return replace(self, starts=starts, constant=self.constant[columns], splits=splits, planes=planes)

    def ceiling(self) -> Array:
        """The largest value of every variable: 1 at free neurons, ∞ at split ones."""
        one = self.function.zero + 1
        if self.splits is None:
            return one
        xp = array_namespace(one)
        return xp.where(self.splits.free > 0, one, one * float("inf"))

    def values(self, duals: Array) -> Array:
        """g alone, shape (B,); duals: (N, B)."""
        return self._back(duals, False)[0]

    def multipliers(self, duals: Array) -> Array:
        """λ of every unstable neuron, (N, B): what certificates take."""
        return self.evidence(duals)[0]

    def evidence(self, duals: Array) -> tuple[Array, Array | None]:
        """λ of every unstable neuron, (N, B), and −weights of the planes, (k, B), None without planes."""
        step = self._back(duals, False)[2]
        return self._joined(step.taken, duals), step.planed

    def planed(self, negative: Array, duals: Array) -> Array:
        """What of min(ν,0) in the first layer the planes take."""
        planed = negative * duals
        return planed if self.splits is None else planed * self.splits.free[self.function.own[0]]

    def _joined(self, parts: list[Array | None], duals: Array) -> Array:
        """One array (N, B) of what each layer has; 0 for layers the rows do not reach."""
        xp = array_namespace(duals)
        sizes = [own.stop - own.start for own in self.function.own]
        own = [duals[:size] * 0 if part is None else part for part, size in zip(parts, sizes, strict=True) if size]
        return xp.concat(own, axis=0) if own else duals * 0

    def _back(self, duals: Array, pointed: bool) -> tuple[Array, Array, PartStep]:
        """g, x̃ = argmin ν·x̃ if that is asked for, and the walk's step."""
        step = PartStep(self, duals)
        nu, value = walk(self.function.stages, self.starts, step, self.constant)
        if self.planes is not None and step.planed is not None:
            through, constant = self.planes.back(step.planed)
            nu, value = nu + through, value + constant
        least, points = self.function.reach(nu, pointed)
        return value + step.value + least, points, step

    def sweep(self, duals: Array) -> Sweep:
        """g, ∇g and what both walks went through. duals: (N, B), free ones in [0, 1], split ones ≥ 0."""
        function, splits = self.function, self.splits
        xp = array_namespace(duals)
        value, points, step = self._back(duals, True)
        gradient, outputs, x_hats = xp.zeros_like(duals), xp.zeros_like(duals), xp.zeros_like(duals)

        def activation(k: int, y: Array) -> Array:
            own, chosen = function.own[k], function.unstable[k]
            if own.stop > own.start:
                x_hat, toward, arriving = y[chosen], step.toward[k], step.arriving[k]
                if toward is None or arriving is None:  # no row reads this layer
                    return y
                gradient[own] = toward * x_hat
                negative = arriving < 0
                if splits is None:
                    slope, height = xp.where(negative, function.chord[own], duals[own]), function.height[own]
                else:
                    free = splits.active[own] + splits.free[own] * duals[own]
                    slope, height = xp.where(negative, splits.chord[own], free), splits.height[own]
                relaxed = slope * x_hat - height * negative
                if k == 0 and self.planes is not None:
                    above = self.planes.above(points) - (function.chord[own] * x_hat - function.height[own])
                    relaxed += self.planed(negative * above, duals[own])
                    gradient[own] += self.planed(negative * above, arriving)
                y[chosen] = outputs[own] = relaxed
                x_hats[own] = x_hat
            return y

        evaluate(function.stages, points, activation)
        return Sweep(value, gradient, points, outputs, self._joined(step.arriving, duals), x_hats)


class PartStep:
    """Steps of a walk at given dual variables; see the module.

    value: what the ReLUs add to g, (B,). Per ReLU layer, where rows reach it: arriving: ν; taken: λ; toward: ∂λ/∂d.
    planed: what planes take of ν in the first layer, (k, B), ≤ 0; None without.
    """

    shrinks = False

    def __init__(self, parts: Parts, duals: Array) -> None:
        self.parts, self.duals = parts, duals
        self.value: Array | float = 0.0
        count = len(parts.function.own)
        self.arriving: list[Array | None] = [None] * count
        self.taken: list[Array | None] = [None] * count
        self.planed: Array | None = None
        self.toward: list[Array | None] = [None] * count

    def relu(self, k: int, nu: Array) -> Array:
        function, splits = self.parts.function, self.parts.splits
        own, chosen = function.own[k], function.unstable[k]
        if own.stop == own.start:
            return nu
        xp = array_namespace(nu)
        arriving = nu[chosen]
        negative = xp.minimum(arriving, function.zero)
        positive = arriving - negative
        if k == 0 and self.parts.planes is not None:
            self.planed = self.parts.planed(negative, self.duals[own])
            negative = negative - self.planed
        if splits is None:
            toward = positive
            taken = positive * self.duals[own]
            taken += negative * function.chord[own]
            lost = function.height[own].mT @ negative
            lost = lost[0]
        else:
            toward = positive * splits.free[own]
            toward -= splits.sign[own]
            taken = toward * self.duals[own]
            taken += negative * splits.chord[own]
            taken += positive * splits.active[own]
            lost = xp.sum(splits.height[own] * negative, axis=0)
        self.value = self.value - lost
        if nu is self.parts.starts.get(k + 1):
            nu = xp.asarray(nu, copy=True)  # every other ν is the walk's own
        nu[chosen] = taken
        self.arriving[k], self.taken[k], self.toward[k] = arriving, taken, toward
        return nu


def _moved(stage: ColumnStage, make: ArrayMaker) -> ColumnStage:
    sources = tuple((place, make(weight), make(transposed)) for place, weight, transposed in stage.sources)
    return replace(stage, sources=sources, bias=None if stage.bias is None else make(stage.bias))


def _device(values: Array) -> Any:
    return getattr(values, "device", None)


def _reach(input_set: InputSet, make: ArrayMaker) -> Callable[[Array, bool], tuple[Array, Array]]:
    """ν (n, B) → the least ν·x̃ over the set, (B,), and where it is attained, (n, B), if that is asked for."""
    if isinstance(input_set, BoxShaped):
        low, high = input_set.lower, input_set.upper
        center, radius = make((0.5 * low + 0.5 * high)[:, None]), make((0.5 * high - 0.5 * low)[:, None])

        def of_box(nu: Array, pointed: bool) -> tuple[Array, Array]:
            xp = array_namespace(nu)
            value = (center.mT @ nu - radius.mT @ xp.abs(nu))[0]
            return value, center - xp.copysign(radius, nu) if pointed else nu

        return of_box

    def of_set(nu: Array, pointed: bool) -> tuple[Array, Array]:
        xp = array_namespace(nu)
        points = make(input_set.support(on_host(nu).astype(np.float64).T).T)
        return xp.sum(nu * points, axis=0), points

    return of_set
