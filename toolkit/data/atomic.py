"""Files that are whole or absent: a reader, or a writer killed at any moment, sees the old content or the new one.

The new content goes to a draft in the same folder, is synced to the disk and takes the file's name in one step
(os.replace); then the folder is synced. Checked: nothing but the draft is touched before the content is complete.
Trusted: that the file system renames atomically.
"""

from __future__ import annotations

import os
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from toolkit.data.names import csv_frame

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

REPLACE_WAITS = (0.01, 0.03, 0.1, 0.3, 1.0) if os.name == "nt" else ()  # seconds


@contextmanager
def write_atomically(path: str | Path, mode: str = "wb", newline: str | None = None) -> Iterator[IO[Any]]:
    """A file to write to, which becomes `path` when the block ends, and vanishes if the block raises.

    mode: "wb", or "w" for UTF-8 text. Missing folders are made. An existing file's permissions are kept. A symbolic
    link is replaced, not followed, so that a planted one cannot direct the writing elsewhere; a device or pipe, such as
    /dev/stdout, is written to as it is. Raises IsADirectoryError for a folder, OSError as writing does.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode must be wb or w, got {mode!r}")
    target = Path(path)
    encoding = None if mode == "wb" else "utf-8"
    permissions = _permissions(target)
    if permissions is None:
        with target.open(mode, encoding=encoding, newline=newline) as file:
            yield file
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name[:40]}.{uuid.uuid4().hex[:8]}")
    try:
        with draft.open(mode, encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if permissions:
            draft.chmod(permissions)
        _take_the_name(draft, target)
    except BaseException as error:  # Ctrl-C included: no drafts are left behind
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(draft):
            error.filename = str(target)
        raise
    sync_folder(target.parent)


def _take_the_name(draft: Path, target: Path) -> None:
    """os.replace; Windows refuses it while a reader has the file open, which is over in an instant."""
    for wait in REPLACE_WAITS:
        try:
            os.replace(draft, target)
        except PermissionError:
            time.sleep(wait)
        else:
            return
    os.replace(draft, target)


def _permissions(target: Path) -> int | None:
    """Those of the regular file there, 0 where there is none, None for a device or pipe."""
    try:
        found = target.stat()
    except FileNotFoundError:
        return 0
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"{target} is a folder, and a file is to be written there")
    if not stat.S_ISREG(found.st_mode):
        return None
    return 0 if target.is_symlink() else stat.S_IMODE(found.st_mode)


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text in one step and return the path; lone surrogates, which no UTF-8 has, become ?."""
    with write_atomically(path) as file:
        file.write(text.encode("utf-8", "replace"))
    return Path(path)


def write_csv(path: str | Path, frame: pd.DataFrame, float_format: str | None = None) -> Path:
    """Write a frame without its index as CSV in one step and return the path; see `names.csv_text`."""
    with write_atomically(path, "w", newline="") as file:
        csv_frame(frame).to_csv(file, index=False, float_format=float_format, lineterminator="\n")
    return Path(path)


def write_parquet(path: str | Path, frame: pd.DataFrame, **options: Any) -> Path:
    """Write a frame without its index as Parquet, in one step, and return the path."""
    with write_atomically(path) as file:
        frame.to_parquet(file, index=False, **options)
    return Path(path)


def write_figure(path: str | Path, figure: Figure, **options: Any) -> Path:
    """Save a figure in the format of the path's ending, in one step, and return the path. options: of savefig."""
    with write_atomically(path) as file:
        figure.savefig(file, format=Path(path).suffix.removeprefix("."), **options)
    return Path(path)


def sync_folder(folder: Path) -> None:
    """Make new and renamed names in a folder survive a power cut, where the system can."""
    if os.name == "posix":
        file = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # some network file systems refuse to sync a folder
                os.fsync(file)
        finally:
            os.close(file)
