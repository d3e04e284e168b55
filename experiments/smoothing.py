"""ℓ2 radii of the same images: of a network by Lipschitz constant, dual, LP, exactly, and of the network smoothed.

    python experiments/smoothing.py --out results/smoothing --workers 16

Of the network: per image the largest ε in ℓ2 that lipschitz, dual, alpha and lp certify and the interval of the least
distance to another class within [0, 1]ⁿ (bab from below, pgd from above), by `closest`. Of the smoothed classifier,
which is another one and whose base network was not trained with noise: the radius that CERTIFY gives (Cohen, Rosenfeld
& Kolter 2019, "Certified adversarial robustness via randomized smoothing"), noise drawn behind its rounding to grey
levels as in Voráček & Hein 2023, "Sound randomized smoothing in floating-point arithmetic"; per σ, with n0 and n draws
and probability ≥ 1 − α for each image. No published values: these are networks of this package. n0 = 100, n = 100,000
and α = .001 are those of Cohen et al.

table.csv: per method the mean and median radius over all images, misclassified or abstained ones at 0, the share right
and certified at a few radii, and seconds an image, of a rung those after the rungs above it. Images whose distances are
known are not asked again (OUT/answers). What each method certifies: docs/smoothing.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from toolkit.arrays import FloatArray
from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.datasets import Dataset, load_dataset
from toolkit.data.names import plot_text
from toolkit.networks.network import Network
from toolkit.report import pipe_table, save_figure
from toolkit.report.styles import OTHER_LOOKS, label_of, look_of, panel_grid, paper_style, shared_legend
from toolkit.runs.distances import DistancePlan, measure_distances
from toolkit.runs.progress import RunProgress
from toolkit.runs.run import gather
from toolkit.verify.smoothing import smoothed_radius

RUNGS = ("pgd", "lipschitz", "dual", "alpha", "lp", "bab")
SMOOTHED = OTHER_LOOKS  # by σ: bounds that are no rungs
SMOOTHED_BY = "smoothed, "
SMOOTH = f"{SMOOTHED_BY}σ = "
Radii = Mapping[str, FloatArray]


@dataclass(frozen=True, eq=False)
class SmoothedTask:
    """One image and σ. image: flat."""

    network: Network
    image: FloatArray
    label: int
    sample: int
    sigma: float
    n: int
    alpha: float
    levels: int


def ask(task: SmoothedTask) -> dict[str, object]:
    """The line of one task; a module-level function, so that it can run in another process."""
    began = time.perf_counter()
    found = smoothed_radius(
        task.network, task.image, task.sigma, n=task.n, alpha=task.alpha, seed=task.sample, levels=task.levels
    )
    return {
        "sample": task.sample, "label": task.label, "sigma": task.sigma, "predicted": -1 if found.label is None else
        found.label, "radius": found.radius, "p_lower": found.p_lower, "votes": found.votes, "guess": found.guess,
        "n0": found.n0, "n": found.n, "alpha": found.alpha, "seconds": time.perf_counter() - began,
    }  # fmt: skip


def smoothed_lines(
    network: Network, data: Dataset, count: int, sigmas: Sequence[float], n: int, alpha: float, levels: int,
    workers: int, progress: RunProgress,
) -> pd.DataFrame:  # fmt: skip
    """One line per image and σ."""
    tasks = [
        SmoothedTask(network, data.features[i], int(data.labels[i]), i, sigma, n, alpha, levels)
        for sigma in sigmas
        for i in range(count)
    ]
    lines: list[dict[str, object]] = []

    def keep(line: dict[str, object]) -> None:
        lines.append(line)
        progress.advance("smoothed", len(lines), len(tasks))

    def failed(task: SmoothedTask, error: Exception) -> dict[str, object]:
        raise ValueError(f"image {task.sample}, sigma {task.sigma:g}: {error}") from error

    gather(ask, tasks, workers, keep, failed)
    return pd.DataFrame(lines).sort_values(["sigma", "sample"], ignore_index=True)


def radii_by_method(distances: pd.DataFrame, smoothed: pd.DataFrame) -> tuple[Radii, Mapping[str, float]]:
    """Every method's radii, a misclassified or abstained image's 0, and seconds an image. pgd: an upper bound."""
    radii: dict[str, FloatArray] = {}
    seconds: dict[str, float] = {}
    for name in [rung for rung in RUNGS[1:] if rung in set(distances["rung"])] + ["pgd"]:
        part = distances[distances["rung"] == name]
        radii[name] = part["refuted" if name == "pgd" else "certified"].to_numpy(dtype=np.float64)
        seconds[name] = float(part["seconds"].mean())
    for sigma, part in smoothed.groupby("sigma"):
        right = (part["predicted"] == part["label"]).to_numpy()
        radii[f"{SMOOTH}{sigma:g}"] = np.where(right, part["radius"].to_numpy(dtype=np.float64), 0.0)
        seconds[f"{SMOOTH}{sigma:g}"] = float(part["seconds"].mean())
    return radii, seconds


def method_table(
    radii: Radii, seconds: Mapping[str, float], at: Sequence[float], smoothed: pd.DataFrame
) -> pd.DataFrame:
    """One row per method: which classifier it is about, mean and median radius, shares certified, seconds an image."""
    rows = []
    for name, values in radii.items():
        part = smoothed[[f"{SMOOTH}{sigma:g}" == name for sigma in smoothed["sigma"]]]
        rows.append(
            {"method": name, "side": "upper" if name == "pgd" else "lower", "images": values.size}
            | {"classifier": "smoothed" if len(part) else "network", "mean": values.mean(), "median": np.median(values)}
            | {f"at {radius:g}": float((values > radius).mean()) for radius in at}
            | {"abstained": int((part["predicted"] < 0).sum()), "seconds": seconds[name]}
        )
    return pd.DataFrame(rows)


def draw(radii: Radii, title: str) -> Figure:
    """Share of images certified beyond r against r, a step curve per method; no certificate of the network passes pgd.

    alpha is left out beside lp, whose value it has.
    """
    with paper_style():
        figure, (panel,) = panel_grid(1)
        names = [name for name in radii if name != "alpha" or "lp" not in radii]
        right = 1.05 * max(float(values[np.isfinite(values)].max()) for values in radii.values())
        for k, name in enumerate(names):
            values = radii[name]
            smoothed = [other for other in names if other.startswith(SMOOTH)]
            look = SMOOTHED[smoothed.index(name) % len(SMOOTHED)] if name in smoothed else look_of(name, names)
            at = np.unique(np.concatenate([[0.0], values[np.isfinite(values)]]))
            share = np.array([(values > radius).mean() for radius in at])
            panel.plot(
                at, share, drawstyle="steps-post", color=look.color, linestyle=look.linestyle, marker=look.marker,
                markersize=look.marker_size, markevery=(0.05 + 0.02 * k, 0.2), linewidth=1.3,
                label=label_of(name.removeprefix(SMOOTHED_BY)),
            )  # fmt: skip
        panel.set_xlim(0, right)
        panel.set_ylim(0, 1.03)
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        panel.set_xlabel("radius r in ℓ2")
        panel.set_ylabel("right and certified beyond r")
        panel.set_title(plot_text(title))
        shared_legend(figure, [panel], {"pgd": "upper"})
    return figure


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Measure, and write radii.csv, smoothed.csv, table.csv, table.md, certified.png and provenance.json."""
    parser = experiment_parser(__doc__, "smoothing")
    parser.add_argument("--network", default="zoo:mnist5k-dual")
    parser.add_argument("--data", default="mnist5k")
    parser.add_argument("--levels", type=int, default=255, help="steps of a pixel's grid in [0, 1]: 16 for digits")
    parser.add_argument("--count", type=int, default=100, help="first test images")
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.12, 0.25, 0.5])
    parser.add_argument("--draws", type=int, default=100_000, help="n of an image and σ")
    parser.add_argument("--alpha", type=float, default=1e-3)
    parser.add_argument("--at", type=float, nargs="+", default=[0.5, 1.0, 1.5], help="radii of the table")
    parser.add_argument("--rungs", nargs="+", default=list(RUNGS))
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds an image, for its distance")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args(arguments)
    network, data = Network.load(options.network), load_dataset(options.data)
    plan = DistancePlan("l2", rungs=tuple(options.rungs), time_limit=options.time_limit, tighten=("crown", "bab"))
    with experiment_run(parser, options, keep_runs=True) as run, RunProgress() as progress:
        run.entry["networks"] = {network.name: network.digest}
        asked = plan, run.out, run.entry["run_id"], options.workers, progress.advance
        distances = measure_distances(network, data, range(options.count), *asked)
        how = options.sigmas, options.draws, options.alpha, options.levels, options.workers
        smoothed = smoothed_lines(network, data, options.count, *how, progress)
        radii, seconds = radii_by_method(distances, smoothed)
        table = method_table(radii, seconds, options.at, smoothed)
        note = (
            f"{network.name}, {options.count} images, ℓ2. The network's rows hold always; smoothed rows are of another "
            f"classifier, each image with probability ≥ {1 - options.alpha:g} (n0 = 100, n = {options.draws}), base "
            "not trained with noise. pgd: least distance found, which no certificate of the network exceeds.\n\n"
        )
        run.write({"radii.csv": distances, "smoothed.csv": smoothed, "table.csv": table}, "%.6g")
        run.write({"table.md": note + pipe_table(table, digits=3)})
        save_figure(draw(radii, f"{network.name}, and smoothed by σ, {options.count} images"), run.out / "certified")
    return table


if __name__ == "__main__":
    sys.exit(end_experiment(main))
