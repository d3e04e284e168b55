"""Looking after results folders."""

from __future__ import annotations

import io
import json
import math
import threading
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from stored_rows import ROW, numbered
from sweep_specimens import folder as folder
from sweep_specimens import make_spec, run

from toolkit.runs.lock import FolderInUseError, folder_lock
from toolkit.runs.provenance import read_provenance
from toolkit.runs.shards import append_rows, prepare_folder, shard_paths
from toolkit.runs.store import read_rows
from toolkit.runs.sweep.progress import Snapshot, write_snapshot
from toolkit.runs.sweep.results import (
    compact_results,
    export_rows,
    list_results,
    mixed,
    summarize,
    verify_folder,
    watch,
)


@pytest.fixture(scope="module")
def swept(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep, in a folder within a folder."""
    out = tmp_path_factory.mktemp("results") / "one"
    run(make_spec(folder, rungs=["interval", "dual"]), out)
    return out


def test_list_and_summary(swept: Path) -> None:
    (swept.parent / "else").mkdir(exist_ok=True)
    (swept.parent / "else" / "provenance.json").write_text('{"runs": []}')
    (swept.parent / "experiment").mkdir(exist_ok=True)
    (swept.parent / "experiment" / "provenance.json").write_text('{"command": "python experiments/toy2d.py"}')
    listed = list_results(swept.parent)
    assert listed["folder"].tolist() == [str(swept)]
    line = listed.iloc[0]
    assert (line["name"], line["rows"], line["planned"], line["runs"]) == ("test", 162, 162, 1)
    assert (line["failed"], line["time_limit"], line["outcome"], line["owner"]) == (0, 0, "finished", "")
    summary = summarize(swept)
    assert (summary.rows, summary.planned, summary.other_rows, summary.owner) == (162, 162, 0, None)
    assert summary.statuses.loc["dual", "computed"] == 81
    assert (summary.seconds > 0).all()
    assert summary.mixes == []


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_export_holds_every_number(swept: Path, tmp_path: Path, ending: str) -> None:
    rows = read_rows(swept)
    path = export_rows(swept, tmp_path / "deep" / f"rows.{ending}")
    if ending == "jsonl":
        back = pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])
    else:
        back = pd.read_parquet(path) if ending == "parquet" else pd.read_csv(path, keep_default_na=False)
    pd.testing.assert_frame_equal(back.astype(rows.dtypes.to_dict()), rows, check_exact=ending != "csv")
    assert (back["upper"] == math.inf).all()


def test_unknown_export_is_named(swept: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"exported to \.csv, \.parquet, \.jsonl, got 'rows\.xls'"):
        export_rows(swept, tmp_path / "rows.xls")


def test_whole_folder_has_no_findings(swept: Path) -> None:
    assert verify_folder(swept) == []


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (replace(ROW, lower=3.0, upper=2.0, clean_margin=9.0), "1 rows have lower > upper, the first: net #3 target 5"),
        (replace(ROW, lower=3.0, clean_margin=2.0), "1 rows have lower > clean_margin"),
        (replace(ROW, lower=3e-9, upper=2e-9, clean_margin=9e-9), "1 rows have lower > upper"),  # in small logits
        (replace(ROW, lower=3e-9, clean_margin=2e-9), "1 rows have lower > clean_margin"),
        (replace(ROW, certified_lower=0.5, certified_upper=0.4), "1 rows have certified_lower > certified_upper"),
        (replace(ROW, lower=math.nan), "1 rows have a NaN bound"),
        (replace(ROW, status="fine"), "1 rows have an unknown status"),
        (replace(ROW, status="failed", lower=-math.inf), "1 rows failed without saying why"),
        (ROW, "rows name runs that provenance.json lacks: r0001-aaaaaa"),
    ],
)
def test_damage_is_found(tmp_path: Path, row: object, text: str) -> None:
    prepare_folder(tmp_path)
    append_rows(tmp_path, "r0001-aaaaaa", [row])  # type: ignore[list-item]
    assert any(finding.error and finding.text.startswith(text) for finding in verify_folder(tmp_path))


def test_torn_lines_and_missing_rows_are_noted(folder: Path, tmp_path: Path) -> None:
    run(make_spec(folder, rungs=["dual"]), tmp_path)
    (tmp_path / "rows.parquet").unlink()
    shard = append_rows(tmp_path, "r0001-aaaaaa", numbered(3))
    shard.write_bytes(shard.read_bytes()[:-10])
    texts = [finding.text for finding in verify_folder(tmp_path) if not finding.error]
    assert texts == [
        f"{shard.name}: 1 of 3 lines are torn and ignored",
        "81 of 81 planned rows are not there yet",
        "2 rows belong to earlier specs",
    ]


def test_mixed_names_what_differs(swept: Path) -> None:
    (first,) = read_provenance(swept)
    second = first | {"run_id": "r0002-bbbbbb", "python": "3.99", "packages": first["packages"] | {"numpy": "9.9"}}
    rows = read_rows(swept)
    assert mixed(rows, [first, second]) == []  # no row comes from the second run
    rows.loc[0, "run_id"] = "r0002-bbbbbb"
    rows.loc[:1, "solver"] = ["highs", "gurobi"]
    lines = mixed(rows, [first, second])
    assert [line.split(":")[0] for line in lines] == ["numpy", "python", "solver of interval"]
    assert "9.9 (r0002-bbbbbb)" in lines[0]
    assert "3.99 (r0002-bbbbbb)" in lines[1]


def test_compaction_waits_for_nobody(swept: Path) -> None:
    with folder_lock(swept), pytest.raises(FolderInUseError):
        compact_results(swept)
    assert compact_results(swept) == 162
    assert shard_paths(swept) == []


def test_watch_follows_a_sweep_to_its_end(tmp_path: Path) -> None:
    output = io.StringIO()
    states = [Snapshot("long", 10, done=done, running=1, verdicts={"YES": done}) for done in (3, 7)]

    def sweep() -> None:
        with folder_lock(tmp_path):
            for state in states:
                write_snapshot(tmp_path, state)
                started.set()
                time.sleep(0.3)
            write_snapshot(tmp_path, replace(states[-1], done=10, running=0, ended=True))

    started = threading.Event()
    thread = threading.Thread(target=sweep)
    thread.start()
    started.wait()
    last = watch(tmp_path, every=0.02, console=Console(file=output, width=200))
    thread.join()
    assert last is not None
    assert (last.done, last.ended) == (10, True)
    seen = output.getvalue()
    assert seen.index("3/10 tasks") < seen.index("7/10 tasks") < seen.index("10/10 tasks")
    write_snapshot(tmp_path, states[0])  # as a killed sweep leaves it
    watch(tmp_path, every=0.02, console=Console(file=output, width=200))
    assert "no sweep is running there" in output.getvalue()
    with pytest.raises(FileNotFoundError, match=r"no sweep has run in .*nothing"):
        watch(tmp_path / "nothing")
