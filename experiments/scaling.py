"""Growth: time and gap of every rung against width, depth, ε and the number of unstable neurons.

    python experiments/scaling.py --verdicts results/verdicts

Trains a family of small networks by the project's own training command (scaling-networks.toml: digits, width 16 … 128
at two hidden layers, one to four hidden layers at width 32), sweeps ε and samples with all rungs on shared l,u
(scaling-bounds.toml, scaling-exact.toml), and measures verdicts of one of them by the default ladder.

A cell is a (network, ε); its numbers are medians over samples × targets, which a busy machine disturbs least. All
seconds are CPU seconds of the one process and one thread that does the work: what an idle core would take. Fits by
least squares on log10 seconds over the cells, k = unstable neurons: seconds = c·k^p and log10 seconds = a + b·k. Cells
where half the margins or more met the time limit (wall-clock) are shown as lower limits and left out of the fits.

The cost of a table of 10,000 images is the measured mean per image times their number: on C cores at least
max(total/C, slowest image) and, by list scheduling, at most total/C + slowest (Graham 1969). --verdicts adds the
networks measured by `relugap reproduce verdicts`.

Context: the exact problem is NP-hard (Katz et al. 2017, "Reluplex", appendix); Tjeng, Xiao & Tedrake 2019 relate the
MILP's time to the number of unstable neurons. No published values: the networks are the experiment's own. Takes under
10 minutes on an idle core.

Writes OUT/table.csv, fits.csv, cost.csv, cost_rungs.csv, table.md, time_unstable.png, gap_unstable.png,
gap_shape.png, provenance.json, networks/, and rows/ (the sweep's own folder: an interrupted run goes on from it).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pandas as pd
from scaling_costs import cost_tables
from scaling_figures import draw_gap_against_shape, draw_gap_against_unstable, draw_time_against_unstable
from scaling_tables import fit_table, markdown_report, scaling_cells
from threadpoolctl import threadpool_limits

from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.datasets import load_dataset
from toolkit.networks.network import Network
from toolkit.problems.settings import Settings
from toolkit.report import check_order, save_figure
from toolkit.runs.batch import BatchPlan, certify_samples
from toolkit.runs.provenance import read_provenance
from toolkit.runs.sweep.run import run_sweep
from toolkit.runs.sweep.spec import SweepSpec, load_spec
from toolkit.training.spec import NetworkSpec, load_train_spec

HERE = Path(__file__).resolve().parent
NETWORKS = HERE / "scaling-networks.toml"
SWEEPS = (HERE / "scaling-bounds.toml", HERE / "scaling-exact.toml")
LADDER_NETWORK, LADDER_EPS = "digits-2x64", 0.03


@contextmanager
def cpu_clock() -> Iterator[None]:
    """Let every stopwatch of the toolkit read the process's CPU time: the machine may be shared, the work is not."""
    with patch("time.perf_counter", time.process_time), threadpool_limits(1):
        yield


def trained_networks(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """The family's networks by name; those that `folder` lacks, or that another spec made, are trained (with torch)."""
    files = {name: folder / f"{name}.npz" for name in names}
    specs = {spec.name: spec for spec in load_train_spec(NETWORKS).networks}
    lacking = [name for name, file in files.items() if not _made_by(file, specs[name])]
    if lacking:
        from toolkit.training.loop import train_spec

        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as work:
            for file in folder.glob("*.npz"):
                shutil.copy2(file, work)
            for file in [*train_spec(NETWORKS, work, only=lacking, progress=False), Path(work) / "README.md"]:
                shutil.copy2(file, folder / file.name)
    return files


def _made_by(file: Path, spec: NetworkSpec) -> bool:
    return file.is_file() and Network.load(file).metadata.get("spec") == spec.record


def sweep_specs(networks: dict[str, Path], samples: int | None, most_eps: int | None) -> list[SweepSpec]:
    """The two sweeps over the given network files; samples and most_eps (radii a network) cut them down."""
    specs = []
    for file in SWEEPS:
        spec = load_spec(file)
        entries = [
            entry.model_copy(
                update={"source": str(networks[Path(entry.source).stem]), "eps": (entry.eps or spec.eps)[:most_eps]}
            )
            for entry in spec.networks
            if Path(entry.source).stem in networks
        ]
        specs.append(spec.model_copy(update={"networks": tuple(entries), "samples": samples or spec.samples}))
    return specs


def measured_rows(networks: dict[str, Path], out: Path, samples: int | None, most_eps: int | None) -> pd.DataFrame:
    """All rows of both sweeps, computed where OUT/rows lacks them. Raises ValueError if rungs contradict each other."""
    with cpu_clock():
        parts = [run_sweep(spec, out / "rows", workers=1) for spec in sweep_specs(networks, samples, most_eps)]
    rows = pd.concat(parts, ignore_index=True)
    check_order(rows)
    return rows


def shapes(networks: dict[str, Path]) -> pd.DataFrame:
    """Width (of the widest ReLU layer) and depth (number of ReLU layers) of every network."""
    sizes = {name: Network.load(file).relu_sizes for name, file in networks.items()}
    found = [{"network": name, "width": max(size), "depth": len(size)} for name, size in sizes.items()]
    return pd.DataFrame(found)


def ladder_rows(file: Path, count: int) -> pd.DataFrame:
    """Verdicts of the first test images by the default ladder with HiGHS, in CPU seconds."""
    data = load_dataset("digits")
    plan = BatchPlan(LADDER_EPS, settings=Settings(solver="highs"))
    with cpu_clock():
        rows = certify_samples(Network.load(file), data, range(count), plan)
    return rows.assign(cpu_seconds=rows["seconds"])


def verdict_rows(folder: Path) -> dict[str, pd.DataFrame]:
    """Per-image rows of experiment verdicts by its row's name; misclassified images, which cost nothing, are absent."""
    images = pd.read_parquet(folder / "images.parquet")
    return {str(name): rows.reset_index(drop=True) for name, rows in images.groupby("row", sort=False)}


def main(arguments: Sequence[str] | None = None) -> dict[str, pd.DataFrame]:
    """Train, sweep, fit, draw and write; returns the tables by name. --smoke is a few seconds' worth of everything."""
    parser = experiment_parser(__doc__, "scaling")
    parser.add_argument("--count", type=int, help="samples a network and ε (default: as in the specs)")
    parser.add_argument("--images", type=int, default=200, help="images whose verdicts are measured")
    parser.add_argument("--verdicts", type=Path, help="folder of experiment verdicts' results, for the cost estimate")
    parser.add_argument("--smoke", action="store_true", help="three networks, two radii, one sample")
    options = parser.parse_args(arguments)
    out: Path = options.out
    names = [spec.name for spec in load_train_spec(NETWORKS).networks]
    ladder_network, most_eps = LADDER_NETWORK, None
    if options.smoke:
        names, ladder_network, most_eps = ["digits-1x32", "digits-2x16", "digits-2x32"], "digits-2x16", 2
        options.count, options.images = 1, min(options.images, 10)
    with experiment_run(parser, options) as run:
        networks = trained_networks(out / "networks", names)
        rows = measured_rows(networks, out, options.count, most_eps)
        cells = scaling_cells(rows, shapes(networks))
        batches = {f"{ladder_network}, ε = {LADDER_EPS:g}": ladder_rows(networks[ladder_network], options.images)}
        batches |= verdict_rows(options.verdicts) if options.verdicts is not None else {}
        cost, cost_rungs = cost_tables(batches)
        tables = {"table": cells, "fits": fit_table(cells), "cost": cost, "cost_rungs": cost_rungs}
        run.write({f"{name}.csv": table for name, table in tables.items()}, "%.6g")
        run.write({"table.md": markdown_report(**tables)})
        save_figure(draw_time_against_unstable(cells, tables["fits"]), out / "time_unstable")
        save_figure(draw_gap_against_unstable(cells), out / "gap_unstable")
        save_figure(draw_gap_against_shape(cells), out / "gap_shape")
        clock = "CPU seconds of one process; time limits are wall-clock"
        run.record(rows=len(rows), clock=clock, sweeps=read_provenance(out / "rows"))
    return tables


def _measure(arguments: Sequence[str]) -> None:
    main(arguments)


if __name__ == "__main__":
    sys.exit(end_experiment(_measure))
