"""Where tasks run: answers come back, deaths are noticed, nobody is left behind."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from threadpoolctl import threadpool_info

from toolkit.runs.executors import LentExecutor, ProcessExecutor, SerialExecutor, TaskExecutor, TaskTimeoutError
from toolkit.runs.workers import PRELOADED, WorkerDiedError


@pytest.fixture(scope="module")
def two() -> Iterator[ProcessExecutor]:
    """Two worker processes."""
    with ProcessExecutor(2) as executor:
        yield executor


def fail(text: str) -> None:
    raise ValueError(text)


def unpicklable() -> object:
    return threading.Lock()


def die(code: int) -> None:
    os._exit(code)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def signals() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_serial_answers_and_errors() -> None:
    executor = SerialExecutor()
    assert executor.submit(pow, 2, 5).result() == 32
    with pytest.raises(ValueError, match="reason"):
        executor.submit(fail, "reason").result()


def test_answers_and_errors_come_back(two: ProcessExecutor) -> None:
    futures = [two.submit(pow, 2, k) for k in range(20)]
    assert [future.result(timeout=60) for future in futures] == [2**k for k in range(20)]
    with pytest.raises(ValueError, match="reason"):
        two.submit(fail, "reason").result(timeout=60)
    with pytest.raises(RuntimeError, match=r"the task.s answer cannot be sent back: .*pickle"):
        two.submit(unpicklable).result(timeout=60)
    with pytest.raises((TypeError, AttributeError), match="pickle"):
        two.submit(lambda: 1).result(timeout=60)
    assert two.submit(os.getpid).result(timeout=60) in two.pids()


def test_workers_have_one_blas_thread_and_leave_signals_to_the_driver(two: ProcessExecutor) -> None:
    assert set(two.submit(blas_threads).result(timeout=60)) == {1}
    assert two.submit(signals).result(timeout=60) == [signal.SIG_IGN, signal.SIG_IGN]


def loaded(names: list[str]) -> list[str]:
    return [name for name in names if name in sys.modules]


def test_what_is_preloaded_exists_and_is_there_before_the_first_task(two: ProcessExecutor) -> None:
    """A forkserver says nothing of a module that it cannot preload."""
    assert all(importlib.util.find_spec(name) for name in PRELOADED)
    if sys.platform == "linux":
        assert two.submit(loaded, PRELOADED).result(timeout=60) == PRELOADED


def test_every_executor_answers_what_a_driver_asks(two: ProcessExecutor) -> None:
    serial = SerialExecutor()
    assert (serial.width, two.width) == (1, 2)
    for executor in (serial, two, LentExecutor(two, 7)):
        assert isinstance(executor, TaskExecutor)
        executor.recall()
        assert executor.submit(pow, 2, 5).result(timeout=60) == 32
    serial.kill()


def test_an_idle_workers_death_costs_no_task(two: ProcessExecutor) -> None:
    assert two.submit(pow, 2, 5).result(timeout=60) == 32
    for pid in two.pids():
        os.kill(pid, signal.SIGKILL)
    while two.pids():
        time.sleep(0.01)
    assert [two.submit(pow, 2, k).result(timeout=60) for k in range(4)] == [1, 2, 4, 8]


def test_a_death_costs_one_task(two: ProcessExecutor) -> None:
    slow = two.submit(time.sleep, 1.0)
    with pytest.raises(WorkerDiedError, match="ended with exit code 3"):
        two.submit(die, 3).result(timeout=60)
    with pytest.raises(WorkerDiedError, match=r"killed by SIGKILL \(out of memory\?\)"):
        two.submit(kill_self).result(timeout=60)
    assert slow.result(timeout=60) is None
    assert two.submit(pow, 2, 5).result(timeout=60) == 32


def test_a_worker_that_cannot_start_is_noticed() -> None:
    died = pytest.raises(WorkerDiedError, match=r"SIGKILL .* before its first task")
    with ProcessExecutor(1, initializer=kill_self) as executor, died:
        executor.submit(pow, 2, 5).result(timeout=60)


def test_task_limit_kills_and_the_next_task_runs() -> None:
    with ProcessExecutor(1, task_limit=0.5) as executor:
        assert executor.submit(pow, 2, 5).result(timeout=60) == 32
        with pytest.raises(TaskTimeoutError, match=r"task_time_limit of 0\.5 s reached"):
            executor.submit(time.sleep, 1000).result(timeout=60)
        assert executor.submit(pow, 2, 5).result(timeout=60) == 32


def test_kill_ends_running_and_waiting_tasks() -> None:
    executor = ProcessExecutor(1)
    executor.submit(pow, 2, 5).result(timeout=60)
    running, waiting = executor.submit(time.sleep, 1000), executor.submit(time.sleep, 1000)
    while not running.running():
        time.sleep(0.01)
    executor.kill()
    with pytest.raises(WorkerDiedError):
        running.result(timeout=60)
    with pytest.raises(CancelledError):
        waiting.result(timeout=60)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(pow, 2, 5)


def test_no_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="workers must be ≥ 1, got 0"):
        ProcessExecutor(0)


DRIVER = """
import time
from toolkit.runs.executors import ProcessExecutor
if __name__ == "__main__":
    executor = ProcessExecutor(2)
    for k in range(2):
        executor.submit(time.sleep, {seconds})
    while len(executor.pids()) < 2:
        time.sleep(0.01)
    time.sleep({wait})
    print(*executor.pids(), flush=True)
    time.sleep({stay})
"""


def alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie that nobody has collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs Linux's /proc")
@pytest.mark.parametrize("how", ["killed", pytest.param("no shutdown", marks=pytest.mark.slow)])
def test_workers_end_with_their_driver(tmp_path: Path, how: str) -> None:
    """Killed in the middle of tasks, or at the end of a program that never called shutdown."""
    program = tmp_path / "driver.py"
    program.write_text(DRIVER.format(seconds=1000, wait=0.0, stay=1000 if how == "killed" else 0))
    driver = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    pids = [int(word) for word in driver.stdout.readline().split()]
    assert len(pids) == 2
    if how == "killed":
        driver.kill()
    driver.wait(timeout=30)
    until = time.monotonic() + 30
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < until, f"workers {pids} outlive their driver"
        time.sleep(0.02)
