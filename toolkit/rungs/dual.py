"""The dual bound g(α′): a feasible point of the LP's dual, in closed form and differentiable.

For an objective row c: ν ← c, value ← 0; for l = L … 1: value += ν·b_l, ν ← W_lᵀν; at the ReLU below, with its l,u:
inactive ν ← 0; active ν unchanged; unstable, with s = u/(u−l): value += min(ν,0)·(−s·l),
ν ← max(ν,0)·α + min(ν,0)·s. At the input value += min over the ball of ν·x̃. Any α ∈ [0,1] is dual feasible, hence
value ≤ m̲ ≤ m*; α = s is the point of Wong & Kolter.

Source: Wong & Kolter 2018, "Provable defenses against adversarial examples via the convex outer adversarial polytope",
Theorem 1 (their ν has the other sign). Checked: nothing needs to be, every α ∈ [0,1] is sound.
Trusted: float64 rounding to nearest, and that the given l,u hold.

`dual_values` is array-API generic: numpy float64 certifies, torch tensors carry gradients for training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from array_api_compat import array_namespace

from toolkit.alive import alive_network, folded_rows
from toolkit.balls import FloatArray, box_min_linear
from toolkit.layers import AffineMap
from toolkit.problem import Problem, Rung, Side


def upper_slope(lower: Any, upper: Any) -> Any:
    """s: u/(u−l) where l < 0 < u, 1 where l ≥ 0, 0 where u ≤ 0 > l. Any shape; finite gradients everywhere."""
    xp = array_namespace(lower, upper)
    zero, one = xp.zeros_like(lower), xp.ones_like(lower)
    unstable = (lower < 0) & (upper > 0)
    width = xp.where(unstable, upper - lower, one)
    return xp.where(unstable, xp.where(unstable, upper, zero) / width, xp.where(lower >= 0, one, zero))


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
    """g(α) for functionals ν·y + value of the outputs y of the last ReLU.

    layers: the affine maps before that ReLU, in order (empty: y is the input). Shapes, with any batch axes B in
    front: nu (B, m, n_last), value (B, m), relu_lower/upper[k] (B, n_k), ball_lower/upper (B, n_0) → (B, m).
    slopes[k]: α of ReLU layer k in [0,1], shape broadcastable to (B, m, n_k), read at unstable neurons only;
    None = Wong & Kolter's α = s.
    """
    for k in range(len(layers) - 1, -1, -1):
        lower, upper = relu_lower[k][..., None, :], relu_upper[k][..., None, :]
        xp = array_namespace(nu, lower)
        s = upper_slope(lower, upper)
        negative = xp.minimum(nu, xp.zeros_like(nu))
        offset = -s * xp.minimum(lower, xp.zeros_like(lower))
        value = value + (negative @ xp.matrix_transpose(offset))[..., 0]
        if slopes is None:
            nu = nu * s
        else:
            alpha = xp.where((lower < 0) & (upper > 0), slopes[k], s)
            nu = (nu - negative) * alpha + negative * s
        value = value + nu @ layers[k].bias_vector
        nu = layers[k].adjoint(nu)
    return value + box_min_linear(nu, ball_lower, ball_upper)


def certified_values(problem: Problem, slopes: Sequence[Any] | None = None) -> FloatArray:
    """g(α) in numpy float64 for every row of the problem, shape (m,); slopes refer to the alive network's neurons.

    slopes None is the rung itself: Wong & Kolter's α = s.
    """
    nu, value = folded_rows(problem)
    network = alive_network(problem)
    box = problem.ball.lower, problem.ball.upper
    dense = nu.toarray() if sp.issparse(nu) else nu
    return np.asarray(dual_values(network.layers, dense, value, network.lower, network.upper, *box, slopes=slopes))


RUNG = Rung(
    name="dual",
    side=Side.LOWER,
    claim="dual feasible point α = u/(u−l), closed form",
    source="Wong & Kolter 2018, Thm 1",
    values=certified_values,
)
