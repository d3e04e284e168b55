"""The input sets, by norm: balls in ℓ∞, ℓ1 and ℓ2, and the box. A new one is a class of its own and one line here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

from numpy.typing import ArrayLike

from toolkit.data.amounts import DataDomain
from toolkit.data.arguments import one_of
from toolkit.problems.boxes import Box
from toolkit.problems.input_set import InputSet
from toolkit.problems.linf_ball import LinfBall
from toolkit.problems.norm_balls import L1Ball, L2Ball

__all__ = ["BALLS", "INPUT_SETS", "Ball", "Box", "L1Ball", "L2Ball", "LinfBall", "make_ball"]

Ball: TypeAlias = LinfBall | L1Ball | L2Ball
INPUT_SETS: dict[str, type[InputSet]] = {kind.norm: kind for kind in (LinfBall, Box, L1Ball, L2Ball)}
BALLS: dict[str, type[Ball]] = {"linf": LinfBall, "l1": L1Ball, "l2": L2Ball}


def make_ball(
    norm: str, center: ArrayLike, eps: float | ArrayLike, domain: DataDomain | Sequence[float] | None = None
) -> Ball:
    """The ball {x̃ : ‖x̃ − center‖ ≤ eps} in a norm by its name, cut by the domain. Raises ValueError as the balls do.

    eps, domain: of one number, or for ℓ∞ of one per coordinate.
    """
    kind: Any = BALLS[one_of("norm", norm, tuple(BALLS))]
    return cast(Ball, kind(center, eps, domain))
