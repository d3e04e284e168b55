"""Append-only shards of JSON lines: OUT/shards/RUN-TOKEN.jsonl, one file a process, thread and run.

Nothing is ever rewritten in place. A line is whole or ignored, so a writer may be killed at any moment; writers never
share a file, so several processes and hosts may write to one folder.
"""

from __future__ import annotations

import functools
import io
import json
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json

from toolkit.data.atomic import sync_folder
from toolkit.data.names import path_name
from toolkit.runs.rows import BOUND_ROWS, DISTANCE_ROWS, QUERY_ROWS, RADIUS_ROWS, VERDICT_ROWS, Schema, Stored

SHARDS = "shards"
VERSIONS = {
    schema.kind: schema.version for schema in (BOUND_ROWS, VERDICT_ROWS, RADIUS_ROWS, DISTANCE_ROWS, QUERY_ROWS)
}
Table = Any  # pyarrow has no types


class StoreError(OSError):
    """The results folder cannot be written; what was written before is intact."""


def prepare_folder(out: Path) -> None:
    """Make a results folder that rows can be written to. Raises OSError."""
    (out / SHARDS).mkdir(parents=True, exist_ok=True)


@functools.lru_cache(maxsize=1024)
def _writer_token(process: int, thread: int) -> str:
    return uuid.uuid4().hex[:12]


def append_rows(out: Path, run_id: str, rows: Sequence[Stored]) -> Path:
    """Append rows to this process's own shard and return it once they are on the disk.

    One write and one fsync a call; a failed write is undone as far as the file system lets. Raises StoreError, also
    where OUT/shards does not exist: a distant worker that does not share the folder must not write to a local one.
    """
    shard = out / SHARDS / f"{path_name(run_id, 'a run_id')}-{_writer_token(os.getpid(), threading.get_ident())}.jsonl"
    version = {"schema": VERSIONS[type(rows[0])]} if rows else {}
    lines = [json.dumps(_storable(row) | version, separators=(",", ":")) for row in rows]
    data = "".join(f"{line}\n" for line in lines).encode()
    try:
        _append(shard, data)
    except OSError as error:
        raise StoreError(
            error.errno, f"cannot write rows ({error.strerror}); earlier rows are intact", str(shard)
        ) from error
    return shard


def _storable(row: Stored) -> dict[str, Any]:
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


def shard_paths(out: Path) -> list[Path]:
    """The shards in a results folder, by name."""
    return sorted((out / SHARDS).glob("*.jsonl"))


def valid_lines(content: bytes, schema: Schema = BOUND_ROWS) -> Iterator[bytes]:
    """The lines that hold a whole row, each value of its column's type; torn and foreign ones are left out."""
    for line in content.split(b"\n"):
        row = _object(line, schema)
        if row is not None and _is_row(row, schema):
            yield json.dumps({name: row[name] for name in (*schema.columns, "schema")}).encode()


def foreign_lines(content: bytes, schema: Schema = BOUND_ROWS) -> int:
    """How many lines are whole JSON objects, and yet no rows: nothing that a killed writer leaves."""
    rows = (_object(line, schema) for line in content.split(b"\n"))
    return sum(row is not None and not _is_row(row, schema) for row in rows)


def _object(line: bytes, schema: Schema) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    return {**schema.added, **row} if row.get("schema") == 1 else row


def _is_row(row: dict[str, Any], schema: Schema) -> bool:
    types = schema.columns | {"schema": "int64"}
    return types.keys() <= row.keys() and all(_is_of_type(row[name], dtype) for name, dtype in types.items())


def _is_of_type(value: object, dtype: str) -> bool:
    if dtype == "str":
        return isinstance(value, str) and value.encode("utf-8", "replace").decode() == value
    if dtype == "int64":
        return type(value) is int and -(2**63) <= value < 2**63
    return type(value) is float or (type(value) is int and abs(value) <= 2**53)


def read_shard(path: Path, schema: Schema) -> tuple[Table, str]:
    """The whole rows of a shard, and what of it is damaged ("" for nothing but a line cut short)."""
    content = path.read_bytes()
    content = content[: content.rfind(b"\n") + 1]
    try:
        return _parse_lines(content, schema), ""
    except pa.ArrowException:  # a torn or mistyped line before the last: look at each
        foreign = foreign_lines(content, schema)
        note = f"{path.name}: {foreign} lines are no rows and left out" if foreign else ""
        return _parse_lines(b"".join(line + b"\n" for line in valid_lines(content, schema)), schema), note


def _parse_lines(content: bytes, schema: Schema) -> Table:
    if not content.strip():
        return schema.lines.empty_table()
    options = pyarrow.json.ParseOptions(explicit_schema=schema.lines, unexpected_field_behavior="ignore")
    reading = pyarrow.json.ReadOptions(block_size=1 << 22)
    table = pyarrow.json.read_json(io.BytesIO(content), reading, options)
    if any(column.null_count for column in table.columns):
        raise pa.ArrowInvalid("a line lacks columns")
    return table
