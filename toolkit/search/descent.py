"""Projected gradient descent on margins, many points at once.

    x̃ ← P(x̃ + η_t·d(−v_t)),  v_t = MOMENTUM·v_{t−1} + g_t/‖g_t‖₁,  g_t ≈ ∇ c·F(x̃),

with d(v) the set's steepest direction (in ℓ∞ the sign of v), settings.attack_steps steps from each start; η_t falls
geometrically from `first_step`·ε to 0.01ε. The best point of all
steps and starts counts. The objective is each row's own margin, and a row's result does not depend on the other rows.

During the first half a switched-off ReLU passes back a share of the gradient (LEAKS, fading to 0), or points where a
whole layer is off would give no direction at all. P projects into the ball and the data domain. A gradient is one
evaluation and one walk back (relaxations/relu.py) through the network's alive part, which on the ball is the network
itself; all rows and starts go together.

Source: Madry et al. 2018, "Towards deep learning models resistant to adversarial attacks" (pgd); Dong et al. 2018,
"Boosting adversarial attacks with momentum" (v_t); Athalye et al. 2018, "Obfuscated gradients", §4.1 (another backward
pass). Checked: the bound is the value of the witness replayed through the original network, and the witness lies in the
ball. Trusted: float64 rounding of the replay.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray, IndexArray
from toolkit.problems.answers import Bound, Status
from toolkit.problems.problem import Problem
from toolkit.problems.reduced_matrices import alive_matrices, folded_columns
from toolkit.relaxations.relu import evaluate, walk

FIRST_STEP, LAST_STEP = 1.0, 0.01  # in units of ε
MOMENTUM = 0.75
LEAKS = (0.05, 0.3)  # of the restarts in turn, at the first step
POINT_ENTRIES = 2_000_000  # points × widest layer at a time
SHARES_AT_A_TIME = 10_000


class LeakStep:
    """An evaluation's activations, and the walk back through them: λ = ν where x̂ > 0, leak·ν elsewhere."""

    shrinks = True

    def __init__(self, leak: FloatArray | float) -> None:
        self.leak = leak
        self.slopes: dict[int, FloatArray] = {}

    def activation(self, k: int, x_hat: FloatArray) -> FloatArray:
        """max(x̂, 0), whose slope is kept for the way back."""
        self.slopes[k] = np.where(x_hat > 0, 1.0, self.leak)
        return np.maximum(x_hat, 0.0, out=x_hat)

    def relu(self, k: int, nu: FloatArray) -> FloatArray:
        return nu * self.slopes[k]


class MarginGradient:
    """c·F and its gradient at many points, each with its own row c of the problem; points are columns."""

    def __init__(self, problem: Problem) -> None:
        matrices = alive_matrices(problem)
        self.stages = matrices.stages
        self.slope = tuple(stage.homogeneous() for stage in self.stages)
        self.rows, self.constant = folded_columns(problem)

    def __call__(
        self, points: FloatArray, row: IndexArray, leak: FloatArray | float = 0.0
    ) -> tuple[FloatArray, FloatArray]:
        """Values and gradients. points: (n, K); row: (K,), the row each point descends on → (K,), (n, K).

        leak: the slope at switched-off ReLUs in the walk back, per point; the gradient is the true one at 0.
        """
        step, rows = LeakStep(leak), {place: own[:, row] for place, own in self.rows.items()}
        with np.errstate(over="ignore", invalid="ignore"):  # a point is judged by its replay alone
            outputs = evaluate(self.stages, points, step.activation)
            value = self.constant[row]
            for place, own in rows.items():
                value = value + np.einsum("ij,ij->j", own, outputs[place])
            gradient, _ = walk(self.slope, rows, step)
        return value, gradient


def polish(problem: Problem, points: ArrayLike, first_step: float = FIRST_STEP) -> list[Bound]:
    """The best point of the descents that start at the given points, for every row.

    points: (k, n), projected into the ball first; every row starts from each of them, settings.attack_steps steps.
    first_step: η_1 in units of ε, > 0; small values stay near the given points. Returns one Bound per row.
    """
    if not first_step > 0:
        raise ValueError(f"first_step must be > 0, got {first_step}")
    starts = problem.input_set.project(np.atleast_2d(np.asarray(points, dtype=np.float64)))
    count = max(1, most_starts(problem) // starts.shape[0])
    chunks = (problem.rows[k : k + count] for k in range(0, problem.rows.shape[0], count))
    return [bound for rows in chunks for bound in _descend(problem.with_rows(rows), starts, first_step)]


def most_starts(problem: Problem) -> int:
    """How many points descend at a time."""
    return max(1, POINT_ENTRIES // max(problem.input_set.size, alive_matrices(problem).widest))


def falling_shares(first: float, last: float, steps: int) -> Iterator[float]:
    """np.geomspace(first, last, steps), number by number: of many steps most may never be taken."""
    top, fall = math.log10(first), (math.log10(last) - math.log10(first)) / max(1, steps - 1)
    for begun in range(0, steps, SHARES_AT_A_TIME):
        places = np.arange(begun, min(begun + SHARES_AT_A_TIME, steps), dtype=np.float64)
        found = np.power(10.0, places * fall + top)
        if begun == 0:
            found[0] = first
        if begun + places.size == steps > 1:
            found[-1] = last
        yield from found.tolist()


def _descend(problem: Problem, starts: FloatArray, first_step: float) -> list[Bound]:
    started = time.perf_counter()
    rows, tries, steps = problem.rows.shape[0], starts.shape[0], problem.settings.attack_steps
    limit = np.inf if problem.settings.time_limit is None else rows * problem.settings.time_limit
    value_and_gradient = MarginGradient(problem)
    row = np.repeat(np.arange(rows), tries)
    input_set = problem.input_set
    shares = falling_shares(first_step, min(LAST_STEP, first_step), steps)
    reach = np.reshape(np.asarray(input_set.reach, dtype=np.float64), (-1, 1))
    points = np.tile(starts.T, (1, rows))
    velocity = np.zeros_like(points)
    leaks = np.tile(np.resize(LEAKS, tries), rows)
    value, gradient = value_and_gradient(points, row, leaks)
    best, best_points, done = value, points.copy(), 0
    while done < steps and time.perf_counter() - started <= limit:
        size = np.abs(gradient).sum(axis=0)
        usable = (size > 0) & np.isfinite(size)
        if not usable.all():  # what overflowed has no direction
            gradient, size = np.where(usable, gradient, 0.0), np.where(usable, size, 1.0)
        velocity *= MOMENTUM
        velocity += gradient / size
        with np.errstate(over="ignore"):  # a step past the largest float is one to the end of the set
            moved = points + next(shares) * reach * input_set.steepest(-velocity)
        points = input_set.project(moved.T).T
        done += 1
        value, gradient = value_and_gradient(points, row, max(0.0, 1.0 - 2.0 * done / steps) * leaks)
        better = np.flatnonzero(value < best)
        best_points[:, better] = points[:, better]
        best = np.minimum(best, value)
    chosen = np.arange(rows) * tries + best.reshape(rows, tries).argmin(axis=1)
    status = Status.COMPUTED if done == steps else Status.TIME_LIMIT
    return witnessed(problem, np.ascontiguousarray(best_points[:, chosen].T), started, status, done * tries)


def witnessed(problem: Problem, witnesses: FloatArray, started: float, status: Status, iterations: int) -> list[Bound]:
    """One Bound per row: its witness replayed through the original network."""
    upper = np.diagonal(problem.replay(witnesses)).tolist() if len(witnesses) else []
    each = (time.perf_counter() - started) / max(1, len(upper))
    return [
        Bound(lower=-np.inf, upper=value, witness=witness, status=status, seconds=each, iterations=iterations)
        for value, witness in zip(upper, witnesses, strict=True)
    ]
