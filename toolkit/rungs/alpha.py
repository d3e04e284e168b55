"""The optimised dual bound: max g(α) over the slopes α ∈ [0,1] of every objective row's unstable neurons.

Claim: every iterate is a dual feasible point, so the best value seen is a bound whenever the ascent stops; on l,u no
tighter than the LP's own, its maximum is the LP optimum (strong duality).

The gradient comes from one sweep back through the alive network (ν, as in rungs/dual.py) and one forward:
x̃ = argmin ν·x̃ over the ball; then, layer by layer, x̂ = W y + b, ∂g/∂α = max(ν̂,0)·x̂ and
y = α·x̂ where ν̂ > 0, else s·(x̂ − l). Adam climbs along it, projected to [0,1], from the better of α = s (dual) and
CROWN's α, in rounds: within a round the step decays geometrically, each round starts at the best α and lasts longer.

The ascent knows how far it can still get: averaged over iterations, the points (x̃, y) approach an LP optimum; moved
into the triangles max(x̂,0) ≤ y ≤ s·(x̂ − l) they are LP feasible, and their value is never below the LP optimum.
A row stops when this duality gap is at most GAP·|g|, when a whole round gained less than GAIN·|g|, after
MAX_ITERATIONS, at the time limit, or, if settings.stop_at is given, once g exceeds it.

Relaxing the indicators also implies l ≤ x̂ ≤ u (as do the triangle's own three inequalities), which g has no multiplier
for. For l,u from interval, dual, crown, alpha or lp these rows are redundant and max g = LP; for l,u tighter than the
LP gives, such as from exact, the LP may lie above max g, and the points above may not be feasible.

Source: Wong & Kolter 2018, Thm 1 (g); Xu et al. 2021, "Fast and complete" (optimised slopes); Salman et al. 2019, "A
convex relaxation barrier", §4 (strong duality); Kingma & Ba 2015 (Adam); Larsson et al. 1999 (averaged points).
Checked: the returned value is evaluated by the dual rung's own function. Trusted: float64 rounding, and the given l,u.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from toolkit.alive import AliveNetwork, alive_network, folded_rows
from toolkit.balls import FloatArray
from toolkit.layers import IndexArray
from toolkit.problem import BoolArray, Bound, Problem, Rung, Side, Status
from toolkit.rungs.crown import crown_slopes
from toolkit.rungs.dual import certified_values, upper_slope

GAP, GAIN = 2e-4, 1e-4
LEAST_SCALE = 0.05  # of what the objective loses from the ball's centre to the bound
FIRST_ROUND, ROUND_GROWTH, MAX_ITERATIONS = 200, 2, 1400
STEP, STEP_SHRINKS_TO = 0.2, 0.02
MOMENTS, TINY = (0.9, 0.999), 1e-12
AVERAGE = 0.95  # weight of the past in the averaged points
CHECK_EVERY = 10
CHUNK_ENTRIES = 2_000_000  # rows × widest layer at a time


@dataclass(frozen=True, eq=False)
class Sweep:
    """g and ∇g at some slopes, and the points its two sweeps went through.

    value: g, shape (m,). gradient, outputs (the y): per row and unstable neuron, (m, N). points: x̃, (m, n).
    """

    value: FloatArray
    gradient: FloatArray
    points: FloatArray
    outputs: FloatArray

    def keep(self, rows: BoolArray) -> Sweep:
        """The same for these rows only."""
        return Sweep(self.value[rows], self.gradient[rows], self.points[rows], self.outputs[rows])


class DualFunction:
    """g(α) of a problem's rows over the slopes of all unstable neurons, layer after layer in one array (m, N)."""

    def __init__(self, problem: Problem) -> None:
        rows, self.constant = folded_rows(problem)
        self.rows: FloatArray = rows.toarray() if sp.issparse(rows) else np.asarray(rows, dtype=np.float64)
        self.network: AliveNetwork = alive_network(problem)
        self.middle = 0.5 * (problem.ball.lower + problem.ball.upper)
        self.radius = 0.5 * (problem.ball.upper - problem.ball.lower)
        depth = range(len(self.network.layers))
        self.unstable: list[IndexArray] = [np.flatnonzero(self.network.unstable(k)) for k in depth]
        self.lower = [self.network.lower[k][self.unstable[k]] for k in depth]
        self.chord = [upper_slope(self.lower[k], self.network.upper[k][self.unstable[k]]) for k in depth]
        ends = np.cumsum([0, *(index.size for index in self.unstable)])
        self.columns = [slice(int(ends[k]), int(ends[k + 1])) for k in depth]
        self.size = int(ends[-1])

    def keep(self, rows: BoolArray) -> None:
        """Go on with these rows only."""
        self.rows, self.constant = self.rows[rows], self.constant[rows]

    def sweep(self, slopes: FloatArray) -> Sweep:
        """g, ∇g and the points of both sweeps. slopes: (m, N) in [0,1]."""
        nu, value, seen = self.rows, self.constant, []
        for k in range(len(self.network.layers) - 1, -1, -1):
            layer, chosen = self.network.layers[k], self.unstable[k]
            if chosen.size:
                arriving = nu[:, chosen]
                negative = np.minimum(arriving, 0.0)
                positive = arriving - negative
                value = value - negative @ (self.chord[k] * self.lower[k])
                nu = nu.copy()
                nu[:, chosen] = positive * slopes[:, self.columns[k]] + negative * self.chord[k]
                seen.append(positive)
            value = value + nu @ layer.bias_vector
            nu = layer.adjoint(nu)
        points = self.middle - np.copysign(self.radius, nu)
        value = value + np.einsum("ij,ij->i", nu, points)
        gradient, outputs = np.zeros_like(slopes), np.zeros_like(slopes)
        y = points
        for k, layer in enumerate(self.network.layers):
            y = layer.forward(y)
            if self.unstable[k].size:
                x_hat, own, positive = y[:, self.unstable[k]], self.columns[k], seen.pop()
                gradient[:, own] = positive * x_hat
                over = self.chord[k] * (x_hat - self.lower[k])
                outputs[:, own] = np.where(positive > 0, slopes[:, own] * x_hat, over)
                y[:, self.unstable[k]] = outputs[:, own]
        return Sweep(value, gradient, points, outputs)

    def relaxed_values(self, points: FloatArray, outputs: FloatArray) -> FloatArray:
        """Objective at the LP feasible points next to (x̃, y), shape (m,); +inf where x̂ leaves [l, u] on the way."""
        y, feasible = points, np.ones(points.shape[0], dtype=np.bool_)
        for k, layer in enumerate(self.network.layers):
            y = layer.forward(y)
            if self.unstable[k].size:
                x_hat = y[:, self.unstable[k]]
                least, most = np.maximum(x_hat, 0.0), self.chord[k] * (x_hat - self.lower[k])
                feasible &= np.all(least <= most + 1e-9 * (1.0 - self.lower[k]), axis=1)
                y[:, self.unstable[k]] = np.clip(outputs[:, self.columns[k]], least, np.maximum(least, most))
        value = np.einsum("ij,ij->i", self.rows, y) + self.constant
        return np.where(feasible, value, np.inf)

    def starts(self, problem: Problem) -> tuple[FloatArray, FloatArray]:
        """The slopes of the dual rung and of CROWN, shape (N,) each."""
        crown = [full[index] for full, index in zip(crown_slopes(problem), self.unstable, strict=True)]
        return np.concatenate([np.zeros(0), *self.chord]), np.concatenate([np.zeros(0), *crown])

    def spread(self, slopes: FloatArray) -> list[FloatArray]:
        """Slopes (m, N) as `certified_values` takes them: (m, n_k) per layer over alive neurons."""
        full = [np.zeros((slopes.shape[0], low.size)) for low in self.network.lower]
        for layer, index, own in zip(full, self.unstable, self.columns, strict=True):
            layer[:, index] = slopes[:, own]
        return full


class Ascent:
    """Projected Adam on g for several rows at once, one `step` at a time.

    best, slopes: the best value of every row so far and where it was found. relaxed: the least value of an LP feasible
    point met so far (+inf: none yet), so that best ≤ max g ≤ relaxed. iterations: steps made.
    """

    def __init__(self, problem: Problem) -> None:
        self.function = DualFunction(problem)
        rows = self.function.rows.shape[0]
        dual, crown = (np.tile(start, (rows, 1)) for start in self.function.starts(problem))
        from_dual = self.function.sweep(dual).value >= self.function.sweep(crown).value
        self.slopes = np.where(from_dual[:, None], dual, crown)
        self.sweep = self.function.sweep(self.slopes)
        self.best = self.best_at_half = self.sweep.value
        self.relaxed = np.full(rows, np.inf)
        self.least_scale = LEAST_SCALE * (problem.replay(problem.ball.center)[0] - self.best)
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
        self.slopes = np.where(better[:, None], self.current, self.slopes)
        if self.round_step == self.round_length // 2:
            self.best_at_half = self.best
        self.mean_points = AVERAGE * self.mean_points + self.sweep.points
        self.mean_outputs = AVERAGE * self.mean_outputs + self.sweep.outputs
        self.weight = AVERAGE * self.weight + 1.0

    def _move(self, gradient: FloatArray) -> FloatArray:
        beta, gamma = MOMENTS
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

    def keep(self, rows: BoolArray) -> None:
        """Go on with these rows only."""
        self.function.keep(rows)
        self.sweep = self.sweep.keep(rows)
        self.slopes, self.current = self.slopes[rows], self.current[rows]
        self.best, self.best_at_half = self.best[rows], self.best_at_half[rows]
        self.relaxed, self.least_scale = self.relaxed[rows], self.least_scale[rows]
        self.first, self.second = self.first[rows], self.second[rows]
        self.mean_points, self.mean_outputs = self.mean_points[rows], self.mean_outputs[rows]


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
    widest = max([problem.network.input_size, *(index.size for index in alive_network(problem).alive)])
    count = max(1, CHUNK_ENTRIES // widest)
    chunks = (problem.rows[k : k + count] for k in range(0, problem.rows.shape[0], count))
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
            iterations[row], slopes[row] = ascent.iterations, ascent.slopes[i]
        going = going[~stopped]
        ascent.keep(~stopped)
    lower = certified_values(problem, ascent.function.spread(slopes)).tolist()
    each = (time.perf_counter() - started) / max(1, rows)
    found = zip(lower, status, iterations, strict=True)
    return [Bound(lower=value, status=how, seconds=each, iterations=count) for value, how, count in found]


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
)
