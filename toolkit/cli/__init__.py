"""The command `relugap`."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.interrupts import ENDED, Interrupts

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for an error told in one line, 130 after an interrupt.

    arguments: None = those of the process. With --debug anywhere, errors are raised with their traceback. The commands
    are imported in here, so that a Ctrl-C while they load is answered like any other.
    """
    with Interrupts():
        try:
            from toolkit.cli.app import run

            return run(arguments)
        except KeyboardInterrupt:
            import sys

            print("interrupted; nothing was begun", file=sys.stderr)
            return ENDED
