"""Where results come from: OUT/provenance.json, one entry a run.

    {"format": 2, "runs": [{"run_id", "started", "ended", "outcome", "command", "networks", "details", …, "relugap",
     "packages", "solvers", "python", "platform"}]}

Every row's run_id points to its run. `details` is what the run says of itself: sizes, seeds, options. A sweep adds its
spec, seed, execution and row counts. Recorded besides: code version and commit, package and solver versions, licence
kinds, machine kind, start and end in UTC. Not recorded: host and user names, absolute paths. Files of earlier shapes,
one run without `runs` around it, are read as well.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolkit.data.archives import checked_list, parse_json
from toolkit.data.names import path_name
from toolkit.runs.store import DamagedResultsWarning, read_rows, replace_file, set_aside
from toolkit.solvers.registry import SOLVERS

RunRecord = dict[str, Any]  # an entry, as JSON holds it
PROVENANCE = "provenance.json"
PROVENANCE_FORMAT = 2
PACKAGES = ("relugap", "numpy", "scipy", "pyomo", "highspy", "gurobipy", "pandas", "pyarrow", "scikit-learn", "mlxtend",
            "torch")  # fmt: skip
RUN_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("run_id", "started", "outcome", "command", "spec_text", "python"), (str,)),
    "ended": (str, type(None)),
    **dict.fromkeys(("rows", "spec", "relugap", "packages", "solvers", "platform", "details", "execution"), (dict,)),
    "networks": (list, dict),
}


def read_provenance(out: str | Path) -> list[RunRecord]:
    """The runs recorded in a results folder, oldest first; none for a folder without the file.

    A damaged file counts as none, with a DamagedResultsWarning that names it: rows can be read without it.
    """
    runs, problem = read_runs(Path(out) / PROVENANCE)
    if problem:
        warnings.warn(problem, DamagedResultsWarning, stacklevel=2)
    return runs


def read_runs(path: Path) -> tuple[list[RunRecord], str]:
    """The runs in a provenance.json, and what is wrong with it ("" for nothing). Never raises."""
    if not (path.exists() or path.is_symlink()):
        return [], ""
    try:
        content = parse_json("its content", path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and "runs" not in content and {"relugap", "command"} & content.keys():
            return [_one_run(content)], ""
        runs = checked_list(content, "runs", 1_000_000)
        for k, run in enumerate(runs):
            _check_run(f"runs[{k}]", run)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return [], f"{path} is damaged and not used: {reason}"
    return runs, ""


def _one_run(content: RunRecord) -> RunRecord:
    """A file of the earlier shape, in which one run's own values stood beside the versions."""
    known = {key: value for key, value in content.items() if isinstance(value, RUN_TYPES.get(key, ()))}
    run = known | {"details": {key: value for key, value in content.items() if key not in known}}
    _check_run("the run", run)
    return run


def _check_run(place: str, run: object) -> None:
    """Types of what readers look at; nothing has to be there."""
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


def begin_run(out: Path, facts: Mapping[str, Any], keep_runs: bool = True) -> str:
    """Add an entry for a run that starts now and return its run_id. Raises StoreError.

    run_ids sort in the order the runs began, whatever the clock does. facts: what to record of it. keep_runs: False
    where the run replaces all that earlier ones left. A damaged provenance.json is set aside; numbering goes on after
    the rows' runs.
    """
    runs, problem = read_runs(out / PROVENANCE)
    number = len(runs) + 1
    if problem:
        warnings.warn(f"{problem}; kept as {set_aside(out / PROVENANCE).name}", DamagedResultsWarning, stacklevel=2)
        numbers = [int(name[1:5]) for name in read_rows(out, everything=True)["run_id"].unique() if name[1:5].isdigit()]
        number = max(numbers, default=0) + 1
    run_id = f"r{number:04d}-{uuid.uuid4().hex[:6]}"
    started = {"run_id": run_id, "started": utc_now(), "ended": None, "outcome": "running"}
    _write(out, [*(runs if keep_runs else []), started | dict(facts) | environment()])
    return run_id


def end_run(out: Path, run_id: str, outcome: str, facts: Mapping[str, Any]) -> None:
    """Complete a run's entry. Raises StoreError."""
    runs = read_provenance(out)
    for entry in runs:
        if entry.get("run_id") == run_id:
            entry |= {"ended": utc_now(), "outcome": outcome, **facts}
    _write(out, runs)


@contextmanager
def recorded_run(out: Path, facts: Mapping[str, Any], keep_runs: bool = True) -> Iterator[RunRecord]:
    """Record what the block does as a run of the folder; yields its entry, to which more may be added until it ends.

    facts, keep_runs: as in begin_run. An error that leaves the block is named as the outcome.
    """
    run_id = begin_run(out, facts, keep_runs)
    entry: RunRecord = {"run_id": run_id}
    outcome = "finished"
    try:
        yield entry
    except BaseException as error:
        outcome = f"ended by {type(error).__name__}"
        raise
    finally:
        end_run(out, run_id, outcome, entry)


def environment() -> RunRecord:
    """Code version and commit, packages, solvers with their licence kinds, Python and machine kind."""
    return {
        "relugap": {"version": _version("relugap"), **project_commit()},
        "packages": {name: _version(name) for name in PACKAGES},
        "solvers": _solvers(),
        "python": platform.python_version(),
        "platform": {"system": platform.system(), "machine": platform.machine(), "cpus": os.cpu_count()},
    }


def project_commit() -> RunRecord:
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


def _solvers() -> dict[str, RunRecord]:
    found = {}
    for name, solver in SOLVERS.items():
        licence = solver.status()
        found[name] = {"version": solver.version() or None, "usable": licence.usable, "licence": licence.kind}
    return found


def utc_now() -> str:
    """The time as provenance records it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write(out: Path, runs: Sequence[RunRecord]) -> None:
    text = json.dumps({"format": PROVENANCE_FORMAT, "runs": list(runs)}, indent=1, ensure_ascii=False)
    replace_file(out / PROVENANCE, f"{text}\n".encode("utf-8", "replace"))
