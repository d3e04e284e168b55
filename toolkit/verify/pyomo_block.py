"""The template as a Pyomo block, for models of one's own: other constraints, other objectives.

    import pyomo.environ as pyo
    from toolkit import LinfBall, Network, load_dataset, to_pyomo

    model = pyo.ConcreteModel()
    model.net = to_pyomo(network, LinfBall(x, 0.05, (0, 1)), question=label)
    model.budget = pyo.Constraint(expr=sum(model.net.x[i] for i in range(8)) <= 2)
    model.objective = pyo.Objective(expr=model.net.margin[3])

It is the model that the rungs `lp` and `exact` minimise over, see relaxations/template.py; over ℓ2 balls `exact` alone,
as `lp` has tangents in place of the quadratic constraint.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyomo.environ as pyo

from toolkit.data.arguments import instance, yes_or_no
from toolkit.networks.network import Network
from toolkit.networks.weights import dense_array
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_set import InputSet, box_range_linear, check_is_input_set
from toolkit.problems.lowering import check_ranking
from toolkit.problems.properties import Objective, Property, as_property
from toolkit.problems.region import Region
from toolkit.relaxations.affine_row import AffineRow
from toolkit.relaxations.layout import Formulation, TemplateLayout
from toolkit.relaxations.template import fill_block, linear_row, set_indicators
from toolkit.verify.layer_bounds import layer_bounds

OUTPUT_ROOM = 1e-6  # of an output's scale, by which its bounds are wider than float64 says


def to_pyomo(
    network: Network,
    ball: InputSet,
    relu_bounds: ReluBounds | None = None,
    question: int | Property | None = None,
    relaxed: bool = False,
    formulation: Formulation = "compact",
) -> Any:
    """F over the input set as a Pyomo block, without an objective: exact (MILP), or its LP relaxation.

    x[i]: the inputs. F[j]: the outputs. y[k, i] ≥ 0 and s[k, i] ≥ 0: positive and negative part of the input of ReLU
    neuron i of layer k, so y is its output and the expression x_hat[k, i] = y − s its pre-activation; a[k, i]: its
    indicator, 1 where it is active. question: a class c* adds the expressions margin[t] = F_c* − F_t, a property
    margin[j] = c_j·F + d_j for each of its rows. relaxed: a ∈ [0, 1] instead of {0, 1}: the LP.

    An ℓ2 ball adds the quadratic constraint length, Σ_i ((x[i] − center_i)/ε)² ≤ 1: the block is convex but for its
    indicators, for a solver that takes such (Gurobi, SCIP). An ℓ1 ball adds linear rows over variables of its own.

    relu_bounds: l,u; None = `layer_bounds` with its default chain. formulation: "compact" has variables for unstable
    neurons only (l < 0 < u; stable ones are substituted), "full" for all of them.

    Raises ValueError for what does not fit, for coefficients that overflow (TemplateError), and for input sets that
    are neither linear rows nor an ℓ2 ball. Checked: shapes. Trusted: the solver you hand it to, within its tolerances,
    and float64 products in the rows; what is certified are the answers of `margins` and `certify`.
    """
    relaxed = yes_or_no("relaxed", relaxed)
    instance("network", network, Network), check_is_input_set("ball", ball)
    if not ball.polyhedral and ball.euclidean_radius is None:
        raise ValueError(f"a block needs an input set of linear rows or an ℓ2 ball, got one of {ball.title}")
    asked = None if question is None else as_property(question, network.output_size)
    if asked is not None:
        check_ranking(network, asked)
    bounds = layer_bounds(network, ball) if relu_bounds is None else instance("relu_bounds", relu_bounds, ReluBounds)
    block = pyo.Block(concrete=True)
    with np.errstate(over="ignore", invalid="ignore"):  # TemplateError says so
        layout = fill_block(block, Region(network, ball, bounds), formulation, named=True, quadratic=True)
    set_indicators(block, "relaxed" if relaxed else "binary")
    block.x_hat = pyo.Expression(list(layout.neurons), rule=lambda b, k, i: b.y[k, i] - b.s[k, i])
    _add_outputs(block, layout, ball)
    if asked is not None:
        _add_margins(block, asked.objective)
    for row in block.component_data_objects(pyo.Constraint, descend_into=False):
        low, body, high = row.to_bounded_expression()
        if isinstance(body, AffineRow):
            row.set_value((low, body.plain(), high))
    return block


def _add_outputs(block: Any, layout: TemplateLayout, ball: InputSet) -> None:
    """Variables F with the rows that define them, bounded by what intervals say of these rows."""
    outputs = layout.last.output_size
    rows, constants = layout.objective(np.eye(outputs))
    lower = np.concatenate([ball.lower, np.zeros(layout.count)])
    middle, half = box_range_linear(rows, lower, np.concatenate([ball.upper, layout.upper]))
    room = OUTPUT_ROOM * (1.0 + np.abs(middle) + np.abs(constants) + half)
    sides = zip((middle - half - room + constants).tolist(), (middle + half + room + constants).tolist(), strict=True)
    limits = list(sides)
    block.F = pyo.Var(range(outputs), bounds=lambda _, j: limits[j])
    block.output = pyo.Constraint(range(outputs))
    variables = np.array([*block.x.values(), *block.y.values(), *block.F.values()], dtype=object)
    for j, row in enumerate(np.hstack([rows, -np.eye(outputs)])):
        block.output[j] = (-float(constants[j]), linear_row(row, variables), -float(constants[j]))


def _add_margins(block: Any, objective: Objective) -> None:
    dense = dense_array(objective.rows)
    constants = np.zeros(len(objective)) if objective.constants is None else objective.constants
    named = objective.targets if None not in objective.targets else range(len(objective))
    sums = {
        name: float(constants[k]) + sum(float(dense[k, j]) * block.F[int(j)] for j in np.flatnonzero(dense[k]))
        for k, name in enumerate(named)
    }
    block.margin = pyo.Expression(list(sums), initialize=sums)
