"""Margins over an input set, bounded by any rung: m_t = F_{c*} − F_t for a label, the rows of any property."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.data.arguments import instance
from toolkit.networks.network import Network
from toolkit.problems.answers import Bound
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_set import InputSet, check_is_input_set
from toolkit.problems.problem import Problem
from toolkit.problems.properties import Property, as_property
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rung
from toolkit.rungs.rung import Rung
from toolkit.verify.layer_bounds import layer_bounds


def margin_problem(
    network: Network,
    ball: InputSet,
    label: int | Property,
    relu_bounds: ReluBounds | None = None,
    targets: Sequence[int] | None = None,
    settings: Settings | None = None,
) -> Problem:
    """The problem with rows e_{c*} − e_t, one per target t ≠ c* = label, or with the rows of a property.

    relu_bounds None: `layer_bounds` with its default chain ("interval", "dual").
    """
    instance("network", network, Network), check_is_input_set("ball", ball)
    asked = as_property(label, network.output_size, targets).objective
    settings = Settings() if settings is None else instance("settings", settings, Settings)
    bounds = layer_bounds(network, ball, settings=settings) if relu_bounds is None else relu_bounds
    return Problem.of(network, ball, asked.rows, bounds, settings, asked.targets, asked.constants)


def margins(
    network: Network,
    ball: InputSet,
    label: int | Property,
    rung: Rung | str = "lp",
    relu_bounds: ReluBounds | None = None,
    targets: Sequence[int] | None = None,
    settings: Settings | None = None,
) -> list[Bound]:
    """An interval that holds m*_t for every target t, by one rung.

    label: or a Property; its rows are then bounded each by itself. rung: a rung or its name in RUNGS. targets: classes
    to bound, None = all but the label. Returns one Bound per row, in order. Raises ValueError for an unknown rung, a
    label or target out of range, or shapes that do not fit.
    """
    return get_rung(rung)(margin_problem(network, ball, label, relu_bounds, targets, settings))
