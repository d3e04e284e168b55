"""Without an optional package, whoever needs it says in one sentence how to get it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.data.extras import EXTRAS, install_line

# Each in a process where none of the packages can be imported; the sentence may be an error's or a report's.
NEEDS = {
    "torch": (
        "Network.from_torch(object())",
        "main(['train', 'experiments/zoo.toml', '--out', 'networks'])",
        "toolkit.search.array_makers.in_torch()",
    ),
    "onnx": ("Network.load('a.onnx')", "main('certify a.onnx --data digits --index 0 --eps 0.1'.split())"),
    "onnxruntime": ("toolkit.networks.onnx_runtime.deployed_outputs('a.onnx', [0])",),
    "distributed": ("run_sweep(SPEC, 'b', dask='local')", "main(['sweep', SPEC, '--out', 'c', '--dask', 'local'])"),
    "pyscipopt": ("print(bound('scip'))",),
    "gurobipy": ("print(bound('gurobi'))",),
    "plotly": ("toolkit.report.html.plotly_script()", "main(['report', 'rows', '--html'])"),
}  # fmt: skip
CODE = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {tuple(EXTRAS)}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import contextlib, importlib.util, io, pathlib
whole = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.partition(".")[0] in {tuple(EXTRAS)} else whole(name)
import toolkit, toolkit.search.array_makers, toolkit.networks.onnx_runtime, toolkit.report.html
from toolkit import *
from toolkit.cli import main
pathlib.Path("a.onnx").write_bytes(b"x")
SPEC = 'small.toml'
pathlib.Path(SPEC).write_text('name = "s"\\nsamples = 1\\neps = [0.01]\\nrungs = ["dual"]\\n'
    '[[networks]]\\nsource = "zoo:digits-standard"\\ndataset = "digits"\\n')
run_sweep(SPEC, "rows", workers=1)
network, data = Network.load("zoo:digits-standard"), load_dataset("digits")
def bound(solver):
    ball = LinfBall(data.images[0], 0.1)
    return margins(network, ball, int(data.labels[0]), "lp", targets=[1], settings=Settings(solver=solver))[0].message
for package, needs in {NEEDS!r}.items():
    for need in needs:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                exec(need)
            except (ImportError, ValueError) as error:
                print(error)
        print("SAID", package, " ".join(said.getvalue().split()), sep="|")
"""


def test_every_error_names_the_extra(tmp_path: Path) -> None:
    found = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    lines = [line.split("|") for line in found.stdout.splitlines() if line.startswith("SAID")]
    assert len(lines) == sum(map(len, NEEDS.values()))
    for _, package, said in lines:
        assert install_line(package) in said, (package, said)


@pytest.mark.parametrize("package", EXTRAS)
def test_extras_are_those_of_the_package(package: str) -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = project["optional-dependencies"][EXTRAS[package]] if EXTRAS[package] else project["dependencies"]
    assert any(one.startswith(package) for one in listed)
