"""Looking after results folders: list, summarise, export, verify, compact, and watch a sweep from another terminal."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.live import Live

from toolkit.problem import Status
from toolkit.provenance import PROVENANCE, read_provenance
from toolkit.store import compact, read_plan, read_rows, shard_paths, valid_lines
from toolkit.sweep.lock import folder_lock, lock_owner
from toolkit.sweep.progress import Snapshot, describe, read_snapshot, render

EXPORTS = (".csv", ".parquet", ".jsonl")
TOLERANCE = 1e-6  # relative and absolute, as in the report's order check


@dataclass(frozen=True)
class Finding:
    """What `verify` found. error: rows are damaged or contradict themselves; else worth knowing only."""

    error: bool
    text: str


@dataclass(frozen=True)
class ResultsSummary:
    """A results folder at a glance. statuses: rows per rung and status. seconds: spent per rung. mixes: see `mixed`."""

    name: str
    rows: int
    planned: int
    other_rows: int
    statuses: pd.DataFrame
    seconds: pd.Series[float]
    runs: list[dict[str, Any]]
    mixes: list[str]
    owner: str | None


def list_results(root: str | Path) -> pd.DataFrame:
    """One line per results folder at or below `root`: name, rows of rows planned, failures, last run, owner."""
    lines = []
    for path in filter(_has_runs, sorted(Path(root).rglob(PROVENANCE))):
        folder, runs = path.parent, read_provenance(path.parent)
        if not runs or not isinstance(runs[-1], dict) or "run_id" not in runs[-1]:
            continue  # a provenance.json of something else
        rows = read_rows(folder)
        lines.append(
            {
                "folder": str(folder),
                "name": runs[-1]["spec"]["name"],
                "rows": len(rows),
                "planned": len(read_plan(folder) or ()),
                "failed": int((rows["status"] == Status.FAILED).sum()),
                "time_limit": int((rows["status"] == Status.TIME_LIMIT).sum()),
                "runs": len(runs),
                "started": runs[-1]["started"],
                "outcome": runs[-1]["outcome"],
                "owner": lock_owner(folder) or "",
            }
        )
    columns = ["folder", "name", "rows", "planned", "failed", "time_limit", "runs", "started", "outcome", "owner"]
    return pd.DataFrame(lines, columns=columns)


def _has_runs(provenance: Path) -> bool:
    """Whether a provenance.json is a sweep's; a damaged one may be, and reading it says what is wrong with it."""
    try:
        content = json.loads(provenance.read_text(encoding="utf-8"))
    except ValueError:
        return True
    return isinstance(content, dict) and "runs" in content


def summarize(out: str | Path) -> ResultsSummary:
    """What a results folder holds. Raises FileNotFoundError for a folder that is none."""
    folder = Path(out)
    rows, runs = read_rows(folder), read_provenance(folder)
    return ResultsSummary(
        name=runs[-1]["spec"]["name"] if runs else folder.name,
        rows=len(rows),
        planned=len(read_plan(folder) or ()),
        other_rows=len(read_rows(folder, everything=True)) - len(rows),
        statuses=pd.crosstab(rows["rung"], rows["status"]),
        seconds=rows.groupby("rung")["seconds"].sum(),
        runs=runs,
        mixes=mixed(rows, runs),
        owner=lock_owner(folder),
    )


def mixed(rows: pd.DataFrame, runs: Iterable[Mapping[str, Any]]) -> list[str]:
    """In which respects the runs behind these rows differ: code, packages, solvers, Python, machine, solver used.

    One line each, "numpy: 2.4.6 (r0001-…), 2.5.0 (r0002-…)"; empty if the rows come from equal circumstances.
    """
    used = set(rows["run_id"])
    facts: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        if run["run_id"] not in used:
            continue
        for name, value in _circumstances(run):
            facts.setdefault(name, {}).setdefault(value, []).append(run["run_id"])
    lines = [
        f"{name}: " + ", ".join(f"{value} ({', '.join(ids)})" for value, ids in values.items())
        for name, values in facts.items()
        if len(values) > 1
    ]
    for rung, own in rows[rows["solver"] != ""].groupby("rung"):
        solvers = own.groupby(["solver", "solver_version"]).size()
        if len(solvers) > 1:
            shares = [
                f"{' '.join(map(str, key))} ({count} rows)" for key, count in zip(solvers.index, solvers, strict=True)
            ]
            lines.append(f"solver of {rung}: {', '.join(shares)}")
    return lines


def _circumstances(run: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    code = run["relugap"]
    yield "relugap", f"{code['version']} {code['commit'] or ''}{' with local changes' if code['dirty'] else ''}".strip()
    yield from ((name, str(version)) for name, version in run["packages"].items() if name != "relugap")
    yield from ((f"licence of {name}", str(solver["licence"])) for name, solver in run["solvers"].items())
    yield "python", str(run["python"])
    yield "machine", f"{run['platform']['system']} {run['platform']['machine']}, {run['platform']['cpus']} CPUs"


def export_rows(out: str | Path, target: str | Path, everything: bool = False) -> Path:
    """Write a folder's rows to one .csv, .parquet or .jsonl file, all columns at full precision.

    In .jsonl infinite and missing numbers are Infinity, -Infinity and NaN, as in the shards. Raises ValueError for
    another ending, and as read_rows does.
    """
    path = Path(target)
    if path.suffix not in EXPORTS:
        raise ValueError(f"rows are exported to {', '.join(EXPORTS)}, got {path.name!r}")
    rows = read_rows(out, everything)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        rows.to_parquet(path, index=False)
    elif path.suffix == ".csv":
        rows.to_csv(path, index=False)
    else:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(record)}\n" for record in rows.to_dict("records"))
    return path


def verify(out: str | Path) -> list[Finding]:
    """Whether a results folder is whole: lines, keys, runs, and rows that contradict themselves.

    Checked: every line parses; every planned row is there; every row's run is recorded; statuses are known; no NaN
    bound; lower ≤ upper and ≤ clean_margin to 1e-6 relative; failed rows say why. Not checked: rows against each
    other (the report does) and against a new computation.
    """
    folder = Path(out)
    rows = read_rows(folder, everything=True)
    findings = [*_torn_lines(folder), *_row_findings(rows)]
    recorded = {run["run_id"] for run in read_provenance(folder)}
    if unknown := sorted(set(rows["run_id"]) - recorded):
        findings.append(Finding(True, f"rows name runs that {PROVENANCE} lacks: {', '.join(unknown)}"))
    planned = read_plan(folder)
    if planned is not None:
        present = set(rows["key"])
        missing = sum(key not in present for key in planned)
        if missing:
            findings.append(Finding(False, f"{missing} of {len(planned)} planned rows are not there yet"))
        if others := len(present.difference(planned)):
            findings.append(Finding(False, f"{others} rows belong to earlier specs"))
    return findings


def _torn_lines(folder: Path) -> list[Finding]:
    found = []
    for shard in shard_paths(folder):
        lines = [line for line in shard.read_bytes().split(b"\n") if line]
        torn = len(lines) - sum(1 for _ in valid_lines(b"\n".join(lines)))
        if torn:
            found.append(Finding(False, f"{shard.name}: {torn} of {len(lines)} lines are torn and ignored"))
    return found


def _row_findings(rows: pd.DataFrame) -> list[Finding]:
    lower, upper, clean = rows["lower"], rows["upper"], rows["clean_margin"]
    checks = {
        "have an unknown status": ~rows["status"].isin([str(status) for status in Status]),
        "have a NaN bound": lower.isna() | upper.isna(),
        "have lower > upper": lower > upper + TOLERANCE * (1 + upper.abs()),
        "have lower > clean_margin": lower > clean + TOLERANCE * (1 + clean.abs()),
        "failed without saying why": (rows["status"] == Status.FAILED) & (rows["message"] == ""),
    }
    found = []
    for text, wrong in checks.items():
        if wrong.any():
            first = rows[wrong].iloc[0]
            where = f"{first['network']} #{first['sample']} target {first['target']} ε={first['eps']:g} {first['rung']}"
            found.append(Finding(True, f"{int(wrong.sum())} rows {text}, the first: {where}"))
    return found


def compact_results(out: str | Path) -> int:
    """Move a folder's shards into rows.parquet; returns its rows. Raises FolderInUseError while a sweep runs there."""
    with folder_lock(Path(out)):
        return compact(out)


def watch(out: str | Path, every: float = 2.0, console: Console | None = None) -> Snapshot | None:
    """Show a running sweep's progress until it ends, or the reader presses Ctrl-C; returns the last state seen.

    Raises FileNotFoundError if no sweep has run there.
    """
    folder, console = Path(out), console or Console()
    snapshot = read_snapshot(folder)
    if snapshot is None:
        raise FileNotFoundError(f"no sweep has run in {folder}")
    live = Live(render(snapshot), console=console) if console.is_terminal else contextlib.nullcontext()
    with contextlib.suppress(KeyboardInterrupt), live:
        while True:
            owner = lock_owner(folder)  # first, so that a sweep that ends now has written its last word
            snapshot = read_snapshot(folder) or snapshot
            if isinstance(live, Live):
                live.update(render(snapshot))
            else:
                console.print(describe(snapshot), highlight=False)
            if snapshot.ended or owner is None:
                break
            time.sleep(every)
    if not snapshot.ended:
        console.print("no sweep is running there; run it again to continue", highlight=False)
    return snapshot


def findings_text(findings: Sequence[Finding]) -> str:
    """Findings as lines, errors first."""
    ordered = sorted(findings, key=lambda finding: not finding.error)
    return "\n".join(f"{'error' if finding.error else 'note'}: {finding.text}" for finding in ordered)
