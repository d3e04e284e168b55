"""The bytes of a file that may be compressed, as many of them as are allowed: a small .gz may hold terabytes."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path


def read_bytes(path: Path, largest: int) -> bytes:
    """The content of a file, unpacked where its name ends in .gz.

    Raises ValueError for more than `largest` bytes and for what is no gzip file, OSError for what cannot be read.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(largest + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"not a gzip file: {error}") from None
    if len(content) > largest:
        raise ValueError(f"holds more than {largest:,} bytes")
    return content
