"""How often, and by how much, do solvers claim more than is true? Solver values against certified intervals.

    python experiments/trust.py --out results/trust

Random networks and the zoo's, LPs and MILPs of the template. For a MILP the certified interval of m* is [a, b]: a from
the bab rung's certified_lower, b the least margin at a replayed point. A claim is what the solver states: for an LP its
objective ("optimal"), for a MILP its dual bound. The true LP optimum lies in [certified_lower, m*], so an LP's claim
above certified_lower shows how far its word would have to be believed beyond what its own duals prove; any claim above
b is false outright. Columns: solves (with a claim), claims above the certified lower bound by more than 1e-9 (relative
to 1 + |b|), the median and the largest excess, and false claims: above b by more than 1e-9, with the largest excess.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.datasets import load_dataset
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.report import pipe_table
from toolkit.rungs import get_rung
from toolkit.search.lp_bounder import template
from toolkit.solvers.registry import SOLVERS, open_session
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem

NOISE = 1e-9
KINDS = (
    ((1.0, 1.0, 1.0), "random"),
    ((1e3, 1e-3, 1.0), "random, layers 1e3 apart"),
    ((1e6, 1e-6, 1.0), "random, layers 1e6 apart"),
)
ZOO = (("zoo:digits-standard", "digits", 0.03), ("zoo:mnist5k-standard", "mnist5k", 0.015))


def random_problems(count: int, seed: int, settings: Settings) -> Iterator[tuple[str, Problem]]:
    """Random networks: well scaled ones, and ones whose layers differ by factors of 1e3 or 1e6 in size."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        sizes = (6, 12, 10, 3)
        scales, name = KINDS[k % len(KINDS)]
        layers = [
            Dense(scale * rng.normal(0, np.sqrt(2 / n), (m, n)), scale * rng.normal(0, 0.5, m))
            for n, m, scale in zip(sizes, sizes[1:], scales, strict=False)
        ]
        network = Network(layers)
        ball = LinfBall(rng.normal(size=6), float(rng.uniform(0.05, 0.3)))
        yield name, margin_problem(network, ball, 0, layer_bounds(network, ball), settings=settings)


def zoo_problems(samples: int, settings: Settings) -> Iterator[tuple[str, Problem]]:
    """The zoo's networks on their first test images, runner-up class."""
    for source, name, eps in ZOO:
        network, data = Network.load(source), load_dataset(name)
        for i in range(samples):
            x, label = data.features[i], int(data.labels[i])
            ball = LinfBall(x, eps, (0, 1))
            runner_up = [int(t) for t in network.forward(x).argsort()[::-1] if t != label][:1]
            bounds = layer_bounds(network, ball, ("dual", "lp"), settings)
            yield source.removeprefix("zoo:"), margin_problem(network, ball, label, bounds, runner_up, settings)


def claims(problem: Problem, solver: str, mip: bool) -> list[float]:
    """What the solver itself states as proven of every row: an LP's objective, a MILP's dual bound."""
    built = template(problem)
    layout, compiled = built.layout, built.exact if mip else built.relaxed
    session = open_session(compiled, replace(problem.settings, solver=solver))
    if session.name != solver:
        return []
    costs, offsets = layout.objective(problem.rows)
    reports = [session.minimize(cost, offset) for cost, offset in zip(costs, offsets.tolist(), strict=True)]
    return [report.bound if mip else report.incumbent for report in reports]


def compare(name: str, problem: Problem, solvers: Sequence[str]) -> Iterator[dict[str, object]]:
    """One row per claim of a solver: its excess over the certified lower bound, and over the least known margin."""
    lps, trees = get_rung("lp")(problem), get_rung("bab")(problem)
    for solver in solvers:
        for mip, certified in ((False, lps), (True, trees)):
            for claim, bound, tree in zip(claims(problem, solver, mip), certified, trees, strict=False):
                scale = 1.0 + abs(tree.upper)
                excess, false = (claim - bound.certified_lower) / scale, (claim - tree.upper) / scale
                yield {"network": name, "solver": solver, "model": "MILP" if mip else "LP",
                       "excess": excess, "false": false}  # fmt: skip


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Counts and sizes per network, solver and kind of model."""
    found = []
    for keys, group in rows.groupby(["network", "model", "solver"], sort=True):
        over, wrong = group["excess"].to_numpy(), group["false"].to_numpy()
        network, model, solver = keys
        found.append(
            {
                "network": network,
                "model": model,
                "solver": solver,
                "solves": len(group),
                "above_certified": int((over > NOISE).sum()),
                "median_excess": float(np.median(over)),
                "largest_excess": float(over.max()),
                "false_claims": int((wrong > NOISE).sum()),
                "largest_false": float(max(0.0, wrong.max())),
            }
        )
    return pd.DataFrame(found)


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Run, and write table.csv, table.md and provenance.json."""
    parser = experiment_parser(__doc__, "trust")
    parser.add_argument("--count", type=int, default=40, help="random networks")
    parser.add_argument("--samples", type=int, default=5, help="images per zoo network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--solvers", nargs="*", default=[n for n, s in SOLVERS.items() if s.status().usable])
    options = parser.parse_args(arguments)
    settings = Settings(solver="highs", mip_gap=0.0, mip_gap_abs=1e-9, time_limit=60.0)
    rows: list[dict[str, object]] = []
    with experiment_run(parser, options) as run:
        # a solver that states nothing (a limit, a failure) makes no claim
        every = (random_problems(options.count, options.seed, settings), zoo_problems(options.samples, settings))
        for name, problem in itertools.chain(*every):
            found = compare(name, problem, options.solvers)
            rows += [row for row in found if np.isfinite(float(str(row["excess"])))]
        table = summarize(pd.DataFrame(rows))
        run.write({"table.csv": table, "table.md": pipe_table(table, digits=3)})
    return table


if __name__ == "__main__":
    sys.exit(end_experiment(main))
