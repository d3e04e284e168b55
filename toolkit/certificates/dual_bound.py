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

With several sources, λ·x̂ = λ·b + Σ_j ν⁽ʲ⁾·y⁽ʲ⁾ and the parts of every ν⁽ʲ⁾ add up; a linear stage passes ν on. No
coefficient of the template enters, so neither the solver nor the products of weights in the template need to be
trusted. Rounding is taken off by `rounding.Ledger`, which `relu.walk` tells of every product and ReLU: |λ_i − ν_i| and
all sums are bounded there.

Source: weak duality; Neumaier & Shcherbina 2004, "Safe bounds in linear and mixed-integer programming"; Wong & Kolter
2018. Checked: nothing needs to be. Trusted: l,u; this file, relu.py's walk and corners, stages.py, and what rounding.py
trusts. What float32 inference may add to the network's outputs is outside the claim: see `rounding.float32_error`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import Array, BoolArray, FloatArray, IndexArray, PhaseArray
from toolkit.certificates.rounding import OPERATIONS, ErrorModel, Ledger, error_model_of, outward
from toolkit.networks.float_error import SAFETY, gamma
from toolkit.networks.weights import dense_array
from toolkit.problems.problem import Problem
from toolkit.relaxations.relu import Substitution, corners, walk

UNITS_AT_ONCE = 256
CHORD = np.nan  # in place of a multiplier: λ = s·ν with s = u/(u − l)


@dataclass(frozen=True, eq=False)
class Cuts:
    """Valid inequalities rows·(x, y) + constant ≤ slope·a of single neurons, a ∈ {0, 1} their indicators.

    rows: (cuts, inputs + unstable neurons), CSR, or numpy where shares are floats; neuron: which unstable neuron a
    belongs to; size: the sum of the absolute values that each cut's terms can take, for the rounding of their sums.
    """

    rows: Any
    constant: FloatArray
    slope: FloatArray
    neuron: Any
    size: FloatArray


Forms = tuple[FloatArray, FloatArray, FloatArray]


def derive_cuts(model: ErrorModel, neurons: Any, members: Any, forms: Forms | None = None) -> Cuts:
    """y_i ≤ Σ_j θ_j w_j(v_j − L̆_j(1 − a)) + (b + δ + Σ_j (1 − θ_j) w_j Ŭ_j) a for neurons i, shares θ of their inputs.

    w, b: x̂_i over the variables v = (x, y of earlier unstable neurons), up to δ (`linear_forms`). Valid at a = 0,
    y = 0 because each w_j v_j ≥ w_j L̆_j, and at a = 1, y = x̂ ≤ w·v + b + δ because each w_j v_j ≤ w_j Ŭ_j; sums are
    rounded to the safe side, and the float θ_j w_j stands for a product with some θ_j in [0, 1]. neurons: (k,) indices
    of unstable neurons; members: θ, (k, inputs + unstable), scipy.sparse or not, bool for a subset; numbers outside
    [0, 1] are taken as the nearer end, NaN as 0. forms: their `linear_forms`, where these are known.
    """
    weight, bias, slack = linear_forms(model, np.asarray(neurons, dtype=np.int64)) if forms is None else forms
    inputs = model.input_set.size
    low = np.concatenate([model.input_set.lower, np.zeros(model.count)])
    high = np.concatenate([model.input_set.upper, *(u[i] for u, i in zip(model.upper, model.unstable, strict=True))])
    shares = dense_array(members)
    shares = np.clip(np.where(np.isnan(shares), 0.0, shares), 0.0, 1.0)
    some, rest = shares > 0, shares < 1
    ends = np.minimum(weight * low, weight * high), np.maximum(weight * low, weight * high)
    total = np.abs(weight) @ np.maximum(np.abs(low), np.abs(high)) + np.abs(bias)
    slip = gamma(weight.shape[1] + 64) * SAFETY * total + model.floor
    fixed = _product(shares, ends[0], some).sum(axis=1) - slip
    free = _product(1.0 - shares, ends[1], rest).sum(axis=1) + bias + slack + slip
    rows = _product(shares, -weight, some)
    place = np.arange(len(rows))
    rows[place, inputs + np.asarray(neurons, dtype=np.int64)] += 1.0
    reach = np.concatenate([np.maximum(np.abs(low[:inputs]), np.abs(high[:inputs])), high[inputs:]])
    size = SAFETY * (np.abs(rows) @ reach + 2.0 * np.abs(fixed) + np.abs(free))
    slope = fixed + free  # one rounding, relative to the sum
    whole = sp.csr_array(rows) if sp.issparse(members) or members.dtype == np.bool_ else rows
    return Cuts(whole, fixed, slope + UNIT_SLACK * np.abs(slope), np.asarray(neurons), size)


def _product(one: FloatArray, other: FloatArray, where: BoolArray) -> FloatArray:
    """one·other there, else 0, whatever else they hold."""
    return np.multiply(one, other, out=np.zeros(other.shape), where=where)


UNIT_SLACK = 2.0**-50


def linear_forms(model: ErrorModel, neurons: IndexArray) -> Forms:
    """x̂_i = w·v + b ± δ on the region for the given unstable neurons, v = (x, y of unstable neurons).

    Walks back as the bound does: active neurons are passed through, unstable ones keep their coefficient. Shapes
    (k, inputs + unstable), (k,), (k,).
    """
    inputs = model.input_set.size
    weight = np.zeros((neurons.size, inputs + model.count))
    bias, slack = np.zeros(neurons.size), np.zeros(neurons.size)
    for top, (index, span) in enumerate(zip(model.unstable, model.own, strict=True)):
        chosen = np.flatnonzero((neurons >= span.start) & (neurons < span.stop))
        if not chosen.size:
            continue
        units = np.zeros((chosen.size, model.lower[top].size))
        units[np.arange(chosen.size), index[neurons[chosen] - span.start]] = 1.0
        ledger, step = Ledger(model, chosen.size), Substitution(model.unstable)
        head = (*model.stages[:top], model.stages[top].linear())
        weight[chosen, :inputs], bias[chosen] = walk(head, {top + 1: units}, step, 0.0, ledger)
        for k, coefficients in step.coefficients.items():
            weight[chosen, inputs + model.own[k].start : inputs + model.own[k].stop] = coefficients
        slack[chosen] = ledger.error * SAFETY
    return weight, bias, slack


def certified_bounds(
    model: ErrorModel,
    rows: Array,
    multipliers: FloatArray,
    phases: PhaseArray | None = None,
    cuts: Cuts | None = None,
    weights: Array = None,
) -> FloatArray:
    """Certified lower bounds of rows·F over the region or parts of it, one per row, shape (m,).

    rows: (m, outputs). multipliers: λ of the unstable neurons, (m, N); CHORD for the dual rung's own. phases: −1 free,
    0 inactive, 1 active, (m, N), None = all free. cuts with weights μ ≥ 0 (m, cuts), scipy.sparse; negative ones are
    taken as 0. Infinite or absent numbers, and sums that overflow, give −inf, never an error.
    """
    return outward(*value_and_error(model, rows, multipliers, phases, cuts, weights))


def value_and_error(
    model: ErrorModel,
    rows: Array,
    multipliers: FloatArray,
    phases: PhaseArray | None = None,
    cuts: Cuts | None = None,
    weights: Array = None,
) -> tuple[FloatArray, FloatArray]:
    """The bounds in floats, and by how much rounding may have moved them; arguments as of `certified_bounds`."""
    dense = dense_array(rows)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        ledger = Ledger(model, dense.shape[0])
        step = CornerStep(model, multipliers, phases, ledger)
        if cuts is not None and weights is not None and weights.nnz:
            step.add_cuts(cuts, weights.maximum(0.0).tocsr())
        nu, value = walk(model.stages, {len(model.stages): dense}, step, 0.0, ledger)
        if step.extra is not None:
            nu = nu + step.extra[:, : nu.shape[1]]
        ledger.terms(0, nu)
        middle, half_width = model.input_set.linear_range(nu)
        value = value + step.value + (middle - half_width)
        return np.asarray(value, dtype=np.float64), ledger.error


class CornerStep:
    """Any λ at unstable neurons, whose least corners are added to the value; λ = ν at active ones."""

    shrinks = False

    def __init__(self, model: ErrorModel, multipliers: FloatArray, phases: PhaseArray | None, ledger: Ledger) -> None:
        self.model, self.given, self.ledger = model, multipliers, ledger
        self.may_be_active = None if phases is None else phases != 0
        self.may_be_inactive = None if phases is None else phases != 1
        self.value: Array = 0.0
        self.extra: FloatArray | None = None
        self.indicator: FloatArray | None = None

    def add_cuts(self, cuts: Cuts, weights: Array) -> None:
        """Add μ·(left − right) of every cut to the objective: to x and y by `extra`, to a by `indicator`."""
        thin = sp.issparse(cuts.rows)
        self.extra = (weights @ cuts.rows).toarray() if thin else weights.toarray() @ cuts.rows
        owner = sp.csr_array(
            (-cuts.slope, (np.arange(cuts.slope.size), cuts.neuron)), shape=(cuts.slope.size, self.model.count)
        )
        self.indicator = np.asarray((weights @ owner).todense(), dtype=np.float64)
        self.value = self.value + weights @ cuts.constant
        # a cut's terms are summed over the cuts, and what goes to a and the constant over all neurons and maps as well
        terms = cuts.slope.size + self.model.count + 2 * OPERATIONS + 8 * len(self.model.stages)
        self.ledger.error = self.ledger.error + gamma(terms) * SAFETY * (weights @ cuts.size)

    def relu(self, k: int, nu: FloatArray) -> FloatArray:
        chosen, own = self.model.unstable[k], self.model.own[k]
        if not chosen.size:
            return nu
        arriving = nu[:, chosen]
        if self.extra is not None:
            inputs = self.model.input_set.size
            arriving = arriving + self.extra[:, inputs + own.start : inputs + own.stop]
            self.ledger.terms(k + 1, arriving, chosen)
        low, high, s = self.model.triangles[k]
        given = self.given[:, own]
        taken = np.where(np.isnan(given), arriving * s, given)
        self.ledger.terms(k + 1, taken, chosen)
        active, inactive = corners(arriving, taken, low, high)
        if self.indicator is not None:
            active = self.indicator[:, own] + active
        if self.may_be_active is not None:
            active = np.where(self.may_be_active[:, own], active, np.inf)
        if self.may_be_inactive is not None:
            inactive = np.where(self.may_be_inactive[:, own], inactive, np.inf)
        self.value = self.value + np.minimum(active, inactive).sum(axis=1)
        multipliers = nu.copy()
        multipliers[:, chosen] = taken
        return multipliers


def certify_multipliers(problem: Problem, row: int, multipliers: FloatArray) -> float:
    """The certified bound of one row of the problem at the multipliers λ of its unstable neurons, shape (N,)."""
    finite: BoolArray = np.isfinite(multipliers)
    chosen = np.where(finite, multipliers, CHORD)[None]
    return float(certified_bounds(error_model_of(problem), problem.rows[[row]], chosen)[0])


def unit_bounds(model: ErrorModel, size: int, sign: int) -> FloatArray:
    """Certified lower bounds of sign·x̂_i for all `size` outputs of the model's network, at the dual rung's multipliers.

    What a proof's l,u rest on where no tree says more: written and checked by this one evaluation of them.
    """
    found = [np.zeros(0)]
    for start in range(0, size, UNITS_AT_ONCE):
        some = np.arange(start, min(start + UNITS_AT_ONCE, size))
        rows = np.zeros((some.size, size))
        rows[np.arange(some.size), some] = sign
        found.append(certified_bounds(model, rows, np.full((some.size, model.count), CHORD)))
    return np.concatenate(found)
