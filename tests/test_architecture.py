"""The import order of the package, and what it may need to be installed: read from the source and tried."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import toolkit

ROOT = Path(__file__).parents[1]
# Each group may import from itself and from groups above it, at module level.
ORDER = (
    ("layers", "network", "balls", "idx", "data"),
    ("problem",),
    ("template", "compiled", "session", "solvers", "rungs"),
    ("layer_bounds", "margins", "certify"),
    ("store", "sweep", "training", "report"),
    ("reproduce",),
    ("cli",),
)
RANK = {name: rank for rank, group in enumerate(ORDER) for name in group}
OPTIONAL = ("torch", "onnx", "onnxruntime", "dask", "distributed", "pyscipopt")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted((ROOT / "toolkit").rglob("*.py"))}


def top_level_imports(name: str) -> set[str]:
    """Modules imported when `name` is: import statements outside functions and TYPE_CHECKING blocks."""
    found = set()
    waiting = list(ast.parse(SOURCES[name].read_text(encoding="utf-8")).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & set(SOURCES)
            found |= inside or {str(node.module)}
        elif isinstance(node, ast.If | ast.Try | ast.With) and "TYPE_CHECKING" not in ast.unparse(node).splitlines()[0]:
            waiting += ast.iter_child_nodes(node)
    return found


GRAPH = {name: top_level_imports(name) for name in SOURCES}


def place(name: str) -> str:
    """The part of the package a module belongs to: toolkit.rungs.dual → rungs."""
    return name.split(".")[1] if "." in name else ""


def test_imports_are_found_at_all() -> None:
    assert "toolkit.balls" in GRAPH["toolkit.problem"]
    assert {"numpy", "toolkit.rungs"} <= GRAPH["toolkit.layer_bounds"]
    assert "torch" not in GRAPH["toolkit"]


def test_imports_are_free_of_cycles() -> None:
    inside = {
        name: {other for other in found if other in SOURCES and other != "toolkit"} for name, found in GRAPH.items()
    }
    # a package and its own modules count as one where the package hands their names on
    TopologicalSorter(inside).prepare()


def test_imports_run_one_way() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, found in GRAPH.items()
        for other in found
        if place(name) in RANK and place(other) in RANK and other in SOURCES and RANK[place(name)] < RANK[place(other)]
    ]
    assert not wrong


def test_only_the_command_line_imports_the_command_line() -> None:
    assert not [name for name, found in GRAPH.items() if place(name) != "cli" and any(place(o) == "cli" for o in found)]


@pytest.mark.parametrize("package", ["pyomo", "torch", "toolkit.rungs", "toolkit.template", "toolkit.solvers"])
def test_report_needs_frames_only(package: str) -> None:
    reached, waiting = set(), [name for name in SOURCES if place(name) == "report"]
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting += [other for other in GRAPH.get(name, ()) if other not in reached]
    assert "toolkit.report.tables" in reached
    assert not [name for name in reached if name == package or name.startswith(f"{package}.")]


def test_public_names_are_complete_and_true() -> None:
    assert sorted(toolkit.PUBLIC) == sorted(toolkit.__all__)
    for name in toolkit.__all__:
        assert getattr(toolkit, name).__name__ == name, name
    assert callable(toolkit.margins)  # not the submodule of that name
    assert callable(toolkit.layer_bounds)
    with pytest.raises(AttributeError, match="read-only"):
        toolkit.margins = None


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
