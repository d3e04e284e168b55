"""Where rows come from: one entry a run in OUT/provenance.json, which every row's run_id points to.

Recorded: spec, seed, network digests, code version and commit, package and solver versions, licence kinds, machine
kind, workers and threads, start and end in UTC, row counts. Not recorded: host and user names, absolute paths.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import uuid
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolkit.data.archives import checked_list, parse_json
from toolkit.data.names import path_name
from toolkit.runs.store import DamagedResultsWarning, read_rows, replace_file, set_aside
from toolkit.runs.sweep.plan import Plan
from toolkit.runs.sweep.spec import SweepSpec
from toolkit.solvers.registry import SOLVERS

PROVENANCE = "provenance.json"
FORMAT = 1
PACKAGES = ("relugap", "numpy", "scipy", "pyomo", "highspy", "gurobipy", "pandas", "pyarrow", "scikit-learn", "mlxtend",
            "torch")  # fmt: skip
RUN_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("run_id", "started", "outcome", "spec_text", "python"), (str,)),
    "ended": (str, type(None)),
    **dict.fromkeys(("rows", "spec", "relugap", "packages", "solvers", "platform"), (dict,)),
    "networks": (list, dict),
}


def read_provenance(out: str | Path) -> list[dict[str, Any]]:
    """The runs recorded in a results folder, oldest first; none for a folder without the file.

    A damaged file counts as none, with a DamagedResultsWarning that names it: rows can be read without it.
    """
    runs, problem = read_runs(Path(out) / PROVENANCE)
    if problem:
        warnings.warn(problem, DamagedResultsWarning, stacklevel=2)
    return runs


def read_runs(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The runs in a provenance.json, and what is wrong with it ("" for nothing). Never raises."""
    if not (path.exists() or path.is_symlink()):
        return [], ""
    try:
        runs = checked_list(parse_json("its content", path.read_text(encoding="utf-8")), "runs", 1_000_000)
        for k, run in enumerate(runs):
            _check_run(f"runs[{k}]", run)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return [], f"{path} is damaged and not used: {reason}"
    return runs, ""


def _check_run(place: str, run: object) -> None:
    """Types of what readers look at; experiments record other runs, so nothing but a run_id has to be there."""
    if not isinstance(run, dict):
        raise ValueError(f"{place} must be an object, got {type(run).__name__}")
    if "run_id" in run:
        path_name(str(run["run_id"]), f"{place}.run_id")
    for key, types in RUN_TYPES.items():
        if key in run and not isinstance(run[key], types):
            raise ValueError(f"{place}.{key} must be {types[0].__name__}, got {type(run[key]).__name__}")
    if "name" in run.get("spec", {}) and not isinstance(run["spec"]["name"], str):
        raise ValueError(f"{place}.spec.name must be a text")
    if not all(isinstance(solver, dict) for solver in run.get("solvers", {}).values()):
        raise ValueError(f"{place}.solvers must hold objects")
    if isinstance(run.get("networks"), list):
        _check_texts(f"{place}.networks", run["networks"], ("name", "source", "digest"))
    if "networks" in run.get("spec", {}):
        _check_texts(f"{place}.spec.networks", run["spec"]["networks"], ("source",))


def _check_texts(place: str, entries: object, keys: Sequence[str]) -> None:
    good = isinstance(entries, list) and all(
        isinstance(one, dict) and all(isinstance(one.get(key), str) for key in keys) for one in entries
    )
    if not good:
        raise ValueError(f"{place} must be objects with {', '.join(keys)} as texts")


def run_name(runs: Sequence[Mapping[str, Any]], otherwise: str) -> str:
    """What the latest run's spec is called."""
    names = [str(run["spec"]["name"]) for run in runs if "name" in run.get("spec", {})]
    return names[-1] if names else otherwise


def begin_run(out: Path, plan: Plan, spec_text: str, execution: Mapping[str, Any]) -> str:
    """Add an entry for a run that starts now and return its run_id. Raises StoreError.

    run_ids sort in the order the runs began, whatever the clock does. execution: executor, workers, threads. A damaged
    provenance.json is set aside; numbering goes on after the rows' runs.
    """
    runs, problem = read_runs(out / PROVENANCE)
    number = len(runs) + 1
    if problem:
        warnings.warn(f"{problem}; kept as {set_aside(out / PROVENANCE).name}", DamagedResultsWarning, stacklevel=2)
        numbers = [int(name[1:5]) for name in read_rows(out, everything=True)["run_id"].unique() if name[1:5].isdigit()]
        number = max(numbers, default=0) + 1
    run_id = f"r{number:04d}-{uuid.uuid4().hex[:6]}"
    entry = {
        "run_id": run_id,
        "started": _now(),
        "ended": None,
        "outcome": "running",
        "rows": {},
        "seed": plan.spec.seed,
        "networks": [
            {"name": network.ref.name, "source": shown_source(network.ref.source), "digest": network.ref.digest}
            for network in plan.networks
        ],
        "spec": shown_spec(plan.spec),
        "spec_text": shown_text(spec_text, plan.spec),
        "execution": dict(execution),
        **environment(),
    }
    _write(out, [*runs, entry])
    return run_id


def end_run(out: Path, run_id: str, outcome: str, rows: Mapping[str, int]) -> None:
    """Complete a run's entry. Raises StoreError."""
    runs = read_provenance(out)
    for entry in runs:
        if entry.get("run_id") == run_id:
            entry |= {"ended": _now(), "outcome": outcome, "rows": dict(rows)}
    _write(out, runs)


def environment() -> dict[str, Any]:
    """Code version and commit, packages, solvers with their licence kinds, Python and machine kind."""
    return {
        "relugap": {"version": _version("relugap"), **project_commit()},
        "packages": {name: _version(name) for name in PACKAGES},
        "solvers": _solvers(),
        "python": platform.python_version(),
        "platform": {"system": platform.system(), "machine": platform.machine(), "cpus": os.cpu_count()},
    }


def shown_source(source: str) -> str:
    """A network's source without the folders of an absolute path."""
    return Path(source).name if Path(source).is_absolute() else source


def shown_spec(spec: SweepSpec) -> dict[str, Any]:
    """The spec as JSON can hold it, without absolute paths."""
    content = spec.model_dump(mode="json", exclude_none=True)
    for entry in content["networks"]:
        entry["source"] = shown_source(entry["source"])
    return content


def shown_text(text: str, spec: SweepSpec) -> str:
    """The spec file's text without absolute paths."""
    for entry in spec.networks:
        if Path(entry.source).is_absolute():
            text = text.replace(entry.source, Path(entry.source).name)
    return text


def project_commit() -> dict[str, Any]:
    """commit and dirty of the project's own checkout; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None}
    commit, status = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _solvers() -> dict[str, dict[str, Any]]:
    found = {}
    for name, solver in SOLVERS.items():
        licence = solver.status()
        found[name] = {"version": solver.version() or None, "usable": licence.usable, "licence": licence.kind}
    return found


def _write(out: Path, runs: list[dict[str, Any]]) -> None:
    text = json.dumps({"format": FORMAT, "runs": runs}, indent=1, ensure_ascii=False)
    replace_file(out / PROVENANCE, f"{text}\n".encode("utf-8", "replace"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
