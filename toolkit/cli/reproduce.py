"""`reproduce`: which experiments there are, one of them or all, each from its name to its results folder and report."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from toolkit.data.names import markup_text, printable
from toolkit.data.toml_file import open_toml
from toolkit.report import write_report
from toolkit.report.paper_tables import markdown_page, terminal_page
from toolkit.runs.executors import check_workers, usable_cpus
from toolkit.runs.interrupts import ENDED
from toolkit.runs.lock import folder_lock
from toolkit.runs.outputs import write_files
from toolkit.runs.progress import RunProgress
from toolkit.runs.provenance import PROVENANCE, recorded_run
from toolkit.runs.sweep.run import run_sweep
from toolkit.runs.sweep.spec import load_spec
from toolkit.runs.tables import (
    Catalogue,
    Experiment,
    TableRun,
    check_ready,
    load_entry,
    needs_of,
    read_catalogue,
    run_table,
)
from toolkit.runs.tables.answers import FOLDER, Advance
from toolkit.runs.tables.entries import Entry

SO_FAR = ("table_so_far.csv", "table_so_far.md")  # of a table whose rows are not all finished


def list_experiments() -> None:
    """Print the catalogue."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("experiment", "minutes", "shows"):
        grid.add_column(name, overflow="fold")
    catalogue = read_catalogue()
    for experiment in catalogue.experiments.values():
        note = "" if catalogue.has(experiment) else " (a script: in a checkout only)"
        grid.add_row(experiment.name, f"{experiment.minutes:g}", markup_text(f"{experiment.shows}{note}"))
    Console().print(grid)


def run_named(name: str, out: Path | None, count: int | None, workers: int | None, fresh: bool) -> None:
    """One experiment, or `all`."""
    catalogue = read_catalogue()
    chosen = list(catalogue.experiments.values()) if name == "all" else [catalogue[name]]
    if name == "all" and out is not None:
        raise ValueError("--out is for one experiment; all write into results/NAME")
    size = "" if count is None else f"-{count}"  # a smaller size does not replace the results at full size
    console = Console()
    left_out = {one.name: _left_out(catalogue, one, count) for one in chosen if name == "all"}
    _check([catalogue.file(one) for one in chosen if not left_out.get(one.name)])
    for experiment in chosen:
        if reason := left_out.get(experiment.name):
            console.print(f"{experiment.name}: {reason}", highlight=False)
            continue
        _run(console, catalogue, experiment, out or Path("results") / f"{experiment.name}{size}", count, workers, fresh)


def _check(files: Sequence[Path]) -> None:
    """Look whether all tables and sweeps have their networks and images, before the first one's hours of work."""
    specs = [file for file in files if file.suffix == ".toml"]
    check_ready(need for file in specs for need in needs_of(load_entry(file) if _is_table(file) else load_spec(file)))


def _is_table(file: Path) -> bool:
    return "kind" in open_toml(file).content


def _left_out(catalogue: Catalogue, experiment: Experiment, count: int | None) -> str:
    """Why `all` passes an experiment over, "" where it does not."""
    if not catalogue.has(experiment):
        return "is a script of a checkout, which is not here"
    if count is not None and experiment.count is None and experiment.file.endswith(".py"):
        return "has one size only, left out with --count"
    if experiment.needs and importlib.util.find_spec(experiment.needs) is None:
        return f"needs {experiment.needs}, which is not installed here"
    return ""


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


def reproduce(
    catalogue: Catalogue, experiment: Experiment, out: Path, count: int | None = None, workers: int = 1,
    fresh: bool = False, advance: Advance = lambda *_: None,
) -> tuple[Entry, TableRun] | None:  # fmt: skip
    """Run an experiment into `out`; what is there already from a stopped run is kept, unless `fresh`.

    count: a smaller size: at most so many images a row (entries), samples (sweeps), or the script's own option.
    While an entry runs, table_so_far.csv and table_so_far.md hold its finished rows.
    advance: called with a title, how many are done and of how many. Entries write table.csv, table.md, images.parquet
    and provenance.json and return the entry with its table; others return None. Raises ValueError,
    FileNotFoundError, or ChildProcessError where a script fails.
    """
    check_workers(workers)
    file = catalogue.file(experiment)
    if file.suffix == ".py":
        if fresh:
            raise ValueError(f"{experiment.name} is a script, which knows itself what to keep; leave out --fresh")
        run_script(file, experiment, out, count, workers)
        return None
    if _is_table(file):
        return reproduce_table(file, out, count, workers, fresh, advance)
    spec = load_spec(file)
    if count is not None:
        own = spec.samples
        spec = spec.model_copy(update={"samples": min(count, own) if isinstance(own, int) else own[:count]})
    write_report(run_sweep(spec, out, workers=workers, rerun="all" if fresh else None), out)
    return None


def reproduce_table(
    file: Path, out: Path, count: int | None, workers: int, fresh: bool = False, advance: Advance = lambda *_: None
) -> tuple[Entry, TableRun]:
    """A table of errors or radii; see `reproduce`. Raises before it begins where a row's files are missing."""
    entry = load_entry(file)
    check_ready(needs_of(entry))
    details = {"entry": file.name, "count": count, "workers": workers}
    with folder_lock(out):
        if fresh:
            shutil.rmtree(out / FOLDER, ignore_errors=True)
            (out / PROVENANCE).unlink(missing_ok=True)
        with recorded_run(out, {"details": details}) as run:
            found = run_table(entry, out, run["run_id"], count, workers, advance, partial(_write_so_far, entry, out))
            run["networks"] = found.networks
            # seven digits to look at: table.csv is made of the stored answers
            seven = dict.fromkeys(found.images.select_dtypes("float64").columns, "float32")
            page = markdown_page(entry, found.table)
            write_files(out, {"table.csv": found.table, "table.md": page}, "%.6g")
            write_files(out, {"images.parquet": found.images.astype(seven)})
            for name in SO_FAR:
                (out / name).unlink(missing_ok=True)
    return entry, found


def _write_so_far(entry: Entry, out: Path, found: TableRun) -> None:
    """The finished rows, for whoever stops the run: under names of their own, so that no whole table is replaced."""
    rows = [row.name for row in entry.rows]
    done = found.table["row"].nunique()
    note = f"Unfinished: {done} of {len(rows)} rows; {', '.join(rows[done:])} left. The same command continues.\n"
    page = f"{markdown_page(entry, found.table)}\n{note}"
    write_files(out, dict(zip(SO_FAR, (found.table, page), strict=True)), "%.6g")


def ending_with_us() -> None:
    """For a child between fork and exec, on Linux: it ends when this process does, killed or not."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def run_script(file: Path, experiment: Experiment, out: Path, count: int | None, workers: int) -> None:
    """A script in a process of its own, which says itself how far it is."""
    arguments = [sys.executable, str(file), "--out", str(out), *experiment.arguments]
    arguments += ["--workers", str(workers)] if experiment.workers else []
    if count is not None:
        if experiment.count is None:
            raise ValueError(f"{experiment.name} has one size only; leave out --count")
        arguments += [experiment.count, str(count)]
    bound = ending_with_us if sys.platform == "linux" else None
    stopped = f"{experiment.name} was interrupted; what {file.name} had written by then is in {out}"
    try:
        code = subprocess.run(arguments, check=False, preexec_fn=bound).returncode
    except KeyboardInterrupt:
        raise KeyboardInterrupt(stopped) from None
    if code in (ENDED, -signal.SIGINT, -signal.SIGTERM):
        raise KeyboardInterrupt(stopped)
    if code:
        raise ChildProcessError(f"{experiment.name}: {file.name} ended with exit code {code}")
