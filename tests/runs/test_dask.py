"""The same sweep on a Dask cluster, whose workers are killed."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from sweep_specimens import assert_same_table, make_spec, register_faults, run
from sweep_specimens import faults as faults
from sweep_specimens import folder as folder

pytest.importorskip("distributed", reason="Dask is not installed; pip install 'relugap[cluster]'")

from toolkit.runs.dask_executor import DaskExecutor
from toolkit.runs.provenance import read_provenance

pytestmark = pytest.mark.slow  # a cluster takes its time to start


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskExecutor]:
    """A local cluster of three processes that know the faulty rungs."""
    executor = DaskExecutor("local", workers=3)
    executor._client.register_worker_callbacks(register_faults)
    yield executor
    executor.shutdown()


def worker_pids(cluster: DaskExecutor) -> list[int]:
    return list(cluster._client.run(os.getpid).values())


def test_dask_gives_the_serial_table(cluster: DaskExecutor, folder: Path, tmp_path: Path) -> None:
    spec = make_spec(folder, rungs=["interval", "dual", "lp"])
    rows = run(spec, tmp_path / "dask", executor=cluster)
    assert_same_table(rows, run(spec, tmp_path / "serial"))
    assert read_provenance(tmp_path / "dask")[0]["execution"]["executor"] == "DaskExecutor"


def test_recall_takes_back_what_has_not_begun(cluster: DaskExecutor) -> None:
    futures: list[Future[None]] = [cluster.submit(time.sleep, 0.5) for _ in range(30)]
    time.sleep(0.2)
    cluster.recall()
    outcomes = [future.cancelled() for future in futures]
    assert 20 < sum(outcomes) < 30
    for future, cancelled in zip(futures, outcomes, strict=True):
        if not cancelled:
            assert future.result(timeout=10) is None


@pytest.mark.usefixtures("faults")
def test_killed_dask_workers_cost_their_tasks_only(cluster: DaskExecutor, folder: Path, tmp_path: Path) -> None:
    """A worker is killed again and again at random moments; the table is that of an undisturbed run."""
    spec = make_spec(folder, rungs=["dual", "sleep"], samples=25)
    done = threading.Event()

    def kill_again_and_again() -> None:
        chooser = random.Random(0)
        while not done.wait(chooser.uniform(1.0, 3.0)):
            if pids := worker_pids(cluster):
                killed.append(chooser.choice(pids))
                os.kill(killed[-1], signal.SIGKILL)

    killed: list[int] = []
    killer = threading.Thread(target=kill_again_and_again)
    killer.start()
    rows = run(spec, tmp_path / "killed", executor=cluster)
    done.set()
    killer.join()
    assert killed
    assert set(rows["status"]) == {"computed"}
    assert_same_table(rows, run(spec, tmp_path / "serial"))


@pytest.mark.usefixtures("faults")
def test_task_that_kills_its_workers_is_given_up(cluster: DaskExecutor, folder: Path, tmp_path: Path) -> None:
    spec = make_spec(
        folder,
        rungs=["exit"],
        samples=1,
        eps=[0.1],
        networks=[{"source": str(folder / "deep.npz"), "dataset": "digits"}],
    )
    rows = run(spec, tmp_path, executor=cluster)
    assert set(rows["status"]) == {"failed"}
    assert rows["message"].str.startswith("WorkerDiedError: 2 Dask workers died on this task, 3 times").all()


def test_missing_scheduler_is_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"127\.0\.0\.1:1") as caught:
        run(make_spec(folder, rungs=["dual"]), tmp_path, dask="tcp://127.0.0.1:1")
    assert "\n" not in str(caught.value)
