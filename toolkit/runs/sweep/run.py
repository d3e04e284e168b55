"""Runs a sweep: hands its tasks to an executor, survives what goes wrong, and leaves all rows on disk.

    rows = run_sweep("experiments/demo.toml", out="results/demo")

Rows already in the folder are not computed again, so a sweep that was stopped or killed continues when it is run
again. One sweep at a time writes to a folder.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import pandas as pd
from threadpoolctl import threadpool_limits

from toolkit.data.arguments import file_path, instance, optional_number, shown
from toolkit.problems.answers import Status
from toolkit.runs.dask_executor import LOCAL, DaskExecutor
from toolkit.runs.executors import (
    ProcessExecutor,
    SerialExecutor,
    TaskTimeoutError,
    check_workers,
    one_thread_environment,
    usable_cpus,
)
from toolkit.runs.interrupts import ending_signals
from toolkit.runs.lock import folder_lock
from toolkit.runs.provenance import begin_run, end_run
from toolkit.runs.store import StoreError, append_rows, compact, prepare_folder, read_rows, write_plan
from toolkit.runs.sweep.compute import explain, failed_rows, interrupted_rows, run_task, task_report
from toolkit.runs.sweep.plan import Plan, make_plan
from toolkit.runs.sweep.progress import SweepProgress
from toolkit.runs.sweep.spec import SweepSpec, load_spec
from toolkit.runs.sweep.tasks import Task, TaskReport, Work
from toolkit.runs.workers import MissingGuardError, WorkerDiedError, WorkerStartError, check_main_guard

RERUN = {"failed": (Status.FAILED,), "timeout": (Status.TIME_LIMIT,), "all": tuple(Status)}
RETRIES = 2  # how often a task whose worker died is tried again
POLL = 0.5  # seconds between looks at the clock while tasks run


def run_sweep(
    spec: SweepSpec | str | Path,
    out: str | Path,
    *,
    workers: int | None = None,
    rerun: str | None = None,
    progress: bool = True,
    max_hours: float | None = None,
    dask: str | None = None,
    executor: Executor | None = None,
) -> pd.DataFrame:
    """Compute every row of a spec that `out` does not hold yet, and return the spec's rows.

    workers: local processes, None = one per usable core, 1 = in this process. dask: address of a Dask scheduler, or
    "local" for a cluster of `workers` on this machine. executor: any concurrent.futures.Executor instead; `workers` is
    then how many tasks it is given at a time. rerun: "failed", "timeout" or "all" computes such rows again.
    max_hours: start no task after that long. progress: a live display on a terminal, plain lines elsewhere, both on
    stderr.

    Ctrl-C (or SIGTERM) finishes the running tasks, then raises KeyboardInterrupt; a second one ends them at once, as a
    closed terminal does. A task that was interrupted leaves no rows but those of its finished rungs, and rows that
    failed because their worker was killed are computed again.
    Raises MissingGuardError (a ValueError) in a script without an `if __name__ == "__main__":` guard, ValueError or
    FileNotFoundError for a spec that does not fit, before any work; WorkerStartError if workers cannot start;
    FolderInUseError if another sweep writes to `out`; StoreError if rows cannot be written. Finished rows stay in every
    case.
    """
    if rerun is not None and (not isinstance(rerun, str) or rerun not in RERUN):
        raise ValueError(f"unknown rerun {shown(rerun)}; allowed: {', '.join(RERUN)}")
    workers = None if workers is None else check_workers(workers)
    if dask is not None:
        instance("dask", dask, str, 'a scheduler\'s address, or "local"')
    if (executor is None and dask is None and workers != 1) or dask == LOCAL:
        check_main_guard()
    optional_number("max_hours", max_hours, above=0)
    folder = file_path("out", out).absolute()
    if executor is not None:
        instance("executor", executor, Executor, "one of concurrent.futures, or of toolkit.runs.executors")
    if not isinstance(spec, SweepSpec | str | Path):
        instance("spec", spec, SweepSpec, "or the path of a .toml file")
    plan = make_plan(spec if isinstance(spec, SweepSpec) else load_spec(spec))
    text = "" if isinstance(spec, SweepSpec) else Path(spec).read_text(encoding="utf-8")
    with folder_lock(folder):
        choice = _choose(executor, dask, workers, plan)
        _run(plan, text, folder, choice, _Options(rerun, progress, max_hours))
        return read_rows(folder)


@dataclass(frozen=True)
class _Options:
    rerun: str | None
    progress: bool
    max_hours: float | None


@dataclass(frozen=True)
class _Choice:
    """How tasks are run: open() gives the executor, workers is how many tasks it runs at a time."""

    name: str
    workers: int
    open: Callable[[], Executor]
    owned: bool = True


def _choose(executor: Executor | None, dask: str | None, workers: int | None, plan: Plan) -> _Choice:
    spec = plan.spec
    tasks = sum(len(network.samples) * len(network.eps) for network in plan.networks)
    count = min(workers or usable_cpus(), max(2, tasks))  # a worker without a task costs a thread all the same
    if executor is not None:
        return _Choice(type(executor).__name__, count, lambda: executor, owned=False)
    if dask is not None:
        return _Choice("dask", count, lambda: DaskExecutor(dask, count))
    if count == 1 and spec.task_time_limit is None:
        return _Choice("serial", 1, SerialExecutor)
    return _Choice("processes", count, lambda: ProcessExecutor(count, spec.task_time_limit))


def _run(plan: Plan, text: str, out: Path, choice: _Choice, options: _Options) -> None:
    prepare_folder(out)
    done = _done_keys(out, options.rerun)
    spec = plan.spec
    work = Work(str(out), "", spec.settings(), spec.domain, spec.task_time_limit, spec.cache_bounds)
    planned = write_plan(out, plan.keys(work))
    if next(plan.missing(work, done), None) is None:
        return
    execution = {"executor": choice.name, "workers": choice.workers, "solver_threads": spec.threads, "blas_threads": 1}
    run_id = begin_run(out, plan, text, execution)
    tasks = list(plan.missing(replace(work, run_id=run_id), done))
    to_do = sum(len(rungs) * len(task.targets) for task in tasks for _, rungs in task.wanted)
    counts = {"planned": planned, "present": planned - to_do, "written": 0}
    stop = _Stop(options.max_hours)
    progress = SweepProgress(spec.name, out, tasks, counts["present"], choice.workers, options.progress)
    outcome = "failed"
    try:
        with one_thread_environment(), threadpool_limits(1), progress, _handling(stop):
            _Driver(tasks, choice, progress, stop).run()
        outcome = f"stopped: {stop.reason}" if stop.reason else "finished"
    except BaseException as error:
        outcome = f"ended by {explain(error)}"
        progress.log(outcome)
        if not isinstance(error, KeyboardInterrupt):
            raise
        stop.interrupted = True
    finally:
        # an interrupted task leaves rows that no report counts: those are looked for on the disk
        counts["written"] = _rows_of(out, run_id) if stop.interrupted else progress.snapshot().rows
        with contextlib.suppress(StoreError):  # a full disk must not hide why the run ended
            end_run(out, run_id, outcome, counts)
    if stop.interrupted:
        kept = f"{counts['written']} rows are new and kept in {out}"
        raise KeyboardInterrupt(f"stopped; {kept}; run the same command to continue")
    with contextlib.suppress(StoreError):  # the shards hold every row
        compact(out)


def _rows_of(out: Path, run_id: str) -> int:
    return int((read_rows(out, everything=True)["run_id"] == run_id).sum())


def _done_keys(out: Path, rerun: str | None) -> set[str]:
    """Keys of the rows that need not be computed."""
    rows = read_rows(out, everything=True)
    again = RERUN[rerun] if rerun else ()
    settled = ~rows["status"].isin([str(status) for status in again])
    return set(rows.loc[settled & ~interrupted_rows(rows), "key"])


class _Driver:
    """Keeps the executor busy and settles what comes back."""

    def __init__(self, tasks: list[Task], choice: _Choice, progress: SweepProgress, stop: _Stop) -> None:
        self._waiting = deque(tasks)
        self._choice, self._progress, self._stop = choice, progress, stop
        self._running: dict[Future[TaskReport], Task] = {}
        self._deaths: Counter[int] = Counter()
        self._failed_starts = 0  # in a row

    def run(self) -> None:
        executor = self._choice.open()
        if isinstance(executor, DaskExecutor):
            self._progress.note(f"Dask dashboard: {executor.dashboard or 'none'}")
        try:
            while self._running or (self._waiting and not self._stop.check()):
                self._submit(executor)
                if self._stop.check() and isinstance(executor, DaskExecutor):
                    executor.recall()
                done, _ = wait(self._running, timeout=POLL, return_when=FIRST_COMPLETED)
                for future in done:
                    self._settle(future, self._running.pop(future))
                self._progress.tick()
        except BaseException:
            self._abandon(executor)
            raise
        if self._choice.owned:
            executor.shutdown()
        if self._waiting:
            self._progress.stopping(f"{self._stop.reason}; {len(self._waiting)} tasks are left")

    def _submit(self, executor: Executor) -> None:
        while self._waiting and len(self._running) < self._choice.workers and not self._stop.check():
            task = self._waiting.popleft()
            self._progress.started(task)
            self._running[executor.submit(run_task, task)] = task

    def _settle(self, future: Future[TaskReport], task: Task) -> None:
        """Raises KeyboardInterrupt for a task that was interrupted where it ran: it has no rows."""
        if future.cancelled():
            self._progress.recalled(task)
            self._waiting.appendleft(task)
            return
        try:
            self._progress.finished(task, future.result())
            self._failed_starts = 0
        except WorkerStartError as error:
            self._after_failed_start(task, error)
        except Exception as error:
            if isinstance(error, BrokenExecutor):
                self._after_death(task, error)
            elif isinstance(error, TaskTimeoutError):
                self._progress.lost(task, str(error), again=False)
                self._give_up(task, error)
            else:
                raise

    def _after_failed_start(self, task: Task, error: WorkerStartError) -> None:
        """Not the task's fault: try again, but end the sweep where workers never start."""
        self._failed_starts += 1
        again = self._failed_starts <= RETRIES and not isinstance(error, MissingGuardError)
        self._progress.lost(task, str(error), again=True)
        self._waiting.appendleft(task)
        if not again:
            raise error

    def _after_death(self, task: Task, error: BrokenExecutor) -> None:
        """Try the task again, a bounded number of times, then record it as failed."""
        self._deaths[id(task)] += 1
        again = self._deaths[id(task)] <= RETRIES
        self._progress.lost(task, str(error), again)
        if again:
            self._waiting.appendleft(task)
        else:
            self._give_up(task, WorkerDiedError(f"{error}, {RETRIES + 1} times"))

    def _give_up(self, task: Task, error: Exception) -> None:
        rows = failed_rows(task, error)
        append_rows(Path(task.work.out), task.work.run_id, rows)
        self._progress.finished(task, task_report(rows, 0.0))

    def _abandon(self, executor: Executor) -> None:
        for future in self._running:
            future.cancel()
        if isinstance(executor, ProcessExecutor | DaskExecutor):
            executor.kill()


class _Stop:
    """Why no further tasks are started. A first signal asks for it, a second one raises KeyboardInterrupt."""

    def __init__(self, max_hours: float | None) -> None:
        self.reason = ""
        self.interrupted = False
        self._deadline = None if max_hours is None else time.monotonic() + 3600 * max_hours
        self._hours = max_hours

    def check(self) -> bool:
        if not self.reason and self._deadline is not None and time.monotonic() > self._deadline:
            self.reason = f"max_hours = {self._hours:g} reached"
        return bool(self.reason)

    def __call__(self, number: int, _: FrameType | None) -> None:
        if self.interrupted or number not in (signal.SIGINT, signal.SIGTERM):  # SIGHUP: nobody is there to wait
            self.interrupted = True
            raise KeyboardInterrupt
        self.interrupted = True
        self.reason = f"{signal.Signals(number).name} received, running tasks are finished (again: end them at once)"


@contextlib.contextmanager
def _handling(stop: _Stop) -> Iterator[None]:
    """The ending signals go to `stop`; outside the main thread, where Python allows no handlers, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
