"""`doctor`: what this installation can do: solvers with licence and limits, optional packages, data sets."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import asdict, dataclass

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from toolkit.cli.json_output import print_json
from toolkit.data.datasets import find_data
from toolkit.data.extras import install_line
from toolkit.data.names import markup_text
from toolkit.data.registry import place
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.networks.published import PUBLISHED
from toolkit.problems.answers import Status
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.runs.executors import usable_cpus
from toolkit.solvers.registry import SOLVERS
from toolkit.solvers.session import Solver
from toolkit.verify.margins import margins

OPTIONAL = {
    "torch": "training, torch modules:",
    "onnx": "ONNX models:",
    "onnxruntime": "tests of ONNX import:",
    "distributed": "clusters:",
}
CORE = {
    "relugap": "",
    "numpy": "bounds",
    "scipy": "sparse maps",
    "pyomo": "the MILP and the LP",
    "pandas": "tables",
    "pyarrow": "results on disk",
    "matplotlib": "figures",
}


@dataclass(frozen=True)
class SolverFound:
    """One entry of SOLVERS on this machine. problem: why it cannot be used, "" if it passed its check."""

    name: str
    version: str
    licence: str
    limit: str
    problem: str

    @property
    def passed(self) -> bool:
        """Usable, and right about the network whose exact margin is known."""
        return not self.problem


@dataclass(frozen=True)
class Package:
    """An installed or missing distribution; version "" = missing."""

    name: str
    version: str
    purpose: str


def machine() -> str:
    """Python, system and usable cores in one line."""
    system = f"{platform.system()} {platform.machine()}"
    return f"Python {platform.python_version()} on {system}, {usable_cpus()} usable cores"


def solvers_found() -> list[SolverFound]:
    """Every solver: version, licence, size limit, and whether it finds a margin known in closed form."""
    found = []
    for solver in SOLVERS.values():
        licence = solver.status()
        limit = f"≤ {licence.size_limit} variables" if licence.size_limit else "any" if licence.usable else "–"
        problem = "" if licence.usable else licence.reason
        found.append(SolverFound(solver.name, solver.version(), licence.kind, limit, problem or solver_fault(solver)))
    return found


def solver_fault(solver: Solver) -> str:
    """What is wrong with the solver's exact margin of a network whose m* is known; "" if nothing is.

    F₀ − F₁ = |x₁| + |x₂| − 1/2 on the ball of radius 1 around (1/4, −1/4), so m* = −1/2, attained at the origin; both
    neurons of each |·| are unstable and the LP alone stays below it.
    """
    hidden = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    network = Network([Dense(hidden, np.zeros(4)), Dense(np.array([[1.0] * 4, [0.0] * 4]), np.array([-0.5, 0.0]))])
    [bound] = margins(network, LinfBall([0.25, -0.25], 1.0), 0, "exact", settings=Settings(solver=solver.name))
    if bound.solver != solver.name:
        return bound.message or f"{bound.solver} answered in its place"
    if bound.status is not Status.OPTIMAL:
        return f"{bound.status}: {bound.message}"
    right = abs(bound.lower + 0.5) <= 1e-4 and abs(bound.upper + 0.5) <= 1e-4
    return "" if right else f"m* = -0.5 reported as [{bound.lower}, {bound.upper}]"


def packages() -> list[Package]:
    """The core packages and the optional ones, with their versions."""
    optional = {name: f"{purpose} {install_line(name)}" for name, purpose in OPTIONAL.items()}
    return [Package(name, _version(name), purpose) for name, purpose in {**CORE, **optional}.items()]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def print_diagnosis(as_json: bool = False) -> bool:
    """Print everything; returns whether some solver passed its check."""
    if as_json:
        return _print_json()
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
    for data in find_data():
        grid.add_row(
            data.name, data.split, "[green]yes[/]" if data.available else "[yellow]no[/]", markup_text(data.where)
        )
    console.print(grid)
    grid = _table("published network", "found", "paper")
    for network in PUBLISHED.values():
        here = all(place(file).is_file() for file in network.files)
        mark = "[green]yes[/]" if here else "[yellow]no, fetched when asked for[/]"
        grid.add_row(f"published:{network.name}", mark, network.paper.split(",")[0])
    console.print(grid)
    return any(solver.passed for solver in solvers)


def _print_json() -> bool:
    solvers = solvers_found()
    passed = any(solver.passed for solver in solvers)
    print_json(
        "doctor",
        {
            "machine": machine(),
            "solvers": [{**asdict(solver), "passed": solver.passed} for solver in solvers],
            "packages": [asdict(package) for package in packages()],
            "data": [asdict(data) for data in find_data()],
            "published": [
                {
                    "name": f"published:{network.name}",
                    "available": all(place(file).is_file() for file in network.files),
                    "paper": network.paper,
                }
                for network in PUBLISHED.values()
            ],
            "passed": passed,
        },
    )
    return passed


def _table(*columns: str) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        grid.add_column(name, overflow="fold")
    return grid
