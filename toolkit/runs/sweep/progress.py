"""How far a sweep is: counts, verdicts, time to go; on the terminal, in OUT/progress.json and OUT/sweep.log."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from toolkit.runs.sweep.tasks import Task, TaskReport

LOG, SNAPSHOT = "sweep.log", "progress.json"
SNAPSHOT_EVERY = 2.0  # seconds
LINE_EVERY = 15.0


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


class SweepProgress:
    """Keeps a run's counts and shows them; used as a context manager around the run. workers: for the ETA."""

    def __init__(self, name: str, out: Path, tasks: list[Task], rows_present: int, workers: int, show: bool) -> None:
        self._name, self._out, self.workers, self._present = name, out, workers, rows_present
        self._left = Counter(_group(task) for task in tasks)
        self._total = len(tasks)
        self._spent: defaultdict[tuple[str, float], float] = defaultdict(float)
        self._finished: Counter[tuple[str, float]] = Counter()
        self._verdicts: Counter[str] = Counter()
        self._running: dict[int, tuple[Task, float]] = {}
        self._failed = self._retried = self._rows = 0
        self._stopping, self._ended = "", False
        self._began = time.monotonic()
        self._saved = -1e9
        self._display = _display(show)

    def __enter__(self) -> Self:
        self.log(f"begin: {self._total} tasks, {self._present} rows present, {self.workers} workers")
        self._display.begin(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._save(force=True)
        self._display.end(self)

    def started(self, task: Task) -> None:
        """A task was handed to a worker."""
        self._running[id(task)] = task, time.monotonic()
        self.tick()

    def finished(self, task: Task, report: TaskReport) -> None:
        """A task's rows are on disk."""
        self._running.pop(id(task), None)
        group = _group(task)
        self._left[group] -= 1
        self._finished[group] += 1
        self._spent[group] += report.seconds
        self._verdicts[str(report.verdict)] += 1
        self._rows += report.rows
        self._failed += bool(report.failed)
        text = f"done: {task.title}, {report.rows} rows, {report.seconds:.2f} s, {report.verdict}"
        self.log(text + (f", {report.failed} failed: {report.message}" if report.failed else ""))
        self.tick()

    def recalled(self, task: Task) -> None:
        """A task was taken back before it began."""
        self._running.pop(id(task), None)

    def lost(self, task: Task, reason: str, again: bool) -> None:
        """A task's worker died."""
        self._running.pop(id(task), None)
        self._retried += again
        self.note(f"{task.title}: {reason}; {'will be tried again' if again else 'given up'}")

    def stopping(self, reason: str) -> None:
        """No more tasks are started."""
        self._stopping = reason
        self.note(f"stopping: {reason}")

    def note(self, text: str) -> None:
        """Something worth a line in the log and on the screen."""
        self.log(text)
        self._display.line(text)

    def log(self, text: str) -> None:
        """A line in OUT/sweep.log; a full disk is reported where rows are written, not here."""
        with contextlib.suppress(OSError), (self._out / LOG).open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")

    def tick(self) -> None:
        """Refresh what needs refreshing; called often."""
        self._save()
        self._display.tick(self)

    def snapshot(self) -> Snapshot:
        """The state now."""
        running = list(self._running.values())
        oldest = min(running, key=lambda entry: entry[1], default=None)
        slowest = "" if oldest is None else f"{oldest[0].title}, {_clock(time.monotonic() - oldest[1])}"
        return Snapshot(
            name=self._name,
            tasks=self._total,
            done=sum(list(self._finished.values())),
            failed=self._failed,
            running=len(running),
            retried=self._retried,
            rows=self._rows,
            rows_present=self._present,
            seconds=time.monotonic() - self._began,
            eta=self._eta(),
            verdicts=dict(self._verdicts),
            slowest=slowest,
            stopping=self._stopping,
            ended=self._ended,
        )

    def _eta(self) -> float | None:
        """Measured mean time per task of the same network and ε, or of all, over the tasks to go and the workers."""
        count = sum(list(self._finished.values()))
        if not count:
            return None
        mean = sum(list(self._spent.values())) / count
        to_go = sum(
            left * (self._spent[group] / self._finished[group] if self._finished[group] else mean)
            for group, left in list(self._left.items())
        )
        return to_go / max(1, min(self.workers, sum(list(self._left.values()))))

    def _save(self, force: bool = False) -> None:
        if force or time.monotonic() - self._saved > SNAPSHOT_EVERY:
            self._saved = time.monotonic()
            write_snapshot(self._out, self.snapshot())


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
        parts.append(f"about {_clock(snapshot.eta)} to go")
    if snapshot.slowest:
        parts.append(f"longest running: {snapshot.slowest}")
    if snapshot.stopping:
        parts.append(f"stopping: {snapshot.stopping}")
    return ", ".join(parts)


def render(snapshot: Snapshot) -> Group:
    """A snapshot as a bar and a line, for rich."""
    grid = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=max(1, snapshot.tasks), completed=snapshot.done, width=40)
    grid.add_row(bar, f"{100 * snapshot.done // max(1, snapshot.tasks)} %", _clock(snapshot.seconds))
    return Group(grid, Text(describe(snapshot)))


def _group(task: Task) -> tuple[str, float]:
    return task.network.name, task.eps


def _clock(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


class _Silent:
    """Shows nothing; the base of what does."""

    def begin(self, progress: SweepProgress) -> None: ...

    def tick(self, progress: SweepProgress) -> None: ...

    def line(self, text: str) -> None: ...

    def end(self, progress: SweepProgress) -> None: ...


class _Lines(_Silent):
    """A line on stderr now and then, for logs and pipes."""

    def __init__(self) -> None:
        self._printed = time.monotonic()

    def tick(self, progress: SweepProgress) -> None:
        if time.monotonic() - self._printed > LINE_EVERY:
            self._printed = time.monotonic()
            self.line(describe(progress.snapshot()))

    def line(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a closed pipe or terminal must not end a sweep
            print(text, file=sys.stderr, flush=True)

    def end(self, progress: SweepProgress) -> None:
        self.line(describe(progress.snapshot()))


class _Screen(_Silent):
    """A live bar on the terminal; rich refreshes it from a thread of its own."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def begin(self, progress: SweepProgress) -> None:
        self._live = Live(
            console=self._console, get_renderable=lambda: render(progress.snapshot()), refresh_per_second=4
        )
        self._live.start()

    def line(self, text: str) -> None:
        with contextlib.suppress(OSError, SystemExit):  # SystemExit: rich's answer to a terminal that was closed
            self._console.print(Text(text))

    def end(self, progress: SweepProgress) -> None:
        if self._live is not None:
            with contextlib.suppress(OSError, SystemExit):
                self._live.stop()


def _display(show: bool) -> _Silent:
    console = Console(stderr=True)
    if not show:
        return _Silent()
    return _Screen(console) if console.is_terminal else _Lines()
