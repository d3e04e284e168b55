"""`results`: look at, check, export, compact and watch the folders that sweeps write."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.json_output import print_json
from toolkit.cli.options import AsJson, everywhere
from toolkit.data.names import printable, printable_frame

if TYPE_CHECKING:
    from toolkit.runs.sweep.results import ResultsSummary

results_app = typer.Typer(no_args_is_help=True, help="Look at, check, export, compact and watch results folders.")


OF_OTHERS = ("radii.csv", "scorecard.csv", "images.parquet", "table.csv")  # in folders that are no sweep's
ResultsFolder = Annotated[Path, typer.Argument(help="A results folder.")]


def _facts(summary: ResultsSummary) -> dict[str, object]:
    """A results folder at a glance, as `--json` has it."""
    statuses = summary.statuses.reset_index().to_dict("records")
    return {
        "name": summary.name, "rows": summary.rows, "planned": summary.planned, "other_rows": summary.other_rows,
        "statuses": statuses, "seconds": summary.seconds.to_dict(), "runs": len(summary.runs), "mixes": summary.mixes,
        "owner": summary.owner,
    }  # fmt: skip


def _swept(folder: Path) -> Path:
    """The folder itself. Raises FileNotFoundError for one that holds no rows and no plan, ValueError for one that
    another command wrote: it is neither whole nor empty results, but something else."""
    from toolkit.runs.provenance import PROVENANCE, read_runs

    if not folder.is_dir():
        raise FileNotFoundError(f"no results folder at {folder}")
    if any((folder / name).exists() for name in ("plan.parquet", "rows.parquet", "shards")):
        return folder
    runs, problem = read_runs(folder / PROVENANCE)
    if not runs and not problem:
        raise FileNotFoundError(f"no sweep has run in {folder}")
    if runs and "spec" not in runs[-1]:
        held = next((name for name in OF_OTHERS if (folder / name).exists()), "what another command wrote")
        raise ValueError(f"{folder} must hold the rows of a sweep, it holds {held}")
    return folder


@results_app.command("ls")
@everywhere
def list_folders(
    root: Annotated[Path, typer.Argument(help="Where to look.")] = Path("results"), as_json: AsJson = False
) -> None:
    """Results folders at or below ROOT: rows of rows planned, failures, last run.

    Example: relugap results ls results
    """
    from toolkit.runs.sweep.results import list_results

    if not root.is_dir() and root != Path("results"):
        raise FileNotFoundError(f"no folder at {root}")
    if as_json:
        return print_json("results ls", {"folders": list_results(root).to_dict("records")})
    frame = printable_frame(list_results(root))
    typer.echo(printable(f"no results folders in {root}") if frame.empty else frame.to_string(index=False))
    return None


@results_app.command()
@everywhere
def show(folder: ResultsFolder, as_json: AsJson = False) -> None:
    """Rows per rung and status, seconds per rung, and in which respects the runs behind them differ.

    Example: relugap results show results/demo
    """
    from toolkit.runs.sweep.results import summarize

    summary = summarize(_swept(folder))
    if as_json:
        return print_json("results show", _facts(summary))
    typer.echo(summary.statuses.rename(index=printable, columns=printable).to_string())
    typer.echo("\nseconds per rung")
    typer.echo(summary.seconds.rename(index=printable).to_string(float_format=lambda value: f"{value:.2f}"))
    for line in summary.mixes:
        typer.echo(printable(f"mixed: {line}"))
    return None


@results_app.command()
@everywhere
def export(
    folder: Annotated[Path, typer.Argument(help="A results folder.")],
    target: Annotated[Path, typer.Argument(help="A .csv, .parquet or .jsonl file.")],
    everything: Annotated[bool, typer.Option("--everything", help="Also rows of earlier specs.")] = False,
    as_json: AsJson = False,
) -> None:
    """All rows in one file, every column at full precision.

    Example: relugap results export results/demo rows.csv
    """
    from toolkit.runs.sweep.results import export_rows

    written = export_rows(_swept(folder), target, everything)
    if as_json:
        return print_json("results export", {"written": written})
    typer.echo(printable(f"wrote {written}"))
    return None


@results_app.command("verify")
@everywhere
def verify_command(folder: ResultsFolder, as_json: AsJson = False) -> None:
    """Whether a folder is whole: lines, keys, runs, rows that contradict themselves. Exit code 1 on errors.

    Example: relugap results verify results/demo
    """
    from toolkit.runs.sweep.results import findings_text, verify_folder

    findings = verify_folder(_swept(folder))
    whole = not any(finding.error for finding in findings)
    if as_json:
        print_json("results verify", {"whole": whole, "findings": [asdict(finding) for finding in findings]})
    else:
        typer.echo(findings_text(findings) or printable(f"{folder} is whole"))
    if not whole:
        raise typer.Exit(1)


@results_app.command("compact")
@everywhere
def compact_command(folder: ResultsFolder, as_json: AsJson = False) -> None:
    """Move a folder's shards into one Parquet file.

    Example: relugap results compact results/demo
    """
    from toolkit.runs.sweep.results import compact_results

    rows = compact_results(_swept(folder))
    if as_json:
        return print_json("results compact", {"rows": rows, "written": folder / "rows.parquet"})
    typer.echo(printable(f"{rows} rows in {folder / 'rows.parquet'}"))
    return None


@results_app.command("watch")
@everywhere
def watch_command(
    folder: Annotated[Path, typer.Argument(help="A results folder.")],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
) -> None:
    """Follow a sweep that runs elsewhere until it ends.

    Example: relugap results watch results/demo
    """
    from toolkit.runs.sweep.results import watch

    watch(folder, every)
