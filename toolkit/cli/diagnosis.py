"""What this installation can do: solvers with licence and limits, optional packages, data sets."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass

import numpy as np

from toolkit.data.datasets import DataStatus, find_data
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.answers import Status
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.solvers.registry import SOLVERS
from toolkit.solvers.session import Solver
from toolkit.verify.margins import margins

OPTIONAL = {
    "torch": "training, .pth files: pip install 'relugap[train]'",
    "onnx": "ONNX models: pip install 'relugap[onnx]'",
    "onnxruntime": "tests of ONNX import: pip install 'relugap[onnx]'",
    "distributed": "clusters: pip install 'relugap[cluster]'",
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
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {cores} usable cores"


def solvers_found() -> list[SolverFound]:
    """Every solver: version, licence, size limit, and whether it finds a margin known in closed form."""
    found = []
    for solver in SOLVERS.values():
        licence = solver.status()
        limit = f"≤ {licence.size_limit} variables" if licence.size_limit else "any" if licence.usable else "–"
        problem = "" if licence.usable else licence.reason
        found.append(SolverFound(solver.name, solver.version(), licence.kind, limit, problem or check(solver)))
    return found


def check(solver: Solver) -> str:
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
    return [Package(name, _version(name), purpose) for name, purpose in {**CORE, **OPTIONAL}.items()]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def data_found() -> list[DataStatus]:
    """Where each data set would be read from."""
    return find_data()
