"""A benchmark of VNN-LIB instances: each verified once, by the one driver, and set beside official results.

An instance is a network file, a query file and a timeout. Its row's key is a hash of both files, the timeout and the
ladder, so that a stopped run goes on where it was; instances that ended with an error are asked again.
"""

from __future__ import annotations

import csv
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from toolkit.data.arguments import file_path, optional_number
from toolkit.data.names import printable
from toolkit.runs.executors import TaskTimeoutError, check_workers
from toolkit.runs.rows import QUERY_ROWS, QueryRow
from toolkit.runs.run import Driver, Watcher, choose_execution
from toolkit.runs.shards import append_rows, prepare_folder
from toolkit.runs.store import read_rows
from toolkit.runs.tables.answers import Advance
from toolkit.verify.queries import QUERY_LADDER, verify_query

FAILED_ANSWER = "error"
LARGEST_TABLE = 64 * 2**20  # bytes of a CSV
SLACK: float | None = 60.0  # seconds after the longest timeout at which a process is killed; None: never
TITLE = "instances"
SOLVED = ("sat", "unsat")
DISPUTED = "disputed"  # the official verdict where official rows contradict each other
OFFICIAL_WORDS = {"holds": "unsat", "violated": "sat", "timeout": "timed-out"}
InstanceKey = tuple[str, str, str]


@dataclass(frozen=True)
class QueryInstance:
    """One line of a benchmark: the names as the table has them, the files, and the seconds allowed."""

    benchmark: str
    onnx: str
    vnnlib: str
    timeout: float
    folder: Path

    @property
    def files(self) -> tuple[Path, Path]:
        """Network and query; with .gz where only that is there."""
        given = (self.folder / self.onnx, self.folder / self.vnnlib)
        network, query = (
            path.with_name(f"{path.name}.gz") if not path.is_file() and path.with_name(f"{path.name}.gz").is_file()
            else path
            for path in given
        )  # fmt: skip
        return network, query

    def key(self) -> str:
        """What determines the answer: SHA-256 of both files' contents, the timeout and the ladder."""
        state = hashlib.sha256(f"{self.timeout} {[rung.name for rung in QUERY_LADDER]}".encode())
        for path in self.files:
            state.update(hashlib.sha256(path.read_bytes()).digest() if path.is_file() else str(path.name).encode())
        return state.hexdigest()


@dataclass(frozen=True)
class OfficialResult:
    """What others say of an instance; seconds: NaN where that is not told. solvers: the tools that gave the verdict."""

    verdict: str
    seconds: float = float("nan")
    tool: str = ""
    solvers: tuple[str, ...] = ()


def read_instances(path: str | Path, timeout: float | None = None) -> list[QueryInstance]:
    """The instances in a CSV: onnx,vnnlib,timeout without a header, relative to its folder; or with one that names
    these columns (timeout or official_timeout_s) and perhaps benchmark, a folder beside the file.

    timeout: > 0, at most so many seconds each. Raises FileNotFoundError; ValueError naming the line.
    """
    timeout = optional_number("timeout", timeout, above=0)
    source = file_path("path", path)
    found = []
    for line, row in _table(source, ("onnx", "vnnlib", "timeout")):
        try:
            seconds = float(row.get("timeout") or row.get("official_timeout_s") or "nan")
        except ValueError:
            seconds = float("nan")
        if not 0 < seconds < float("inf") or not row.get("onnx") or not row.get("vnnlib"):
            raise ValueError(f"{source}, line {line}: needs onnx, vnnlib and timeout > 0, got {printable(str(row))}")
        benchmark = row.get("benchmark", "")
        folder = source.parent / benchmark if benchmark else source.parent
        name = benchmark or source.absolute().parent.name
        limit = seconds if timeout is None else min(seconds, timeout)
        found.append(QueryInstance(name, row["onnx"], row["vnnlib"], limit, folder))
    return found


def read_official(path: str | Path) -> dict[InstanceKey, OfficialResult]:
    """Official results by instance: a CSV with columns benchmark, onnx, vnnlib, verdict, perhaps best_seconds,
    best_tool and solved_by, the tools that gave that verdict with blanks between; or without a header, as VNN-COMP's
    tools have them: benchmark,onnx,vnnlib,prepare,verdict,seconds.

    Of several rows about an instance the first that says sat or unsat counts; where another says the opposite, the
    verdict is DISPUTED, which agrees with nothing. Raises as read_instances.
    """
    source = file_path("path", path)
    found: dict[InstanceKey, OfficialResult] = {}
    for line, row in _table(source, ("benchmark", "onnx", "vnnlib", "prepare", "verdict", "best_seconds")):
        if not all(row.get(name) for name in ("benchmark", "onnx", "vnnlib", "verdict")):
            raise ValueError(f"{source}, line {line}: needs benchmark, onnx, vnnlib and verdict")
        key = instance_key(row["benchmark"], row["onnx"], row["vnnlib"])
        word = row["verdict"].strip().lower()
        word = OFFICIAL_WORDS.get(word, word)
        if key in found and found[key].verdict in (*SOLVED, DISPUTED):
            if word in SOLVED and word != found[key].verdict:
                found[key] = OfficialResult(DISPUTED)
            continue
        try:
            seconds = float(row.get("best_seconds") or "nan")
        except ValueError:
            seconds = float("nan")
        solvers = tuple(row.get("solved_by", "").split())
        found[key] = OfficialResult(word, seconds, row.get("best_tool", ""), solvers)
    return found


def instance_key(benchmark: str, onnx: str, vnnlib: str) -> InstanceKey:
    """What names an instance in tables of others: names without ./ and .gz."""
    onnx, vnnlib = (str(PurePosixPath(name.strip())).removesuffix(".gz") for name in (onnx, vnnlib))
    return benchmark.strip(), onnx, vnnlib


def _table(source: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV by column, with their lines; `columns` name them where the file has no header."""
    if not source.is_file():
        raise FileNotFoundError(f"no table at {source}")
    if source.stat().st_size > LARGEST_TABLE:
        raise ValueError(f"{source}: a table has at most {LARGEST_TABLE} bytes")
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            lines = [(k + 1, row) for k, row in enumerate(csv.reader(file)) if any(cell.strip() for cell in row)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{source}: not a CSV table: {error}") from None
    if not lines:
        raise ValueError(f"{source}: the table is empty")
    header = [cell.strip().lower() for cell in lines[0][1]]
    names = columns
    if {"onnx", "vnnlib"} <= set(header):
        names, lines = header, lines[1:]
    return [(line, dict(zip(names, (cell.strip() for cell in row), strict=False))) for line, row in lines]


def answer_instance(task: tuple[str, QueryInstance]) -> dict[str, object]:
    """The row of one instance; at module level, so that it can run in another process."""
    key, instance = task
    started, cpu = time.perf_counter(), time.process_time()
    network, query = instance.files
    row: dict[str, object] = {"deployed": "", "certified": 0, "questions": 0, "message": ""}
    try:
        found = verify_query(network, query, instance.timeout, as_real=True)  # as the competition takes them
    except Exception as error:  # one instance's failure must not lose the others
        row |= {"verdict": FAILED_ANSWER, "message": f"{type(error).__name__}: {error}"}
    else:
        agrees = {None: "", True: "agrees", False: "disagrees"}[found.deployed]
        row |= {"verdict": str(found.status), "deployed": agrees, "certified": int(found.certified)}
        row |= {"questions": found.questions, "message": found.message}
    row |= {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    return row | _names(key, instance)


def _names(key: str, instance: QueryInstance) -> dict[str, object]:
    names = {"benchmark": instance.benchmark, "onnx": instance.onnx, "vnnlib": instance.vnnlib}
    return {"key": key, **names, "timeout": instance.timeout}


class _Keeper(Watcher[tuple[str, QueryInstance], dict[str, object]]):
    """Stores every answer as it comes."""

    def __init__(
        self, folder: Path, run_id: str, done: int, total: int, advance: Advance, limit: float | None = None
    ) -> None:
        self._folder, self._run_id, self._advance = folder, run_id, advance
        self._done, self._total, self._limit = done, total, limit

    def finished(self, task: tuple[str, QueryInstance], answer: dict[str, object]) -> None:
        """Store it, and show how far the run is."""
        row = {name: answer[name] for name in QUERY_ROWS.columns if name != "run_id"}
        append_rows(self._folder, self._run_id, [QueryRow(run_id=self._run_id, **row)])  # type: ignore[arg-type]
        self._done += 1
        self._advance(TITLE, self._done, self._total)

    def given_up(self, task: tuple[str, QueryInstance], error: Exception) -> dict[str, object]:
        """A worker that died, or was killed for its time, has no answer."""
        killed = isinstance(error, TaskTimeoutError) and self._limit is not None
        seconds = self._limit if killed else task[1].timeout
        row: dict[str, object] = {"verdict": FAILED_ANSWER, "message": str(error), "seconds": seconds}
        row |= {"deployed": "", "certified": 0, "questions": 0, "cpu_seconds": float("nan")}
        return row | _names(*task)


def run_instances(
    instances: Sequence[QueryInstance], out: Path, run_id: str, workers: int = 1, advance: Advance = lambda *_: None
) -> pd.DataFrame:
    """One row per instance, in order, as QueryRow; those that OUT/answers does not hold yet are verified."""
    folder = out / "answers"
    prepare_folder(folder)
    tasks = {instance.key(): instance for instance in instances}
    known = read_rows(folder, everything=True, schema=QUERY_ROWS)
    answered = set(known.loc[known["verdict"] != FAILED_ANSWER, "key"])
    missing = [(key, instance) for key, instance in tasks.items() if key not in answered]
    advance(TITLE, len(tasks) - len(missing), len(tasks))
    if missing:
        longest = max(instance.timeout for _, instance in missing)
        limit = None if SLACK is None else longest + SLACK
        execution = choose_execution(check_workers(workers), len(missing), limit)
        keeper = _Keeper(folder, run_id, len(tasks) - len(missing), len(tasks), advance, limit)
        Driver(answer_instance, missing, execution, keeper).run()
    rows = read_rows(folder, everything=True, schema=QUERY_ROWS).set_index("key")
    own = [(key, instance) for instance in instances if (key := instance.key()) in rows.index]
    found = rows.loc[[key for key, _ in own]].reset_index()
    for name in ("benchmark", "onnx", "vnnlib"):  # the same files may stand in another benchmark under other names
        found[name] = pd.Series([getattr(instance, name) for _, instance in own], dtype="str")
    return found[[*(name for name in QUERY_ROWS.columns if name != "key")]]


def compared(rows: pd.DataFrame, official: Mapping[InstanceKey, OfficialResult]) -> pd.DataFrame:
    """The rows with official, official_seconds, official_tool and agrees: right, WRONG where sat meets unsat, open
    where we do not answer, "" where nobody else did or others contradict each other."""
    none = OfficialResult("")
    names = zip(rows["benchmark"], rows["onnx"], rows["vnnlib"], strict=True)
    found = [official.get(instance_key(*each), none) for each in names]
    table = rows.drop(columns=["run_id"]).copy()
    table["official"] = [one.verdict for one in found]
    table["official_seconds"] = [one.seconds for one in found]
    table["official_tool"] = [one.tool for one in found]
    both = zip(table["verdict"], table["official"], strict=True)
    table["agrees"] = [_agreement(str(ours), theirs) for ours, theirs in both]
    return table


def _agreement(ours: str, theirs: str) -> str:
    if ours not in SOLVED:
        return "open"
    if theirs not in SOLVED:
        return ""
    return "right" if ours == theirs else "WRONG"


def totals(table: pd.DataFrame) -> pd.DataFrame:
    """Per benchmark and for all: instances, verdicts, certified, right, WRONG, late (over the timeout), seconds."""
    groups = [*((str(name), part) for name, part in table.groupby("benchmark", sort=False)), ("all", table)]
    return pd.DataFrame([_total(name, part) for name, part in groups])


def _total(name: str, part: pd.DataFrame) -> dict[str, object]:
    verdicts = {word: int((part["verdict"] == word).sum()) for word in (*SOLVED, "unknown", "timed-out", FAILED_ANSWER)}
    agrees = {word: int((part["agrees"] == word).sum()) for word in ("right", "WRONG")}
    late = int((part["seconds"] > part["timeout"]).sum())
    seconds = {clock: round(float(part[clock].sum()), 1) for clock in ("seconds", "cpu_seconds")}
    proven = int(part.loc[part["verdict"].isin(SOLVED), "certified"].sum())
    counts = {"benchmark": name, "instances": len(part), **verdicts, "certified": proven}
    return counts | {**agrees, "late": late, **seconds}


def markdown(table: pd.DataFrame, sums: pd.DataFrame) -> str:
    """The totals as a table, wrong verdicts first and named, then what official rows contradict each other about."""
    wrong = table[table["agrees"] == "WRONG"]
    named = [
        f"- **WRONG** {row.benchmark} {row.onnx} {row.vnnlib}: official {row.official}, here {row.verdict}"
        for row in wrong.itertuples()
    ]
    named += [
        f"- {DISPUTED} {row.benchmark} {row.onnx} {row.vnnlib}: official rows say sat and unsat, here {row.verdict}"
        for row in table[table["official"] == DISPUTED].itertuples()
    ]
    lines = ["| " + " | ".join(map(str, sums.columns)) + " |", "|" + " --- |" * len(sums.columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in sums.itertuples(index=False)]
    page = ["# Scorecard", "", *named, *([""] if named else []), *lines]
    return "\n".join(map(printable, page)) + "\n"  # names from files become no control characters
