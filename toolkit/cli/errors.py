"""What went wrong, in one line: the errors a user can cause or mend, told apart from bugs."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor

from pydantic import ValidationError

from toolkit.data.arguments import shown
from toolkit.data.extras import EXTRAS, not_installed
from toolkit.data.names import printable, shortened

LONGEST_MESSAGE = 2000  # characters of a message: a file can make one as long as itself


def expected_message(error: Exception) -> str | None:
    """One line for an error that is the input's or the machine's, None for one that is a bug of ours.

    Expected are ValueError (bad values, specs, files), OSError (missing, unwritable or busy files), MemoryError, a
    missing optional package, a solver that is not usable here, workers that died, and click's usage errors.
    """
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if "pip install" in str(error):  # ours, which says what it is needed for
            return _one_line(str(error))
        return str(not_installed(package)) if package in EXTRAS else None
    if isinstance(error, ImportError):  # ours, which says what to install
        return _one_line(str(error)) if "pip install" in str(error) else None
    usage = getattr(error, "format_message", None)  # click's, whichever copy of click typer brings
    if usage is not None:
        context = getattr(error, "ctx", None)
        hint = f"; see {context.command_path} --help" if context is not None else ""
        told = _one_line(str(usage()).rstrip("."))
        return told and told + _given(error.__cause__) + hint  # nothing where the help was asked for by giving nothing
    if isinstance(error, ValidationError):
        problems = (f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors(include_url=False))
        return _one_line("; ".join(problems))
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, OSError) and error.strerror:  # without its number, which says nothing to a reader
        where = "" if error.filename is None else f": {error.filename}"
        return _one_line(f"{error.strerror}{where}")
    if isinstance(error, ValueError | OSError | BrokenExecutor) or _is_solver_unavailable(error):
        return _one_line(str(error)) or type(error).__name__
    return None


def _given(cause: BaseException | None) -> str:
    """The value of an option that did not fit its type."""
    entries = cause.errors(include_url=False) if isinstance(cause, ValidationError) else []
    return f", got {shown(entries[0]['input'])}" if entries else ""


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings of the block as lines on stderr, "note: …", each text once, instead of Python's two with source code."""
    seen: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: object) -> None:
        text = _one_line(str(message))
        if text not in seen and logging.getLogger("relugap").isEnabledFor(logging.WARNING):
            seen.add(text)
            print(f"note: {text}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _is_solver_unavailable(error: Exception) -> bool:
    """Without importing the solvers: whoever raised it has."""
    session = sys.modules.get("toolkit.solvers.session")
    return session is not None and isinstance(error, session.SolverUnavailableError)


def _one_line(text: str) -> str:
    return shortened(" ".join(printable(text).split()), LONGEST_MESSAGE)
