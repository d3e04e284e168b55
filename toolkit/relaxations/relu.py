"""The relaxation of a ReLU and the one walk back through a network that every bound takes.

For l ≤ x̂ ≤ u with l < 0 < u, (x̂, y) lies in the triangle (l, 0), (0, 0), (u, u): y ≥ 0, y ≥ x̂ and below the chord
y ≤ s·(x̂ − l), s = u/(u − l). A functional of the outputs of a network's last stages is carried to its input by

    ν⁽ʲ⁾ ← Σ_k λ⁽ᵏ⁾W_kj,   value ← value + λ⁽ᵏ⁾·b_k,   λ⁽ᵏ⁾ = step(k, ν⁽ᵏ⁾) at a ReLU, ν⁽ᵏ⁾ in a linear stage,

from the last stage back (stages.py): `walk`. What a bound is, is its step: which λ it takes at a ReLU and what it adds
to its own value there. Dual bounds, certificates of any multipliers, the template's substitution, gradients and ranges
of Jacobians are steps.

Source: Wong & Kolter 2018, "Provable defenses against adversarial examples via the convex outer adversarial polytope",
Theorem 1; Salman et al. 2019, "A convex relaxation barrier", §3 (the steps as choices of one dual). Trusted, where
bounds certify: `walk`, and its calls of the ledger, which charges each product, sum and ReLU (rounding.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from array_api_compat import array_namespace

from toolkit.arrays import Array, BoolArray, FloatArray, IndexArray
from toolkit.problems.phases import is_unstable

ArrayT = TypeVar("ArrayT", bound=Any)  # one kind of array in and out


class Backward(Protocol):
    """A stage as `walk` sees it: rows of multipliers in whatever layout the stage and the step agree on."""

    @property
    def relu(self) -> bool: ...

    def adjoint(self, multipliers: Array) -> Iterable[tuple[int, Array]]: ...

    def constant(self, multipliers: Array) -> Array: ...


class Forward(Protocol):
    """A stage as `evaluate` sees it."""

    @property
    def relu(self) -> bool: ...

    def forward(self, outputs: Sequence[Array]) -> Array: ...


class Step(Protocol):
    """λ of a ReLU stage from the ν that arrives there. shrinks: whether |λ| ≤ |ν| in every entry."""

    @property
    def shrinks(self) -> bool: ...

    def relu(self, k: int, nu: Array) -> Array: ...


class ErrorLedger(Protocol):
    """Charges what rounding can do; see rounding.Ledger."""

    def terms(self, place: int, nu: Array, chosen: IndexArray | None = None) -> None: ...

    def product(self, k: int, multipliers: Array) -> None: ...

    def product_of_shrunk(self, k: int) -> None: ...


def walk(
    stages: Sequence[Backward],
    start: Mapping[int, Array],
    step: Step,
    value: Array = 0.0,
    ledger: ErrorLedger | None = None,
) -> tuple[Array, Array]:
    """ν at the input and value + Σ λ⁽ᵏ⁾·b_k, for the functionals value + Σ_j start[j]·y⁽ʲ⁾ of the places' outputs.

    start: rows per place, at least one place. Stages that nothing reads are left out. ledger: is told of every product
    and of the terms at every ReLU, not of the sum over the input, which is the caller's.
    """
    waiting = dict(start)
    for k in range(len(stages) - 1, -1, -1):
        nu = waiting.pop(k + 1, None)
        if nu is None:
            continue
        stage, shrunk = stages[k], False
        if stage.relu:
            if ledger is not None:
                ledger.terms(k + 1, nu)
            nu, shrunk = step.relu(k, nu), step.shrinks
        if ledger is not None:
            if shrunk:
                ledger.product_of_shrunk(k)
            else:
                ledger.product(k, nu)
        value = value + stage.constant(nu)
        for place, part in stage.adjoint(nu):
            waiting[place] = waiting[place] + part if place in waiting else part
    return waiting[0], value


def evaluate(stages: Sequence[Forward], point: Array, activation: Callable[[int, Array], Array]) -> list[Array]:
    """What every place holds, with y = activation(k, x̂) at every ReLU stage; points in the stages' layout."""
    outputs = [point]
    for k, stage in enumerate(stages):
        x_hat = stage.forward(outputs)
        outputs.append(activation(k, x_hat) if stage.relu else x_hat)
    return outputs


def chord(lower: Array, upper: Array) -> Array:
    """s: u/(u−l) where l < 0 < u, 1 where l ≥ 0, 0 where u ≤ 0 > l. Any shape; finite gradients everywhere.

    In units of ½, since u − l may overflow where u and l do not; 0 where l and u are so small that their halves vanish.
    """
    xp = array_namespace(lower, upper)
    one = xp.ones_like(lower)
    unstable = is_unstable(lower, upper)
    half = 0.5 * upper
    width = half - 0.5 * lower
    width = xp.where(unstable & (width > 0), width, one)
    with np.errstate(invalid="ignore"):  # of an infinite l or u NaN, which proves nothing
        return xp.where(unstable, half, xp.where(lower >= 0, one, 0.0)) / width


def adaptive_slope(lower: ArrayT, upper: ArrayT) -> ArrayT:
    """CROWN's lower slope: 1 where u ≥ −l, else 0, whichever cuts off the smaller area (Zhang et al. 2018, §3.3)."""
    xp = array_namespace(lower, upper)
    slope: ArrayT = xp.where(upper >= -lower, 1.0, 0.0)
    return slope


def corners(
    arriving: FloatArray, taken: FloatArray, lower: FloatArray, upper: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The least of ν·y − λ·x̂ over the triangle's active edge (0,0)–(u,u) and over its inactive edge (l,0)–(0,0).

    A linear function is least at a corner: min(0, (ν−λ)u) and min(0, −λl). The smaller holds on the whole triangle.
    """
    return np.minimum(0.0, (arriving - taken) * upper), np.minimum(0.0, -taken * lower)


class DualStep:
    """Middle and half-width of the dual's range: λ = max(ν,0)·α + min(ν,0)·s, value += min(ν,0)·(−s·l).

    With α = s the step treats ν and −ν alike, and middle ∓ half_width bound a functional from both sides; with other
    slopes middle − half_width alone is a bound. lower, upper: per stage, (…, n_k), read at ReLU stages only. slopes: α
    per stage in [0,1], broadcastable to (…, m, n_k), read at unstable neurons only; None: α = s.
    """

    shrinks = True  # every slope is in [0, 1]

    def __init__(self, lower: Sequence[Array], upper: Sequence[Array], slopes: Sequence[Array] | None = None) -> None:
        self.lower, self.upper, self.slopes = lower, upper, slopes
        self.middle: Array = 0.0
        self.half_width: Array = 0.0

    def relu(self, k: int, nu: Array) -> Array:
        lower, upper = self.lower[k][..., None, :], self.upper[k][..., None, :]
        xp = array_namespace(lower, upper)
        s = chord(lower, upper)
        half_offset = (-0.5 * s * xp.minimum(lower, xp.zeros_like(lower))).mT
        size = abs(nu)
        # min(ν,0)·(−s·l) = (ν − |ν|)·(−s·l)/2
        self.middle = self.middle + (nu @ half_offset)[..., 0]
        self.half_width = self.half_width + (size @ half_offset)[..., 0]
        if self.slopes is None:
            return nu * s
        alpha = xp.where(is_unstable(lower, upper), self.slopes[k], s)
        return nu * (0.5 * (alpha + s)) + size * (0.5 * (alpha - s))


class Substitution:
    """ν·y rewritten over the input and the outputs y of unstable neurons: those stop and keep their coefficient.

    unstable: their indices or mask per ReLU stage; all others are active (λ = ν). coefficients[k]: (m, unstable of
    stage k), for the stages met on the way.
    """

    shrinks = False  # it does, but a norm of what is left of ν charges less

    def __init__(self, unstable: Sequence[IndexArray | BoolArray]) -> None:
        self.unstable = unstable
        self.coefficients: dict[int, FloatArray] = {}

    def relu(self, k: int, nu: FloatArray) -> FloatArray:
        chosen = self.unstable[k]
        self.coefficients[k] = nu[:, chosen]
        passed = nu.copy()
        passed[:, chosen] = 0.0
        return passed
