"""The one question every rung answers, and the types it answers in.

A rung bounds linear functionals of a network's output over a ball, given bounds l,u on every ReLU input:

    rung(problem) -> list[Bound]        problem = (network, ball, objective rows C, relu_bounds, settings)
"""

from __future__ import annotations

import enum
import hashlib
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from toolkit.arrays import BoolArray, FloatArray, IndexArray
from toolkit.data.arguments import check_settings, class_label, class_targets, instance, names, shown, text
from toolkit.networks.layers import exact_float64, read_only
from toolkit.networks.network import Network
from toolkit.networks.replay import replayed
from toolkit.problems.consistency import clean_values, contradiction
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.phases import is_active, is_inactive, is_unstable

T = TypeVar("T")


class Status(enum.StrEnum):
    """How a bound came about; the text is what a table shows."""

    COMPUTED = "computed"  # closed form or a finished iteration: nothing was left to do
    OPTIMAL = "optimal"  # a solver proved optimality to its stated gap
    INFEASIBLE = "infeasible"  # the region is empty, proven by multipliers: inside a search tree only
    DECIDED = "decided"  # stopped early on purpose: the sign asked for was proven
    TIME_LIMIT = "time_limit"  # stopped by the clock: the bound proven so far is kept
    FAILED = "failed"  # no bound: `message` says why


class Verdict(enum.StrEnum):
    """Answer to: is the ball free of adversarial examples?"""

    YES = "YES"
    NO = "NO"
    MAYBE = "MAYBE"


@dataclass(frozen=True)
class Settings:
    """What steers a rung but not the question.

    solver: "auto" or a name in SOLVERS ("auto" for `exact` may also take the bab rung). time_limit: seconds per
    objective row, None = none. threads: per solver. mip_gap, mip_gap_abs: relative and absolute gap at which a MILP
    counts as solved, whichever comes first. stop_at: with a number, an exact rung may stop as soon as it has proven
    lower > stop_at, or has a replayed point ≤ stop_at. attack_steps/restarts: for pgd.
    seed: for every random choice. rigorous: verdicts rest on certified bounds alone, and `exact` under "auto" is the
    bab rung, whose bounds are certified. False: a MILP solver's word counts too, and "auto" may take Gurobi for it.
    """

    solver: str = "auto"
    time_limit: float | None = None
    threads: int = 1
    mip_gap: float = 1e-4
    mip_gap_abs: float = 1e-6
    stop_at: float | None = None
    seed: int = 0
    attack_steps: int = 40
    attack_restarts: int = 5
    rigorous: bool = True

    def __post_init__(self) -> None:
        check_settings(self)
        if self.time_limit is not None and not self.time_limit > 0:
            raise ValueError(f"time_limit must be > 0 seconds or None, got {self.time_limit}")
        if self.threads < 1:
            raise ValueError(f"threads must be ≥ 1, got {self.threads}")
        if not 0 <= self.mip_gap < 1:
            raise ValueError(f"mip_gap must be in [0, 1), got {self.mip_gap}")
        if not self.mip_gap_abs >= 0:
            raise ValueError(f"mip_gap_abs must be ≥ 0, got {self.mip_gap_abs}")
        if self.attack_steps < 1 or self.attack_restarts < 1:
            raise ValueError(
                f"attack_steps and attack_restarts must be ≥ 1, got {self.attack_steps} and {self.attack_restarts}"
            )


@dataclass(frozen=True)
class Bound:
    """An interval [lower, upper] proven to hold min cᵀF over the ball, for one objective row c.

    lower: the proven side (−inf when nothing is proven); never a solver's incumbent. upper: value of cᵀF at
    `witness`, a point of the ball replayed through the network (+inf without one). target: the class t of
    c = e_{c*} − e_t, None for other rows. seconds: spent on this row, shared work divided evenly;
    build_seconds: the part of it spent on building and handing over models. iterations: simplex or gradient
    iterations; nodes: of a search tree. slack: y − max(x̂, 0) of every unstable neuron at a relaxation's optimum, None
    where there is no such point; 0 everywhere means that the relaxation's optimum is the exact one. slack_range: u − l
    of these neurons, the unit of their slack; drop: cᵀF at the ball's centre less lower (0: not known), that of a gap.
    certified_lower: a lower bound in real arithmetic, rounding included, that trusts no solver (−inf: none; see
    dual_bound.py); it rests on l,u as `lower` does. certified_upper: an upper bound of cᵀF at the witness in real
    arithmetic (+inf: none). multipliers: λ of the unstable neurons that prove certified_lower, where an LP gave them.
    asked: digest of the network, ball and row that a rung was asked about ("": made by hand, or no class's margin).
    """

    lower: float
    upper: float = float("inf")
    target: int | None = None
    status: Status = Status.COMPUTED
    witness: FloatArray | None = field(default=None, repr=False)
    slack: FloatArray | None = field(default=None, repr=False)
    seconds: float = 0.0
    build_seconds: float = 0.0
    solver: str = ""
    solver_version: str = ""
    nodes: int = 0
    iterations: int = 0
    message: str = ""
    certified_lower: float = -float("inf")
    certified_upper: float = float("inf")
    multipliers: FloatArray | None = field(default=None, repr=False)
    slack_range: FloatArray | None = field(default=None, repr=False)
    drop: float = field(default=0.0, repr=False)
    asked: str = field(default="", repr=False, compare=False)

    def failed(self, reason: str, ceiling: float) -> Bound:
        """The bound without its lower side, FAILED for this reason; certified_lower stays if it is ≤ `ceiling`."""
        upper = np.inf if np.isnan(self.upper) else self.upper
        kept = self.certified_lower <= min(np.inf if np.isnan(ceiling) else ceiling, self.certified_upper)
        certified = self.certified_lower if kept else -np.inf
        message = "; ".join(text for text in (reason, self.message) if text)
        found = replace(self, lower=-np.inf, upper=upper, status=Status.FAILED, message=message)
        return replace(found, certified_lower=certified)

    def with_build(self, seconds: float) -> Bound:
        """The same bound with this much more time spent on building."""
        return replace(self, seconds=self.seconds + seconds, build_seconds=self.build_seconds + seconds)


def region_digest(network: Network, ball: LinfBall) -> str:
    """What bounds on every ReLU input depend on: the digests of the ball and, per ReLU layer, of the maps up to it.

    Parted by dots, so that the bounds of a network's first ReLU layers serve its cuts.
    """
    return ".".join((ball.digest, *network.prefix_digests[:-1]))


def _frozen(name: str, side: FloatArray) -> FloatArray:
    """The side itself if it is float64 that nobody can write, else a read-only copy."""
    if side.dtype == np.float64 and side.base is None and not side.flags.writeable:
        return side
    return np.asarray(read_only(exact_float64(name, side)))


@dataclass(frozen=True, eq=False)
class ReluBounds:
    """Bounds l ≤ x̂ ≤ u on the inputs of every ReLU layer over a ball.

    lower, upper: one flat array per ReLU layer, in the network's order, kept as read-only float64 copies. chain: names
    of the rungs they come from. region: what they hold on, `region_digest(network, ball)`; "" = given by hand.
    certified: whether they hold in real arithmetic, rounding included; never so for bounds given by hand, which are
    believed but certify nothing. seal: the numbers and the region that certified bounds were made with, see `sealed`; a
    copy with others is given by hand. Raises ValueError for shapes that do not match, NaN, l > u, l = +inf or u = −inf.
    A neuron is active if l ≥ 0, inactive if u ≤ 0 (and not active), unstable if l < 0 < u.
    """

    lower: tuple[FloatArray, ...]
    upper: tuple[FloatArray, ...]
    chain: tuple[str, ...] = ()
    certified: bool = False
    region: str = ""
    seal: tuple[Any, ...] = field(default=(), repr=False)

    @classmethod
    def sealed(
        cls,
        lower: Sequence[FloatArray],
        upper: Sequence[FloatArray],
        chain: Sequence[str],
        certified: bool,
        region: str,
    ) -> ReluBounds:
        """The bounds that the chain gave on this region; `certified` is the caller's word for exactly these numbers."""
        low, high = (tuple(_frozen(f"layer {k}", one) for k, one in enumerate(side)) for side in (lower, upper))
        return cls(low, high, tuple(chain), certified, region, (region, *zip(low, high, strict=True)))

    def __post_init__(self) -> None:
        for name, side in (("lower", self.lower), ("upper", self.upper)):
            for low in instance(name, side, tuple, "one array per ReLU layer"):
                instance(f"every entry of {name}", low, np.ndarray)
        if len(self.lower) != len(self.upper):
            raise ValueError(f"lower has {len(self.lower)} layers, upper has {len(self.upper)}")
        for name in ("lower", "upper"):
            sides = (_frozen(f"layer {k}: {name}", side) for k, side in enumerate(getattr(self, name)))
            object.__setattr__(self, name, tuple(sides))
        names("chain", self.chain), text("region", self.region)
        if not isinstance(self.certified, bool | np.bool_):
            raise ValueError(f"certified must be True or False, got {shown(self.certified)}")
        object.__setattr__(self, "certified", bool(self.certified and self.region) and self._is_sealed())
        for layer, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
            if low.shape != high.shape or low.ndim != 1:
                raise ValueError(f"layer {layer}: lower has shape {low.shape}, upper {high.shape}; both must be (n,)")
            wrong = np.flatnonzero(~((low <= high) & (low < np.inf) & (high > -np.inf)))
            if wrong.size:
                i = int(wrong[0])
                raise ValueError(f"layer {layer}, neuron {i}: lower must be ≤ upper, got {low[i]} and {high[i]}")

    def _is_sealed(self) -> bool:
        """Whether these are the very arrays, of the first layers or all, and the region that `sealed` was told of."""
        if not isinstance(self.seal, tuple) or len(self.seal) <= len(self.lower) or self.seal[0] != self.region:
            return False
        made = zip(self.lower, self.upper, self.seal[1:], strict=False)
        return all(low is sides[0] and high is sides[1] for low, high, sides in made)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickled bounds are read-only as well."""
        self.__dict__.update(state)
        for side in (*self.lower, *self.upper):
            read_only(side)

    def check_region(self, network: Network, ball: LinfBall) -> None:
        """Raise ValueError if the bounds are known to hold on another ball or for other weights."""
        if not self.region:
            return
        own, *maps = self.region.split(".")
        if own != ball.digest:
            raise ValueError(f"relu_bounds belong to another ball than this one of eps = {ball.eps}")
        for k, (known, digest) in enumerate(zip(maps, network.prefix_digests[:-1], strict=False)):
            if known != digest:
                raise ValueError(f"relu_bounds belong to another network: map {k} differs from {network.name!r}")
        if len(maps) < len(self.lower):
            raise ValueError(f"relu_bounds name the maps of {len(maps)} ReLU layers only, got {len(self.lower)}")

    def __len__(self) -> int:
        return len(self.lower)

    def unstable(self, layer: int) -> BoolArray:
        """Mask of neurons with l < 0 < u."""
        return np.asarray(is_unstable(self.lower[layer], self.upper[layer]))

    def active(self, layer: int) -> BoolArray:
        """Mask of neurons with l ≥ 0: the ReLU is the identity there."""
        return np.asarray(is_active(self.lower[layer]))

    def inactive(self, layer: int) -> BoolArray:
        """Mask of neurons with u ≤ 0 and not active: the ReLU is zero there."""
        return np.asarray(is_inactive(self.lower[layer], self.upper[layer]))

    def counts(self) -> list[tuple[int, int, int]]:
        """(unstable, active, inactive) per ReLU layer."""
        return [
            (int(self.unstable(k).sum()), int(self.active(k).sum()), int(self.inactive(k).sum()))
            for k in range(len(self))
        ]


def one_dense_row(rows: Any, row: int) -> FloatArray:
    """One row of a dense or sparse matrix, shape (outputs,); −0 as 0."""
    chosen = rows[[row]]
    dense = np.asarray(chosen.toarray() if sp.issparse(chosen) else chosen, dtype=np.float64)
    return np.asarray(dense[0] + 0.0)


_MADE_FOR = "made for"  # the key in a problem's cache of the four things that the cache depends on


def _checked_rows(rows: Any) -> Any:
    """Rows as float64 numbers, none of them rounded, every entry of a sparse matrix given once."""
    values = rows.data if sp.issparse(rows) else rows
    if isinstance(values, np.ndarray) and values.dtype == np.float64:
        if not sp.issparse(rows):
            return rows
        if rows.format == "csr" and rows.has_canonical_format:
            return rows
    if not sp.issparse(rows):
        return exact_float64("rows", rows)
    whole = sp.csr_array(rows, copy=True)
    whole.data = exact_float64("rows", whole.data)
    given = whole.nnz
    whole.sum_duplicates()
    if whole.nnz != given:
        raise ValueError(f"rows must give every entry once, got {given - whole.nnz} entries again")
    return whole


def _same_region(known: tuple[Any, ...], made_for: tuple[Any, ...]) -> bool:
    """Whether network, ball and l,u are the very same objects, and the settings name the same solver."""
    (*old, before), (*new, now) = known, made_for
    if any(one is not other for one, other in zip(old, new, strict=True)):
        return False
    return before is now or (isinstance(now, Settings) and before.solver == now.solver)


@dataclass(frozen=True, eq=False)
class Problem:
    """Bound min over the ball of C·F(x̃), row by row.

    rows: C, shape (m, outputs), dense or scipy.sparse. targets: the class each row belongs to, or None.
    `shared` memoises what depends on (network, ball, relu_bounds, settings.solver) alone, such as the built
    template, so that rungs and targets of one task pay for it once; `with_rows` keeps it, and a problem with another of
    these four starts afresh. Raises ValueError for parts that do not fit, and for relu_bounds of another region.
    """

    network: Network
    ball: LinfBall
    rows: Any
    relu_bounds: ReluBounds
    settings: Settings = field(default_factory=Settings)
    targets: tuple[int | None, ...] = ()
    _cache: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        made_for = (self.network, self.ball, self.relu_bounds, self.settings)
        known = self._cache.get(_MADE_FOR)
        if known is None or not _same_region(known, made_for):
            self._check_region()
            object.__setattr__(self, "_cache", {_MADE_FOR: made_for})
        outputs = self.network.output_size
        if self.rows.ndim != 2 or self.rows.shape[1] != outputs:
            raise ValueError(f"rows must have shape (m, {outputs}), got {self.rows.shape}")
        object.__setattr__(self, "rows", _checked_rows(self.rows))
        if not self.targets:
            object.__setattr__(self, "targets", (None,) * self.rows.shape[0])
        elif len(self.targets) != self.rows.shape[0]:
            raise ValueError(f"targets must name one class per row: {len(self.targets)} for {self.rows.shape[0]} rows")

    def _check_region(self) -> None:
        instance("network", self.network, Network), instance("ball", self.ball, LinfBall)
        instance("relu_bounds", self.relu_bounds, ReluBounds), instance("settings", self.settings, Settings)
        check_ball(self.network, self.ball)
        sizes = self.network.relu_sizes
        given = tuple(low.size for low in self.relu_bounds.lower)
        if given != sizes:
            raise ValueError(f"relu_bounds must have layer sizes {sizes}, got {given}")
        self.relu_bounds.check_region(self.network, self.ball)

    def shared(self, key: Hashable, make: Callable[[], T]) -> T:
        """The memoised value for `key`, made at first use."""
        if key not in self._cache:
            self._cache[key] = make()
        return cast(T, self._cache[key])

    def replace_shared(self, key: Hashable, value: Any) -> None:
        """Put another value under `key`, say a session that took over from one that failed."""
        self._cache[key] = value

    def drop_shared(self, key: Hashable) -> None:
        """Forget the value under `key`, say a session that an exception may have left half changed."""
        self._cache.pop(key, None)

    def questions(self) -> list[str]:
        """`asked` of every row that is a class's margin, "" for others."""
        return ["" if target is None else self.asked(row) for row, target in enumerate(self.targets)]

    def asked(self, row: int) -> str:
        """What bounds of this row are about: SHA-256 of network, ball and the row itself."""
        region = self.shared("asked", lambda: f"{self.ball.digest}.{self.network.digest}")
        return hashlib.sha256(region.encode() + one_dense_row(self.rows, row).tobytes()).hexdigest()

    def with_rows(self, rows: Any, targets: Sequence[int | None] = ()) -> Problem:
        """The same region with other objective rows; shared work is kept."""
        return replace(self, rows=rows, targets=tuple(targets))

    def with_settings(self, settings: Settings) -> Problem:
        """The same problem under other settings; shared work is kept unless the solver changes."""
        return replace(self, settings=settings)

    def replay(self, points: ArrayLike) -> FloatArray:
        """C·F at each point, by the original network. Shapes: (k, n) → (k, m)."""
        with np.errstate(over="ignore", invalid="ignore"):  # infinite or NaN then, which proves nothing
            outputs = self.network.forward(np.atleast_2d(np.asarray(points, dtype=np.float64)))
            return np.asarray((self.rows @ outputs.T).T, dtype=np.float64)


class Side(enum.StrEnum):
    """Which side of the true minimum a rung is on."""

    LOWER = "lower"
    EXACT = "exact"
    UPPER = "upper"


@dataclass(frozen=True)
class Rung:
    """A way to bound linear functionals of the output: one file in rungs/, one line in its registry.

    A rung is given by `run` (problem → one Bound per row), or, when its bounds come as one array at once, by `values`
    (problem → lower bounds, shape (m,)) or `ranges` (problem → lower bounds on the minima and upper bounds on the
    maxima, for a rung that gets both sides in one pass). uses_relu_bounds: whether l,u matter to it. certifies: whether
    its bounds (of a `run`: certified_lower) hold in real arithmetic, rounding included, whatever a solver says. states:
    whether `lower` may be a MILP solver's word, which counts where settings.rigorous is False. version: raised when its
    numbers change, so that stored rows of older versions are not mistaken for its own. claim, source: for help, tables.
    """

    name: str
    side: Side
    claim: str
    source: str
    run: Callable[[Problem], list[Bound]] | None = field(default=None, repr=False)
    values: Callable[[Problem], FloatArray] | None = field(default=None, repr=False)
    ranges: Callable[[Problem], tuple[FloatArray, FloatArray]] | None = field(default=None, repr=False)
    version: int = 1
    uses_relu_bounds: bool = True
    certifies: bool = False
    states: bool = False

    def certifies_under(self, settings: Settings) -> bool:
        """Whether `lower_values` are certified: always, or only where no solver's word counts."""
        return self.certifies and (settings.rigorous or not self.states)

    def __call__(self, problem: Problem) -> list[Bound]:
        """Bounds for every row of the problem, in order, with the rows' targets filled in and witnesses replayed."""
        if self.run is not None:
            bounds, sound = _replayed(problem, self.run(problem)), self._sound(problem)
            own = zip(bounds, problem.targets, problem.questions(), strict=True)
            return self._checked(
                problem,
                [
                    replace(one, certified_lower=one.certified_lower if sound else -np.inf, target=t, asked=asked)
                    for one, t, asked in own
                ],
            )
        started = time.perf_counter()
        lower = self.lower_values(problem)
        each = (time.perf_counter() - started) / max(1, lower.size)
        proven = lower if self._sound(problem) else np.full(lower.shape, -np.inf)
        found = zip(lower.tolist(), proven.tolist(), problem.targets, problem.questions(), strict=True)
        return self._checked(
            problem,
            [Bound(low, target=t, seconds=each, certified_lower=least, asked=asked) for low, least, t, asked in found],
        )

    def _sound(self, problem: Problem) -> bool:
        """Whether the rung certifies, and what it rests on is certified."""
        return self.certifies and (problem.relu_bounds.certified or not self.uses_relu_bounds)

    def _checked(self, problem: Problem, bounds: list[Bound]) -> list[Bound]:
        """The bounds, but for those that cannot be true: they are failed, with the reason."""
        clean = clean_values(problem).tolist()
        for row, bound in enumerate(bounds):
            reason = "" if bound.status is Status.FAILED else contradiction(problem, row, bound, clean[row])
            if reason:
                bounds[row] = bound = bound.failed(reason, float(np.fmin(bound.upper, clean[row])))
            if bound.witness is None and min(bound.upper, bound.certified_upper) < np.inf:
                bounds[row] = bound = replace(bound, upper=np.inf, certified_upper=np.inf)  # a point's, or nothing
            if not bound.lower <= bound.upper:  # by rounding alone
                bounds[row] = replace(bound, lower=bound.upper)
        return bounds

    def lower_values(self, problem: Problem) -> FloatArray:
        """The lower bounds alone, shape (m,); those that are certified where the rung certifies."""
        if self.ranges is not None:
            return np.asarray(self.ranges(problem)[0], dtype=np.float64)
        if self.values is not None:
            return np.asarray(self.values(problem), dtype=np.float64)
        certified = self.certifies_under(problem.settings) and problem.relu_bounds.certified
        found = self(problem)
        return np.array([bound.certified_lower if certified else bound.lower for bound in found], dtype=np.float64)

    def neuron_ranges(self, problem: Problem, neurons: IndexArray) -> tuple[FloatArray, FloatArray]:
        """l and u of the named outputs of the problem's network: what layer bounds need, thousands at a time.

        Upper side first: where it shows u ≤ 0 the neuron is decided, and a rung without `ranges` leaves l = −inf.
        """
        size = problem.network.output_size
        if self.ranges is not None:
            return self.ranges(problem.with_rows(selection_rows(size, neurons, 1)))
        high = -self.lower_values(problem.with_rows(selection_rows(size, neurons, -1)))
        low = np.full(neurons.size, -np.inf)
        still = high > 0
        if still.any():
            low[still] = self.lower_values(problem.with_rows(selection_rows(size, neurons[still], 1)))
        return low, high


def _replayed(problem: Problem, bounds: list[Bound]) -> list[Bound]:
    """The bounds with the upper sides that their witnesses prove; one that lies outside the ball proves nothing."""
    found = {k: one.witness for k, one in enumerate(bounds) if one.witness is not None}
    inside = {k: point for k, point in found.items() if problem.ball.contains(point)}
    checked = [
        replace(one, witness=None, upper=np.inf, certified_upper=np.inf) if k in found and k not in inside else one
        for k, one in enumerate(bounds)
    ]
    if inside:
        points = np.stack(list(inside.values()))
        values, proven = replayed(problem.network, problem.rows[list(inside)], points)
        for k, value, upper in zip(inside, values.tolist(), proven.tolist(), strict=True):
            said = checked[k].upper
            checked[k] = replace(checked[k], upper=value if value > said else said, certified_upper=upper)
    return checked


def margin_rows(outputs: int, label: int, targets: Sequence[int] | None = None) -> tuple[FloatArray, tuple[int, ...]]:
    """Rows e_{c*} − e_t for every target t ≠ c*, and those targets.

    Shapes: (m, outputs). Raises ValueError for fewer than two outputs, a label or target outside 0 … outputs−1, a
    target equal to the label or listed twice, or no target.
    """
    label = class_label("label", label, outputs)
    chosen = class_targets(targets, label, outputs)
    rows = np.zeros((len(chosen), outputs))
    rows[:, label] = 1.0
    rows[np.arange(len(chosen)), list(chosen)] = -1.0
    return rows, chosen


def check_ball(network: Network, ball: LinfBall) -> None:
    """Raise ValueError unless the ball's centre is an input of the network: flat, or of its shape behind leading 1s.

    Sizes alone do not tell H×W×C from C×H×W; a network whose inputs are plain features takes a centre of any shape.
    """
    network.check_weights()
    if ball.size != network.input_size:
        raise ValueError(f"the ball has {ball.size} coordinates, the network takes {network.input_size} inputs")
    wanted, shape = network.input_shape, ball.shape
    extra = len(shape) - len(wanted)
    leading = extra >= 0 and shape[:extra] == (1,) * extra and shape[extra:] == wanted
    if not (len(wanted) == 1 or shape == (ball.size,) or leading):
        raise ValueError(
            f"the ball's centre has shape {shape}, the network takes {wanted} (channels first) or {ball.size} numbers"
        )


def selection_rows(size: int, neurons: Sequence[int] | np.ndarray[Any, Any], sign: Literal[1, -1]) -> Any:
    """Rows ±e_i for the named neurons, as a sparse matrix of shape (m, size)."""
    chosen = np.asarray(neurons, dtype=np.int64)
    data = np.full(chosen.size, float(sign))
    return sp.csr_array((data, (np.arange(chosen.size), chosen)), shape=(chosen.size, size))
