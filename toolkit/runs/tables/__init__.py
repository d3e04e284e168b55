"""Paper tables and the project's own experiments, by name: `relugap reproduce NAME`."""

from toolkit.runs.tables.catalogue import Catalogue, Experiment, read_catalogue
from toolkit.runs.tables.entries import ErrorsEntry, RadiiEntry, load_entry
from toolkit.runs.tables.readiness import check_ready, needs_of
from toolkit.runs.tables.run import TableRun, run_table

__all__ = [
    "Catalogue",
    "ErrorsEntry",
    "Experiment",
    "RadiiEntry",
    "TableRun",
    "check_ready",
    "load_entry",
    "needs_of",
    "read_catalogue",
    "run_table",
]
