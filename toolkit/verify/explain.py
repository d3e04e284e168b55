"""Why is the relaxed margin equal to the exact one, or why not?

The LP and the MILP of one template differ in nothing but the indicators. If the LP's optimum satisfies y = max(x̂, 0) at
every unstable neuron, it is feasible for the MILP, so m̲ = m*. The relaxation slack y − max(x̂, 0) says which do not;
it counts relative to the neuron's range u − l. A solver meets its rows to a tolerance only, and what that is worth in
the margin is seen by replaying the minimiser: m* lies between the LP bound and the replayed value, so m̲ = m* is said
only where these two agree as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.data.arguments import instance
from toolkit.problems.answers import Bound

SLACK_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Equality:
    """Whether m* equals the relaxed margin, as far as the relaxation's optimum tells, and the reason in words.

    unstable: number of unstable neurons; relaxed: how many of them have a slack above the tolerance at the optimum;
    largest_slack: of y − max(x̂, 0), in the neurons' own units. equal: True when none is relaxed and the replayed
    minimiser has the value of the bound; False says only that this optimum is no proof.
    """

    equal: bool
    unstable: int
    relaxed: int
    largest_slack: float
    reason: str


def explain_equality(bound: Bound, tolerance: float = SLACK_TOLERANCE) -> Equality:
    """Read the slack of an `lp` or `ideal` bound; raises ValueError for a bound that has none.

    tolerance: largest slack relative to its neuron's range, and largest upper − lower relative to the objective's
    size, at which equality is said.
    """
    instance("bound", bound, Bound)
    if bound.slack is None:
        raise ValueError("only bounds from lp and ideal carry a slack; this one has none")
    count = int(bound.slack.size)
    relaxed = int(np.count_nonzero(_relative(bound.slack, bound.slack_range) > tolerance))
    largest = float(bound.slack.max(initial=0.0))
    open_by = _open(bound)
    equal = relaxed == 0 and open_by <= tolerance
    if relaxed:
        reason = (
            f"LP ≤ m*: {relaxed} of {count} unstable neurons are relaxed in the LP optimum, "
            f"y exceeds max(x̂, 0) by up to {largest:.2g}"
        )
    elif not equal:
        reason = (
            f"LP ≤ m*: no neuron is relaxed in the LP optimum by more than its tolerance, but its minimiser, replayed, "
            f"has {bound.upper:.6g}, not {bound.lower:.6g}"
        )
    elif count == 0:
        reason = "m* = LP, because no neuron is unstable: the network is linear on the ball"
    else:
        reason = f"m* = LP, because all {count} unstable neurons are integral in the LP optimum"
    return Equality(equal, count, relaxed, largest, reason)


def _relative(slack: FloatArray, ranges: FloatArray | None) -> FloatArray:
    """Slack in units of each neuron's range; as it stands where the ranges are not known."""
    if ranges is None or ranges.shape != slack.shape:
        return slack
    return np.asarray(slack / np.where(ranges > 0, ranges, 1.0), dtype=np.float64)


def _open(bound: Bound) -> float:
    """upper − lower relative to the objective's size; +inf where a side is missing."""
    width = bound.upper - bound.lower
    size = max(abs(bound.upper), abs(bound.lower), bound.drop)
    if not np.isfinite(width):
        return float("inf")
    return width / size if size > 0 else 0.0
