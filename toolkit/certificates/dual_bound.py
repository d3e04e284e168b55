"""The certified bound: a true lower bound, in real arithmetic, from multipliers that anyone may have made up.

Claim. Let F be the network as real arithmetic on its float64 weights, P the ball, and l ≤ x̂ ≤ u on P. For every
unstable neuron give any number λ_i (for instance an LP's row dual of x̂_i = y_i − s_i). With λ⁽ᴸ⁾ = c and, from the
last map back, ν = λW, and λ = ν at active and 0 at inactive neurons,

    c·F ≥ Σ_k λ⁽ᵏ⁾·b_k + Σ_{i unstable} min(0, (ν_i − λ_i)u_i, −λ_i l_i) + min_{x∈P} ν·x          on P.

Proof. c·F = λ·x̂ at the last map, λ·x̂ = λ·b + ν·y, and ν_i y_i = λ_i x̂_i + (ν_i − λ_i)y_i + λ_i s_i at a ReLU with
x̂ = y − s, where (y, s) lies in the triangle (0,0), (u,0), (0,−l): a linear function is least at a corner. At an active
neuron the float λ_i stands for fl(ν_i), and |ν_i − λ_i|·u_i is part of the error term of the product λW. A neuron split
active (x̂ ≥ 0) keeps the corners (0,0), (u,0); split inactive (0,0), (0,−l). With c = 0 a positive value proves a part
of the region empty. A cut with multiplier μ ≥ 0 adds μ·(left − right) ≤ 0 (see derive_cuts). ∎

No coefficient of the template enters, so neither the solver nor the products of weights in the template need to be
trusted. Rounding is taken off by `rounding.Ledger`: |λ_i − ν_i| and all sums are bounded there.

Source: weak duality; Neumaier & Shcherbina 2004, "Safe bounds in linear and mixed-integer programming"; Wong & Kolter
2018. Checked: nothing needs to be. Trusted: l,u, and what rounding.py trusts. What float32 inference may add to the
network's outputs is outside the claim: `rounding.float32_error` bounds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import BoolArray, FloatArray
from toolkit.certificates.rounding import OPERATIONS, Ledger, Region, outward, region_of
from toolkit.networks.float_error import SAFETY, gamma
from toolkit.problems.problem import Problem

CHORD = np.nan  # in place of a multiplier: λ = s·ν with s = u/(u − l)


@dataclass(frozen=True, eq=False)
class Cuts:
    """Valid inequalities rows·(x, y) + constant ≤ slope·a of single neurons, a ∈ {0, 1} their indicators.

    rows: CSR (cuts, inputs + unstable neurons); neuron: which unstable neuron a belongs to; size: the sum of the
    absolute values that each cut's terms can take, for the rounding of their sums.
    """

    rows: Any
    constant: FloatArray
    slope: FloatArray
    neuron: Any
    size: FloatArray


def derive_cuts(region: Region, neurons: Any, members: Any) -> Cuts:
    """y_i ≤ Σ_{j∈I} w_j(v_j − L̆_j(1 − a)) + (b + δ + Σ_{j∉I} w_j Ŭ_j) a for neurons i and subsets I of their inputs.

    w, b: x̂_i over the variables v = (x, y of earlier unstable neurons), up to δ (`linear_forms`). Valid at a = 0,
    y = 0 because each w_j v_j ≥ w_j L̆_j, and at a = 1, y = x̂ ≤ w·v + b + δ because each w_j v_j ≤ w_j Ŭ_j; sums are
    rounded to the safe side. neurons: (k,) indices of unstable neurons; members: bool sparse (k, inputs + unstable).
    """
    weight, bias, slack = linear_forms(region, np.asarray(neurons, dtype=np.int64))
    inputs = region.ball_lower.size
    low = np.concatenate([region.ball_lower, np.zeros(region.count)])
    high = np.concatenate([region.ball_upper, *(u[i] for u, i in zip(region.upper, region.unstable, strict=True))])
    chosen = np.asarray(members.todense(), dtype=np.bool_) if sp.issparse(members) else np.asarray(members)
    ends = np.minimum(weight * low, weight * high), np.maximum(weight * low, weight * high)
    total = np.abs(weight) @ np.maximum(np.abs(low), np.abs(high)) + np.abs(bias)
    slip = gamma(weight.shape[1] + 64) * SAFETY * total + region.floor
    fixed = np.where(chosen, ends[0], 0.0).sum(axis=1) - slip
    free = np.where(chosen, 0.0, ends[1]).sum(axis=1) + bias + slack + slip
    rows = np.where(chosen, -weight, 0.0)
    place = np.arange(len(rows))
    rows[place, inputs + np.asarray(neurons, dtype=np.int64)] += 1.0
    reach = np.concatenate([np.maximum(np.abs(low[:inputs]), np.abs(high[:inputs])), high[inputs:]])
    size = SAFETY * (np.abs(rows) @ reach + 2.0 * np.abs(fixed) + np.abs(free))
    slope = fixed + free  # one rounding, relative to the sum
    return Cuts(sp.csr_array(rows), fixed, slope + UNIT_SLACK * np.abs(slope), np.asarray(neurons), size)


UNIT_SLACK = 2.0**-50


def linear_forms(region: Region, neurons: Any) -> tuple[FloatArray, FloatArray, FloatArray]:
    """x̂_i = w·v + b ± δ on the region for the given unstable neurons, v = (x, y of unstable neurons).

    Walks back as the bound does: active neurons are passed through, unstable ones keep their coefficient. Shapes
    (k, inputs + unstable), (k,), (k,).
    """
    ends = np.cumsum([0, *(index.size for index in region.unstable)])
    inputs = region.ball_lower.size
    weight = np.zeros((neurons.size, inputs + region.count))
    bias, slack = np.zeros(neurons.size), np.zeros(neurons.size)
    for top, index in enumerate(region.unstable):
        own = np.flatnonzero((neurons >= ends[top]) & (neurons < ends[top + 1]))
        if not own.size:
            continue
        multipliers = np.zeros((own.size, region.lower[top].size))
        multipliers[np.arange(own.size), index[neurons[own] - ends[top]]] = 1.0
        error = np.full(own.size, region.floor)
        for k in range(top, -1, -1):
            bias[own] += multipliers @ region.maps[k].bias_vector
            error += region.product[k] * region.after(k, multipliers)
            multipliers = region.maps[k].adjoint(multipliers)
            if k:
                error += region.spread[k] * region.before(k, multipliers)
                weight[own, inputs + ends[k - 1] : inputs + ends[k]] = multipliers[:, region.unstable[k - 1]]
                multipliers[:, region.unstable[k - 1]] = 0.0
        weight[own, :inputs] = multipliers
        slack[own] = error * SAFETY
    return weight, bias, slack


def certified_bounds(
    region: Region,
    rows: Any,
    multipliers: FloatArray,
    phases: Any = None,
    cuts: Cuts | None = None,
    weights: Any = None,
) -> FloatArray:
    """Certified lower bounds of rows·F over the region or parts of it, one per row, shape (m,).

    rows: (m, outputs). multipliers: λ of the unstable neurons, (m, N); CHORD for the dual rung's own. phases: −1 free,
    0 inactive, 1 active, (m, N), None = all free. cuts with weights μ ≥ 0 (m, cuts), scipy.sparse; negative ones are
    taken as 0. Infinite or absent numbers, and sums that overflow, give −inf, never an error.
    """
    dense = np.asarray(rows.toarray() if sp.issparse(rows) else rows, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        walk = _Walk(region, dense, multipliers, phases)
        if cuts is not None and weights is not None and weights.nnz:
            walk.add_cuts(cuts, weights.maximum(0.0).tocsr())
        return outward(walk.run(), walk.ledger.error)


class _Walk:
    """One evaluation of the bound, from the last map to the input."""

    def __init__(self, region: Region, rows: FloatArray, multipliers: FloatArray, phases: Any) -> None:
        self.region, self.rows, self.given = region, rows, multipliers
        shape = (rows.shape[0], region.count)
        self.may_be_active = np.ones(shape, dtype=np.bool_) if phases is None else phases != 0
        self.may_be_inactive = np.ones(shape, dtype=np.bool_) if phases is None else phases != 1
        self.ledger = Ledger(region, rows)
        self.value = np.zeros(rows.shape[0])
        self.extra: FloatArray | None = None
        self.indicator: FloatArray | None = None

    def add_cuts(self, cuts: Cuts, weights: Any) -> None:
        """Add μ·(left − right) of every cut to the objective: to x and y by `extra`, to a by `indicator`."""
        self.extra = np.asarray((weights @ cuts.rows).todense(), dtype=np.float64)
        owner = sp.csr_array(
            (-cuts.slope, (np.arange(cuts.slope.size), cuts.neuron)), shape=(cuts.slope.size, self.region.count)
        )
        self.indicator = np.asarray((weights @ owner).todense(), dtype=np.float64)
        self.value = self.value + weights @ cuts.constant
        # a cut's terms are summed over the cuts, and what goes to a and the constant over all neurons and maps as well
        terms = cuts.slope.size + self.region.count + 2 * OPERATIONS + 8 * len(self.region.maps)
        self.ledger.error = self.ledger.error + gamma(terms) * SAFETY * (weights @ cuts.size)

    def run(self) -> FloatArray:
        region, multipliers = self.region, self.rows
        end = region.count
        inputs = region.ball_lower.size
        for k in range(len(region.maps) - 1, -1, -1):
            if k < len(region.maps) - 1:
                self.ledger.product(k, multipliers)
            self.value = self.value + multipliers @ region.maps[k].bias_vector
            nu = region.maps[k].adjoint(multipliers)
            if k == 0:
                break
            start = end - region.unstable[k - 1].size
            multipliers = self._relu(k - 1, nu, slice(start, end))
            end = start
        if self.extra is not None:
            nu = nu + self.extra[:, :inputs]
        self.ledger.terms(0, nu)
        middle = 0.5 * (region.ball_lower + region.ball_upper)
        radius = 0.5 * (region.ball_upper - region.ball_lower)
        return np.asarray(self.value + nu @ middle - np.abs(nu) @ radius, dtype=np.float64)

    def _relu(self, k: int, nu: FloatArray, own: slice) -> FloatArray:
        """λ of ReLU layer k; adds its unstable neurons' least corners to the value."""
        region, chosen = self.region, self.region.unstable[k]
        self.ledger.terms(k + 1, nu)
        if not chosen.size:
            return nu
        arriving = nu[:, chosen]
        if self.extra is not None:
            columns = slice(region.ball_lower.size + own.start, region.ball_lower.size + own.stop)
            arriving = arriving + self.extra[:, columns]
            self.ledger.terms(k + 1, arriving, chosen)
        low, high = region.lower[k][chosen], region.upper[k][chosen]
        given = self.given[:, own]
        half = 0.5 * high  # u − l may overflow where u and l do not
        taken = np.where(np.isnan(given), arriving * (half / (half - 0.5 * low)), given)
        self.ledger.terms(k + 1, taken, chosen)
        rest = 0.0 if self.indicator is None else self.indicator[:, own]
        active = rest + np.minimum(0.0, (arriving - taken) * high)
        inactive = np.minimum(0.0, -taken * low)
        active = np.where(self.may_be_active[:, own], active, np.inf)
        inactive = np.where(self.may_be_inactive[:, own], inactive, np.inf)
        self.value = self.value + np.minimum(active, inactive).sum(axis=1)
        multipliers = nu.copy()
        multipliers[:, chosen] = taken
        return multipliers


def certify_multipliers(problem: Problem, row: int, multipliers: FloatArray) -> float:
    """The certified bound of one row of the problem at the multipliers λ of its unstable neurons, shape (N,)."""
    finite: BoolArray = np.isfinite(multipliers)
    chosen = np.where(finite, multipliers, CHORD)[None]
    return float(certified_bounds(region_of(problem), problem.rows[[row]], chosen)[0])
