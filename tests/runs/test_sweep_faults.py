"""Bad days: rungs fail, workers die, disks fill up, licences vanish, clocks jump. The faults are real, injected."""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import random_dense_network
from sweep_specimens import assert_same_table, make_spec, register_faults, run
from sweep_specimens import faults as faults
from sweep_specimens import folder as folder

from toolkit.problems.answers import Bound
from toolkit.problems.problem import Problem
from toolkit.rungs import RUNGS
from toolkit.rungs.rung import Rung, Side, each_row
from toolkit.runs.executors import ProcessExecutor
from toolkit.runs.provenance import read_provenance
from toolkit.runs.rows import Row
from toolkit.runs.shards import StoreError, append_rows
from toolkit.runs.store import read_rows
from toolkit.solvers.gurobi import _environment, _licence
from toolkit.solvers.registry import SOLVERS


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raise", "RuntimeError: injected"),
        ("nan", "nonsense from the rung: lower nan, upper inf, clean "),
        ("too_high", "nonsense from liar: lower 1000000.0, upper inf, clean "),
        ("too_few", "ValueError: rung 'too_few' must answer 9 floats as lower"),
    ],
)
def test_failing_rung_is_recorded_and_the_others_kept(folder: Path, tmp_path: Path, fault: str, reason: str) -> None:
    plain = run(make_spec(folder, rungs=["interval", "dual"]), tmp_path / "plain")
    rows = run(make_spec(folder, rungs=["interval", fault, "dual"]), tmp_path / "faulty")
    failed = rows[rows["rung"] == fault]
    assert len(failed) == 9 * 9
    assert set(failed["status"]) == {"failed"}
    assert set(failed["lower"]) == {-np.inf}
    assert failed["message"].str.startswith(reason).all()
    assert not failed["message"].str.contains("\n").any()
    assert_same_table(rows[rows["rung"] != fault].reset_index(drop=True), plain)


@pytest.mark.usefixtures("faults")
def test_failing_layer_bounds_fail_their_chain_only(folder: Path, tmp_path: Path) -> None:
    chains = [["raise"], ["interval", "dual"]]
    rows = run(make_spec(folder, rungs=["dual"], layer_bounds=chains, samples=1, eps=[0.1]), tmp_path)
    by_chain = rows.groupby(["network", "layer_bounds"])["status"].unique().map(list)
    assert by_chain["deep", "raise"] == ["failed"]
    assert by_chain["deep", "interval+dual"] == ["computed"]


@pytest.mark.usefixtures("faults")
def test_rerun_policies(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec(folder, rungs=["dual", "raise"], samples=1)
    assert Counter(run(spec, tmp_path)["status"]) == {"computed": 27, "failed": 27}
    monkeypatch.setitem(RUNGS, "raise", replace(RUNGS["raise"], run=RUNGS["sleep"].run))  # the fault is repaired
    assert Counter(run(spec, tmp_path)["status"]) == {"computed": 27, "failed": 27}
    assert Counter(run(spec, tmp_path, rerun="timeout")["status"]) == {"computed": 27, "failed": 27}
    rows = run(spec, tmp_path, rerun="failed")
    assert Counter(rows["status"]) == {"computed": 54}
    assert rows.groupby("rung")["run_id"].unique().map(len).tolist() == [1, 1]
    assert rows["run_id"].nunique() == 2
    assert run(spec, tmp_path, rerun="all")["run_id"].nunique() == 1
    assert len(read_provenance(tmp_path)) == 3
    with pytest.raises(ValueError, match="unknown rerun 'some'; allowed: failed, timeout, all"):
        run(spec, tmp_path, rerun="some")


@pytest.mark.usefixtures("faults")
def test_task_time_limit_between_rungs_and_by_killing(folder: Path, tmp_path: Path) -> None:
    soft = make_spec(folder, rungs=["sleep", "dual"], samples=1, eps=[0.1], task_time_limit=0.04)
    with ProcessExecutor(1, initializer=register_faults) as executor:  # no limit of its own: nothing is killed
        rows = run(soft, tmp_path / "soft", executor=executor)
    assert set(rows.loc[rows["rung"] == "sleep", "status"]) == {"computed"}
    late = rows[rows["rung"] == "dual"]
    assert set(late["status"]) == {"time_limit"}
    assert late["message"].str.contains("task_time_limit of 0.04 s reached before this rung's turn").all()
    hard = soft.model_copy(update={"rungs": ("dual", "sleep_long")})
    with ProcessExecutor(1, task_limit=1.0, initializer=register_faults) as executor:
        rows = run(hard, tmp_path / "hard", executor=executor)
    assert set(rows.loc[rows["rung"] == "dual", "status"]) == {"computed"}  # what was finished is kept
    late = rows[rows["rung"] == "sleep_long"]
    assert set(late["status"]) == {"time_limit"}
    assert late["message"].str.contains("its process was killed").all()
    patient = soft.model_copy(update={"rungs": ("dual",), "task_time_limit": None})
    assert Counter(run(patient, tmp_path / "soft", rerun="timeout")["status"]) == {"computed": 18}


@pytest.mark.usefixtures("faults")
def test_killed_workers_cost_their_task_only_and_not_for_ever(folder: Path, tmp_path: Path) -> None:
    spec = make_spec(folder, rungs=["interval", "exit_once"], samples=1)
    with ProcessExecutor(2, initializer=partial(register_faults, str(tmp_path))) as executor:
        rows = run(spec, tmp_path / "once", executor=executor, workers=2)
        assert set(rows["status"]) == {"computed"}
        log = (tmp_path / "once" / "sweep.log").read_text()
        assert log.count("killed by SIGKILL (out of memory?); will be tried again") == 3
        spec = make_spec(folder, rungs=["exit"], samples=1, eps=[0.1])
        rows = run(spec, tmp_path / "never", executor=executor, workers=2)
    assert set(rows["status"]) == {"failed"}
    assert rows["message"].str.contains("WorkerDiedError: worker process killed by SIGKILL .*, 3 times").all()


class _DiskFull(Executor):
    """Runs tasks here, the third one under a file-size limit that no row fits in."""

    def __init__(self) -> None:
        self.count = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        import resource

        self.count += 1
        future: Future[Any] = Future()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            if self.count == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        return future


def test_full_disk_stops_the_sweep_and_keeps_earlier_rows(folder: Path, tmp_path: Path) -> None:
    spec = make_spec(folder, rungs=["dual"])
    with pytest.raises(StoreError, match=r"cannot write rows .*earlier rows are intact"):
        run(spec, tmp_path, executor=_DiskFull())
    assert len(read_rows(tmp_path)) == 18
    assert read_provenance(tmp_path)[0]["outcome"].startswith("ended by StoreError")
    assert len(run(spec, tmp_path)) == 81


def test_read_only_folder_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="file") as caught:
        run(make_spec(folder), tmp_path / "file")
    assert "\n" not in str(caught.value)


def _greedy(problem: Problem) -> list[Bound]:
    return [Bound(lower=float(np.ones(1 << 28).sum()) * -1) for _ in problem.targets]  # 2 GB


def register_greedy() -> None:
    RUNGS["greedy"] = Rung("greedy", Side.LOWER, "asks for too much memory", "-", run=each_row(_greedy))


def little_memory() -> None:
    """A worker that may take 1 GB more than it has."""
    register_greedy()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))


@pytest.fixture
def greedy() -> Iterator[None]:
    register_greedy()
    yield
    del RUNGS["greedy"]


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs Linux's /proc")
@pytest.mark.usefixtures("greedy")
def test_a_rung_out_of_memory_costs_its_own_rows(folder: Path, tmp_path: Path) -> None:
    spec = make_spec(folder, rungs=["dual", "greedy", "interval"], samples=1, eps=[0.1])
    with ProcessExecutor(1, initializer=little_memory) as executor:
        rows = run(spec, tmp_path, executor=executor)
    failed = rows["rung"] == "greedy"
    assert set(rows.loc[failed, "status"]) == {"failed"}
    assert rows.loc[failed, "message"].str.contains("MemoryError").all()
    assert set(rows.loc[~failed, "status"]) == {"computed"}


class _LosesLicence(Executor):
    """Runs tasks here; before the third one the Gurobi licence file goes missing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.monkeypatch = 0, monkeypatch

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.count += 1
        if self.count == 3:
            self.monkeypatch.setenv("GRB_LICENSE_FILE", "/nowhere/gurobi.lic")
            _environment.cache_clear()  # as in a process that asks the licence server anew
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@pytest.mark.skipif(not SOLVERS["gurobi"].status().usable, reason="needs a Gurobi licence to lose")
def test_licence_vanishing_falls_back_and_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(folder, rungs=["lp", "exact"], samples=2, solver="gurobi")
    expected = run(spec, tmp_path / "kept")
    assert set(expected["solver"]) == {"gurobi"}
    try:
        rows = run(spec, tmp_path / "lost", executor=_LosesLicence(monkeypatch))
    finally:
        monkeypatch.undo()
        _environment.cache_clear()
        _licence.cache_clear()
    assert set(rows["solver"]) == {"gurobi", "highs"}
    assert (rows["solver"] == "highs").sum() == 4 * 9 * 2
    fallen = rows[rows["solver"] == "highs"]
    assert fallen["message"].str.contains("fell back to highs: gurobi: .*gurobi.lic").all()
    assert set(rows["status"]) == {"optimal"}
    np.testing.assert_allclose(rows["lower"], expected["lower"], rtol=2e-4, atol=2e-4)


def test_a_clock_set_back_does_not_bring_old_rows_back(folder: Path, tmp_path: Path) -> None:
    """The first run's record and files are dated in the far future, as after a clock was set back."""
    spec = make_spec(folder, rungs=["dual"], samples=1, eps=[0.1])
    first = run(spec, tmp_path)
    (tmp_path / "rows.parquet").unlink()
    shard = append_rows(tmp_path, "r0001-ffffff", [Row(**record) for record in first.to_dict("records")])
    for path in (shard, tmp_path / "provenance.json"):
        os.utime(path, (4e9, 4e9))
    text = (tmp_path / "provenance.json").read_text()
    (tmp_path / "provenance.json").write_text(text.replace(read_provenance(tmp_path)[0]["started"], "2099-01-01"))
    second = run(spec, tmp_path, rerun="all")
    assert set(second["run_id"]).isdisjoint(first["run_id"])
    assert len(read_rows(tmp_path, everything=True)) == len(first)


def test_a_network_changed_under_a_running_sweep_is_not_mixed_in(folder: Path, tmp_path: Path) -> None:
    """A worker that starts after the file was replaced refuses it; what was asked about is named by its digest."""
    source = tmp_path / "net.npz"
    random_dense_network(np.random.default_rng(0), [64, 6, 10], "net").save(source)
    spec = make_spec(tmp_path, rungs=["dual"], samples=2, networks=[{"source": str(source), "dataset": "digits"}])

    def replace_network() -> None:
        random_dense_network(np.random.default_rng(1), [64, 6, 10], "net").save(source)

    with ProcessExecutor(1) as executor:
        future = executor.submit(int)  # the worker is there, but has not read the network
        future.result()

        class Late(Executor):
            def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
                replace_network()
                return executor.submit(fn, *args, **kwargs)

        rows = run(spec, tmp_path / "out", executor=Late())
    assert set(rows["status"]) == {"failed"}
    assert rows["message"].str.contains("network 'net' has changed since the sweep began").all()
