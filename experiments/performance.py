"""Speed and memory of the pieces everything else is made of; the figures behind results/PERFORMANCE.md.

    python experiments/performance.py margins  --network PATH --architecture wong-kolter-small
    python experiments/performance.py lps      --network PATH --architecture mlp
    python experiments/performance.py template
    python experiments/performance.py ladder   --network NETWORK --data mnist --repeats 3
    python experiments/performance.py bounds   --network NETWORK --data mnist --index 8
    python experiments/performance.py alpha    --network zoo:digits-standard --data digits --eps 0.12
    python experiments/performance.py bab      --network NETWORK --data mnist --index 8 --target 6
    python experiments/performance.py search   --network NETWORK --data mnist --index 3 --eps 0.05 --device cuda
    python experiments/performance.py memory   --network PATH --architecture wong-kolter-small
    python experiments/performance.py large-conv

Each prints medians over repeated runs in one process, with one BLAS thread (OMP_NUM_THREADS=1). `margins`: l,u and nine
dual margins of one MNIST image. `lps`: nine targets × ten ε through the lp rung, against the same LPs handed to highspy
without Pyomo, model building included on both sides. `template`: building the Pyomo template of 784-256-256-10.
`memory`: peak resident memory of a fresh process doing `margins` once. `large-conv`: seconds and peak memory of a fresh
process that loads a network for 3×224×224 images (Conv 64×3×7×7 stride 2, Conv 16×64×4×4 stride 4, Dense 10; weights
random) from a file, bounds its layers by interval arithmetic at ε 1/255, and its nine margins by the dual.

The others print seconds of processor time, the least of the repeated runs, for a machine that others use too. `ladder`:
verdicts of the first COUNT images. `bounds`: l,u by the chain --bounds. `alpha`: all targets at once against one after
another. `bab`: exact margins on l,u by the chain --bounds, or by --solver. `search`: nodes a second, by the clock, of
trees over phases for all margins on such l,u in SECONDS, on a core and on --device (torch's name for it) at several
widths.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.datasets import Dataset, load_dataset
from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.answers import Verdict
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.region import Region
from toolkit.problems.settings import Settings
from toolkit.relaxations.layout import TemplateLayout, template_layout
from toolkit.relaxations.template import build_template
from toolkit.rungs import get_rung
from toolkit.runs.batch import BatchPlan, certify_samples
from toolkit.search import phase_trees
from toolkit.search.sign_search import search_signs
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem, margins

DEVICE_WIDTHS = (256, 2048, 16384)


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median wall-clock seconds of `work` over `repeats` runs after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def least_cpu_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Least processor time of `work` over `repeats` runs after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def measure_ladder(network: Network, data: Dataset, count: int, eps: float, repeats: int) -> dict[str, float]:
    """Verdicts of the first images by the default ladder, in this process."""
    verdicts: Counter[str] = Counter()

    def work() -> None:
        verdicts.clear()
        verdicts.update(certify_samples(network, data, range(count), BatchPlan(eps))["verdict"])

    return {"cpu_seconds": least_cpu_seconds(work, repeats), **{verdict: verdicts[verdict] for verdict in Verdict}}


def measure_bounds(network: Network, ball: LinfBall, chain: Sequence[str], repeats: int) -> dict[str, float]:
    """l,u by the chain."""
    unstable = sum(count[0] for count in layer_bounds(network, ball, chain).counts())
    return {"cpu_seconds": least_cpu_seconds(lambda: layer_bounds(network, ball, chain), repeats), "unstable": unstable}


def measure_alpha(network: Network, ball: LinfBall, label: int, chain: Sequence[str], repeats: int) -> dict[str, float]:
    """The alpha rung on all targets at once, and on one target after another."""
    problem, alpha = margin_problem(network, ball, label, layer_bounds(network, ball, chain)), get_rung("alpha")
    each = [problem.with_rows(problem.rows[[i]], [target]) for i, target in enumerate(problem.targets)]
    together = least_cpu_seconds(lambda: alpha(problem), repeats)
    alone = least_cpu_seconds(lambda: [alpha(one) for one in each], repeats)
    return {"cpu_seconds": together, "one_by_one": alone, "ratio": together / alone}


def measure_bab(
    network: Network,
    ball: LinfBall,
    label: int,
    target: int | None,
    chain: Sequence[str],
    repeats: int,
    solver: str | None = None,
) -> dict[str, float]:
    """The exact margins (of one target, None: of all) by branch and bound, or by a MILP solver, a new workspace each
    time."""
    rung, settings = ("bab", Settings()) if solver is None else ("exact", Settings(solver=solver))
    targets = None if target is None else [target]
    bounds = layer_bounds(network, ball, chain)
    nodes: list[int] = []

    def work() -> None:
        nodes.append(sum(bound.nodes for bound in margins(network, ball, label, rung, bounds, targets, settings)))

    return {"cpu_seconds": least_cpu_seconds(work, repeats), "nodes": nodes[-1]}


def measure_search(
    network: Network, ball: LinfBall, label: int, chain: Sequence[str], device: str, seconds: float
) -> dict[str, float]:
    """Nodes a second of one search of all signs that nothing ends but the clock, or that all are known."""
    bounds = layer_bounds(network, ball, chain)
    found = {}
    for where, width in [("cpu", phase_trees.WIDTH), *((device, width) for width in DEVICE_WIDTHS)]:
        problem = margin_problem(network, ball, label, bounds, settings=Settings(stop_at=0.0, device=where))
        phase_trees.DEVICE_WIDTH = width
        started = time.perf_counter()
        signs = search_signs(problem, deadline=started + seconds)
        spent = time.perf_counter() - started
        name = f"{where}, {width} nodes a round"
        found |= {f"{name}: nodes a second": int(signs.nodes.sum()) / spent, f"{name}: seconds": spent}
        found |= {f"{name}: rows open": float((signs.lower <= 0).sum()), f"{name}: least": float(signs.lower.min())}
    return found


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


def measure(options: Namespace) -> dict[str, float]:
    """One measurement on a network and an image by name."""
    network = Network.load(options.network, options.architecture)
    data = load_dataset(options.data, "test")
    image, label = data.images[options.index], int(data.labels[options.index])
    ball, chain, repeats = LinfBall(image, options.eps, domain=(0, 1)), options.bounds.split(","), options.repeats
    if options.what == "ladder":
        return measure_ladder(network, data, options.count, options.eps, repeats)
    if options.what == "bounds":
        return measure_bounds(network, ball, chain, repeats)
    if options.what == "alpha":
        return measure_alpha(network, ball, label, chain, repeats)
    if options.what == "bab":
        return measure_bab(network, ball, label, options.target, chain, repeats, options.solver)
    if options.what == "search":
        return measure_search(network, ball, label, chain, options.device, options.seconds)
    if options.what == "lps":
        return measure_lps(network, image, label, options.eps, repeats)
    found = measure_margins(network, image, label, options.eps, 1 if options.what == "memory" else repeats)
    if options.what == "memory":
        return {"peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    return found


def large_conv_network(size: int = 224, channels: int = 64) -> Network:
    """An ImageNet-like network with He weights that float32 holds (seed 0)."""
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> Any:
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32).astype(np.float64)

    first = Conv2d(drawn(channels, 3, 7, 7), None, (3, size, size), stride=2, padding=3)
    second = Conv2d(drawn(16, channels, 4, 4), None, first.output_shape, stride=4)
    return Network([first, second, Dense(drawn(10, second.output_size))], "large-conv")


def measure_large_conv(path: Path) -> dict[str, float]:
    """The network of a file: its loading, l,u of both ReLU layers, nine dual margins, and what they took in all."""
    spent = [time.process_time()]
    network = Network.load(path)
    spent.append(time.process_time())
    image = np.random.default_rng(1).uniform(0, 1, network.input_shape)
    ball = LinfBall(image, 1 / 255, domain=(0, 1))
    bounds = layer_bounds(network, ball, ("interval",))
    spent.append(time.process_time())
    found = margins(network, ball, int(network.predict(ball.center)), "dual", bounds)
    spent.append(time.process_time())
    load, layers, dual = np.diff(spent).tolist()
    return {
        "load_seconds": load,
        "bounds_seconds": layers,
        "margins_seconds": dual,
        "process_seconds": spent[-1],
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "unstable": sum(count[0] for count in bounds.counts()),
        "certified": min(bound.certified_lower for bound in found),
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Run one measurement and write it; returns it."""
    parser = experiment_parser(__doc__, "performance")
    parser.add_argument(
        "what",
        choices=["margins", "lps", "template", "memory", "ladder", "bounds", "alpha", "bab", "search", "large-conv"],
    )
    parser.add_argument("--network", default="zoo:mnist5k-standard")
    parser.add_argument("--architecture")
    parser.add_argument("--data", default="mnist5k")
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--count", type=int, default=100, help="images of `ladder`")
    parser.add_argument("--device", default="cuda", help="of `search`: a torch device, or cpu")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each search of `search`")
    parser.add_argument("--target", type=int, help="of `bab`; all unless given")
    parser.add_argument("--solver", help="of `bab`: a MILP solver in its place")
    parser.add_argument("--bounds", default="interval,dual", help="chain for l,u of `bounds`, `alpha` and `bab`")
    options = parser.parse_args(arguments)
    if options.what == "large-conv":
        with TemporaryDirectory() as folder:
            large_conv_network().save(Path(folder) / "network.npz")
            found = measure_large_conv(Path(folder) / "network.npz")
    else:
        found = measure_template(options.repeats) if options.what == "template" else measure(options)
    with experiment_run(parser, options) as run:
        run.write({f"{options.what}.csv": pd.DataFrame([found])})
    return found


if __name__ == "__main__":
    sys.exit(end_experiment(main))
