"""Why is the relaxed margin equal to the exact one, or why not?

The LP and the MILP of one template differ in nothing but the indicators. If the LP's optimum satisfies y = max(x̂, 0) at
every unstable neuron, it is feasible for the MILP, so m̲ = m*. The relaxation slack y − max(x̂, 0) says which do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolkit.arguments import instance
from toolkit.problem import Bound

SLACK_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Equality:
    """Whether m* equals the relaxed margin, as far as the relaxation's optimum tells, and the reason in words.

    unstable: number of unstable neurons; relaxed: how many of them have a slack above the tolerance at the optimum;
    largest_slack: of y − max(x̂, 0). equal: True when none is relaxed; False says only that this optimum is no proof.
    """

    equal: bool
    unstable: int
    relaxed: int
    largest_slack: float
    reason: str


def explain_equality(bound: Bound, tolerance: float = SLACK_TOLERANCE) -> Equality:
    """Read the slack of an `lp` or `ideal` bound; raises ValueError for a bound that has none."""
    instance("bound", bound, Bound)
    if bound.slack is None:
        raise ValueError("only bounds from lp and ideal carry a slack; this one has none")
    count = int(bound.slack.size)
    relaxed = int(np.count_nonzero(bound.slack > tolerance))
    largest = float(bound.slack.max(initial=0.0))
    if count == 0:
        reason = "m* = LP, because no neuron is unstable: the network is linear on the ball"
    elif relaxed == 0:
        reason = f"m* = LP, because all {count} unstable neurons are integral in the LP optimum"
    else:
        reason = (
            f"LP ≤ m*: {relaxed} of {count} unstable neurons are relaxed in the LP optimum, "
            f"y exceeds max(x̂, 0) by up to {largest:.2g}"
        )
    return Equality(relaxed == 0, count, relaxed, largest, reason)
