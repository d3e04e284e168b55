"""What training does to the gap: which loss leaves how much between attack, exact answer, LP and dual.

    python experiments/training.py --workers 16 --out results/training
    relugap train experiments/zoo-wide.toml --out FOLDER
    python experiments/training.py --wide FOLDER

Networks: the zoo's and, with --wide, those of FOLDER (mnist5k 784-100-100-10), each at the radius its training was for
(0.1, with residual block or pooling 0.05). Balls ‖x̃ − x‖∞ ≤ ε cut by [0, 1], the first 1,000 test images, or all
where there are fewer (LP and exact of convolutional networks trained for no bound: 100); data sets that are not at hand
are left out. Errors, each stage asking what no earlier one decided: clean, FGSM and PGD count images shown to be
misclassified somewhere; dual and LP (l,u by interval + dual) those not certified; exact, by branch and bound with a
time limit an image, is the interval [shown, not certified]. `interval`, on l,u by interval arithmetic, is asked on its
own. missed: images that are safe and that a bound does not certify. Shares with Clopper–Pearson 95 % intervals.

Gaps m* − dual and m* − LP: margins of the first images to all targets at smaller ε, on the same l,u; m* lies in an
interval where branch and bound met its time limit. Means over images of the mean over their targets, 95 % t-intervals.
Curves: images certified by the dual at several ε.

Losses: Madry et al. 2018 (adversarial), Wong & Kolter 2018 (dual), Gowal et al. 2018 (interval), Zhang et al. 2020
(crown-ibp), De Palma et al. 2024 (mtl-ibp), compared as CTBench (Mao et al. 2024) compares them, with an exact verifier
behind every loss, at small scale. No published values for these networks.

Writes OUT/table.csv, gaps.csv, accuracy.csv, table.md, README.md, gap.png, certified.png, provenance.json; answers/ and
margins/ hold what was asked: a stopped run goes on where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from training_report import gap_means, with_intervals, write_results

from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.datasets import find_data, load_dataset
from toolkit.networks.network import Network
from toolkit.networks.sources import zoo_names
from toolkit.report import check_order
from toolkit.runs.lock import folder_lock
from toolkit.runs.progress import RunProgress
from toolkit.runs.sweep.run import run_sweep
from toolkit.runs.sweep.spec import SweepSpec, SweptNetwork
from toolkit.runs.tables.answers import Advance
from toolkit.runs.tables.entries import ErrorsEntry, ErrorsRow, StageSpec
from toolkit.runs.tables.errors import ErrorCell, run_errors
from toolkit.training.spec import LOSS_NAMES

DOMAIN = (0.0, 1.0)
DATASETS = ("digits", "mnist5k", "fashion-mnist")
EXACT_SECONDS, MARGIN_SECONDS = 3.0, 0.2
SLOW_NEURONS, SLOW_IMAGES = 1000, 100  # of networks trained for no bound: thousands of unstable neurons an image
STAGES = (
    StageSpec(name="fgsm", ladder=("fgsm",)),
    StageSpec(name="pgd", ladder=("pgd",)),
    StageSpec(name="dual", ladder=("dual",)),
    StageSpec(name="lp", ladder=("lp",)),
    StageSpec(name="exact", ladder=("bab",), tighten=("crown", "bab"), time_limit=EXACT_SECONDS),
)
INTERVAL = StageSpec(name="interval", ladder=("interval",), bounds=("interval",))


@dataclass(frozen=True)
class Plan:
    """How much is asked: images of every error, of the margins at gap_eps, of the curves at certified_eps."""

    images: int = 1000
    gap_images: int = 30
    curve_images: int = 100
    gap_eps: tuple[float, ...] = (0.01, 0.03, 0.05)
    certified_eps: tuple[float, ...] = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15)
    exact_seconds: float = EXACT_SECONDS
    margin_seconds: float = MARGIN_SECONDS

    def at_most(self, images: int | None) -> Plan:
        """The same with at most so many images everywhere."""
        if images is None:
            return self
        fewer = (min(images, own) for own in (self.images, self.gap_images, self.curve_images))
        return Plan(*fewer, self.gap_eps, self.certified_eps)


@dataclass(frozen=True)
class Trained:
    """A network and what its record says: the data set, the loss, the radius."""

    source: str
    network: Network

    @property
    def spec(self) -> dict[str, Any]:
        """As it was trained by."""
        return dict(self.network.metadata["spec"])

    @property
    def layers(self) -> str:
        """Sizes of input, ReLU layers and output."""
        return "-".join(map(str, (self.network.input_size, *self.network.relu_sizes, self.network.output_size)))

    def row(self, eps: float | None = None) -> ErrorsRow:
        """What is asked of it at one radius, None = its own."""
        radius = self.spec["eps"] if eps is None else eps
        return ErrorsRow(
            name=self.network.name if eps is None else f"{self.network.name} {eps:g}", network=self.source,
            dataset=self.spec["dataset"], eps=radius, domain=DOMAIN,
            samples={"lp": SLOW_IMAGES, "exact": SLOW_IMAGES} if self.slow and eps is None else {},
        )  # fmt: skip

    @property
    def slow(self) -> bool:
        """Whether LP and branch and bound are asked about SLOW_IMAGES only."""
        return sum(self.network.relu_sizes) > SLOW_NEURONS and self.spec["loss"] in ("standard", "adversarial")


def trained_networks(datasets: Sequence[str], wide: Path | None) -> list[Trained]:
    """The zoo's and a folder's networks of these data sets: by data set, size, and loss in the order of LOSS_NAMES."""
    files = [] if wide is None else sorted(wide.glob("*.npz"))
    sources = [f"zoo:{name}" for name in zoo_names()] + [str(file.resolve()) for file in files]
    found = [Trained(source, Network.load(source)) for source in sources]
    kept = [one for one in found if one.spec["dataset"] in datasets]

    def order(one: Trained) -> tuple[Any, ...]:
        sizes = (one.network.input_size, *one.network.relu_sizes)
        return DATASETS.index(one.spec["dataset"]), len(sizes), sizes, LOSS_NAMES.index(one.spec["loss"])

    return sorted(kept, key=order)


@dataclass(frozen=True)
class Asking:
    """Where answers are kept and by how many processes they are sought."""

    out: Path
    run_id: str
    workers: int
    advance: Advance

    def errors(self, rows: Sequence[ErrorsRow], stages: Sequence[StageSpec], count: int) -> list[ErrorCell]:
        """The cells of rows × stages, on the first `count` images."""
        entry = ErrorsEntry(kind="errors", title="training", source="own", stages=tuple(stages), rows=tuple(rows))
        return run_errors(entry, self.out, self.run_id, count, self.workers, self.advance)[0]


def error_table(networks: Sequence[Trained], asking: Asking, plan: Plan) -> pd.DataFrame:
    """One row per network: every error as a share of `images`, of `images_exact` for LP and exact, undecided images,
    shares of safe images that dual and LP do not certify (at least, at most), seconds of all stages.
    """
    rows = [one.row() for one in networks]
    alone = [row.model_copy(update={"samples": {}}) for row in rows]
    cells = asking.errors(rows, STAGES, plan.images) + asking.errors(alone, (INTERVAL,), plan.images)
    lines = []
    for one in networks:
        own = {cell.column: cell for cell in cells if cell.row == one.network.name}
        lp, exact, spec = own["lp"], own["exact"], one.spec
        line = {"dataset": spec["dataset"], "layers": one.layers, "network": one.network.name, "training": spec["loss"]}
        line |= {"eps": spec["eps"], "images": own["dual"].images, "images_exact": exact.images}
        line |= {name: own[name].error / 100 for name in ("clean", "fgsm", "pgd", "interval", "dual", "lp")}
        line |= {"exact_low": exact.attacked / 100, "exact_high": exact.error / 100, "undecided": exact.maybe}
        line |= {"missed_dual_low": (lp.yes + exact.yes) / exact.images, "missed_lp_low": exact.yes / exact.images}
        line |= {
            f"missed_{name}_high": line[f"missed_{name}_low"] + exact.maybe / exact.images for name in ("dual", "lp")
        }
        line |= {"seconds": sum(cell.seconds for cell in own.values())}
        lines.append(line | {"seconds_per_epoch": one.network.metadata["seconds_per_epoch"]})
    return pd.DataFrame(lines)


def accuracy_curve(networks: Sequence[Trained], asking: Asking, plan: Plan) -> pd.DataFrame:
    """Share of the first images that the dual certifies, by network and ε."""
    asked = [(one, eps) for one in networks for eps in plan.certified_eps]
    dual = (STAGES[2],)
    cells = asking.errors([one.row(eps) for one, eps in asked], dual, plan.curve_images)
    found = {cell.row: cell for cell in cells if cell.column == "dual"}
    lines = []
    for one, eps in asked:
        cell = found[f"{one.network.name} {eps:g}"]
        line = {"dataset": one.spec["dataset"], "layers": one.layers, "training": one.spec["loss"], "eps": eps}
        lines.append(line | {"images": cell.images, "certified": 1 - cell.error / 100})
    return pd.DataFrame(lines)


def gap_curve(networks: Sequence[Trained], asking: Asking, plan: Plan) -> pd.DataFrame:
    """Mean gaps by network and ε, from a sweep of dual, LP and branch and bound in OUT/margins."""
    spec = SweepSpec(
        name="training-margins",
        networks=tuple(SweptNetwork(source=one.source, dataset=one.spec["dataset"]) for one in networks),
        samples=tuple(range(plan.gap_images)),
        eps=plan.gap_eps,
        domain=DOMAIN,
        rungs=("dual", "lp", "bab"),
        time_limit=plan.margin_seconds,
        mip_gap=0.0,
        mip_gap_abs=1e-4,
    )
    rows = run_sweep(spec, asking.out / "margins", workers=asking.workers)
    check_order(rows)
    named = {one.network.name: (one.spec["dataset"], one.layers, one.spec["loss"]) for one in networks}
    return gap_means(rows, named)


def measure(networks: Sequence[Trained], asking: Asking, plan: Plan) -> pd.DataFrame:
    """Everything asked and written; returns the table."""
    table = error_table(networks, asking, plan)
    accuracy, gaps = accuracy_curve(networks, asking, plan), gap_curve(networks, asking, plan)
    widest = gaps[gaps["gap_eps"] == max(plan.gap_eps)].drop(columns=["dataset", "layers", "training"])
    table = with_intervals(table.merge(widest, on="network", how="left", validate="one_to_one"))
    write_results(table, accuracy, gaps, asdict(plan), asking.out)
    return table


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Ask what OUT does not hold yet, and write the results."""
    parser = experiment_parser(__doc__, "training")
    parser.add_argument("--wide", type=Path, help="folder with the networks of experiments/zoo-wide.toml")
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS), choices=DATASETS)
    parser.add_argument("--images", type=int, help="use at most so many images")
    parser.add_argument("--gap-eps", type=float, nargs="+", default=Plan().gap_eps)
    parser.add_argument("--curve-eps", type=float, nargs="+", default=Plan().certified_eps)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    options = parser.parse_args(arguments)
    plan = Plan(gap_eps=tuple(options.gap_eps), certified_eps=tuple(options.curve_eps)).at_most(options.images)
    at_hand = {one.name for one in find_data() if one.split == "test" and one.available}
    networks = trained_networks([name for name in options.datasets if name in at_hand], options.wide)
    if not networks:
        raise ValueError(f"datasets must name one whose test images are at hand, got {', '.join(options.datasets)}")
    with (
        folder_lock(options.out.absolute()),
        experiment_run(parser, options, keep_runs=True) as run,
        RunProgress() as shown,
    ):
        sizes = {name: len(load_dataset(name)) for name in {one.spec["dataset"] for one in networks}}
        run.record(plan=asdict(plan), left_out=sorted(set(options.datasets) - at_hand), test_images=sizes)
        run.entry["networks"] = {one.network.name: one.network.digest for one in networks}
        asking = Asking(options.out, run.entry["run_id"], options.workers, shown.advance)
        return measure(networks, asking, plan)


if __name__ == "__main__":
    sys.exit(end_experiment(main))
