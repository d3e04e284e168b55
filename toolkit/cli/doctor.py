"""`doctor`: prints what toolkit.cli.diagnosis finds."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from toolkit.cli.diagnosis import data_found, machine, packages, solvers_found
from toolkit.data.names import markup_text
from toolkit.data.registry import place
from toolkit.networks.published import PUBLISHED


def print_diagnosis() -> bool:
    """Print everything; returns whether some solver passed its check."""
    console = Console()
    console.print(machine(), highlight=False)
    solvers = solvers_found()
    grid = _table("solver", "version", "licence", "model size", "check")
    for solver in solvers:
        mark = "[green]passed[/]" if solver.passed else f"[red]{markup_text(solver.problem)}[/]"
        grid.add_row(solver.name, solver.version or "–", solver.licence, solver.limit, mark)
    console.print(grid)
    grid = _table("package", "version", "needed for")
    for package in packages():
        grid.add_row(package.name, package.version or "[yellow]missing[/]", markup_text(package.purpose))
    console.print(grid)
    grid = _table("data set", "split", "found", "where")
    for data in data_found():
        grid.add_row(
            data.name, data.split, "[green]yes[/]" if data.available else "[yellow]no[/]", markup_text(data.where)
        )
    console.print(grid)
    grid = _table("published network", "found", "paper")
    for network in PUBLISHED.values():
        here = place(network.file).is_file()
        mark = "[green]yes[/]" if here else "[yellow]no, fetched when asked for[/]"
        grid.add_row(f"published:{network.name}", mark, network.paper.split(",")[0])
    console.print(grid)
    return any(solver.passed for solver in solvers)


def _table(*columns: str) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        grid.add_column(name, overflow="fold")
    return grid
