"""One sweep at a time in a results folder: a lock that names its owner and dies with it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

LOCK = ".lock"
_UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


class FolderInUseError(OSError):
    """Another process is writing to the results folder."""


@contextlib.contextmanager
def folder_lock(out: Path) -> Iterator[bool]:
    """Hold OUT/.lock while the block runs; yields whether the file system supports locks.

    The operating system releases the lock when its owner ends, however it ends, so a killed sweep leaves nothing to
    clean up. Raises FolderInUseError naming the owner's process and host, OSError for a folder that cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("a+", encoding="utf-8") as file:
        try:
            _acquire_patiently(file)
            held = True
        except BlockingIOError:
            raise FolderInUseError(f"{out} is in use by {_owner(file)}; wait for it or choose another folder") from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            held = False  # shards keep two writers apart; at worst work is done twice
        owner = {"process": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat("T", "seconds")}
        file.seek(0)
        file.truncate()
        json.dump(owner, file)
        file.flush()
        try:
            yield held
        finally:
            with contextlib.suppress(OSError):  # a full disk must not hide why the block ended
                file.seek(0)
                file.truncate()


def lock_owner(out: Path) -> str | None:
    """Who holds the folder, in words; None if nobody does."""
    path = out / LOCK
    if not path.is_file():
        return None
    try:
        with path.open("a+", encoding="utf-8") as file:
            try:
                _acquire(file)
            except BlockingIOError:
                return _owner(file)
    except OSError:
        pass
    return None


def _owner(file: IO[str]) -> str:
    file.seek(0)
    try:
        found = json.loads(file.read())
        return f"process {found['process']} on {found['host']} since {found['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _acquire_patiently(file: IO[str]) -> None:
    """`lock_owner` of another process holds the lock for an instant; that must not turn a sweep away."""
    for _ in range(5):
        try:
            return _acquire(file)
        except BlockingIOError:
            time.sleep(0.1)
    return _acquire(file)


def _acquire(file: IO[str]) -> None:
    """Take the lock at once or raise BlockingIOError."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(1 << 30)  # beyond the text, which others must be able to read
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from error
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
