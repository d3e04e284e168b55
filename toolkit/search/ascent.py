"""Gradient ascent on the dual bound: max g(α) over the slopes α ∈ [0,1] of every objective row's unstable neurons.

The gradient comes from one walk back through the alive network (ν, as in relaxations/relu.py) and one forward:
x̃ = argmin ν·x̃ over the ball; then, layer by layer, x̂ = W y + b, ∂g/∂α = max(ν̂,0)·x̂ and
y = α·x̂ where ν̂ > 0, else s·(x̂ − l). Adam climbs along it, projected to [0,1], from the better of α = s (dual) and
CROWN's α, in rounds: within a round the step decays geometrically, each round starts at the best α and lasts longer.

The ascent knows how far it can still get: averaged over iterations, the points (x̃, y) approach an LP optimum; moved
into the triangles max(x̂,0) ≤ y ≤ s·(x̂ − l) they are LP feasible, and their value is never below the LP optimum.
A row is done when this duality gap is at most GAP·scale, scale = max(|g|, LEAST_SCALE·(objective at the centre − g)),
or at the end of a round whose second half gained at most GAIN·scale.

The triangles also imply l ≤ x̂ ≤ u, with an indicator a ∈ [0,1] or without, and g has no multiplier for that. For l,u
from interval, dual, crown, alpha or lp these rows are redundant and max g = LP. For l,u tighter than the LP's own, such
as from exact, they are not: the LP may lie above max g, and the points above may leave [l, u] and then bound nothing.

Source: Wong & Kolter 2018, Thm 1 (g); Xu et al. 2021, "Fast and complete" (optimised slopes); Salman et al. 2019, "A
convex relaxation barrier", §4 (strong duality); Kingma & Ba 2015 (Adam); Larsson et al. 1999 (averaged points).
Nothing here is trusted: whoever uses the slopes evaluates them again (rungs/dual.py).
"""

from __future__ import annotations

import numpy as np

from toolkit.arrays import BoolArray, FloatArray
from toolkit.problems.problem import Problem
from toolkit.relaxations.relu import evaluate
from toolkit.search.dual_function import DualFunction, Parts, Sweep

GAP, GAIN = 2e-4, 1e-4
LEAST_SCALE = 0.05  # of what the objective loses from the ball's centre to the bound
FIRST_ROUND, ROUND_GROWTH = 200, 2
STEP, STEP_SHRINKS_TO = 0.2, 0.02
MOMENTS, LEAST_SPREAD = (0.9, 0.999), 1e-12  # LEAST_SPREAD: of the objective's drop
OUTSIDE = 1e-9  # of a neuron's range: by how much an averaged point may leave a triangle
AVERAGE = 0.95  # weight of the past in the averaged points


def best_start(parts: Parts) -> FloatArray:
    """The better of the dual rung's slopes and CROWN's for every row, shape (N, m)."""
    shape = (parts.function.size, parts.constant.size)
    dual, crown = (np.broadcast_to(start, shape) for start in parts.function.starting_slopes())
    return np.where(parts.values(dual) >= parts.values(crown), dual, crown)


def relaxed_values(parts: Parts, points: FloatArray, outputs: FloatArray) -> FloatArray:
    """Objective at the LP feasible points next to (x̃, y), shape (m,); +inf where x̂ leaves [l, u] on the way."""
    function = parts.function
    feasible = np.ones(points.shape[1], dtype=np.bool_)

    def activation(k: int, y: FloatArray) -> FloatArray:
        chosen, own = function.unstable[k], function.own[k]
        if chosen.size:
            x_hat, width = y[chosen], function.high[own] - function.low[own]
            least, most = np.maximum(x_hat, 0.0), function.chord[own] * (x_hat - function.low[own])
            np.logical_and(feasible, np.all(least <= most + OUTSIDE * width, axis=0), out=feasible)
            y[chosen] = np.clip(outputs[own], least, np.maximum(least, most))
        return y

    reached, value = evaluate(function.stages, points, activation), parts.constant
    for place, nu in parts.starts.items():
        value = value + np.einsum("ij,ij->j", nu, reached[place])
    return np.where(feasible, value, np.inf)


class Ascent:
    """Projected Adam on g for several rows of a problem at once, one `step` at a time; rows are columns here.

    best, slopes: the best value of every row so far and where it was found. relaxed: the least value of an LP feasible
    point met so far (+inf: none yet), so that best ≤ max g ≤ relaxed. iterations: steps made.
    """

    def __init__(self, problem: Problem) -> None:
        self.parts = DualFunction(problem).parts()
        self.slopes = best_start(self.parts)
        self.sweep = self.parts.sweep(self.slopes)
        self.best = self.best_at_half = self.sweep.value
        self.relaxed = np.full(self.best.size, np.inf)
        drop = problem.replay(problem.input_set.center)[0] - self.best
        self.least_scale = LEAST_SCALE * drop
        # gradients are measured in units of the drop: their squares must neither overflow nor vanish
        exponent = np.frexp(np.where(np.isfinite(drop) & (drop > 0), drop, 1.0))[1]
        self.per_unit = np.ldexp(1.0, -np.maximum(exponent, -1000))
        self.mean_points, self.mean_outputs, self.weight = self.sweep.points.copy(), self.sweep.outputs.copy(), 1.0
        self.iterations, self.round_length = 0, FIRST_ROUND
        self._begin_round()

    def _begin_round(self) -> None:
        self.current, self.round_step = self.slopes, 0
        self.first, self.second = np.zeros(self.slopes.shape), np.zeros(self.slopes.shape)

    def step(self) -> None:
        """One step of Adam for every row, and new averages of the points."""
        if self.round_step == self.round_length:
            self._begin_round()
            self.round_length *= ROUND_GROWTH
            self.sweep = self.parts.sweep(self.current)
        self.round_step += 1
        self.iterations += 1
        self.current = self._moved(self.sweep.gradient)
        self.sweep = self.parts.sweep(self.current)
        better = self.sweep.value > self.best
        self.best = np.where(better, self.sweep.value, self.best)
        self.slopes = np.where(better, self.current, self.slopes)
        if self.round_step == self.round_length // 2:
            self.best_at_half = self.best
        for mean, last in ((self.mean_points, self.sweep.points), (self.mean_outputs, self.sweep.outputs)):
            mean *= AVERAGE
            mean += last
        self.weight = AVERAGE * self.weight + 1.0

    def _moved(self, gradient: FloatArray) -> FloatArray:
        """The slopes after one step of Adam along the gradient, projected to [0, 1]; in place where that is safe."""
        beta, gamma = MOMENTS
        gradient = gradient * self.per_unit
        self.first *= beta
        self.first += (1 - beta) * gradient
        self.second *= gamma
        self.second += (1 - gamma) * np.square(gradient, out=gradient)
        length = STEP * STEP_SHRINKS_TO ** (self.round_step / self.round_length)
        spread = self.second / (1 - gamma**self.round_step)
        np.sqrt(spread, out=spread)
        spread += LEAST_SPREAD
        move: FloatArray = length / (1 - beta**self.round_step) * self.first
        move /= spread
        move += self.current
        return np.minimum(np.maximum(move, 0.0, out=move), 1.0, out=move)

    def finished(self) -> BoolArray:
        """Rows whose duality gap is closed, or whose round, just ended, gained next to nothing in its second half.

        First lowers `relaxed` to the values of the LP feasible points next to the averaged points.
        """
        found = relaxed_values(self.parts, self.mean_points / self.weight, self.mean_outputs / self.weight)
        self.relaxed = np.minimum(self.relaxed, found)
        scale = np.maximum(np.abs(self.best), self.least_scale)
        done = self.relaxed - self.best <= GAP * scale
        if self.round_step == self.round_length:
            done |= self.best - self.best_at_half <= GAIN * scale
        return np.asarray(done)

    def keep(self, columns: BoolArray) -> None:
        """Go on with these rows only."""
        self.parts = self.parts.keep(columns)
        self.sweep = Sweep(*(one[..., columns] for one in self.sweep))
        self.best, self.best_at_half = self.best[columns], self.best_at_half[columns]
        self.relaxed, self.least_scale = self.relaxed[columns], self.least_scale[columns]
        self.per_unit = self.per_unit[columns]
        self.slopes, self.current = self.slopes[:, columns], self.current[:, columns]
        self.first, self.second = self.first[:, columns], self.second[:, columns]
        self.mean_points, self.mean_outputs = self.mean_points[:, columns], self.mean_outputs[:, columns]
