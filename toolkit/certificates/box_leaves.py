"""The leaves of a tree over the input box: certified bounds of a row on boxes, from nothing but the boxes.

On every box l,u of each layer are the better of the dual's (α = s) and CROWN's (α ∈ {0, 1}) on the layers before, both
sides, rounding taken off; the row is bounded so as well. No l,u of a larger set enters.

Source: Wong & Kolter 2018, Theorem 1; Zhang et al. 2018, §3.3. Checked: tests hold the bounds against rational minima.
Trusted: relu.py's walk and rounding.py, as in dual_bound.py.
"""

from __future__ import annotations

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.certificates.dual_bound import CHORD, certified_bounds
from toolkit.certificates.rounding import ErrorModel, Ledger, make_error_model, outward
from toolkit.networks.network import Network
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_sets import Box
from toolkit.problems.reduced import restrict_to_alive
from toolkit.relaxations.relu import DualStep, adaptive_slope, walk


def box_leaf_bounds(network: Network, row: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Certified lower bounds of row·F over the boxes, shape (B,); row (outputs,), lower and upper (B, n)."""
    cuts = (*(network.cut(k) for k in range(len(network.relu_sizes))), network)
    return np.array([_on_box(cuts, row, Box(*ends)) for ends in zip(lower, upper, strict=True)], dtype=np.float64)


def _on_box(cuts: tuple[Network, ...], row: FloatArray, box: Box) -> float:
    """cuts: the network cut at every ReLU layer, and the whole."""
    low: list[FloatArray] = []
    high: list[FloatArray] = []
    for cut in cuts[:-1]:
        both = np.concatenate([np.eye(cut.output_size), -np.eye(cut.output_size)])
        found = _best(cut, both, low, high, box)
        low.append(found[: cut.output_size])
        high.append(-found[cut.output_size :])
    return float(_best(cuts[-1], row[None], low, high, box)[0])


def _best(network: Network, rows: FloatArray, low: list[FloatArray], high: list[FloatArray], box: Box) -> FloatArray:
    """The better of both closed forms for every row, on l,u of all layers."""
    alive = restrict_to_alive(network, ReluBounds(tuple(low), tuple(high)))
    model = make_error_model(network, alive, box)
    chordal = certified_bounds(model, rows, np.full((len(rows), model.count), CHORD))
    return np.maximum(chordal, _crown(model, rows)) if model.count else chordal


def _crown(model: ErrorModel, rows: FloatArray) -> FloatArray:
    """The dual value at CROWN's slopes, less rounding."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        slopes = [adaptive_slope(lower, upper) for lower, upper in zip(model.lower, model.upper, strict=True)]
        ledger, step = Ledger(model, len(rows)), DualStep(model.lower, model.upper, slopes)
        nu, value = walk(model.stages, {len(model.stages): rows}, step, 0.0, ledger)
        ledger.terms(0, nu)
        middle, half_width = model.input_set.linear_range(nu)
        return outward(value + step.middle - step.half_width + (middle - half_width), ledger.error)
