"""A box with rational ends, as a VNN-LIB file states it: bounds take the floats around it, points the floats in it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.networks.weights import read_only
from toolkit.problems.boxes import BoxShaped, width_text


def rounded_down(value: Fraction) -> float:
    """The largest float ≤ value. Raises OverflowError outside the range of floats."""
    nearest = value.numerator / value.denominator  # of integers: correctly rounded
    return nearest if Fraction(nearest) <= value else float(np.nextafter(nearest, -np.inf))


def rounded_up(value: Fraction) -> float:
    """The smallest float ≥ value. Raises OverflowError outside the range of floats."""
    return -rounded_down(-value)


@dataclass(frozen=True, eq=False)
class RationalBox(BoxShaped):
    """The box {x̃ : low_j ≤ x̃_j ≤ high_j}, its ends rationals, low ≤ high.

    lower, upper: the floats next to the ends outside. inner_lower, inner_upper: those inside, which points take. Where
    no float lies between the ends of a coordinate (as in X = 0.1), points take the float nearest to its middle, which
    lies outside by less than a unit in the last place: `slivers` tells which, and whoever says of a point that it lies
    in the set must show the same of all of [lower_j, upper_j].
    """

    norm = "box"
    low: tuple[Fraction, ...] = field(repr=False)
    high: tuple[Fraction, ...] = field(repr=False)
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not self.low:
            raise ValueError(f"a box has as many lower as upper ends, got {len(self.low)} and {len(self.high)}")
        wrong = [i for i, (low, high) in enumerate(zip(self.low, self.high, strict=True)) if low > high]
        if wrong:
            i = wrong[0]
            raise ValueError(f"lower must be ≤ upper, got {self.low[i]} and {self.high[i]} at index {i}")
        object.__setattr__(self, "shape", self.shape or (len(self.low),))

    @cached_property
    def center(self) -> FloatArray:  # type: ignore[override]
        """Its middle, shape (n,)."""
        return read_only(np.clip(0.5 * self.lower + 0.5 * self.upper, self.inner_lower, self.inner_upper))

    @property
    def title(self) -> str:
        """Its largest width, in words."""
        return width_text(self.lower, self.upper)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the rational ends: equal digests are the same set."""
        return hashlib.sha256(f"rational {self.low} {self.high}".encode()).hexdigest()

    @cached_property
    def lower(self) -> FloatArray:
        """The largest float not above any point's coordinate, shape (n,)."""
        return read_only(_floats(self.low, False))

    @cached_property
    def upper(self) -> FloatArray:
        """The smallest float not below any point's coordinate, shape (n,)."""
        return read_only(_floats(self.high, True))

    @cached_property
    def inner_lower(self) -> FloatArray:
        """The smallest float of each coordinate in the set, or that of a sliver, shape (n,)."""
        return read_only(np.where(self.slivers, self._stand_ins, _floats(self.low, True)))

    @cached_property
    def inner_upper(self) -> FloatArray:
        """The largest float of each coordinate in the set, or that of a sliver, shape (n,)."""
        return read_only(np.where(self.slivers, self._stand_ins, _floats(self.high, False)))

    @cached_property
    def slivers(self) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Coordinates between whose ends no float lies, shape (n,)."""
        return np.asarray(_floats(self.low, True) > _floats(self.high, False))

    @cached_property
    def _stand_ins(self) -> FloatArray:
        middles = ((low + high) / 2 for low, high in zip(self.low, self.high, strict=True))
        return np.array([float(middle) for middle in middles])

    @property
    def radius(self) -> float:
        """The largest distance of any point from the centre, rounded up."""
        largest = float(np.maximum(self.upper - self.center, self.center - self.lower).max())
        return float(np.nextafter(largest, np.inf))

    @property
    def reach(self) -> FloatArray:
        """Half the width of every coordinate."""
        return np.asarray(0.5 * self.upper - 0.5 * self.lower, dtype=np.float64)


def _floats(values: Sequence[Fraction], up: bool) -> FloatArray:
    one = rounded_up if up else rounded_down
    return np.array([one(value) for value in values], dtype=np.float64)
