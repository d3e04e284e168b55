"""l,u for networks that other tools have written as optimisation models: gurobi-machinelearning and OMLT.

Both bound hidden neurons by interval arithmetic, or leave it to the solver; big-M constants and branching are as good
as those bounds. Tighter ones change no optimum, and fix the indicators of neurons whose sign they settle.

Checked: that the model has as many ReLU layers, as wide, as the bounds. Trusted: that it is the model of the network
and, at its inputs, of the input set that the bounds hold on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from toolkit.arrays import FloatArray


class BoundedModels:
    """What bounds can be given to. lower, upper: one flat array per ReLU layer."""

    lower: tuple[FloatArray, ...]
    upper: tuple[FloatArray, ...]

    def to_gurobi_ml(self, constraint: Any) -> int:
        """Set l,u on the variables of a neural network that gurobi-machinelearning added to a Gurobi model.

        constraint: what `gurobi_ml.add_predictor_constr(model, predictor, x)` returned, for one input (x of shape (n,)
        or (1, n)). Every ReLU's input gets [l, u], its output [max(l, 0), max(u, 0)]; bounds that are tighter already
        stay. Returns how many variables' bounds were tightened. Raises ValueError for a model of other ReLU layers, or
        of more than one input.

        Source: the request for this, Gurobi/gurobi-machinelearning issue 237; names of layers and variables as of 1.5
        to 1.7 (`layers`, `mixing`, `input`, `output`).
        """
        layers = [layer for layer in constraint.layers if type(layer.activation).__name__ == "ReLU"]
        _require_sizes("gurobi-machinelearning's", self.lower, [_row(layer.output).size for layer in layers])
        tightened = 0
        for layer, low, high in zip(layers, self.lower, self.upper, strict=True):
            mixing = layer.mixing if hasattr(layer, "mixing") else layer.input  # an activation by itself mixes nothing
            tightened += _tighten_gurobi(mixing, low, high)
            tightened += _tighten_gurobi(layer.output, np.maximum(low, 0.0), np.maximum(high, 0.0))
        constraint.gp_model.update()
        return tightened

    def to_omlt(self, block: Any) -> int:
        """Set l,u on the variables, and as the big-M constants, of a network in an OMLT block.

        block: an `OmltBlock` after `build_formulation(ReluBigMFormulation(…))`; other formulations that keep ẑ and z as
        variables (complementarity) get their bounds. ẑ gets [l, u], z [max(l, 0), max(u, 0)]; indicators of neurons
        with l ≥ 0 or u ≤ 0 are fixed. Returns how many variables' bounds were tightened. Raises ValueError for a block
        of other ReLU layers.

        The input's box is OMLT's `scaled_input_bounds=dict(enumerate(zip(ball.lower, ball.upper)))`, before it builds.
        Source: omlt.neuralnet.activations.relu as of OMLT 1.1 and 1.2 (`zhat`, `z`, `q_relu`, `_big_m_lb_relu`).
        """
        layers = [block.layer[key] for key in block.layers if _is_relu_of_omlt(block.layer[key])]
        _require_sizes("OMLT's", self.lower, [len(layer.zhat) for layer in layers])
        tightened = 0
        for layer, low, high in zip(layers, self.lower, self.upper, strict=True):
            for index, below, above in zip(layer.zhat, low.tolist(), high.tolist(), strict=True):
                tightened += _tighten_pyomo(layer.zhat[index], below, above)
                tightened += _tighten_pyomo(layer.z[index], max(below, 0.0), max(above, 0.0))
                if hasattr(layer, "q_relu"):
                    _set_big_m(layer, index)
        return tightened


def _require_sizes(whose: str, lower: Sequence[FloatArray], found: Sequence[int]) -> None:
    own = [side.size for side in lower]
    if own != list(found):
        raise ValueError(f"{whose} model must have ReLU layers of sizes {own}, as the bounds do, got {list(found)}")


def _row(variables: Any) -> Any:
    """The variables of one input as a flat MVar."""
    if variables.ndim > 1 and variables.shape[0] != 1:
        raise ValueError(f"the model must be about one input, got {variables.shape[0]}: bounds hold for one ball")
    return variables.reshape(-1)


def _tighten_gurobi(variables: Any, below: FloatArray, above: FloatArray) -> int:
    own = _row(variables)
    low, high = np.asarray(own.LB), np.asarray(own.UB)
    own.LB, own.UB = np.maximum(low, below), np.minimum(high, above)
    return int(np.count_nonzero((below > low) | (above < high)))


def _is_relu_of_omlt(layer: Any) -> bool:
    return hasattr(layer, "q_relu") or hasattr(layer, "_complementarity")


def _tighten_pyomo(variable: Any, below: float, above: float) -> bool:
    low = -np.inf if variable.lb is None else variable.lb
    high = np.inf if variable.ub is None else variable.ub
    variable.setlb(max(low, below))
    variable.setub(min(high, above))
    return bool(below > low or above < high)


def _set_big_m(layer: Any, index: Any) -> None:
    low, high = layer.zhat[index].bounds
    layer._big_m_lb_relu[index], layer._big_m_ub_relu[index] = low, high
    if low >= 0 or high <= 0:
        layer.q_relu[index].fix(int(low >= 0))
