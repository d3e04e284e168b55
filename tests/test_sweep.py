"""Sweeps: what they compute, and that nothing they have computed is lost."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import random_dense_network

from toolkit.balls import LinfBall
from toolkit.data import load_dataset
from toolkit.executors import ProcessExecutor
from toolkit.layer_bounds import layer_bounds
from toolkit.lock import FolderInUseError, folder_lock
from toolkit.margins import margins
from toolkit.network import Network
from toolkit.plan import make_plan
from toolkit.problem import Bound, Problem, Rung, Settings, Side
from toolkit.progress import read_snapshot
from toolkit.provenance import read_provenance
from toolkit.rungs import RUNGS
from toolkit.spec import SweepSpec, parse_spec
from toolkit.store import ROW_COLUMNS, Row, StoreError, append_rows, read_rows, shard_paths
from toolkit.sweep import run_sweep
from toolkit.tasks import Work, row_keys

VOLATILE = ["seconds", "build_seconds", "bounds_seconds", "run_id"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small networks on digits."""
    path = tmp_path_factory.mktemp("networks")
    rng = np.random.default_rng(0)
    for name, sizes in (("deep", [64, 8, 8, 10]), ("flat", [64, 10, 10])):
        random_dense_network(rng, sizes, name).save(path / f"{name}.npz")
    return path


@pytest.fixture
def spec(folder: Path) -> SweepSpec:
    """2 networks × 3 samples × (2 or 1) ε: 9 tasks of 9 targets each, all closed forms and solvers."""
    return make_spec(folder)


def make_spec(folder: Path, **changes: Any) -> SweepSpec:
    content = {
        "name": "test",
        "samples": 3,
        "eps": [0.01, 0.03],
        "domain": [0, 1],
        "rungs": ["interval", "dual", "lp", "exact"],
        "solver": "highs",
        "networks": [
            {"source": str(folder / "deep.npz"), "dataset": "digits"},
            {"source": str(folder / "flat.npz"), "dataset": "digits", "eps": [0.02]},
        ],
    }
    return parse_spec(content | changes)


def write_toml(path: Path, folder: Path, rungs: list[str], samples: int) -> Path:
    tables = "".join(f'[[networks]]\nsource = "{folder / name}.npz"\ndataset = "digits"\n' for name in ("deep", "flat"))
    head = f'name = "t"\nsamples = {samples}\neps = [0.01, 0.02, 0.03]\nsolver = "highs"\nrungs = {json.dumps(rungs)}\n'
    path.write_text(head + tables)
    return path


def run(spec: SweepSpec | Path, out: Path, workers: int = 1, **options: Any) -> pd.DataFrame:
    return run_sweep(spec, out, workers=workers, progress=False, **options)


def assert_same_table(one: pd.DataFrame, other: pd.DataFrame) -> None:
    assert one["key"].is_unique
    pd.testing.assert_frame_equal(one.drop(columns=VOLATILE), other.drop(columns=VOLATILE))


def test_rows_are_complete_and_equal_margins_computed_by_hand(spec: SweepSpec, tmp_path: Path) -> None:
    rows = run(spec, tmp_path)
    assert list(rows.columns) == list(ROW_COLUMNS)
    assert len(rows) == 9 * 9 * 4  # tasks × targets × rungs
    assert set(rows["status"]) <= {"computed", "optimal"}
    data = load_dataset("digits")
    for (source, sample, eps), part in rows.groupby(["network", "sample", "eps"]):
        network = Network.load(spec.networks[("deep", "flat").index(source)].source)
        label, center = int(data.labels[sample]), data.features[sample]
        ball = LinfBall(center, eps, (0, 1))
        bounds = layer_bounds(network, ball)
        logits = network.forward(center)
        for rung, own in part.groupby("rung"):
            assert own["target"].tolist() == [t for t in range(10) if t != label]
            expected = margins(network, ball, label, rung, bounds, settings=Settings(solver="highs"))
            np.testing.assert_allclose(own["lower"], [bound.lower for bound in expected], rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(own["clean_margin"], logits[label] - logits[own["target"]], atol=1e-12)
            counts = np.sum(bounds.counts(), axis=0)
            assert (own[["unstable", "active", "inactive"]] == counts).all(axis=None)
            assert set(own["network_digest"]) == {network.digest}
        assert part["layer_bounds"].unique().tolist() == ["interval+dual"]
        assert part["domain"].unique().tolist() == ["[0, 1]"]
    lower = rows.pivot(index=["network", "sample", "eps", "target"], columns="rung", values="lower")
    assert (lower["interval"] <= lower["exact"] + 1e-6).all()
    assert (lower["dual"] <= lower["lp"] + 1e-6).all()
    assert (lower["lp"] <= lower["exact"] + 1e-6).all()
    certified = rows[rows["rung"] == "lp"]
    assert (certified["certified_lower"] <= certified["lower"] + 1e-6).all()
    assert (certified["certified_lower"] > certified["lower"] - 1e-4).all()


def test_two_processes_give_the_serial_table_and_a_second_run_does_nothing(spec: SweepSpec, tmp_path: Path) -> None:
    serial = run(spec, tmp_path / "one")
    assert_same_table(run(spec, tmp_path / "two", workers=2), serial)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").rglob("*") if path.name != "plan.parquet"}
    assert_same_table(run(spec, tmp_path / "two", workers=2), serial)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").rglob("*") if path.name != "plan.parquet"}
    assert {path for path in after if after[path] != before.get(path)} <= {tmp_path / "two" / ".lock"}
    assert len(read_provenance(tmp_path / "two")) == 1


def test_partial_results_cover_every_network_and_eps(folder: Path) -> None:
    """Sample by sample, and within a sample in turns over ε and networks; ε lists of different length."""
    plan = make_plan(make_spec(folder, samples=[4, 2]))
    tasks = plan.tasks(Work("", "", Settings(), None))
    assert [(task.sample, task.eps, task.network.name) for task in tasks] == [
        (sample, eps, name) for sample in (4, 2) for eps, name in ((0.01, "deep"), (0.02, "flat"), (0.03, "deep"))
    ]


@pytest.mark.parametrize(
    ("change", "rungs_kept"),
    [
        ({"eps": [0.011, 0.031]}, []),
        ({"domain": None}, []),
        ({"layer_bounds": (("interval",),)}, []),
        ({"time_limit": 50}, ["dual", "interval"]),
        ({"mip_gap": 1e-3}, ["dual", "interval"]),
        ({"mip_gap_abs": 1e-3}, ["dual", "interval"]),
        ({"rigorous": True}, ["dual", "interval"]),
        ({"solver": "auto"}, ["dual", "interval"]),
        ({"attack_steps": 7}, ["dual", "exact", "interval", "lp"]),
        ({"name": "another"}, ["dual", "exact", "interval", "lp"]),
    ],
)
def test_keys_change_with_what_determines_a_row(folder: Path, change: dict[str, Any], rungs_kept: list[str]) -> None:
    one = make_spec(folder, networks=[{"source": str(folder / "deep.npz"), "dataset": "digits"}])
    before, after = keys_by_rung(one), keys_by_rung(one.model_copy(update=change))
    assert [rung for rung in sorted(before) if before[rung] == after[rung]] == rungs_kept
    assert all(before[rung].isdisjoint(after[rung]) for rung in before if rung not in rungs_kept)


def test_keys_change_with_network_rung_version_and_chain_version(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys_by_rung(make_spec(folder, rungs=["interval", "dual"]))
    network = Network.load(folder / "deep.npz")
    for name in ("deep", "flat"):
        random_dense_network(np.random.default_rng(5), [64, *network.relu_sizes, 10], name).save(
            tmp_path / f"{name}.npz"
        )
    for rung, keys in keys_by_rung(make_spec(tmp_path, rungs=["interval", "dual"])).items():
        assert keys.isdisjoint(before[rung])
    monkeypatch.setitem(RUNGS, "interval", replace(RUNGS["interval"], version=99))
    for rung, keys in keys_by_rung(make_spec(folder, rungs=["interval", "dual"])).items():
        assert keys.isdisjoint(before[rung])  # of dual too: its layer bounds begin with interval
    only_dual = make_spec(folder, rungs=["dual"], layer_bounds=[["dual"]])
    monkeypatch.undo()
    assert keys_by_rung(only_dual) == keys_by_rung(make_spec(folder, rungs=["dual"], layer_bounds=[["dual"]]))


def keys_by_rung(spec: SweepSpec) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    work = Work("", "", spec.settings(), spec.domain)
    for task in make_plan(spec).tasks(work):
        for (_, rung), keys in row_keys(task).items():
            found.setdefault(rung, set()).update(keys)
    return found


def test_a_changed_spec_computes_only_what_is_new(folder: Path, tmp_path: Path) -> None:
    first = run(make_spec(folder, rungs=["dual"]), tmp_path)
    more = run(make_spec(folder, rungs=["dual", "interval"], samples=4), tmp_path)
    old = more[more["key"].isin(first["key"])]
    assert set(old["run_id"]) == set(first["run_id"])
    assert len(more) == 12 * 9 * 2
    back = run(make_spec(folder, rungs=["dual"]), tmp_path)
    assert_same_table(back, first)
    assert len(read_rows(tmp_path, everything=True)) == len(more)
    assert len(read_provenance(tmp_path)) == 2


def test_torn_line_is_computed_again(folder: Path, tmp_path: Path) -> None:
    spec = make_spec(folder, rungs=["dual", "lp"])
    whole = run(spec, tmp_path / "whole")
    run(make_spec_part(spec, 2), tmp_path / "torn", max_hours=1)
    rows = read_rows(tmp_path / "torn", everything=True)
    (tmp_path / "torn" / "rows.parquet").unlink()
    shard = append_rows(tmp_path / "torn", "r0001-aaaaaa", [to_row(row) for row in rows.to_dict("records")])
    content = shard.read_bytes()
    shard.write_bytes(content[: int(len(content) * 0.6)])
    assert_same_table(run(spec, tmp_path / "torn"), whole)


def make_spec_part(spec: SweepSpec, samples: int) -> SweepSpec:
    return spec.model_copy(update={"samples": samples})


def to_row(record: dict[str, Any]) -> Row:
    return Row(**record)


# ---------------------------------------------------------------------------------------------- faults in rungs


def _raise(_: Problem) -> list[Bound]:
    raise RuntimeError("injected\nsecond line")


def _nan(problem: Problem) -> list[Bound]:
    return [Bound(lower=float("nan")) for _ in problem.targets]


def _too_high(problem: Problem) -> list[Bound]:
    return [Bound(lower=1e6, solver="liar", solver_version="1") for _ in problem.targets]


def _too_few(problem: Problem) -> list[Bound]:
    return [Bound(lower=0.0)]


def _exit(_: Problem) -> list[Bound]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def _exit_once(problem: Problem) -> list[Bound]:
    mark = Path(RUNGS["exit_once"].source) / f"{problem.ball.eps}-{problem.network.name}"
    if not mark.exists():
        mark.write_text("died here once")
        _exit(problem)
    return RUNGS["dual"](problem)


def _sleep(problem: Problem) -> list[Bound]:
    time.sleep(0.05)
    return RUNGS["dual"](problem)


def _sleep_long(problem: Problem) -> list[Bound]:
    time.sleep(1000)
    return []


FAULTS: dict[str, Callable[[Problem], list[Bound]]] = {
    "raise": _raise,
    "nan": _nan,
    "too_high": _too_high,
    "too_few": _too_few,
    "exit": _exit,
    "exit_once": _exit_once,
    "sleep": _sleep,
    "sleep_long": _sleep_long,
}


def register_faults(marks: str = "") -> None:
    """Make the faulty rungs known, here or in a worker process. marks: a folder in which exit_once leaves its marks."""
    for name, fault in FAULTS.items():
        RUNGS[name] = Rung(name, Side.LOWER, "faulty on purpose", marks, run=fault)


@pytest.fixture
def faults() -> Iterator[None]:
    register_faults()
    yield
    for name in FAULTS:
        del RUNGS[name]


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raise", "RuntimeError: injected"),
        ("nan", "nonsense from the rung: lower nan, upper inf, clean "),
        ("too_high", "nonsense from liar: lower 1000000.0, upper inf, clean "),
        ("too_few", "ValueError: zip"),
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


# ---------------------------------------------------------------------------------------------- stops and kills

SWEEP = """
import sys
sys.path.insert(0, {tests!r})
from test_sweep import register_faults
from toolkit.executors import ProcessExecutor, SerialExecutor
from toolkit.sweep import run_sweep
if __name__ == "__main__":
    register_faults()
    executor = SerialExecutor() if {workers} == 1 else ProcessExecutor({workers}, initializer=register_faults)
    run_sweep({spec!r}, {out!r}, workers={workers}, executor=executor)
"""


def start_sweep(spec: Path, out: Path, workers: int) -> subprocess.Popen[str]:
    """A sweep as a program of its own, in its own process group, with the faulty rungs known to it."""
    program = out.with_suffix(".py")
    program.write_text(SWEEP.format(tests=str(Path(__file__).parent), spec=str(spec), out=str(out), workers=workers))
    return subprocess.Popen([sys.executable, str(program)], stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_rows(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    while sum(path.read_bytes().count(b"\n") for path in shard_paths(out)) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_killed_sweep_continues_to_the_same_table(folder: Path, tmp_path: Path) -> None:
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
def test_ctrl_c_finishes_what_is_running(folder: Path, tmp_path: Path, workers: int) -> None:
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
def test_a_second_ctrl_c_ends_at_once(folder: Path, tmp_path: Path, workers: int) -> None:
    path = write_toml(tmp_path / "spec.toml", folder, ["sleep_long"], 1)
    out = tmp_path / "out"
    process = start_sweep(path, out, workers)
    while not (out / "progress.json").is_file() or '"running": 1' not in (out / "progress.json").read_text():
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


def test_a_second_sweep_is_refused_by_name(spec: SweepSpec, tmp_path: Path) -> None:
    with folder_lock(tmp_path), pytest.raises(FolderInUseError, match=f"in use by process {os.getpid()} on"):
        run(spec, tmp_path)


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


def test_read_only_folder_is_refused_in_one_line(spec: SweepSpec, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="file") as caught:
        run(spec, tmp_path / "file")
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------- sharing, provenance


def test_cached_layer_bounds_are_used_by_a_rung_added_later(folder: Path, tmp_path: Path) -> None:
    cached = {"cache_bounds": True, "samples": 1}
    run(make_spec(folder, rungs=["dual"], **cached), tmp_path)
    files = sorted((tmp_path / "bounds").iterdir())
    assert len(files) == 3  # tasks × chains
    stamps = [file.stat().st_mtime_ns for file in files]
    rows = run(make_spec(folder, rungs=["dual", "lp"], **cached), tmp_path)
    assert [file.stat().st_mtime_ns for file in sorted((tmp_path / "bounds").iterdir())] == stamps
    assert rows.groupby(["network", "eps"])["bounds_seconds"].nunique().eq(1).all()
    assert_same_table(rows, run(make_spec(folder, rungs=["dual", "lp"], samples=1), tmp_path / "plain"))
    files[0].write_bytes(files[0].read_bytes()[:100])  # a torn file is computed again
    run(make_spec(folder, rungs=["dual"], **cached), tmp_path, rerun="all")
    assert files[0].stat().st_size > 100


def test_provenance_tells_what_matters_and_no_more(folder: Path, tmp_path: Path) -> None:
    path = write_toml(tmp_path / "spec.toml", folder, ["dual"], 1)
    rows = run(path, tmp_path / "out")
    text = (tmp_path / "out" / "provenance.json").read_text()
    (entry,) = json.loads(text)["runs"]
    assert set(rows["run_id"]) == {entry["run_id"]}
    assert entry["rows"] == {"planned": 54, "present": 0, "written": 54}
    assert entry["outcome"] == "finished"
    assert entry["started"] <= entry["ended"]
    assert entry["started"].endswith("+00:00")
    assert entry["spec"]["eps"] == [0.01, 0.02, 0.03]
    assert "samples = 1" in entry["spec_text"]
    assert entry["execution"] == {"executor": "serial", "workers": 1, "solver_threads": 1, "blas_threads": 1}
    assert {network["digest"] for network in entry["networks"]} == set(rows["network_digest"])
    assert entry["packages"]["numpy"] == np.__version__
    assert entry["solvers"]["highs"]["version"]
    assert str(folder) not in text
    assert str(Path.home()) not in text.replace(f'"{os.sep}"', "")
    assert platform.node() not in text


def test_progress_is_on_disk_for_other_terminals(spec: SweepSpec, tmp_path: Path, capsys: Any) -> None:
    run_sweep(spec.model_copy(update={"rungs": ("dual",)}), tmp_path, workers=1)
    snapshot = read_snapshot(tmp_path)
    assert snapshot is not None
    assert (snapshot.tasks, snapshot.done, snapshot.failed, snapshot.running, snapshot.rows) == (9, 9, 0, 0, 81)
    assert sum(snapshot.verdicts.values()) == 9
    assert snapshot.ended
    assert "test: 9/9 tasks" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("faults")
def test_twenty_kills_lose_and_double_nothing(folder: Path, tmp_path: Path) -> None:
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
