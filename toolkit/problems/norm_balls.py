"""The balls {x̃ : ‖x̃ − x‖_p ≤ ε} in ℓ1 and ℓ2, cut by a data domain or not, and certified minima over them.

Claim. Let a_j = |ν_j|, and let w_j be how far x̃_j may move from x_j against the sign of ν_j: min(ε, distance to the
domain's end). Then, for every q with 0 ≤ q ≤ a,

    min over the ball of ν·x̃  ≥  ν·x − [ w·(a − q) + ε‖q‖_* ],        ‖·‖_* = ‖·‖_∞ for ℓ1, ‖·‖₂ for ℓ2,

because −ν·(x̃ − x) ≤ a·m with m = |x̃ − x| there, and a·m = (a − q)·m + q·m, each at most its bound. At q = min(a, t)
(ℓ1) or min(a, t·w) (ℓ2) and the right threshold t it is the minimum (weak duality is tight); any t gives a bound, so
the search for it (thresholds.py) needs no trust.

Rounding. w is rounded up; q is taken as the float it is. The bracket has terms ≥ 0 only, at most n products, n
subtractions, a norm of n squares and a few operations more, so its float value g is within γ_{n+ROUNDINGS} of it,
relatively, and g is raised by that (norms.py); every row and ε are scaled by powers of two, so that what underflows is
at most FLOOR in units of max a·ε, added as well. Left is what the ledger charges for any input set (rounding.py):
ν·x, a sum of products with a point of the hull, and the sums of ν·x and both brackets, each at most 2Σ a_j r_j, since
g is no larger than the box's w·a; r: the hull's sizes.

Points. `argmin_linear`, `project`, `sample` give floats inside in exact arithmetic: the move is shrunk until its
length, with the error of the float norm added, is at most ε, and every coordinate is rounded towards the centre.
`contains` decides in floats where their error allows, else in rational numbers.

Source: weak duality (Rockafellar 1970, "Convex Analysis", §16.4: the support function of an intersection). Checked: all
of it against rational arithmetic. Trusted: IEEE 754 binary64, as in rounding.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray, IndexArray, SparseMatrix
from toolkit.data.arguments import number_array, real_number, whole_number
from toolkit.networks.float_error import UNIT
from toolkit.networks.kernel_operators import KernelOperator
from toolkit.networks.weights import dense_array, exact_number, read_only
from toolkit.problems.boxes import rounded_sum
from toolkit.problems.input_set import InputSet
from toolkit.problems.linf_ball import LinfBall
from toolkit.problems.norms import AbsoluteNorm, EuclideanNorm, Norm

UNSEEN = 3e-7  # of ε²: a row violated by less is satisfied as far as an LP solver is concerned
RANGE_ENTRIES = 2_000_000  # rows × coordinates at a time


@dataclass(frozen=True, eq=False, repr=False)
class BallShaped(InputSet):
    """What a ball in any norm shares: its parts, checked as those of the ℓ∞ ball around it, and that ball's ends.

    center: any shape, stored flat as float64; shape: the one it was given in. eps ≥ 0: one number. domain: None or
    (low, high). Raises ValueError as LinfBall does, and for a radius per coordinate.
    """

    center: FloatArray
    eps: float
    domain: tuple[float, float] | None = None
    shape: tuple[int, ...] = ()
    ends: LinfBall = field(init=False, repr=False)

    def __init__(self, center: ArrayLike, eps: float, domain: Sequence[float] | None = None) -> None:
        ends = LinfBall(center, exact_number("eps", eps, "a radius per coordinate is for LinfBall"), domain)
        if ends.domain is not None and isinstance(ends.domain[0], np.ndarray):
            raise ValueError(f"a domain per coordinate is for LinfBall, not for {type(self).__name__}")
        object.__setattr__(self, "ends", ends)
        for name in ("center", "eps", "domain", "shape"):
            object.__setattr__(self, name, getattr(ends, name))

    @property
    def title(self) -> str:
        """The radius and the norm, in words."""
        return f"eps = {self.eps} in {self.norm}"

    @property
    def radius(self) -> float:
        """How far a coordinate may move at most, rounded up; ε without a domain that cuts."""
        return float(max(side.max() for side in self.widths))

    @property
    def reach(self) -> float:
        """ε."""
        return self.eps

    @cached_property
    def digest(self) -> str:
        """SHA-256 over norm, centre, ε and domain: equal digests are the same set."""
        # a hash of the centre, not its floats: no other set's bytes read as these
        state = hashlib.sha256(f"{self.norm}:{self.eps.hex()}:{self.domain}:".encode())
        state.update(hashlib.sha256(self.center.tobytes()).digest())
        return state.hexdigest()

    @property
    def lower(self) -> FloatArray:
        """The largest float not above any point's coordinate, over the ball and domain, shape (n,)."""
        return self.ends.lower

    @property
    def upper(self) -> FloatArray:
        """The smallest float not below any point's coordinate, over the ball and domain, shape (n,)."""
        return self.ends.upper

    @property
    def middle(self) -> FloatArray:
        """The centre."""
        return self.center

    @cached_property
    def widths(self) -> tuple[FloatArray, FloatArray]:
        """How far each coordinate may move down and up, rounded up, shape (n,) each."""
        low, high = self.domain or (-np.inf, np.inf)
        with np.errstate(invalid="ignore", over="ignore"):
            down = np.minimum(self.eps, rounded_sum(self.center, -low, np.inf) if low > -np.inf else np.inf)
            up = np.minimum(self.eps, -rounded_sum(self.center, -high, -np.inf) if high < np.inf else np.inf)
        every = np.ones(self.size)
        return read_only(np.fmin(every * down, self.eps)), read_only(np.fmin(every * up, self.eps))


class NormBall(BallShaped):
    """The questions of a ball in ℓ1 or ℓ2 cut by a box; what tells the two apart is their geometry."""

    geometry: ClassVar[Norm]

    def linear_range(self, rows: Any) -> tuple[FloatArray, FloatArray]:
        """Middle and half-width of ν·x̃, from both exact ends; rounded outward but for what the ledger charges."""
        with np.errstate(invalid="ignore", over="ignore"):
            middle = np.asarray(rows @ self.center, dtype=np.float64)
        if self.eps == 0.0:
            return middle, np.zeros(middle.shape)
        parts = [self._both_gains(*part) for part in _blocks(rows)]
        fall = np.concatenate([np.zeros(0), *(low for low, _ in parts)])
        rise = np.concatenate([np.zeros(0), *(high for _, high in parts)])
        with np.errstate(invalid="ignore", over="ignore"):
            return middle + 0.5 * (rise - fall), 0.5 * (rise + fall)

    def deviation(self, sizes: FloatArray) -> FloatArray:
        """The largest Σ_j a_j|x̃_j − x_j| over the set, rounded up. Shapes: (m, n), a ≥ 0 → (m,)."""
        if self.eps == 0.0:
            return np.zeros(len(sizes))
        widths = np.broadcast_to(np.maximum(*self.widths), sizes.shape)
        return self.geometry.gains(np.asarray(sizes, dtype=np.float64), widths, self.eps)

    def support(self, rows: FloatArray) -> FloatArray:
        """Minimisers of ν·x̃ up to rounding: the centre moved against the signs of ν."""
        return self.center - np.copysign(self._best_moves(rows), rows)

    def argmin_linear(self, rows: ArrayLike) -> FloatArray:
        """A float point of the set with the least ν·x̃, but for rounding into it, for every row. (m, n) → (m, n)."""
        checked = self._checked_rows(rows)
        return self._moved(-np.copysign(self._best_moves(checked), checked))

    def contains(self, point: ArrayLike, tolerance: float = 0.0) -> bool:
        """Whether the point lies in the set in exact arithmetic, or within `tolerance` of it."""
        flat, tolerance = number_array("point", point).ravel(), real_number("tolerance", tolerance, 0)
        if flat.size != self.size:
            raise ValueError(f"point must have {self.size} entries, got {flat.size}")
        low, high = self.domain or (-np.inf, np.inf)
        if not (np.all(np.isfinite(flat)) and np.all(flat >= low - tolerance) and np.all(flat <= high + tolerance)):
            return False
        with np.errstate(over="ignore"):
            length, error = float(self.geometry.lengths((flat - self.center)[None])[0]), self.geometry.error(self.size)
        limit = self.eps + tolerance
        if np.isfinite(length) and not (1 - error) * limit <= length <= (1 + error) * limit:
            return length < limit
        moves = [Fraction(x) - Fraction(c) for x, c in zip(flat.tolist(), self.center.tolist(), strict=True)]
        return self.geometry.is_short(moves, Fraction(self.eps) + Fraction(tolerance))

    def project(self, points: ArrayLike) -> FloatArray:
        """The nearest float point of the set in ℓ2, but for rounding into it; what lies in it stays. (…, n) → (…, n)"""
        given = number_array("points", points)
        if given.shape[-1:] != (self.size,):
            raise ValueError(f"points must end in {self.size} coordinates, got shape {given.shape}")
        flat = given.reshape(-1, self.size)
        with np.errstate(over="ignore", invalid="ignore"):
            moves = np.clip(flat - self.center, -1e300, 1e300)
            inside = self.geometry.lengths(moves) * (1 + self.geometry.error(self.size)) <= self.eps
            inside &= np.all((flat >= self.ends.inner_lower) & (flat <= self.ends.inner_upper), axis=1)
            found = flat.copy()
            away = ~inside
            if away.any():
                widths = np.where(moves[away] < 0, *self.widths)
                nearest = self.geometry.nearest_moves(np.abs(moves[away]), widths, self.eps)
                found[away] = self._moved(np.copysign(nearest, moves[away]))
        return found.reshape(given.shape)

    def sample(self, count: int, seed: int = 0) -> FloatArray:
        """`count` points drawn uniformly from the ball, then moved to the nearest of the set, shape (count, n)."""
        count, seed = whole_number("count", count, 0), whole_number("seed", seed, 0)
        return self.project(
            self.center + self.eps * self.geometry.unit_draws(np.random.default_rng(seed), count, self.size)
        )

    def corners(self, count: int | None = None, seed: int = 0) -> FloatArray:
        """`count` extreme points, minimisers of random functionals; (count, n). Raises ValueError without a count."""
        if count is None:
            raise ValueError(f"the extreme points of a ball in {self.norm} are not listed; give count")
        count, seed = whole_number("count", count, 0), whole_number("seed", seed, 0)
        return self.argmin_linear(np.random.default_rng(seed).normal(size=(count, self.size)))

    def steepest(self, gradient: FloatArray) -> FloatArray:
        """From the centre to the set's point where the functional is largest, in units of ε. (n, …) → (n, …)."""
        if self.eps == 0.0:
            return np.zeros(gradient.shape)
        rows = gradient.reshape(self.size, -1).T
        moves = np.copysign(self._best_moves(-rows), rows) / self.eps
        return moves.T.reshape(gradient.shape)

    def _both_gains(self, rows: FloatArray, columns: IndexArray | None = None) -> tuple[FloatArray, FloatArray]:
        """The brackets g of min ν·x̃ and of max ν·x̃, rounded up, shape (m,) each.

        columns: which coordinates the entries of the rows belong to, (m, k); None: to all of them, in order.
        """
        down, up = self.widths if columns is None else (side[columns] for side in self.widths)
        sizes, eps = np.abs(rows), self.eps
        if min(down.min(), up.min()) >= eps:
            both = self.geometry.gains(sizes, np.full(sizes.shape, eps), eps)
            return both, both
        positive = rows > 0
        fall = self.geometry.gains(sizes, np.where(positive, down, up), eps)
        return fall, self.geometry.gains(sizes, np.where(positive, up, down), eps)

    def _best_moves(self, rows: FloatArray) -> FloatArray:
        """m of most gain against every row. (m, n) → (m, n)."""
        if self.eps == 0.0:
            return np.zeros(rows.shape)
        return self.geometry.best_moves(np.abs(rows), np.where(rows > 0, *self.widths), self.eps)

    def _moved(self, moves: FloatArray) -> FloatArray:
        """The centre plus the moves, shrunk and rounded towards it until every point lies in the set exactly."""
        error = self.geometry.error(self.size)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
            length = self.geometry.lengths(moves)
            long = length > self.eps * (1 - 2 * error)
            shrunk = moves * np.where(long, self.eps / length * (1 - 4 * error), 1.0)[:, None]
        total = self.center + shrunk
        virtual = total - self.center
        slip = (self.center - (total - virtual)) + (shrunk - virtual)  # Knuth's TwoSum: the real sum less the float one
        past = np.where(shrunk > 0, slip < 0, slip > 0) & (shrunk != 0)
        inward = np.where(past, np.nextafter(total, self.center), total)
        return np.clip(inward, self.ends.inner_lower, self.ends.inner_upper)


@dataclass(frozen=True, eq=False, init=False, repr=False)
class L1Ball(NormBall):
    """The ball {x̃ : Σ_j |x̃_j − center_j| ≤ eps}, optionally cut by a data domain [low, high]ⁿ.

    Parameters and errors as of `BallShaped`.
    """

    norm = "l1"
    geometry = AbsoluteNorm()

    def constrain(self, model: Any) -> None:
        """x̃ = x + p − m with p, m ≥ 0 and Σ_j (p_j + m_j) ≤ ε, as linear rows over more variables."""
        import pyomo.environ as pyo  # here: certificates read input sets, and know no modelling language

        down, up = self.widths
        every = range(self.size)
        model.above = pyo.Var(every, bounds=lambda _, j: (0.0, float(up[j])))
        model.below = pyo.Var(every, bounds=lambda _, j: (0.0, float(down[j])))
        model.move = pyo.Constraint(every, rule=lambda m, j: m.x[j] - m.above[j] + m.below[j] == float(self.center[j]))
        model.length = pyo.Constraint(expr=pyo.quicksum((*model.above.values(), *model.below.values())) <= self.eps)


@dataclass(frozen=True, eq=False, init=False, repr=False)
class L2Ball(NormBall):
    """The ball {x̃ : ‖x̃ − center‖₂ ≤ eps}, optionally cut by a data domain [low, high]ⁿ.

    Parameters and errors as of `BallShaped`.
    """

    norm = "l2"
    geometry = EuclideanNorm()
    polyhedral = False

    @property
    def euclidean_radius(self) -> float:
        """ε: the ball is Σ_j (x̃_j − center_j)² ≤ ε², cut by the domain."""
        return self.eps

    def constrain(self, model: Any) -> None:
        """Σ_j z_j ≤ ε² over variables z_j ≥ (x̃_j − x_j)², of which only z_j ≥ 0 stands here: `tangents` say the rest.

        One parabola a coordinate is found by far fewer tangents than the ball at once. Source: Vielma et al. 2017,
        "Extended formulations in mixed integer conic quadratic programming".
        """
        import pyomo.environ as pyo  # here: certificates read input sets, and know no modelling language

        tops = np.square(np.maximum(*self.widths)) * (1 + 4 * UNIT)
        model.square = pyo.Var(range(self.size), bounds=lambda _, j: (0.0, float(tops[j])))
        model.length = pyo.Constraint(expr=pyo.quicksum(model.square.values()) <= self.eps * self.eps * (1 + 4 * UNIT))

    def tangents(
        self, point: FloatArray, lifted: FloatArray, functional: FloatArray | None, tolerance: float
    ) -> tuple[Any, FloatArray]:
        """z_j ≥ 2p_j(x̃_j − x_j) − p_j², at p the ball's points below the given one and where ν is least.

        Both cut off what they should: the first the point, the second what proves less of ν than the ball does. Where a
        solver's tolerance hides that, (x̃ − x)·d ≤ ε is left, with d the unit direction of the point. None where ε is
        no more than the rounding of a product with the centre, which could put a tangent inside the ball.
        """
        move = point - self.center
        length = float(self.geometry.lengths(move[None])[0])
        hidden = UNIT * self.size * float(np.abs(self.center).max())
        if not length > self.eps * (1 + tolerance) or self.eps <= hidden:
            return super().tangents(point, lifted, functional, tolerance)
        touched = [move * (self.eps / length)]
        if functional is not None and np.all(np.isfinite(functional)):
            touched.append(-np.copysign(self._best_moves(functional[None])[0], functional))
        p = np.stack(touched)
        which, coordinate = np.nonzero(2 * p * move - p * p - lifted > UNSEEN * self.eps**2)
        if not which.size:
            row = sp.csr_array(np.concatenate([move / length, np.zeros(lifted.size)])[None])
            return row, np.array([move @ self.center / length + self.eps])
        own, every = p[which, coordinate], np.arange(which.size)
        entries = np.concatenate([2 * own, np.full(own.size, -1.0)])
        places = np.tile(every, 2), np.concatenate([coordinate, self.size + coordinate])
        rows = sp.csr_array((entries, places), shape=(own.size, self.size + lifted.size))
        return rows, own * own + 2 * own * self.center[coordinate]


def _blocks(rows: Any) -> Iterator[tuple[FloatArray, IndexArray | None]]:
    """The rows, dense, a few at a time; those of an operator as their entries, zeros behind them, and the columns."""
    if isinstance(rows, KernelOperator):
        step = max(1, RANGE_ENTRIES // max(1, rows.most_entries[1]))
        for start in range(0, rows.shape[0], step):
            yield _entries_and_columns(rows[start : start + step])
        return
    count = max(1, RANGE_ENTRIES // rows.shape[1])
    for start in range(0, rows.shape[0], count):
        yield dense_array(rows[start : start + count]), None


def _entries_and_columns(rows: SparseMatrix) -> tuple[FloatArray, IndexArray]:
    lengths = np.diff(rows.indptr)
    filled = np.arange(lengths.max(initial=1)) < lengths[:, None]
    entries, columns = np.zeros(filled.shape), np.zeros(filled.shape, dtype=np.int64)
    entries[filled], columns[filled] = rows.data, rows.indices
    return entries, columns
