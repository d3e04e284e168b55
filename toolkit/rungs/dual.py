"""The dual bound g(α′): a feasible point of the LP's dual, in closed form and differentiable.

For an objective row c: ν ← c, value ← 0; for l = L … 1: value += ν·b_l, ν ← W_lᵀν; at the ReLU below, with its l,u:
inactive ν ← 0; active ν unchanged; unstable, with s = u/(u−l): value += min(ν,0)·(−s·l),
ν ← max(ν,0)·α + min(ν,0)·s. At the input value += min over the ball of ν·x̃. Any α ∈ [0,1] is dual feasible, hence
value ≤ m̲ ≤ m*; α = s is the point of Wong & Kolter. It is the walk of relaxations/relu.py with its DualStep.

Source: Wong & Kolter 2018, "Provable defenses against adversarial examples via the convex outer adversarial polytope",
Theorem 1 (their ν has the other sign). Checked: every α ∈ [0,1] is sound; rounding is taken off the rung's bounds by
the error terms of rounding.py (here λ = fl(ν·s) or fl of the α-mixture; a ReLU's roundings are at most a few u·|ν|·r).
Trusted: that the given l,u hold.

`dual_values` is array-API generic: numpy float64 certifies, torch tensors carry gradients for training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import Array, FloatArray
from toolkit.certificates.rounding import Ledger, error_model_of, outward
from toolkit.networks.stages import Stage
from toolkit.networks.weights import DENSE_ABOVE
from toolkit.problems.answers import RowBounds
from toolkit.problems.problem import Problem
from toolkit.problems.reduced import AliveNetwork, alive_network, folded_rows, rows_at_once
from toolkit.relaxations.relu import DualStep, walk
from toolkit.rungs.rung import Cost, Rung, Side


def dual_ranges(
    stages: Sequence[Stage],
    start: Mapping[int, Array],
    value: Array,
    relu_bounds: tuple[Sequence[Array], Sequence[Array]],
    input_range: Callable[[Array], tuple[Array, Array]],
    slopes: Sequence[Array] | None = None,
    ledger: Ledger | None = None,
) -> tuple[Array, Array]:
    """Middle and half-width of the dual's range for functionals value + Σ_j start[j]·y⁽ʲ⁾ of the stages' outputs.

    g(α) = middle − half_width. With α = s the recursion treats ν and −ν alike, so middle + half_width bounds the
    functional from above; with other slopes it means nothing.
    start: ν per place (0: the input, k + 1: what stage k gives). relu_bounds: l and u per stage, read at ReLU stages.
    input_range: middle and half-width of ν·x̃ over the inputs, `InputSet.linear_range` or `over_box`. Shapes, with any
    batch axes B in front: start[j] (B, m, n_j), value (B, m), l and u (B, n_k) → (B, m) each. With α = s and no batch
    axes start may be scipy.sparse.
    slopes[k]: α of ReLU stage k in [0,1], shape broadcastable to (B, m, n_k), read at unstable neurons only;
    None = Wong & Kolter's α = s. ledger: collects what rounding may have done (numpy without batch axes).
    """
    step = DualStep(*relu_bounds, slopes)
    nu, value = walk(stages, start, step, value, ledger)
    if ledger is not None:
        ledger.terms(0, nu)
    middle, half_width = input_range(nu)
    return value + step.middle + middle, step.half_width + half_width


def dual_values(
    stages: Sequence[Stage],
    start: Mapping[int, Array],
    value: Array,
    relu_bounds: tuple[Sequence[Array], Sequence[Array]],
    input_range: Callable[[Array], tuple[Array, Array]],
    slopes: Sequence[Array] | None = None,
) -> Array:
    """g(α) for functionals value + Σ_j start[j]·y⁽ʲ⁾; arguments as in `dual_ranges`."""
    middle, half_width = dual_ranges(stages, start, value, relu_bounds, input_range, slopes)
    return middle - half_width


def certified_ranges(problem: Problem, slopes: Sequence[FloatArray] | None = None) -> tuple[FloatArray, FloatArray]:
    """middle ∓ half_width of `dual_ranges` in numpy float64 for every row, less rounding; slopes: of alive neurons.

    slopes None is the rung itself: α = s, where both sides are bounds. Raises ValueError for slopes outside [0, 1].
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        count, some = problem.rows.shape[0], problem.region.derive(rows_at_once)
        if slopes is not None or some is None or count <= some:
            return _certified_ranges(problem, slopes)
        starts = range(0, count, some)
        parts = [_certified_ranges(problem.with_rows(problem.rows[i : i + some]), None) for i in starts]
        return np.concatenate([low for low, _ in parts]), np.concatenate([high for _, high in parts])


def _certified_ranges(problem: Problem, slopes: Sequence[FloatArray] | None) -> tuple[FloatArray, FloatArray]:
    starts, value = folded_rows(problem)
    network = alive_network(problem)
    if slopes is not None:
        _check_slopes(slopes, network)
    # sums of sparse and dense rows are no arrays: all are dense where one is
    sparse = slopes is None and all(sp.issparse(nu) and not _filled(nu) for nu in starts.values())
    if not sparse:
        starts = {place: nu.toarray() if sp.issparse(nu) else nu for place, nu in starts.items()}
    ledger = Ledger(error_model_of(problem), problem.rows.shape[0])
    ledger.product(len(network.stages), problem.rows)
    bounds, reach = (network.lower, network.upper), problem.input_set.linear_range
    middle, half_width = dual_ranges(network.stages, starts, value, bounds, reach, slopes, ledger)
    return outward(middle - half_width, ledger.error), -outward(-(middle + half_width), ledger.error)


def _filled(rows: Any) -> bool:
    """Whether so many entries are there that a dense array is the faster one."""
    return bool(rows.nnz > DENSE_ABOVE * math.prod(rows.shape))


def _check_slopes(slopes: Sequence[FloatArray], network: AliveNetwork) -> None:
    """ValueError unless every unstable neuron's α is in [0, 1]: only then is it dual feasible."""
    if len(slopes) != len(network.alive):
        raise ValueError(f"slopes must be one array per ReLU layer, {len(network.alive)}, got {len(slopes)}")
    for k, given in enumerate(slopes):
        alpha = np.asarray(given)
        size = network.lower[k].size
        if alpha.shape[-1:] != (size,):
            raise ValueError(f"slopes of ReLU layer {k} must end in its {size} alive neurons, got shape {alpha.shape}")
        wrong = network.unstable(k) & ~((alpha >= 0) & (alpha <= 1))
        if wrong.any():
            where = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(f"slopes of ReLU layer {k} must be in [0, 1], got {alpha[where]} at index {where}")


def certified_values(problem: Problem, slopes: Sequence[FloatArray] | None = None) -> FloatArray:
    """g(α) in numpy float64 for every row of the problem, less rounding, shape (m,); raises as `certified_ranges`."""
    return certified_ranges(problem, slopes)[0]


def dual_bounds(problem: Problem) -> RowBounds:
    """Both sides of every row."""
    return RowBounds(*certified_ranges(problem))


RUNG = Rung(
    name="dual",
    side=Side.LOWER,
    claim="dual feasible point α = u/(u−l), closed form",
    source="Wong & Kolter 2018, Thm 1",
    run=dual_bounds,
    cost=Cost.CLOSED_FORM,
    certifies=True,
)
