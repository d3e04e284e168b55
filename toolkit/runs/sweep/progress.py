"""How far a sweep is: counts, verdicts, time to go; on the terminal, in OUT/progress.json and OUT/sweep.log."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from rich.console import Group
from rich.table import Table
from rich.text import Text

from toolkit.runs.progress import Display, bar, clock
from toolkit.runs.run import Watcher
from toolkit.runs.shards import append_rows
from toolkit.runs.sweep.compute import failed_rows, task_report
from toolkit.runs.sweep.tasks import Task, TaskReport

LOG, SNAPSHOT = "sweep.log", "progress.json"
SNAPSHOT_EVERY = 2.0  # seconds
Kind = tuple[str, float]  # of a task: network and ε, which tell most about its time


@dataclass(frozen=True)
class Snapshot:
    """A sweep's state. tasks of this run; rows_present were there before it. eta: seconds to go, None if not known."""

    name: str
    tasks: int
    done: int = 0
    failed: int = 0
    running: int = 0
    retried: int = 0
    rows: int = 0
    rows_present: int = 0
    seconds: float = 0.0
    eta: float | None = None
    verdicts: dict[str, int] = field(default_factory=dict)
    slowest: str = ""
    stopping: str = ""
    ended: bool = False


class TaskTimes:
    """How long tasks took by kind, and how long those that are left will. Read from the display's thread as well."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._left = Counter(kinds)
        self._spent: defaultdict[Kind, float] = defaultdict(float)
        self._finished: Counter[Kind] = Counter()

    def settle(self, kind: Kind, seconds: float) -> None:
        """A task is finished."""
        self._left[kind] -= 1
        self._finished[kind] += 1
        self._spent[kind] += seconds

    @property
    def done(self) -> int:
        """How many are."""
        return sum(list(self._finished.values()))

    def to_go(self, workers: int) -> float | None:
        """Measured mean time per task of the same kind, or of all, over the tasks to go and the workers."""
        if not self.done:
            return None
        mean = sum(list(self._spent.values())) / self.done
        to_go = sum(
            left * (self._spent[kind] / self._finished[kind] if self._finished[kind] else mean)
            for kind, left in list(self._left.items())
        )
        return to_go / max(1, min(workers, sum(list(self._left.values()))))


class SweepProgress(Watcher[Task, TaskReport]):
    """Keeps a run's counts and shows them; used as a context manager around the run. workers: for the ETA.

    A task that is given up gets failed rows, which say why.
    """

    def __init__(self, name: str, out: Path, tasks: list[Task], rows_present: int, workers: int, show: bool) -> None:
        self._name, self._out, self.workers, self._present = name, out, workers, rows_present
        self._times, self._total = TaskTimes(map(_group, tasks)), len(tasks)
        self._verdicts: Counter[str] = Counter()
        self._running: dict[int, tuple[Task, float]] = {}
        self._failed = self._retried = self._rows = 0
        self._stopping, self._ended = "", False
        self._began = time.monotonic()
        self._saved = -1e9
        self._display = Display(self, show)

    def __enter__(self) -> Self:
        write_log(self._out, f"begin: {self._total} tasks, {self._present} rows present, {self.workers} workers")
        self._display.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._save(force=True)
        self._display.end()

    def started(self, task: Task) -> None:
        """A task was handed to a worker."""
        self._running[id(task)] = task, time.monotonic()
        self.tick()

    def finished(self, task: Task, report: TaskReport) -> None:
        """A task's rows are on disk."""
        self._running.pop(id(task), None)
        self._times.settle(_group(task), report.seconds)
        self._verdicts[str(report.verdict)] += 1
        self._rows += report.rows
        self._failed += bool(report.failed)
        text = f"done: {task.title}, {report.rows} rows, {report.seconds:.2f} s, {report.verdict}"
        write_log(self._out, text + (f", {report.failed} failed: {report.message}" if report.failed else ""))
        self.tick()

    def recalled(self, task: Task) -> None:
        """A task was taken back before it began."""
        self._running.pop(id(task), None)

    def lost(self, task: Task, reason: str, again: bool) -> None:
        """A task's worker died."""
        self._running.pop(id(task), None)
        self._retried += again
        self.note(f"{task.title}: {reason}; {'will be tried again' if again else 'given up'}")

    def given_up(self, task: Task, error: Exception) -> TaskReport:
        """Record a task as failed. Raises StoreError."""
        rows = failed_rows(task, error)
        append_rows(Path(task.work.out), task.work.run_id, rows)
        return task_report(rows, 0.0)

    def stopping(self, reason: str) -> None:
        """No more tasks are started."""
        self._stopping = reason
        self.note(f"stopping: {reason}")

    def note(self, text: str) -> None:
        """Something worth a line in the log and on the screen."""
        write_log(self._out, text)
        self._display.note(text)

    def tick(self) -> None:
        """Refresh what needs refreshing; called often."""
        self._save()
        self._display.tick()

    def line(self) -> str:
        """The state now in one line."""
        return describe(self.snapshot())

    def render(self) -> Group:
        """The state now for rich."""
        return render(self.snapshot())

    def snapshot(self) -> Snapshot:
        """The state now."""
        running = list(self._running.values())
        oldest = min(running, key=lambda entry: entry[1], default=None)
        slowest = "" if oldest is None else f"{oldest[0].title}, {clock(time.monotonic() - oldest[1])}"
        return Snapshot(
            name=self._name,
            tasks=self._total,
            done=self._times.done,
            failed=self._failed,
            running=len(running),
            retried=self._retried,
            rows=self._rows,
            rows_present=self._present,
            seconds=time.monotonic() - self._began,
            eta=self._times.to_go(self.workers),
            verdicts=dict(self._verdicts),
            slowest=slowest,
            stopping=self._stopping,
            ended=self._ended,
        )

    def _save(self, force: bool = False) -> None:
        if force or time.monotonic() - self._saved > SNAPSHOT_EVERY:
            self._saved = time.monotonic()
            write_snapshot(self._out, self.snapshot())


def write_log(out: Path, text: str) -> None:
    """A line in OUT/sweep.log; a full disk is reported where rows are written, not here."""
    with contextlib.suppress(OSError), (out / LOG).open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")


def write_snapshot(out: Path, snapshot: Snapshot) -> None:
    """Replace OUT/progress.json; never fails, since it carries nothing that rows do not."""
    draft = out / f".{SNAPSHOT}"
    with contextlib.suppress(OSError):
        draft.write_text(json.dumps(asdict(snapshot)), encoding="utf-8")
        draft.replace(out / SNAPSHOT)


def read_snapshot(out: Path) -> Snapshot | None:
    """What the latest run last said about itself; None if there is nothing to read."""
    try:
        found = Snapshot(**json.loads((out / SNAPSHOT).read_text(encoding="utf-8")))
        describe(found)  # raises for values of other types
        return found
    except (OSError, ValueError, TypeError):
        return None


def describe(snapshot: Snapshot) -> str:
    """A snapshot in one line."""
    parts = [f"{snapshot.name}: {snapshot.done}/{snapshot.tasks} tasks", f"{snapshot.running} running"]
    if snapshot.failed:
        parts.append(f"{snapshot.failed} with failed rows")
    if snapshot.verdicts:
        parts.append(" ".join(f"{name} {count}" for name, count in sorted(snapshot.verdicts.items())))
    if snapshot.eta is not None and snapshot.done < snapshot.tasks:
        parts.append(f"about {clock(snapshot.eta)} to go")
    if snapshot.slowest:
        parts.append(f"longest running: {snapshot.slowest}")
    if snapshot.stopping:
        parts.append(f"stopping: {snapshot.stopping}")
    return ", ".join(parts)


def render(snapshot: Snapshot) -> Group:
    """A snapshot as a bar and a line, for rich."""
    grid = Table.grid(padding=(0, 1))
    share = f"{100 * snapshot.done // max(1, snapshot.tasks)} %"
    grid.add_row(bar(snapshot.done, snapshot.tasks), share, clock(snapshot.seconds))
    return Group(grid, Text(describe(snapshot)))


def _group(task: Task) -> Kind:
    return task.network.name, task.eps
