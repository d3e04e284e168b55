"""One experiment from its name to its results folder."""

from __future__ import annotations

import ctypes
import json
import shutil
import signal
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from toolkit.data.atomic import write_csv, write_parquet
from toolkit.data.datasets import load_dataset
from toolkit.report import write_report
from toolkit.runs.executors import check_workers
from toolkit.runs.interrupts import ENDED
from toolkit.runs.provenance import PROVENANCE, environment, read_runs
from toolkit.runs.store import replace_file, set_aside
from toolkit.runs.sweep.run import run_sweep
from toolkit.runs.sweep.spec import load_spec
from toolkit.runs.tables.catalogue import Catalogue, Experiment
from toolkit.runs.tables.cells import FOLDER, Advance
from toolkit.runs.tables.entries import Entry, ErrorsEntry, load_entry
from toolkit.runs.tables.errors import run_errors
from toolkit.runs.tables.radii import run_radii
from toolkit.runs.tables.tables import errors_table, markdown, radii_table


def reproduce(
    catalogue: Catalogue,
    experiment: Experiment,
    out: Path,
    count: int | None = None,
    workers: int = 1,
    fresh: bool = False,
    advance: Advance | None = None,
) -> tuple[Entry, pd.DataFrame] | None:
    """Run an experiment into `out`; what is there already from a stopped run is kept, unless `fresh`.

    count: a smaller size: at most so many images a row (entries), samples (sweeps), or the script's own option.
    advance: called with a title, how many are done and of how many. Entries write table.csv, table.md, images.parquet
    and provenance.json and return the entry with its table; others return None. Raises ValueError,
    FileNotFoundError, or ChildProcessError where a script fails.
    """
    check_workers(workers)
    file = catalogue.folder / experiment.file
    if file.suffix == ".py":
        if fresh:
            raise ValueError(f"{experiment.name} is a script, which knows itself what to keep; leave out --fresh")
        _run_script(file, experiment, out, count)
        return None
    if "kind" in tomllib.loads(file.read_text(encoding="utf-8")):
        return run_entry(file, out, count, workers, fresh, advance or (lambda *_: None))
    spec = load_spec(file)
    if count is not None:
        own = spec.samples
        spec = spec.model_copy(update={"samples": min(count, own) if isinstance(own, int) else own[:count]})
    write_report(run_sweep(spec, out, workers=workers, rerun="all" if fresh else None), out)
    return None


def run_entry(
    file: Path, out: Path, count: int | None, workers: int, fresh: bool, advance: Advance
) -> tuple[Entry, pd.DataFrame]:
    """A table of errors or radii; see `reproduce`."""
    entry = load_entry(file)
    if fresh:
        shutil.rmtree(out / FOLDER, ignore_errors=True)
        (out / PROVENANCE).unlink(missing_ok=True)
    started = _now()
    if isinstance(entry, ErrorsEntry):
        cells, images = run_errors(entry, out, count, workers, advance)
        table = errors_table(cells, min(len(load_dataset(row.dataset)) for row in entry.rows))
    else:
        radii, images = run_radii(entry, out, count, workers, advance)
        table = radii_table(radii)
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "table.csv", table, float_format="%.6g")
    numbers = dict.fromkeys(
        images.select_dtypes("float64").columns, "float32"
    )  # seven digits to look at; table.csv is made of the cells
    write_parquet(out / "images.parquet", images.astype(numbers), compression="zstd")
    replace_file(out / "table.md", markdown(entry, table).encode())
    record = {"started": started, "ended": _now(), "count": count, "workers": workers, "entry": file.name}
    networks = dict(table.groupby("row", sort=False)["digest"].first())
    _record(out, record | {"networks": networks, **environment()})
    return entry, table


def ending_with_us() -> None:
    """For a child between fork and exec, on Linux: it ends when this process does, killed or not."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _run_script(file: Path, experiment: Experiment, out: Path, count: int | None) -> None:
    """A script in a process of its own, which says itself how far it is."""
    arguments = [sys.executable, str(file), "--out", str(out), *experiment.arguments]
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


def _record(out: Path, run: dict[str, Any]) -> None:
    """Add a run to the folder's provenance, which keeps those that its results may still come from."""
    file = out / PROVENANCE
    runs, problem = read_runs(file)
    if problem:
        set_aside(file)
    text = json.dumps({"runs": [*runs, run]}, indent=1, ensure_ascii=False)
    replace_file(file, f"{text}\n".encode())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
