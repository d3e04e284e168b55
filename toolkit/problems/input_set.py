"""The perturbation set P: where the adversary may move the input, and the questions every such set answers.

Bounds ask for the range of linear functionals over it (`linear_range`), certificates and attacks for a minimiser
(`argmin_linear`), the replay of a witness whether a point lies in it (`contains`), descents for the nearest point
(`project`), random points, and a step's direction and length (`steepest`, `reach`), interval arithmetic and cuts for
the float box around it (`lower`, `upper`), the template for what that box does not say (`constrain`).

A set is one of real points; its ends are seldom floats. Bounds take the hull `lower`, `upper`, rounded outward; points
and witnesses lie in the set in exact arithmetic.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray
from toolkit.data.amounts import domain_text
from toolkit.data.arguments import number_array, shown
from toolkit.data.summaries import one_line, sizes, span


def box_range_linear(rows: Any, lower: Any, upper: Any) -> tuple[Any, Any]:
    """Middle and half-width of the range of ν·x over the box [lower, upper], for every row ν.

    middle = ν·(lower + upper)/2, half-width = |ν|·(upper − lower)/2: the minimum is middle − half-width.
    rows may be numpy, scipy.sparse or torch; lower and upper numpy or torch.
    Shapes: rows (…, m, n), lower and upper (…, n) → (…, m) each.
    """
    centre, radius = middle_and_half_width(lower, upper)
    return (rows @ centre[..., None])[..., 0], (abs(rows) @ radius[..., None])[..., 0]


def middle_and_half_width(lower: Any, upper: Any) -> tuple[Any, Any]:
    """(lower + upper)/2 and (upper − lower)/2; of halves where numpy's sums overflow."""
    with np.errstate(over="ignore"):
        middle, half = 0.5 * (lower + upper), 0.5 * (upper - lower)
    if isinstance(half, np.ndarray) and not (np.isfinite(half).all() and np.isfinite(middle).all()):
        return 0.5 * lower + 0.5 * upper, 0.5 * upper - 0.5 * lower
    return middle, half


def over_box(lower: Any, upper: Any) -> Callable[[Any], tuple[Any, Any]]:
    """`box_range_linear` over this box, as a function of the rows."""
    return partial(box_range_linear, lower=lower, upper=upper)


def box_min_linear(rows: Any, lower: Any, upper: Any) -> Any:
    """min ν·x = Σ_j min(ν_j·lower_j, ν_j·upper_j) over the box, for every row ν; see `box_range_linear`."""
    middle, half_width = box_range_linear(rows, lower, upper)
    return middle - half_width


class InputSet(ABC):
    """A closed, bounded, non-empty set of inputs, frozen. center: a point of it, flat, read-only; shape: as given.

    norm: its name in tables and keys. digest: SHA-256 over all that determines it; equal digests are the same set.
    polyhedral: whether the hull and `constrain` say all of the set.
    """

    norm: str
    polyhedral: bool = True
    center: FloatArray
    shape: tuple[int, ...]

    def __repr__(self) -> str:
        domain = getattr(self, "domain", None)
        cut = "" if domain is None else domain_text(domain)
        parts = [sizes(self.shape or (self.size,)), self.title, cut, f"inputs {span(self.lower, self.upper)}"]
        return one_line(type(self).__name__, parts)

    @property
    def euclidean_radius(self) -> float | None:
        """ε where the set is all of the hull with Σ_j (x̃_j − center_j)² ≤ ε², else None."""
        return None

    @property
    def size(self) -> int:
        """Number of input coordinates n."""
        return int(self.center.size)

    @property
    @abstractmethod
    def title(self) -> str:
        """The set in a few words, for messages."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """SHA-256 over all that determines the set, in hexadecimal."""

    @property
    @abstractmethod
    def lower(self) -> FloatArray:
        """The largest float not above any point's coordinate: the hull's lower end, shape (n,)."""

    @property
    @abstractmethod
    def upper(self) -> FloatArray:
        """The smallest float not below any point's coordinate: the hull's upper end, shape (n,)."""

    @property
    @abstractmethod
    def radius(self) -> float:
        """The largest ℓ∞ distance of any point from the centre, rounded up."""

    @property
    @abstractmethod
    def reach(self) -> float | FloatArray:
        """The length of an attack's first step, per coordinate or for all."""

    @abstractmethod
    def linear_range(self, rows: Any) -> tuple[FloatArray, FloatArray]:
        """Middle and half-width of an interval that holds ν·x̃ for every point x̃ of the set, up to rounding.

        rows: (m, n), numpy or scipy.sparse → (m,) each. Rounding is at most that of one sum of products with the hull's
        ends and a few sums of twice that size, which is what rounding.py charges.
        """

    def min_linear(self, rows: ArrayLike) -> FloatArray:
        """min ν·x̃ over the set for every row ν. Shapes: (m, n) → (m,)."""
        middle, half_width = self.linear_range(self._checked_rows(rows))
        return middle - half_width

    @abstractmethod
    def support(self, rows: FloatArray) -> FloatArray:
        """Minimisers of ν·x̃ up to rounding, for rows that are numbers already and in haste: (m, n) → (m, n)."""

    @abstractmethod
    def argmin_linear(self, rows: ArrayLike) -> FloatArray:
        """A float point of the set with the least ν·x̃, for every row ν. Shapes: (m, n) → (m, n)."""

    @abstractmethod
    def contains(self, point: ArrayLike, tolerance: float = 0.0) -> bool:
        """Whether the point lies in the set in exact arithmetic, or within `tolerance` of its floats."""

    @abstractmethod
    def project(self, points: ArrayLike) -> FloatArray:
        """The nearest float point of the set. Shapes: (…, n) → (…, n)."""

    @abstractmethod
    def sample(self, count: int, seed: int = 0) -> FloatArray:
        """`count` points drawn from the set, shape (count, n)."""

    @abstractmethod
    def corners(self, count: int | None = None, seed: int = 0) -> FloatArray:
        """All extreme points where they are few, or `count` random ones, shape (count, n)."""

    @abstractmethod
    def steepest(self, gradient: FloatArray) -> FloatArray:
        """The direction of unit size in which a linear functional grows most. Shape as given; coordinates first."""

    @property
    def middle(self) -> FloatArray:
        """A float point between the hull's ends, from which `deviation` counts, shape (n,); here their middle."""
        return np.clip(0.5 * self.lower + 0.5 * self.upper, self.lower, self.upper)

    def deviation(self, sizes: FloatArray) -> FloatArray:
        """The largest Σ_j a_j|x̃_j − middle_j| over the set, up to rounding. Shapes: (m, n), a ≥ 0 → (m,)."""
        high, low, point = self.upper, self.lower, self.middle
        reach = np.maximum(high - point, point - low)
        return np.asarray(sizes @ reach, dtype=np.float64)

    def constrain(self, model: Any) -> None:  # noqa: B027 - a box has nothing to add
        """Add to a Pyomo model what the bounds lower ≤ model.x ≤ upper do not say of the set; nothing for a box.

        What no finite number of rows says is not added, but found by `tangents` where it is violated.
        """

    def tangents(
        self, point: FloatArray, lifted: FloatArray, functional: FloatArray | None, tolerance: float
    ) -> tuple[Any, FloatArray]:
        """Rows over (x̃, own variables of `constrain`) that hold in the set and that a relaxation's point violates.

        For a set that is not polyhedral: none where the point is within `tolerance`·radius of it. lifted: values of its
        own variables; functional: a ν whose minimum over the set shows where else to touch it. Shapes: (n,), (k,), (n,)
        → scipy.sparse (rows, n + k) and their upper sides.
        """
        return sp.csr_array((0, self.size + lifted.size)), np.zeros(0)

    def _checked_rows(self, rows: ArrayLike) -> FloatArray:
        checked = np.atleast_2d(number_array("rows", rows))
        if checked.shape[-1] != self.size:
            raise ValueError(f"rows must have {self.size} columns, got shape {checked.shape}")
        return checked


def check_is_input_set(name: str, value: object) -> InputSet:
    """The value itself. Raises ValueError for what is no input set, with how one is made."""
    if not isinstance(value, InputSet):
        told = "a ball around a point x is LinfBall(x, eps)"
        raise ValueError(f"{name} must be an input set such as a LinfBall, got {shown(value)}; {told}")
    return value
