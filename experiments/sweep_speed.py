"""What sweeps cost besides their tasks; the figures behind the section on sweeps in results/PERFORMANCE.md.

    python experiments/sweep_speed.py speedup  --out FOLDER [--seconds 60] [--busy]
    python experiments/sweep_speed.py overhead --out FOLDER [--tasks 10000]
    python experiments/sweep_speed.py reading  --out FOLDER [--rows 1000000]

`speedup`: one sweep with 1 and with 2 worker processes; its rung sleeps, so that a machine busy with other work does
not blur what is measured, or with --busy counts in Python, which needs two free cores. `overhead`: a null rung; the
driver's processor time and wall-clock time per task, and its memory while rows accumulate. `reading`: rows into a
frame from shards, compaction, and from Parquet.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.answers import Bound
from toolkit.problems.problem import Problem
from toolkit.rungs import RUNGS
from toolkit.rungs.rung import Rung, Side, each_row
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
        RUNGS[name] = Rung(name, Side.LOWER, "measures the sweep around it", "-", run=each_row(run))


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


def measure_speedup(folder: Path, seconds: float, busy: bool) -> dict[str, float]:
    """Wall-clock time of equal sweeps, worker processes warm in both cases."""
    spec = small_spec(folder, "counting" if busy else "sleeping", int(seconds / TASK_SECONDS))
    walls = {}
    for workers in (1, 2):
        with ProcessExecutor(workers, initializer=register) as executor:
            for _ in range(workers):
                executor.submit(time.sleep, 0.5).result()
            started = time.perf_counter()
            run_sweep(spec, folder / f"{workers}", workers=workers, executor=executor, progress=False)
            walls[workers] = time.perf_counter() - started
    return {"seconds_1_worker": walls[1], "seconds_2_workers": walls[2], "speed_up": walls[1] / walls[2]}


def measure_overhead(folder: Path, tasks: int) -> dict[str, float]:
    """Milliseconds of a task: the driver's processor time, and wall-clock time in all, start, table and compaction
    included; the driver's memory after a fifth and after nine tenths of the tasks."""
    spec = small_spec(folder, "null", tasks)
    with ProcessExecutor(2, initializer=register) as executor, Memory() as memory:
        executor.submit(time.sleep, 0.5).result()
        cpu, wall = time.process_time(), time.perf_counter()
        rows = run_sweep(spec, folder / "out", workers=2, executor=executor, progress=False)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    times = {"driver_ms_a_task": 1000 * cpu / tasks, "wall_ms_a_task": 1000 * wall / tasks}
    return {"tasks": tasks, "rows": len(rows), **times, "mb_at_0.2": memory.at(0.2), "mb_at_0.9": memory.at(0.9)}


def measure_reading(folder: Path, count: int) -> dict[str, float]:
    """Rows as two workers would have left them, read twice: wall-clock and processor seconds of each step."""
    spec = small_spec(folder, "null", 1)
    work = Work(str(folder), "r0001-aaaaaa", spec.settings(), None)
    template = failed_rows(next(make_plan(spec).tasks(work)), RuntimeError("as long as messages are"))[0]
    prepare_folder(folder)
    for start in range(0, count, 1000):
        rows = [replace(template, key=f"{k:064x}", sample=k, lower=-k / 7) for k in range(start, start + 1000)]
        append_rows(folder, f"r{1 + start % 2:04d}-aaaaaa", rows)
    found: dict[str, float] = {"rows": count}
    for what, act in (("from_shards", read_rows), ("compacted", compact), ("from_parquet", read_rows)):
        cpu, wall = time.process_time(), time.perf_counter()
        act(folder)
        found |= {f"{what}_seconds": time.perf_counter() - wall, f"{what}_cpu_seconds": time.process_time() - cpu}
    return found


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Measure one of the three, write WHAT.csv, and return it."""
    parser = experiment_parser(__doc__, "sweep-speed")
    parser.add_argument("what", choices=["speedup", "overhead", "reading"])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    register()
    with experiment_run(parser, options) as run, tempfile.TemporaryDirectory(dir=options.out) as work:
        folder = Path(work)
        if options.what == "speedup":
            found = measure_speedup(folder, options.seconds, options.busy)
        elif options.what == "overhead":
            found = measure_overhead(folder, options.tasks)
        else:
            found = measure_reading(folder, options.rows)
        run.write({f"{options.what}.csv": pd.DataFrame([found])})
    return found


if __name__ == "__main__":
    sys.exit(end_experiment(main))
