"""What a rung is: one way to bound linear functionals of a network's output over a region, and what it declares.

    RUNG = Rung("name", Side.LOWER, "claim", "source", run, cost=Cost.CLOSED_FORM)

`run` takes a problem and answers all its rows at once. Calling the rung checks the answer: witnesses are replayed, a
bound that cannot be true is failed, and nothing is called certified that rests on l,u that are not.
"""

from __future__ import annotations

import enum
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from toolkit.arrays import FloatArray, IndexArray
from toolkit.data.arguments import a_function, instance, names, shown, text, whole_number, yes_or_no
from toolkit.data.summaries import one_line
from toolkit.networks.replay import replay_pairwise
from toolkit.problems.answers import Bound, RowBounds, Status
from toolkit.problems.consistency import contradiction
from toolkit.problems.input_set import InputSet
from toolkit.problems.problem import Problem
from toolkit.problems.properties import selection_rows
from toolkit.problems.settings import Settings


class Side(enum.StrEnum):
    """Which side of the true minimum a rung is on."""

    LOWER = "lower"
    EXACT = "exact"
    UPPER = "upper"


class Cost(enum.IntEnum):
    """What a rung costs: who is asked first, who row by row, and before whom l,u are tightened."""

    CLOSED_FORM = 0  # a few sweeps through the network for all rows together
    ITERATIVE = 1  # many sweeps, all rows together
    LINEAR_PROGRAM = 2  # a solver, row by row
    SEARCH = 3  # cuts, a MILP or a tree, row by row: worth tighter l,u


ATTACK_SETTINGS = ("attack_restarts", "attack_steps", "seed", "time_limit")
NOT_A_SOLVERS = {"attack_steps", "attack_restarts", "stop_at", "until_refuted", "nodes", "hopeless"}
ALL_SETTINGS = tuple(one.name for one in fields(Settings))
SOLVER_SETTINGS = tuple(sorted({*ALL_SETTINGS} - NOT_A_SOLVERS))


def each_row(run: Callable[[Problem], Sequence[Bound]]) -> Callable[[Problem], RowBounds]:
    """A `run` made of a function that gives one Bound per row."""

    @functools.wraps(run)
    def answer(problem: Problem) -> RowBounds:
        return RowBounds.of(run(problem))

    return answer


@dataclass(frozen=True)
class Rung:
    """A way to bound linear functionals of the output: one file in rungs/, one line in its registry.

    run: bounds of all rows of a problem. cost: see `Cost`. dominates: rungs whose lower bounds this one's are never
    below on the same l,u. reads: the settings its numbers may depend on, None: those of an attack for the upper side,
    else a solver's; a closed form reads none. input_sets: those it takes. uses_relu_bounds: whether l,u matter to it.
    certifies: whether its bounds (`lower`, of details certified_lower) hold in real arithmetic, rounding included,
    whatever a solver says. states: whether `lower` may be a MILP solver's word, which counts where settings.rigorous is
    False. batched: whether rows are served together although the rung searches. ranges: l and u of named outputs, both
    sides at once, where the rung has a better way than row by row; certified if the rung certifies. version: raised
    when its numbers change, so that stored rows of older versions are not mistaken for its own.
    claim, source: for help, tables.
    """

    name: str
    side: Side
    claim: str
    source: str
    run: Callable[[Problem], RowBounds] = field(repr=False)
    cost: Cost = Cost.LINEAR_PROGRAM
    dominates: tuple[str, ...] = ()
    reads: tuple[str, ...] | None = None
    input_sets: tuple[type[InputSet], ...] = (InputSet,)
    version: int = 1
    uses_relu_bounds: bool = True
    certifies: bool = False
    states: bool = False
    batched: bool = False
    ranges: Callable[[Problem, IndexArray], tuple[FloatArray, FloatArray]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_fields(self)
        if self.reads is None:
            chosen = ATTACK_SETTINGS if self.side is Side.UPPER else SOLVER_SETTINGS
            object.__setattr__(self, "reads", () if self.cost is Cost.CLOSED_FORM else chosen)

    def __repr__(self) -> str:
        certifies = "certifies" if self.certifies else ""
        cost = self.cost.name.lower().replace("_", " ")
        return one_line("Rung", [self.name, str(self.side), cost, certifies, self.claim, self.source])

    @property
    def row_by_row(self) -> bool:
        """Whether each row costs a solve of its own, so that asking for few at a time loses nothing."""
        return self.cost >= Cost.LINEAR_PROGRAM and self.side is not Side.UPPER and not self.batched

    def certifies_under(self, settings: Settings) -> bool:
        """Whether `lower_values` are certified: always, or only where no solver's word counts."""
        return self.certifies and (settings.rigorous or not self.states)

    def __call__(self, problem: Problem) -> list[Bound]:
        """Bounds for every row of the problem, in order, with the rows' targets filled in and witnesses replayed."""
        started = time.perf_counter()
        found = self._answer(problem)
        sound = self.certifies and (problem.relu_bounds.certified or not self.uses_relu_bounds)
        about = zip(problem.targets, problem.questions(), strict=True)
        if not found.details:
            each = (time.perf_counter() - started) / max(1, len(found))
            rows = zip(found.lower.tolist(), about, strict=True)
            bounds = [
                Bound(low, target=target, seconds=each, certified_lower=low if sound else -np.inf, asked=asked)
                for low, (target, asked) in rows
            ]
            return _checked(problem, bounds)
        own = zip(_replayed(problem, list(found.details)), about, strict=True)
        bounds = [
            replace(one, certified_lower=one.certified_lower if sound else -np.inf, target=target, asked=asked)
            for one, (target, asked) in own
        ]
        return _checked(problem, bounds)

    def check_takes(self, input_set: InputSet) -> None:
        """Raises TypeError for an input set that the rung does not take."""
        if not isinstance(input_set, self.input_sets):
            taken = ", ".join(kind.__name__ for kind in self.input_sets)
            raise TypeError(f"rung {self.name!r} takes {taken}, got {type(input_set).__name__}")

    def _answer(self, problem: Problem) -> RowBounds:
        """What `run` says. Raises TypeError for an input set the rung does not take or an answer that is no RowBounds,
        ValueError for an answer about another number of rows."""
        self.check_takes(problem.input_set)
        found: object = self.run(problem)
        if not isinstance(found, RowBounds):
            raise TypeError(
                f"rung {self.name!r} must answer RowBounds, got {shown(found)}; each_row makes a run of Bounds"
            )
        rows = len(problem.objective)
        lower = self._numbers("lower", found.lower, rows)
        highest = None if found.highest is None else self._numbers("highest", found.highest, rows)
        if not isinstance(found.details, tuple) or len(found.details) not in (0, rows):
            raise ValueError(f"rung {self.name!r} must answer {rows} details or none, got {shown(found.details)}")
        for bound in found.details:
            instance(f"every detail of rung {self.name!r}", bound, Bound)
        return RowBounds(lower, highest, found.details)

    def _numbers(self, what: str, values: object, count: int) -> FloatArray:
        """The values as float64. Raises TypeError or ValueError for what is no array of `count` floats."""
        wanted = f"rung {self.name!r} must answer {count} floats as {what}"
        if not isinstance(values, np.ndarray):
            raise TypeError(f"{wanted}, got {shown(values)}")
        if values.shape != (count,) or values.dtype.kind != "f" or values.dtype.itemsize > 8:
            raise ValueError(f"{wanted}, got {values.dtype} of shape {values.shape}")
        return np.asarray(values, dtype=np.float64)

    def lower_values(self, problem: Problem) -> FloatArray:
        """The lower bounds alone, shape (m,); those that are certified where the rung certifies."""
        return self._sides(problem)[0]

    def _sides(self, problem: Problem) -> tuple[FloatArray, FloatArray | None]:
        found = self._answer(problem)
        if not found.details:
            return found.lower, found.highest
        certified = self.certifies_under(problem.settings) and problem.relu_bounds.certified
        checked = _checked(problem, _replayed(problem, list(found.details)))
        values = [bound.certified_lower if certified else bound.lower for bound in checked]
        return np.array(values, dtype=np.float64), found.highest

    def neuron_ranges(self, problem: Problem, neurons: IndexArray) -> tuple[FloatArray, FloatArray]:
        """l and u of the named outputs of the problem's network: what layer bounds need, thousands at a time.

        Rows −e_i first: a rung that gets both sides in one pass is then done, and where another shows u ≤ 0 the neuron
        is decided, and l = −inf is left.
        """
        if self.ranges is not None:
            found: object = self.ranges(problem, neurons)
            if not isinstance(found, tuple) or len(found) != 2:
                raise TypeError(f"ranges of rung {self.name!r} must answer (l, u), got {shown(found)}")
            return self._numbers("l", found[0], neurons.size), self._numbers("u", found[1], neurons.size)
        size = problem.network.output_size
        lower, highest = self._sides(problem.with_rows(selection_rows(size, neurons, -1)))
        if highest is not None:
            return -highest, -lower
        low, high = np.full(neurons.size, -np.inf), -lower
        still = high > 0
        if still.any():
            low[still] = self.lower_values(problem.with_rows(selection_rows(size, neurons[still], 1)))
        return low, high


def _check_fields(rung: Rung) -> None:
    """Types and ranges of a rung's fields. Raises ValueError."""
    if not text("name", rung.name):
        raise ValueError("name must be a name, got ''")
    text("claim", rung.claim), text("source", rung.source)
    instance("side", rung.side, Side), instance("cost", rung.cost, Cost)
    if not callable(rung.run):
        raise ValueError(f"run must be a function, got {shown(rung.run)}")
    a_function("ranges", rung.ranges)
    whole_number("version", rung.version, 1)
    for field_name in ("uses_relu_bounds", "certifies", "states", "batched"):
        yes_or_no(field_name, getattr(rung, field_name))
    names("dominates", instance("dominates", rung.dominates, tuple))
    if rung.reads is not None:
        unknown = [one for one in names("reads", instance("reads", rung.reads, tuple)) if one not in ALL_SETTINGS]
        if unknown:
            raise ValueError(f"reads must name Settings ({', '.join(ALL_SETTINGS)}), got {shown(unknown[0])}")
    kinds = instance("input_sets", rung.input_sets, tuple)
    wrong = [one for one in kinds if not (isinstance(one, type) and issubclass(one, InputSet))]
    if wrong or not kinds:
        raise ValueError(f"input_sets must hold kinds of InputSet, got {shown(wrong[0] if wrong else kinds)}")


def _checked(problem: Problem, bounds: list[Bound]) -> list[Bound]:
    """The bounds, but for those that cannot be true: they are failed, with the reason."""
    clean = problem.clean_values().tolist()
    for row, bound in enumerate(bounds):
        reason = "" if bound.status is Status.FAILED else contradiction(problem, row, bound, clean[row])
        if reason:
            bounds[row] = bound = bound.failed(reason, float(np.fmin(bound.upper, clean[row])))
        if bound.witness is None and min(bound.upper, bound.certified_upper) < np.inf:
            bounds[row] = bound = replace(bound, upper=np.inf, certified_upper=np.inf)  # a point's, or nothing
        if not bound.lower <= bound.upper:  # by rounding alone
            bounds[row] = replace(bound, lower=bound.upper)
    return bounds


def _replayed(problem: Problem, bounds: list[Bound]) -> list[Bound]:
    """The bounds with the upper sides that their witnesses prove; one that lies outside the ball proves nothing."""
    found = {k: one.witness for k, one in enumerate(bounds) if one.witness is not None}
    inside = {k: point for k, point in found.items() if problem.input_set.contains(point)}
    checked = [
        replace(one, witness=None, upper=np.inf, certified_upper=np.inf) if k in found and k not in inside else one
        for k, one in enumerate(bounds)
    ]
    if inside:
        points = np.stack(list(inside.values()))
        values, proven = replay_pairwise(problem.network, problem.rows[list(inside)], points)
        for k, value, upper in zip(inside, values.tolist(), proven.tolist(), strict=True):
            said = checked[k].upper
            checked[k] = replace(checked[k], upper=value if value > said else said, certified_upper=upper)
    return checked
