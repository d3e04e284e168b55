"""Margins over an input set, bounded by any rung: m_t = F_{c*} − F_t for a label, the rows of any property."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.data.arguments import instance
from toolkit.networks.network import Network
from toolkit.problems.answers import Bound
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_set import InputSet, check_is_input_set
from toolkit.problems.lowering import lowered
from toolkit.problems.problem import Problem
from toolkit.problems.properties import Property, as_property
from toolkit.problems.region import Region
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rung
from toolkit.rungs.rung import Rung
from toolkit.verify.layer_bounds import CHAIN, bound_layers
from toolkit.verify.usable_settings import usable_settings


def margin_problem(
    network: Network,
    ball: InputSet,
    label: int | Property,
    relu_bounds: ReluBounds | None = None,
    targets: Sequence[int] | None = None,
    settings: Settings | None = None,
) -> Problem:
    """The problem with rows e_{c*} − e_t, one per target t ≠ c* = label, or with one row per group of a property.

    relu_bounds None: `layer_bounds` with its default chain ("interval", "dual"), which also bounds the ReLUs that
    groups of several rows are lowered to where relu_bounds are given.
    """
    instance("network", network, Network), check_is_input_set("ball", ball)
    whole, asked = lowered(network, as_property(label, network.output_size, targets))
    settings = usable_settings(settings)
    if relu_bounds is not None:
        Region(network, ball, relu_bounds)  # raises for bounds that do not fit
    if relu_bounds is None or len(relu_bounds) < len(whole.relu_sizes):
        relu_bounds = bound_layers(whole, ball, CHAIN, settings, known=relu_bounds)[0]
    return Problem(Region(whole, ball, relu_bounds), asked.objective, settings)


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

    label: or a Property; m*_g of every group is then bounded. rung: a rung or its name in RUNGS. targets: classes
    to bound, None = all but the label. Returns one Bound per target or group, in order. Raises
    ValueError for an unknown rung, a label or target out of range, or shapes that do not fit.
    """
    return get_rung(rung)(margin_problem(network, ball, label, relu_bounds, targets, settings))
