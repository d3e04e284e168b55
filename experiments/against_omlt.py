"""One exact margin: the compact template against OMLT's full-size big-M formulation, both solved by HiGHS.

    python experiments/against_omlt.py --network LPD_MLP_B_0.1.pth --architecture mlp --data mnist --index 0 --target 9

Run it in an environment that has `omlt` from the package index beside relugap (it is not a dependency). OMLT 1.2
(Ceccon et al. 2022, ReluBigMFormulation) keeps every input, pre-activation, activation and indicator as a variable and
takes its big-M constants from interval arithmetic; the template substitutes stable neurons and takes l,u from a chain
of rungs. Times include bounds, model building, hand-over and solving, to the same relative gap with one thread.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

import pandas as pd

from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.datasets import load_dataset
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.verify.margins import margins


def omlt_margin(network: Network, ball: LinfBall, label: int, target: int, limit: float) -> dict[str, Any]:
    """min F_label − F_target through OMLT and Pyomo's HiGHS interface."""
    import pyomo.environ as pyo
    from omlt import OmltBlock
    from omlt.neuralnet import NetworkDefinition, ReluBigMFormulation
    from omlt.neuralnet.layer import DenseLayer, InputLayer
    from pyomo.contrib.solver.common.factory import SolverFactory

    logging.getLogger("pyomo").setLevel(logging.ERROR)  # it warns of every start value 0 outside its bounds
    started = time.perf_counter()
    box = {i: (float(low), float(high)) for i, (low, high) in enumerate(zip(ball.lower, ball.upper, strict=True))}
    definition = NetworkDefinition(scaled_input_bounds=box)
    before: Any = InputLayer([network.input_size])
    definition.add_layer(before)
    for k, layer in enumerate(network.layers):
        activation = "linear" if k == len(network.layers) - 1 else "relu"
        dense: Any = DenseLayer(
            [layer.input_size],
            [layer.output_size],
            activation=activation,
            weights=layer.to_sparse().toarray().T,
            biases=layer.bias_vector,
        )
        definition.add_layer(dense)
        definition.add_edge(before, dense)
        before = dense
    model = pyo.ConcreteModel()
    model.net = OmltBlock()
    model.net.build_formulation(ReluBigMFormulation(definition))
    model.objective = pyo.Objective(expr=model.net.outputs[label] - model.net.outputs[target])
    built = time.perf_counter()
    result = SolverFactory("highs").solve(
        model,
        time_limit=limit,
        rel_gap=1e-4,
        threads=1,
        raise_exception_on_nonoptimal_result=False,
        load_solutions=False,
    )
    return {
        "lower": result.objective_bound,
        "upper": result.incumbent_objective,
        "build_seconds": built - started,
        "seconds": time.perf_counter() - started,
        "variables": len(list(model.component_data_objects(pyo.Var))),
        "status": str(result.termination_condition),
    }


def our_margin(network: Network, ball: LinfBall, label: int, target: int, limit: float) -> dict[str, Any]:
    """The same margin by the exact rung on default bounds."""
    started = time.perf_counter()
    settings = Settings(solver="highs", time_limit=limit, mip_gap=1e-4)
    (bound,) = margins(network, ball, label, "exact", targets=[target], settings=settings)
    seconds = time.perf_counter() - started
    return {"lower": bound.lower, "upper": bound.upper, "seconds": seconds, "status": bound.status.value}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Both margins, one after the other, with the ratio of the times."""
    parser = experiment_parser(__doc__, "against-omlt")
    parser.add_argument("--network", default="zoo:digits-standard")
    parser.add_argument("--architecture")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--target", type=int, default=9)
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--time-limit", type=float, default=600.0)
    options = parser.parse_args(arguments)
    network = Network.load(options.network, options.architecture)
    data = load_dataset(options.data, "test")
    label = int(data.labels[options.index])
    ball = LinfBall(data.images[options.index], options.eps, (0, 1))
    ours = our_margin(network, ball, label, options.target, options.time_limit)
    omlt = omlt_margin(network, ball, label, options.target, options.time_limit)
    found = {"template": ours, "omlt": omlt, "ratio": omlt["seconds"] / ours["seconds"]}
    with experiment_run(parser, options) as run:
        run.write({"table.csv": pd.DataFrame([{"by": "template", **ours}, {"by": "omlt", **omlt}])})
    return found


if __name__ == "__main__":
    sys.exit(end_experiment(main))
