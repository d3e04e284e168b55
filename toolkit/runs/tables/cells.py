"""A reproduction's work on disk: one CSV per cell of its table, a sample a line, appended as it is finished.

A cell's file name holds a digest of the question asked, so that a stopped reproduction goes on where it was and a
changed question starts afresh.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

FOLDER = "cells"
Advance = Callable[[str, int, int], None]  # title, done, total


class CellError(ValueError):
    """Some samples of a cell failed; the others are stored."""


class Cell:
    """The stored samples of one (row, column). columns: of its file, `sample` first."""

    def __init__(self, out: Path, row: str, column: str, question: Mapping[str, Any], columns: Sequence[str]) -> None:
        asked = json.dumps(question, sort_keys=True, default=str)
        digest = hashlib.sha256(asked.encode()).hexdigest()[:8]
        self.file = out / FOLDER / f"{_slug(row)}-{_slug(column)}-{digest}.csv"
        self.columns = ("sample", *columns)
        self._ready = False  # the file ends with a whole line

    def read(self) -> pd.DataFrame:
        """What is stored, by sample; a line cut off by a kill is left out."""
        if not self.file.is_file():
            return pd.DataFrame({name: [] for name in self.columns}).set_index("sample")
        found = pd.read_csv(self.file, on_bad_lines="skip")
        return found.dropna(subset=[self.columns[-1]]).drop_duplicates("sample", keep="last").set_index("sample")

    def append(self, row: Mapping[str, Any]) -> None:
        """One more sample."""
        if not self._ready:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            content = self.file.read_bytes() if self.file.is_file() else b""
            if not content:
                self._write(self.columns)
            elif not content.endswith(b"\n"):
                self._write(())
            self._ready = True
        self._write([_shown(row.get(name)) for name in self.columns])

    def _write(self, values: Sequence[str]) -> None:
        with self.file.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(values)


def _shown(value: object) -> str:
    return f"{value:.8g}" if isinstance(value, float) else "" if value is None else str(value)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")[:60]
