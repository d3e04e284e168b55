"""`results`: look at, check, export, compact and watch the folders that sweeps write."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.options import everywhere
from toolkit.data.names import printable, printable_frame

results_app = typer.Typer(no_args_is_help=True, help="Look at, check, export, compact and watch results folders.")


def _swept(folder: Path) -> Path:
    """The folder itself. Raises FileNotFoundError for one that holds no rows and no plan: it is neither whole nor empty
    results, but something else."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no results folder at {folder}")
    if not any((folder / name).exists() for name in ("plan.parquet", "provenance.json", "rows.parquet", "shards")):
        raise FileNotFoundError(f"no sweep has run in {folder}")
    return folder


@results_app.command("ls")
@everywhere
def list_folders(root: Annotated[Path, typer.Argument(help="Where to look.")] = Path("results")) -> None:
    """Results folders at or below ROOT: rows of rows planned, failures, last run.

    Example: relugap results ls results
    """
    from toolkit.runs.sweep.results import list_results

    if not root.is_dir() and root != Path("results"):
        raise FileNotFoundError(f"no folder at {root}")
    frame = printable_frame(list_results(root))
    typer.echo(printable(f"no results folders in {root}") if frame.empty else frame.to_string(index=False))


@results_app.command()
@everywhere
def show(folder: Annotated[Path, typer.Argument(help="A results folder.")]) -> None:
    """Rows per rung and status, seconds per rung, and in which respects the runs behind them differ.

    Example: relugap results show results/demo
    """
    from toolkit.runs.sweep.results import summarize

    summary = summarize(_swept(folder))
    typer.echo(summary.statuses.rename(index=printable, columns=printable).to_string())
    typer.echo("\nseconds per rung")
    typer.echo(summary.seconds.rename(index=printable).to_string(float_format=lambda value: f"{value:.2f}"))
    for line in summary.mixes:
        typer.echo(printable(f"mixed: {line}"))


@results_app.command()
@everywhere
def export(
    folder: Annotated[Path, typer.Argument(help="A results folder.")],
    target: Annotated[Path, typer.Argument(help="A .csv, .parquet or .jsonl file.")],
    everything: Annotated[bool, typer.Option("--everything", help="Also rows of earlier specs.")] = False,
) -> None:
    """All rows in one file, every column at full precision.

    Example: relugap results export results/demo rows.csv
    """
    from toolkit.runs.sweep.results import export_rows

    typer.echo(printable(f"wrote {export_rows(_swept(folder), target, everything)}"))


@results_app.command("verify")
@everywhere
def verify_command(folder: Annotated[Path, typer.Argument(help="A results folder.")]) -> None:
    """Whether a folder is whole: lines, keys, runs, rows that contradict themselves. Exit code 1 on errors.

    Example: relugap results verify results/demo
    """
    from toolkit.runs.sweep.results import findings_text, verify_folder

    findings = verify_folder(_swept(folder))
    typer.echo(findings_text(findings) or printable(f"{folder} is whole"))
    if any(finding.error for finding in findings):
        raise typer.Exit(1)


@results_app.command("compact")
@everywhere
def compact_command(folder: Annotated[Path, typer.Argument(help="A results folder.")]) -> None:
    """Move a folder's shards into one Parquet file.

    Example: relugap results compact results/demo
    """
    from toolkit.runs.sweep.results import compact_results

    typer.echo(printable(f"{compact_results(_swept(folder))} rows in {folder / 'rows.parquet'}"))


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
