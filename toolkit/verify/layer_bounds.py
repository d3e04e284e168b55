"""Bounds l,u on every ReLU input: the rungs again, on the network cut at each layer.

For layer k the objective rows are ±e_i on x̂⁽ᵏ⁾ of the network cut there. The first layer is exact by interval
arithmetic. Later layers run the rungs of the chain in order, each only on neurons still unstable (l < 0 < u), and keep
the intersection.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

import toolkit.relaxations.template  # noqa: F401 - Pyomo, here and not in the first LP's time (search.lp_bounder)
from toolkit.arrays import FloatArray, IndexArray
from toolkit.data.arguments import a_function, instance, optional_number
from toolkit.networks.network import Network
from toolkit.networks.replay import evaluation_errors
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.consistency import ALLOWANCE
from toolkit.problems.input_set import InputSet, check_is_input_set
from toolkit.problems.phases import is_unstable
from toolkit.problems.problem import Problem
from toolkit.problems.properties import Objective, selection_rows
from toolkit.problems.region import Region, Sides, bounds_by_layer, centre_outputs
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rung, get_rungs
from toolkit.rungs.rung import Cost, Rung, Side
from toolkit.search.clock import LEAST_LEFT
from toolkit.verify.usable_settings import usable_settings

CROSSING_TOLERANCE = 1e-6  # of a neuron's own scale |W|·r + |b|, where a bound is not certified
NEURONS_AT_A_TIME = 8  # neurons between two looks at the clock
NEURONS_CHECKED = 64  # whose rounding at the centre is looked at together
CHAIN = ("interval", "dual")
Progress = Callable[[int, str, int, int], None]  # (layer, rung, neurons tried, neurons stabilised)


def layer_bounds(
    network: Network,
    ball: InputSet,
    rungs: Sequence[Rung | str] = CHAIN,
    settings: Settings | None = None,
    progress: Progress | None = None,
    deadline: float | None = None,
) -> ReluBounds:
    """l and u of every ReLU input over the ball by a chain of rungs.

    Claim: l ≤ x̂ ≤ u for every point of the ball, if every rung's lower bound holds; certified (in real arithmetic) if
    every rung of the chain certifies; marked with the region they hold on. deadline: time.perf_counter() after
    which rungs that search or solve neuron by neuron stop, leaving what earlier rungs gave (None: never). Raises
    ValueError for an unknown rung, an empty chain, an attack in the chain (it bounds from the other side), l > u, or
    l and u that leave out the value at the ball's centre: then a rung has said something false.
    """
    return bound_layers(network, ball, rungs, settings, progress, deadline)[0]


def bound_layers(
    network: Network,
    ball: InputSet,
    rungs: Sequence[Rung | str],
    settings: Settings | None = None,
    progress: Progress | None = None,
    deadline: float | None = None,
    known: ReluBounds | None = None,
) -> tuple[ReluBounds, Region | None]:
    """`layer_bounds`, and the region of the last cut, which may serve one of the whole network as its `shorter`.

    known: bounds of this network's first layers on this set, taken as they are; they count as certified if they say so.
    """
    instance("network", network, Network), check_is_input_set("ball", ball)
    chain = get_rungs("rungs", rungs)
    for rung in chain:
        if rung.side is Side.UPPER:
            raise ValueError(f"rung {rung.name!r} gives upper bounds only and cannot bound layers")
    settings = usable_settings(settings)
    a_function("progress", progress)
    deadline = optional_number("deadline", deadline)
    if deadline is not None and math.isnan(deadline):
        raise ValueError("deadline must be a number or None, got nan")
    certified = all(rung.certifies_under(settings) for rung in chain)
    used, first = tuple(rung.name for rung in chain), [get_rung("interval")]
    if known is not None:
        certified, used = certified and known.certified, known.chain
    layers = len(network.relu_sizes)

    def bound_layer(region: Region, k: int) -> Sides:
        return _bound_layer(region, chain if k else first, settings, progress, _share(deadline, layers - k))

    given = [] if known is None else list(zip(known.lower, known.upper, strict=True))
    return bounds_by_layer(network, ball, given, used, certified, bound_layer)


@dataclass
class _Box:
    """l and u of one layer while rungs tighten them."""

    low: FloatArray
    high: FloatArray

    @property
    def bounded(self) -> bool:
        """Whether an earlier rung has given every neuron at least one finite side."""
        return bool(np.all(np.isfinite(self.low) | np.isfinite(self.high)))

    def unstable(self) -> IndexArray:
        return np.flatnonzero(is_unstable(self.low, self.high))


def _share(deadline: float | None, layers: int) -> float | None:
    """When the next of so many layers is to be done, if each gets as much of the time left."""
    if deadline is None:
        return None
    now = time.perf_counter()
    return now + max(0.0, deadline - now) / layers


def _bound_layer(
    region: Region,
    chain: Sequence[Rung],
    settings: Settings,
    progress: Progress | None,
    deadline: float | None,
) -> tuple[FloatArray, FloatArray]:
    size = region.network.output_size
    problem = Problem(region, Objective(np.zeros((0, size))), settings)
    box = _Box(np.full(size, -np.inf), np.full(size, np.inf))
    for rung in chain:
        tried = box.unstable()
        if not tried.size:
            break
        done = 0
        for some in _turns(rung, tried, deadline):
            searches = rung.cost > Cost.CLOSED_FORM or rung.ranges is not None
            if deadline is not None and searches and box.bounded and time.perf_counter() > deadline:
                break
            own = problem.with_settings(_timed(rung, settings, deadline, tried.size - done))
            low, high = rung.neuron_ranges(own, some)
            box.low[some] = np.maximum(box.low[some], low)
            box.high[some] = np.minimum(box.high[some], high)
            done += some.size
        if not done:
            continue
        _check_order(box, rung, problem, chain)
        if progress is not None:
            progress(len(region.relu_bounds), rung.name, int(tried.size), int(tried.size - box.unstable().size))
    return box.low, box.high


def _turns(rung: Rung, neurons: IndexArray, deadline: float | None) -> list[IndexArray]:
    """The neurons that are asked about between two looks at the clock."""
    if deadline is None or rung.cost is Cost.CLOSED_FORM or rung.ranges is not None:
        return [neurons]
    count = 1 if rung.row_by_row else NEURONS_AT_A_TIME
    return np.split(neurons, range(count, neurons.size, count))


def _timed(rung: Rung, settings: Settings, deadline: float | None, neurons: int) -> Settings:
    """The settings with the seconds that each of both sides of so many neurons may take: its share of what is left; an
    LP, which without an end says little, as much as is left."""
    if deadline is None or (rung.cost is Cost.CLOSED_FORM and rung.ranges is None):
        return settings
    left = deadline - time.perf_counter()
    each = left / (2 * (1 if rung.cost is Cost.LINEAR_PROGRAM and rung.ranges is None else neurons))
    limits = [each] if settings.time_limit is None or rung.ranges is not None else [each, settings.time_limit]
    return replace(settings, time_limit=max(min(limits), LEAST_LEFT))


def _check_order(box: _Box, rung: Rung, problem: Problem, chain: Sequence[Rung]) -> None:
    """Where l > u one of two claims is false. Raise ValueError; but where rungs only claim to hold within a solver's
    tolerance, and l and u crossed by no more, take the interval that holds both ends. It holds the centre's value."""
    certified = all(one.certifies_under(problem.settings) for one in chain)
    crossed = np.flatnonzero(box.low > box.high)
    allowed = 0.0 if certified or not crossed.size else CROSSING_TOLERANCE * output_scales(problem)[crossed]
    wrong = np.flatnonzero(~(box.low[crossed] - box.high[crossed] <= allowed))
    if wrong.size:
        i = int(crossed[wrong[0]])
        word = "certified bounds" if certified else "bounds"
        raise ValueError(f"rung {rung.name!r} gives {word} l = {box.low[i]} > u = {box.high[i]} of neuron {i}")
    box.low[crossed], box.high[crossed] = box.high[crossed], box.low[crossed]
    _check_centre(box, rung, problem, certified)


def _check_centre(box: _Box, rung: Rung, problem: Problem, certified: bool) -> None:
    """Raise ValueError where l or u is NaN, or leaves out the value at the set's centre by more than that may be off:
    by its rounding, and by the rung's own and a solver's tolerance where nothing is certified."""
    value = problem.region.derive(centre_outputs)
    outside = np.flatnonzero(~((box.low <= value) & (value <= box.high)))
    for some in np.array_split(outside, range(NEURONS_CHECKED, outside.size, NEURONS_CHECKED)) if outside.size else []:
        rows = selection_rows(value.size, some, 1)
        allowed = evaluation_errors(problem.network, rows, problem.input_set.center)[0][0]
        if not certified:
            allowed = ALLOWANCE * allowed + CROSSING_TOLERANCE * output_scales(problem)[some]
        low, high, at = box.low[some], box.high[some], value[some]
        with np.errstate(over="ignore", invalid="ignore"):  # nothing is known where values overflow
            wrong = np.flatnonzero(np.isnan(low) | np.isnan(high) | (low - at > allowed) | (at - high > allowed))
        if wrong.size:
            k = int(wrong[0])
            where = f"neuron {some[k]} in ReLU layer {len(problem.relu_bounds)}, which is {at[k]} at the centre"
            word = "certified bounds" if certified else "bounds"
            raise ValueError(f"rung {rung.name!r} gives {word} l = {low[k]}, u = {high[k]} of {where}")


def output_scales(problem: Problem) -> FloatArray:
    """|W|·r + |b| of every output of the problem's network: how large the terms are that its value is a sum of;
    infinite or NaN where they overflow."""
    ball, last = problem.input_set, problem.network.stages[-1]
    sizes = [np.maximum(np.abs(ball.lower), np.abs(ball.upper))]
    sizes += [np.maximum(high, 0.0) for high in problem.relu_bounds.upper]
    with np.errstate(over="ignore", invalid="ignore"):
        parts = (abs(layer.operand()) @ sizes[place] for place, layer in last.sources)
        return np.asarray(sum(parts) + np.abs(last.bias), dtype=np.float64)
