"""Bad days: memory runs out, licences vanish, clocks jump. The faults are real ones, injected."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import random_dense_network
from test_sweep import folder as folder
from test_sweep import make_spec, run

from toolkit.executors import ProcessExecutor
from toolkit.problem import Bound, Problem, Rung, Side
from toolkit.provenance import read_provenance
from toolkit.rungs import RUNGS
from toolkit.solvers import SOLVERS, _gurobi_environment, _gurobi_licence
from toolkit.store import Row, append_rows, read_rows


def _greedy(problem: Problem) -> list[Bound]:
    return [Bound(lower=float(np.ones(1 << 28).sum()) * -1) for _ in problem.targets]  # 2 GB


def register_greedy() -> None:
    RUNGS["greedy"] = Rung("greedy", Side.LOWER, "asks for too much memory", "-", run=_greedy)


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
            _gurobi_environment.cache_clear()  # as in a process that asks the licence server anew
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
        _gurobi_environment.cache_clear()
        _gurobi_licence.cache_clear()
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
