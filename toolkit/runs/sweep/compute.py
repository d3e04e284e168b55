"""A task's rows: layer bounds once per chain, one problem with its built template shared by all rungs.

A rung that fails or answers nonsense costs its own rows only: they are recorded as failed, with the reason.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from toolkit.networks.network import Network
from toolkit.networks.replay import replay_margins
from toolkit.problems.answers import Bound, Status, Verdict
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_set import InputSet
from toolkit.problems.input_sets import make_ball
from toolkit.problems.lowering import lowered
from toolkit.problems.problem import Problem
from toolkit.problems.properties import Property
from toolkit.problems.region import Region
from toolkit.rungs import get_rung
from toolkit.runs.rows import Row
from toolkit.runs.shards import StoreError, append_rows
from toolkit.runs.sweep.bounds_cache import bounds_path, load_bounds, save_bounds
from toolkit.runs.sweep.tasks import Chain, NetworkRef, Task, TaskReport, row_keys
from toolkit.verify.explain import explain_equality
from toolkit.verify.layer_bounds import bound_layers, layer_bounds
from toolkit.verify.verdict import verdict

FLUSH_EVERY = 30.0  # seconds of a task's work that a killed worker may cost, if its rungs are as short


class TaskTimeLimitError(TimeoutError):
    """The task's own time limit was reached before this rung's turn."""


def run_task(task: Task) -> TaskReport:
    """Compute a task's rows and append them to this process's shard. Raises StoreError if they cannot be written.

    A KeyboardInterrupt passes: the rung that was interrupted has no rows, those before it have.
    Written at the end, and before it whenever FLUSH_EVERY seconds of new rows are at stake, or at every rung if the
    task has a time limit, since its process may be killed at any moment.
    """
    started = saved = time.perf_counter()
    flush_every = FLUSH_EVERY if task.work.task_time_limit is None else 0.0
    rows: list[Row] = []
    unsaved: list[Row] = []
    try:
        for batch in row_batches(task):
            unsaved += batch
            if time.perf_counter() - saved > flush_every:
                append_rows(Path(task.work.out), task.work.run_id, unsaved)
                rows, unsaved, saved = rows + unsaved, [], time.perf_counter()
    except KeyboardInterrupt:
        if unsaved:
            append_rows(Path(task.work.out), task.work.run_id, unsaved)
        raise
    if unsaved:
        append_rows(Path(task.work.out), task.work.run_id, unsaved)
    return task_report(rows + unsaved, time.perf_counter() - started)


def task_report(rows: Sequence[Row], seconds: float) -> TaskReport:
    """Counts, verdict and the first failure's message of a task's rows."""
    failed = [row for row in rows if row.status == Status.FAILED]
    return TaskReport(len(rows), len(failed), seconds, _verdict(rows), failed[0].message if failed else "")


def _verdict(rows: Sequence[Row]) -> Verdict:
    lower: dict[int, float] = {}
    upper: dict[int, float] = {}
    for row in rows:
        lower[row.target] = max(lower.get(row.target, -math.inf), row.certified_lower)
        upper[row.target] = min(upper.get(row.target, math.inf), row.certified_upper)
    return verdict(list(lower.values()), list(upper.values())) if rows else Verdict.MAYBE


@functools.lru_cache(maxsize=32)
def _loaded(ref: NetworkRef) -> Network:
    network = Network.load(ref.source, ref.architecture)
    if network.digest != ref.digest:
        raise ValueError(f"network {ref.name!r} has changed since the sweep began")
    return network


def row_batches(task: Task) -> Iterator[list[Row]]:
    """The rows of every wanted (chain, rung), all targets at once; whatever raises gives failed rows instead."""
    try:
        network = _loaded(task.network)
        ball = make_ball(task.work.norm, task.center, task.eps, task.work.domain)
        network, asked = lowered(network, task.question)
        clean = replay_margins(network, asked.objective.rows, ball.center)
    except Exception as error:
        yield failed_rows(task, error)
        return
    maker = RowMaker(task, *(dict(zip(task.targets, side[0].tolist(), strict=True)) for side in clean))
    yield from _TaskRun(task, network, asked, ball, maker, time.perf_counter()).batches()


def failed_rows(task: Task, error: BaseException) -> list[Row]:
    """What is recorded when nothing could be computed at all, for example because workers were killed."""
    maker = RowMaker(task, dict.fromkeys(task.targets, math.nan), dict.fromkeys(task.targets, math.inf))
    return [row for chain, rungs in task.wanted for rung in rungs for row in maker.failures(chain, rung, error)]


def explain(error: BaseException) -> str:
    """An exception in one line for the message column."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:500]


# How the message of a row begins that failed because somebody or something ended the computation; the last two stood
# in rows of earlier versions, where a solver that was interrupted counted as one that failed.
INTERRUPTED = ("KeyboardInterrupt", "WorkerDiedError", "gurobi: status 11", "scip: status userinterrupt")


def interrupted_rows(rows: pd.DataFrame) -> pd.Series[bool]:
    """Mask of the failed rows that say nothing about the question: they are to be computed again."""
    return (rows["status"] == Status.FAILED) & rows["message"].str.contains("|".join(INTERRUPTED))


class _TaskRun:
    """One task while it is computed: one row per group, asked of the network that has the ReLUs of its groups.

    `free` holds the bounds of rungs that ignore l,u: the same for every chain.
    """

    def __init__(
        self, task: Task, network: Network, asked: Property, ball: InputSet, maker: RowMaker, started: float
    ) -> None:
        self.task, self.network, self.asked, self.ball = task, network, asked, ball
        self.maker, self.started = maker, started
        self.free: dict[str, list[Bound]] = {}

    def batches(self) -> Iterator[list[Row]]:
        for chain, rungs in self.task.wanted:
            yield from self._chain_batches(chain, rungs)

    def _chain_batches(self, chain: Chain, rungs: Sequence[str]) -> Iterator[list[Row]]:
        try:
            self._check_time()
            problem, seconds = self._bounded_problem(chain)
        except StoreError:
            raise
        except Exception as error:
            for rung in rungs:
                yield self.maker.failures(chain, rung, error)
            return
        known = SharedBounds(problem.relu_bounds, seconds)
        for rung in rungs:
            yield self._rung_rows(chain, rung, problem, known)

    def _rung_rows(self, chain: Chain, name: str, problem: Problem, known: SharedBounds) -> list[Row]:
        try:
            self._check_time()
            rung = get_rung(name)
            bounds = self.free[name] if name in self.free else rung(problem)
            if not rung.uses_relu_bounds:
                self.free[name] = bounds
            return self.maker.rows(chain, name, bounds, known)
        except Exception as error:
            return self.maker.failures(chain, name, error, known)

    def _check_time(self) -> None:
        limit = self.task.work.task_time_limit
        if limit is not None and time.perf_counter() - self.started > limit:
            raise TaskTimeLimitError(f"task_time_limit of {limit:g} s reached before this rung's turn")

    def _bounded_problem(self, chain: Chain) -> tuple[Problem, float]:
        """The problem of all rows on l,u by the chain, and the seconds these l,u took when they were computed."""
        settings = self.task.work.settings
        bounds, seconds = self._own_bounds(chain)
        if len(bounds) < len(self.network.relu_sizes):  # the ReLUs of groups come last
            started = time.perf_counter()
            bounds, _ = bound_layers(self.network, self.ball, chain, settings, known=bounds)
            seconds += time.perf_counter() - started
        return Problem(Region(self.network, self.ball, bounds), self.asked.objective, settings), seconds

    def _own_bounds(self, chain: Chain) -> tuple[ReluBounds, float]:
        """l,u of the network's own ReLUs, which no question changes, from the cache if there, and their seconds."""
        task, own = self.task, _loaded(self.task.network)
        path = bounds_path(task, chain) if task.work.cache_bounds else None
        found = None if path is None else load_bounds(path, chain, own.relu_sizes)
        if found is None:
            started = time.perf_counter()
            bounds = layer_bounds(own, self.ball, chain, task.work.settings)
            found = bounds, time.perf_counter() - started
            if path is not None:
                save_bounds(path, *found)
        return found


@dataclass(frozen=True)
class SharedBounds:
    """The l,u that the rows of one chain share, and the seconds they took."""

    relu_bounds: ReluBounds
    seconds: float


class RowMaker:
    """Turns a task's bounds into rows. clean: F_{c*} − F_t (the group's margin) at the sample per target, NaN if not
    known; clean_upper: an upper bound of it in real arithmetic."""

    def __init__(self, task: Task, clean: dict[int, float], clean_upper: dict[int, float]) -> None:
        self.task, self.clean, self.clean_upper, self.keys = task, clean, clean_upper, row_keys(task)

    def rows(self, chain: Chain, rung: str, bounds: Sequence[Bound], known: SharedBounds) -> list[Row]:
        """One row per target or group. Raises ValueError for bounds that do not belong to those."""
        targets = tuple(bound.target for bound in bounds)
        asked = self.task.targets if self.task.work.property is None else (None,) * self.task.work.property.count
        if targets != asked:
            raise ValueError(f"rung {rung!r} answered for targets {targets}, asked were {asked}")
        return [self._row(chain, rung, k, bound, known) for k, bound in enumerate(bounds)]

    def failures(self, chain: Chain, rung: str, error: BaseException, known: SharedBounds | None = None) -> list[Row]:
        """Rows without a bound, one per target, with the reason."""
        status = Status.TIME_LIMIT if isinstance(error, TimeoutError) else Status.FAILED
        bound = Bound(lower=-math.inf, status=status, message=explain(error))
        return [self._row(chain, rung, k, bound, known) for k in range(len(self.task.targets))]

    def _row(self, chain: Chain, rung: str, k: int, bound: Bound, known: SharedBounds | None) -> Row:
        task, target = self.task, self.task.targets[k]
        domain = task.work.domain
        counts = [sum(column) for column in zip(*known.relu_bounds.counts(), strict=True)] if known else []
        unstable, active, inactive = counts or (0, 0, 0)
        why = None if bound.slack is None else explain_equality(bound)
        return Row(
            network=task.network.name,
            network_digest=task.network.digest,
            dataset=task.dataset,
            sample=task.sample,
            label=task.label,
            target=target,
            norm=task.work.norm,
            eps=task.eps,
            domain="none" if domain is None else f"[{domain[0]:g}, {domain[1]:g}]",
            layer_bounds="+".join(chain),
            rung=rung,
            lower=float(bound.lower),
            upper=float(bound.upper),
            certified_lower=float(bound.certified_lower),
            certified_upper=min(float(bound.certified_upper), self.clean_upper[target]),
            status=str(bound.status),
            seconds=float(bound.seconds),
            build_seconds=float(bound.build_seconds),
            bounds_seconds=known.seconds if known else 0.0,
            solver=bound.solver,
            solver_version=bound.solver_version,
            nodes=int(bound.nodes),
            unstable=unstable,
            active=active,
            inactive=inactive,
            clean_margin=self.clean[target],
            relaxed=-1 if why is None or (why.relaxed == 0 and not why.equal) else why.relaxed,
            max_slack=-1.0 if why is None else why.largest_slack,
            message=bound.message,
            key=self.keys[chain, rung][k],
            run_id=task.work.run_id,
        )
