"""Ctrl-C, SIGTERM and a closed terminal while a command runs: the first ends it in order, the second at once.

The first signal raises KeyboardInterrupt in the main thread, unless the command has handlers of its own (a sweep
finishes its running tasks). A solver may keep the main thread for hours, and Python runs handlers between bytecodes
only; so the signals are also counted by a thread of their own, which ends the process after the second one, wherever
it is.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

ENDED = 130  # exit code of a command that was interrupted
ORDERLY = 1.0  # seconds that the second signal leaves for an end in order; the third leaves none
SOON = 0.05  # seconds until a signal that came where it would be swallowed is raised again
HINT_AFTER = 2.0  # seconds without an end after which the first signal is answered with how to end at once
HINT = "interrupted: waiting for the call that is running to return; again: end at once"
AT_ONCE = "ended at once; what was written before is intact"
SHOW_CURSOR = "\x1b[?25h"  # a live display hides it
_Handler = Callable[[int, FrameType | None], object] | int | None


def ending_signals() -> tuple[signal.Signals, ...]:
    """SIGINT, SIGTERM, and SIGHUP where there is one that is not ignored on purpose (nohup)."""
    found = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        found.append(signal.SIGHUP)
    return tuple(found)


def _is_swallowed(frame: FrameType | None) -> bool:
    """Whether Python would print and forget an exception raised here: in a finaliser or an import lock's callback."""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__del__" or (code.co_name == "cb" and code.co_filename.startswith("<frozen importlib")):
            return True
        frame = frame.f_back
    return False


def block_signals() -> None:
    """Keep these signals from this thread and from the threads and processes it starts: they are another's to answer.

    A mask, because a handler is not enough: a solver may put its own in its place while it runs.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, ending_signals())


class Interrupts:
    """Answers the signals while the block runs; outside the main thread, where Python allows none of it, idle."""

    def __init__(self, last: bool = False) -> None:
        """last: the process ends with the block; once interrupted, a further signal must not break that off."""
        self._last = last
        self._before: dict[signal.Signals, _Handler] = {}
        self._raised = False
        self._echoes = 0  # signals that this object sends itself, which are not the user's
        self._over = threading.Event()
        self._pipe: tuple[int, int] | None = None
        self._wakeup = -1

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._pipe = os.pipe()
        if hasattr(os, "set_blocking"):  # Windows has it for pipes from Python 3.12 on, and does without
            os.set_blocking(self._pipe[1], False)
        threading.Thread(target=self._watch, args=(self._pipe[0],), daemon=True).start()
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        if self._last:
            atexit.register(self._leave)  # early, so that it runs after what later imports register
        self._before = {number: signal.signal(number, self._first) for number in ending_signals()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pipe is None or (self._last and self._raised):
            return
        self._over.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._pipe[1])  # ends the thread, which closes its own side

    def _first(self, number: int, frame: FrameType | None) -> None:
        if self._raised:  # a later one must not break off what the first one began: `_watch` sees to it
            return
        if _is_swallowed(frame):
            self._echoes += 1
            self._later(SOON, lambda: _thread.interrupt_main(signal.Signals(number)))
            return
        self._raised = True
        raise KeyboardInterrupt

    def _leave(self) -> None:
        """Ignore what comes while the interpreter is taken down, when Python has given the signals their defaults back
        and they would change the exit code."""
        if self._raised:
            for number in ending_signals():
                signal.signal(number, signal.SIG_IGN)

    def _watch(self, pipe: int) -> None:
        block_signals()
        numbers, count = {int(number) for number in ending_signals()}, 0
        while data := os.read(pipe, 64):
            for number in data:
                echo = number in numbers and self._echoes > 0 and count > 0
                self._echoes -= echo
                count += number in numbers and not echo
            if count == 1:
                self._later(HINT_AFTER, self._hint)
            elif count == 2:
                self._later(ORDERLY, self._end)
            elif count > 2:
                self._end()
        os.close(pipe)

    def _later(self, seconds: float, action: Callable[[], object]) -> None:
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        timer.start()

    def _hint(self) -> None:
        if not self._over.is_set() and signal.getsignal(signal.SIGINT) == self._first:
            _say(HINT)

    def _end(self) -> None:
        if self._over.is_set():
            return
        if "multiprocessing" in sys.modules:
            import multiprocessing

            for child in multiprocessing.active_children():
                child.kill()
        _say(f"{SHOW_CURSOR if os.isatty(2) else ''}{AT_ONCE}")
        os._exit(ENDED)


def _say(text: str) -> None:
    """Past Python's streams, whose locks the main thread may hold."""
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())
