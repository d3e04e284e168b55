"""A paper table from its entry: every cell computed or read from the folder, as tables and the record of the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from toolkit.data.datasets import load_dataset
from toolkit.runs.tables.answers import Advance
from toolkit.runs.tables.compare import errors_table, radii_table
from toolkit.runs.tables.entries import Entry, ErrorsEntry
from toolkit.runs.tables.errors import run_errors
from toolkit.runs.tables.radii import run_radii


@dataclass(frozen=True, eq=False)
class TableRun:
    """A table's cells, and one line per (row, column, image) asked."""

    table: pd.DataFrame
    images: pd.DataFrame

    @property
    def networks(self) -> dict[str, str]:
        """Digest of every row's network."""
        return {
            str(row): str(digest) for row, digest in self.table.groupby("row", sort=False)["digest"].first().items()
        }


Finished = Callable[[TableRun], None]


def run_table(
    entry: Entry, out: Path, run_id: str, count: int | None = None, workers: int = 1,
    advance: Advance = lambda *_: None, finished: Finished = lambda _: None,
) -> TableRun:  # fmt: skip
    """Ask what OUT/answers does not hold yet. run_id: of the run that new answers come from.

    count: at most so many images a row. advance: called with a title, how many are done and of how many. finished:
    called after each row but the last with the table so far. Raises as run_errors and run_radii do.
    """
    cells: list[Any] = []
    images: list[pd.DataFrame] = []
    for k, row in enumerate(entry.rows):
        if k:
            finished(_table_run(entry, cells, images))
        one = entry.model_copy(update={"rows": (row,)})
        more: tuple[list[Any], pd.DataFrame]
        if isinstance(one, ErrorsEntry):
            more = run_errors(one, out, run_id, count, workers, advance)
        else:
            more = run_radii(one, out, run_id, count, workers, advance)
        cells += more[0]
        images.append(more[1])
    return _table_run(entry, cells, images)


def _table_run(entry: Entry, cells: list[Any], images: list[pd.DataFrame]) -> TableRun:
    if isinstance(entry, ErrorsEntry):
        images_of = {row.name: len(load_dataset(row.dataset, domain=row.domain)) for row in entry.rows}
        table = errors_table(cells, images_of)
    else:
        table = radii_table(cells)
    return TableRun(table, pd.concat(images, ignore_index=True))
