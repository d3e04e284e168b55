"""A paper table from its entry: every cell computed or read from the folder, as tables and the record of the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from toolkit.data.datasets import load_dataset
from toolkit.runs.tables.answers import Advance
from toolkit.runs.tables.compare import errors_table, radii_table
from toolkit.runs.tables.entries import Entry, ErrorsEntry
from toolkit.runs.tables.errors import run_errors
from toolkit.runs.tables.radii import run_radii


@dataclass(frozen=True)
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


def run_table(
    entry: Entry, out: Path, run_id: str, count: int | None = None, workers: int = 1, advance: Advance = lambda *_: None
) -> TableRun:
    """Ask what OUT/answers does not hold yet. run_id: of the run that new answers come from.

    count: at most so many images a row. advance: called with a title, how many are done and of how many. Raises as
    run_errors and run_radii do.
    """
    if isinstance(entry, ErrorsEntry):
        cells, images = run_errors(entry, out, run_id, count, workers, advance)
        images_of = {row.name: len(load_dataset(row.dataset, domain=row.domain)) for row in entry.rows}
        return TableRun(errors_table(cells, images_of), images)
    radii, images = run_radii(entry, out, run_id, count, workers, advance)
    return TableRun(radii_table(radii), images)
