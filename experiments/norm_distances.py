"""How far images are from another class in ℓ∞, ℓ2 and ℓ1: minimum-distortion distributions, and what each rung knows.

    python experiments/norm_distances.py --out results/norm-distances --workers 16

Per network, norm and image the least distance to an unsafe point of [0, 1]ⁿ by `closest`: an interval that pgd bounds
from above, the dual, alpha (which climbs to the LP's value) and bab from below. Networks: the zoo's digits-adversarial
and mnist5k-dual, where most intervals close, and Wong & Kolter's (2018) MNIST network, trained for ℓ∞ balls of .1,
where those in ℓ2 and ℓ1 stay wide within the time limit. There are no published values.

table.csv: per network, norm and rung the distribution; open: intervals wider than a hundredth of their upper end.
radii.csv: per image. A figure per network: the share of images with radius ≤ ε, a panel per norm. Images already asked
are not asked again (OUT/answers).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.datasets import load_dataset
from toolkit.data.names import NORM_TITLES, plot_text
from toolkit.networks.network import Network
from toolkit.report import pipe_table, save_figure
from toolkit.report.radii import draw_radius_shares
from toolkit.report.styles import GRID_GREY, PANEL_WIDTH, paper_style, shared_legend
from toolkit.runs.distances import DistancePlan, distance_table, measure_distances
from toolkit.runs.progress import RunProgress

RUNGS = ("pgd", "dual", "alpha", "bab")
PANEL = 1.55  # inches: height of each of the three panels
SHOWN = ("network", "norm", "rung", "end", "images", "mean", "median", "least", "largest", "open", "seconds")


@dataclass(frozen=True)
class Case:
    """A network, its images, and how many of the first ones are asked."""

    network: str
    dataset: str
    count: int

    @property
    def name(self) -> str:
        """The network's, fit for a file."""
        return self.network.split(":")[-1].replace("/", "-")


CASES = (
    Case("zoo:digits-adversarial", "digits", 100),
    Case("zoo:mnist5k-dual", "mnist5k", 50),
    Case("published:wong-kolter-2018/mnist", "mnist", 10),
)


def draw(by_norm: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """One panel per norm, one column wide."""
    with paper_style():
        figure = Figure(figsize=(PANEL_WIDTH + 0.2, PANEL * len(by_norm) + 0.5), layout="constrained")
        FigureCanvasAgg(figure)
        panels = list(figure.subplots(len(by_norm), 1, squeeze=False).flat)
        for panel, (norm, lines) in zip(panels, by_norm.items(), strict=True):
            draw_radius_shares(panel, lines, norm)
            panel.grid(axis="y", color=GRID_GREY, linewidth=0.5)
            panel.set_ylabel("")
        figure.supylabel("share of images with radius ≤ ε", fontsize=8.5)
        panels[0].set_title(plot_text(title))
        shared_legend(figure, panels)
    return figure


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Measure, and write radii.csv, table.csv, table.md, a figure per network and provenance.json."""
    parser = experiment_parser(__doc__, "norm-distances")
    parser.add_argument("--count", type=int, default=100, help="images of each network, at most")
    parser.add_argument("--networks", nargs="+", default=[case.network for case in CASES])
    parser.add_argument("--norms", nargs="+", default=["linf", "l2", "l1"])
    parser.add_argument("--time-limit", type=float, default=30.0, help="seconds an image")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args(arguments)
    unknown = [name for name in options.networks if name not in [case.network for case in CASES]]
    if unknown:
        raise ValueError(f"--networks must be among {', '.join(case.network for case in CASES)}, got {unknown[0]!r}")
    lines, tables = [], []
    with experiment_run(parser, options, keep_runs=True) as run, RunProgress() as progress:
        for case in (case for case in CASES if case.network in options.networks):
            network, data = Network.load(case.network), load_dataset(case.dataset)
            run.entry.setdefault("networks", {})[case.name] = network.digest
            samples, by_norm = range(min(case.count, options.count)), {}
            for norm in options.norms:
                plan = DistancePlan(norm, rungs=RUNGS, time_limit=options.time_limit, tighten=("crown", "bab"))
                asked = plan, run.out, run.entry["run_id"], options.workers, progress.advance
                by_norm[norm] = measure_distances(network, data, samples, *asked)
                lines.append(by_norm[norm].assign(network=case.name, norm=norm))
                tables.append(distance_table(by_norm[norm]).assign(network=case.name, norm=norm))
            save_figure(draw(by_norm, f"{case.name}, {len(samples)} images"), run.out / case.name)
            table, radii = pd.concat(tables, ignore_index=True), pd.concat(lines, ignore_index=True)
            shown = table[list(SHOWN)].assign(norm=table["norm"].map(NORM_TITLES), open=table["open"].replace(-1, ""))
            run.write({"radii.csv": radii, "table.csv": table, "table.md": pipe_table(shown, digits=4)}, "%.6g")
    return table[list(SHOWN)]


if __name__ == "__main__":
    sys.exit(end_experiment(main))
