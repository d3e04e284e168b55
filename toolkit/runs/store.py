"""Rows on disk: append-only shards of JSON lines, compacted to one Parquet file, read back as one typed frame.

    OUT/shards/RUN-TOKEN.jsonl   one line a row, fsynced once a task (shards.py)
    OUT/rows.parquet             what `compact` made of the shards, with the schema version in its metadata
    OUT/plan.parquet             the keys the latest spec asks for, in its order

Of several rows with one key the latest run's counts. A file that cannot be read, and a line that is no row, are left
out and named (DamagedResultsWarning); the rows of all others count. What a row holds is a Schema (rows.py).
"""

from __future__ import annotations

import io
import uuid
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from toolkit.data.arguments import file_path
from toolkit.data.atomic import write_atomically
from toolkit.data.notebook import shown_as
from toolkit.runs.rows import BOUND_ROWS, Schema
from toolkit.runs.rows_html import rows_html
from toolkit.runs.shards import StoreError, Table, read_shard, shard_paths

ROWS, PLAN = "rows.parquet", "plan.parquet"


class DamagedResultsWarning(UserWarning):
    """A part of a results folder cannot be read and is left out; the text names it."""


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part. Raises StoreError."""
    try:
        with write_atomically(path) as file:
            file.write(data)
    except OSError as error:
        raise StoreError(error.errno, f"cannot write {path.name}: {error.strerror or error}", str(path)) from error


@dataclass(frozen=True)
class _Content:
    """What a results folder holds. damage: what was left out, in words, by the file it is in."""

    table: Table
    damage: dict[Path, str]


def _read_all(out: Path, schema: Schema = BOUND_ROWS) -> _Content:
    """Every whole row in the folder, oldest source first."""
    tables, damage = [], {}
    for path in shard_paths(out):
        try:
            table, note = read_shard(path, schema)
        except (OSError, pa.ArrowException, ValueError) as error:
            if isinstance(error, FileNotFoundError) and not path.is_symlink():
                continue  # compacted meanwhile: its rows are in the Parquet file, which is read after the shards
            damage[path] = _damaged(path, error)
            continue
        if note:
            damage[path] = note
        newest = max(table["schema"].unique().to_pylist(), default=schema.version)
        _check_schema(path, newest, schema)
        tables.append(table.select(list(schema.columns)))
    compacted = out / ROWS
    if compacted.exists() or compacted.is_symlink():
        try:
            table, version = _read_compacted(compacted, schema)
        except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
            damage[compacted] = _damaged(compacted, error)
        else:
            _check_schema(compacted, version, schema)
            tables.insert(0, table)
    return _Content(pa.concat_tables(tables) if tables else schema.arrow.empty_table(), damage)


def _read_compacted(path: Path, schema: Schema) -> tuple[Table, int]:
    table = _read_parquet(path)
    version = int((table.schema.metadata or {}).get(b"relugap_schema", schema.version))
    if version > schema.version:
        return schema.arrow.empty_table(), version
    if version == 1:
        for name, value in schema.added.items():
            if name not in table.column_names:
                table = table.append_column(name, pa.array(np.full(table.num_rows, value)))
    table = table.select(list(schema.columns)).cast(schema.arrow)
    if any(table[name].null_count for name, dtype in schema.columns.items() if dtype != "float64"):  # there null is NaN
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


def _check_schema(path: Path, version: int, schema: Schema) -> None:
    if version > schema.version:
        raise ValueError(
            f"{path.name} has rows of schema version {version}, this relugap reads up to {schema.version}; update it"
        )


def _latest(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """One row per key: of the latest run, and within a run the one of the highest rank."""
    runs, _ = pd.factorize(frame["run_id"], sort=True)
    rank = np.zeros(len(frame)) if schema.rank is None else schema.rank(frame)
    order = np.lexsort((rank, runs))
    repeated = frame["key"].iloc[order].duplicated(keep="last").to_numpy()
    return frame.iloc[np.sort(order[~repeated])] if repeated.any() else frame


def read_rows(out: str | Path, everything: bool = False, schema: Schema = BOUND_ROWS) -> pd.DataFrame:
    """The rows in a results folder as one frame with the columns and dtypes of the schema, one row per key.

    Rows the latest spec asks for, in its order (sample by sample); with `everything` also those that remain of
    earlier specs. Reads while a sweep is writing. What is damaged is left out with a DamagedResultsWarning that names
    it. Raises FileNotFoundError for a folder that is none, ValueError for rows of a newer schema.
    """
    folder = file_path("out", out)
    if not folder.is_dir():
        raise FileNotFoundError(f"no results folder at {folder}")
    content = _read_all(folder, schema)
    _warn(folder, content.damage.values())
    frame = _framed(content, schema)
    planned = None if everything else read_plan(folder)
    if planned is not None:
        places = pd.Index(frame["key"]).get_indexer(pd.Index(planned))
        frame = frame.iloc[places[places >= 0]]
    found = frame.reset_index(drop=True)
    return shown_as(found, rows_html) if schema is BOUND_ROWS else found


def _framed(content: _Content, schema: Schema) -> pd.DataFrame:
    return _latest(content.table.to_pandas(), schema).astype(schema.columns)


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


def compact(out: str | Path, schema: Schema = BOUND_ROWS) -> int:
    """Move all rows of the shards into rows.parquet, the latest per key, and return how many it holds.

    Not while a sweep writes to the folder. Cut short at any point it loses nothing: shards go after the new file is
    in place. Damaged shards stay; a damaged rows.parquet is set aside. Raises StoreError, and as read_rows does.
    """
    folder = Path(out)
    if not folder.is_dir():
        raise FileNotFoundError(f"no results folder at {folder}")
    shards = shard_paths(folder)
    content = _read_all(folder, schema)
    _warn(folder, content.damage.values())
    arrow = schema.arrow.with_metadata({"relugap_schema": str(schema.version)})
    data = io.BytesIO()
    frame = _framed(content, schema).reset_index(drop=True)
    table = pa.Table.from_pandas(frame, arrow, preserve_index=False)
    pq.write_table(table.replace_schema_metadata(arrow.metadata), data, write_page_checksum=True)
    if folder / ROWS in content.damage:
        set_aside(folder / ROWS)
    replace_file(folder / ROWS, data.getvalue())
    for shard in shards:
        if shard not in content.damage:
            shard.unlink(missing_ok=True)
    return len(frame)
