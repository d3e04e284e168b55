"""Rows on disk: append-only shards of JSON lines, compacted to one Parquet file, read back as one typed frame.

    OUT/shards/RUN-TOKEN.jsonl   one line a row, one file a process, thread and run, fsynced once a task
    OUT/rows.parquet             what `compact` made of the shards, with the schema version in its metadata
    OUT/plan.parquet             the keys the latest spec asks for, in its order

Nothing is ever rewritten in place. A line is whole or ignored, so a writer may be killed at any moment; writers never
share a file, so several processes and hosts may write to one folder. Of several rows with one key the latest run's
counts.
"""

from __future__ import annotations

import functools
import io
import json
import os
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from toolkit.problem import Status

SCHEMA_VERSION = 1
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
    their ReLU (0: its bound is m*), max_slack: by how much at most, y − max(x̂, 0); both −1 where a rung has no such
    point. clean_margin: F_{c*} − F_t at the sample. domain: "[0, 1]" or "none". layer_bounds: the chain,
    "interval+dual". key: hash of all that determines the row. run_id: an entry of provenance.json.
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
    shard = out / SHARDS / f"{run_id}-{_writer_token(os.getpid(), threading.get_ident())}.jsonl"
    lines = [json.dumps(row.__dict__ | {"schema": SCHEMA_VERSION}, separators=(",", ":")) for row in rows]
    data = "".join(f"{line}\n" for line in lines).encode()
    try:
        _append(shard, data)
    except OSError as error:
        raise StoreError(
            error.errno, f"cannot write rows ({error.strerror}); earlier rows are intact", str(shard)
        ) from error
    return shard


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


def sync_folder(folder: Path) -> None:
    """Make new and renamed names in a folder survive a power cut, where the system can."""
    if os.name == "posix":
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part. Raises StoreError."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise StoreError(error.errno, f"cannot write {path.name}: {error.strerror}", str(path)) from error


def shard_paths(out: Path) -> list[Path]:
    """The shards in a results folder, by name."""
    return sorted((out / SHARDS).glob("*.jsonl"))


def valid_lines(content: bytes) -> Iterator[bytes]:
    """The lines that hold a whole row; torn and foreign ones are left out."""
    for line in content.split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and ROW_COLUMNS.keys() | {"schema"} <= row.keys():
            yield line


def _read_shard(path: Path) -> Table:
    content = path.read_bytes()
    content = content[: content.rfind(b"\n") + 1]
    try:
        return _parse_lines(content)
    except pa.ArrowInvalid:  # a torn line before the last: look at each
        return _parse_lines(b"".join(line + b"\n" for line in valid_lines(content)))


def _parse_lines(content: bytes) -> Table:
    if not content.strip():
        return _LINES_SCHEMA.empty_table()
    options = pyarrow.json.ParseOptions(explicit_schema=_LINES_SCHEMA, unexpected_field_behavior="ignore")
    reading = pyarrow.json.ReadOptions(block_size=1 << 22)
    table = pyarrow.json.read_json(io.BytesIO(content), reading, options)
    if any(column.null_count for column in table.columns):
        raise pa.ArrowInvalid("a line lacks columns")
    return table


def _read_all(out: Path) -> Table:
    """Every whole row in the folder, oldest source first."""
    tables = []
    for path in shard_paths(out):
        try:
            table = _read_shard(path)
        except FileNotFoundError:
            continue  # compacted meanwhile: its rows are in the Parquet file, which is read after the shards
        newest = max(table["schema"].unique().to_pylist(), default=SCHEMA_VERSION)
        _check_schema(path, newest)
        tables.append(table.select(ROW_COLUMNS))
    compacted = out / ROWS
    if compacted.is_file():
        table = pq.read_table(compacted)
        _check_schema(compacted, int((table.schema.metadata or {}).get(b"relugap_schema", SCHEMA_VERSION)))
        tables.insert(0, table.select(list(ROW_COLUMNS)).cast(_ROWS_SCHEMA))
    return pa.concat_tables(tables) if tables else _ROWS_SCHEMA.empty_table()


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
    earlier specs. Reads while a sweep is writing. Raises FileNotFoundError for a folder that is none, ValueError for
    rows of a newer schema.
    """
    folder = Path(out)
    if not folder.is_dir():
        raise FileNotFoundError(f"no results folder at {folder}")
    frame = _latest(_read_all(folder).to_pandas()).astype(ROW_COLUMNS)
    planned = None if everything else read_plan(folder)
    if planned is not None:
        places = pd.Index(frame["key"]).get_indexer(pd.Index(planned))
        frame = frame.iloc[places[places >= 0]]
    return frame.reset_index(drop=True)


def write_plan(out: Path, keys: Iterable[str]) -> int:
    """Record which rows the spec asks for, in order; returns how many. Raises StoreError."""
    column = pa.array(keys, pa.string())
    data = io.BytesIO()
    pq.write_table(pa.table({"key": column}), data)
    replace_file(out / PLAN, data.getvalue())
    return len(column)


def read_plan(out: Path) -> list[str] | None:
    """The keys the latest spec asks for, None for a folder no sweep has run in."""
    path = out / PLAN
    return [str(key) for key in pq.read_table(path)["key"].to_pylist()] if path.is_file() else None


def compact(out: str | Path) -> int:
    """Move all rows of the shards into rows.parquet, the latest per key, and return how many it holds.

    Not while a sweep writes to the folder. Cut short at any point it loses nothing: shards go after the new file is
    in place. Raises StoreError, and as read_rows does.
    """
    folder = Path(out)
    shards = shard_paths(folder)
    frame = read_rows(folder, everything=True)
    schema = _ROWS_SCHEMA.with_metadata({"relugap_schema": str(SCHEMA_VERSION)})
    data = io.BytesIO()
    table = pa.Table.from_pandas(frame, schema, preserve_index=False)
    pq.write_table(table.replace_schema_metadata(schema.metadata), data)
    replace_file(folder / ROWS, data.getvalue())
    for shard in shards:
        shard.unlink(missing_ok=True)
    return len(frame)
