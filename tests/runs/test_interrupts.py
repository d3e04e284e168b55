"""Ctrl-C, SIGTERM and a closed terminal, sent to real processes: one line, 130, nobody left behind, no false rows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from programs import Begin, ended_sessions
from sweep_specimens import folder as folder
from sweep_specimens import make_spec, run, zoo_spec
from test_executors import alive

from toolkit.cli import main
from toolkit.problems.answers import Bound, Status
from toolkit.problems.problem import Problem
from toolkit.rungs import RUNGS
from toolkit.rungs.rung import Rung, Side, each_row
from toolkit.runs.executors import ProcessExecutor, SerialExecutor
from toolkit.runs.lock import folder_lock
from toolkit.runs.provenance import read_provenance
from toolkit.runs.rows import Row
from toolkit.runs.shards import append_rows
from toolkit.runs.store import read_rows
from toolkit.runs.sweep.compute import interrupted_rows
from toolkit.runs.workers import MissingGuardError, WorkerStartError

RELUGAP = [sys.executable, "-c", "import sys; from toolkit.cli import main; sys.exit(main())"]
COUNT = ["certify", "zoo:digits-standard", "--data", "digits", "--count", "500", "--eps", "0.1"]
SPEC = zoo_spec("s", samples=60, eps=[0.09])
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs Linux's /proc")


@pytest.fixture
def start() -> Iterator[Begin]:
    """Starts a program in a session of its own, which does not outlive the test."""
    with ended_sessions() as begin:
        yield begin


def session(leader: int) -> list[int]:
    """The live processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and alive(int(entry.name)):
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(words[3]) == leader:
                found.append(int(entry.name))
    return found


def ended(process: subprocess.Popen[str], within: float = 30.0) -> str:
    """Standard error of a process that ends in time, tells no traceback, and leaves nobody behind."""
    _, errors = process.communicate(timeout=within)
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    until = time.monotonic() + 30
    while left := session(process.pid):
        assert time.monotonic() < until, f"{left} outlive their parent"
        time.sleep(0.05)
    return errors


UNINTERRUPTIBLE = """
import hashlib
from toolkit.runs.interrupts import Interrupts
with Interrupts(last=True):
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # minutes in C, like a solver
"""


def test_a_second_signal_ends_a_process_that_is_inside_a_solver(start: Begin) -> None:
    process = start(sys.executable, "-c", UNINTERRUPTIBLE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)  # until it is in the call
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None  # the handler waits for the call to return
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "ended at once; what was written before is intact"
    assert "Traceback" not in errors


@pytest.mark.slow
def test_one_signal_inside_a_solver_is_answered_with_what_to_do(start: Begin) -> None:
    process = start(sys.executable, "-c", UNINTERRUPTIBLE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert (
        process.stderr.readline() == "interrupted: waiting for the call that is running to return; again: end at once\n"
    )
    assert process.poll() is None


@needs_proc
@pytest.mark.parametrize(
    ("seconds", "workers"),
    [(1.5, 2), *(pytest.param(0.1 * 1.6**k, w, marks=pytest.mark.slow) for k in range(8) for w in (1, 2))],
)
def test_ctrl_c_at_any_moment_of_a_batch_is_one_line(start: Begin, seconds: float, workers: int) -> None:
    """While it loads, while workers start (1.5 s), while they compute."""
    process = start(*RELUGAP, *COUNT, "--workers", workers)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: everybody gets it
    errors = ended(process)
    assert process.returncode == 130
    assert errors in ("interrupted; nothing is kept\n", "interrupted; nothing was begun\n")


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_sweep_says_what_is_kept_and_goes_on(
    tmp_path: Path, start: Begin, number: signal.Signals, workers: int
) -> None:
    (tmp_path / "s.toml").write_text(SPEC)
    out = tmp_path / "out"
    process = start(*RELUGAP, "sweep", tmp_path / "s.toml", "--out", out, "--workers", workers)
    while not (out / "sweep.log").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(number)
    errors = ended(process, 120)
    assert process.returncode == 130
    rows = read_rows(out)
    assert (
        errors.splitlines()[-1]
        == f"stopped; {len(rows)} rows are new and kept in {out}; run the same command to continue"
    )
    assert not (rows["status"] == Status.FAILED).any()
    with folder_lock(out):
        pass  # the folder is free again


@needs_proc
def test_a_closed_pipe_is_no_error(start: Begin, tmp_path: Path) -> None:
    for arguments in (["reproduce"], ["certify", "--help"]):
        process = start(*RELUGAP, *arguments)
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(timeout=30) == 141


def _interrupted(problem: Problem) -> list[Bound]:
    raise KeyboardInterrupt  # as a solver session does whose solver was interrupted


INTERRUPTED = Rung("interrupted", Side.LOWER, "is interrupted", "-", run=each_row(_interrupted))


def register_interrupted() -> None:
    """Make the rung known in a worker process."""
    RUNGS["interrupted"] = INTERRUPTED


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_solve_is_no_row(
    folder: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RUNGS, "interrupted", INTERRUPTED)
    spec = make_spec(folder, rungs=["dual", "interrupted", "interval"], samples=1, eps=[0.1])
    executor: Executor = (
        SerialExecutor() if workers == 1 else ProcessExecutor(workers, initializer=register_interrupted)
    )
    with executor, pytest.raises(KeyboardInterrupt, match=r"rows are new and kept in .* run the same") as told:
        run(spec, tmp_path, executor=executor, workers=workers)
    rows = read_rows(tmp_path)
    assert str(told.value).startswith(f"stopped; {len(rows)} rows are new")
    assert set(rows["rung"]) == {"dual"}  # what was finished before it
    assert set(rows["status"]) == {"computed"}
    entry = read_provenance(tmp_path)[0]
    assert entry["outcome"].startswith("ended by KeyboardInterrupt")
    assert entry["rows"]["written"] == len(rows)  # which the task's report, that never came, would have told
    monkeypatch.setitem(RUNGS, "interrupted", Rung("interrupted", Side.LOWER, "-", "-", run=RUNGS["dual"].run))
    after = run(spec, tmp_path)
    assert set(after["status"]) == {"computed"}
    assert len(after) == 2 * 3 * 9


@pytest.mark.parametrize(
    "message",
    [
        "WorkerDiedError: worker process killed by SIGKILL (out of memory?), 3 times",
        "KeyboardInterrupt: no message",
        "gurobi: status 11",
        "fell back to scip: x; scip: status userinterrupt",
    ],
)
def test_rows_that_failed_by_an_interrupt_are_computed_again(folder: Path, tmp_path: Path, message: str) -> None:
    spec = make_spec(folder, rungs=["dual"], samples=1, eps=[0.1])
    good = run(spec, tmp_path)
    records = good.to_dict("records")
    failed = [
        Row(**(record | {"status": "failed", "message": message, "run_id": "r0001-zzzzzz"})) for record in records[:9]
    ]
    other = [Row(**(records[9] | {"status": "failed", "message": "ValueError: its own", "run_id": "r0001-zzzzzz"}))]
    append_rows(tmp_path, "r0001-zzzzzz", [*failed, *other])
    before = read_rows(tmp_path)
    assert interrupted_rows(before).sum() == 9
    after = run(spec, tmp_path)
    assert after["status"].value_counts().to_dict() == {"computed": 17, "failed": 1}
    assert after.loc[after["status"] == "failed", "message"].tolist() == ["ValueError: its own"]


NO_GUARD = {
    "gather": "from toolkit.runs.run import gather\ngather(abs, [1, 2], 2, print)",
    "certify_samples": "from toolkit import *\nfrom toolkit.runs.batch import *\n"
    "print(certify_samples(Network.load('zoo:digits-standard'), load_dataset('digits'), [0, 1], BatchPlan(.01), 2))",
    "run_sweep": "from toolkit import run_sweep\nprint(run_sweep({spec!r}, {out!r}, workers=2))",
    "a task's limit": "from toolkit import run_sweep\nprint(run_sweep({spec!r}, {out!r}, workers=1))",
}


@pytest.mark.parametrize(
    "entry",
    [
        "run_sweep",
        "a task's limit",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("gather", "certify_samples")),
    ],
)
def test_a_script_without_a_guard_gets_one_clear_error(tmp_path: Path, entry: str) -> None:
    (tmp_path / "s.toml").write_text("task_time_limit = 60\n" * (entry == "a task's limit") + SPEC)
    out = tmp_path / "out"
    (tmp_path / "script.py").write_text(NO_GUARD[entry].format(spec=str(tmp_path / "s.toml"), out=str(out)))
    command = [sys.executable, str(tmp_path / "script.py")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 1
    assert found.stdout == ""
    assert found.stderr.count("Traceback") == 1
    assert 'below `if __name__ == "__main__":`' in found.stderr.splitlines()[-1]
    assert "MissingGuardError" in found.stderr.splitlines()[-1]
    if entry == "run_sweep":
        assert len(read_rows(out)) == 0


def test_workers_that_cannot_start_end_the_sweep_without_rows(folder: Path, tmp_path: Path) -> None:
    spec = make_spec(folder, rungs=["dual"], samples=1)
    with ProcessExecutor(1, initializer=partial(os._exit, 5)) as executor:
        told = pytest.raises(WorkerStartError, match=r"exit code 5 before its first task .*__name__")
        with told:
            run(spec, tmp_path, executor=executor)
    assert len(read_rows(tmp_path)) == 0
    assert len(run(spec, tmp_path)) == 27
    assert issubclass(MissingGuardError, ValueError)


def test_workers_leave_signals_alone_even_where_a_solver_takes_them() -> None:
    if not hasattr(signal, "pthread_sigmask"):
        pytest.skip("no signal masks here")
    with ProcessExecutor(1) as executor:
        blocked, survived = executor.submit(interrupt_oneself).result(timeout=60)
    heard = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else set()  # none under nohup
    assert {signal.SIGINT, signal.SIGTERM} | heard <= blocked
    assert survived
    assert not {signal.SIGINT, signal.SIGTERM} & signal.pthread_sigmask(signal.SIG_BLOCK, ())  # the driver hears them


def interrupt_oneself() -> tuple[set[Any], bool]:
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: heard.append(number))  # as gurobipy does while it solves
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)
    return signal.pthread_sigmask(signal.SIG_BLOCK, ()), not heard


def test_a_busy_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.toml").write_text(SPEC)
    with folder_lock(tmp_path / "out"):
        assert main(["sweep", str(tmp_path / "s.toml"), "--out", str(tmp_path / "out"), "--workers", "1"]) == 2
    found = capsys.readouterr()
    assert found.err.startswith(f"error: {tmp_path / 'out'} is in use by process {os.getpid()}")
    assert found.err.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has a signal for it")
@pytest.mark.slow
def test_a_script_of_the_catalogue_ends_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time\nfrom toolkit.cli.reproduce import ending_with_us\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'], preexec_fn=ending_with_us)\n"
        "print(p.pid, flush=True)\ntime.sleep(1000)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.wait()
    until = time.monotonic() + 10
    while alive(child):
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("command", "left"),
    [
        (["certify", "zoo:digits-standard", "--eps", "0.1", "--data", "digits", "--index", "0"], "nothing is kept"),
        (["report", "x"], "may be incomplete"),
        (["results", "show", "x"], "no row is lost"),
        (["train", "x", "--out", "y"], "finished epochs"),
    ],
)
def test_every_command_says_what_an_interrupt_leaves(
    command: list[str], left: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("toolkit.cli.certify.answer", interrupted)
    monkeypatch.setattr("toolkit.cli.sweeps.run_report", interrupted)
    monkeypatch.setattr("toolkit.cli.results._swept", interrupted)
    pytest.importorskip("torch")
    monkeypatch.setattr("toolkit.training.loop.train_spec", interrupted)
    assert main(command) == 130
    found = capsys.readouterr().err
    assert found.startswith("interrupted; ")
    assert left in found
    assert found.count("\n") == 1


FINALISER = """
import os, signal, time
from toolkit.runs.interrupts import Interrupts

class Unlucky:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

try:
    with Interrupts(last=True):
        unlucky = Unlucky()
        del unlucky
        time.sleep(10)
except KeyboardInterrupt:
    import sys
    print("ended")
    sys.exit(130)
"""
LATE = FINALISER.replace("import sys", "import builtins, sys; builtins.late = Unlucky()")


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs POSIX signals")
@pytest.mark.parametrize("script", [FINALISER, LATE])
def test_a_signal_in_a_finaliser_is_neither_lost_nor_fatal(script: str) -> None:
    """Python forgets exceptions of __del__: the interrupt comes again; one at the very end changes no exit code."""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (130, "ended\n"), run.stderr
