"""Where tasks run: in this process or in local worker processes, behind concurrent.futures.

The standard ProcessPoolExecutor gives up all its workers when one dies, and so does pebble's pool when an idle one
dies. Here a worker that dies costs the task it was on: its future raises WorkerDiedError and the next task gets a new
process.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, ParamSpec, TypeVar

from toolkit.data.arguments import whole_number
from toolkit.runs.workers import (
    WORKER_NAME,
    WorkerDiedError,
    check_main_guard,
    ending,
    start_context,
    start_error,
    start_shielded,
    work,
)

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Item = tuple[Future[Any], Callable[..., Any], tuple[object, ...]]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class TaskTimeoutError(TimeoutError):
    """A task ran past the limit and its process was killed."""


class TaskExecutor(Executor):
    """What a driver may ask of each executor here beyond concurrent.futures: the defaults are those of one process."""

    @property
    def width(self) -> int:
        """How many tasks to hand over at a time."""
        return 1

    @property
    def notice(self) -> str:
        """What people are told of it when a run begins, "" for nothing."""
        return ""

    def recall(self) -> None:
        """Cancel the tasks handed over that have not begun, where their futures alone cannot."""

    def kill(self) -> None:
        """End at once what can be ended."""
        self.shutdown(wait=False, cancel_futures=True)


class SerialExecutor(TaskExecutor):
    """Runs each task in this process, at submit."""

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """A future that is already done. KeyboardInterrupt is not put in it but raised."""
        future: Future[_T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class LentExecutor(TaskExecutor):
    """An executor that stays its owner's: a run that ends leaves it open, a run that is broken off ends its tasks.

    width: how many tasks it is handed at a time, where it does not know that itself.
    """

    def __init__(self, executor: Executor, width: int) -> None:
        self._lent, self._width = executor, width

    @property
    def width(self) -> int:
        """Its own, or what was said of it."""
        return self._lent.width if isinstance(self._lent, TaskExecutor) else self._width

    @property
    def notice(self) -> str:
        """Its own."""
        return self._lent.notice if isinstance(self._lent, TaskExecutor) else ""

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Hand the call on."""
        return self._lent.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing: its owner may go on with it."""

    def recall(self) -> None:
        """As it does itself."""
        if isinstance(self._lent, TaskExecutor):
            self._lent.recall()

    def kill(self) -> None:
        """As it does itself; one of another kind has no way to."""
        if isinstance(self._lent, TaskExecutor):
            self._lent.kill()


class ProcessExecutor(TaskExecutor):
    """Local worker processes, each with its own queue thread here, one BLAS thread each.

    workers: how many. task_limit: seconds after which a task's process is killed and its future raises
    TaskTimeoutError. initializer: called once in every new process. SIGINT, SIGTERM and SIGHUP do not reach workers,
    nor the solvers in them: they are the driver's to answer. Workers end when the driver's process does.

    Raises MissingGuardError in a script without an `if __name__ == "__main__":` guard.
    """

    def __init__(
        self, workers: int, task_limit: float | None = None, initializer: Callable[[], object] | None = None
    ) -> None:
        workers = check_workers(workers)
        check_main_guard()
        self.workers, self.task_limit, self._initializer = workers, task_limit, initializer
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._context = start_context()
        self._starting = threading.Lock()
        self._processes: dict[int, BaseProcess] = {}
        self._closed = self._killed = False
        self._threads = [threading.Thread(target=self._serve, args=(k,), daemon=True) for k in range(workers)]
        for thread in self._threads:
            thread.start()
        atexit.register(self.kill)  # a program that ends without shutdown would wait for its workers for ever

    @property
    def width(self) -> int:
        """One task for each worker."""
        return self.workers

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Queue a call for the next free worker; fn and its arguments must pickle. Positional arguments only."""
        if kwargs:
            raise ValueError(f"submit takes positional arguments only, got {', '.join(kwargs)}")
        if self._closed:
            raise RuntimeError("cannot submit after shutdown")
        future: Future[_T] = Future()
        self._queue.put((future, fn, args))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let workers end after their tasks; cancel_futures drops tasks that have not started."""
        self._closed = True
        atexit.unregister(self.kill)
        if cancel_futures:
            with contextlib.suppress(queue.Empty):
                while (item := self._queue.get_nowait()) is not None:
                    item[0].cancel()
        for _ in self._threads:
            self._queue.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def kill(self) -> None:
        """End every worker at once; running tasks raise WorkerDiedError."""
        self.shutdown(wait=False, cancel_futures=True)
        with self._starting:
            self._killed = True
            for process in self._processes.values():
                process.kill()

    def pids(self) -> list[int]:
        """Process ids of the live workers."""
        return [process.pid for process in list(self._processes.values()) if process.is_alive() and process.pid]

    def _serve(self, place: int) -> None:
        """One worker's thread: hands it a task at a time and notices its death."""
        connection: Connection | None = None
        while (item := self._queue.get()) is not None:
            future, fn, args = item
            if not future.set_running_or_notify_cancel():
                continue
            process = self._processes.get(place)
            try:
                if connection is None or process is None or not process.is_alive():
                    process, connection = self._start(place)
                future.set_result(self._call(process, connection, fn, args))
            except BaseException as error:
                future.set_exception(error)
        if connection is not None:
            connection.close()
            self._processes[place].join()

    def _start(self, place: int) -> tuple[BaseProcess, Connection]:
        with self._starting:
            if self._killed:
                raise WorkerDiedError("workers were told to end at once")
            ours, theirs = self._context.Pipe()
            given = (theirs, self._initializer)
            process = self._context.Process(target=work, args=given, name=WORKER_NAME)  # type: ignore[attr-defined]
            start_shielded(process)
            theirs.close()
            self._processes[place] = process
        try:
            ours.recv()  # imports are over: what follows is the task's own time
        except (EOFError, ConnectionError):
            process.join()
            raise start_error(process.exitcode) from None
        return process, ours

    def _call(
        self, process: BaseProcess, connection: Connection, fn: Callable[..., _T], args: tuple[object, ...]
    ) -> _T:
        try:
            connection.send((fn, args))
            if not wait([connection, process.sentinel], self.task_limit):
                process.kill()
                process.join()
                raise TaskTimeoutError(f"task_time_limit of {self.task_limit:g} s reached, its process was killed")
            done, value = connection.recv()
        except (EOFError, ConnectionError):
            process.join()
            raise WorkerDiedError(f"worker process {ending(process.exitcode)}") from None
        if not done:
            raise value
        return value  # type: ignore[no-any-return]


@contextlib.contextmanager
def one_thread_environment() -> Iterator[None]:
    """While the block runs, processes started from here have one BLAS thread from their first import on."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def check_workers(workers: object) -> int:
    """The number of processes asked for. Raises ValueError for anything but a whole number ≥ 1, and MissingGuardError
    in a script whose work would begin anew in every worker, so that it begins in none."""
    count = whole_number("workers", workers, 1)
    if count > 1:
        check_main_guard()
    return count


def usable_cpus() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
