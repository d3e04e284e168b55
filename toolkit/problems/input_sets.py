"""The input sets, by norm: the ℓ∞ ball and the box. A new one is a class of its own and one line in INPUT_SETS.

Both are boxes of real points; a ball's ends x ± ε are seldom floats. Bounds take the float box around it (`lower`,
`upper`: ends rounded outward), points and witnesses the float box inside it (`inner_lower`, `inner_upper`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray
from toolkit.data.arguments import EPS_HINT, real_number
from toolkit.networks.weights import exact_numbers, read_only
from toolkit.problems.boxes import BoxShaped, checked_domain, rounded_sum
from toolkit.problems.input_set import InputSet


@dataclass(frozen=True, eq=False)
class LinfBall(BoxShaped):
    """The ball {x̃ : ‖x̃ − center‖_∞ ≤ eps}, optionally cut by a data domain [low, high]ⁿ.

    center: any shape, stored flat as float64; shape: the one it was given in. eps ≥ 0, in input units. domain: None or
    (low, high).
    Raises ValueError for a negative or non-finite eps, a non-finite center, or a center outside the domain.
    """

    norm = "linf"
    center: FloatArray
    eps: float
    domain: tuple[float, float] | None = None
    shape: tuple[int, ...] = ()

    def __init__(self, center: ArrayLike, eps: float, domain: Sequence[float] | None = None) -> None:
        given = exact_numbers("center", center)
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
        object.__setattr__(self, "domain", None if domain is None else checked_domain(domain, flat))
        with np.errstate(over="ignore"):
            ends = np.stack([flat - eps, flat + eps])
        if not np.all(np.isfinite(ends)):
            where = int(np.flatnonzero(~np.isfinite(ends).all(axis=0))[0])
            raise ValueError(f"center ± eps must be finite, got {flat[where]} ± {eps} at index {where}")

    @property
    def title(self) -> str:
        """The radius, in words."""
        return f"eps = {self.eps}"

    @property
    def radius(self) -> float:
        """ε."""
        return self.eps

    @property
    def reach(self) -> float:
        """ε."""
        return self.eps

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
        return read_only(low if self.domain is None else np.maximum(low, self.domain[0]))

    @cached_property
    def upper(self) -> FloatArray:
        """The smallest float not below any point's coordinate, over the ball and domain, shape (n,)."""
        high = rounded_sum(self.center, self.eps, np.inf)
        return read_only(high if self.domain is None else np.minimum(high, self.domain[1]))

    @cached_property
    def inner_lower(self) -> FloatArray:
        """The smallest float each coordinate takes in the ball and domain, shape (n,); at most the centre."""
        low = rounded_sum(self.center, -self.eps, np.inf)
        return read_only(low if self.domain is None else np.maximum(low, self.domain[0]))

    @cached_property
    def inner_upper(self) -> FloatArray:
        """The largest float each coordinate takes in the ball and domain, shape (n,); at least the centre."""
        high = rounded_sum(self.center, self.eps, -np.inf)
        return read_only(high if self.domain is None else np.minimum(high, self.domain[1]))


@dataclass(frozen=True, eq=False)
class Box(BoxShaped):
    """The box {x̃ : lower ≤ x̃ ≤ upper}, optionally cut by a data domain [low, high]ⁿ; its centre is its middle.

    lower, upper: any shape, the same for both, finite; ends may coincide. Raises ValueError for lower > upper, for ends
    that are not finite, and for a box that lies outside the domain.
    """

    norm = "box"
    center: FloatArray
    ends: tuple[FloatArray, FloatArray] = field(repr=False)
    domain: tuple[float, float] | None = None
    shape: tuple[int, ...] = ()

    def __init__(self, lower: ArrayLike, upper: ArrayLike, domain: Sequence[float] | None = None) -> None:
        low, high = exact_numbers("lower", lower), exact_numbers("upper", upper)
        if low.shape != high.shape or low.size == 0:
            raise ValueError(
                f"lower and upper must have one shape with at least one entry, got {low.shape}, {high.shape}"
            )
        object.__setattr__(self, "shape", tuple(int(n) for n in low.shape))
        low, high = low.ravel(), high.ravel()
        cut = None if domain is None else checked_domain(domain)
        if cut is not None:
            low, high = np.maximum(low, cut[0]), np.minimum(high, cut[1])
        wrong = np.flatnonzero(~((low <= high) & np.isfinite(low) & np.isfinite(high)))
        if wrong.size:
            i = int(wrong[0])
            where = "" if cut is None else f" in the domain [{cut[0]}, {cut[1]}]"
            raise ValueError(f"lower must be ≤ upper and both finite{where}, got {low[i]} and {high[i]} at index {i}")
        middle = np.clip(0.5 * low + 0.5 * high, low, high)
        object.__setattr__(self, "center", read_only(middle))
        object.__setattr__(self, "ends", (read_only(np.array(low)), read_only(np.array(high))))
        object.__setattr__(self, "domain", cut)

    @property
    def title(self) -> str:
        """Its largest width, in words."""
        return f"largest width = {float((self.upper - self.lower).max())}"

    @cached_property
    def digest(self) -> str:
        """SHA-256 over both ends: equal digests are the same set."""
        # hashes of the ends, not the ends: no ball's centre and radius read as these 68 bytes
        ends = b"".join(hashlib.sha256(end.tobytes()).digest() for end in self.ends)
        return hashlib.sha256(b"box:" + ends).hexdigest()

    @property
    def lower(self) -> FloatArray:
        """The lower end of every coordinate, shape (n,)."""
        return self.ends[0]

    @property
    def upper(self) -> FloatArray:
        """The upper end of every coordinate, shape (n,)."""
        return self.ends[1]

    @property
    def inner_lower(self) -> FloatArray:
        """The lower end itself, which is a float."""
        return self.lower

    @property
    def inner_upper(self) -> FloatArray:
        """The upper end itself, which is a float."""
        return self.upper

    @property
    def radius(self) -> float:
        """The largest half-width, rounded up."""
        ends = np.maximum(self.upper - self.center, self.center - self.lower)
        return float(np.nextafter(ends.max(), np.inf))

    @property
    def reach(self) -> FloatArray:
        """Every coordinate's half-width, shape (n,)."""
        return 0.5 * self.upper - 0.5 * self.lower


INPUT_SETS: dict[str, type[InputSet]] = {kind.norm: kind for kind in (LinfBall, Box)}
