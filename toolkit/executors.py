"""Where tasks run: in this process, in local worker processes, or on a Dask cluster, behind concurrent.futures.

The standard ProcessPoolExecutor gives up all its workers when one dies. Here a worker that dies costs the task it was
on: its future raises WorkerDiedError and the next task gets a new process.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, ParamSpec, TypeVar

from threadpoolctl import threadpool_limits

P = ParamSpec("P")
T = TypeVar("T")
Item = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@functools.cache
def limit_blas_threads() -> Any:
    """One BLAS thread in this process, for good: work is parallel over processes."""
    return threadpool_limits(1)


class WorkerDiedError(BrokenExecutor):
    """The process that ran a task ended before the task did."""


class TaskTimeoutError(TimeoutError):
    """A task ran past the limit and its process was killed."""


class SerialExecutor(Executor):
    """Runs each task in this process, at submit."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """A future that is already done. KeyboardInterrupt is not put in it but raised."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class ProcessExecutor(Executor):
    """Local worker processes, each with its own queue thread here, one BLAS thread each.

    workers: how many. task_limit: seconds after which a task's process is killed and its future raises
    TaskTimeoutError. initializer: called once in every new process. Workers ignore SIGINT and SIGTERM, which are the
    driver's to answer, and end when the driver's process does.
    """

    def __init__(
        self, workers: int, task_limit: float | None = None, initializer: Callable[[], object] | None = None
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be ≥ 1, got {workers}")
        self.workers, self.task_limit, self._initializer = workers, task_limit, initializer
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._context = _start_context()
        self._starting = threading.Lock()
        self._processes: dict[int, BaseProcess] = {}
        self._closed = self._killed = False
        self._threads = [threading.Thread(target=self._serve, args=(k,), daemon=True) for k in range(workers)]
        for thread in self._threads:
            thread.start()
        atexit.register(self.kill)  # a program that ends without shutdown would wait for its workers for ever

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call for the next free worker; fn and its arguments must pickle. Positional arguments only."""
        if kwargs:
            raise ValueError(f"submit takes positional arguments only, got {', '.join(kwargs)}")
        if self._closed:
            raise RuntimeError("cannot submit after shutdown")
        future: Future[T] = Future()
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
            process = self._context.Process(target=_work, args=(theirs, self._initializer))  # type: ignore[attr-defined]
            process.start()
            theirs.close()
            self._processes[place] = process
        try:
            ours.recv()  # imports are over: what follows is the task's own time
        except (EOFError, ConnectionError):
            process.join()
            raise WorkerDiedError(f"worker process {_ending(process.exitcode)} before its first task") from None
        return process, ours

    def _call(self, process: BaseProcess, connection: Connection, fn: Callable[..., T], args: tuple[Any, ...]) -> T:
        try:
            connection.send((fn, args))
            if not wait([connection, process.sentinel], self.task_limit):
                process.kill()
                process.join()
                raise TaskTimeoutError(f"task_time_limit of {self.task_limit:g} s reached, its process was killed")
            done, value = connection.recv()
        except (EOFError, ConnectionError):
            process.join()
            raise WorkerDiedError(f"worker process {_ending(process.exitcode)}") from None
        if not done:
            raise value
        return value  # type: ignore[no-any-return]


def _ending(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"ended with exit code {exitcode}"


def _start_context() -> BaseContext:
    """forkserver where it is safe, with the slow imports done once; else spawn."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["toolkit.sweep.compute"])
    return context


def _work(connection: Connection, initializer: Callable[[], object] | None) -> None:
    """A worker's life: calls come in, results go out, until the driver closes the pipe or dies."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    limit_blas_threads()
    if initializer is not None:
        initializer()
    connection.send("ready")
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            fn, args = connection.recv()
            try:
                answer = (True, fn(*args))
            except Exception as error:
                answer = (False, error)
            try:
                connection.send(answer)
            except (TypeError, AttributeError, pickle.PicklingError) as error:
                connection.send((False, RuntimeError(f"the task's answer cannot be sent back: {error}")))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


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


def usable_cpus() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_calls(
    function: Callable[..., T], calls: Sequence[tuple[Any, ...]], workers: int
) -> Iterator[tuple[tuple[Any, ...], Future[T]]]:
    """Every call with its finished future, as they finish.

    When the iteration is left (Ctrl-C, an error), calls not begun are dropped and those in other processes ended, since
    nobody would see their results. function: at module level if workers > 1, so that it can run in another process.
    """
    if workers == 1:
        serial = SerialExecutor()
        for call in calls:
            yield call, serial.submit(function, *call)
        return
    executor = ProcessExecutor(workers)
    try:
        futures = {executor.submit(function, *call): call for call in calls}
        for future in as_completed(futures):
            yield futures.pop(future), future
    except BaseException:
        executor.kill()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
