"""`reproduce`: which experiments there are, one of them or all, with progress and the table at the end."""

from __future__ import annotations

import time
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from toolkit.cli.experiments import reproduce
from toolkit.data.names import markup_text, printable
from toolkit.report.paper_tables import terminal_page
from toolkit.runs.executors import usable_cpus
from toolkit.runs.progress import RunProgress
from toolkit.runs.tables import Catalogue, Experiment, read_catalogue


def list_experiments() -> None:
    """Print the catalogue."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("experiment", "minutes", "shows"):
        grid.add_column(name, overflow="fold")
    for experiment in read_catalogue().experiments.values():
        grid.add_row(experiment.name, f"{experiment.minutes:g}", markup_text(experiment.shows))
    Console().print(grid)


def run_named(name: str, out: Path | None, count: int | None, workers: int | None, fresh: bool) -> None:
    """One experiment, or `all`."""
    catalogue = read_catalogue()
    chosen = list(catalogue.experiments.values()) if name == "all" else [catalogue[name]]
    if name == "all" and out is not None:
        raise ValueError("--out is for one experiment; all write into results/NAME")
    size = "" if count is None else f"-{count}"  # a smaller size does not replace the results at full size
    console = Console()
    for experiment in chosen:
        if count is not None and name == "all" and experiment.count is None and experiment.file.endswith(".py"):
            console.print(f"{experiment.name}: has one size only, left out with --count", highlight=False)
            continue
        _run(console, catalogue, experiment, out or Path("results") / f"{experiment.name}{size}", count, workers, fresh)


def _run(
    console: Console,
    catalogue: Catalogue,
    experiment: Experiment,
    out: Path,
    count: int | None,
    workers: int | None,
    fresh: bool,
) -> None:
    started = time.perf_counter()
    console.print(f"[bold]{experiment.name}[/]: {markup_text(experiment.shows)}", highlight=False)
    with RunProgress() as progress:
        found = reproduce(catalogue, experiment, out, count, workers or usable_cpus(), fresh, progress.advance)
    if found is not None:
        entry, run = found
        console.print(terminal_page(entry, run.table))
    spent = time.perf_counter() - started
    console.print(f"{spent:.0f} s; written to {printable(out)}", highlight=False, markup=False)
