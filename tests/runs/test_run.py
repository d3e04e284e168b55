"""The driver: every task is answered once, whatever the executor; deaths, stops and interrupts are told."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from toolkit.runs.executors import LentExecutor, ProcessExecutor, SerialExecutor, TaskExecutor
from toolkit.runs.run import RETRIES, Driver, Execution, Stop, Watcher, choose_execution, gather
from toolkit.runs.workers import WorkerDiedError, WorkerStartError


class Told(Watcher[int, int]):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.lost_tasks: list[tuple[int, bool]] = []
        self.stopped: list[str] = []

    def finished(self, task: int, answer: int) -> None:
        self.answers.append(answer)

    def lost(self, task: int, reason: str, again: bool) -> None:
        self.lost_tasks.append((task, again))

    def given_up(self, task: int, error: Exception) -> int:
        return -task

    def stopping(self, reason: str) -> None:
        self.stopped.append(reason)


def square(task: int) -> int:
    return task * task


def die_on_three(task: int) -> int:
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def sleep_or_mark(task: tuple[float, str]) -> int:
    time.sleep(task[0])
    Path(task[1]).write_text("done")
    return 0


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_answered_once(workers: int) -> None:
    found: list[int] = []
    gather(square, range(7), workers, found.append)
    assert sorted(found) == [0, 1, 4, 9, 16, 25, 36]
    gather(square, [], workers, found.append)
    assert len(found) == 7


def test_one_worker_runs_here_and_a_time_limit_needs_a_process() -> None:
    assert choose_execution(1, 5).name == "serial"
    assert choose_execution(1, 5, task_limit=1.0).name == "processes"
    assert choose_execution(8, 3).workers == 3


def test_a_lent_executor_stays_open_and_says_its_own_width() -> None:
    with ProcessExecutor(1) as lent:
        execution = choose_execution(3, 5, executor=lent)
        assert (execution.name, execution.workers, execution.open().width) == ("ProcessExecutor", 3, 1)
        told = Told()
        Driver(square, [1, 2, 3], execution, told).run()
        assert sorted(told.answers) == [1, 4, 9]
        assert lent.submit(square, 3).result(timeout=60) == 9


def test_an_executor_of_another_kind_is_given_so_many_tasks_at_a_time() -> None:
    running: list[int] = []
    seen: list[int] = []

    def watched(task: int) -> int:
        running.append(task)
        time.sleep(0.02)
        seen.append(len(running))
        running.remove(task)
        return task

    with ThreadPoolExecutor(4) as lent:
        told = Told()
        Driver(watched, list(range(8)), choose_execution(2, 8, executor=lent), told).run()
        assert sorted(told.answers) == list(range(8))
        assert max(seen) <= 2
        other = LentExecutor(lent, 2)
        other.recall()
        other.kill()
        other.shutdown()
        assert (other.width, other.notice) == (2, "")
        assert other.submit(square, 3).result(timeout=60) == 9


def test_a_task_that_kills_its_worker_is_tried_again_and_then_given_up() -> None:
    told = Told()
    Driver(die_on_three, [1, 2, 3, 4], choose_execution(2, 4), told).run()
    assert sorted(told.answers) == [-3, 1, 2, 4]
    assert told.lost_tasks == [(3, True)] * RETRIES + [(3, False)]
    with pytest.raises(WorkerDiedError, match=r"killed by SIGKILL.*3 times"):
        gather(die_on_three, [3, 3], 2, lambda answer: None)


class NeverStarts(TaskExecutor):
    """An executor whose workers end before their first task."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        future: Future[int] = Future()
        future.set_exception(WorkerStartError("ended with exit code 1 before its first task"))
        return future


def test_workers_that_never_start_end_the_run() -> None:
    told = Told()
    with pytest.raises(WorkerStartError):
        Driver(square, [1, 2], Execution("never", 1, NeverStarts), told).run()
    assert len(told.lost_tasks) == RETRIES + 1
    assert told.answers == []


class Recalls(SerialExecutor):
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.recalls = self.kills = 0

    def recall(self) -> None:
        self.recalls += 1

    def kill(self) -> None:
        self.kills += 1


def test_a_stop_recalls_and_an_error_kills() -> None:
    stop, asked = Stop(), Recalls()

    def stop_at_two(task: int) -> int:
        if task == 2:
            stop.reason = "enough"
        return 6 // task

    told = Told()
    Driver(stop_at_two, [1, 2, 3], Execution("asked", 1, lambda: asked), told, stop).run()
    assert (asked.recalls, asked.kills, told.answers) == (1, 0, [6, 3])
    with pytest.raises(ZeroDivisionError):
        Driver(stop_at_two, [0], Execution("asked", 1, lambda: asked), told).run()
    assert asked.kills == 1


def test_a_stop_starts_nothing_more_and_says_what_is_left() -> None:
    told, stop = Told(), Stop()

    def stop_at_two(task: int) -> int:
        if task == 2:
            stop.reason = "enough"
        return task

    Driver(stop_at_two, [1, 2, 3, 4], choose_execution(1, 4), told, stop).run()
    assert told.answers == [1, 2]
    assert told.stopped == ["enough; 2 tasks are left"]
    late = Stop(max_hours=1e-9)
    time.sleep(0.01)
    assert late.check()
    assert late.reason == "max_hours = 1e-09 reached"


def test_the_first_signal_stops_and_the_second_interrupts() -> None:
    stop = Stop()
    with stop.handling():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.check()
        assert stop.reason.startswith("SIGTERM received")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_an_error_ends_what_still_runs(tmp_path: Path) -> None:
    def failing(answer: int) -> None:
        raise ZeroDivisionError

    started = time.monotonic()
    tasks = [(0.0, str(tmp_path / "0")), *((300.0, str(tmp_path / f"{k}")) for k in range(1, 4))]
    with pytest.raises(ZeroDivisionError):
        gather(sleep_or_mark, tasks, 2, failing)
    assert time.monotonic() - started < 60
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def interrupt_odd(task: int) -> int:
    if task % 2:
        raise KeyboardInterrupt
    return task


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_where_a_task_ran_ends_all_tasks(workers: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        gather(interrupt_odd, range(4), workers, lambda answer: None)
    assert threading.active_count() < 50
