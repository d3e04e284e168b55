"""Files are whole or absent, also where a reader has the old one open on a system that minds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from toolkit.data import atomic


@pytest.mark.parametrize("refusals", [0, 2, 9])
def test_a_name_that_is_held_for_an_instant_is_taken_later(
    refusals: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, left = tmp_path / "progress.json", [refusals]
    target.write_text("old")
    real = os.replace

    def held(draft: Path, name: Path) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise PermissionError(13, "held by a reader", str(name))
        real(draft, name)

    monkeypatch.setattr(atomic, "REPLACE_WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(os, "replace", held)
    if refusals > 3:
        with pytest.raises(PermissionError):
            atomic.write_text(target, "new")
    else:
        atomic.write_text(target, "new")
    assert target.read_text() == ("old" if refusals > 3 else "new")
    assert list(tmp_path.iterdir()) == [target]
