"""Attacks: points of the ball with a small margin, and so upper bounds on its minimum.

- fgsm: one step of size ε against the sign of the gradient, x̃ = P(x − ε·sign ∇ c·F(x)).
- pgd:  x̃ ← P(x̃ − η_t·sign v_t),  v_t = MOMENTUM·v_{t−1} + g_t/‖g_t‖₁,  g_t ≈ ∇ c·F(x̃),  settings.attack_steps steps
  each from the ball's centre and from random corners and points in turn; η_t falls geometrically from ε to 0.01ε. The
  best point of all steps and restarts counts. The objective is each row's own margin.

During the first half of pgd a switched-off ReLU passes back a share of the gradient (LEAKS, fading to 0), or points
where a whole layer is off would give no direction at all. P projects into the ball and the data domain. A gradient is
one sweep forward and one back through the network's alive part, which on the ball is the network itself; all rows and
restarts go together. A row's result does not depend on the other rows asked for. l,u steer pgd, through the neurons
that pass nothing back, but not the value of the point it finds.

Source: Goodfellow et al. 2015, "Explaining and harnessing adversarial examples" (fgsm); Madry et al. 2018, "Towards
deep learning models resistant to adversarial attacks" (pgd); Dong et al. 2018, "Boosting adversarial attacks with
momentum" (v_t); Athalye et al. 2018, "Obfuscated gradients", §4.1 (another backward pass). Checked: the bound is the
value of the witness replayed through the original network, and the witness lies in the ball. Trusted: float64 rounding
of the replay.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray, IndexArray
from toolkit.problems.answers import Bound, RowBounds, Status
from toolkit.problems.problem import Problem
from toolkit.problems.reduced_matrices import alive_matrices, folded_columns
from toolkit.rungs.rung import Cost, Rung, Side

FIRST_STEP, LAST_STEP = 1.0, 0.01  # in units of ε
MOMENTUM = 0.75
LEAKS = (0.05, 0.3)  # of the restarts in turn, at the first step
CHUNK_ENTRIES = 2_000_000  # points × widest layer at a time


class MarginGradient:
    """c·F and its gradient at many points, each with its own row c of the problem; points are columns."""

    def __init__(self, problem: Problem) -> None:
        self.matrices = alive_matrices(problem)
        self.rows, self.constant = folded_columns(problem)

    def __call__(
        self, points: FloatArray, row: IndexArray, leak: FloatArray | float = 0.0
    ) -> tuple[FloatArray, FloatArray]:
        """Values and gradients. points: (n, K); row: (K,), the row each point descends on → (K,), (n, K).

        leak: the slope at switched-off ReLUs in the sweep back, per point; the gradient is the true one at 0.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # a point is judged by its replay alone
            return self._evaluate(points, row, leak)

    def _evaluate(self, points: FloatArray, row: IndexArray, leak: FloatArray | float) -> tuple[FloatArray, FloatArray]:
        slopes, y = [], points
        for weight, bias in zip(self.matrices.forward, self.matrices.bias, strict=True):
            x_hat = weight @ y + bias
            slopes.append(np.where(x_hat > 0, 1.0, leak))
            y = np.maximum(x_hat, 0.0)
        gradient = self.rows[:, row]
        value = np.einsum("ij,ij->j", gradient, y) + self.constant[row]
        for weight, slope in zip(reversed(self.matrices.backward), reversed(slopes), strict=True):
            gradient = weight @ (gradient * slope)
        return value, gradient


def fgsm_rung(problem: Problem) -> RowBounds:
    """One signed gradient step of size ε from the centre, for every row."""
    started = time.perf_counter()
    rows = np.arange(problem.rows.shape[0])
    centres = np.repeat(problem.input_set.center[:, None], rows.size, axis=1)
    _, gradient = MarginGradient(problem)(centres, rows)
    witnesses = problem.input_set.argmin_linear(gradient.T)
    return RowBounds.of(_bounds(problem, witnesses, started, Status.COMPUTED, 1))


def pgd_rung(problem: Problem) -> RowBounds:
    """The best point of settings.attack_restarts descents for every row: from the centre, then from random points."""
    ball, others, seed = problem.input_set, problem.settings.attack_restarts - 1, problem.settings.seed
    corner = np.arange(others) % 2 == 0
    random = np.where(corner[:, None], ball.corners(others, seed), ball.sample(others, seed))
    return RowBounds.of(polish(problem, np.concatenate([ball.center[None], random])))


def polish(problem: Problem, points: ArrayLike, first_step: float = FIRST_STEP) -> list[Bound]:
    """The best point of the descents that start at the given points, for every row.

    points: (k, n), projected into the ball first; every row starts from each of them, settings.attack_steps steps.
    first_step: η_1 in units of ε, > 0; small values stay near the given points. Returns one Bound per row.
    """
    if not first_step > 0:
        raise ValueError(f"first_step must be > 0, got {first_step}")
    starts = problem.input_set.project(np.atleast_2d(np.asarray(points, dtype=np.float64)))
    widest = max(problem.input_set.size, alive_matrices(problem).widest)
    count = max(1, CHUNK_ENTRIES // (widest * starts.shape[0]))
    chunks = (problem.rows[k : k + count] for k in range(0, problem.rows.shape[0], count))
    return [bound for rows in chunks for bound in _descend(problem.with_rows(rows), starts, first_step)]


def _descend(problem: Problem, starts: FloatArray, first_step: float) -> list[Bound]:
    started = time.perf_counter()
    rows, tries, steps = problem.rows.shape[0], starts.shape[0], problem.settings.attack_steps
    limit = np.inf if problem.settings.time_limit is None else rows * problem.settings.time_limit
    value_and_gradient = MarginGradient(problem)
    row = np.repeat(np.arange(rows), tries)
    input_set = problem.input_set
    shares = np.geomspace(first_step, min(LAST_STEP, first_step), steps)
    lengths = np.multiply.outer(shares, input_set.reach).reshape(steps, -1, 1)
    points = np.tile(starts.T, (1, rows))
    velocity = np.zeros_like(points)
    leaks = np.outer(np.maximum(0.0, 1.0 - 2.0 * np.arange(steps + 1) / steps), np.tile(np.resize(LEAKS, tries), rows))
    value, gradient = value_and_gradient(points, row, leaks[0])
    best, best_points, done = value, points, 0
    while done < steps and time.perf_counter() - started <= limit:
        size = np.abs(gradient).sum(axis=0)
        usable = (size > 0) & np.isfinite(size)  # what overflowed has no direction
        velocity = MOMENTUM * velocity + np.where(usable, gradient, 0.0) / np.where(usable, size, 1.0)
        points = input_set.project((points - lengths[done] * input_set.steepest(velocity)).T).T
        done += 1
        value, gradient = value_and_gradient(points, row, leaks[done])
        best_points = np.where(value < best, points, best_points)
        best = np.minimum(best, value)
    chosen = np.arange(rows) * tries + best.reshape(rows, tries).argmin(axis=1)
    status = Status.COMPUTED if done == steps else Status.TIME_LIMIT
    return _bounds(problem, np.ascontiguousarray(best_points[:, chosen].T), started, status, done * tries)


def _bounds(problem: Problem, witnesses: FloatArray, started: float, status: Status, iterations: int) -> list[Bound]:
    """One Bound per row: its witness replayed through the original network."""
    upper = np.diagonal(problem.replay(witnesses)).tolist() if len(witnesses) else []
    each = (time.perf_counter() - started) / max(1, len(upper))
    return [
        Bound(lower=-np.inf, upper=value, witness=witness, status=status, seconds=each, iterations=iterations)
        for value, witness in zip(upper, witnesses, strict=True)
    ]


FGSM = Rung(
    name="fgsm",
    side=Side.UPPER,
    claim="margin after one signed gradient step",
    source="Goodfellow et al. 2015",
    run=fgsm_rung,
    cost=Cost.ITERATIVE,
    uses_relu_bounds=False,
)
PGD = Rung(
    name="pgd",
    side=Side.UPPER,
    claim="least margin along projected gradient descents",
    source="Madry et al. 2018; Dong et al. 2018",
    run=pgd_rung,
    cost=Cost.ITERATIVE,
)
