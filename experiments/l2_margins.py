"""Margins of one image over ℓ2 balls: every target's certified interval, and a proof that is checked.

    python experiments/l2_margins.py                      # Wong & Kolter's MNIST network, image 8, ε = 0.05 … 1.0
    python experiments/l2_margins.py --eps 0.1 --time-limit 60

Per ε and target: the dual and alpha bounds on l,u by --bounds, the least margin an attack finds, [lower, upper] of the
exact rung, which is closed where its status is optimal; lower holds in real arithmetic. Nearly as much is written as a
proof by the same search and verified without a solver; proofs are kept in the folder.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from toolkit.certificates.check import check_proof
from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.datasets import load_dataset
from toolkit.networks.network import Network
from toolkit.problems.input_sets import Ball, make_ball
from toolkit.problems.settings import Settings
from toolkit.report import pipe_table
from toolkit.rungs import get_rung
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem
from toolkit.verify.prove import write_proof

NETWORK, DATA, INDEX = "published:wong-kolter-2018/mnist", "mnist", 8
CHEAP = ("dual", "alpha", "pgd")


def interval_table(
    network: Network, ball: Ball, label: int, targets: Sequence[int] | None, chain: Sequence[str], limit: float
) -> pd.DataFrame:
    """One row per target: every rung's bound, and what the exact rung needed. limit: seconds per target."""
    began = time.perf_counter()
    bounds = layer_bounds(network, ball, chain)
    seconds = time.perf_counter() - began
    problem = margin_problem(network, ball, label, bounds, targets, settings=Settings(time_limit=limit))
    clean = problem.clean_values().tolist()
    found = {name: get_rung(name)(problem) for name in CHEAP}
    rows = []
    for k, exact in enumerate(get_rung("exact")(problem)):
        rows.append(
            {
                "eps": float(ball.eps),
                "target": exact.target,
                "clean": clean[k],
                "dual": found["dual"][k].certified_lower,
                "alpha": found["alpha"][k].certified_lower,
                "lower": max(exact.certified_lower, found["alpha"][k].certified_lower),
                "upper": min(exact.upper, found["pgd"][k].upper),
                "status": str(exact.status),
                "nodes": exact.nodes,
                "seconds": exact.seconds,
                "unstable": sum(counts[0] for counts in bounds.counts()),
                "bounds_seconds": seconds,
            }
        )
    return pd.DataFrame(rows)


def proven_claims(
    path: Path, network: Network, ball: Ball, label: int, stop_at: dict[int, float], limit: float
) -> pd.DataFrame:
    """Proofs target by target, each of nearly what the search found, and what `check_proof` says of the file."""
    rows = []
    for target, goal in stop_at.items():
        own = path.with_name(f"{path.stem}-{target}.npz")
        began = time.perf_counter()
        proof = write_proof(own, network, ball, label, [target], Settings(stop_at=goal, time_limit=limit))
        middle = time.perf_counter()
        checked = check_proof(own, network)
        checked.require(ball.center, float(ball.eps), label, norm=ball.norm, domain=ball.domain)
        rows.append(
            {
                "eps": float(ball.eps),
                "target": target,
                "claim": checked.claims[target],
                "leaves": proof.leaves,
                "bytes": own.stat().st_size,
                "prove_seconds": middle - began,
                "check_seconds": time.perf_counter() - middle,
            }
        )
    return pd.DataFrame(rows)


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    parser = experiment_parser(__doc__, "l2-margins")
    parser.add_argument("--network", default=NETWORK)
    parser.add_argument("--data", default=DATA)
    parser.add_argument("--index", type=int, default=INDEX)
    parser.add_argument("--norm", default="l2")
    parser.add_argument("--eps", type=float, nargs="+", default=[0.05, 0.1, 0.5, 1.0])
    parser.add_argument("--targets", type=int, nargs="+", help="default: every other class")
    parser.add_argument("--bounds", nargs="+", default=["interval", "dual"])
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds per target")
    parser.add_argument("--slack", type=float, default=1e-3, help="by how much less than found is proven")
    parser.add_argument("--no-proof", action="store_true")
    options = parser.parse_args(arguments)
    with experiment_run(parser, options) as run:
        network, data = Network.load(options.network), load_dataset(options.data)
        label = int(data.labels[options.index])
        tables, proofs = [], []
        for eps in options.eps:
            ball = make_ball(options.norm, data.features[options.index], eps, (0.0, 1.0))
            tables.append(interval_table(network, ball, label, options.targets, options.bounds, options.time_limit))
            whole = pd.concat(tables, ignore_index=True)
            run.write({"margins.csv": whole, "margins.md": pipe_table(whole)})
            if not options.no_proof:
                goals = {int(row.target): float(row.lower) - options.slack for row in tables[-1].itertuples()}
                path = run.out / f"proof-{eps:g}.npz"
                proofs.append(proven_claims(path, network, ball, label, goals, options.time_limit))
                claims = pd.concat(proofs, ignore_index=True)
                run.write({"proofs.csv": claims, "proofs.md": pipe_table(claims)})
        run.record(label=label, image=options.index, norm=options.norm)
    return pd.concat(tables, ignore_index=True)


if __name__ == "__main__":
    sys.exit(end_experiment(main))
