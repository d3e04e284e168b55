"""Tasks on a Dask cluster: the same interface as the local executors, for a scheduler that runs anywhere.

Workers write their rows themselves, so the results folder, and network files outside the package, must be on a file
system that all of them see under the same path. Needs the extra `cluster`.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from toolkit.data.extras import not_installed
from toolkit.runs.executors import ONE_THREAD, TaskExecutor, one_thread_environment, usable_cpus
from toolkit.runs.interrupts import block_signals
from toolkit.runs.workers import GUARD_HINT, WorkerDiedError, WorkerStartError, limit_blas_threads

if TYPE_CHECKING:
    import distributed

_P = ParamSpec("_P")
_T = TypeVar("_T")
LOCAL = "local"
CONNECT_SECONDS = 15
LEAST_IN_FLIGHT = 16  # tasks given to the cluster at a time at least, so that an adaptive one has a reason to grow


class DaskExecutor(TaskExecutor):
    """A Dask cluster as an executor; a task whose workers keep dying raises WorkerDiedError.

    address: of a scheduler, or "local" for a cluster of `workers` processes on this machine with its dashboard.
    Raises ImportError without the extra `cluster`, OSError if no scheduler answers, WorkerStartError if workers do not
    start.
    """

    def __init__(self, address: str, workers: int | None = None) -> None:
        try:
            import distributed
        except ImportError as error:
            raise not_installed("distributed", "a Dask cluster") from error
        self._distributed = distributed
        try:
            self._cluster = _local_cluster(workers or usable_cpus()) if address == LOCAL else None
        except RuntimeError as error:
            raise WorkerStartError(f"the local Dask cluster cannot start ({error}); {GUARD_HINT}") from error
        self._client = distributed.Client(self._cluster or address, set_as_default=False, timeout=CONNECT_SECONDS)
        self._pairs: dict[Future[Any], distributed.Future] = {}
        self._lock = threading.Lock()

    @property
    def dashboard(self) -> str:
        """Address of the cluster's dashboard, "" if it has none."""
        return str(self._client.dashboard_link or "")

    @property
    def notice(self) -> str:
        """Where its dashboard is."""
        return f"Dask dashboard: {self.dashboard or 'none'}"

    @property
    def width(self) -> int:
        """A few more tasks than the cluster runs now."""
        return max(LEAST_IN_FLIGHT, 2 * sum(int(count) for count in self._client.nthreads().values()))

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Queue a call on the cluster; fn and its arguments must pickle."""
        future: Future[_T] = Future()
        remote = self._client.submit(_run_alone, fn, *args, **kwargs, pure=False)
        with self._lock:
            self._pairs[future] = remote
        remote.add_done_callback(lambda done: self._settle(future, done))
        return future

    def _settle(self, future: Future[_T], remote: distributed.Future) -> None:
        with self._lock:
            self._pairs.pop(future, None)
        if not future.set_running_or_notify_cancel():
            return
        if remote.cancelled():
            future.set_exception(ConnectionError("the Dask cluster dropped a task; is its scheduler still running?"))
            return
        error = remote.exception()
        if error is None:
            future.set_result(remote.result())
        elif isinstance(error, self._distributed.KilledWorker):
            future.set_exception(WorkerDiedError(f"{error.allowed_failures + 1} Dask workers died on this task"))
        else:
            future.set_exception(error)

    def recall(self) -> None:
        """Cancel the tasks that no worker has yet been given."""
        given = {key for keys in self._client.processing().values() for key in keys}
        with self._lock:
            waiting = [(ours, remote) for ours, remote in self._pairs.items() if remote.key not in given]
        for ours, _ in waiting:
            ours.cancel()  # before the cluster says so: this is not a loss
        self._client.cancel([remote for _, remote in waiting])

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster; a local one ends."""
        if cancel_futures:
            with self._lock:
                remotes = list(self._pairs.values())
            self._client.cancel(remotes)
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()

    def kill(self) -> None:
        """Drop all tasks at once; workers of a distant cluster finish what they are on."""
        self.shutdown(wait=False, cancel_futures=True)


def _local_cluster(workers: int) -> distributed.LocalCluster:
    import dask
    import distributed

    # Dask blames a worker's death on every task the worker was given: give it no more than it runs
    blame = {"distributed.scheduler.worker-saturation": 1.0, "distributed.scheduler.allowed-failures": 1}
    with one_thread_environment(), dask.config.set(blame):
        cluster = distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            preload=["toolkit.runs.dask_executor"],
            env=ONE_THREAD,
            silence_logs=logging.ERROR,
        )
    cluster.adapt(minimum=workers, maximum=workers)  # replaces a worker whose own supervisor has died
    return cluster


def dask_setup(worker: distributed.Worker) -> None:
    """Called by Dask in each new process of a local cluster: Ctrl-C is the driver's to answer."""
    block_signals()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run_alone(fn: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    limit_blas_threads()
    return fn(*args, **kwargs)
