"""The ℓ∞ ball, cut by a data domain or not: a box of real points whose ends x ± ε are seldom floats.

Bounds take the float box around it (`lower`, `upper`: ends rounded outward), points and witnesses the float box inside
it (`inner_lower`, `inner_upper`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray
from toolkit.data.amounts import DataDomain, keyed, same_layout
from toolkit.data.arguments import EPS_HINT
from toolkit.networks.weights import exact_number, exact_numbers, read_only
from toolkit.problems.boxes import BoxShaped, checked_ends, rounded_sum


@dataclass(frozen=True, eq=False, repr=False)
class LinfBall(BoxShaped):
    """The ball {x̃ : ‖x̃ − center‖_∞ ≤ eps}, optionally cut by a data domain [low, high]ⁿ.

    center: any shape, stored flat as float64; shape: the one it was given in. eps ≥ 0, in input units: one number, or
    one per coordinate, of a shape that numpy broadcasts to the centre's, or laid out as it (`same_layout`), stored
    flat. domain: None, (low, high), or arrays laid out as the centre for low and high.
    Raises ValueError for a negative or non-finite eps, a non-finite center, or a center outside the domain.
    """

    norm = "linf"
    center: FloatArray
    eps: float | FloatArray
    domain: DataDomain | None = None
    shape: tuple[int, ...] = ()

    def __init__(
        self, center: ArrayLike, eps: float | ArrayLike, domain: DataDomain | Sequence[float] | None = None
    ) -> None:
        given = exact_numbers("center", center)
        flat = given.ravel()
        if flat.size == 0:
            raise ValueError("center must have at least one entry, got none")
        if not np.all(np.isfinite(flat)):
            where = int(np.flatnonzero(~np.isfinite(flat))[0])
            raise ValueError(f"center must be finite, got {flat[where]} at index {where}")
        eps = _checked_radius(eps, given.shape)
        flat.setflags(write=False)
        object.__setattr__(self, "center", flat)
        object.__setattr__(self, "eps", eps)
        object.__setattr__(self, "shape", tuple(int(n) for n in given.shape))
        object.__setattr__(self, "domain", None if domain is None else checked_ends(domain, flat, given.shape))
        with np.errstate(over="ignore"):
            ends = np.stack([flat - eps, flat + eps])
        if not np.all(np.isfinite(ends)):
            where = int(np.flatnonzero(~np.isfinite(ends).all(axis=0))[0])
            own = np.broadcast_to(eps, flat.shape)[where]
            raise ValueError(f"center ± eps must be finite, got {flat[where]} ± {own} at index {where}")

    @property
    def title(self) -> str:
        """The radius, in words."""
        return f"eps = {self.eps}" if isinstance(self.eps, float) else f"largest eps = {self.radius}"

    @property
    def radius(self) -> float:
        """ε, the largest where there are several."""
        return self.eps if isinstance(self.eps, float) else float(self.eps.max())

    @property
    def reach(self) -> float | FloatArray:
        """ε."""
        return self.eps

    @cached_property
    def digest(self) -> str:
        """SHA-256 over centre, ε and domain: equal digests are the same set."""
        state = hashlib.sha256(self.center.tobytes())
        domain = keyed(self.domain)  # of arrays their hashes
        if isinstance(self.eps, float):
            state.update(json.dumps([self.eps, domain]).encode())
        else:  # a hash, whose length no radius in JSON has
            state.update(hashlib.sha256(self.eps.tobytes()).digest() + json.dumps(domain).encode())
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


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(np.shape(value))


def _checked_radius(eps: object, shape: tuple[int, ...]) -> float | FloatArray:
    """ε ≥ 0 as one float, or one per coordinate, flat. Raises ValueError."""
    listed = isinstance(eps, Sequence) and not isinstance(eps, str | bytes)
    several = (listed or getattr(eps, "shape", ()) != ()) and math.prod(_shape(eps)) > 1
    try:
        found = exact_numbers("eps", eps) if several else np.array(exact_number("eps", eps, EPS_HINT))
    except ValueError as error:
        if not several:
            raise
        raise ValueError(f"eps must be one number, or an array that fits the centre: {error}") from None
    fine = np.isfinite(found) & (found >= 0)
    if not several:
        if not fine:
            raise ValueError(f"eps must be finite and ≥ 0, got {float(found)}")
        return float(found)
    if not fine.all():
        where = tuple(int(i) for i in np.argwhere(~fine)[0])
        raise ValueError(f"eps must be finite and ≥ 0, got {found[where]} at index {where}")
    if same_layout(found.shape, shape):
        return read_only(found.ravel())
    try:
        return read_only(np.broadcast_to(found, shape).ravel())
    except ValueError:
        raise ValueError(f"eps must be one number or fit the centre's shape {shape}, got shape {found.shape}") from None
