"""Where things are in a template: its columns, and the pre-activations over them. What needs no model needs no Pyomo.

The columns are x̃ (inputs), then y, s and a, one each per unstable neuron; template.py says what they mean. Checked:
shapes, and by `require_finite` that numbers are finite. Trusted: l ≤ x̂ ≤ u, float64 products in the substitution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import BoolArray, FloatArray
from toolkit.networks.network import Network
from toolkit.networks.stages import Stage
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_set import InputSet
from toolkit.problems.reduced import AliveNetwork, restrict_to_alive
from toolkit.relaxations.relu import Substitution, walk

Formulation = Literal["compact", "full"]


class TemplateError(ValueError):
    """A template whose numbers are not all finite: weights, l or u too large for float64 products of them."""


@dataclass(frozen=True, eq=False)
class TemplateLayout:
    """Where things are in a template: columns are x̃ (inputs), then y, s and a (one each per unstable neuron).

    last: the last stage over alive neurons. lower, upper: l and u of the unstable neurons. neurons: (layer, index
    in the network) of each. In the full formulation every neuron counts as alive and unstable here, with 0 in [l, u].
    """

    inputs: int
    alive: AliveNetwork
    last: Stage
    unstable: tuple[BoolArray, ...]
    lower: FloatArray
    upper: FloatArray
    neurons: tuple[tuple[int, int], ...]

    @property
    def count(self) -> int:
        """Number of unstable neurons."""
        return len(self.neurons)

    @property
    def columns(self) -> int:
        """Number of variables."""
        return self.inputs + 3 * self.count

    def block(self, name: Literal["x", "y", "s", "a"]) -> slice:
        """The columns of one kind of variable."""
        if name == "x":
            return slice(0, self.inputs)
        start = self.inputs + "ysa".index(name) * self.count
        return slice(start, start + self.count)

    def objective(self, rows: Any) -> tuple[FloatArray, FloatArray]:
        """Rows C of the output as functionals of the variables: coefficients over (x̃, y) and constants.

        Shapes: (m, outputs) → (m, inputs + count), (m,). Exact on the feasible set.
        """
        starts, constant = self.last.compose_rows(rows)
        dense = {place: nu.toarray() if sp.issparse(nu) else nu for place, nu in starts.items()}
        return self.substitute(dense, constant, len(self.alive.stages))

    def pre_activations(self, layer: int) -> tuple[FloatArray, FloatArray]:
        """x̂ of the unstable neurons of one ReLU layer, over (x̃, y). Shapes: (k, inputs + count), (k,)."""
        chosen = np.flatnonzero(self.unstable[layer])
        own = self.alive.stages[layer].restrict(chosen, (None,) * (layer + 1))
        weight = own.compose_rows(np.eye(chosen.size))[0]
        return self.substitute(weight, own.bias, layer)

    def substitute(
        self, starts: Mapping[int, FloatArray], constant: FloatArray, layer: int
    ) -> tuple[FloatArray, FloatArray]:
        """Σ_j ν⁽ʲ⁾·y⁽ʲ⁾ + constant over the alive outputs of ReLU layers before `layer`, rewritten over (x̃, y).

        Walks back to the input as the dual does, stopping at unstable neurons. Shapes: (m, alive) → (m, x and y).
        """
        step = Substitution(self.unstable)
        with np.errstate(over="ignore", invalid="ignore"):  # a session refuses what is no number
            nu, constant = walk(self.alive.stages[:layer], starts, step, constant)
        coefficients = np.zeros((constant.shape[0], self.inputs + self.count))
        end = self.inputs
        for k in range(layer):
            start, end = end, end + int(self.unstable[k].sum())
            if k in step.coefficients:  # else nothing here reads stage k
                coefficients[:, start:end] = step.coefficients[k]
        coefficients[:, : self.inputs] = nu
        return coefficients, constant


def template_layout(
    network: Network, input_set: InputSet, relu_bounds: ReluBounds, formulation: Formulation = "compact"
) -> TemplateLayout:
    """Where things are in the template of a region; raises ValueError for another formulation."""
    if formulation not in ("compact", "full"):
        raise ValueError(f"formulation must be 'compact' or 'full', got {formulation!r}")
    full = formulation == "full"
    alive = _all_neurons(network, relu_bounds) if full else restrict_to_alive(network, relu_bounds)
    unstable = tuple(alive.unstable(k) | full for k in range(len(alive.stages)))
    lower = [alive.lower[k][mask] for k, mask in enumerate(unstable)]
    upper = [alive.upper[k][mask] for k, mask in enumerate(unstable)]
    neurons = [(k, int(i)) for k, mask in enumerate(unstable) for i in alive.alive[k][mask]]
    return TemplateLayout(
        input_set.size,
        alive,
        network.stages[-1].restrict(None, (None, *alive.alive)),
        unstable,
        np.concatenate([np.zeros(0), *lower]),
        np.concatenate([np.zeros(0), *upper]),
        tuple(neurons),
    )


def _all_neurons(network: Network, bounds: ReluBounds) -> AliveNetwork:
    """Every neuron as if it were alive, its l and u widened to hold 0, so that y ∈ [0, u] and s ∈ [0, −l] hold."""
    return AliveNetwork(
        network.stages[:-1],
        tuple(np.arange(low.size) for low in bounds.lower),
        tuple(np.minimum(low, 0.0) for low in bounds.lower),
        tuple(np.maximum(high, 0.0) for high in bounds.upper),
    )


def require_finite(first: FloatArray, second: FloatArray, what: str) -> None:
    """Raise TemplateError, which names `what`, unless every number of both arrays is finite."""
    if not (np.all(np.isfinite(first)) and np.all(np.isfinite(second))):
        raise TemplateError(f"no template: {what} is not finite in float64")
