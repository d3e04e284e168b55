"""What every axis-parallel box of inputs answers, given its ends for bounds and, inside them, those for points."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray
from toolkit.data.amounts import DataDomain, same_layout
from toolkit.data.arguments import number_array, real_number, shown, whole_number
from toolkit.networks.weights import exact_number, exact_numbers, read_only
from toolkit.problems.input_set import InputSet, box_range_linear, middle_and_half_width


def rounded_sum(values: FloatArray, step: float | FloatArray, towards: float) -> FloatArray:
    """values + step, rounded to the float next to the real sum on the side of `towards` (±inf); exact sums stay.

    The rounding error of fl(a + b) is itself a float, found by Knuth's TwoSum; no overflow may occur.
    """
    total = values + step
    virtual = total - values
    error = (values - (total - virtual)) + (step - virtual)
    wrong = error > 0 if towards > 0 else error < 0
    return np.asarray(np.where(wrong, np.nextafter(total, towards), total), dtype=np.float64)


def checked_ends(domain: object, center: FloatArray, shape: tuple[int, ...]) -> DataDomain:
    """(low, high) as `checked_domain`; or arrays of one end per coordinate, low ≤ high, flat. Raises ValueError.

    shape: of the centre as it was given.
    """
    if not isinstance(domain, Sequence | np.ndarray) or len(domain) != 2 or all(np.ndim(end) == 0 for end in domain):
        return checked_domain(domain, center)  # type: ignore[arg-type]
    low, high = (exact_numbers("domain", end) for end in domain)
    for end in (low, high):
        if end.size != 1 and not same_layout(end.shape, shape):
            raise ValueError(f"domain must have one end per coordinate, of shape {shape}, got shape {end.shape}")
    low, high = (np.broadcast_to(end.ravel(), center.shape).copy() for end in (low, high))
    wrong = np.flatnonzero(~(np.isfinite(low) & np.isfinite(high) & (low <= high)))
    if wrong.size:
        raise ValueError(
            f"domain must have finite low ≤ high, got [{low[wrong[0]]}, {high[wrong[0]]}] at index {wrong[0]}"
        )
    outside = np.flatnonzero((center < low) | (center > high))
    if outside.size:
        k = int(outside[0])
        raise ValueError(f"center must lie in the domain, got {center[k]} outside [{low[k]}, {high[k]}] at index {k}")
    return read_only(low), read_only(high)


def checked_domain(domain: Sequence[float], center: FloatArray | None = None) -> tuple[float, float]:
    """(low, high) with low < high, which holds the centre. Raises ValueError."""
    if not (isinstance(domain, Sequence) or hasattr(domain, "__getitem__")) or np.shape(domain) != (2,):
        raise ValueError(f"domain must be (low, high), got {shown(domain)}")
    low, high = (exact_number("domain", end) for end in domain)
    if not low < high:
        raise ValueError(f"domain must have low < high, got ({low}, {high})")
    outside = np.flatnonzero((center < low) | (center > high)) if center is not None else np.zeros(0, dtype=np.int64)
    if center is not None and outside.size:
        where = int(outside[0])
        raise ValueError(
            f"center must lie in the domain [{low}, {high}], got {center[where]} at index {where} "
            f"({outside.size} such entries); scale the input or widen the domain"
        )
    return low, high


def width_text(lower: FloatArray, upper: FloatArray) -> str:
    """The largest width of a box, in words; half of it where it is too large for a float."""
    half = float((0.5 * upper - 0.5 * lower).max())
    return f"largest width = {2 * half}" if np.isfinite(2 * half) else f"largest half-width = {half}"


class BoxShaped(InputSet):
    """What every axis-parallel box answers, given its ends for bounds and, inside them, those for points."""

    @property
    @abstractmethod
    def inner_lower(self) -> FloatArray:
        """The smallest float each coordinate takes in the set, shape (n,); at most the centre."""

    @property
    @abstractmethod
    def inner_upper(self) -> FloatArray:
        """The largest float each coordinate takes in the set, shape (n,); at least the centre."""

    def linear_range(self, rows: Any) -> tuple[FloatArray, FloatArray]:
        """Middle and half-width of ν·x̃ over the box, exact but for rounding; see `box_range_linear`."""
        return box_range_linear(rows, self.lower, self.upper)

    @cached_property
    def _middle_and_radius(self) -> tuple[FloatArray, FloatArray]:
        return middle_and_half_width(self.lower, self.upper)

    def support(self, rows: FloatArray) -> FloatArray:
        """The corner of the hull against the signs of ν; at ν_j = 0 either end."""
        middle, radius = self._middle_and_radius
        return middle - np.copysign(radius, rows)

    def argmin_linear(self, rows: ArrayLike) -> FloatArray:
        """A minimiser of ν·x̃ over the floats of the box for every row ν (a corner; the centre where ν_j = 0).

        Shapes: (m, n) → (m, n).
        """
        checked = self._checked_rows(rows)
        return np.where(checked > 0, self.inner_lower, np.where(checked < 0, self.inner_upper, self.center))

    def contains(self, point: ArrayLike, tolerance: float = 0.0) -> bool:
        """Whether the point lies in the set in exact arithmetic, or within `tolerance` of its floats."""
        flat, tolerance = number_array("point", point).ravel(), real_number("tolerance", tolerance, 0)
        if flat.size != self.size:
            raise ValueError(f"point must have {self.size} entries, got {flat.size}")
        return bool(np.all(flat >= self.inner_lower - tolerance) and np.all(flat <= self.inner_upper + tolerance))

    def project(self, points: ArrayLike) -> FloatArray:
        """The nearest float point of the set, in every p-norm. Shapes: (…, n) → (…, n)."""
        given = number_array("points", points)
        if given.shape[-1:] != (self.size,):
            raise ValueError(f"points must end in {self.size} coordinates, got shape {given.shape}")
        return np.clip(given, self.inner_lower, self.inner_upper)

    def sample(self, count: int, seed: int = 0) -> FloatArray:
        """`count` points drawn uniformly from the set, shape (count, n)."""
        count, seed = whole_number("count", count, 0), whole_number("seed", seed, 0)
        rng, (low, high) = np.random.default_rng(seed), (self.inner_lower, self.inner_upper)
        if np.all(0.5 * high - 0.5 * low <= 0.5 * np.finfo(np.float64).max):
            draws = rng.uniform(low, high, (count, self.size))
        else:  # high − low is no float
            share = rng.uniform(size=(count, self.size))
            draws = (1.0 - share) * low + share * high
        return self.project(draws)  # uniform rounds, and may leave the set by one unit in the last place

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

    def steepest(self, gradient: FloatArray) -> FloatArray:
        """The sign: every coordinate moves as far as it may."""
        return np.sign(gradient)


@dataclass(frozen=True, eq=False, repr=False)
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
        return width_text(self.lower, self.upper)

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
