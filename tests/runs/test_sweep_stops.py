"""Sweeps that are stopped and killed lose nothing and continue."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from programs import ended_sessions
from sweep_specimens import assert_same_table, make_spec, run, write_toml
from sweep_specimens import faults as faults
from sweep_specimens import folder as folder

from toolkit.runs.lock import FolderInUseError, folder_lock
from toolkit.runs.provenance import read_provenance
from toolkit.runs.shards import shard_paths
from toolkit.runs.store import read_rows

SWEEP = """
import sys
from functools import partial
sys.path.insert(0, {tests!r})
from sweep_specimens import register_faults
from toolkit.runs.executors import ProcessExecutor, SerialExecutor
from toolkit.runs.sweep.run import run_sweep
if __name__ == "__main__":
    register = partial(register_faults, {marks!r})
    register()
    executor = SerialExecutor() if {workers} == 1 else ProcessExecutor({workers}, initializer=register)
    run_sweep({spec!r}, {out!r}, workers={workers}, executor=executor)
"""


Start = Callable[[Path, Path, int], "subprocess.Popen[str]"]


@pytest.fixture
def start_sweep() -> Iterator[Start]:
    """Starts a sweep as a program of its own, in its own process group, which does not outlive the test."""
    with ended_sessions() as begin:

        def start(spec: Path, out: Path, workers: int) -> subprocess.Popen[str]:
            program = out.with_suffix(".py")
            tests, marks = str(Path(__file__).parents[1]), str(out.parent)
            program.write_text(SWEEP.format(tests=tests, marks=marks, spec=str(spec), out=str(out), workers=workers))
            return begin(sys.executable, program)

        yield start


def wait_for_rows(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    while sum(path.read_bytes().count(b"\n") for path in shard_paths(out)) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_killed_sweep_continues_to_the_same_table(folder: Path, tmp_path: Path, start_sweep: Start) -> None:
    path = write_toml(tmp_path / "spec.toml", folder, ["dual", "lp"], 10)
    undisturbed = run(path, tmp_path / "whole")
    out = tmp_path / "killed"
    process = start_sweep(path, out, 1)
    wait_for_rows(out, 18, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = read_rows(out)
    assert 0 < len(before) < len(undisturbed)
    after = run(path, out)
    assert_same_table(after, undisturbed)
    kept = after[after["key"].isin(before["key"])]
    pd.testing.assert_frame_equal(kept.reset_index(drop=True), before)
    assert [entry["outcome"] for entry in read_provenance(out)] == ["running", "finished"]


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_ctrl_c_finishes_what_is_running(folder: Path, tmp_path: Path, workers: int, start_sweep: Start) -> None:
    path = write_toml(tmp_path / "spec.toml", folder, ["sleep"], 40)
    out = tmp_path / "out"
    process = start_sweep(path, out, workers)
    wait_for_rows(out, 27, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    _, errors = process.communicate(timeout=30)
    assert process.returncode not in (0, None)
    assert "stopping: SIGINT received" in errors
    rows = read_rows(out)
    assert 27 <= len(rows) < 40 * 6 * 9
    assert len(rows) % 9 == 0
    assert set(rows["status"]) == {"computed"}
    (entry,) = read_provenance(out)
    assert entry["outcome"].startswith("stopped: SIGINT")
    assert entry["rows"]["written"] == len(rows)


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_second_ctrl_c_ends_at_once(folder: Path, tmp_path: Path, workers: int, start_sweep: Start) -> None:
    path = write_toml(tmp_path / "spec.toml", folder, ["sleep_long"], 1)
    out = tmp_path / "out"
    process = start_sweep(path, out, workers)
    while not (tmp_path / "asleep").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=10)
    assert read_provenance(out)[0]["outcome"] == "ended by KeyboardInterrupt: no message"
    assert len(run(write_toml(path, folder, ["dual"], 1), out)) == 6 * 9


@pytest.mark.usefixtures("faults")
def test_max_hours_stops_and_the_rest_is_done_later(folder: Path, tmp_path: Path) -> None:
    spec = make_spec(folder, rungs=["sleep"])
    part = run(spec, tmp_path, max_hours=0.2 / 3600)
    assert 0 < len(part) < 81
    assert read_provenance(tmp_path)[0]["outcome"].startswith("stopped: max_hours")
    assert len(run(spec, tmp_path)) == 81


def test_a_second_sweep_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    with folder_lock(tmp_path), pytest.raises(FolderInUseError, match=f"in use by process {os.getpid()} on"):
        run(make_spec(folder), tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("faults")
def test_twenty_kills_lose_and_double_nothing(folder: Path, tmp_path: Path, start_sweep: Start) -> None:
    """The whole process group is killed at random moments, in the middle of a write now and then."""
    path = write_toml(tmp_path / "spec.toml", folder, ["dual", "lp", "sleep"], 80)
    undisturbed = run(path, tmp_path / "whole")
    chooser = np.random.default_rng(0)
    out = tmp_path / "killed"
    seen: dict[str, str] = {}
    for _ in range(20):
        process = start_sweep(path, out, 2)
        rows_before = sum(file.read_bytes().count(b"\n") for file in shard_paths(out))
        wait_for_rows(out, rows_before + 27, process)
        time.sleep(chooser.uniform(0.0, 0.3))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        rows = read_rows(out)
        assert rows["key"].is_unique
        kept = dict(zip(rows["key"], rows["run_id"], strict=True))
        assert {key: kept[key] for key in seen} == seen  # what was on disk stays, computed once
        seen = kept
    assert len(seen) < len(undisturbed)
    assert_same_table(run(path, out), undisturbed)
    assert len(read_provenance(out)) == 21
