"""bab against MILP solvers on the same templates in the same run: total time of the margins of each case.

    python experiments/branch_and_bound.py --out results/branch-and-bound

The published networks (github.com/locuslab/convex_adversarial, github.com/Hadisalman/robust-verify-benchmark) are
fetched by name. l,u by dual + lp. Every margin to an absolute gap of 1e-4, one thread, with a time limit per margin.
Solvers take turns, --repeats times; the table has the least wall and process (CPU) seconds of the turns, the second
being the one to compare on a busy machine, the most CPU seconds of any turn, and CPU seconds over bab's. bab's time
includes certifying its leaves.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.datasets import load_dataset
from toolkit.networks.network import Network
from toolkit.problems.answers import Status
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.report import pipe_table
from toolkit.rungs import get_rung
from toolkit.runs.progress import RunProgress
from toolkit.solvers.registry import SOLVERS
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem

GAP = 1e-4


@dataclass(frozen=True)
class Case:
    """One network at one ε; samples: test images; runner_up: only the class with the least clean margin."""

    name: str
    source: str
    data: str
    eps: float
    samples: tuple[int, ...]
    runner_up: bool = True


CASES = (
    Case("wong-kolter-conv", "published:wong-kolter-2018/mnist", "mnist", 0.1, (8,), runner_up=False),
    Case("LPD_MLP_B_0.1", "published:salman-2019/LPD_MLP_B_0.1", "mnist", 0.1, tuple(range(10))),
    Case("digits-standard", "zoo:digits-standard", "digits", 0.03, tuple(range(10))),
    Case("mnist5k-standard", "zoo:mnist5k-standard", "mnist5k", 0.02, tuple(range(10))),
)


def problems(case: Case, settings: Settings, limit: int | None) -> list[Problem]:
    """One problem per sample that the network classifies correctly."""
    network, data = Network.load(case.source), load_dataset(case.data)
    found = []
    for sample in case.samples[:limit]:
        label, x = int(data.labels[sample]), data.features[sample]
        if network.predict(x) != label:
            continue
        ball = LinfBall(x, case.eps, (0, 1))
        logits = network.forward(x)
        order = [int(t) for t in logits.argsort()[::-1] if t != label]
        bounds = layer_bounds(network, ball, ("dual", "lp"), settings)
        found.append(margin_problem(network, ball, label, bounds, order[:1] if case.runner_up else None, settings))
    return found


def solve_case(case: Case, given: Sequence[Problem], solver: str, settings: Settings) -> dict[str, Any]:
    """Totals of one solver over the case's margins."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = []
    for problem in given:
        rung = get_rung("bab" if solver == "bab" else "exact")
        own = Problem.of(problem.network, problem.input_set, problem.rows, problem.relu_bounds,
                      settings if solver == "bab" else Settings(**{**vars(settings), "solver": solver}),
                      problem.targets)  # fmt: skip
        found += rung(own)
    solved = [bound for bound in found if bound.status is Status.OPTIMAL]
    unstable = [sum(count[0] for count in problem.relu_bounds.counts()) for problem in given]
    return {
        "network": case.name,
        "eps": case.eps,
        "solver": solver,
        "margins": len(found),
        "solved": len(solved),
        "unstable": sum(unstable) / max(1, len(unstable)),
        "wall_seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "nodes": sum(bound.nodes for bound in found),
        "largest_gap": max((bound.upper - bound.lower for bound in found), default=0.0),
        "took": ", ".join(sorted({bound.solver for bound in found})),
    }


def measure(
    cases: Sequence[Case], solvers: Sequence[str], time_limit: float, limit: int | None, repeats: int
) -> pd.DataFrame:
    """One row per case and solver, solvers in turns on the same l,u."""
    rows = []
    with RunProgress() as progress:
        for case in cases:
            settings = Settings(solver="highs", mip_gap=0.0, mip_gap_abs=GAP, time_limit=time_limit)
            given = problems(case, settings, limit)
            turns: dict[str, list[dict[str, Any]]] = {solver: [] for solver in solvers}
            for k in range(repeats):
                for i, solver in enumerate(solvers):
                    turns[solver].append(solve_case(case, given, solver, settings))
                    progress.advance(case.name, k * len(solvers) + i + 1, repeats * len(solvers), solver)
            rows += [best_turn(found) | {"time_limit": time_limit} for found in turns.values()]
    table = pd.DataFrame(rows)
    own = table[table["solver"] == "bab"].set_index("network")["cpu_seconds"]
    return table.assign(cpu_over_bab=table["cpu_seconds"] / table["network"].map(own))


def best_turn(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One solver's turns as one row: the least times, the most CPU seconds, the worst of what was solved."""
    times = {name: min(turn[name] for turn in found) for name in ("wall_seconds", "cpu_seconds")}
    most = {"most_cpu_seconds": max(turn["cpu_seconds"] for turn in found), "turns": len(found)}
    worst = {"solved": min(turn["solved"] for turn in found), "largest_gap": max(turn["largest_gap"] for turn in found)}
    return found[-1] | times | most | worst


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Run the cases asked for and write table.csv, table.md and provenance.json."""
    usable = [name for name, solver in SOLVERS.items() if solver.status().usable]
    parser = experiment_parser(__doc__, "branch-and-bound")
    parser.add_argument("--cases", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--solvers", nargs="*", default=["bab", *usable])
    parser.add_argument("--time-limit", type=float, default=60.0)
    parser.add_argument("--limit", type=int, help="use only so many samples of each case")
    parser.add_argument("--repeats", type=int, default=1, help="turns of every solver")
    options = parser.parse_args(arguments)
    chosen = [case for case in CASES if case.name in options.cases]
    with experiment_run(parser, options) as run:
        table = measure(chosen, options.solvers, options.time_limit, options.limit, options.repeats)
        run.write({"table.csv": table, "table.md": pipe_table(table, digits=4)})
        run.record(gap=GAP)
    return table


if __name__ == "__main__":
    sys.exit(end_experiment(main))
