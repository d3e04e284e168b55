"""The optimised dual bound: max g(α) over the slopes α ∈ [0,1] of every objective row's unstable neurons.

Claim: every iterate is a dual feasible point, so the best value seen is a bound whenever the ascent stops; on l,u no
tighter than the LP's own, its maximum is the LP optimum (strong duality).

The gradient comes from one sweep back through the alive network (ν, as in rungs/dual.py) and one forward:
x̃ = argmin ν·x̃ over the ball; then, layer by layer, x̂ = W y + b, ∂g/∂α = max(ν̂,0)·x̂ and
y = α·x̂ where ν̂ > 0, else s·(x̂ − l). Adam climbs along it, projected to [0,1], from the better of α = s (dual) and
CROWN's α, in rounds: within a round the step decays geometrically, each round starts at the best α and lasts longer.

The ascent knows how far it can still get: averaged over iterations, the points (x̃, y) approach an LP optimum; moved
into the triangles max(x̂,0) ≤ y ≤ s·(x̂ − l) they are LP feasible, and their value is never below the LP optimum.
A row stops when this duality gap is at most GAP·scale, scale = max(|g|, LEAST_SCALE·(objective at the centre − g)); at
the end of a round whose second half gained at most GAIN·scale; after MAX_ITERATIONS; when settings.time_limit, times
the number of rows, is over; or, if settings.stop_at is given, once g exceeds it.

The triangles also imply l ≤ x̂ ≤ u, with an indicator a ∈ [0,1] or without, and g has no multiplier for that. For l,u
from interval, dual, crown, alpha or lp these rows are redundant and max g = LP. For l,u tighter than the LP's own, such
as from exact, they are not: the LP may lie above max g, and the points above may leave [l, u] and then bound nothing.

Source: Wong & Kolter 2018, Thm 1 (g); Xu et al. 2021, "Fast and complete" (optimised slopes); Salman et al. 2019, "A
convex relaxation barrier", §4 (strong duality); Kingma & Ba 2015 (Adam); Larsson et al. 1999 (averaged points).
Checked: the returned value is evaluated by the dual rung's own function. Trusted: the given l,u.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from toolkit.arrays import BoolArray, FloatArray, IndexArray
from toolkit.problems.problem import Bound, Problem, Rung, Side, Status
from toolkit.problems.reduced import alive_network
from toolkit.problems.reduced_matrices import alive_matrices, folded_columns
from toolkit.relaxations.relu import chord
from toolkit.rungs.crown import crown_slopes
from toolkit.rungs.dual import certified_values

GAP, GAIN = 2e-4, 1e-4
LEAST_SCALE = 0.05  # of what the objective loses from the ball's centre to the bound
FIRST_ROUND, ROUND_GROWTH, MAX_ITERATIONS = 200, 2, 1400
STEP, STEP_SHRINKS_TO = 0.2, 0.02
MOMENTS, TINY = (0.9, 0.999), 1e-12  # TINY: of the objective's drop
ROUNDING = 1e-9  # of a neuron's range: by how much an averaged point may leave a triangle
AVERAGE = 0.95  # weight of the past in the averaged points
CHECK_EVERY = 10
CHUNK_ENTRIES = 500_000  # rows × widest layer at a time


@dataclass(frozen=True, eq=False)
class Sweep:
    """g and ∇g at some slopes, and the points its two sweeps went through; the problem's rows are columns here.

    value: g, shape (m,). gradient, outputs (the y): per unstable neuron, (N, m). points: x̃, (n, m).
    """

    value: FloatArray
    gradient: FloatArray
    points: FloatArray
    outputs: FloatArray

    def keep(self, columns: BoolArray) -> Sweep:
        """The same for these columns only."""
        rest = self.gradient[:, columns], self.points[:, columns], self.outputs[:, columns]
        return Sweep(self.value[columns], *rest)


class DualFunction:
    """g(α) of a problem's rows over the slopes of all unstable neurons, layer after layer in one array (N, m)."""

    def __init__(self, problem: Problem) -> None:
        self.nu, self.constant = folded_columns(problem)
        self.matrices = alive_matrices(problem)
        self.middle = 0.5 * (problem.ball.lower + problem.ball.upper)[:, None]
        self.radius = 0.5 * (problem.ball.upper - problem.ball.lower)[:, None]
        network = alive_network(problem)
        self.alive = [low.size for low in network.lower]
        self.unstable: list[IndexArray] = [np.flatnonzero(network.unstable(k)) for k in range(len(self.alive))]
        chosen = list(enumerate(self.unstable))
        self.lower = [network.lower[k][index, None] for k, index in chosen]
        self.range = [network.upper[k][index, None] - self.lower[k] for k, index in chosen]
        self.chord = [chord(self.lower[k], network.upper[k][index, None]) for k, index in chosen]
        crown = crown_slopes(problem)
        self.crown = [crown[k][index, None] for k, index in chosen]
        ends = np.cumsum([0, *(index.size for index in self.unstable)])
        self.own = [slice(int(ends[k]), int(ends[k + 1])) for k, _ in chosen]
        self.size = int(ends[-1])

    def keep(self, columns: BoolArray) -> None:
        """Go on with these columns only."""
        self.nu, self.constant = self.nu[:, columns], self.constant[columns]

    def start(self) -> FloatArray:
        """The better of the dual rung's slopes and CROWN's for every column, shape (N, m)."""
        shape = (self.size, self.constant.size)
        starts = ([np.zeros((0, 1)), *own] for own in (self.chord, self.crown))
        dual, crown = (np.broadcast_to(np.concatenate(start), shape) for start in starts)
        return np.where(self.sweep(dual).value >= self.sweep(crown).value, dual, crown)

    def sweep(self, slopes: FloatArray) -> Sweep:
        """g, ∇g and the points of both sweeps. slopes: (N, m) in [0,1]."""
        nu, value, seen = self.nu, self.constant, []
        for k in range(len(self.alive) - 1, -1, -1):
            chosen = self.unstable[k]
            if chosen.size:
                arriving = nu[chosen]
                negative = np.minimum(arriving, 0.0)
                positive = arriving - negative
                value = value - (self.chord[k] * self.lower[k])[:, 0] @ negative
                nu = nu.copy()
                nu[chosen] = positive * slopes[self.own[k]] + negative * self.chord[k]
                seen.append(positive)
            value = value + self.matrices.bias[k][:, 0] @ nu
            nu = self.matrices.backward[k] @ nu
        points = self.middle - np.copysign(self.radius, nu)
        value = value + np.einsum("ij,ij->j", nu, points)
        gradient, outputs = np.empty_like(slopes), np.empty_like(slopes)
        y = points
        for k, chosen in enumerate(self.unstable):
            y = self.matrices.forward[k] @ y + self.matrices.bias[k]
            if chosen.size:
                x_hat, own, positive = y[chosen], self.own[k], seen.pop()
                gradient[own] = positive * x_hat
                outputs[own] = np.where(positive > 0, slopes[own] * x_hat, self.chord[k] * (x_hat - self.lower[k]))
                y[chosen] = outputs[own]
        return Sweep(value, gradient, points, outputs)

    def relaxed_values(self, points: FloatArray, outputs: FloatArray) -> FloatArray:
        """Objective at the LP feasible points next to (x̃, y), shape (m,); +inf where x̂ leaves [l, u] on the way."""
        y, feasible = points, np.ones(points.shape[1], dtype=np.bool_)
        for k, chosen in enumerate(self.unstable):
            y = self.matrices.forward[k] @ y + self.matrices.bias[k]
            if chosen.size:
                x_hat = y[chosen]
                least, most = np.maximum(x_hat, 0.0), self.chord[k] * (x_hat - self.lower[k])
                feasible &= np.all(least <= most + ROUNDING * self.range[k], axis=0)
                y[chosen] = np.clip(outputs[self.own[k]], least, np.maximum(least, most))
        value = np.einsum("ij,ij->j", self.nu, y) + self.constant
        return np.where(feasible, value, np.inf)

    def spread(self, slopes: FloatArray) -> list[FloatArray]:
        """Slopes (N, m) as `certified_values` takes them: (m, n_k) per layer over alive neurons; 0 where none is known
        because l or u is infinite."""
        full = [np.zeros((slopes.shape[1], size)) for size in self.alive]
        for layer, index, own in zip(full, self.unstable, self.own, strict=True):
            layer[:, index] = np.nan_to_num(slopes[own].T)
        return full


class Ascent:
    """Projected Adam on g for several rows of a problem at once, one `step` at a time; rows are columns here.

    best, slopes: the best value of every row so far and where it was found. relaxed: the least value of an LP feasible
    point met so far (+inf: none yet), so that best ≤ max g ≤ relaxed. iterations: steps made.
    """

    def __init__(self, problem: Problem) -> None:
        self.function = DualFunction(problem)
        self.slopes = self.function.start()
        self.sweep = self.function.sweep(self.slopes)
        self.best = self.best_at_half = self.sweep.value
        self.relaxed = np.full(self.best.size, np.inf)
        drop = problem.replay(problem.ball.center)[0] - self.best
        self.least_scale = LEAST_SCALE * drop
        # exponent of the unit that gradients are measured in: squares must neither overflow nor vanish
        self.unit = np.frexp(np.where(np.isfinite(drop) & (drop > 0), drop, 1.0))[1]
        self.mean_points, self.mean_outputs, self.weight = self.sweep.points, self.sweep.outputs, 1.0
        self.iterations, self.round_length = 0, FIRST_ROUND
        self._begin_round()

    def _begin_round(self) -> None:
        self.current, self.round_step = self.slopes, 0
        self.first, self.second = np.zeros_like(self.slopes), np.zeros_like(self.slopes)

    def step(self) -> None:
        """One step of Adam for every row, and new averages of the points."""
        if self.round_step == self.round_length:
            self._begin_round()
            self.round_length *= ROUND_GROWTH
            self.sweep = self.function.sweep(self.current)
        self.round_step += 1
        self.iterations += 1
        self.current = np.clip(self.current + self._move(self.sweep.gradient), 0.0, 1.0)
        self.sweep = self.function.sweep(self.current)
        better = self.sweep.value > self.best
        self.best = np.where(better, self.sweep.value, self.best)
        self.slopes = np.where(better, self.current, self.slopes)
        if self.round_step == self.round_length // 2:
            self.best_at_half = self.best
        self.mean_points = AVERAGE * self.mean_points + self.sweep.points
        self.mean_outputs = AVERAGE * self.mean_outputs + self.sweep.outputs
        self.weight = AVERAGE * self.weight + 1.0

    def _move(self, gradient: FloatArray) -> FloatArray:
        beta, gamma = MOMENTS
        gradient = np.ldexp(gradient, -self.unit)
        self.first = beta * self.first + (1 - beta) * gradient
        self.second = gamma * self.second + (1 - gamma) * gradient**2
        length = STEP * STEP_SHRINKS_TO ** (self.round_step / self.round_length)
        spread = np.sqrt(self.second / (1 - gamma**self.round_step)) + TINY
        return np.asarray(length / (1 - beta**self.round_step) * self.first / spread)

    def finished(self) -> BoolArray:
        """Rows whose duality gap is closed, or whose round, just ended, gained next to nothing in its second half.

        First lowers `relaxed` to the values of the LP feasible points next to the averaged points.
        """
        found = self.function.relaxed_values(self.mean_points / self.weight, self.mean_outputs / self.weight)
        self.relaxed = np.minimum(self.relaxed, found)
        scale = np.maximum(np.abs(self.best), self.least_scale)
        done = self.relaxed - self.best <= GAP * scale
        if self.round_step == self.round_length:
            done |= self.best - self.best_at_half <= GAIN * scale
        return np.asarray(done)

    def keep(self, columns: BoolArray) -> None:
        """Go on with these rows only."""
        self.function.keep(columns)
        self.sweep = self.sweep.keep(columns)
        self.best, self.best_at_half = self.best[columns], self.best_at_half[columns]
        self.relaxed, self.least_scale = self.relaxed[columns], self.least_scale[columns]
        self.unit = self.unit[columns]
        self.slopes, self.current = self.slopes[:, columns], self.current[:, columns]
        self.first, self.second = self.first[:, columns], self.second[:, columns]
        self.mean_points, self.mean_outputs = self.mean_points[:, columns], self.mean_outputs[:, columns]


def alpha_trajectory(problem: Problem, iterations: int) -> FloatArray:
    """The best value of every row after 0, 1, … iterations, without stopping early. Shape (iterations + 1, m)."""
    ascent = Ascent(problem)
    values = [ascent.best]
    for _ in range(iterations):
        ascent.step()
        values.append(ascent.best)
    return np.array(values)


def alpha_rung(problem: Problem) -> list[Bound]:
    """max g(α) of every row to the stopping rule above, in chunks of rows that fit into memory."""
    widest = max(problem.ball.size, alive_matrices(problem).widest)
    count = max(1, CHUNK_ENTRIES // widest)
    chunks = (problem.rows[k : k + count] for k in range(0, problem.rows.shape[0], count))
    with np.errstate(over="ignore", invalid="ignore"):  # iterates may overflow: only what is certified counts
        return [bound for rows in chunks for bound in climb(problem.with_rows(rows))]


def climb(problem: Problem) -> list[Bound]:
    """The ascent of every row of the problem, all at once; rows that have finished leave it."""
    started = time.perf_counter()
    ascent = Ascent(problem)
    rows = problem.rows.shape[0]
    time_limit, stop_at = problem.settings.time_limit, problem.settings.stop_at
    status, iterations, slopes = [Status.COMPUTED] * rows, [0] * rows, ascent.slopes.copy()
    going = np.arange(rows if ascent.function.size else 0)
    while going.size:
        ascent.step()
        late = time_limit is not None and time.perf_counter() - started > rows * time_limit
        if ascent.iterations % CHECK_EVERY and not late:
            continue
        done = ascent.finished()
        decided = ascent.best > (np.inf if stop_at is None else stop_at)
        stopped = done | decided | late | (ascent.iterations >= MAX_ITERATIONS)
        for i in np.flatnonzero(stopped):
            row = int(going[i])
            status[row] = _status(bool(done[i]), bool(decided[i]), late)
            iterations[row], slopes[:, row] = ascent.iterations, ascent.slopes[:, i]
        going = going[~stopped]
        ascent.keep(~stopped)
    lower = certified_values(problem, ascent.function.spread(slopes)).tolist()
    each = (time.perf_counter() - started) / max(1, rows)
    found = zip(lower, status, iterations, strict=True)
    return [
        Bound(lower=value, certified_lower=value, status=how, seconds=each, iterations=count)
        for value, how, count in found
    ]


def _status(done: bool, decided: bool, late: bool) -> Status:
    if late and not done:
        return Status.TIME_LIMIT
    return Status.DECIDED if decided and not done else Status.COMPUTED


RUNG = Rung(
    name="alpha",
    side=Side.LOWER,
    claim="best dual feasible point α ∈ [0, 1], by gradient ascent",
    source="Wong & Kolter 2018; Xu et al. 2021",
    run=alpha_rung,
    certifies=True,
)
