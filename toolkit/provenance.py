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
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolkit.solvers import SOLVERS
from toolkit.store import replace_file
from toolkit.sweep.plan import Plan
from toolkit.sweep.spec import SweepSpec

PROVENANCE = "provenance.json"
FORMAT = 1
PACKAGES = ("relugap", "numpy", "scipy", "pyomo", "highspy", "gurobipy", "pandas", "pyarrow", "scikit-learn", "mlxtend",
            "torch")  # fmt: skip


def read_provenance(out: str | Path) -> list[dict[str, Any]]:
    """The runs recorded in a results folder, oldest first; none for a folder without the file."""
    path = Path(out) / PROVENANCE
    if not path.is_file():
        return []
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a provenance file: {error}") from error
    return list(runs)


def begin_run(out: Path, plan: Plan, spec_text: str, execution: Mapping[str, Any]) -> str:
    """Add an entry for a run that starts now and return its run_id. Raises StoreError.

    run_ids sort in the order the runs began, whatever the clock does. execution: executor, workers, threads.
    """
    runs = read_provenance(out)
    run_id = f"r{len(runs) + 1:04d}-{uuid.uuid4().hex[:6]}"
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
        if entry["run_id"] == run_id:
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
    root = Path(__file__).resolve().parent.parent
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
    replace_file(out / PROVENANCE, f"{text}\n".encode())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
