"""The driver of every run: tasks through one function, on any executor, answers as they are finished.

    Driver(function, tasks, choose_execution(workers, len(tasks)), watcher).run()

A worker that dies costs the task it was on another try, a bounded number of times. `Stop` ends a run in order: after a
signal or a deadline no further task is started. What a task is and where its answer goes is the caller's: sweeps
(sweep/run.py), verdicts of many samples (batch.py), paper tables (tables/) and the evaluation of trained networks are
views of it.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass
from types import FrameType
from typing import Generic, TypeVar

from toolkit.runs.dask_executor import DaskExecutor
from toolkit.runs.executors import (
    LentExecutor,
    ProcessExecutor,
    SerialExecutor,
    TaskExecutor,
    TaskTimeoutError,
    check_workers,
    usable_cpus,
)
from toolkit.runs.interrupts import ending_signals
from toolkit.runs.workers import MissingGuardError, WorkerDiedError, WorkerStartError

TaskT = TypeVar("TaskT")
AnswerT = TypeVar("AnswerT")
RETRIES = 2  # how often a task whose worker died is tried again
POLL = 0.5  # seconds between looks at the clock while tasks run


@dataclass(frozen=True)
class Execution:
    """How tasks are run: open() gives the executor, workers is how many were asked for."""

    name: str
    workers: int
    open: Callable[[], TaskExecutor]


def choose_execution(
    workers: int | None,
    tasks: int,
    task_limit: float | None = None,
    executor: Executor | None = None,
    dask: str | None = None,
) -> Execution:
    """One worker runs in this process, several in processes; a Dask scheduler or a given executor in their place.

    workers: None = one per usable core. tasks: how many there are; a worker without a task costs a thread all the same.
    task_limit: seconds after which a task's process is killed. Raises as check_workers does.
    """
    count = min(usable_cpus() if workers is None else check_workers(workers), max(2, tasks))
    if executor is not None:
        return Execution(type(executor).__name__, count, lambda: LentExecutor(executor, count))
    if dask is not None:
        return Execution("dask", count, lambda: DaskExecutor(dask, count))
    if count == 1 and task_limit is None:
        return Execution("serial", 1, SerialExecutor)
    return Execution("processes", count, lambda: ProcessExecutor(count, task_limit))


class Stop:
    """Why no further tasks are started. A first signal asks for it, a second one raises KeyboardInterrupt."""

    def __init__(self, max_hours: float | None = None) -> None:
        self.reason = ""
        self.interrupted = False
        self._deadline = None if max_hours is None else time.monotonic() + 3600 * max_hours
        self._hours = max_hours

    def check(self) -> bool:
        """Whether to stop now."""
        if not self.reason and self._deadline is not None and time.monotonic() > self._deadline:
            self.reason = f"max_hours = {self._hours:g} reached"
        return bool(self.reason)

    def __call__(self, number: int, _: FrameType | None) -> None:
        """A signal handler."""
        if self.interrupted or number not in (signal.SIGINT, signal.SIGTERM):  # SIGHUP: nobody is there to wait
            self.interrupted = True
            raise KeyboardInterrupt
        self.interrupted = True
        self.reason = f"{signal.Signals(number).name} received, running tasks are finished (again: end them at once)"

    @contextlib.contextmanager
    def handling(self) -> Iterator[None]:
        """The ending signals come here; outside the main thread, where Python allows no handlers, nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self) for number in ending_signals()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Watcher(Generic[TaskT, AnswerT]):
    """What a driver tells of its tasks; the base tells nobody, and gives no task up."""

    def started(self, task: TaskT) -> None:
        """A task was handed to a worker."""

    def finished(self, task: TaskT, answer: AnswerT) -> None:
        """A task has its answer."""

    def recalled(self, task: TaskT) -> None:
        """A task was taken back before it began."""

    def lost(self, task: TaskT, reason: str, again: bool) -> None:
        """A task's worker died, or was killed for its time."""

    def given_up(self, task: TaskT, error: Exception) -> AnswerT:
        """The answer to a task that is not tried again. Raises the error where there is none."""
        raise error

    def tick(self) -> None:
        """Called often."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def stopping(self, reason: str) -> None:
        """No more tasks are started."""


class _Handed(Watcher[TaskT, AnswerT]):
    """Hands answers on."""

    def __init__(self, keep: Callable[[AnswerT], None], give_up: Callable[[TaskT, Exception], AnswerT] | None) -> None:
        self._keep, self._give_up = keep, give_up

    def finished(self, task: TaskT, answer: AnswerT) -> None:
        self._keep(answer)

    def given_up(self, task: TaskT, error: Exception) -> AnswerT:
        return super().given_up(task, error) if self._give_up is None else self._give_up(task, error)


def gather(
    function: Callable[[TaskT], AnswerT],
    tasks: Sequence[TaskT],
    workers: int,
    keep: Callable[[AnswerT], None],
    give_up: Callable[[TaskT, Exception], AnswerT] | None = None,
) -> None:
    """Hand the answer to every task to `keep`, as they are finished.

    give_up: the answer to a task whose worker died again and again; None: the error is raised. function: at module
    level if workers > 1. Raises what a task raises, and as `Driver.run` does.
    """
    execution = choose_execution(workers if len(tasks) > 1 else 1, len(tasks))
    Driver(function, tasks, execution, _Handed(keep, give_up)).run()


class Driver(Generic[TaskT, AnswerT]):
    """Keeps an executor busy and settles what comes back."""

    def __init__(
        self,
        function: Callable[[TaskT], AnswerT],
        tasks: Sequence[TaskT],
        execution: Execution,
        watcher: Watcher[TaskT, AnswerT],
        stop: Stop | None = None,
    ) -> None:
        """function: at module level where tasks run in other processes, which it and the tasks are pickled for."""
        self._function, self._waiting = function, deque(tasks)
        self._execution, self._watcher, self._stop = execution, watcher, stop or Stop()
        self._running: dict[Future[AnswerT], TaskT] = {}
        self._deaths: Counter[int] = Counter()
        self._failed_starts = 0  # in a row

    def run(self) -> None:
        """Until every task is settled, or told to stop. When it is left by an error or a KeyboardInterrupt, also one
        raised where a task ran, tasks not begun are dropped and those in other processes ended.

        Raises WorkerStartError where workers cannot start, MissingGuardError in a script without an
        `if __name__ == "__main__":` guard, and whatever a task raises.
        """
        executor = self._execution.open()
        if executor.notice:
            self._watcher.note(executor.notice)
        try:
            while self._running or (self._waiting and not self._stop.check()):
                self._submit(executor)
                if self._stop.check():
                    executor.recall()
                done, _ = wait(self._running, timeout=POLL, return_when=FIRST_COMPLETED)
                for future in done:
                    self._settle(future, self._running.pop(future))
                self._watcher.tick()
        except BaseException:
            self._abandon(executor)
            raise
        executor.shutdown()
        if self._waiting:
            self._watcher.stopping(f"{self._stop.reason}; {len(self._waiting)} tasks are left")

    def _submit(self, executor: TaskExecutor) -> None:
        width = executor.width if self._waiting else 0
        while self._waiting and len(self._running) < width and not self._stop.check():
            task = self._waiting.popleft()
            self._watcher.started(task)
            self._running[executor.submit(self._function, task)] = task

    def _settle(self, future: Future[AnswerT], task: TaskT) -> None:
        if future.cancelled():
            self._watcher.recalled(task)
            self._waiting.appendleft(task)
            return
        try:
            self._watcher.finished(task, future.result())
            self._failed_starts = 0
        except WorkerStartError as error:
            self._after_failed_start(task, error)
        except BrokenExecutor as error:
            self._after_death(task, error)
        except TaskTimeoutError as error:
            self._watcher.lost(task, str(error), again=False)
            self._watcher.finished(task, self._watcher.given_up(task, error))

    def _after_failed_start(self, task: TaskT, error: WorkerStartError) -> None:
        """Not the task's fault: try again, but end the run where workers never start."""
        self._failed_starts += 1
        again = self._failed_starts <= RETRIES and not isinstance(error, MissingGuardError)
        self._watcher.lost(task, str(error), again=True)
        self._waiting.appendleft(task)
        if not again:
            raise error

    def _after_death(self, task: TaskT, error: BrokenExecutor) -> None:
        """Try the task again, a bounded number of times, then give it up."""
        self._deaths[id(task)] += 1
        again = self._deaths[id(task)] <= RETRIES
        self._watcher.lost(task, str(error), again)
        if again:
            self._waiting.appendleft(task)
        else:
            died = WorkerDiedError(f"{error}, {RETRIES + 1} times")
            self._watcher.finished(task, self._watcher.given_up(task, died))

    def _abandon(self, executor: TaskExecutor) -> None:
        for future in self._running:
            future.cancel()
        executor.kill()
