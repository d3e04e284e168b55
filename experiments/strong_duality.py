"""Strong duality shown: the dual bound g(α) climbs to the LP optimum on the same l,u, iteration by iteration.

    python experiments/strong_duality.py --out results/strong-duality

Wong & Kolter 2018, Thm 1: any dual feasible point g(α) ≤ LP; Salman et al. 2019, "A convex relaxation barrier", §4: the
best one equals it. l,u come from the dual recursion (first layer exact). For every case and target the table has the
closed forms (dual, crown), the optimised slopes (alpha), the LP optimum by simplex and m*'s upper bound by pgd; the
figure follows the smallest LP margin of each case, with the ascent's own LP feasible value coming down from above.

Lines that leave the lower panel have come within 1e-7.

The published networks are those of github.com/Hadisalman/robust-verify-benchmark (weights/experiment_1, commit
fce1c27), fetched by name; --shipped leaves them out. Published: none; an independent
prototype has, for image 0 (label 7) and image 7 (label 9), dual, crown, LP: NOR 0, t = 3: 4.4427, 4.8246, 5.1765;
ADV 0, t = 9: −1.1070, −1.1363, −0.4653; LPD 7, t = 3: −0.6903, −0.7749, −0.5709. Seconds are of one core, alpha and lp
for all targets of a case, model building included.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from toolkit.arrays import FloatArray
from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.datasets import load_dataset
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.report.styles import LOOKS, TEXT_GREY, label_of, paper_style, shared_legend, stacked_grid
from toolkit.report.write import save_figure
from toolkit.rungs import get_rung
from toolkit.search.ascent import Ascent
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem

SETTINGS = Settings(solver="highs")
TRAININGS = {"NOR": "standard training", "ADV": "adversarial training", "LPD": "dual training"}  # of MLP-B, by its name
RUNGS = ("dual", "crown", "alpha", "lp", "pgd")


@dataclass(frozen=True)
class Case:
    """One image before one network, named as Network.load takes it."""

    source: str
    dataset: str
    sample: int
    eps: float


CASES = (
    Case("published:salman-2019/NOR_MLP_B", "mnist", 0, 0.02),
    Case("published:salman-2019/ADV_MLP_B_0.1", "mnist", 0, 0.1),
    Case("published:salman-2019/LPD_MLP_B_0.1", "mnist", 7, 0.1),
    Case("zoo:digits-standard", "digits", 0, 0.07),
)


@dataclass(frozen=True)
class Measured:
    """A case's table rows, and per iteration and target the best bound and the ascent's own LP feasible value."""

    title: str
    rows: pd.DataFrame
    lower: FloatArray
    relaxed: FloatArray


def case_problem(case: Case) -> tuple[Problem, int]:
    """The margin problem of a case and its label."""
    network = Network.load(case.source)
    dataset = load_dataset(case.dataset)
    label = int(dataset.labels[case.sample])
    ball = LinfBall(dataset.images[case.sample], case.eps, domain=(0, 1))
    bounds = layer_bounds(network, ball, ("dual",))
    return margin_problem(network, ball, label, bounds, settings=SETTINGS), label


def follow(problem: Problem, iterations: int) -> tuple[FloatArray, FloatArray]:
    """Best bound and least LP feasible value after 0, 1, … iterations, (iterations + 1, targets) each."""
    ascent = Ascent(problem)
    ascent.finished()
    lower, relaxed = [ascent.best], [ascent.relaxed]
    for _ in range(iterations):
        ascent.step()
        ascent.finished()
        lower.append(ascent.best)
        relaxed.append(ascent.relaxed)
    return np.array(lower), np.array(relaxed)


def measure(case: Case, iterations: int) -> Measured:
    """Every rung on one case, and the ascent step by step."""
    problem, label = case_problem(case)
    bounds, seconds = {}, {}
    for name in RUNGS:
        started = time.perf_counter()
        bounds[name] = get_rung(name)(problem)
        seconds[name] = time.perf_counter() - started
    values = {name: [bound.lower for bound in bounds[name]] for name in RUNGS if name != "pgd"}
    table = pd.DataFrame({"target": problem.targets, **values, "pgd": [bound.upper for bound in bounds["pgd"]]})
    table["lp_minus_alpha"] = table["lp"] - table["alpha"]
    table["relative"] = table["lp_minus_alpha"] / table["lp"].abs()
    table["iterations"] = [bound.iterations for bound in bounds["alpha"]]
    table["alpha_seconds"], table["lp_seconds"] = seconds["alpha"], seconds["lp"]
    name = problem.network.name
    unstable = sum(count[0] for count in problem.relu_bounds.counts())
    for column, value in zip(
        ("network", "digest", "dataset", "sample", "label", "eps", "unstable"),
        (name, problem.network.digest, case.dataset, case.sample, label, case.eps, unstable),
        strict=True,
    ):
        table.insert(table.columns.get_loc("target"), column, value)
    training = TRAININGS.get(name.split("/")[-1].split("_")[0])
    shown = name if training is None else f"MLP-B, {training}"
    title = f"{shown}\n{case.dataset} image {case.sample}, ε = {case.eps:g}"
    return Measured(title, table, *follow(problem, iterations))


def draw(cases: Sequence[Measured]) -> Figure:
    """Above: bounds of the smallest LP margin against iterations; below: LP − g(α) of every target, log scale."""
    with paper_style():
        figure, pairs = stacked_grid(len(cases), across=2)
        for case, (upper, lower) in zip(cases, pairs, strict=True):
            row = case.rows.loc[case.rows["lp"].idxmin()]
            at = int(case.rows.index.get_loc(row.name))
            steps = np.arange(len(case.lower))
            upper.axhline(row["lp"], color=LOOKS["lp"].color, label="LP, by simplex", linewidth=1.2)
            upper.plot(
                steps,
                case.lower[:, at],
                color=LOOKS["alpha"].color,
                label="g(α), the best so far",
                linewidth=1.6,
            )
            upper.plot(
                steps,
                case.relaxed[:, at],
                color=TEXT_GREY,
                linestyle=(0, (1, 1)),
                label="the ascent's LP point",
            )
            for name in ("dual", "crown"):
                look = LOOKS[name]
                upper.plot(0, row[name], look.marker, color=look.color, label=label_of(name), clip_on=False, zorder=3)
            spread = row["lp"] - min(row["dual"], row["crown"])
            upper.set_ylim(row["lp"] - 1.15 * spread, row["lp"] + 0.6 * spread)
            upper.set_title(f"{case.title}, margin F$_{row['label']}$ − F$_{row['target']}$", fontsize=8.5)
            gaps = np.maximum(case.rows["lp"].to_numpy() - case.lower, 1e-9)
            lower.semilogy(steps, np.delete(gaps, at, axis=1), color=LOOKS["alpha"].color, linewidth=0.5, alpha=0.5)
            lower.semilogy(steps, gaps[:, at], color=LOOKS["alpha"].color, linewidth=1.6)
            upper.set_xscale("symlog", linthresh=10)
            lower.set_ylim(1e-7, None)
            lower.set_xlabel("iterations")
        for upper, lower in pairs[::2]:
            upper.set_ylabel("bound (logits)")
            lower.set_ylabel("LP − g(α)")
        shared_legend(figure, [upper for upper, _ in pairs])
    return figure


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Measure, draw and write table.csv, alpha_vs_lp.png and provenance.json; returns the table."""
    parser = experiment_parser(__doc__, "strong-duality")
    parser.add_argument("--shipped", action="store_true", help="only networks that come with the package")
    parser.add_argument("--iterations", type=int, default=400)
    options = parser.parse_args(arguments)
    chosen = [case for case in CASES if case.source.startswith("zoo:") or not options.shipped]
    with experiment_run(parser, options) as run:
        cases = [measure(case, options.iterations) for case in chosen]
        table = pd.concat([case.rows for case in cases], ignore_index=True)
        run.write({"table.csv": table.drop(columns="digest")}, "%.6g")
        save_figure(draw(cases), options.out / "alpha_vs_lp")
        run.entry["networks"] = dict(table.groupby("network", sort=False)["digest"].first())
    return table


if __name__ == "__main__":
    sys.exit(end_experiment(main))
