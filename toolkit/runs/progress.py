"""How far a run is: bars on a terminal and in a notebook, a line on stderr now and then elsewhere, nothing if so asked.

    with RunProgress() as progress:
        progress.advance("certifying", done, total)

What is shown can be replaced: a sweep shows its Snapshot (sweep/progress.py) on the same display.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from dataclasses import dataclass, field
from typing import Protocol, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from toolkit.data.names import printable
from toolkit.runs.notebook_page import NotebookPage, in_notebook

PAGE_EVERY = 0.5  # seconds between two states of a notebook's output
LINE_EVERY = 15.0  # seconds between lines where there is no terminal
BAR_WIDTH = 40


class Shown(Protocol):
    """What a display shows, now: in one line, and for a terminal."""

    def line(self) -> str:
        """One line, "" for nothing worth one yet."""

    def render(self) -> RenderableType:
        """The same for rich."""


class Display:
    """Shows what it is given: on a terminal live, refreshed by a thread of rich's own, in notebooks by `tick`,
    elsewhere as lines.

    A closed pipe or terminal does not end a run. Nothing is shown where the logger "relugap" lets no warnings pass.
    """

    def __init__(self, shown: Shown, show: bool = True) -> None:
        quiet = not logging.getLogger("relugap").isEnabledFor(logging.WARNING)
        self._shown, self._show, self._console = shown, show and not quiet, Console(stderr=True)
        self._live: Live | None = None
        self._page: NotebookPage | None = None
        self._printed, self._last = time.monotonic(), ""

    def begin(self) -> None:
        """Start showing."""
        if self._show and in_notebook():
            self._page = NotebookPage()
        elif self._show and self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self._shown.render, refresh_per_second=4)
            self._live.start()

    def tick(self, now: bool = False) -> None:
        """Called often; now: something ended that is worth a line."""
        if self._page is not None:
            if now or time.monotonic() - self._printed > PAGE_EVERY:
                self._printed = time.monotonic()
                self._page.show(self._shown.render())
        elif self._show and self._live is None and (now or time.monotonic() - self._printed > LINE_EVERY):
            self._printed, line = time.monotonic(), self._shown.line()
            if line and line != self._last:
                self._last = line
                self.note(line)

    def note(self, text: str) -> None:
        """A line that stays."""
        with contextlib.suppress(OSError, SystemExit):  # SystemExit: rich's answer to a terminal that was closed
            if self._live is not None:
                self._console.print(Text(text))
            elif self._show:
                print(text, file=sys.stderr, flush=True)

    def end(self, finished: bool = True) -> None:
        """Stop showing; the last state stays, as a line only where the run came to its end."""
        if finished:
            self.tick(now=True)
        with contextlib.suppress(OSError, SystemExit):
            if self._live is not None:
                self._live.stop()


@dataclass
class _Step:
    """One bar."""

    title: str
    done: int
    total: int
    note: str = ""
    began: float = field(default_factory=time.monotonic)
    first: int = 0
    ended: float | None = None

    @property
    def seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.began

    def text(self) -> str:
        """Counts, note, time spent and to go."""
        parts = [f"{self.done}/{self.total}", *([self.note] if self.note else []), clock(self.seconds)]
        if self.first < self.done < self.total:
            to_go = self.seconds * (self.total - self.done) / (self.done - self.first)
            parts.append(f"about {clock(to_go)} to go")
        return ", ".join(parts)


class RunProgress:
    """Counts by title, one bar each; used as a context manager around the run.

    Nothing is shown before the first count, so that what has a display of its own may run in here.
    """

    def __init__(self, show: bool = True) -> None:
        self._display = Display(self, show)
        self._steps: dict[str, _Step] = {}
        self._latest = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._steps:
            self._display.end(finished=kind is None)

    def advance(self, title: str, done: int, total: int, note: str = "") -> None:
        """So many of `total` are done under a title. note: what else is to be said of them."""
        if not self._steps:
            self._display.begin()
        step = self._steps.setdefault(title, _Step(title, done, total, first=done))
        step.done, step.total, step.note = done, total, note
        if done >= total and step.ended is None:
            step.ended = time.monotonic()
        self._latest = title
        self._display.tick(now=done >= total)

    def line(self) -> str:
        """The step that moved last."""
        step = self._steps.get(self._latest)
        return "" if step is None else f"{printable(step.title)}: {step.text()}"

    def render(self) -> RenderableType:
        """All steps, one below the other."""
        grid = Table.grid(padding=(0, 1))
        for step in list(self._steps.values()):
            grid.add_row(Text(printable(step.title)), bar(step.done, step.total), Text(step.text()))
        return grid


def bar(done: int, total: int) -> ProgressBar:
    """A bar as every display shows it."""
    return ProgressBar(total=max(1, total), completed=done, width=BAR_WIDTH)


def clock(seconds: float) -> str:
    """A time for people."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"
