"""Rows on disk: append-only shards of JSON lines, compacted to one Parquet file, read back as one typed frame.

    OUT/shards/RUN-TOKEN.jsonl   one line a row, one file a process, thread and run, fsynced once a task
    OUT/rows.parquet             what `compact` made of the shards, with the schema version in its metadata
    OUT/plan.parquet             the keys the latest spec asks for, in its order

Nothing is ever rewritten in place. A line is whole or ignored, so a writer may be killed at any moment; writers never
share a file, so several processes and hosts may write to one folder. Of several rows with one key the latest run's
counts. A file that cannot be read, and a line that is no row, are left out and named (DamagedResultsWarning); the rows
of all others count.
"""

from __future__ import annotations

import functools
import io
import json
import os
import threading
import uuid
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from toolkit.data.arguments import file_path
from toolkit.data.atomic import sync_folder, write_atomically
from toolkit.data.names import path_name
from toolkit.problems.answers import Status

SCHEMA_VERSION = 2
ADDED: dict[str, float] = {"certified_upper": float("inf")}  # columns that rows of version 1 lack: nothing proven
SHARDS, ROWS, PLAN = "shards", "rows.parquet", "plan.parquet"
Table = Any  # pyarrow has no types


@dataclass(frozen=True, kw_only=True)
class Row:
    """One bound in a table: what was asked, what was proven, how long it took, and where it comes from.

    lower, upper: proven interval for m*_t (lower −inf and status "failed" where a rung failed; `message` says why).
    certified_lower: a lower bound that holds in real arithmetic and trusts no solver, −inf where a rung gives none.
    certified_upper: an upper bound in real arithmetic, from the rung's witness or the sample itself, +inf without one.
    seconds, build_seconds: of this row; bounds_seconds: of the l,u chain, shared by the rows of a task. unstable,
    active, inactive: neurons over all layers. relaxed: how many unstable neurons the relaxation's optimum leaves off
    their ReLU (0: its bound is m*; −1 where its point, replayed, does not show that), max_slack: by how much at most,
    y − max(x̂, 0); both −1 where a rung has no such point. clean_margin: F_{c*} − F_t at the sample. domain: "[0, 1]" or
    "none". layer_bounds: the chain, "interval+dual". key: hash of all that determines the row. run_id: an entry of
    provenance.json.
    """

    network: str
    network_digest: str
    dataset: str
    sample: int
    label: int
    target: int
    norm: str
    eps: float
    domain: str
    layer_bounds: str
    rung: str
    lower: float
    upper: float
    certified_lower: float
    certified_upper: float
    status: str
    seconds: float
    build_seconds: float
    bounds_seconds: float
    solver: str
    solver_version: str
    nodes: int
    unstable: int
    active: int
    inactive: int
    clean_margin: float
    relaxed: int
    max_slack: float
    message: str
    key: str
    run_id: str


_DTYPES = {"str": "str", "int": "int64", "float": "float64"}
_ARROW = {"str": pa.string(), "int64": pa.int64(), "float64": pa.float64()}
ROW_COLUMNS: dict[str, str] = {field.name: _DTYPES[str(field.type)] for field in fields(Row)}
_ROWS_SCHEMA = pa.schema([(name, _ARROW[dtype]) for name, dtype in ROW_COLUMNS.items()])
_LINES_SCHEMA = _ROWS_SCHEMA.append(pa.field("schema", pa.int64()))


class StoreError(OSError):
    """The results folder cannot be written; what was written before is intact."""


class DamagedResultsWarning(UserWarning):
    """A part of a results folder cannot be read and is left out; the text names it."""


def prepare_folder(out: Path) -> None:
    """Make a results folder that rows can be written to. Raises OSError."""
    (out / SHARDS).mkdir(parents=True, exist_ok=True)


@functools.lru_cache(maxsize=1024)
def _writer_token(process: int, thread: int) -> str:
    return uuid.uuid4().hex[:12]


def append_rows(out: Path, run_id: str, rows: Sequence[Row]) -> Path:
    """Append rows to this process's own shard and return it once they are on the disk.

    One write and one fsync a call; a failed write is undone as far as the file system lets. Raises StoreError, also
    where OUT/shards does not exist: a distant worker that does not share the folder must not write to a local one.
    """
    shard = out / SHARDS / f"{path_name(run_id, 'a run_id')}-{_writer_token(os.getpid(), threading.get_ident())}.jsonl"
    lines = [json.dumps(_storable(row) | {"schema": SCHEMA_VERSION}, separators=(",", ":")) for row in rows]
    data = "".join(f"{line}\n" for line in lines).encode()
    try:
        _append(shard, data)
    except OSError as error:
        raise StoreError(
            error.errno, f"cannot write rows ({error.strerror}); earlier rows are intact", str(shard)
        ) from error
    return shard


def _storable(row: Row) -> dict[str, Any]:
    """The row's values; a lone surrogate, as in an undecodable file name, is no text that could be read back."""
    return {
        name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for name, value in row.__dict__.items()
    }


def _append(path: Path, data: bytes) -> None:
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                data = b"\n" + data  # an earlier write was cut short: its line stays invalid, ours starts afresh
        view = memoryview(data)
        try:
            while view:
                view = view[file.write(view) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise
    if not size:
        sync_folder(path.parent)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part. Raises StoreError."""
    try:
        with write_atomically(path) as file:
            file.write(data)
    except OSError as error:
        raise StoreError(error.errno, f"cannot write {path.name}: {error.strerror or error}", str(path)) from error


def shard_paths(out: Path) -> list[Path]:
    """The shards in a results folder, by name."""
    return sorted((out / SHARDS).glob("*.jsonl"))


def valid_lines(content: bytes) -> Iterator[bytes]:
    """The lines that hold a whole row, each value of its column's type; torn and foreign ones are left out."""
    for line in content.split(b"\n"):
        row = _object(line)
        if row is not None and _is_row(row):
            yield json.dumps({name: row[name] for name in (*ROW_COLUMNS, "schema")}).encode()


def foreign_lines(content: bytes) -> int:
    """How many lines are whole JSON objects, and yet no rows: nothing that a killed writer leaves."""
    rows = (_object(line) for line in content.split(b"\n"))
    return sum(row is not None and not _is_row(row) for row in rows)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    return ADDED | row if row.get("schema") == 1 else row


def _is_row(row: dict[str, Any]) -> bool:
    types = ROW_COLUMNS | {"schema": "int64"}
    return types.keys() <= row.keys() and all(_is_of_type(row[name], dtype) for name, dtype in types.items())


def _is_of_type(value: object, dtype: str) -> bool:
    if dtype == "str":
        return isinstance(value, str) and value.encode("utf-8", "replace").decode() == value
    if dtype == "int64":
        return type(value) is int and -(2**63) <= value < 2**63
    return type(value) is float or (type(value) is int and abs(value) <= 2**53)


def _read_shard(path: Path) -> tuple[Table, str]:
    """The whole rows of a shard, and what of it is damaged ("" for nothing but a line cut short)."""
    content = path.read_bytes()
    content = content[: content.rfind(b"\n") + 1]
    try:
        return _parse_lines(content), ""
    except pa.ArrowException:  # a torn or mistyped line before the last: look at each
        foreign = foreign_lines(content)
        note = f"{path.name}: {foreign} lines are no rows and left out" if foreign else ""
        return _parse_lines(b"".join(line + b"\n" for line in valid_lines(content))), note


def _parse_lines(content: bytes) -> Table:
    if not content.strip():
        return _LINES_SCHEMA.empty_table()
    options = pyarrow.json.ParseOptions(explicit_schema=_LINES_SCHEMA, unexpected_field_behavior="ignore")
    reading = pyarrow.json.ReadOptions(block_size=1 << 22)
    table = pyarrow.json.read_json(io.BytesIO(content), reading, options)
    if any(column.null_count for column in table.columns):
        raise pa.ArrowInvalid("a line lacks columns")
    return table


@dataclass(frozen=True)
class _Content:
    """What a results folder holds. damage: what was left out, in words, by the file it is in."""

    table: Table
    damage: dict[Path, str]


def _read_all(out: Path) -> _Content:
    """Every whole row in the folder, oldest source first."""
    tables, damage = [], {}
    for path in shard_paths(out):
        try:
            table, note = _read_shard(path)
        except (OSError, pa.ArrowException, ValueError) as error:
            if isinstance(error, FileNotFoundError) and not path.is_symlink():
                continue  # compacted meanwhile: its rows are in the Parquet file, which is read after the shards
            damage[path] = _damaged(path, error)
            continue
        if note:
            damage[path] = note
        newest = max(table["schema"].unique().to_pylist(), default=SCHEMA_VERSION)
        _check_schema(path, newest)
        tables.append(table.select(ROW_COLUMNS))
    compacted = out / ROWS
    if compacted.exists() or compacted.is_symlink():
        try:
            table, version = _read_compacted(compacted)
        except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
            damage[compacted] = _damaged(compacted, error)
        else:
            _check_schema(compacted, version)
            tables.insert(0, table)
    return _Content(pa.concat_tables(tables) if tables else _ROWS_SCHEMA.empty_table(), damage)


def _read_compacted(path: Path) -> tuple[Table, int]:
    table = _read_parquet(path)
    version = int((table.schema.metadata or {}).get(b"relugap_schema", SCHEMA_VERSION))
    if version > SCHEMA_VERSION:
        return _ROWS_SCHEMA.empty_table(), version
    if version == 1:
        for name, value in ADDED.items():
            if name not in table.column_names:
                table = table.append_column(name, pa.array(np.full(table.num_rows, value)))
    table = table.select(list(ROW_COLUMNS)).cast(_ROWS_SCHEMA)
    if any(table[name].null_count for name, dtype in ROW_COLUMNS.items() if dtype != "float64"):  # there null is NaN
        raise ValueError("a row lacks columns")
    return table, version


def _read_parquet(path: Path) -> Table:
    if path.is_dir():  # which pyarrow would read as a data set of many files
        raise IsADirectoryError("it is a folder")
    return pq.read_table(pa.BufferReader(path.read_bytes()), page_checksum_verification=True)


def _damaged(path: Path, error: Exception) -> str:
    reason = (str(getattr(error, "strerror", None) or error).splitlines() or [type(error).__name__])[0][:200]
    return f"{path.name} is damaged and left out: {reason}"


def _warn(out: Path, notes: Iterable[str]) -> None:
    for note in notes:
        warnings.warn(f"{out}: {note}", DamagedResultsWarning, stacklevel=3)


def damage(out: str | Path) -> list[str]:
    """What of a folder's rows and plan cannot be read, one line for each file; read_rows warns of the same."""
    folder = Path(out)
    plan = folder / PLAN
    found = list(_read_all(folder).damage.values())
    return [*found, *([note] if (note := _read_plan(plan)[1]) else [])]


def _check_schema(path: Path, version: int) -> None:
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"{path.name} has rows of schema version {version}, this relugap reads up to {SCHEMA_VERSION}; update it"
        )


def _latest(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per key: of the latest run, and within a run one that neither failed nor ran out of time empty-handed."""
    runs, _ = pd.factorize(frame["run_id"], sort=True)
    finished = 2 * (frame["status"] != Status.FAILED) - (frame["status"] == Status.TIME_LIMIT)
    proven = frame["lower"] > -np.inf
    order = np.argsort(6 * runs + 2 * finished.to_numpy() + proven.to_numpy(), kind="stable")
    repeated = frame["key"].iloc[order].duplicated(keep="last").to_numpy()
    return frame.iloc[np.sort(order[~repeated])] if repeated.any() else frame


def read_rows(out: str | Path, everything: bool = False) -> pd.DataFrame:
    """The rows in a results folder as one frame with the columns and dtypes of ROW_COLUMNS, one row per key.

    Rows the latest spec asks for, in its order (sample by sample); with `everything` also those that remain of
    earlier specs. Reads while a sweep is writing. What is damaged is left out with a DamagedResultsWarning that names
    it. Raises FileNotFoundError for a folder that is none, ValueError for rows of a newer schema.
    """
    folder = file_path("out", out)
    if not folder.is_dir():
        raise FileNotFoundError(f"no results folder at {folder}")
    content = _read_all(folder)
    _warn(folder, content.damage.values())
    frame = _framed(content)
    planned = None if everything else read_plan(folder)
    if planned is not None:
        places = pd.Index(frame["key"]).get_indexer(pd.Index(planned))
        frame = frame.iloc[places[places >= 0]]
    return frame.reset_index(drop=True)


def _framed(content: _Content) -> pd.DataFrame:
    return _latest(content.table.to_pandas()).astype(ROW_COLUMNS)


def write_plan(out: Path, keys: Iterable[str]) -> int:
    """Record which rows the spec asks for, in order; returns how many. Raises StoreError."""
    column = pa.array(keys, pa.string())
    data = io.BytesIO()
    pq.write_table(pa.table({"key": column}), data, write_page_checksum=True)
    replace_file(out / PLAN, data.getvalue())
    return len(column)


def read_plan(out: Path) -> list[str] | None:
    """The keys the latest spec asks for, None for a folder no sweep has run in, or, with a warning, a damaged plan."""
    keys, note = _read_plan(out / PLAN)
    _warn(out, [note] if note else [])
    return keys


def _read_plan(path: Path) -> tuple[list[str] | None, str]:
    if not (path.exists() or path.is_symlink()):
        return None, ""
    try:
        return [str(key) for key in _read_parquet(path)["key"].to_pylist()], ""
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        return None, _damaged(path, error)


def set_aside(path: Path) -> Path:
    """Rename a damaged file, so that a new one can be written and nothing is lost; returns where it is now."""
    place = path.with_name(f"{path.name}.damaged-{uuid.uuid4().hex[:6]}")
    try:
        path.rename(place)
    except OSError as error:
        raise StoreError(error.errno, f"cannot set {path.name} aside: {error.strerror}", str(path)) from error
    return place


def compact(out: str | Path) -> int:
    """Move all rows of the shards into rows.parquet, the latest per key, and return how many it holds.

    Not while a sweep writes to the folder. Cut short at any point it loses nothing: shards go after the new file is
    in place. Damaged shards stay; a damaged rows.parquet is set aside. Raises StoreError, and as read_rows does.
    """
    folder = Path(out)
    if not folder.is_dir():
        raise FileNotFoundError(f"no results folder at {folder}")
    shards = shard_paths(folder)
    content = _read_all(folder)
    _warn(folder, content.damage.values())
    schema = _ROWS_SCHEMA.with_metadata({"relugap_schema": str(SCHEMA_VERSION)})
    data = io.BytesIO()
    frame = _framed(content).reset_index(drop=True)
    table = pa.Table.from_pandas(frame, schema, preserve_index=False)
    pq.write_table(table.replace_schema_metadata(schema.metadata), data, write_page_checksum=True)
    if folder / ROWS in content.damage:
        set_aside(folder / ROWS)
    replace_file(folder / ROWS, data.getvalue())
    for shard in shards:
        if shard not in content.damage:
            shard.unlink(missing_ok=True)
    return len(frame)
