"""What l,u are worth to other tools: the models of gurobi-machinelearning and OMLT, as they come and with our bounds.

    python experiments/beside.py --count 5

Run it where `gurobi-machinelearning` and `omlt` are installed beside relugap (neither is a dependency; what is missing
is left out). Each margin min F_label − F_target over an ℓ∞ ball is asked three times of the model that the tool writes
itself: as it comes; with l,u by ("interval", "dual"); with l,u by ("interval", "dual", "lp"). Same solver, same gap,
one thread: Gurobi for gurobi-machinelearning (its free licence takes 2,000 variables), HiGHS for OMLT. Times are those
of the solve; those of l,u stand beside. Nothing else differs, so the optima have to agree.

Sources: Gurobi/gurobi-machinelearning (gurobi_ml.sklearn; issue 237 asks for such bounds); Ceccon et al. 2022, OMLT
(ReluBigMFormulation). No published values.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.datasets import load_dataset
from toolkit.networks.network import Network
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_sets import LinfBall
from toolkit.report import pipe_table
from toolkit.verify.layer_bounds import layer_bounds

CHAINS: dict[str, tuple[str, ...]] = {
    "its own": (),
    "interval, dual": ("interval", "dual"),
    "interval, dual, lp": ("interval", "dual", "lp"),
}
GAP = 1e-6


@dataclass(frozen=True)
class Solved:
    """One margin. value: the solver's lower bound. seconds: of the solve. nodes: of the search, NaN where not told."""

    value: float
    seconds: float
    nodes: float
    closed: bool


def gurobi_ml_margin(
    network: Network, ball: LinfBall, bounds: ReluBounds | None, label: int, target: int, limit: float
) -> Solved:
    """The model of gurobi_ml for a scikit-learn regressor with the network's weights."""
    import gurobipy as gp
    from gurobi_ml import add_predictor_constr

    with gp.Env(params={"OutputFlag": 0}) as env, gp.Model(env=env) as model:
        model.Params.Threads, model.Params.TimeLimit, model.Params.MIPGap = 1, limit, GAP
        x = model.addMVar((1, network.input_size), lb=ball.lower[None], ub=ball.upper[None])
        outputs = model.addMVar((1, network.output_size), lb=-gp.GRB.INFINITY)
        added = add_predictor_constr(model, as_regressor(network), x, outputs)
        if bounds is not None:
            bounds.to_gurobi_ml(added)
        model.setObjective(outputs[0, label] - outputs[0, target])
        started = time.perf_counter()
        model.optimize()
        seconds = time.perf_counter() - started
        return Solved(model.ObjBound, seconds, model.NodeCount, model.Status == gp.GRB.OPTIMAL)


def as_regressor(network: Network) -> Any:
    """A scikit-learn MLP with the network's weights."""
    from sklearn.neural_network import MLPRegressor

    weights = [(layer.to_sparse().toarray().T, layer.bias_vector) for layer in network.layers]
    model = MLPRegressor(hidden_layer_sizes=network.relu_sizes, activation="relu")
    model.coefs_, model.intercepts_ = [weight for weight, _ in weights], [bias for _, bias in weights]
    model.n_layers_, model.n_outputs_, model.out_activation_ = len(weights) + 1, network.output_size, "identity"
    model.n_features_in_ = network.input_size
    return model


def omlt_margin(
    network: Network, ball: LinfBall, bounds: ReluBounds | None, label: int, target: int, limit: float
) -> Solved:
    """OMLT's full-space big-M model, by HiGHS through Pyomo."""
    import pyomo.environ as pyo
    from omlt import OmltBlock
    from omlt.neuralnet import ReluBigMFormulation
    from pyomo.contrib.solver.common.factory import SolverFactory

    logging.getLogger("pyomo").setLevel(logging.ERROR)  # it warns of every start value 0 outside its bounds
    model = pyo.ConcreteModel()
    model.net = OmltBlock()
    model.net.build_formulation(ReluBigMFormulation(omlt_definition(network, ball)))
    if bounds is not None:
        bounds.to_omlt(model.net)
    model.objective = pyo.Objective(expr=model.net.outputs[label] - model.net.outputs[target])
    started = time.perf_counter()
    found = SolverFactory("highs").solve(
        model, time_limit=limit, rel_gap=GAP, threads=1, raise_exception_on_nonoptimal_result=False,
        load_solutions=False,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    closed = "convergence" in str(found.termination_condition).lower()
    return Solved(float(found.objective_bound), seconds, float("nan"), closed)


def omlt_definition(network: Network, ball: LinfBall) -> Any:
    """The network as OMLT describes it, its inputs in the ball's box."""
    from omlt.neuralnet import NetworkDefinition
    from omlt.neuralnet.layer import DenseLayer, InputLayer

    box = dict(enumerate(zip(ball.lower.tolist(), ball.upper.tolist(), strict=True)))
    definition = NetworkDefinition(scaled_input_bounds=box)
    before: Any = InputLayer([network.input_size])
    definition.add_layer(before)
    for k, layer in enumerate(network.layers):
        activation = "linear" if k == len(network.layers) - 1 else "relu"
        weights, biases = layer.to_sparse().toarray().T, layer.bias_vector
        dense: Any = DenseLayer([layer.input_size], [layer.output_size], activation=activation, weights=weights,
                                biases=biases)  # fmt: skip
        definition.add_layer(dense)
        definition.add_edge(before, dense)
        before = dense
    return definition


TOOLS: dict[str, tuple[str, str, Callable[..., Solved]]] = {  # name → package, solver, margin
    "gurobi-machinelearning": ("gurobi_ml", "gurobi", gurobi_ml_margin),
    "OMLT": ("omlt", "highs", omlt_margin),
}


def measured(network: Network, data: Any, count: int, eps: float, limit: float) -> Iterator[dict[str, Any]]:
    """One line per image, tool, bounds and target; targets: the class with the smallest clean margin, the hardest."""
    here = {name: tool for name, tool in TOOLS.items() if importlib.util.find_spec(tool[0]) is not None}
    if not here:
        raise ValueError(
            "neither gurobi-machinelearning nor omlt is installed: pip install gurobi-machinelearning omlt"
        )
    outputs = network.predict(data.features)
    for index in np.flatnonzero(outputs == data.labels)[:count].tolist():
        label, ball = int(data.labels[index]), LinfBall(data.images[index], eps, (0, 1))
        logits = network.forward(data.features[index])
        target = int(np.argsort(logits)[-2])
        for chain, rungs in CHAINS.items():
            started = time.perf_counter()
            bounds = layer_bounds(network, ball, rungs) if rungs else None
            spent = time.perf_counter() - started
            for tool, (_, solver, margin) in here.items():
                found = margin(network, ball, bounds, label, target, limit)
                yield {
                    "tool": tool, "solver": solver, "bounds": chain, "sample": index, "target": target,
                    "value": found.value, "closed": found.closed, "seconds": found.seconds, "nodes": found.nodes,
                    "bounds_seconds": spent if rungs else 0.0,
                    "unstable": sum(n for n, _, _ in bounds.counts()) if bounds else sum(network.relu_sizes),
                }  # fmt: skip


def summary(lines: pd.DataFrame) -> pd.DataFrame:
    """Per tool and bounds: margins closed, their total and median time, and how often faster than as it comes.

    speed_up: total seconds as it comes ÷ total seconds with the bounds, theirs included; a margin that is not closed
    counts with the time limit. apart: largest difference of two closed optima.
    """
    found = []
    for tool, own in lines.groupby("tool", sort=False):
        plain = own[own["bounds"] == "its own"].set_index("sample").add_suffix("_plain")
        for chain, part in own.groupby("bounds", sort=False):
            both = part.set_index("sample").join(plain)
            apart = (both["value"] - both["value_plain"]).abs()[both["closed"].astype(bool) & both["closed_plain"]]
            total = float((part["seconds"] + part["bounds_seconds"]).sum())
            found.append(
                {
                    "tool": tool, "bounds": chain, "margins": len(part), "closed": int(part["closed"].sum()),
                    "unstable": part["unstable"].mean(), "nodes": part["nodes"].mean(),
                    "median_seconds": part["seconds"].median(), "bounds_seconds": part["bounds_seconds"].median(),
                    "total_seconds": total, "speed_up": float(plain["seconds_plain"].sum()) / total,
                    "apart": float(apart.max()) if len(apart) else float("nan"),
                }
            )  # fmt: skip
    return pd.DataFrame(found)


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """The summary, written with every margin."""
    parser = experiment_parser(__doc__, "beside")
    parser.add_argument("--network", default="zoo:digits-standard")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--count", type=int, default=20, help="correctly classified test images")
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds a margin")
    options = parser.parse_args(arguments)
    with experiment_run(parser, options) as run:
        network, data = Network.load(options.network), load_dataset(options.data)
        lines = pd.DataFrame(measured(network, data, options.count, options.eps, options.time_limit))
        table = summary(lines)
        run.write({"margins.csv": lines, "table.csv": table, "table.md": pipe_table(table, 3)}, "%.6g")
    return table


if __name__ == "__main__":
    sys.exit(end_experiment(main))
