"""Looking after results folders: list, summarise, export, verify, compact, and watch a sweep from another terminal."""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.live import Live

from toolkit.data.atomic import write_atomically, write_csv, write_parquet
from toolkit.data.names import markup_text, printable
from toolkit.problems.answers import Status
from toolkit.runs.lock import folder_lock, lock_owner
from toolkit.runs.provenance import PROVENANCE, RunRecord, read_provenance, read_runs, run_name
from toolkit.runs.shards import SHARDS, foreign_lines, shard_paths, valid_lines
from toolkit.runs.store import PLAN, ROWS, DamagedResultsWarning, compact, damage, read_plan, read_rows
from toolkit.runs.sweep.progress import Snapshot, describe, read_snapshot, render

EXPORTS = (".csv", ".parquet", ".jsonl")
ROOM = 1e-6  # of the largest margin in the row, as in the report's order check


@dataclass(frozen=True)
class Finding:
    """What `verify` found. error: rows are damaged or contradict themselves; else worth knowing only."""

    error: bool
    text: str


@dataclass(frozen=True, eq=False)
class ResultsSummary:
    """A results folder at a glance. statuses: rows per rung and status. seconds: spent per rung. mixes: see `mixed`."""

    name: str
    rows: int
    planned: int
    other_rows: int
    statuses: pd.DataFrame
    seconds: pd.Series[float]
    runs: list[RunRecord]
    mixes: list[str]
    owner: str | None


def list_results(root: str | Path) -> pd.DataFrame:
    """One line per results folder at or below `root`: name, rows of rows planned, failures, last run, owner.

    damaged: how many of its files cannot be read whole; warnings name them.
    """
    lines = []
    for path in sorted(Path(root).rglob(PROVENANCE)):
        folder, (runs, problem) = path.parent, read_runs(path)
        stored = any((folder / name).exists() for name in (SHARDS, ROWS, PLAN))
        if not stored and (problem or not runs or "spec" not in runs[-1]):
            continue  # a provenance.json of something else than a sweep
        lines.append(_listed(folder, runs, [problem] if problem else []))
    columns = ["folder", "name", "rows", "planned", "failed", "time_limit", "runs", "started", "outcome", "owner"]
    return pd.DataFrame(lines, columns=[*columns, "damaged"])


def _listed(folder: Path, runs: Sequence[RunRecord], problems: list[str]) -> dict[str, object]:
    """One folder's line; one that cannot be read must not hide the others."""
    last: RunRecord = runs[-1] if runs else {}
    try:
        rows, planned, problems = read_rows(folder), len(read_plan(folder) or ()), problems + damage(folder)
    except (ValueError, OSError) as error:  # rows of a newer relugap, for example
        rows, planned, problems = pd.DataFrame({"status": []}), 0, [*problems, str(error)]
        warnings.warn(f"{folder}: {error}", DamagedResultsWarning, stacklevel=2)
    return {
        "folder": str(folder),
        "name": run_name(runs, folder.name),
        "rows": len(rows),
        "planned": planned,
        "failed": int((rows["status"] == Status.FAILED).sum()),
        "time_limit": int((rows["status"] == Status.TIME_LIMIT).sum()),
        "runs": len(runs),
        "started": last.get("started", ""),
        "outcome": last.get("outcome", ""),
        "owner": lock_owner(folder) or "",
        "damaged": len(problems),
    }


def summarize(out: str | Path) -> ResultsSummary:
    """What a results folder holds. Raises FileNotFoundError for a folder that is none."""
    folder = Path(out)
    rows, runs = read_rows(folder), read_provenance(folder)
    return ResultsSummary(
        name=run_name(runs, folder.name),
        rows=len(rows),
        planned=len(read_plan(folder) or ()),
        other_rows=len(read_rows(folder, everything=True)) - len(rows),
        statuses=pd.crosstab(rows["rung"], rows["status"]),
        seconds=rows.groupby("rung")["seconds"].sum(),
        runs=runs,
        mixes=mixed(rows, runs),
        owner=lock_owner(folder),
    )


def mixed(rows: pd.DataFrame, runs: Iterable[RunRecord]) -> list[str]:
    """In which respects the runs behind these rows differ: code, packages, solvers, Python, machine, solver used.

    One line each, "numpy: 2.4.6 (r0001-…), 2.5.0 (r0002-…)"; empty if the rows come from equal circumstances.
    """
    used = set(rows["run_id"])
    facts: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        if run.get("run_id") not in used:
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


def _circumstances(run: RunRecord) -> Iterable[tuple[str, str]]:
    code, machine = run.get("relugap", {}), run.get("platform", {})
    changes = " with local changes" if code.get("dirty") else ""
    yield "relugap", f"{code.get('version')} {code.get('commit') or ''}{changes}".strip()
    yield from ((name, str(version)) for name, version in run.get("packages", {}).items() if name != "relugap")
    yield from ((f"licence of {name}", str(solver.get("licence"))) for name, solver in run.get("solvers", {}).items())
    yield "python", str(run.get("python"))
    yield "machine", f"{machine.get('system')} {machine.get('machine')}, {machine.get('cpus')} CPUs"


def export_rows(out: str | Path, target: str | Path, everything: bool = False) -> Path:
    """Write a folder's rows to one .csv, .parquet or .jsonl file, all columns at full precision.

    In .jsonl infinite and missing numbers are Infinity, -Infinity and NaN, as in the shards. In .csv a text that a
    spreadsheet would take for a formula has an apostrophe in front. Raises ValueError for
    another ending, and as read_rows does.
    """
    path = Path(target)
    if path.suffix not in EXPORTS:
        raise ValueError(f"rows are exported to {', '.join(EXPORTS)}, got {path.name!r}")
    rows = read_rows(out, everything)
    if path.suffix == ".parquet":
        write_parquet(path, rows)
    elif path.suffix == ".csv":
        write_csv(path, rows)
    else:
        with write_atomically(path, "w") as file:
            file.writelines(f"{json.dumps(record)}\n" for record in rows.to_dict("records"))
    return path


def verify_folder(out: str | Path) -> list[Finding]:
    """Whether a results folder is whole: lines, keys, runs, and rows that contradict themselves.

    Checked: every file can be read, every line is a row; every planned row is there; every row's run is recorded;
    statuses are known; no NaN bound; lower ≤ upper and ≤ clean_margin to 1e-6 of the row's largest margin, certified
    sides as they are; failed rows say why. Not checked: rows against each other (the report does) and against a new
    computation.
    """
    folder = Path(out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedResultsWarning)  # the findings say the same
        rows, planned = read_rows(folder, everything=True), read_plan(folder)
    findings = [Finding(True, text) for text in damage(folder)]
    findings += [*_torn_lines(folder), *_set_aside(folder), *_row_findings(rows)]
    runs, problem = read_runs(folder / PROVENANCE)
    if problem:
        return [*findings, Finding(True, problem)]
    recorded = {run.get("run_id") for run in runs}
    if unknown := sorted(set(rows["run_id"]) - recorded):
        findings.append(Finding(True, f"rows name runs that {PROVENANCE} lacks: {', '.join(unknown)}"))
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
    for shard in filter(Path.is_file, shard_paths(folder)):
        lines = [line for line in shard.read_bytes().split(b"\n") if line]
        content = b"\n".join(lines)
        torn = len(lines) - sum(1 for _ in valid_lines(content)) - foreign_lines(content)
        if torn:
            found.append(Finding(False, f"{shard.name}: {torn} of {len(lines)} lines are torn and ignored"))
    return found


def _set_aside(folder: Path) -> list[Finding]:
    kept = sorted(path.name for path in folder.glob("*.damaged-*"))
    return [Finding(False, f"{name} was damaged and set aside; remove it once it is of no use") for name in kept]


def _row_findings(rows: pd.DataFrame) -> list[Finding]:
    lower, upper, clean = rows["lower"], rows["upper"], rows["clean_margin"]
    sizes = rows[["lower", "upper", "clean_margin"]].abs()
    room = ROOM * sizes.where(sizes < float("inf")).max(axis=1).fillna(0.0)
    checks = {
        "have an unknown status": ~rows["status"].isin([str(status) for status in Status]),
        "have a NaN bound": lower.isna() | upper.isna(),
        "have lower > upper": lower > upper + room,
        "have lower > clean_margin": lower > clean + room,
        "have certified_lower > certified_upper": rows["certified_lower"] > rows["certified_upper"],
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
                console.print(markup_text(describe(snapshot)), highlight=False)
            if snapshot.ended or owner is None:
                break
            time.sleep(every)
    if not snapshot.ended:
        console.print("no sweep is running there; run it again to continue", highlight=False)
    return snapshot


def findings_text(findings: Sequence[Finding]) -> str:
    """Findings as lines, errors first."""
    ordered = sorted(findings, key=lambda finding: not finding.error)
    return "\n".join(f"{'error' if finding.error else 'note'}: {printable(finding.text)}" for finding in ordered)
