"""What tells an ℓ1 from an ℓ2 ball: lengths, the dual norm, and the moves that gain most or come nearest.

`gains` evaluates the bracket w·(a − q) + ε‖q‖_* of norm_balls.py and rounds it up; the error analysis is there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from toolkit.arrays import FloatArray, IndexArray
from toolkit.networks.float_error import FLOOR, UNIT, gamma
from toolkit.problems.thresholds import l1_moves, l1_shrink, l2_scale

ROUNDINGS = 16  # in a bracket or a length besides those of its sums


class Norm(ABC):
    """Functions of sizes a ≥ 0 and widths w ≥ 0, shapes (m, n), and of a radius eps ≥ 0."""

    def gains(self, sizes: FloatArray, widths: FloatArray, eps: float) -> FloatArray:
        """max Σ_j a_j m_j over 0 ≤ m ≤ w, ‖m‖ ≤ ε, rounded up: the bracket at the threshold found. (m, n) → (m,)."""
        with np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore"):
            a, w, radius, power = _scaled(sizes, widths, eps)
            whole = np.einsum("ij,ij->i", w, a)
            q = self.dual_part(a, w, radius)
            least = np.fmin(whole, np.einsum("ij,ij->i", w, a - q) + radius * self.dual_norms(q))
            raised = least * (1 + gamma(sizes.shape[1] + ROUNDINGS)) + FLOOR
            found = np.where(np.isfinite(whole), np.ldexp(raised, power), np.inf)
        return np.asarray(np.where(sizes.any(axis=1), found, 0.0), dtype=np.float64)

    def best_moves(self, sizes: FloatArray, widths: FloatArray, eps: float) -> FloatArray:
        """m with the largest Σ_j a_j m_j, 0 ≤ m ≤ w and ‖m‖ ≤ ε > 0, up to rounding. (m, n) → (m, n)."""
        with np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore"):
            a, w, radius, _ = _scaled(sizes, widths, eps)
            moves = self.most_moves(np.nan_to_num(a), w, radius)
        return np.asarray(np.ldexp(moves, _exponent(eps)), dtype=np.float64)

    def error(self, count: int) -> float:
        """By how much a float length of so many coordinates may be wrong, relatively, with room."""
        return gamma(count + ROUNDINGS) + 8 * UNIT

    @abstractmethod
    def lengths(self, moves: FloatArray) -> FloatArray:
        """‖m‖ of every row in floats, within `error`. (k, n) → (k,)."""

    @abstractmethod
    def is_short(self, moves: Sequence[Fraction], limit: Fraction) -> bool:
        """Whether ‖m‖ ≤ limit, exactly."""

    @abstractmethod
    def dual_part(self, sizes: FloatArray, widths: FloatArray, eps: float) -> FloatArray:
        """q of the bracket, 0 ≤ q ≤ a, at the threshold found. (m, n) → (m, n)."""

    @abstractmethod
    def dual_norms(self, q: FloatArray) -> FloatArray:
        """‖q‖_* of every row. (m, n) → (m,)."""

    @abstractmethod
    def most_moves(self, sizes: FloatArray, widths: FloatArray, eps: float) -> FloatArray:
        """`best_moves` of numbers whose squares neither overflow nor vanish."""

    @abstractmethod
    def nearest_moves(self, sizes: FloatArray, widths: FloatArray, eps: float) -> FloatArray:
        """m nearest to a with 0 ≤ m ≤ w and ‖m‖ ≤ ε, up to rounding. (m, n) → (m, n)."""

    @abstractmethod
    def unit_draws(self, rng: np.random.Generator, count: int, size: int) -> FloatArray:
        """Points drawn uniformly from the unit ball, (count, size)."""


class AbsoluteNorm(Norm):
    """ℓ1, whose dual norm is ℓ∞."""

    def lengths(self, moves: FloatArray) -> FloatArray:
        return np.asarray(np.abs(moves).sum(axis=1))

    def is_short(self, moves: Sequence[Fraction], limit: Fraction) -> bool:
        return sum(map(abs, moves), Fraction(0)) <= limit

    def dual_part(self, sizes: FloatArray, widths: FloatArray, eps: float) -> FloatArray:
        if sizes.shape[1] and float(widths.min()) >= eps:  # one coordinate takes all of ε
            return sizes
        return np.minimum(sizes, l1_moves(sizes, widths, eps)[0][:, None])

    def dual_norms(self, q: FloatArray) -> FloatArray:
        return np.asarray(q.max(axis=1, initial=0.0))

    def most_moves(self, sizes: FloatArray, widths: FloatArray, eps: float) -> FloatArray:
        return l1_moves(sizes, widths, eps)[1]

    def nearest_moves(self, sizes: FloatArray, widths: FloatArray, eps: float) -> FloatArray:
        return np.minimum(widths, np.maximum(sizes - l1_shrink(sizes, widths, eps)[:, None], 0.0))

    def unit_draws(self, rng: np.random.Generator, count: int, size: int) -> FloatArray:
        parts = rng.exponential(size=(count, size + 1))
        signs = rng.choice([-1.0, 1.0], size=(count, size))
        return np.asarray(signs * parts[:, :size] / parts.sum(axis=1, keepdims=True))


class EuclideanNorm(Norm):
    """ℓ2, its own dual norm."""

    def lengths(self, moves: FloatArray) -> FloatArray:
        peak = np.abs(moves).max(axis=1, initial=0.0)
        unit = np.where(peak > 0, peak, 1.0)
        scaled = moves / unit[:, None]
        return np.asarray(unit * np.sqrt(np.einsum("ij,ij->i", scaled, scaled)))

    def is_short(self, moves: Sequence[Fraction], limit: Fraction) -> bool:
        scale = math.lcm(*(move.denominator for move in (*moves, limit)))  # powers of two
        return sum(int(move * scale) ** 2 for move in moves) <= int(limit * scale) ** 2

    def dual_part(self, sizes: FloatArray, widths: FloatArray, eps: float) -> FloatArray:
        return np.minimum(sizes, widths / l2_scale(sizes, widths, eps)[:, None])

    def dual_norms(self, q: FloatArray) -> FloatArray:
        return np.asarray(np.sqrt(np.einsum("ij,ij->i", q, q)))

    def most_moves(self, sizes: FloatArray, widths: FloatArray, eps: float) -> FloatArray:
        return np.minimum(widths, sizes * l2_scale(sizes, widths, eps)[:, None])

    def nearest_moves(self, sizes: FloatArray, widths: FloatArray, eps: float) -> FloatArray:
        return np.minimum(widths, sizes * np.minimum(l2_scale(sizes, widths, eps), 1.0)[:, None])

    def unit_draws(self, rng: np.random.Generator, count: int, size: int) -> FloatArray:
        directions = rng.normal(size=(count, size))
        lengths = np.maximum(self.lengths(directions), np.finfo(np.float64).tiny)
        return np.asarray(directions / lengths[:, None] * rng.uniform(size=(count, 1)) ** (1.0 / size))


def _exponent(eps: float) -> int:
    return int(np.clip(np.frexp(eps)[1], -1000, 1000))


def _scaled(sizes: FloatArray, widths: FloatArray, eps: float) -> tuple[FloatArray, FloatArray, float, IndexArray]:
    """a, w and ε times powers of two, so that the largest a and ε are about 1; the exponents to take back."""
    peak = np.clip(np.frexp(sizes.max(axis=1, initial=0.0))[1], -1000, 1000)
    unit = _exponent(eps)
    scaled = sizes * np.ldexp(1.0, -peak)[:, None]
    return scaled, widths * np.ldexp(1.0, -unit), float(np.ldexp(eps, -unit)), peak + unit
