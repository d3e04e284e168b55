"""The part of a network that a ball can reach: inactive neurons removed, stable ones known.

For x̃ in the ball an inactive neuron is 0, so its row and column can be dropped without changing any output. Closed-form
bounds and the template both work on what is left, which for a robust convolutional network is a small fraction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.arrays import BoolArray, FloatArray, IndexArray
from toolkit.networks.convolutions import Convolution, compose_or_select
from toolkit.networks.network import Network
from toolkit.networks.stages import Stage
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.problem import Problem
from toolkit.problems.region import Region

CARRIED_ENTRIES = 1 << 25  # numbers in the rows of one walk through convolutions without a matrix


@dataclass(frozen=True)
class AliveNetwork:
    """A network restricted to neurons that are not inactive.

    stages: the hidden stages between alive neurons (the last one of the network is left out: rows fold into it).
    alive: per ReLU layer, the original index of each alive neuron. lower, upper: their l and u.
    """

    stages: tuple[Stage, ...]
    alive: tuple[IndexArray, ...]
    lower: tuple[FloatArray, ...]
    upper: tuple[FloatArray, ...]

    def unstable(self, layer: int) -> BoolArray:
        """Mask over alive neurons: l < 0 (and u > 0, or they would not be alive)."""
        return np.asarray(self.lower[layer] < 0)


def restrict_to_alive(network: Network, bounds: ReluBounds) -> AliveNetwork:
    """Drop the inactive neurons of `network` under `bounds`; every output on the ball stays the same."""
    alive = tuple(np.flatnonzero(~bounds.inactive(k)) for k in range(len(bounds)))
    places = (None, *alive)
    stages = tuple(stage.restrict(alive[k], places) for k, stage in enumerate(network.stages[:-1]))
    return AliveNetwork(
        stages,
        alive,
        tuple(bounds.lower[k][index] for k, index in enumerate(alive)),
        tuple(bounds.upper[k][index] for k, index in enumerate(alive)),
    )


def alive_network(problem: Problem) -> AliveNetwork:
    """The alive part of the problem's network, memoised on the problem."""
    return problem.region.derive(alive_part)


def folded_rows(problem: Problem) -> tuple[dict[int, Any], FloatArray]:
    """C·W_Lj over the alive neurons of every place j the last stage reads, and C·b_L. Shapes: (m, alive) each, (m,).

    They are scipy.sparse where both the rows and the map are.
    """
    return problem.region.derive(alive_last).compose_rows(problem.rows)


def folded_or_selected(problem: Problem) -> tuple[dict[int, Any], FloatArray]:
    """As `folded_rows`; but many rows ±e_i about a large convolution are an KernelOperator: no matrix holds them."""
    stage = problem.region.derive(alive_last)
    found = {place: compose_or_select(layer, problem.rows) for place, layer in stage.sources}
    return {place: part for place, (part, _) in found.items()}, found[stage.sources[0][0]][1]


def rows_at_once(region: Region) -> int | None:
    """How many rows a walk may carry back, so that they fit into memory behind convolutions without a matrix; None:
    there are none, and all rows are carried together."""
    stages = (*region.derive(alive_part).stages, region.derive(alive_last))
    maps = [layer for stage in stages for _, layer in stage.sources]
    if not any(isinstance(layer, Convolution) and layer.operator is not None for layer in maps):
        return None
    return max(1, CARRIED_ENTRIES // max(max(layer.input_size, layer.output_size) for layer in maps))


def alive_part(region: Region) -> AliveNetwork:
    """The alive part of the region's network; that of the shorter region and one layer more, where there is one."""
    bounds, shorter = region.relu_bounds, region.shorter
    if shorter is None or not region.extends(shorter):
        return restrict_to_alive(region.network, bounds)
    known, last = shorter.derive(alive_part), shorter.derive(alive_last)
    index = np.flatnonzero(~bounds.inactive(len(bounds) - 1))
    object.__setattr__(region, "shorter", None)  # has served: nothing of it needs to be kept
    return AliveNetwork(
        (*known.stages, Stage(last.restrict(index, _all(last)).sources)),
        (*known.alive, index),
        (*known.lower, bounds.lower[-1][index]),
        (*known.upper, bounds.upper[-1][index]),
    )


def alive_last(region: Region) -> Stage:
    """The network's last stage over the alive neurons of the ReLU layers it reads (or the inputs)."""
    return region.network.stages[-1].restrict(None, (None, *region.derive(alive_part).alive))


def _all(stage: Stage) -> tuple[None, ...]:
    return (None,) * (1 + max(place for place, _ in stage.sources))
