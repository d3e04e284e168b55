"""One sweep at a time in a results folder: a lock that names its owner and dies with it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"
LOCK_PATIENCE = 0.5  # seconds: `lock_owner` of another process holds it for an instant, which must turn no sweep away
OWNER = 1  # offset of the owner's name: of the byte before it, Windows locks readers out
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
    lock = _lock(out)
    try:
        lock.acquire(timeout=LOCK_PATIENCE)
    except Timeout:
        raise FolderInUseError(f"{out} is in use by {_owner(out)}; wait for it or choose another folder") from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise  # without locks shards keep two writers apart; at worst work is done twice
    try:
        _name_owner(out)
        yield lock.is_locked
    finally:
        with contextlib.suppress(OSError):  # a full disk must not hide why the block ended
            os.truncate(out / LOCK, 0)
        lock.release()


def lock_owner(out: Path) -> str | None:
    """Who holds the folder, in words; None if nobody does."""
    if not (out / LOCK).is_file():
        return None
    try:
        with _lock(out).acquire(timeout=0):
            return None
    except Timeout:
        return _owner(out)
    except OSError:
        return None


def _lock(out: Path) -> FileLock:
    return FileLock(out / LOCK, thread_local=False, fallback_to_soft=False)


def _name_owner(out: Path) -> None:
    owner = {"process": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat("T", "seconds")}
    with open(os.open(out / LOCK, os.O_WRONLY | os.O_CREAT), "wb", buffering=0) as file:  # "wb" alone would truncate
        file.seek(OWNER)
        file.write(json.dumps(owner).encode())
        file.truncate()


def _owner(out: Path) -> str:
    try:
        with (out / LOCK).open("rb", buffering=0) as file:
            file.seek(OWNER)
            found = json.loads(file.read())
        return f"process {found['process']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
