"""What sweeps cost besides their tasks; the figures behind the section on sweeps in results/PERFORMANCE.md.

    python experiments/sweep_speed.py speedup  --out FOLDER [--seconds 60] [--busy]
    python experiments/sweep_speed.py overhead --out FOLDER [--tasks 10000]
    python experiments/sweep_speed.py reading  --out FOLDER [--rows 1000000]

`speedup`: one sweep with 1 and with 2 worker processes; its rung sleeps, so that a machine busy with other work does
not blur what is measured, or with --busy counts in Python, which needs two free cores. `overhead`: a null rung; the
driver's processor time and wall-clock time per task, and its memory while rows accumulate. `reading`: rows into a
frame from shards, compaction, and from Parquet. FOLDER must not exist.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np

from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.problem import Bound, Problem, Rung, Side
from toolkit.rungs import RUNGS
from toolkit.runs.executors import ProcessExecutor
from toolkit.runs.shards import append_rows, prepare_folder
from toolkit.runs.store import compact, read_rows
from toolkit.runs.sweep.compute import failed_rows
from toolkit.runs.sweep.plan import make_plan
from toolkit.runs.sweep.run import run_sweep
from toolkit.runs.sweep.spec import SweepSpec, parse_spec
from toolkit.runs.sweep.tasks import Work

TASK_SECONDS = 0.25


def _null(problem: Problem) -> list[Bound]:
    return [Bound(lower=-1e9) for _ in problem.targets]


def _sleeping(problem: Problem) -> list[Bound]:
    time.sleep(TASK_SECONDS)
    return _null(problem)


def _counting(problem: Problem) -> list[Bound]:
    started = time.process_time()
    while time.process_time() - started < TASK_SECONDS:
        pass
    return _null(problem)


def register() -> None:
    """Make the measuring rungs known to this process."""
    for name, run in (("null", _null), ("sleeping", _sleeping), ("counting", _counting)):
        RUNGS[name] = Rung(name, Side.LOWER, "measures the sweep around it", "-", run=run)


def small_spec(folder: Path, rung: str, tasks: int) -> SweepSpec:
    """`tasks` tasks of 9 rows each on a 64-4-10 network: 500 samples, as many ε as needed."""
    rng = np.random.default_rng(0)
    layers = [Dense(rng.normal(size=(4, 64)), np.zeros(4)), Dense(rng.normal(size=(10, 4)), np.zeros(10))]
    source = Network(layers, "small").save(folder / "small.npz")
    samples = min(500, tasks)
    return parse_spec(
        {
            "name": f"{rung}-{tasks}",
            "samples": samples,
            "eps": np.linspace(0.001, 0.1, -(-tasks // samples)).tolist(),
            "layer_bounds": [["interval"]],
            "rungs": [rung],
            "networks": [{"source": str(source), "dataset": "digits"}],
        }
    )


class Memory(threading.Thread):
    """Resident megabytes of this process, sampled four times a second while the block runs (Linux)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[float] = []
        self._ended = threading.Event()

    def run(self) -> None:
        """Sample until told to stop."""
        while not self._ended.wait(0.25):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.samples.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def at(self, share: float) -> float:
        """The sample after this share of the time."""
        return self.samples[int(share * (len(self.samples) - 1))]


def measure_speedup(folder: Path, seconds: float, busy: bool) -> None:
    """Wall-clock time of equal sweeps, worker processes warm in both cases."""
    spec = small_spec(folder, "counting" if busy else "sleeping", int(seconds / TASK_SECONDS))
    walls = {}
    for workers in (1, 2):
        with ProcessExecutor(workers, initializer=register) as executor:
            for _ in range(workers):
                executor.submit(time.sleep, 0.5).result()
            started = time.perf_counter()
            rows = run_sweep(spec, folder / f"{workers}", workers=workers, executor=executor, progress=False)
            walls[workers] = time.perf_counter() - started
        print(f"{workers} workers: {walls[workers]:.1f} s, {len(rows) // 9} tasks", flush=True)
    print(f"speed-up {walls[1] / walls[2]:.3f}")


def measure_overhead(folder: Path, tasks: int) -> None:
    """The driver's own time per task, and its memory after a fifth and after nine tenths of the tasks."""
    spec = small_spec(folder, "null", tasks)
    with ProcessExecutor(2, initializer=register) as executor, Memory() as memory:
        executor.submit(time.sleep, 0.5).result()
        cpu, wall = time.process_time(), time.perf_counter()
        rows = run_sweep(spec, folder / "out", workers=2, executor=executor, progress=False)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(
        f"{tasks} tasks, {len(rows)} rows, 2 workers: a task takes the driver {1000 * cpu / tasks:.2f} ms of processor"
    )
    print(f"time, {1000 * wall / tasks:.2f} ms of wall clock in all (start, table and compaction included)")
    print(f"driver's memory: {memory.at(0.2):.0f} MB after a fifth, {memory.at(0.9):.0f} MB after nine tenths")


def measure_reading(folder: Path, count: int) -> None:
    """Rows as two workers would have left them, read twice."""
    spec = small_spec(folder, "null", 1)
    work = Work(str(folder), "r0001-aaaaaa", spec.settings(), None)
    template = failed_rows(next(make_plan(spec).tasks(work)), RuntimeError("as long as messages are"))[0]
    prepare_folder(folder)
    for start in range(0, count, 1000):
        rows = [replace(template, key=f"{k:064x}", sample=k, lower=-k / 7) for k in range(start, start + 1000)]
        append_rows(folder, f"r{1 + start % 2:04d}-aaaaaa", rows)
    for what, act in (("from shards", read_rows), ("compacted", compact), ("from Parquet", read_rows)):
        cpu, wall = time.process_time(), time.perf_counter()
        act(folder)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(f"{count} rows {what}: {wall:.1f} s, {cpu:.1f} s of processor", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speedup", "overhead", "reading"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True)
    register()
    if options.what == "speedup":
        measure_speedup(options.out, options.seconds, options.busy)
    elif options.what == "overhead":
        measure_overhead(options.out, options.tasks)
    else:
        measure_reading(options.out, options.rows)


if __name__ == "__main__":
    main()
