"""Downloads: found, fetched once, refused when their content is another; a clear word when nothing can be fetched."""

from __future__ import annotations

import functools
import hashlib
import http.server
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pooch
import pytest

from toolkit.data.registry import Download, data_folder, obtain, place

CONTENT = b"weights"
OFFLINE = Download("papers/net.pth", "http://127.0.0.1:9/net.pth", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    monkeypatch.setenv("RELUGAP_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Download]:
    """The file behind a local server."""
    (tmp_path / "origin").mkdir()
    (tmp_path / "origin" / "net.pth").write_bytes(CONTENT)
    handler = functools.partial(_Quiet, directory=str(tmp_path / "origin"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield replace(OFFLINE, url=f"http://127.0.0.1:{server.server_address[1]}/net.pth")
        server.shutdown()


def test_the_data_folder_is_the_one_named_or_the_users_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_folder() == folder
    assert place(OFFLINE) == folder / "papers" / "net.pth"
    monkeypatch.setenv("RELUGAP_DATA", "~/sets")
    assert data_folder() == Path.home() / "sets"
    monkeypatch.setenv("RELUGAP_DATA", "")
    assert data_folder().name == "relugap"
    monkeypatch.delenv("RELUGAP_DATA")
    assert data_folder().name == "relugap"


def test_a_file_that_is_here_is_taken(folder: Path) -> None:
    place(OFFLINE).parent.mkdir(parents=True)
    place(OFFLINE).write_bytes(CONTENT)
    assert obtain(OFFLINE) == folder / "papers" / "net.pth"


def test_a_file_that_is_not_here_is_fetched_once(served: Download, tmp_path: Path) -> None:
    assert obtain(served).read_bytes() == CONTENT
    (tmp_path / "origin" / "net.pth").unlink()
    assert obtain(served) == place(served)


def test_a_file_of_another_content_is_named_and_left_alone(served: Download) -> None:
    place(served).parent.mkdir(parents=True)
    place(served).write_bytes(b"my own")
    with pytest.raises(
        ValueError, match=f"{place(served)} must have the SHA-256 {served.sha256}, got .* replace it by"
    ):
        obtain(served)
    assert place(served).read_bytes() == b"my own"


def test_a_download_of_another_content_is_refused_and_not_kept(served: Download, tmp_path: Path) -> None:
    (tmp_path / "origin" / "net.pth").write_bytes(b"tampered")
    with pytest.raises(FileNotFoundError, match=r"cannot fetch net\.pth \(its SHA-256 is another\)"):
        obtain(served)
    assert list(place(served).parent.iterdir()) == []


def test_without_a_network_it_says_what_to_download_and_where_to_put_it(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cannot fetch net\.pth \(ConnectionError\)") as caught:
        obtain(OFFLINE)
    told = str(caught.value)
    assert f"download {OFFLINE.url} and put it into {folder / 'papers'}" in told
    assert "or set RELUGAP_DATA to the folder that holds it as papers/net.pth" in told


@pytest.mark.parametrize(("level", "lines"), [(logging.WARNING, 1), (logging.ERROR, 0)])
def test_a_download_is_told_of_unless_errors_alone_are_shown(
    level: int, lines: int, served: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[logging.LogRecord] = []
    handler, ours, theirs = logging.Handler(), logging.getLogger("relugap"), pooch.get_logger()
    monkeypatch.setattr(handler, "emit", told.append)
    before = ours.level
    theirs.addHandler(handler)
    ours.setLevel(level)
    try:
        obtain(served)
    finally:
        ours.setLevel(before)
        theirs.removeHandler(handler)
    assert theirs.filters == []
    assert len([record for record in told if "Downloading" in record.getMessage()]) == lines
