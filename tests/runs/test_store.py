"""Rows on disk: nothing written is lost, nothing torn is believed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_rows import ROW, numbered

from toolkit.runs.lock import FolderInUseError, folder_lock, lock_owner
from toolkit.runs.rows import BOUND_ROWS, ROW_COLUMNS
from toolkit.runs.shards import StoreError, append_rows, prepare_folder, shard_paths
from toolkit.runs.store import ROWS, compact, read_rows, write_plan

floats = st.floats(width=64)
words = st.text(max_size=20)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A results folder."""
    prepare_folder(tmp_path)
    return tmp_path


def test_columns_and_types(out: Path) -> None:
    append_rows(out, "r0001-aaaaaa", numbered(3))
    frame = read_rows(out)
    assert list(frame.columns) == list(ROW_COLUMNS)
    for name, dtype in ROW_COLUMNS.items():
        if dtype == "str":
            assert all(isinstance(value, str) for value in frame[name])
        else:
            assert frame[name].dtype == dtype
    assert read_rows_of_empty_folder(out / "empty").dtypes.equals(frame.dtypes)


def read_rows_of_empty_folder(folder: Path) -> pd.DataFrame:
    folder.mkdir()
    frame = read_rows(folder)
    assert frame.empty
    return frame


@settings(max_examples=12)
@given(values=st.lists(st.tuples(floats, floats, floats, words, words), min_size=1, max_size=6))
def test_round_trip_is_exact(tmp_path_factory: pytest.TempPathFactory, values: list[tuple]) -> None:
    """Infinities, NaN, subnormal and every other float64, and any text, survive shards and Parquet."""
    out = tmp_path_factory.mktemp("out")
    prepare_folder(out)
    rows = [
        replace(ROW, key=f"k{k}", lower=low, upper=high, clean_margin=clean, message=message, network=name)
        for k, (low, high, clean, message, name) in enumerate(values)
    ]
    append_rows(out, "r0001-aaaaaa", rows)
    for _ in range(2):
        frame = read_rows(out)
        for column in ("lower", "upper", "clean_margin"):
            np.testing.assert_array_equal(frame[column], [getattr(row, column) for row in rows])
        assert frame["message"].tolist() == [row.message for row in rows]
        assert frame["network"].tolist() == [row.network for row in rows]
        compact(out)


def test_torn_last_line_is_ignored_and_the_next_write_starts_afresh(out: Path) -> None:
    shard = append_rows(out, "r0001-aaaaaa", numbered(3))
    whole = shard.read_bytes()
    second = whole.index(b"\n") + 1
    for cut in range(second + 1, whole.index(b"\n", second) + 1, 37):  # within the second line, its newline included
        shard.write_bytes(whole[:cut])
        assert read_rows(out)["key"].tolist() == ["k0"]
    append_rows(out, "r0001-aaaaaa", [replace(ROW, key="k9")])
    assert read_rows(out)["key"].tolist() == ["k0", "k9"]
    assert len(shard_paths(out)) == 1


@pytest.mark.parametrize(
    "junk", [b"\x00" * 300, b'{"a": 1}\n', b"not json\n", b"[1, 2]\n", b'{"network": 5}\n', b"\n\n"]
)
def test_foreign_lines_are_ignored(out: Path, junk: bytes) -> None:
    shard = append_rows(out, "r0001-aaaaaa", numbered(2))
    first, second = shard.read_bytes().splitlines(keepends=True)
    shard.write_bytes(first + junk + b"\n" + second)
    assert read_rows(out)["key"].tolist() == ["k0", "k1"]


def test_latest_run_wins_and_within_a_run_what_did_not_fail(out: Path) -> None:
    old = replace(ROW, lower=1.0)
    new = replace(ROW, lower=2.0, run_id="r0002-000000")
    append_rows(out, "r0002-000000", [new])  # the file's name and place do not decide
    append_rows(out, "r0001-aaaaaa", [old])
    assert read_rows(out)["lower"].tolist() == [2.0]
    append_rows(out, "r0002-000000", [replace(new, status="failed", lower=-math.inf)])
    assert read_rows(out)["lower"].tolist() == [2.0]
    compact(out)
    append_rows(out, "r0003-000000", [replace(new, status="failed", lower=-math.inf, run_id="r0003-000000")])
    assert read_rows(out)["status"].tolist() == ["failed"]


def test_compaction_keeps_every_row_and_survives_being_cut_short(out: Path) -> None:
    append_rows(out, "r0001-aaaaaa", numbered(5))
    append_rows(out, "r0002-bbbbbb", numbered(3, run_id="r0002-bbbbbb", lower=7.0))
    before = read_rows(out).sort_values("key", ignore_index=True)
    kept = {shard: shard.read_bytes() for shard in shard_paths(out)}
    assert compact(out) == 5
    assert shard_paths(out) == []
    pd.testing.assert_frame_equal(read_rows(out).sort_values("key", ignore_index=True), before)
    for shard, content in kept.items():  # as if it had been killed before the shards were removed
        shard.write_bytes(content)
    pd.testing.assert_frame_equal(read_rows(out).sort_values("key", ignore_index=True), before)
    assert compact(out) == 5
    assert (pq.read_schema(out / ROWS).metadata)[b"relugap_schema"] == str(BOUND_ROWS.version).encode()


def test_plan_selects_and_orders(out: Path) -> None:
    append_rows(out, "r0001-aaaaaa", numbered(4))
    write_plan(out, ["k3", "k9", "k1"])
    assert read_rows(out)["key"].tolist() == ["k3", "k1"]
    assert sorted(read_rows(out, everything=True)["key"]) == ["k0", "k1", "k2", "k3"]


def test_rows_of_the_first_version_are_read_and_prove_no_upper_bound(out: Path) -> None:
    """They have no certified_upper; in a shard, compacted, and beside rows of today."""
    append_rows(out, "run", [ROW, replace(ROW, key="other", upper=-1.0)])
    [shard] = (out / "shards").iterdir()
    old = [json.loads(line) | {"schema": 1} for line in shard.read_text().splitlines()]
    shard.write_text(
        "".join(json.dumps({k: v for k, v in row.items() if k != "certified_upper"}) + "\n" for row in old)
    )
    append_rows(out, "later", [replace(ROW, key="new", run_id="later", certified_upper=0.5)])
    for _ in range(2):
        rows = read_rows(out, everything=True)
        assert dict(zip(rows["key"], rows["certified_upper"], strict=True)) == {
            ROW.key: math.inf, "other": math.inf, "new": 0.5
        }  # fmt: skip
        compact(out)
    table = pq.read_table(out / ROWS).drop_columns(["certified_upper"])
    pq.write_table(table.replace_schema_metadata({"relugap_schema": "1"}), out / ROWS)
    assert (read_rows(out, everything=True)["certified_upper"] == math.inf).all()


def test_newer_schema_is_refused(out: Path) -> None:
    shard = append_rows(out, "r0001-aaaaaa", numbered(1))
    shard.write_text(json.dumps(json.loads(shard.read_text()) | {"schema": BOUND_ROWS.version + 1}) + "\n")
    with pytest.raises(ValueError, match=f"schema version {BOUND_ROWS.version + 1}.*up to {BOUND_ROWS.version}"):
        read_rows(out)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no results folder at .*nowhere"):
        read_rows(tmp_path / "nowhere")


def test_full_disk_leaves_earlier_rows_intact(tmp_path: Path) -> None:
    """A file-size limit stands for the full disk: the kernel refuses the write half-way, as it would there."""
    program = """
import resource, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from stored_rows import numbered
from toolkit.runs.shards import StoreError, append_rows, prepare_folder
out = Path(sys.argv[1])
prepare_folder(out)
shard = append_rows(out, "r0001-aaaaaa", numbered(4))
limit = shard.stat().st_size + 300
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    append_rows(out, "r0001-aaaaaa", [replace(row, key="x" + row.key) for row in numbered(4)])
except StoreError as error:
    print(error)
"""
    command = [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cannot write rows (File too large); earlier rows are intact" in done.stdout
    (shard,) = shard_paths(tmp_path)
    assert shard.read_bytes().count(b"\n") == 4
    assert shard.read_bytes().endswith(b"\n")
    assert len(read_rows(tmp_path)) == 4


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "shards").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="cannot write rows"):
        append_rows(tmp_path, "r0001-aaaaaa", numbered(1))


def test_lock_names_its_owner_and_dies_with_it(tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from toolkit.runs.lock import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert f"process {holder.pid} " in (lock_owner(tmp_path) or "")
    with pytest.raises(FolderInUseError, match=f"in use by process {holder.pid} on"), folder_lock(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    with folder_lock(tmp_path) as held:
        assert held
    assert lock_owner(tmp_path) is None
