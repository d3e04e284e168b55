"""Falsification: a point of the set at which some row is ≤ 0, sought in rounds of growing effort.

Round r descends from s·2^r starts a row (s: FIRST_STARTS), all rows together, and ends at the first point that proves
its row ≤ 0 in real arithmetic: this answers a sign, and says little of a row's minimum, which is pgd's to bound.

- Few inputs (a box of at most FEW_INPUTS): every start is the best for its row of SCREENED random points, or, one in
  NEAR, lies beside the row's best point so far; the descent is Adam's, 100 short steps, x̃ ← P(x̃ − η_t·ε·m̂_t/√v̂_t),
  for minima narrower than a sign step.
- Many: the centre, then random corners and points in turn; sign steps with momentum (search/descent.py), from ε down to
  0.01ε, each start with one of FADING_LEAKS in turn, the share of the gradient that a switched-off ReLU
  passes back in the first half. Where gradients vanish, small ones find what 0 and larger ones miss. Every other round
  on a box is Adam's.

It needs no l,u: they leave out neurons that are always off, no more. Source: Kingma & Ba 2015, "Adam"; Dong et al.
2018, "Boosting adversarial attacks with momentum"; Athalye et al. 2018, "Obfuscated gradients", §4.1. Checked: every
point that ends the search, by replay through the original network with rounding against it. Trusted: nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from toolkit.arrays import FloatArray, IndexArray
from toolkit.data.arguments import optional_number, whole_number
from toolkit.networks.replay import exact_within, replay_margins
from toolkit.problems.answers import Bound, Status
from toolkit.problems.boxes import BoxShaped
from toolkit.problems.input_set import InputSet
from toolkit.problems.problem import Problem
from toolkit.problems.reduced_matrices import alive_matrices
from toolkit.search.descent import LAST_STEP, MOMENTUM, POINT_ENTRIES, MarginGradient, witnessed

FIRST_STARTS = (20, 5)  # where inputs are few, and where they are many
MOST_ROUNDS = 12
FEW_INPUTS = 24
SCREENED = 100
NEAR = 3  # every third start lies beside the best point so far, as far as 10^NEARNESS in units of ε
NEARNESS = (-2.0, -0.3)
FADING_LEAKS = (0.0, 0.01, 0.02, 0.05, 0.1)
SIGN_STEPS, ADAM_STEPS = 40, 100
ADAM_FIRST, ADAM_LAST = (0.1, 0.03), 0.001  # in units of ε
ADAM_MEAN, ADAM_SQUARE = 0.9, 0.99
DEEPER = 3  # steps more after the first point ≤ 0, so that rounding leaves it so
ENTRIES_AT_A_TIME = 200_000  # points × widest layer at a time: a step is short then, and the clock is kept


@dataclass(frozen=True, eq=False)
class Falsification:
    """What the rounds have found.

    bounds: one per row, the best point seen for it with its value replayed. witness: the point that proves a row ≤ 0 in
    real arithmetic, None without one. rounds: how many are complete in all: a later call begins with the next.
    """

    bounds: list[Bound]
    witness: FloatArray | None
    rounds: int


def falsify(
    problem: Problem, seconds: float | None = None, rounds: int = MOST_ROUNDS, earlier: Falsification | None = None
) -> Falsification:
    """Search for a point that makes a row ≤ 0, until one is proven to, `rounds` are complete or the time is over.

    seconds: for all rows together, None: no limit. rounds: in all, with those of the earlier search, which goes on from
    its points; that is one of the same rows, whatever l,u it had. settings.seed chooses the starts; other settings are
    not read. Raises ValueError for numbers out of range and for an earlier search of other rows.
    """
    limit, rounds = optional_number("seconds", seconds), whole_number("rounds", rounds, 0)
    search = _Search(problem, limit)
    begun = 0 if earlier is None else search.resume(earlier)
    while begun < rounds and search.witness is None and not search.over():
        if not search.round(begun):
            break
        begun += 1
    return Falsification(search.bounds(), search.witness, begun)


def has_few_inputs(input_set: InputSet) -> bool:
    """Whether points are found by screening: a box of few inputs."""
    return isinstance(input_set, BoxShaped) and input_set.size <= FEW_INPUTS


class _Move(Protocol):
    """How a descent steps: in units of the set's reach, from gradients of ℓ1 norm 1; and what ReLUs let through."""

    steps: int

    def leaks(self, step: int) -> FloatArray | float: ...

    def __call__(self, step: int, gradient: FloatArray) -> FloatArray: ...


class _Search:
    """The best point of every row so far, and the clock."""

    def __init__(self, problem: Problem, limit: float | None) -> None:
        self.started, self.limit = time.perf_counter(), limit
        self.problem, self.set = problem, problem.input_set
        self.gradient = MarginGradient(problem)
        self.box, self.few = isinstance(self.set, BoxShaped), has_few_inputs(self.set)
        self.widest = max(self.set.size, alive_matrices(problem).widest)
        self.lengths = np.reshape(np.asarray(self.set.reach, dtype=np.float64), (-1, 1))
        self.witness: FloatArray | None = None
        self.refused = -np.inf  # the value of a point that was replayed, and not proven ≤ 0
        clean = problem.clean_values()
        self.order = np.argsort(clean, kind="stable")  # the most doubtful rows first
        self.values = np.where(np.isnan(clean), np.inf, clean)
        self.points = np.repeat(self.set.center[:, None], self.values.size, axis=1)

    def resume(self, earlier: Falsification) -> int:
        """Take over the points of an earlier search; returns how many rounds it has completed."""
        points = [bound.witness for bound in earlier.bounds if bound.witness is not None]
        if not len(points) == len(earlier.bounds) == self.values.size:
            raise ValueError(f"the earlier search is one of {len(earlier.bounds)} rows, this of {self.values.size}")
        self.points = np.ascontiguousarray(np.stack(points).T) if points else self.points
        self.values = np.array([bound.upper for bound in earlier.bounds])
        self.witness = earlier.witness
        return earlier.rounds

    def over(self) -> bool:
        """Whether the time is."""
        return self.limit is not None and time.perf_counter() - self.started >= self.limit

    def round(self, number: int) -> bool:
        """Whether it was completed, without a point that ends the search."""
        for starts, rows, turn in self._starts(number):
            move = _Adam if self.few or (self.box and number % 2 == 1) else _Momentum
            self._merge(*self._descend(starts, rows, move(self.set, turn)), rows)
            self._prove()
            if self.witness is not None or self.over():
                return False
        return True

    def _starts(self, number: int) -> Iterator[tuple[FloatArray, IndexArray, IndexArray]]:
        """Starts as columns, the row of each, and its turn; in chunks that fit into memory and take little time."""
        count = self.values.size * FIRST_STARTS[0 if self.few else 1] * 2**number
        size = max(1, ENTRIES_AT_A_TIME // self.widest)
        for first in range(0, count, size):
            turn, place = np.divmod(np.arange(first, min(first + size, count)), self.order.size)
            rows = self.order[place]
            rng = np.random.default_rng((self.problem.settings.seed, number, first))
            if self.few:
                points = self._screened(rows, rng)
                if number + first:  # before, no row has a better point than the centre
                    self._bring_near(points, rows, rng)
                yield points, rows, turn + place
                continue
            seeds = rng.integers(0, 2**32, 2).tolist()
            corners, inner = self.set.corners(rows.size, seeds[0]), self.set.sample(rows.size, seeds[1])
            points = np.where((turn % 2 == 0)[:, None], corners, inner)
            if number == 0:
                points[turn == 0] = self.set.center
            yield np.ascontiguousarray(points.T), rows, turn + place

    def _screened(self, rows: IndexArray, rng: np.random.Generator) -> FloatArray:
        """The best for its row of up to SCREENED random points, for every start; fewer of large networks."""
        each = int(np.clip(POINT_ENTRIES // (10 * self.widest), 10, SCREENED))
        size = max(1, POINT_ENTRIES // (each * self.widest))
        chosen = []
        for first in range(0, rows.size, size):
            own = rows[first : first + size]
            points = self.set.sample(own.size * each, int(rng.integers(0, 2**32)))
            if self.over():
                each = 1
                points = points[: own.size]
            values = self.problem.replay(points).reshape(own.size, each, -1)
            best = np.argmin(values[np.arange(own.size), :, own], axis=1)
            chosen.append(points[np.arange(own.size) * each + best])
        return np.ascontiguousarray(np.concatenate(chosen).T)

    def _bring_near(self, points: FloatArray, rows: IndexArray, rng: np.random.Generator) -> None:
        """Every NEAR-th start beside its row's best point, in place."""
        some = np.arange(0, rows.size, NEAR)
        widths = self.lengths * 10.0 ** rng.uniform(*NEARNESS, some.size)
        moved = self.points[:, rows[some]] + widths * rng.uniform(-1.0, 1.0, (self.set.size, some.size))
        points[:, some] = self.set.project(moved.T).T

    def _descend(self, points: FloatArray, rows: IndexArray, move: _Move) -> tuple[FloatArray, FloatArray]:
        """The best value and point of every start's descent; it ends at the clock, and DEEPER steps past the first that
        is ≤ 0."""
        values, best, left = np.full(rows.size, np.inf), points.copy(), DEEPER
        for step in range(move.steps + 1):
            value, gradient = self.gradient(points, rows, move.leaks(step))
            better = np.flatnonzero(value < values)
            values[better], best[:, better] = value[better], points[:, better]
            left -= int(values.min() <= 0)
            if left < 0 or step == move.steps or self.over():
                break
            size = np.abs(gradient).sum(axis=0)
            usable = (size > 0) & np.isfinite(size)  # what overflowed has no direction
            unit = np.where(usable, gradient, 0.0) / np.where(usable, size, 1.0)
            with np.errstate(over="ignore"):  # a step past the largest float is one to the end of the set
                points = self.set.project((points + self.lengths * move(step, unit)).T).T
        return values, best

    def _merge(self, values: FloatArray, points: FloatArray, rows: IndexArray) -> None:
        """Keep what is better for its row."""
        for column in np.argsort(values, kind="stable")[::-1].tolist():
            row = int(rows[column])
            if values[column] < self.values[row]:
                self.values[row], self.points[:, row] = values[column], points[:, column]

    def _prove(self) -> None:
        """Take the best point as the witness if it proves its row ≤ 0; in integers only where there is time for it."""
        best = float(self.values.min(initial=np.inf))
        if best > 0 or best == self.refused:
            return
        row, left = int(self.values.argmin()), np.inf
        if self.limit is not None:
            left = max(0.0, self.limit - (time.perf_counter() - self.started))
        point, rows = self.points[:, row].copy(), self.problem.rows[[row]]
        _, proven = replay_margins(self.problem.network, rows, point, largest=exact_within(left))
        if proven[0, 0] <= 0:
            self.witness = point
        self.refused = best

    def bounds(self) -> list[Bound]:
        """One per row, with its best point replayed."""
        status = Status.DECIDED if self.witness is not None else Status.TIME_LIMIT if self.over() else Status.COMPUTED
        return witnessed(self.problem, np.ascontiguousarray(self.points.T), self.started, status, 0)


class _Momentum:
    """η_t·d(−v_t), v_t = MOMENTUM·v_{t−1} + g_t; η_t falls from 1 to LAST_STEP, in units of the set's reach."""

    steps = SIGN_STEPS

    def __init__(self, input_set: InputSet, turn: IndexArray) -> None:
        self.set = input_set
        self.sizes = np.geomspace(1.0, LAST_STEP, self.steps)
        self.velocity = np.zeros((input_set.size, turn.size))
        self.shares = np.array(FADING_LEAKS)[turn % len(FADING_LEAKS)]

    def leaks(self, step: int) -> FloatArray | float:
        """What switched-off ReLUs pass back, per start."""
        return self.shares * max(0.0, 1.0 - 2.0 * step / self.steps)

    def __call__(self, step: int, gradient: FloatArray) -> FloatArray:
        self.velocity *= MOMENTUM
        self.velocity += gradient
        return np.asarray(self.sizes[step] * self.set.steepest(-self.velocity))


class _Adam:
    """−η_t·m̂_t/√v̂_t, at most η_t a coordinate; η_t falls from each of ADAM_FIRST in turn to ADAM_LAST."""

    steps = ADAM_STEPS

    def __init__(self, input_set: InputSet, turn: IndexArray) -> None:
        firsts = [np.geomspace(first, ADAM_LAST, self.steps) for first in ADAM_FIRST]
        self.sizes = np.stack(firsts, axis=1)[:, turn % len(firsts)]
        self.mean, self.square = np.zeros((input_set.size, turn.size)), np.zeros((input_set.size, turn.size))

    def leaks(self, step: int) -> FloatArray | float:
        """None: the gradient is the true one."""
        return 0.0

    def __call__(self, step: int, gradient: FloatArray) -> FloatArray:
        self.mean += (1 - ADAM_MEAN) * (gradient - self.mean)
        self.square += (1 - ADAM_SQUARE) * (gradient**2 - self.square)
        mean = self.mean / (1 - ADAM_MEAN ** (step + 1))
        root = np.sqrt(self.square / (1 - ADAM_SQUARE ** (step + 1)))
        share = np.clip(mean / np.maximum(root, np.finfo(np.float64).tiny), -1.0, 1.0)
        return np.asarray(-self.sizes[step] * share)
