"""`scorecard`: all instances of a benchmark folder, verdict by verdict, beside official results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def scorecard_command(
    instances: Annotated[Path, typer.Argument(help="A CSV of onnx,vnnlib,timeout, as VNN-COMP has it.")],
    official: Annotated[
        Path | None, typer.Option(help="A CSV of official results: columns benchmark, onnx, vnnlib, verdict.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results.", show_default="results/scorecard-FOLDER")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds an instance, at most; else what the CSV says.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    count: Annotated[int | None, typer.Option(min=1, help="The first COUNT instances only.")] = None,
) -> None:
    """Verify every instance of a benchmark; answers that are there already are not computed again.

    Writes scorecard.csv, scorecard.md and provenance.json. Exit code 1 where a verdict contradicts the official one.

    Example: relugap scorecard acasxu/instances.csv --timeout 60 --official expected.csv
    """
    from rich.console import Console
    from rich.text import Text

    from toolkit.data.names import printable
    from toolkit.runs.lock import folder_lock
    from toolkit.runs.outputs import write_files
    from toolkit.runs.progress import RunProgress
    from toolkit.runs.provenance import recorded_run
    from toolkit.runs.scorecard import compared, markdown, read_instances, read_official, run_instances, totals

    asked = read_instances(instances, timeout)[:count]
    known = {} if official is None else read_official(official)
    folder = out or Path("results") / f"scorecard-{instances.absolute().parent.name}"
    details = {"instances": len(asked), "timeout": timeout, "workers": workers, "official": len(known)}
    with folder_lock(folder), recorded_run(folder, {"details": details}) as run, RunProgress() as progress:
        rows = run_instances(asked, folder, str(run["run_id"]), workers, progress.advance)
        table = compared(rows, known)
        sums = totals(table)
        write_files(folder, {"scorecard.csv": table, "scorecard.md": markdown(table, sums)})
    console = Console()
    console.print(sums.to_string(index=False), highlight=False, markup=False)
    wrong = table[table["agrees"] == "WRONG"]
    for row in wrong.itertuples():
        told = f"WRONG: {row.benchmark} {row.onnx} {row.vnnlib} is {row.official}, we say {row.verdict}"
        console.print(Text(printable(told), style="bold red"))
    console.print(f"written to {printable(folder)}", highlight=False, markup=False)
    if len(wrong):
        raise typer.Exit(1)
