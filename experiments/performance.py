"""Speed and memory of the pieces everything else is made of; the figures behind results/PERFORMANCE.md.

    python experiments/performance.py margins  --network PATH --architecture wong-kolter-small
    python experiments/performance.py lps      --network PATH --architecture mlp
    python experiments/performance.py template
    python experiments/performance.py memory   --network PATH --architecture wong-kolter-small

Each prints medians over repeated runs in one process, with one BLAS thread (OMP_NUM_THREADS=1). `margins`: l,u and nine
dual margins of one MNIST image. `lps`: nine targets × ten ε through the lp rung, against the same LPs handed to highspy
without Pyomo, model building included on both sides. `template`: building the Pyomo template of 784-256-256-10.
`memory`: peak resident memory of a fresh process doing `margins` once.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.datasets import load_dataset
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.region import Region
from toolkit.problems.settings import Settings
from toolkit.relaxations.layout import TemplateLayout, template_layout
from toolkit.relaxations.template import build_template
from toolkit.rungs import get_rung
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem, margins


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median wall-clock seconds of `work` over `repeats` runs after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measure_margins(network: Network, image: Any, label: int, eps: float, repeats: int) -> dict[str, float]:
    """l,u by interval and dual, then the dual margins of all targets."""
    ball = LinfBall(image, eps, domain=(0, 1))

    def work() -> None:
        margins(network, ball, label, "dual", layer_bounds(network, ball))

    return {"seconds": median_seconds(work, repeats)}


def raw_highs(problem: Problem) -> list[float]:
    """The lp rung's LPs built in numpy and solved by highspy directly: no Pyomo, no checks, no replay."""
    import highspy

    layout = template_layout(problem.network, problem.input_set, problem.relu_bounds)
    model = _raw_model(highspy, layout, problem)
    highs = highspy.Highs()
    for option, value in (("output_flag", False), ("threads", 1), ("presolve", "off"), ("solver", "simplex")):
        highs.setOptionValue(option, value)
    highs.passModel(model)
    costs, offsets = layout.objective(problem.rows)
    found = []
    for cost, offset in zip(costs, offsets, strict=True):
        highs.changeColsCost(cost.size, np.arange(cost.size, dtype=np.int32), cost)
        highs.run()
        found.append(highs.getInfo().objective_function_value + float(offset))
    return found


def _raw_model(highspy: Any, layout: TemplateLayout, problem: Problem) -> Any:
    count, inputs = layout.count, layout.inputs
    blocks = [layout.pre_activations(k) for k in range(len(layout.unstable))]
    x_hat = np.vstack([matrix for matrix, _ in blocks])
    shift = np.concatenate([constant for _, constant in blocks])
    eye, zero = sp.eye_array(count), sp.csr_array((count, count))
    split = sp.hstack([-sp.csr_array(x_hat) + sp.hstack([sp.csr_array((count, inputs)), eye]), -eye, zero])
    on = sp.hstack([sp.csr_array((count, inputs)), eye, zero, sp.diags_array(-layout.upper)])
    off = sp.hstack([sp.csr_array((count, inputs)), zero, eye, sp.diags_array(-layout.lower)])
    matrix = sp.csc_array(sp.vstack([split, on, off]))
    lp = highspy.HighsLp()
    lp.num_row_, lp.num_col_ = matrix.shape
    lp.col_cost_ = np.zeros(lp.num_col_)
    zeros, ones = np.zeros(count), np.ones(count)
    lp.col_lower_ = np.concatenate([problem.input_set.lower, zeros, zeros, zeros])
    lp.col_upper_ = np.concatenate([problem.input_set.upper, layout.upper, -layout.lower, ones])
    lp.row_lower_ = np.concatenate([shift, np.full(2 * count, -np.inf)])
    lp.row_upper_ = np.concatenate([shift, zeros, -layout.lower])
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = matrix.indptr, matrix.indices, matrix.data
    return lp


def measure_lps(network: Network, image: Any, label: int, top: float, repeats: int) -> dict[str, float]:
    """Nine targets × ten ε up to `top`: the lp rung against raw highspy, same LPs, same run, alternating."""
    balls = [LinfBall(image, eps, domain=(0, 1)) for eps in np.linspace(top / 10, top, 10)]
    bounds = [layer_bounds(network, ball) for ball in balls]
    ours: list[float] = []
    raw: list[float] = []
    difference = 0.0
    for run in range(repeats + 1):
        spent = [0.0, 0.0]
        for ball, known in zip(balls, bounds, strict=True):
            started = time.perf_counter()
            problem = margin_problem(network, ball, label, known, settings=Settings(solver="highs"))
            values = [bound.lower for bound in get_rung("lp")(problem)]
            middle = time.perf_counter()
            reference = raw_highs(problem)
            spent[0] += middle - started
            spent[1] += time.perf_counter() - middle
            difference = max(difference, float(np.abs(np.array(values) - reference).max()))
        if run:
            ours.append(spent[0])
            raw.append(spent[1])
    ratio = statistics.median(a / b for a, b in zip(ours, raw, strict=True))
    return {
        "lps": 9 * len(balls),
        "seconds": statistics.median(ours),
        "raw_seconds": statistics.median(raw),
        "ratio": ratio,
        "largest_difference": difference,
    }


def measure_template(repeats: int, sizes: Sequence[int] = (784, 256, 256, 10), eps: float = 0.01) -> dict[str, float]:
    """Building the Pyomo model of a randomly initialised network (He, seed 0), l,u given."""
    rng = np.random.default_rng(0)
    layers = [Dense(rng.normal(0, np.sqrt(2 / n), (m, n)), np.zeros(m)) for n, m in pairwise(sizes)]
    network = Network(layers)
    ball = LinfBall(rng.uniform(0, 1, sizes[0]), eps, domain=(0, 1))
    bounds = layer_bounds(network, ball)
    seconds = median_seconds(lambda: build_template(Region(network, ball, bounds)), repeats)
    return {"seconds": seconds, "unstable": sum(count[0] for count in bounds.counts())}


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Run one measurement and write it; returns it."""
    parser = experiment_parser(__doc__, "performance")
    parser.add_argument("what", choices=["margins", "lps", "template", "memory"])
    parser.add_argument("--network", default="zoo:mnist5k-standard")
    parser.add_argument("--architecture")
    parser.add_argument("--data", default="mnist5k")
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(arguments)
    found: dict[str, float]
    if options.what == "template":
        found = measure_template(options.repeats)
    else:
        network = Network.load(options.network, options.architecture)
        data = load_dataset(options.data, "test")
        image, label = data.images[options.index], int(data.labels[options.index])
        if options.what == "lps":
            found = measure_lps(network, image, label, options.eps, options.repeats)
        else:
            found = measure_margins(
                network, image, label, options.eps, 1 if options.what == "memory" else options.repeats
            )
        if options.what == "memory":
            found = {"peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    with experiment_run(parser, options) as run:
        run.write({f"{options.what}.csv": pd.DataFrame([found])})
    return found


if __name__ == "__main__":
    sys.exit(end_experiment(main))
