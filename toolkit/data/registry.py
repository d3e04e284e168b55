"""Files with a public origin: looked for in $RELUGAP_DATA or the user's cache, else fetched; SHA-256 is checked."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Download:
    """One file: where it lies under the data folder, where it is fetched, the SHA-256 of its content (hexadecimal)."""

    path: str
    url: str
    sha256: str


def data_folder() -> Path:
    """$RELUGAP_DATA, or the user's cache."""
    import pooch

    given = os.environ.get("RELUGAP_DATA")
    return Path(given).expanduser() if given else Path(pooch.os_cache("relugap"))


def place(download: Download) -> Path:
    """Where the file lies or will lie."""
    return data_folder() / download.path


def obtain(download: Download) -> Path:
    """The file on this machine, fetched if it is not here.

    Raises ValueError for a file here whose SHA-256 differs, FileNotFoundError (saying what to download and where to put
    it) for one that is neither here nor reachable.
    """
    path = place(download)
    if path.is_file():
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != download.sha256:
            raise ValueError(
                f"{path} must have the SHA-256 {download.sha256}, got {found}; "
                f"replace it by {download.url} or remove it"
            )
        return path
    return fetch(download)


def fetch(download: Download) -> Path:
    """Download a file to its place, checking its SHA-256. Raises FileNotFoundError."""
    import pooch

    path = place(download)
    try:
        pooch.retrieve(download.url, f"sha256:{download.sha256}", path.name, path.parent, progressbar=False)
    except (OSError, ValueError) as error:  # requests' errors are OSError; ValueError is a wrong hash
        reason = "its SHA-256 is another" if isinstance(error, ValueError) else type(error).__name__
        raise FileNotFoundError(
            f"cannot fetch {path.name} ({reason}); download {download.url} and put it into "
            f"{path.parent}, or set RELUGAP_DATA to the folder that holds it as {download.path}"
        ) from error
    return path
