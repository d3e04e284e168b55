"""`demo`, `sweep` and `report`: from a spec to rows, from rows to the gap table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from toolkit.data.names import printable
from toolkit.data.shipped_specs import shipped_spec
from toolkit.report import gap_table, terminal_table, write_report
from toolkit.report.html import write_html
from toolkit.report.html_page import plotly_script, run_networks
from toolkit.report.html_views import RADII, read_view, view_of, write_radii_html, write_scorecard_html
from toolkit.runs.distances import distance_table
from toolkit.runs.provenance import read_provenance
from toolkit.runs.scorecard import totals
from toolkit.runs.store import read_rows
from toolkit.runs.sweep.results import mixed
from toolkit.runs.sweep.run import run_sweep
from toolkit.runs.sweep.spec import load_spec

DEMO = "demo.toml"
HOW_TO_READ = (
    "Every lower bound is ≤ m*, the exact worst-case margin over the ball; m* − bound is what a rung gives away.",
    "tightness: the share of the fall from the clean margin that is real (1 = exact).",
    "certified: images all of whose margins are proven > 0. decided: certified, or refuted by a point of the ball that "
    "the network misclassifies.",
)


def run_demo(out: Path, workers: int | None) -> None:
    """The demo sweep, its gap table and where to look next."""
    rows = run_sweep(demo_spec(), out, workers=workers)
    written = write_report(rows, out, networks=_networks_of(out))
    console = Console()
    _print_table(console, rows)
    for line in HOW_TO_READ:
        console.print(line, highlight=False)
    console.print()
    _print_written(console, written, out)
    rows_at, runs_at = printable(out / "rows.parquet"), printable(out / "provenance.json")
    console.print(f"Rows and where they come from: {rows_at}, {runs_at}", highlight=False, markup=False)
    first = f"Look at {printable(out / 'tightness.png')} first, then at {printable(out / 'table.md')}."
    console.print(first, highlight=False, markup=False)


def demo_spec() -> Path:
    """experiments/demo.toml of the working folder, else of the package, else of the checkout it is installed from."""
    found = shipped_spec(DEMO)
    if found is None:
        raise FileNotFoundError(f"no experiments/{DEMO} here, in the package or beside it; install relugap again")
    return found


def run_spec(
    spec: Path,
    out: Path | None,
    workers: int | None,
    rerun: str | None = None,
    max_hours: float | None = None,
    dask: str | None = None,
) -> None:
    """A sweep; says how many rows there are and how to report them."""
    folder = out or Path("results") / load_spec(spec).name
    rows = run_sweep(spec, folder, workers=workers, rerun=rerun, max_hours=max_hours, dask=dask)
    failed = int((rows["status"] == "failed").sum())
    note = f", {failed} of them failed (see the column message)" if failed else ""
    console = Console()
    console.print(f"{len(rows)} rows in {printable(folder)}{note}", highlight=False, markup=False)
    console.print(f"Tables and figures: relugap report {printable(folder)}", highlight=False, markup=False)


def run_report(folder: Path, out: Path | None, formats: Sequence[str], tolerance: float, html: bool = False) -> None:
    """Tables and figures of a sweep's folder, report.html if asked for; of radii or a scorecard only that page."""
    if (kind := view_of(folder)) is not None:
        _write_view(kind, folder, out or folder, html)
        return
    rows = read_rows(folder)
    if html:
        plotly_script()  # a missing package is told before anything is written
    written = write_report(rows, out or folder, formats, tolerance, _networks_of(folder))
    if html:
        written.append(write_html(rows, (out or folder) / "report.html", read_provenance(folder), tolerance))
    console = Console()
    _print_table(console, rows)
    for line in mixed(rows, read_provenance(folder)):
        console.print(f"mixed: {printable(line)}", highlight=False, markup=False)
    _print_written(console, written, out or folder)


def _write_view(kind: str, folder: Path, out: Path, html: bool) -> None:
    """The page of a folder whose tables are written already."""
    if not html:
        raise ValueError(f"{printable(folder)} holds {kind}, whose tables are written already; --html writes a page")
    table, runs = read_view(folder / kind), read_provenance(folder)
    write, summarise = (write_radii_html, distance_table) if kind == RADII else (write_scorecard_html, totals)
    page = write(table, out / "report.html", runs, summarise)
    _print_written(Console(), [page], out)


def _networks_of(folder: Path) -> list[str]:
    """The networks' names as the latest run lists them."""
    runs = read_provenance(folder)
    return [printable(name) for name, _ in run_networks(runs[-1])] if runs else []


def _print_table(console: Console, rows: pd.DataFrame) -> None:
    console.print(terminal_table(gap_table(rows)))


def _print_written(console: Console, written: Sequence[Path], folder: Path) -> None:
    names = ", ".join(path.name for path in written)
    console.print(f"Written to {printable(folder)}: {names}", highlight=False, markup=False)
