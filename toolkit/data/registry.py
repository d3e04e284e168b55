"""Files with a public origin: looked for in $RELUGAP_DATA or the user's cache, else fetched; SHA-256 is checked.

Folder, hashes and origins are pooch's business (Uieda et al. 2020, "Pooch: A friend to fetch your data files", JOSS 5),
but for a file whose content is another: pooch would fetch it anew over the user's own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pooch


@dataclass(frozen=True)
class Download:
    """One file: where it lies under the data folder, where it is fetched, the SHA-256 of its content (hexadecimal)."""

    path: str
    url: str
    sha256: str


def registry(*downloads: Download) -> pooch.Pooch:
    """The downloads as pooch keeps them, in the data folder as the environment names it now."""
    import pooch

    return pooch.create(
        path=pooch.os_cache("relugap"),
        env="RELUGAP_DATA",
        base_url="",
        registry={download.path: f"sha256:{download.sha256}" for download in downloads},
        urls={download.path: download.url for download in downloads},
    )


def data_folder() -> Path:
    """$RELUGAP_DATA, or the user's cache."""
    return Path(registry().abspath)


def place(download: Download) -> Path:
    """Where the file lies or will lie."""
    return data_folder() / download.path


@contextmanager
def _as_quiet_as_relugap(logger: logging.Logger) -> Iterator[None]:
    """Where relugap shows errors alone (-q), so does this logger."""
    told = logging.getLogger("relugap")
    # A filter, since pooch's logger stands outside logging's tree and would not forget what its level let pass before.
    logger.addFilter(passing := lambda record: told.isEnabledFor(max(record.levelno, logging.WARNING)))
    try:
        yield
    finally:
        logger.removeFilter(passing)


def obtain(download: Download) -> Path:
    """The file on this machine, fetched if it is not here.

    Raises ValueError for a file here whose SHA-256 differs, FileNotFoundError (saying what to download and where to put
    it) for one that is neither here nor reachable.
    """
    import pooch

    path = place(download)
    if path.is_file():
        if (found := pooch.file_hash(path)) != download.sha256:
            raise ValueError(
                f"{path} must have the SHA-256 {download.sha256}, got {found}; "
                f"replace it by {download.url} or remove it"
            )
        return path
    logging.getLogger("relugap.data").info("fetching %s", download.url)
    try:
        with _as_quiet_as_relugap(pooch.get_logger()):
            return Path(registry(download).fetch(download.path))
    except (OSError, ValueError) as error:  # requests' errors are OSError; ValueError is a wrong hash
        reason = "its SHA-256 is another" if isinstance(error, ValueError) else type(error).__name__
        raise FileNotFoundError(
            f"cannot fetch {path.name} ({reason}); download {download.url} and put it into "
            f"{path.parent}, or set RELUGAP_DATA to the folder that holds it as {download.path}"
        ) from error
