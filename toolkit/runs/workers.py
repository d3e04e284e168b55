"""A worker process from its own side: how it starts, whom it answers, when it ends; and the errors it dies with."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

from threadpoolctl import threadpool_limits

from toolkit.runs.interrupts import block_signals

WORKER_NAME = "relugap-worker"
PRELOADED = ["toolkit.runs.sweep.compute"]  # what every task needs and is slow to import
NO_GUARD = 97  # exit code of a worker that found itself running the caller's script anew
GUARD_HINT = (
    'worker processes import the script that starts them: put what it does below `if __name__ == "__main__":`, or ask '
    "for one worker and no task_time_limit"
)


@functools.cache
def limit_blas_threads() -> None:
    """One BLAS thread in this process, for good: work is parallel over processes."""
    threadpool_limits(1)


class WorkerDiedError(BrokenExecutor):
    """The process that ran a task ended before the task did."""


class WorkerStartError(WorkerDiedError):
    """A worker process ended before it was ready for a task: the task has nothing to do with it."""


class MissingGuardError(WorkerStartError, ValueError):
    """The script that asks for workers starts its work anew in each of them."""


def check_main_guard() -> None:
    """Refuse to begin in a process that is still importing the script that started it.

    A worker of ours ends here, with an exit code by which its driver tells the reason once; in anybody else's it raises
    MissingGuardError.
    """
    process = multiprocessing.current_process()
    if getattr(process, "_inheriting", False):
        if process.name == WORKER_NAME:
            os._exit(NO_GUARD)
        raise MissingGuardError(GUARD_HINT)


def start_error(exitcode: int | None) -> WorkerStartError:
    """Why a worker ended before its first task: a missing guard where the exit code says so, else how it ended."""
    if exitcode == NO_GUARD:
        return MissingGuardError(GUARD_HINT)
    hint = "" if exitcode is not None and exitcode < 0 else f" ({GUARD_HINT}, if that is why)"
    return WorkerStartError(f"worker process {ending(exitcode)} before its first task{hint}")


def start_shielded(process: BaseProcess) -> None:
    """Start it with the ending signals blocked from its first instruction on: a mask is inherited, a handler is not."""
    if sys.platform != "win32":
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # its own start would lift the mask again
    block_signals()  # for good: this thread, of the executor's own, has no use for them
    process.start()


def ending(exitcode: int | None) -> str:
    """How a process ended, in words: by which signal, or with which exit code."""
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"ended with exit code {exitcode}"


def start_context() -> BaseContext:
    """forkserver where it is safe, with the slow imports done once; else spawn."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def work(connection: Connection, initializer: Callable[[], object] | None) -> None:
    """A worker's life: calls come in, results go out, until the driver closes the pipe or dies."""
    leave_signals_to_driver()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    limit_blas_threads()
    if initializer is not None:
        initializer()
    with contextlib.suppress(EOFError, ConnectionError):
        connection.send("ready")
        while True:
            fn, args = connection.recv()
            try:
                answer: tuple[bool, object] = (True, fn(*args))
            except (Exception, KeyboardInterrupt) as error:  # an interrupt is the driver's to answer as well
                answer = (False, error)
            try:
                connection.send(answer)
            except (TypeError, AttributeError, pickle.PicklingError) as error:
                connection.send((False, RuntimeError(f"the task's answer cannot be sent back: {error}")))


def leave_signals_to_driver() -> None:
    """Ignore the ending signals in this process and block them from solvers that would answer them themselves."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    block_signals()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
