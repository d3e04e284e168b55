"""l,u in other tools' models: the optimum stays, bounds tighten, misfits are refused.

The tools are no dependencies: models with their names for layers and variables stand in for them, and where they are
installed, their own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyomo.environ as pyo
import pytest
from conftest import random_dense_network
from pyomo.contrib.solver.common.factory import SolverFactory

from toolkit import LinfBall, Network, ReluBounds, Settings, layer_bounds, margins

gp = pytest.importorskip("gurobipy", reason="gurobipy is not installed")
sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))


class ReLU:
    """Named as gurobi-machinelearning names it."""


class Identity:
    """The last layer's activation."""


Case = tuple[Network, LinfBall, ReluBounds]


@pytest.fixture
def case(rng: np.random.Generator) -> Case:
    network = random_dense_network(rng, (4, 7, 6, 3))
    ball = LinfBall(rng.uniform(0, 1, 4), 0.3, (0, 1))
    return network, ball, layer_bounds(network, ball)


def exact(case: Case) -> float:
    (bound,) = margins(case[0], case[1], 0, "exact", case[2], [1], Settings(solver="highs", mip_gap=0.0))
    return bound.lower


def gurobi_model(network: Network, ball: LinfBall, rows: int = 1) -> Any:
    """As gurobi_ml.add_predictor_constr leaves it: layers with mixing, output and activation."""
    model = gp.Model(env=gp.Env(params={"OutputFlag": 0}))
    model.Params.MIPGap = 0.0
    x = model.addMVar((rows, network.input_size), lb=ball.lower[None], ub=ball.upper[None])
    before, layers = x, []
    for k, layer in enumerate(network.layers):
        shape, weight = (rows, layer.output_size), layer.to_sparse().toarray().T
        mixing, output = (model.addMVar(shape, lb=-gp.GRB.INFINITY) for _ in range(2))
        model.addConstr(mixing == before @ weight + layer.bias_vector)
        last = k == len(network.layers) - 1
        if last:
            model.addConstr(output == mixing)
        else:
            for index in np.ndindex(shape):
                model.addGenConstrMax(output[index], [mixing[index]], constant=0.0)
        layers.append(
            SimpleNamespace(
                activation=Identity() if last else ReLU(), input=before, output=output, mixing=mixing, name=str(k)
            )
        )
        before = output
    model.update()
    return SimpleNamespace(gp_model=model, layers=layers, output=before)


def test_gurobis_optimum_stays_and_bounds_are_set(case: Case) -> None:
    network, ball, bounds = case
    added = gurobi_model(network, ball)
    added.gp_model.setObjective(added.output[0, 0] - added.output[0, 1])
    added.gp_model.optimize()
    before = added.gp_model.ObjVal
    assert bounds.to_gurobi_ml(added) == 2 * sum(network.relu_sizes)
    assert bounds.to_gurobi_ml(added) == 0  # nothing is tighter than itself
    for layer, low, high in zip(added.layers, bounds.lower, bounds.upper, strict=False):
        np.testing.assert_array_equal(layer.mixing.LB[0], low)
        np.testing.assert_array_equal(layer.output.UB[0], np.maximum(high, 0))
    added.gp_model.optimize()
    assert added.gp_model.ObjVal == pytest.approx(before, abs=1e-5)
    assert before == pytest.approx(exact(case), abs=1e-5)


def test_activations_in_layers_of_their_own(case: Case) -> None:
    """As of a torch Sequential: the ReLU's layer has an input and no mixing."""
    network, ball, bounds = case
    added = gurobi_model(network, ball)
    for layer in added.layers[:-1]:
        layer.input = layer.mixing
        del layer.mixing
    assert bounds.to_gurobi_ml(added) == 2 * sum(network.relu_sizes)
    np.testing.assert_array_equal(added.layers[0].input.LB[0], bounds.lower[0])


def test_other_models_are_refused(case: Case, rng: np.random.Generator) -> None:
    network, ball, bounds = case
    other = random_dense_network(rng, (4, 7, 5, 3))
    with pytest.raises(ValueError, match=r"ReLU layers of sizes \[7, 6\], as the bounds do, got \[7, 5\]"):
        bounds.to_gurobi_ml(gurobi_model(other, ball))
    with pytest.raises(ValueError, match="about one input, got 2"):
        bounds.to_gurobi_ml(gurobi_model(network, ball, rows=2))
    with pytest.raises(ValueError, match=r"OMLT's model must have ReLU layers of sizes \[7, 6\]"):
        bounds.to_omlt(omlt_block(other, ball))


def omlt_block(network: Network, ball: LinfBall) -> Any:
    """As OmltBlock.build_formulation(ReluBigMFormulation(…)) leaves it, with bounds of a thousand."""
    block = pyo.Block(concrete=True)
    block.layers = pyo.Set(initialize=range(len(network.layers)))
    block.layer = pyo.Block(block.layers)
    block.x = pyo.Var(range(network.input_size), bounds=lambda _, i: (float(ball.lower[i]), float(ball.upper[i])))
    before: Any = block.x
    for k, layer in enumerate(network.layers):
        own, every = block.layer[k], range(layer.output_size)
        weight, bias = layer.to_sparse().toarray(), layer.bias_vector
        own.zhat, own.z = pyo.Var(every, bounds=(-1e3, 1e3)), pyo.Var(every, bounds=(-1e3, 1e3))
        sums = {i: sum(float(weight[i, j]) * before[j] for j in before) + float(bias[i]) for i in every}
        own.dense = pyo.Constraint(every, rule=lambda b, i, sums=sums: b.zhat[i] == sums[i])
        if k < len(network.layers) - 1:
            own.q_relu = pyo.Var(every, within=pyo.Binary)
            own._big_m_lb_relu = pyo.Param(every, default=-1e3, mutable=True)
            own._big_m_ub_relu = pyo.Param(every, default=1e3, mutable=True)
            own.positive = pyo.Constraint(every, rule=lambda b, i: b.z[i] >= 0)
            own.above = pyo.Constraint(every, rule=lambda b, i: b.z[i] >= b.zhat[i])
            own.on = pyo.Constraint(every, rule=lambda b, i: b.z[i] <= b._big_m_ub_relu[i] * b.q_relu[i])
            own.off = pyo.Constraint(
                every, rule=lambda b, i: b.z[i] <= b.zhat[i] - b._big_m_lb_relu[i] * (1 - b.q_relu[i])
            )
        else:
            own.linear = pyo.Constraint(every, rule=lambda b, i: b.z[i] == b.zhat[i])
        before = own.z
    return block


def solved(model: Any, outputs: Any) -> float:
    model.objective = pyo.Objective(expr=outputs[0] - outputs[1])
    return float(SolverFactory("highs").solve(model, rel_gap=0.0, threads=1).incumbent_objective)


def test_omlts_optimum_stays_and_big_ms_are_set(case: Case) -> None:
    network, ball, bounds = case
    model = pyo.ConcreteModel()
    model.net = omlt_block(network, ball)
    assert bounds.to_omlt(model.net) == 2 * sum(network.relu_sizes)
    assert bounds.to_omlt(model.net) == 0
    fixed = [variable.fixed for k in range(2) for variable in model.net.layer[k].q_relu.values()]
    stable = [not flag for k in range(2) for flag in bounds.unstable(k)]
    assert fixed == stable
    assert any(stable)
    assert pyo.value(model.net.layer[1]._big_m_lb_relu[2]) == bounds.lower[1][2]
    assert solved(model, model.net.layer[2].z) == pytest.approx(exact(case), abs=1e-5)


def test_gurobi_machinelearnings_own_model(case: Case) -> None:
    pytest.importorskip("gurobi_ml", reason="gurobi-machinelearning is not installed, and no dependency")
    from beside import gurobi_ml_margin

    for bounds in (None, case[2]):
        assert gurobi_ml_margin(case[0], case[1], bounds, 0, 1, 20.0).value == pytest.approx(exact(case), abs=1e-4)


def test_omlts_own_model(case: Case) -> None:
    pytest.importorskip("omlt", reason="OMLT is not installed, and no dependency")
    from beside import omlt_margin

    for bounds in (None, case[2]):
        assert omlt_margin(case[0], case[1], bounds, 0, 1, 20.0).value == pytest.approx(exact(case), abs=1e-4)
