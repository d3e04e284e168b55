"""Programs that tests start beside themselves, each in a session of its own that does not outlive the test."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Begin = Callable[..., "subprocess.Popen[str]"]


@contextmanager
def ended_sessions() -> Iterator[Begin]:
    """Gives what starts a program of these words; all that still run are ended when the block is left."""
    started: list[subprocess.Popen[str]] = []

    def begin(*command: object) -> subprocess.Popen[str]:
        words = [str(word) for word in command]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(words, start_new_session=True, **pipes))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
