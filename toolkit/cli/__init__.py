"""The command `relugap`."""

from __future__ import annotations

import time
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for an error told in one line, 130 after an interrupt, 141
    where the reader of the output went away.

    arguments: None = those of the process, which ends with this call. With --debug anywhere, errors are raised with
    their traceback. What takes time is imported in here, so that a Ctrl-C while it loads is answered like any other.
    """
    began = time.perf_counter()
    try:
        from toolkit.runs.interrupts import Interrupts

        with Interrupts(last=arguments is None):
            from toolkit.cli import app

            return app.main(arguments, began)
    except KeyboardInterrupt:
        import sys

        print("interrupted; nothing was begun", file=sys.stderr)
        return 130
