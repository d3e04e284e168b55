"""The lock of a results folder where it is contended, unsupported or broken; test_store sees it die with its owner."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from toolkit.runs.lock import LOCK, FolderInUseError, folder_lock, lock_owner


def test_who_is_turned_away_leaves_the_owners_name(tmp_path: Path) -> None:
    assert lock_owner(tmp_path / "nowhere") is None
    with folder_lock(tmp_path / "new") as held:
        assert held
        for _ in range(2):
            refused = pytest.raises(FolderInUseError, match=f"in use by process {os.getpid()} on")
            with refused, folder_lock(tmp_path / "new"):
                pytest.fail("two owners")
            assert f"process {os.getpid()} on" in (lock_owner(tmp_path / "new") or "")
    assert lock_owner(tmp_path / "new") is None
    assert (tmp_path / "new" / LOCK).read_bytes() == b""


def test_an_error_in_the_block_releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError), folder_lock(tmp_path):
        raise KeyError
    with folder_lock(tmp_path) as held:
        assert held


def test_a_name_that_cannot_be_read_is_another_process(tmp_path: Path) -> None:
    with folder_lock(tmp_path):
        (tmp_path / LOCK).write_text('{"process": 1}')  # as an owner of another version may write it
        assert lock_owner(tmp_path) == "another process"


@pytest.mark.skipif(sys.platform == "win32", reason="the call that is replaced is POSIX's")
@pytest.mark.parametrize("reason", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_used_and_said(
    tmp_path: Path, reason: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr("fcntl.flock", refuses)
    with folder_lock(tmp_path) as held, folder_lock(tmp_path) as again:
        assert not held
        assert not again
        assert lock_owner(tmp_path) is None


@pytest.mark.skipif(sys.platform == "win32", reason="the call that is replaced is POSIX's")
def test_any_other_error_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr("fcntl.flock", refuses)
    with pytest.raises(OSError, match="broken"), folder_lock(tmp_path):
        pytest.fail("held")
