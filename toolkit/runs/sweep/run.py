"""Runs a sweep: its tasks through the driver of runs/run.py, whatever goes wrong, with all rows on disk.

    rows = run_sweep("experiments/demo.toml", out="results/demo")

Rows already in the folder are not computed again, so a sweep that was stopped or killed continues when it is run
again. One sweep at a time writes to a folder.
"""

from __future__ import annotations

import contextlib
import logging
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from threadpoolctl import threadpool_limits

from toolkit.data.arguments import file_path, instance, optional_number, shown
from toolkit.data.toml_file import spec_path
from toolkit.problems.answers import Status
from toolkit.runs.dask_executor import LOCAL
from toolkit.runs.executors import (
    check_workers,
    one_thread_environment,
)
from toolkit.runs.lock import folder_lock
from toolkit.runs.provenance import begin_run, end_run
from toolkit.runs.run import Driver, Execution, Stop, choose_execution
from toolkit.runs.shards import StoreError, prepare_folder
from toolkit.runs.store import compact, read_rows, write_plan
from toolkit.runs.sweep.compute import explain, interrupted_rows, run_task
from toolkit.runs.sweep.plan import SweepPlan, make_plan, write_networks
from toolkit.runs.sweep.progress import SweepProgress, write_log
from toolkit.runs.sweep.spec import SweepSpec, load_spec
from toolkit.runs.workers import check_main_guard

_logger = logging.getLogger("relugap.sweep")
RERUN = {"failed": (Status.FAILED,), "timeout": (Status.TIME_LIMIT,), "all": tuple(Status)}


def run_sweep(
    spec: SweepSpec | str | Path,
    out: str | Path,
    *,
    workers: int | None = None,
    rerun: str | None = None,
    progress: bool = True,
    max_hours: float | None = None,
    dask: str | None = None,
    executor: Executor | None = None,
) -> pd.DataFrame:
    """Compute every row of a spec that `out` does not hold yet, and return the spec's rows.

    spec: a SweepSpec, whose networks and data sets may be objects (kept in `out`), or the path of a .toml file.

    workers: local processes, None = one per usable core, 1 = in this process. dask: address of a Dask scheduler, or
    "local" for a cluster of `workers` on this machine. executor: any concurrent.futures.Executor instead; `workers` is
    then how many tasks it is given at a time, unless it is one of toolkit.runs.executors, which know. rerun: "failed",
    "timeout" or "all" computes such rows again. max_hours: start no task after that long. progress: a live display on a
    terminal, plain lines elsewhere, both on stderr.

    Ctrl-C (or SIGTERM) finishes the running tasks, then raises KeyboardInterrupt; a second one ends them at once, as a
    closed terminal does. A task that was interrupted leaves no rows but those of its finished rungs, and rows that
    failed because their worker was killed are computed again.
    Raises MissingGuardError (a ValueError) in a script without an `if __name__ == "__main__":` guard, ValueError or
    FileNotFoundError for a spec that does not fit, before any work; WorkerStartError if workers cannot start;
    FolderInUseError if another sweep writes to `out`; StoreError if rows cannot be written. Finished rows stay in every
    case.
    """
    if rerun is not None and (not isinstance(rerun, str) or rerun not in RERUN):
        raise ValueError(f"unknown rerun {shown(rerun)}; allowed: {', '.join(RERUN)}")
    workers = None if workers is None else check_workers(workers)
    if dask is not None:
        instance("dask", dask, str, 'a scheduler\'s address, or "local"')
    if (executor is None and dask is None and workers != 1) or dask == LOCAL:
        check_main_guard()
    optional_number("max_hours", max_hours, above=0)
    folder = file_path("out", out).absolute()
    if executor is not None:
        instance("executor", executor, Executor, "one of concurrent.futures, or of toolkit.runs.executors")
    if not isinstance(spec, SweepSpec | str | Path):
        instance("spec", spec, SweepSpec, "or the path of a .toml file")
    plan = make_plan(spec if isinstance(spec, SweepSpec) else load_spec(spec))
    if executor is None and dask is None and plan.spec.task_time_limit is not None:
        check_main_guard()  # one worker is a process as well where a task may have to be ended
    text = "" if isinstance(spec, SweepSpec) else spec_path(spec).read_text(encoding="utf-8")
    with folder_lock(folder):
        tasks = sum(len(network.samples) * len(network.eps) for network in plan.networks)
        execution = choose_execution(workers, tasks, plan.spec.task_time_limit, executor, dask)
        _run(plan, text, folder, execution, _Options(rerun, progress, max_hours))
        return read_rows(folder)


@dataclass(frozen=True)
class _Options:
    rerun: str | None
    progress: bool
    max_hours: float | None


def _run(plan: SweepPlan, text: str, out: Path, execution: Execution, options: _Options) -> None:
    prepare_folder(out)
    done = _done_keys(out, options.rerun)
    spec = plan.spec
    work = plan.work(out)
    planned = write_plan(out, plan.keys(work))
    if next(plan.missing(work, done), None) is None:
        return
    threads = {"solver_threads": spec.threads, "blas_threads": 1}
    how = {"executor": execution.name, "workers": execution.workers} | threads
    write_networks(plan, out)
    run_id = begin_run(out, plan.facts(text) | {"rows": {}, "execution": how})
    tasks = list(plan.missing(replace(work, run_id=run_id), done))
    to_do = sum(len(rungs) * len(task.targets) for task in tasks for _, rungs in task.wanted)
    counts = {"planned": planned, "present": planned - to_do, "written": 0}
    _logger.info("%s: %d rows of %d to compute, %d tasks, %d workers", spec.name, to_do, planned, len(tasks),
                execution.workers)  # fmt: skip
    stop = Stop(options.max_hours)
    progress = SweepProgress(spec.name, out, tasks, counts["present"], execution.workers, options.progress)
    outcome = "failed"
    try:
        with one_thread_environment(), threadpool_limits(1), progress, stop.handling():
            Driver(run_task, tasks, execution, progress, stop).run()
        outcome = f"stopped: {stop.reason}" if stop.reason else "finished"
        _logger.info("%s: %s", spec.name, outcome)
    except BaseException as error:
        outcome = f"ended by {explain(error)}"
        write_log(out, outcome)
        if not isinstance(error, KeyboardInterrupt):
            raise
        stop.interrupted = True
    finally:
        # an interrupted task leaves rows that no report counts: those are looked for on the disk
        counts["written"] = _rows_of(out, run_id) if stop.interrupted else progress.snapshot().rows
        with contextlib.suppress(StoreError):  # a full disk must not hide why the run ended
            end_run(out, run_id, outcome, {"rows": counts})
    if stop.interrupted:
        kept = f"{counts['written']} rows are new and kept in {out}"
        raise KeyboardInterrupt(f"stopped; {kept}; run the same command to continue")
    with contextlib.suppress(StoreError):  # the shards hold every row
        compact(out)


def _rows_of(out: Path, run_id: str) -> int:
    return int((read_rows(out, everything=True)["run_id"] == run_id).sum())


def _done_keys(out: Path, rerun: str | None) -> set[str]:
    """Keys of the rows that need not be computed."""
    rows = read_rows(out, everything=True)
    again = RERUN[rerun] if rerun else ()
    settled = ~rows["status"].isin([str(status) for status in again])
    return set(rows.loc[settled & ~interrupted_rows(rows), "key"])
