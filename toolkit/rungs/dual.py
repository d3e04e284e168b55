"""The dual bound g(α′): a feasible point of the LP's dual, in closed form and differentiable.

For an objective row c: ν ← c, value ← 0; for l = L … 1: value += ν·b_l, ν ← W_lᵀν; at the ReLU below, with its l,u:
inactive ν ← 0; active ν unchanged; unstable, with s = u/(u−l): value += min(ν,0)·(−s·l),
ν ← max(ν,0)·α + min(ν,0)·s. At the input value += min over the ball of ν·x̃. Any α ∈ [0,1] is dual feasible, hence
value ≤ m̲ ≤ m*; α = s is the point of Wong & Kolter.

Source: Wong & Kolter 2018, "Provable defenses against adversarial examples via the convex outer adversarial polytope",
Theorem 1 (their ν has the other sign). Checked: every α ∈ [0,1] is sound; rounding is taken off the rung's bounds by
the error terms of rounding.py (here λ = fl(ν·s) or fl of the α-mixture; a ReLU's roundings are at most a few u·|ν|·r).
Trusted: that the given l,u hold.

`dual_values` is array-API generic: numpy float64 certifies, torch tensors carry gradients for training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from array_api_compat import array_namespace

from toolkit.arrays import FloatArray
from toolkit.certificates.rounding import Ledger, outward, region_of
from toolkit.networks.layers import AffineMap
from toolkit.networks.weights import DENSE_ABOVE
from toolkit.problems.answers import RowBounds
from toolkit.problems.input_set import box_range_linear
from toolkit.problems.problem import Problem
from toolkit.problems.reduced import AliveNetwork, alive_network, folded_rows
from toolkit.rungs.rung import Cost, Rung, Side


def upper_slope(lower: Any, upper: Any) -> Any:
    """s: u/(u−l) where l < 0 < u, 1 where l ≥ 0, 0 where u ≤ 0 > l. Any shape; finite gradients everywhere."""
    xp = array_namespace(lower, upper)
    zero, one = xp.zeros_like(lower), xp.ones_like(lower)
    unstable = (lower < 0) & (upper > 0)
    half = 0.5 * upper  # u − l may overflow where u and l do not
    width = xp.where(unstable, half - 0.5 * lower, one)
    return xp.where(unstable, xp.where(unstable, half, zero) / width, xp.where(lower >= 0, one, zero))


def dual_ranges(
    layers: Sequence[AffineMap],
    nu: Any,
    value: Any,
    relu_lower: Sequence[Any],
    relu_upper: Sequence[Any],
    ball_lower: Any,
    ball_upper: Any,
    slopes: Sequence[Any] | None = None,
    ledger: Ledger | None = None,
) -> tuple[Any, Any]:
    """Middle and half-width of the dual's range for functionals ν·y + value of the outputs y of the last ReLU.

    g(α) = middle − half_width. With α = s the recursion treats ν and −ν alike, so middle + half_width bounds the
    functional from above; with other slopes it means nothing.
    layers: the affine maps before that ReLU, in order (empty: y is the input). Shapes, with any batch axes B in
    front: nu (B, m, n_last), value (B, m), relu_lower/upper[k] (B, n_k), ball_lower/upper (B, n_0) → (B, m) each.
    With α = s and no batch axes nu may be scipy.sparse.
    slopes[k]: α of ReLU layer k in [0,1], shape broadcastable to (B, m, n_k), read at unstable neurons only;
    None = Wong & Kolter's α = s. ledger: collects what rounding may have done (numpy without batch axes).
    """
    middle, half_width = value, 0.0 * value
    for k in range(len(layers) - 1, -1, -1):
        lower, upper = relu_lower[k][..., None, :], relu_upper[k][..., None, :]
        xp = array_namespace(lower, upper)
        s = upper_slope(lower, upper)
        half_offset = xp.matrix_transpose(-0.5 * s * xp.minimum(lower, xp.zeros_like(lower)))
        size = abs(nu)
        if ledger is not None:
            ledger.terms(k + 1, nu)
        # min(ν,0)·(−s·l) = (ν − |ν|)·(−s·l)/2
        middle = middle + (nu @ half_offset)[..., 0]
        half_width = half_width + (size @ half_offset)[..., 0]
        if slopes is None:
            nu = nu * s
        else:
            alpha = xp.where((lower < 0) & (upper > 0), slopes[k], s)
            nu = nu * (0.5 * (alpha + s)) + size * (0.5 * (alpha - s))
        middle = middle + nu @ layers[k].bias_vector
        if ledger is not None:
            ledger.product_of_shrunk(k)  # |λ| ≤ |ν|: every slope is in [0, 1]
        nu = layers[k].adjoint(nu)
    if ledger is not None:
        ledger.terms(0, nu)
    input_middle, input_half_width = box_range_linear(nu, ball_lower, ball_upper)
    return middle + input_middle, half_width + input_half_width


def dual_values(
    layers: Sequence[AffineMap],
    nu: Any,
    value: Any,
    relu_lower: Sequence[Any],
    relu_upper: Sequence[Any],
    ball_lower: Any,
    ball_upper: Any,
    slopes: Sequence[Any] | None = None,
) -> Any:
    """g(α) for functionals ν·y + value of the outputs y of the last ReLU; arguments as in `dual_ranges`."""
    middle, half_width = dual_ranges(layers, nu, value, relu_lower, relu_upper, ball_lower, ball_upper, slopes)
    return middle - half_width


def certified_ranges(problem: Problem, slopes: Sequence[Any] | None = None) -> tuple[FloatArray, FloatArray]:
    """middle ∓ half_width of `dual_ranges` in numpy float64 for every row, less rounding; slopes: of alive neurons.

    slopes None is the rung itself: α = s, where both sides are bounds. Raises ValueError for slopes outside [0, 1].
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        return _certified_ranges(problem, slopes)


def _certified_ranges(problem: Problem, slopes: Sequence[Any] | None) -> tuple[FloatArray, FloatArray]:
    nu, value = folded_rows(problem)
    network = alive_network(problem)
    if slopes is not None:
        _check_slopes(slopes, network)
    box = problem.input_set.lower, problem.input_set.upper
    if sp.issparse(nu) and (slopes is not None or nu.nnz > DENSE_ABOVE * math.prod(nu.shape)):
        nu = nu.toarray()
    ledger = Ledger(region_of(problem), problem.rows)
    found = dual_ranges(network.layers, nu, value, network.lower, network.upper, *box, slopes=slopes, ledger=ledger)
    middle, half_width = found
    return outward(middle - half_width, ledger.error), -outward(-(middle + half_width), ledger.error)


def _check_slopes(slopes: Sequence[Any], network: AliveNetwork) -> None:
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


def certified_values(problem: Problem, slopes: Sequence[Any] | None = None) -> FloatArray:
    """g(α) in numpy float64 for every row of the problem, less rounding, shape (m,); raises as `certified_ranges`."""
    return certified_ranges(problem, slopes)[0]


def row_bounds(problem: Problem) -> RowBounds:
    """Both sides of every row."""
    return RowBounds(*certified_ranges(problem))


RUNG = Rung(
    name="dual",
    side=Side.LOWER,
    claim="dual feasible point α = u/(u−l), closed form",
    source="Wong & Kolter 2018, Thm 1",
    run=row_bounds,
    cost=Cost.CLOSED_FORM,
    certifies=True,
)
