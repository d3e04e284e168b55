"""The perturbation set P(x): where the adversary may move the input.

A ball answers four questions about itself: the minimum of a linear functional over it (all the dual bound needs of
the input), whether a point lies in it (all the replay of a witness needs), the nearest point in it, and random
points of it. Only the ℓ∞ ball exists so far; another norm supplies the same members.

The ball is a set of real points; its ends x ± ε are seldom floats. Bounds take the float box around it (`lower`,
`upper`: ends rounded outward), points and witnesses the float box inside it (`inner_lower`, `inner_upper`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray
from toolkit.data.arguments import EPS_HINT, number_array, real_number, shown, whole_number


def box_range_linear(rows: Any, lower: Any, upper: Any) -> tuple[Any, Any]:
    """Middle and half-width of the range of ν·x over the box [lower, upper], for every row ν.

    middle = ν·(lower + upper)/2, half-width = |ν|·(upper − lower)/2: the minimum is middle − half-width.
    rows may be numpy, scipy.sparse or torch; lower and upper numpy or torch.
    Shapes: rows (…, m, n), lower and upper (…, n) → (…, m) each.
    """
    centre = (0.5 * (lower + upper))[..., None]
    radius = (0.5 * (upper - lower))[..., None]
    return (rows @ centre)[..., 0], (abs(rows) @ radius)[..., 0]


def box_min_linear(rows: Any, lower: Any, upper: Any) -> Any:
    """min ν·x = Σ_j min(ν_j·lower_j, ν_j·upper_j) over the box, for every row ν; see `box_range_linear`."""
    middle, half_width = box_range_linear(rows, lower, upper)
    return middle - half_width


def rounded_sum(values: FloatArray, step: float, towards: float) -> FloatArray:
    """values + step, rounded to the float next to the real sum on the side of `towards` (±inf); exact sums stay.

    The rounding error of fl(a + b) is itself a float, found by Knuth's TwoSum; no overflow may occur.
    """
    total = values + step
    virtual = total - values
    error = (values - (total - virtual)) + (step - virtual)
    wrong = error > 0 if towards > 0 else error < 0
    return np.asarray(np.where(wrong, np.nextafter(total, towards), total), dtype=np.float64)


def _frozen(values: FloatArray) -> FloatArray:
    values.setflags(write=False)
    return values


@dataclass(frozen=True, eq=False)
class LinfBall:
    """The ball {x̃ : ‖x̃ − center‖_∞ ≤ eps}, optionally cut by a data domain [low, high]ⁿ.

    center: any shape, stored flat as float64; shape: the one it was given in. eps ≥ 0, in input units. domain: None or
    (low, high).
    Raises ValueError for a negative or non-finite eps, a non-finite center, or a center outside the domain.
    """

    center: FloatArray
    eps: float
    domain: tuple[float, float] | None = None
    shape: tuple[int, ...] = ()

    def __init__(self, center: ArrayLike, eps: float, domain: Sequence[float] | None = None) -> None:
        given = number_array("center", center)
        flat = given.ravel()
        if flat.size == 0:
            raise ValueError("center must have at least one entry, got none")
        if not np.all(np.isfinite(flat)):
            where = int(np.flatnonzero(~np.isfinite(flat))[0])
            raise ValueError(f"center must be finite, got {flat[where]} at index {where}")
        eps = float(real_number("eps", eps, hint=EPS_HINT))
        if not (np.isfinite(eps) and eps >= 0):
            raise ValueError(f"eps must be finite and ≥ 0, got {eps}")
        flat.setflags(write=False)
        object.__setattr__(self, "center", flat)
        object.__setattr__(self, "eps", eps)
        object.__setattr__(self, "shape", tuple(int(n) for n in given.shape))
        object.__setattr__(self, "domain", None if domain is None else self._checked_domain(domain, flat))
        with np.errstate(over="ignore"):
            ends = np.stack([flat - eps, flat + eps])
        if not np.all(np.isfinite(ends)):
            where = int(np.flatnonzero(~np.isfinite(ends).all(axis=0))[0])
            raise ValueError(f"center ± eps must be finite, got {flat[where]} ± {eps} at index {where}")

    @staticmethod
    def _checked_domain(domain: Sequence[float], center: FloatArray) -> tuple[float, float]:
        if not (isinstance(domain, Sequence) or hasattr(domain, "__getitem__")) or np.shape(domain) != (2,):
            raise ValueError(f"domain must be (low, high), got {shown(domain)}")
        low, high = (float(real_number("domain", end)) for end in domain)
        if not low < high:
            raise ValueError(f"domain must have low < high, got ({low}, {high})")
        outside = np.flatnonzero((center < low) | (center > high))
        if outside.size:
            where = int(outside[0])
            raise ValueError(
                f"center must lie in the domain [{low}, {high}], got {center[where]} at index {where} "
                f"({outside.size} such entries); scale the input or widen the domain"
            )
        return low, high

    @property
    def size(self) -> int:
        """Number of input coordinates n."""
        return int(self.center.size)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over centre, ε and domain: equal digests are the same set."""
        state = hashlib.sha256(self.center.tobytes())
        state.update(json.dumps([self.eps, self.domain]).encode())
        return state.hexdigest()

    @cached_property
    def lower(self) -> FloatArray:
        """The largest float not above any point's coordinate, over the ball and domain, shape (n,)."""
        low = rounded_sum(self.center, -self.eps, -np.inf)
        return _frozen(low if self.domain is None else np.maximum(low, self.domain[0]))

    @cached_property
    def upper(self) -> FloatArray:
        """The smallest float not below any point's coordinate, over the ball and domain, shape (n,)."""
        high = rounded_sum(self.center, self.eps, np.inf)
        return _frozen(high if self.domain is None else np.minimum(high, self.domain[1]))

    @cached_property
    def inner_lower(self) -> FloatArray:
        """The smallest float each coordinate takes in the ball and domain, shape (n,); at most the centre."""
        low = rounded_sum(self.center, -self.eps, np.inf)
        return _frozen(low if self.domain is None else np.maximum(low, self.domain[0]))

    @cached_property
    def inner_upper(self) -> FloatArray:
        """The largest float each coordinate takes in the ball and domain, shape (n,); at least the centre."""
        high = rounded_sum(self.center, self.eps, -np.inf)
        return _frozen(high if self.domain is None else np.minimum(high, self.domain[1]))

    def min_linear(self, rows: ArrayLike) -> FloatArray:
        """min ν·x̃ over the ball for every row ν. Shapes: (m, n) → (m,)."""
        checked = self._checked_rows(rows)
        return np.asarray(box_min_linear(checked, self.lower, self.upper), dtype=np.float64)

    def argmin_linear(self, rows: ArrayLike) -> FloatArray:
        """A minimiser of ν·x̃ over the floats of the ball for every row ν (a corner; the centre where ν_j = 0).

        Shapes: (m, n) → (m, n).
        """
        checked = self._checked_rows(rows)
        return np.where(checked > 0, self.inner_lower, np.where(checked < 0, self.inner_upper, self.center))

    def _checked_rows(self, rows: ArrayLike) -> FloatArray:
        checked = np.atleast_2d(number_array("rows", rows))
        if checked.shape[-1] != self.size:
            raise ValueError(f"rows must have {self.size} columns, got shape {checked.shape}")
        return checked

    def contains(self, point: ArrayLike, tolerance: float = 0.0) -> bool:
        """Whether the point lies in the ball and domain in exact arithmetic, or within `tolerance` of its floats."""
        flat, tolerance = number_array("point", point).ravel(), real_number("tolerance", tolerance, 0)
        if flat.size != self.size:
            raise ValueError(f"point must have {self.size} entries, got {flat.size}")
        return bool(np.all(flat >= self.inner_lower - tolerance) and np.all(flat <= self.inner_upper + tolerance))

    def project(self, points: ArrayLike) -> FloatArray:
        """The nearest float point of the ball and domain, in every p-norm. Shapes: (…, n) → (…, n)."""
        given = number_array("points", points)
        if given.shape[-1:] != (self.size,):
            raise ValueError(f"points must end in {self.size} coordinates, got shape {given.shape}")
        return np.clip(given, self.inner_lower, self.inner_upper)

    def sample(self, count: int, seed: int = 0) -> FloatArray:
        """`count` points drawn uniformly from the ball and domain, shape (count, n)."""
        count, seed = whole_number("count", count, 0), whole_number("seed", seed, 0)
        draws = np.random.default_rng(seed).uniform(self.inner_lower, self.inner_upper, (count, self.size))
        return self.project(draws)  # uniform rounds, and may leave the ball by one unit in the last place

    def corners(self, count: int | None = None, seed: int = 0) -> FloatArray:
        """All 2ⁿ corners (n ≤ 16), or `count` random ones, shape (count, n)."""
        if count is not None:
            count, seed = whole_number("count", count, 0), whole_number("seed", seed, 0)
            bits = np.random.default_rng(seed).integers(0, 2, (count, self.size))
        elif self.size <= 16:
            bits = (np.arange(2**self.size)[:, None] >> np.arange(self.size)) & 1
        else:
            raise ValueError(f"all corners are listed for n ≤ 16 only, got n = {self.size}; give count")
        return np.where(bits == 1, self.inner_upper, self.inner_lower)
