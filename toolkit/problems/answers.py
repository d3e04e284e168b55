"""What a rung answers: an interval per objective row, how it came about, and the verdict's three words."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.data.summaries import number, one_line


class Status(enum.StrEnum):
    """How a bound came about; the text is what a table shows."""

    COMPUTED = "computed"  # closed form or a finished iteration: nothing was left to do
    OPTIMAL = "optimal"  # a solver proved optimality to its stated gap
    INFEASIBLE = "infeasible"  # the region is empty, proven by multipliers: inside a search tree only
    DECIDED = "decided"  # stopped early on purpose: the sign asked for was proven
    TIME_LIMIT = "time_limit"  # stopped by the clock: the bound proven so far is kept
    FAILED = "failed"  # no bound: `message` says why


class Verdict(enum.StrEnum):
    """Answer to: is the ball free of adversarial examples?"""

    YES = "YES"
    NO = "NO"
    MAYBE = "MAYBE"


@dataclass(frozen=True, eq=False)
class Bound:
    """An interval [lower, upper] proven to hold min cᵀF over the ball, for one objective row c.

    lower: the proven side (−inf when nothing is proven); never a solver's incumbent. upper: value of cᵀF at
    `witness`, a point of the ball replayed through the network (+inf without one). target: the class t of
    c = e_{c*} − e_t, None for other rows. seconds: spent on this row, shared work divided evenly;
    build_seconds: the part of it spent on building and handing over models. iterations: simplex or gradient
    iterations; nodes: of a search tree. slack: y − max(x̂, 0) of every unstable neuron at a relaxation's optimum, None
    where there is no such point; 0 everywhere means that the relaxation's optimum is the exact one. slack_range: u − l
    of these neurons, the unit of their slack; drop: cᵀF at the ball's centre less lower (0: not known), that of a gap.
    certified_lower: a lower bound in real arithmetic, rounding included, that trusts no solver (−inf: none; see
    dual_bound.py); it rests on l,u as `lower` does. certified_upper: an upper bound of cᵀF at the witness in real
    arithmetic (+inf: none). multipliers: λ of the unstable neurons that prove certified_lower, where an LP gave them.
    asked: digest of the network, ball and row that a rung was asked about ("": made by hand).
    """

    lower: float
    upper: float = float("inf")
    target: int | None = None
    status: Status = Status.COMPUTED
    witness: FloatArray | None = field(default=None, repr=False)
    slack: FloatArray | None = field(default=None, repr=False)
    seconds: float = 0.0
    build_seconds: float = 0.0
    solver: str = ""
    solver_version: str = ""
    nodes: int = 0
    iterations: int = 0
    message: str = ""
    certified_lower: float = -float("inf")
    certified_upper: float = float("inf")
    multipliers: FloatArray | None = field(default=None, repr=False)
    slack_range: FloatArray | None = field(default=None, repr=False)
    drop: float = field(default=0.0, repr=False)
    asked: str = field(default="", repr=False, compare=False)

    def __repr__(self) -> str:
        target = "" if self.target is None else f"target {self.target}"
        ends = f"[{number(self.lower)}, {number(self.upper)}]"
        proven = f"certified [{number(self.certified_lower)}, {number(self.certified_upper)}]"
        by = f"{self.status} by {self.solver}" if self.solver else str(self.status)
        return one_line("Bound", [target, ends, proven, by, f"{number(self.seconds)} s", self.message])

    @property
    def best_lower(self) -> float:
        """The larger of both lower ends."""
        return max(self.lower, self.certified_lower)

    def failed(self, reason: str, ceiling: float) -> Bound:
        """The bound without its lower side, FAILED for this reason; certified_lower stays if it is ≤ `ceiling`."""
        upper = np.inf if np.isnan(self.upper) else self.upper
        kept = self.certified_lower <= min(np.inf if np.isnan(ceiling) else ceiling, self.certified_upper)
        certified = self.certified_lower if kept else -np.inf
        message = "; ".join(text for text in (reason, self.message) if text)
        found = replace(self, lower=-np.inf, upper=upper, status=Status.FAILED, message=message)
        return replace(found, certified_lower=certified)

    def with_build(self, seconds: float) -> Bound:
        """The same bound with this much more time spent on building."""
        return replace(self, seconds=self.seconds + seconds, build_seconds=self.build_seconds + seconds)


@dataclass(frozen=True, eq=False)
class RowBounds:
    """What a rung says of all rows of a problem at once.

    lower: a lower bound of every row's minimum, shape (m,). highest: an upper bound of every row's maximum, from a rung
    that gets both sides in one pass, else None. details: one Bound per row where there is more to say than a number
    (a witness, a status, a solver), else empty.
    """

    lower: FloatArray
    highest: FloatArray | None = None
    details: tuple[Bound, ...] = ()

    @classmethod
    def of(cls, details: Sequence[Bound]) -> RowBounds:
        """From one Bound per row."""
        lower = np.array([bound.lower for bound in details], dtype=np.float64)
        return cls(lower, None, tuple(details))

    def __len__(self) -> int:
        return int(self.lower.size)
