"""Lipschitz bounds: the margin at a point of the ball minus what it can lose at most on the way to any other.

Along a segment a ReLU network's output changes by c·W_L·D_{L−1}·W_{L−1} … D_1·W_1·(x̃ − x), where every D is diagonal
with entries in [0,1], 1 at active and 0 at inactive neurons. Two bounds on that, for the dual norm of ℓ∞:

- product:    c·F(x) − ‖c·W_L‖₁ · ‖W_{L−1}‖_{∞→∞} … ‖W_1‖_{∞→∞} · ε,  with ‖W‖_{∞→∞} the largest ℓ1 norm of a row;
- per margin: c·F(p) − Σ_j max(|J̲_j|, |J̄_j|)·r_j,  with p the midpoint and r the half-widths of the ball's box, and
  J̲ ≤ J ≤ J̄ the range of the row vectors above over all such D, by interval arithmetic from the output back.

The rung gives the larger. The second never loses more than the first does per unit of radius.

Source: Szegedy et al. 2014, "Intriguing properties of neural networks", §4.3 (product); Hein & Andriushchenko 2017,
"Formal guarantees on the robustness of a classifier", Thm 2.1 (margin minus radius times a local constant); Weng et
al. 2018, "Towards fast computation of certified robustness for ReLU networks", Alg. 2 Fast-Lip (the range of J).
Checked: nothing needs to be. Trusted: float64 rounding, and for the second that the given l,u hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from toolkit.alive import alive_network, folded_rows
from toolkit.alive_matrices import plain_weight
from toolkit.balls import FloatArray
from toolkit.layers import AffineMap
from toolkit.problem import Problem, Rung, Side


def product_values(problem: Problem) -> FloatArray:
    """c·F(x) − ‖c·W_L‖₁·Π‖W_l‖_{∞→∞}·ε for every row, shape (m,); no l,u needed."""
    nu, _ = problem.network.layers[-1].compose_rows(problem.rows)
    constants = np.asarray(abs(nu).sum(axis=1), dtype=np.float64) * problem.shared(
        "operator_norms", lambda: _product_of_norms(problem)
    )
    return np.asarray(problem.replay(problem.ball.center)[0] - constants * problem.ball.eps)


def jacobian_values(problem: Problem) -> FloatArray:
    """c·F(p) − Σ_j max(|J̲_j|, |J̄_j|)·r_j for every row, shape (m,)."""
    middle, half_width = jacobian_ranges(problem)
    low, high = problem.ball.lower, problem.ball.upper
    loss = (np.abs(middle) + half_width) @ (0.5 * (high - low))
    return np.asarray(problem.replay(0.5 * (low + high))[0] - loss)


def jacobian_ranges(problem: Problem) -> tuple[FloatArray, FloatArray]:
    """Middle and half-width of J̲ ≤ J ≤ J̄: every difference quotient of c·F between points of the ball lies there.

    Shapes: (m, n) each. With J̲ ≤ J ≤ J̄ behind a ReLU, D ∈ [0,1] gives min(J̲, 0) ≤ J·D ≤ max(J̄, 0) at unstable
    neurons; behind W the middle maps by W and the half-width by |W|.
    """
    rows, _ = folded_rows(problem)
    middle = rows.toarray() if sp.issparse(rows) else np.asarray(rows, dtype=np.float64)
    half_width = np.zeros_like(middle)
    network = alive_network(problem)
    sizes = problem.shared("absolute_weights", lambda: [absolute_weight(layer) for layer in network.layers])
    for k in range(len(network.layers) - 1, -1, -1):
        unstable = network.unstable(k)
        low = np.where(unstable, np.minimum(middle - half_width, 0.0), middle - half_width)
        high = np.where(unstable, np.maximum(middle + half_width, 0.0), middle + half_width)
        middle = network.layers[k].adjoint(0.5 * (low + high))
        half_width = np.asarray((sizes[k].T @ (0.5 * (high - low)).T).T)
    return middle, half_width


def absolute_weight(layer: AffineMap) -> Any:
    """|W|, dense for a Dense map and scipy.sparse for any other."""
    return abs(plain_weight(layer))


def _product_of_norms(problem: Problem) -> float:
    """Π ‖W_l‖_{∞→∞} over all maps but the last; 1 for an affine network."""
    norms = [absolute_weight(layer).sum(axis=1).max() for layer in problem.network.layers[:-1]]
    return float(np.prod(norms))


def lipschitz_values(problem: Problem) -> FloatArray:
    """The larger of the two bounds for every row, shape (m,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.fmax(product_values(problem), jacobian_values(problem))
    return np.where(np.isfinite(found), found, -np.inf)  # a sum that overflowed proves nothing


RUNG = Rung(
    name="lipschitz",
    side=Side.LOWER,
    claim="margin minus radius times a bound on its gradient",
    source="Szegedy et al. 2014; Hein & Andriushchenko 2017; Weng et al. 2018",
    values=lipschitz_values,
)
