"""Classification margins m_t = F_{c*} − F_t over a ball, bounded by any rung."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.data.arguments import instance
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Bound, Problem, ReluBounds, Settings, margin_rows
from toolkit.rungs import get_rung
from toolkit.verify.layer_bounds import layer_bounds


def margin_problem(
    network: Network,
    ball: LinfBall,
    label: int,
    relu_bounds: ReluBounds | None = None,
    targets: Sequence[int] | None = None,
    settings: Settings | None = None,
) -> Problem:
    """The problem with rows e_{c*} − e_t, one per target t ≠ c* = label.

    relu_bounds None: `layer_bounds` with its default chain ("interval", "dual").
    """
    instance("network", network, Network), instance("ball", ball, LinfBall)
    rows, chosen = margin_rows(network.output_size, label, targets)
    settings = Settings() if settings is None else instance("settings", settings, Settings)
    bounds = layer_bounds(network, ball, settings=settings) if relu_bounds is None else relu_bounds
    return Problem(network, ball, rows, bounds, settings, chosen)


def margins(
    network: Network,
    ball: LinfBall,
    label: int,
    rung: str = "lp",
    relu_bounds: ReluBounds | None = None,
    targets: Sequence[int] | None = None,
    settings: Settings | None = None,
) -> list[Bound]:
    """An interval that holds m*_t for every target t, by one rung.

    rung: a name in RUNGS. targets: classes to bound, None = all but the label. Returns one Bound per target, in order.
    Raises ValueError for an unknown rung, a label or target out of range, or shapes that do not fit.
    """
    return get_rung(rung)(margin_problem(network, ball, label, relu_bounds, targets, settings))
