"""What training does to the gap: one row per trained network, errors by attack, dual, LP and exact, gaps, time.

    relugap train experiments/zoo-wide.toml --out FOLDER
    python experiments/training.py --wide FOLDER --out results/training

or in parts, on as many cores, with --families, and then one report of the parts with --join.

Networks: the zoo's (digits 64-32-32-10, mnist5k 784-50-50-10) and those of FOLDER (mnist5k 784-100-100-10), trained at
ε 0.1. Balls ‖x̃ − x‖∞ ≤ ε cut by [0, 1], the first test images. Every error is a share of verdicts at ε 0.1: clean,
FGSM and PGD count NO (misclassified, or at the attack's point); interval (on l,u by interval), dual, LP (both on l,u by
interval + dual) count everything but YES; exact is the interval [NO, not YES] where the time limit per image left some
undecided. Gaps are means over all targets of the first few images at smaller ε, with dual and LP on the same l,u; m* is
known to lie in an interval where branch and bound met its time limit, so a gap may be an interval too. There are no
published values for these sizes; the comparison is Wong & Kolter 2018 and Salman et al. 2019 in kind.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from training_report import write_results

from toolkit.arrays import FloatArray
from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.datasets import Dataset, load_dataset
from toolkit.networks.network import Network
from toolkit.problems.answers import Verdict
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.runs.progress import RunProgress
from toolkit.verify.ladder import certify
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margins

DOMAIN = (0.0, 1.0)
EPS = 0.1


@dataclass(frozen=True)
class Plan:
    """What every network is asked; time limits in seconds, certified_eps: radii of the certified-accuracy curve."""

    eps: float = EPS
    gap_eps: tuple[float, ...] = (0.01, 0.03, 0.05)
    certified_eps: tuple[float, ...] = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15)
    exact_limit: float = 2.0
    margin_limit: float = 0.5


@dataclass(frozen=True)
class Family:
    """Networks of one size and data set; images: of every error, gap_images: of the gaps, both from the first on."""

    name: str
    dataset: str
    images: int
    gap_images: int


FAMILIES = (
    Family("digits", "digits", 100, 5),
    Family("mnist5k", "mnist5k", 50, 2),
    Family("mnist5k-wide", "mnist5k", 20, 2),
)
LOSSES = ("standard", "adversarial", "dual", "interval")


def networks_of(family: Family, wide: Path | None) -> list[Network]:
    """The family's networks in the order of LOSSES; those of a folder as far as they are there."""
    if family.name != "mnist5k-wide":
        return [Network.load(f"zoo:{family.name}-{loss}") for loss in LOSSES]
    if wide is None:
        return []
    files = [wide / f"{family.name}-{loss}.npz" for loss in LOSSES]
    return [Network.load(file) for file in files if file.is_file()]


def share(network: Network, data: Dataset, count: int, plan: Plan, ladder: Sequence[str], eps: float) -> FloatArray:
    """Shares of YES and NO among the first `count` images, by one ladder without tightened l,u unless it is exact."""
    bounds = ("interval",) if tuple(ladder) == ("interval",) else ("interval", "dual")
    limit = plan.exact_limit if "exact" in ladder else None
    found = [
        certify(network, LinfBall(x, eps, DOMAIN), int(label), ladder, bounds, time_limit=limit).verdict
        for x, label in zip(data.features[:count], data.labels[:count], strict=True)
    ]
    return np.array([found.count(Verdict.YES), found.count(Verdict.NO)]) / len(found)


def errors(network: Network, data: Dataset, count: int, plan: Plan) -> dict[str, Any]:
    """The errors at the plan's eps, as shares in [0, 1]."""
    x, y = data.features[:count], data.labels[:count]
    record: dict[str, Any] = {"images": count, "clean": float(np.mean(network.predict(x) != y))}
    for attack in ("fgsm", "pgd"):
        record[attack] = float(share(network, data, count, plan, (attack,), plan.eps)[1])
    for name, ladder in (("interval", ("interval",)), ("dual", ("dual",)), ("lp", ("dual", "lp"))):
        record[name] = float(1 - share(network, data, count, plan, ladder, plan.eps)[0])
    yes, no = share(network, data, count, plan, ("dual", "pgd", "lp", "exact"), plan.eps)
    return record | {"exact_low": float(no), "exact_high": float(1 - yes), "undecided": round((1 - yes - no) * count)}


def gaps(network: Network, data: Dataset, count: int, eps: float, plan: Plan) -> dict[str, Any]:
    """Mean m* − dual and m* − LP over all targets of the first images, each from below and from above."""
    found: dict[str, list[float]] = {"dual": [], "lp": [], "low": [], "high": []}
    settings = Settings(time_limit=plan.margin_limit, mip_gap=0.0, mip_gap_abs=1e-4)
    for x, label in zip(data.features[:count], data.labels[:count].tolist(), strict=True):
        ball = LinfBall(x, eps, DOMAIN)
        known = layer_bounds(network, ball)
        tight = layer_bounds(network, ball, ("interval", "dual", "lp"))  # m* does not depend on l,u, its time does
        found["dual"] += [bound.lower for bound in margins(network, ball, label, "dual", known)]
        relaxed = margins(network, ball, label, "lp", known)
        found["lp"] += [bound.lower for bound in relaxed]
        exact = margins(network, ball, label, "bab", tight, settings=settings)
        found["low"] += [max(pair[0].lower, pair[1].lower) for pair in zip(exact, relaxed, strict=True)]
        found["high"] += [bound.upper for bound in exact]
    mean = {name: float(np.mean(values)) for name, values in found.items()}
    wide = sum(high - low > 1e-3 for low, high in zip(found["low"], found["high"], strict=True))
    record: dict[str, Any] = {"gap_eps": eps, "margins": len(found["low"]), "margins_open": wide}
    for name in ("dual", "lp"):
        record |= {f"gap_{name}_low": mean["low"] - mean[name], f"gap_{name}_high": mean["high"] - mean[name]}
    return record


def mean_unstable(network: Network, data: Dataset, count: int, eps: float) -> float:
    """Neurons with l < 0 < u on l,u by interval + dual, mean over the first images."""
    balls = (LinfBall(x, eps, DOMAIN) for x in data.features[:count])
    return float(np.mean([sum(layer[0] for layer in layer_bounds(network, ball).counts()) for ball in balls]))


def measure(
    network: Network, family: Family, data: Dataset, plan: Plan
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """The network's row, its points of the certified-accuracy curve, and its points of the gap curve."""
    spec = network.metadata["spec"]
    named = {"family": family.name, "training": spec["loss"]}
    gap_curve = [named | gaps(network, data, family.gap_images, eps, plan) for eps in plan.gap_eps]
    accuracy = [
        named | {"eps": eps, "certified": float(share(network, data, family.images, plan, ("dual",), eps)[0])}
        for eps in plan.certified_eps
    ]
    row = named | {"layers": "-".join(map(str, (network.input_size, *network.relu_sizes, network.output_size)))}
    row |= {"trained_eps": spec["eps"], "eps": plan.eps} | errors(network, data, family.images, plan)
    row |= {key: value for key, value in gap_curve[-1].items() if key not in named}
    row["unstable"] = mean_unstable(network, data, family.images, plan.eps)
    return row | {"seconds_per_epoch": network.metadata["seconds_per_epoch"]}, accuracy, gap_curve


def join(folders: Sequence[Path], plan: Plan, out: Path) -> pd.DataFrame:
    """One report of runs that measured different networks under the same plan."""
    table, accuracy, gap_curve = (
        pd.concat([pd.read_csv(folder / f"{name}.csv") for folder in folders], ignore_index=True)
        for name in ("table", "accuracy", "gaps")
    )
    write_results(table, accuracy, gap_curve, asdict(plan), out)
    return table


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Measure every network, writing all results anew after each."""
    parser = experiment_parser(__doc__, "training")
    parser.add_argument("--wide", type=Path, help="folder with the networks of experiments/zoo-wide.toml")
    parser.add_argument("--families", nargs="*", default=[family.name for family in FAMILIES])
    parser.add_argument("--images", type=int, help="use at most so many images")
    parser.add_argument("--gap-eps", type=float, nargs="+", default=Plan().gap_eps)
    parser.add_argument("--join", type=Path, nargs="+", help="measure nothing: one report of these folders' results")
    options = parser.parse_args(arguments)
    plan = Plan(gap_eps=tuple(options.gap_eps))
    with experiment_run(parser, options) as run:
        families = [asdict(family) for family in FAMILIES]
        run.record(plan=asdict(plan), families=families, parts=len(options.join or [None]))
        if options.join:
            return join(options.join, plan, options.out)
        return measure_all(options.families, options.images, options.wide, plan, options.out)


def measure_all(names: Sequence[str], images: int | None, wide: Path | None, plan: Plan, out: Path) -> pd.DataFrame:
    """Every network of the families named, all results written anew after each."""
    rows: list[dict[str, Any]] = []
    accuracy: list[dict[str, Any]] = []
    gap_curve: list[dict[str, Any]] = []
    with RunProgress() as progress:
        for given in (family for family in FAMILIES if family.name in names):
            most = images or given.images
            family = Family(given.name, given.dataset, min(given.images, most), min(given.gap_images, most))
            data, networks = load_dataset(family.dataset), list(networks_of(family, wide))
            for k, network in enumerate(networks, start=1):
                row, curve, gap = measure(network, family, data, plan)
                rows, accuracy, gap_curve = [*rows, row], accuracy + curve, gap_curve + gap
                progress.advance(family.name, k, len(networks))
                frames = (pd.DataFrame(lines) for lines in (rows, accuracy, gap_curve))
                write_results(*frames, asdict(plan), out)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    sys.exit(end_experiment(main))
