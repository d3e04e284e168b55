"""What is known of every row and group of one question, and which groups that decides.

Lower sides come from rungs, upper sides from points alone: every point that anybody offers is replayed through the
network against all rows. A group is safe once some row of it is (min max ≥ max min), unsafe once a point has all its
rows ≤ 0 with rounding against it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.networks.replay import replay_margins
from toolkit.problems.answers import Bound, Verdict
from toolkit.problems.consistency import contradiction
from toolkit.problems.problem import Problem
from toolkit.problems.properties import Property
from toolkit.problems.region import centre_outputs
from toolkit.problems.settings import Settings
from toolkit.rungs.rung import Rung, Side
from toolkit.verify.verdict import counted_lower, is_safe, is_unsafe, verdict


class Knowledge:
    """Intervals per row, decisions per group, and the worst point so far.

    rows: one Bound per row. decided_by: the rung that settled each group, "" if none. counted: the lower bounds that
    the verdict counts, per row. stated: rows that an exact rung has been asked about. witness: the point of the least
    margin that proves NO.
    """

    def __init__(self, question: Property, problem: Problem, settings: Settings, tolerance: float) -> None:
        self.question, self.problem = question, problem
        self.settings, self.tolerance = settings, tolerance
        self.rows = [Bound(-np.inf, np.inf, target) for target in problem.targets]
        self.decided_by = [""] * question.count
        self.counted = np.full(len(self.rows), -np.inf)
        self.stated: set[int] = set()
        self.witness: FloatArray | None = None
        self.worst = np.inf  # least margin at the witness
        self._upper = np.full((2, question.count), np.inf)  # of the groups: least value, least proven value
        self._points: list[FloatArray | None] = [None] * question.count

    def open_rows(self) -> list[int]:
        """Rows of undecided groups, the most doubtful first."""
        undecided = [i for i, group in enumerate(self.question.groups.tolist()) if not self.decided_by[group]]
        return sorted(undecided, key=lambda i: (self.rows[i].lower, self.rows[i].upper))

    def words(self) -> list[int]:
        """Open rows whose minimum an exact rung has stated to be positive, uncertified."""
        return [i for i in self.open_rows() if i in self.stated and is_safe(self.rows[i].lower, self.tolerance)]

    def merge(self, i: int, bound: Bound, rung: Rung) -> None:
        """Intersect what is known of row i with `bound`; decide its group if that settles it."""
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
        group = int(self.question.groups[i])
        if not self.decided_by[group] and is_safe(self.counted[i], self.tolerance):
            self.decided_by[group] = rung.name
        self.settle(i)

    def replay(self, point: FloatArray, name: str) -> None:
        """Run a point through the original network: it lowers every upper side, and may prove NO."""
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
        at = self.question.at(np.stack([values, proven]))
        self._points = [
            point if better else old for better, old in zip(at[0] < self._upper[0], self._points, strict=True)
        ]
        self._upper = np.fmin(self._upper, at)
        unsafe = is_unsafe(at[1])
        for group in np.flatnonzero(unsafe).tolist():
            self.decided_by[group] = self.decided_by[group] or name
        if unsafe.any() and not float(at[0].min()) >= self.worst:
            self.witness, self.worst = point, float(at[0].min())

    def settle(self, i: int) -> None:
        """Where a point lies under what a rung said, uncertified: by rounding, or the word was false and goes."""
        bound = self.rows[i]
        if bound.lower <= bound.upper:
            return
        problem = self.problem.with_rows(self.problem.rows[[i]], [self.problem.targets[i]])
        if not contradiction(problem, 0, bound, float(problem.clean_values()[0])):
            self.rows[i] = replace(bound, lower=bound.upper)
            return
        self.rows[i] = replace(bound, lower=min(bound.certified_lower, bound.upper))
        self.counted[i] = bound.certified_lower
        group = int(self.question.groups[i])
        if not is_safe(self.question.lower(self.counted)[group], self.tolerance) and not is_unsafe(
            self._upper[1, group]
        ):
            self.decided_by[group] = ""

    def margins(self) -> tuple[Bound, ...]:
        """One interval per group; that of a single row is the row's."""
        for i in range(len(self.rows)):
            self.settle(i)
        found = []
        for group in range(self.question.count):
            own = [self.rows[i] for i in np.flatnonzero(self.question.groups == group).tolist()]
            best = max(own, key=lambda bound: bound.certified_lower)
            if len(own) > 1:
                upper, proven = self._upper[:, group].tolist()
                lower = min(max(bound.lower for bound in own), upper)
                point = self._points[group]
                best = replace(best, lower=lower, upper=upper, certified_upper=proven, witness=point, target=None)
            found.append(best)
        return tuple(found)

    def verdict(self) -> Verdict:
        """What the counted lower sides and the proven upper sides say together."""
        return verdict(self.question.lower(self.counted).tolist(), self._upper[1].tolist(), self.tolerance)

    def changed_class(self) -> int | None:
        """The target with the smallest margin at the witness: what the network says there instead, or ties with."""
        if self.witness is None or self.question.label is None:
            return None
        sides = replay_margins(self.problem.network, self.problem.rows, self.witness)
        values, proven = (side[0] for side in sides)
        return self.problem.targets[int(np.argmin(proven if np.isnan(values).any() else values))]
