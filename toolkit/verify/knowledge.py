"""What is known of every row of one question, and which rows that decides.

A question has been lowered: one row per group (problems/lowering.py). Lower sides come from rungs, upper sides from
points alone: every point that anybody offers is replayed through the network against all rows. A row is safe once a
rung's bound exceeds the tolerance, unsafe once a point has it ≤ 0 with rounding against it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.networks.replay import replay_margins
from toolkit.problems.answers import Bound, Verdict
from toolkit.problems.consistency import contradiction
from toolkit.problems.problem import Problem
from toolkit.problems.region import centre_outputs
from toolkit.problems.settings import Settings
from toolkit.rungs.rung import Rung, Side
from toolkit.verify.verdict import counted_lower, is_safe, is_unsafe, verdict


class Knowledge:
    """Intervals and decisions per row, and the worst point so far.

    rows: one Bound per row. decided_by: the rung that settled each row, "" if none. counted: the lower bounds that the
    verdict counts, per row. stated: rows that an exact rung has been asked about. witness: the point of the least
    margin that proves NO.
    """

    def __init__(self, problem: Problem, settings: Settings, tolerance: float) -> None:
        self.problem, self.settings, self.tolerance = problem, settings, tolerance
        self.rows = [Bound(-np.inf, np.inf, target) for target in problem.targets]
        self.decided_by = [""] * len(self.rows)
        self.counted = np.full(len(self.rows), -np.inf)
        self.stated: set[int] = set()
        self.witness: FloatArray | None = None
        self.worst = np.inf  # least margin at the witness

    def open_rows(self) -> list[int]:
        """Undecided rows, the most doubtful first."""
        undecided = [i for i, name in enumerate(self.decided_by) if not name]
        return sorted(undecided, key=lambda i: (self.rows[i].lower, self.rows[i].upper))

    def words(self) -> list[int]:
        """Open rows whose minimum an exact rung has stated to be positive, uncertified."""
        return [i for i in self.open_rows() if i in self.stated and is_safe(self.rows[i].lower, self.tolerance)]

    def merge(self, i: int, bound: Bound, rung: Rung) -> None:
        """Intersect what is known of row i with `bound`; decide it if that settles it."""
        known = self.rows[i]
        self.rows[i] = replace(
            bound,
            target=self.problem.targets[i],
            lower=max(known.lower, bound.lower),
            certified_lower=max(known.certified_lower, bound.certified_lower),
            upper=known.upper,  # the upper side comes from `replay` alone
            certified_upper=known.certified_upper,
            witness=known.witness,
            slack=bound.slack if bound.slack is not None else known.slack,
        )
        if rung.side is Side.EXACT:
            self.stated.add(i)
        if bound.witness is not None:
            self.replay(bound.witness, rung.name)
        self.counted[i] = max(self.counted[i], counted_lower(bound, rung, self.settings))
        if not self.decided_by[i] and is_safe(self.counted[i], self.tolerance):
            self.decided_by[i] = rung.name
        self.settle(i)

    def replay(self, point: FloatArray, name: str) -> None:
        """Run a point through the network: it lowers every upper side, and may prove NO."""
        region = self.problem.region
        if not region.input_set.contains(point):
            return
        outputs = region.derive(centre_outputs) if point is region.input_set.center else None
        values, proven = (side[0] for side in replay_margins(region.network, self.problem.rows, point, outputs))
        for i, (value, upper) in enumerate(zip(values.tolist(), proven.tolist(), strict=True)):
            known = self.rows[i]
            if value < known.upper:
                least = min(upper, known.certified_upper)
                self.rows[i] = replace(known, upper=value, witness=point, certified_upper=least)
            elif upper < known.certified_upper:
                self.rows[i] = replace(known, certified_upper=upper)
        unsafe = is_unsafe(proven)
        for i in np.flatnonzero(unsafe).tolist():
            self.decided_by[i] = self.decided_by[i] or name
        if unsafe.any() and not float(values.min()) >= self.worst:
            self.witness, self.worst = point, float(values.min())

    def settle(self, i: int) -> None:
        """Where a point lies under what a rung said: by rounding, or the word was false and goes; of a certified one
        nothing is left, and the row is FAILED."""
        bound = self.rows[i]
        finite = bound.best_lower < np.inf
        if finite and bound.best_lower <= bound.upper and bound.certified_lower <= bound.certified_upper:
            return
        problem = self.problem.with_rows(self.problem.rows[[i]], [self.problem.targets[i]])
        clean = float(problem.clean_values()[0])
        if not contradiction(problem, 0, bound, clean):
            self.rows[i] = replace(bound, lower=min(bound.lower, bound.upper))
            return
        proven = replace(bound, lower=min(bound.certified_lower, bound.upper))
        if reason := contradiction(problem, 0, proven, clean):
            self.rows[i] = replace(bound.failed(reason, bound.upper), certified_lower=-np.inf)
        else:
            self.rows[i] = proven
        self.counted[i] = self.rows[i].certified_lower
        if not is_safe(self.counted[i], self.tolerance) and not is_unsafe(bound.certified_upper):
            self.decided_by[i] = ""

    def margins(self) -> tuple[Bound, ...]:
        """One interval per row."""
        for i in range(len(self.rows)):
            self.settle(i)
        return tuple(self.rows)

    def verdict(self) -> Verdict:
        """What the counted lower sides and the proven upper sides say together."""
        return verdict(self.counted.tolist(), [bound.certified_upper for bound in self.rows], self.tolerance)

    def worst_target(self) -> int | None:
        """The target with the smallest margin at the witness, None without a witness."""
        if self.witness is None:
            return None
        sides = replay_margins(self.problem.network, self.problem.rows, self.witness)
        values, proven = (side[0] for side in sides)
        return self.problem.targets[int(np.argmin(proven if np.isnan(values).any() else values))]
