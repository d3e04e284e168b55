"""The import order of the package, and what it may need to be installed: read from the source and tried."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import toolkit

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "toolkit"
# Folders from the lowest on; a module imports from its own folder and from lower ones. One line, one rank.
ORDER = (
    ("arrays",),
    ("data",),
    ("networks",),
    ("problems",),
    ("solvers", "certificates", "relaxations"),
    ("search",),
    ("rungs",),
    ("verify",),
    ("runs",),
    ("report",),
    ("training",),
    ("cli",),
)
RANK = {folder: rank for rank, folders in enumerate(ORDER) for folder in folders}
NOT_CODE = ("py.typed", "zoo")
OPTIONAL = ("torch", "onnx", "onnxruntime", "dask", "distributed", "pyscipopt")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__main__.py"}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def imports(name: str, only_top_level: bool = False) -> set[str]:
    """Modules that a module imports anywhere: in functions and TYPE_CHECKING blocks as well, unless told otherwise."""
    found: set[str] = set()
    waiting: list[ast.AST] = list(TREES[name].body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & set(SOURCES)
            found |= inside or {str(node.module)}
        elif not only_top_level or (
            isinstance(node, ast.If | ast.Try | ast.With) and "TYPE_CHECKING" not in ast.unparse(node).splitlines()[0]
        ):
            waiting += ast.iter_child_nodes(node)
    return found


GRAPH = {name: imports(name) for name in SOURCES}
LOADED = {name: imports(name, only_top_level=True) for name in SOURCES}


def folder(name: str) -> str:
    """The part of the package a module belongs to: toolkit.rungs.dual → rungs."""
    return name.split(".")[1] if "." in name else ""


def reached_from(start: str) -> set[str]:
    """Every module loaded when one of the folder `start` is."""
    reached: set[str] = set()
    waiting = [name for name in SOURCES if folder(name) == start]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += LOADED.get(name, ())
            waiting += [parent for parent in (name.rpartition(".")[0],) if parent in SOURCES]
    return reached


def test_imports_are_found_at_all() -> None:
    assert "toolkit.problems.input_set" in GRAPH["toolkit.problems.problem"]
    assert "numpy" in GRAPH["toolkit.verify.layer_bounds"]
    assert "torch" not in GRAPH["toolkit"]


def test_every_entry_of_the_package_has_a_rank() -> None:
    entries = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if not path.name.startswith("_")}
    assert entries == {*RANK, *NOT_CODE}
    assert all(folder(name) in RANK for name in SOURCES if name != "toolkit")


def test_no_import_hides_a_cycle() -> None:
    """Imports inside functions count as well, so that none can hide one."""
    inside = {name: {o for o in found if o in SOURCES and o not in ("toolkit", name)} for name, found in GRAPH.items()}
    del inside["toolkit"]  # hands on names of every folder, on first use
    TopologicalSorter(inside).prepare()


def test_imports_run_downwards() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, found in GRAPH.items()
        for other in found
        if name != "toolkit" and other in SOURCES and RANK[folder(name)] < RANK.get(folder(other), -1)
    ]
    assert not wrong


@pytest.mark.parametrize("package", ["pyomo", "highspy", "torch", "toolkit.solvers", "toolkit.search", "toolkit.rungs"])
def test_certificates_trust_no_solver(package: str) -> None:
    reached = reached_from("certificates")
    assert "toolkit.certificates.check" in reached
    assert not [name for name in reached if name == package or name.startswith(f"{package}.")]


@pytest.mark.parametrize("package", ["pyomo", "torch", "toolkit.relaxations", "toolkit.solvers", "toolkit.search"])
def test_report_needs_frames_only(package: str) -> None:
    reached = reached_from("report")
    assert "toolkit.report.tables" in reached
    assert not [name for name in reached if name == package or name.startswith(f"{package}.")]


def test_names_mean_one_thing_each() -> None:
    """No public class, function or constant is defined in two modules."""
    places = defaultdict(list)
    for name, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                places[node.name].append(name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    if isinstance(target, ast.Name):
                        places[target.id].append(name)
    allowed = ("RUNG", "main", "__all__", "__getattr__", "__dir__")  # RUNG: in every file of rungs/; main: of commands
    assert {n: where for n, where in places.items() if len(where) > 1 and n[0] != "_" and n not in allowed} == {}


def test_public_names_are_complete_and_true() -> None:
    assert sorted(toolkit.PUBLIC) == sorted(toolkit.__all__)
    for name in toolkit.__all__:
        assert getattr(toolkit, name).__name__ == name, name
    assert not [name for name in toolkit.__all__ if f"toolkit.{name}" in SOURCES]  # a module would take its place
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        toolkit.nonsense  # noqa: B018


def run_python(code: str) -> str:
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_everything_but_training_works_without_the_extras() -> None:
    """The public names, the command line and a certificate, with every optional package absent."""
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import toolkit
for name in toolkit.__all__:
    getattr(toolkit, name)
from toolkit.cli import main
assert main("certify zoo:digits-standard --data digits --index 0 --eps 0.01 --solver highs".split()) == 0
assert main("train experiments/zoo.toml --out /nowhere".split()) == 2
"""
    found = run_python(code)
    assert "target" in found


def test_help_and_the_package_load_nothing_heavy() -> None:
    code = """
import sys
import toolkit
from toolkit.cli import main
assert main(["--help"]) == 0 and main(["certify", "--help"]) == 0
heavy = {"torch", "pyomo", "pandas", "matplotlib", "scipy", "pyarrow", "highspy"} & set(sys.modules)
assert not heavy, heavy
"""
    assert "relugap" in run_python(code)


def folder_graph() -> dict[str, set[str]]:
    """Folder → folders it imports from, without those that another of them already stands on."""
    direct: dict[str, set[str]] = {name: set() for name in RANK}
    for name, found in GRAPH.items():
        if name != "toolkit":
            direct[folder(name)] |= {folder(other) for other in found if other in SOURCES} - {folder(name), ""}

    def below(start: str) -> set[str]:
        return direct[start] | {far for near in direct[start] for far in below(near)}

    return {name: {o for o in found if not any(o in below(p) for p in found - {o})} for name, found in direct.items()}


def mermaid() -> str:
    edges = sorted(f"    {name} --> {other}" for name, found in folder_graph().items() for other in found)
    return "\n".join(["```mermaid", "graph TD", *edges, "```"])


def test_the_picture_of_the_folders_is_drawn_from_the_imports() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert mermaid() in page, f"put this into docs/architecture.md:\n{mermaid()}"
    assert {line.split("|")[1].strip(" `/") for line in page.splitlines() if line.startswith("| `")} >= set(RANK)


def test_reading_results_loads_no_pyomo() -> None:
    """Tables and their checks ask the registry of rungs, none of which loads the model before one is built."""
    code = """
import sys
import pandas as pd
from tests.stored_rows import numbered
from toolkit import check_order, gap_table
from toolkit.rungs import RUNGS
rows = pd.DataFrame([row.__dict__ for row in numbered(3)])
check_order(rows)
assert len(gap_table(rows)) and "lp" in RUNGS
assert not {"pyomo", "highspy", "torch"} & set(sys.modules)
from toolkit.runs.workers import PRELOADED
assert PRELOADED == ["toolkit.runs.sweep.compute"]
import toolkit.runs.sweep.compute
assert "pyomo.environ" in sys.modules  # with the workers, in no task's time
"""
    run_python(code)
