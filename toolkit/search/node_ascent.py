"""A few steps of Adam on the dual variables of many nodes at once, from warm starts; nodes that are done leave.

A node's bound is the best value on the way. Steps are measured in each variable's own unit: 1 for a slope, the mean
|ν| of the node's layer for a split neuron's multiplier. What the last sweep says of a free neuron's gap,
|ν|·|y − max(x̂, 0)|, is how much of the bound's slack its relaxation takes up: the score for branching.

Source: Kingma & Ba 2015 (Adam); Wang et al. 2021, "Beta-CROWN" (α and β together); De Palma et al. 2021, "Improved
branch and bound for neural network verification via Lagrangian decomposition" (warm starts). Trusted: nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace

from toolkit.arrays import Array, BoolArray, FloatArray, IndexArray
from toolkit.search.array_makers import on_host
from toolkit.search.dual_function import Parts, Sweep

MOMENTS = (0.9, 0.99)
LEAST_SPREAD, LEAST_UNIT = 1e-12, 1e-9
LEAVING = (1, 3, 6, 12, 24, 48)  # steps after which nodes above their cutoff leave
WORTH_LEAVING = 0.2  # of the nodes: copying the others costs less than a step


@dataclass(frozen=True)
class Pace:
    """How far one ascent goes: so many steps, whose size falls geometrically from `first` to `last`."""

    steps: int
    first: float = 0.3
    last: float = 0.05


@dataclass(frozen=True, eq=False)
class Climbed:
    """What an ascent reached; numpy. value: (B,); duals: where, (N, B); of the last sweep, which may be old for nodes
    that were done before the end, scores of the free neurons and ν, (N, B), and points x̃, (n, B)."""

    value: FloatArray
    duals: FloatArray
    scores: FloatArray
    arriving: FloatArray
    points: FloatArray


def ascend(parts: Parts, duals: Array, cutoff: Array, pace: Pace, deadline: float = np.inf) -> Climbed:
    """Raise g of every node from its `duals` (N, B) until it exceeds its cutoff (B,), the steps are made or
    the deadline (of time.perf_counter()) is over."""
    xp = array_namespace(duals)
    sweep = parts.sweep(duals)
    adam = DualMoves(parts, duals, sweep)
    best, where = sweep.value, duals
    found = [on_host(one) for one in (best, where, _scores(parts, sweep), sweep.arriving, sweep.points)]
    going: IndexArray = np.arange(found[0].size)
    for t in range(1, pace.steps + 1):
        adam.move(sweep.gradient, pace.first * (pace.last / pace.first) ** (t / pace.steps))
        sweep = parts.sweep(adam.duals)
        better = sweep.value > best
        best, where = xp.where(better, sweep.value, best), xp.where(better, adam.duals, where)
        last = t == pace.steps or time.perf_counter() > deadline
        done: BoolArray = (
            on_host(best >= cutoff).astype(np.bool_) if last or t in LEAVING else np.zeros(0, dtype=np.bool_)
        )
        if last or (done.size and done.mean() >= WORTH_LEAVING):
            reached = (best, where, _scores(parts, sweep), sweep.arriving, sweep.points)
            for whole, own in zip(found, reached, strict=True):
                whole[..., going] = on_host(own)
            if last or done.all():
                break
            keep = np.flatnonzero(~done)
            going, chosen = going[keep], xp.asarray(keep, device=getattr(best, "device", None))
            parts, best, where, cutoff = parts.keep(chosen), best[chosen], where[:, chosen], cutoff[chosen]
            sweep = Sweep(*(one[..., chosen] for one in sweep))
            adam.keep(parts, chosen)
    return Climbed(*found)


def _scores(parts: Parts, sweep: Sweep) -> Array:
    """|ν|·|y − max(x̂, 0)| of free neurons, 0 of split ones, (N, B)."""
    xp = array_namespace(sweep.value)
    gap = xp.abs(sweep.outputs - xp.maximum(sweep.x_hat, parts.function.zero)) * xp.abs(sweep.arriving)
    return gap if parts.splits is None else gap * parts.splits.free


class DualMoves:
    """Moments of the gradient, and the variables they move; columns are nodes."""

    def __init__(self, parts: Parts, duals: Array, sweep: Sweep) -> None:
        xp = array_namespace(duals)
        self.parts, self.duals, self.count = parts, duals, 0
        self.first, self.second = xp.zeros_like(duals), xp.zeros_like(duals)
        self.ceiling, self.unit = parts.ceiling(), None
        if parts.splits is not None:
            free = parts.splits.free
            own = [xp.abs(sweep.arriving[one]) for one in parts.function.own if one.stop > one.start]
            units = [xp.mean(size, axis=0, keepdims=True) + 0 * size + LEAST_UNIT for size in own]
            self.unit = xp.where(free > 0, free, xp.concat(units, axis=0))

    def move(self, gradient: Array, length: float) -> None:
        """One step of this length along the gradient, projected."""
        xp = array_namespace(gradient)
        beta, gamma = MOMENTS
        self.count += 1
        if self.unit is not None:  # in its own unit a variable's slope is that times the unit
            gradient = gradient * self.unit
        self.first *= beta
        self.first += (1 - beta) * gradient
        self.second *= gamma
        self.second += (1 - gamma) * (gradient * gradient)
        spread = xp.sqrt(self.second)
        spread *= (1 - gamma**self.count) ** -0.5
        spread += LEAST_SPREAD
        step = self.first / spread
        step *= length / (1 - beta**self.count)
        if self.unit is not None:
            step *= self.unit
        step += self.duals
        self.duals = xp.minimum(xp.maximum(step, self.parts.function.zero), self.ceiling)

    def keep(self, parts: Parts, columns: Array) -> None:
        """Go on with these nodes only."""
        self.parts, self.duals = parts, self.duals[:, columns]
        self.first, self.second = self.first[:, columns], self.second[:, columns]
        if self.unit is not None:
            self.unit, self.ceiling = self.unit[:, columns], self.ceiling[:, columns]
