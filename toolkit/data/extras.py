"""Optional packages, and the one sentence that says how to get them."""

from __future__ import annotations

EXTRAS = {  # importable name → the extra of relugap that brings it; "" = it comes with relugap itself
    "torch": "train",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "dask": "cluster",
    "distributed": "cluster",
    "pyscipopt": "scip",
    "plotly": "html",
    "gurobipy": "",
}


def install_line(package: str) -> str:
    """The command that brings a package; with double quotes, which every shell takes, Windows' included."""
    extra = EXTRAS.get(package, "")
    return f'pip install "relugap[{extra}]"' if extra else f"pip install {package}"


def not_installed(package: str, purpose: str = "") -> ModuleNotFoundError:
    """The error to raise where a package is missing. purpose: what it is needed for, as in "reading ONNX files"."""
    said = f"{purpose} needs {package}: " if purpose else f"{package} is not installed: "
    return ModuleNotFoundError(f"{said}{install_line(package)}", name=package)
