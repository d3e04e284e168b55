"""Attacks: points of the ball with a small margin, and so upper bounds on its minimum.

- fgsm: one step of size ε against the sign of the gradient, x̃ = P(x − ε·sign ∇ c·F(x)).
- pgd:  projected gradient descents with momentum (search/descent.py), settings.attack_steps steps each, from the ball's
  centre and from random corners and points in turn. The best point of all steps and restarts counts.
- falsify: the first FALSIFY_ROUNDS of search/falsify.py, which ends at the first point that proves some row ≤ 0. It is
  for ladders that ask for a sign, and in no registry: where it ends depends on the sign. Who has more time calls that
  with it, and with what was found.

A row's result does not depend on the other rows asked for, but for falsify. l,u steer pgd, through the neurons that
pass nothing back, but not the value of the point it finds.

Source: Goodfellow et al. 2015, "Explaining and harnessing adversarial examples" (fgsm); Madry et al. 2018, "Towards
deep learning models resistant to adversarial attacks" (pgd); Dong et al. 2018, "Boosting adversarial attacks with
momentum". Checked: the bound is the value of the witness replayed through the original network, and the witness lies in
the ball. Trusted: float64 rounding of the replay.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.problems.answers import Bound, RowBounds, Status
from toolkit.problems.problem import Problem
from toolkit.rungs.rung import Cost, Rung, Side
from toolkit.search.clock import LEAST_LEFT
from toolkit.search.descent import MarginGradient, most_starts, polish, witnessed
from toolkit.search.falsify import falsify, has_few_inputs

FALSIFY_ROUNDS = (2, 1)  # where inputs are few, and where they are many


def fgsm_rung(problem: Problem) -> RowBounds:
    """One signed gradient step of size ε from the centre, for every row."""
    started = time.perf_counter()
    rows = np.arange(problem.rows.shape[0])
    centres = np.repeat(problem.input_set.center[:, None], rows.size, axis=1)
    _, gradient = MarginGradient(problem)(centres, rows)
    witnesses = problem.input_set.argmin_linear(gradient.T)
    return RowBounds.of(witnessed(problem, witnesses, started, Status.COMPUTED, 1))


def pgd_rung(problem: Problem) -> RowBounds:
    """The best point of settings.attack_restarts descents for every row: from the centre, then from random points."""
    settings, rows, started = problem.settings, max(1, problem.rows.shape[0]), time.perf_counter()
    limit = settings.time_limit
    best: list[Bound] = []
    for starts in _starts(problem):
        if limit is not None:
            left = limit - (time.perf_counter() - started) / rows
            if best and left <= 0:
                return RowBounds.of([replace(bound, status=Status.TIME_LIMIT) for bound in best])
            settings = replace(settings, time_limit=min(limit, max(left, LEAST_LEFT)))
        found = polish(problem.with_settings(settings), starts)
        best = [_better(*two) for two in zip(best, found, strict=True)] if best else found
    return RowBounds.of(best)


def _starts(problem: Problem) -> Iterator[FloatArray]:
    """The centre, then random corners and points in turn, as many at a time as a descent may take. Shapes: (k, n)."""
    ball, restarts = problem.input_set, problem.settings.attack_restarts
    size = most_starts(problem)
    for begun in range(0, restarts, size):
        center = ball.center[None] if begun == 0 else np.zeros((0, ball.size))
        count, seed = min(size, restarts - begun) - len(center), problem.settings.seed
        if begun:
            seed = int(np.random.default_rng((seed, begun)).integers(2**32))
        corner = np.arange(count) % 2 == 0
        random = np.where(corner[:, None], ball.corners(count, seed), ball.sample(count, seed))
        yield np.concatenate([center, random])


def _better(one: Bound, other: Bound) -> Bound:
    """The lower of two, with the work and the time of both, and struck where either was."""
    struck = Status.TIME_LIMIT in (one.status, other.status)
    return replace(
        other if other.upper < one.upper else one,
        status=Status.TIME_LIMIT if struck else Status.COMPUTED,
        seconds=one.seconds + other.seconds,
        iterations=one.iterations + other.iterations,
    )


def falsify_rung(problem: Problem) -> RowBounds:
    """The best points of a short falsification of all rows together."""
    few, many = FALSIFY_ROUNDS
    limit, rows = problem.settings.time_limit, len(problem.objective)
    seconds = None if limit is None else rows * limit
    return RowBounds.of(falsify(problem, seconds, few if has_few_inputs(problem.input_set) else many).bounds)


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
FALSIFY = Rung(
    name="falsify",
    side=Side.UPPER,
    claim="least margin met on the search for one ≤ 0",
    source="Kingma & Ba 2015; Madry et al. 2018",
    run=falsify_rung,
    cost=Cost.ITERATIVE,
    reads=("seed", "time_limit"),
    uses_relu_bounds=False,
)
