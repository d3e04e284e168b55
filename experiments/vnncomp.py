"""Scorecards of VNN-COMP benchmarks: every instance verified once, beside what the competition's tools made of it.

    python experiments/vnncomp.py vnncomp --benchmarks acasxu,oval21 --timeout 60 --workers 2

FOLDER has a folder per benchmark with instances.csv (onnx,vnnlib,timeout) and, where others' results are known,
official.csv beside it; or it is one benchmark, or has an expected.csv about several (default: $RELUGAP_DATA/vnncomp).
Each answer is stored as it comes, and the same command continues a stopped run; an instance that ended with an error
is asked again. An instance is asked anew when its files, its timeout or the ladder change, not when the code does: give
another --out, or remove answers/ there.

Written after every benchmark: BENCHMARK-instances.csv, a line per instance, and table.csv and table.md, a line per
benchmark; at the end cactus.png, how many instances are decided within how many seconds each. In the table:

- decided: sat or unsat; certified: how many of these are proven in real arithmetic; late: answers after the timeout;
- official: instances that some tool decided; best tool: the one that decided most, and how many; first: decided here
  and by no tool;
- seconds: of the decided instances, wall-clock and CPU time of one process; official seconds: the fastest tool's for
  each of the instances that both decided, on its machine, its start included, beside ours for the same.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toolkit.cli.experiment import ExperimentRun, end_experiment, experiment_parser, experiment_run
from toolkit.data.names import path_name
from toolkit.data.registry import data_folder
from toolkit.report import pipe_table, save_figure
from toolkit.report.styles import (
    SOLVER_COLOURS,
    TEXT_GREY,
    is_leftmost,
    panel_grid,
    paper_style,
    set_title,
    shared_legend,
)
from toolkit.runs.executors import check_workers
from toolkit.runs.lock import folder_lock
from toolkit.runs.progress import RunProgress
from toolkit.runs.scorecard import (
    SOLVED,
    InstanceKey,
    OfficialResult,
    QueryInstance,
    compared,
    instance_key,
    read_instances,
    read_official,
    run_instances,
    totals,
)

TABLES = ("instances.csv", "expected.csv")  # of instances; the second also has what others say of them
OFFICIAL = "official.csv"
LEAST_SHOWN = 0.01  # seconds, where the figure begins
Official = Mapping[InstanceKey, OfficialResult]


def read_benchmarks(folder: Path, timeout: float | None = None) -> tuple[dict[str, list[QueryInstance]], Official]:
    """Instances by benchmark, as the folder has them, and what others say of them.

    Raises ValueError for a folder that is none, without a table, or where two tables have a benchmark of one name.
    """
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}: name one with a folder per benchmark, or set RELUGAP_DATA")
    tables = [
        path for place in (folder, *sorted(folder.iterdir())) for name in TABLES if (path := place / name).is_file()
    ]
    if not tables:
        raise ValueError(f"no {' or '.join(TABLES)} in {folder} nor in a folder there")
    found: dict[str, list[QueryInstance]] = {}
    official: dict[InstanceKey, OfficialResult] = {}
    for path in tables:
        parts: dict[str, list[QueryInstance]] = {}
        for one in read_instances(path, timeout):
            parts.setdefault(path_name(one.benchmark, "the name of a benchmark"), []).append(one)
        if twice := sorted(parts.keys() & found.keys()):
            raise ValueError(f"{path} is a second table of benchmark {twice[0]!r}")
        found |= parts
        other = path if path.name == TABLES[1] else path.with_name(OFFICIAL)
        official |= read_official(other) if other.is_file() else {}
    return found, official


def chosen_benchmarks(
    found: Mapping[str, list[QueryInstance]], names: str, count: int | None
) -> dict[str, list[QueryInstance]]:
    """Those named, with commas between, or all; the first `count` instances of each. Raises ValueError for others."""
    wanted = [name.strip() for name in names.split(",") if name.strip()] or list(found)
    if unknown := [name for name in wanted if name not in found]:
        raise ValueError(f"unknown benchmark {unknown[0]!r}; allowed: {', '.join(found)}")
    if count is not None and count < 1:
        raise ValueError(f"--count must be ≥ 1, got {count}")
    return {name: found[name][:count] for name in wanted}


def summary_line(name: str, table: pd.DataFrame, official: Official) -> dict[str, object]:
    """A benchmark's line, from `compared` rows and what others say of its instances."""
    own = totals(table).iloc[-1]
    solved, theirs = table["verdict"].isin(SOLVED), table["official"].isin(SOLVED)
    keys = [instance_key(*each) for each in zip(table["benchmark"], table["onnx"], table["vnnlib"], strict=True)]
    tools = Counter(tool for key in keys if key in official for tool in official[key].solvers)
    best, most = max(tools.items(), key=lambda item: (item[1], item[0]), default=("", 0))
    both = table[solved & theirs & table["official_seconds"].notna()]
    decided = int(solved.sum())
    return {
        "benchmark": name,
        **{word: int(own[word]) for word in ("instances", *SOLVED)},
        "decided": decided,
        "certified": f"{own['certified'] / decided:.0%}" if decided else "",
        **{word: int(own[word]) for word in ("unknown", "timed-out", "error", "late", "WRONG")},
        "official": int(theirs.sum()),
        "best tool": f"{best} {most}" if best else "",
        "first": int((solved & ~theirs).sum()) if theirs.any() else 0,
        "seconds": round(float(table.loc[solved, "seconds"].sum()), 1),
        "CPU seconds": round(float(table.loc[solved, "cpu_seconds"].sum()), 1),
        "official seconds": round(float(both["official_seconds"].sum()), 1),
        "ours for the same": round(float(both["seconds"].sum()), 1),
        "all seconds": round(float(table["seconds"].sum()), 1),
    }


def decided_within(seconds: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Times at which one more instance is decided, ascending, and how many are by then."""
    times = np.sort(seconds.dropna().to_numpy(dtype=float))
    return np.maximum(times, LEAST_SHOWN), np.arange(1, times.size + 1)


def draw_cactus(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Instances decided over the seconds each took, a panel per benchmark: here, and by the fastest tool for each."""
    with paper_style():
        figure, panels = panel_grid(len(tables))
        for panel, (name, table) in zip(panels, tables.items(), strict=True):
            _cactus_panel(panel, table)
            set_title(panel, f"{name} ({len(table)} instance{'s' * (len(table) != 1)})")
            if panel in panels[-4:]:
                panel.set_xlabel("seconds an instance")
            if is_leftmost(panel):
                panel.set_ylabel("decided")
        shared_legend(figure, panels)
    return figure


def _cactus_panel(panel: Axes, table: pd.DataFrame) -> None:
    """Steps on a logarithmic axis that ends at the longest timeout."""
    solved, theirs = table["verdict"].isin(SOLVED), table["official"].isin(SOLVED)
    curves = {
        "here, wall-clock": (table.loc[solved, "seconds"], SOLVER_COLOURS["bab"], "-"),
        "here, CPU": (table.loc[solved, "cpu_seconds"], SOLVER_COLOURS["bab"], ":"),
        "fastest tool of the competition": (table.loc[theirs, "official_seconds"], TEXT_GREY, "--"),
    }
    right = float(table["timeout"].max())
    for label, (seconds, colour, style) in curves.items():
        times, counts = decided_within(seconds)
        if times.size:
            right = max(right, float(times[-1]))
            x, y = [LEAST_SHOWN, *times, right], [0, *counts, counts[-1]]
            panel.step(x, y, where="post", color=colour, linestyle=style, linewidth=1.3, label=label)
    panel.set_xscale("log")
    panel.minorticks_off()
    panel.set_xlim(LEAST_SHOWN, 1.1 * right)
    panel.set_ylim(0, 1.05 * max(1, len(table)))


def write_results(run: ExperimentRun, tables: Mapping[str, pd.DataFrame], official: Official) -> pd.DataFrame:
    """The last benchmark's instances, and the table of all so far, which is returned."""
    name = list(tables)[-1]
    lines = [summary_line(one, table, official) for one, table in tables.items()]
    summary = pd.DataFrame(lines)
    wrong = [row for table in tables.values() for row in table[table["agrees"] == "WRONG"].itertuples()]
    named = "".join(
        f"- **WRONG** {row.benchmark} {row.onnx} {row.vnnlib}: official {row.official}, here {row.verdict}\n"
        for row in wrong
    )
    text = (named + "\n" if named else "") + pipe_table(summary)
    run.write({f"{name}-instances.csv": tables[name], "table.csv": summary, "table.md": text}, float_format="%.4g")
    run.record(benchmarks={one: len(table) for one, table in tables.items()}, wrong=len(wrong))
    return summary


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Run, and write the tables, the figure and provenance.json. Returns the table."""
    parser = experiment_parser(__doc__, "vnncomp")
    parser.add_argument(
        "what", nargs="?", type=Path, metavar="FOLDER", help="of benchmarks; else $RELUGAP_DATA/vnncomp"
    )
    parser.add_argument("--benchmarks", default="", help="names with commas between; else all")
    parser.add_argument("--timeout", type=float, default=None, help="seconds an instance gets at most")
    parser.add_argument("--count", type=int, default=None, help="the first COUNT instances of a benchmark only")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    options = parser.parse_args(arguments)
    workers = check_workers(options.workers)
    found, official = read_benchmarks(options.what or data_folder() / "vnncomp", options.timeout)
    chosen = chosen_benchmarks(found, options.benchmarks, options.count)
    tables: dict[str, pd.DataFrame] = {}
    summary = pd.DataFrame()
    with (
        folder_lock(options.out),
        experiment_run(parser, options, keep_runs=True) as run,
        RunProgress() as progress,
    ):
        for name, instances in chosen.items():
            rows = run_instances(
                instances, run.out, str(run.entry["run_id"]), workers,
                lambda _, done, total, name=name: progress.advance(name, done, total),
            )  # fmt: skip
            tables[name] = compared(rows, official)
            summary = write_results(run, tables, official)
        save_figure(draw_cactus(tables), run.out / "cactus")
    return summary


if __name__ == "__main__":
    sys.exit(end_experiment(main))
