"""The phases of a ReLU whose input lies in [l, u]: the one place that says which neurons count as unstable.

    unstable: l < 0 < u      active: l ≥ 0, the identity      inactive: u ≤ 0 and l < 0, zero

Every neuron with l ≤ u is exactly one of these. Arrays of any array-API library and shape.
"""

from __future__ import annotations

from toolkit.arrays import Array


def is_unstable(lower: Array, upper: Array) -> Array:
    """Mask of neurons with l < 0 < u."""
    return (lower < 0) & (upper > 0)


def is_active(lower: Array) -> Array:
    """Mask of neurons with l ≥ 0."""
    return lower >= 0


def is_inactive(lower: Array, upper: Array) -> Array:
    """Mask of neurons with u ≤ 0 that are not active."""
    return (upper <= 0) & (lower < 0)
