"""The one optimisation model: MILP with binary ReLU indicators, LP with the same indicators in [0,1].

For x̃ in the input set (its box, and the variables and rows that it adds) and every unstable neuron (l < 0 < u), with
pre-activation x̂ = y − s split into its positive part y and negative part s:

    x̂ = y − s,   y ≥ 0,   s ≥ 0 (that is y ≥ x̂),   y ≤ u·a,   s ≤ −l·(1 − a) (that is y ≤ x̂ − l(1 − a)),
    a ∈ {0,1} ("binary") or a ∈ [0,1] ("relaxed").

Binary is exact (Tjeng, Xiao & Tedrake 2019, eq. 6); relaxed is the triangle relaxation (Ehlers 2017; Wong & Kolter
2018, §3.1): eliminating a leaves y ≥ 0, y ≥ x̂, y ≤ u(x̂ − l)/(u − l), which also imply l ≤ x̂ ≤ u. Stable neurons are
substituted numerically, so x̂ is linear in x̃ and the unstable y of earlier layers, and stands in one dense row. That is
the "compact" formulation, which every rung uses. The "full" one keeps every neuron's y and s, the stable ones with s or
y and their a fixed and without their last two rows: what a layer-by-layer modeller writes, for comparison.

Checked: shapes, and that no number overflows (TemplateError). Trusted: that l ≤ x̂ ≤ u holds on the ball, and float64
products in the substitution. Units are the network's own; equilibration.py gives a solver others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyomo.environ as pyo
from pyomo.common.gc_manager import PauseGC

from toolkit.arrays import FloatArray
from toolkit.problems.input_set import InputSet
from toolkit.problems.region import Region
from toolkit.relaxations.affine_row import AffineRow
from toolkit.relaxations.compile import compile_model, integer_columns
from toolkit.relaxations.layout import Formulation, TemplateLayout, require_finite, template_layout
from toolkit.solvers.linear_program import CompiledModel, Ellipsoid

Indicators = Literal["binary", "relaxed"]


@dataclass(frozen=True, eq=False)
class Template:
    """A built model of one region: the Pyomo model, and where things are in it.

    model: variables x, y, s, a; constraints split (x̂ = y − s), on (y ≤ u·a), off (s ≤ −l(1 − a)); an objective.
    layout: the columns. All variables have finite bounds, and the indicators are relaxed but inside `binary`.
    ellipsoid: the input set, where no rows describe it and a quadratic constraint does.
    """

    model: pyo.ConcreteModel
    layout: TemplateLayout
    ellipsoid: Ellipsoid | None = None

    @cached_property
    def relaxed(self) -> CompiledModel:
        """The LP as matrices: rows split, on and off in this order (in the compact formulation), columns x, y, s, a."""
        return compile_model(self.model)

    @cached_property
    def exact(self) -> CompiledModel:
        """The MILP as matrices: those of the LP with the indicator columns integer, and the ellipsoid."""
        relaxed = self.relaxed
        with self.binary():
            found = replace(relaxed, integer=integer_columns(self.model))
        return found if self.ellipsoid is None else found.restricted_to(self.layout.columns, self.ellipsoid)

    @contextmanager
    def binary(self) -> Iterator[None]:
        """While the block runs the indicators are binary; they are relaxed again whatever happens inside."""
        set_indicators(self.model, "binary")
        try:
            yield
        finally:
            set_indicators(self.model, "relaxed")

    @property
    def split_rows(self) -> slice:
        """The rows x̂ = y − s, one per unstable neuron: their duals are the λ of certificates."""
        return slice(0, self.layout.count)

    def minimise(self, row: Any) -> None:
        """Swap the model's objective for row·F, to be minimised. row: shape (outputs,)."""
        coefficients, constant = self.layout.objective(np.atleast_2d(np.asarray(row, dtype=np.float64)))
        variables = np.array([*self.model.x.values(), *self.model.y.values()], dtype=object)
        self.model.objective.set_value(linear_row(coefficients[0], variables) + float(constant[0]))


def template_of(region: Region) -> Template:
    """The compact template of a region; raises TemplateError."""
    with np.errstate(over="ignore", invalid="ignore"):  # TemplateError says so
        return build_template(region)


def build_template(region: Region, formulation: Formulation = "compact") -> Template:
    """The template of min cᵀF over the region, indicators relaxed and objective 0.

    formulation: same optima, other sizes. Raises ValueError for another value of `formulation`, TemplateError for
    infinite l or u of an unstable neuron and for coefficients that overflow.
    """
    model = pyo.ConcreteModel(name=f"relugap {region.network.name}".strip())
    layout = fill_block(model, region, formulation)
    model.objective = pyo.Objective(expr=0.0)
    return Template(model, layout, ellipsoid_of(region.input_set))


def ellipsoid_of(input_set: InputSet) -> Ellipsoid | None:
    """The quadratic constraint that describes an input set beside its hull; None where rows do."""
    radius = input_set.euclidean_radius
    return None if radius is None else Ellipsoid(input_set.center, np.full(input_set.size, radius))


def fill_block(
    block: Any, region: Region, formulation: Formulation = "compact", named: bool = False, quadratic: bool = False
) -> TemplateLayout:
    """Put the template, indicators relaxed and without an objective, into a concrete Pyomo model or block.

    named: y, s, a and the rows are indexed by (ReLU layer, neuron), as in `layout.neurons`; else by 0, 1, …. quadratic:
    an input set that no rows describe is its quadratic constraint `length`, not what tangents are added to. Raises as
    `build_template` does.
    """
    input_set = region.input_set
    ellipsoid = ellipsoid_of(input_set) if quadratic else None
    layout = template_layout(region.network, input_set, region.relu_bounds, formulation)
    require_finite(layout.lower, layout.upper, "l or u of an unstable neuron")
    neurons: Sequence[Any] = layout.neurons if named else range(layout.count)
    with PauseGC():
        block.x = _variables(range(input_set.size), input_set.lower, input_set.upper)
        block.y = _variables(neurons, np.zeros(layout.count), layout.upper)
        block.s = _variables(neurons, np.zeros(layout.count), -layout.lower)
        block.a = pyo.Var(neurons, bounds=(0, 1))
        set_indicators(block, "relaxed")
        block.split = pyo.Constraint(neurons)
        block.on = pyo.Constraint(neurons)
        block.off = pyo.Constraint(neurons)
        _add_relus(block, layout, neurons)
        if ellipsoid is None:
            input_set.constrain(block)  # last: its variables and rows stand behind the template's own
        else:
            _add_ellipsoid(block, ellipsoid)
    return layout


def _add_ellipsoid(block: Any, ellipsoid: Ellipsoid) -> None:
    """Σ_j ((x̃_j − center_j)/radius_j)² ≤ 1; nothing at radius 0, where the hull is the centre."""
    if not ellipsoid.radius.any():
        return
    with np.errstate(over="ignore"):
        scale = 1.0 / ellipsoid.radius
    require_finite(scale, scale * ellipsoid.center, "the radius of the input set, or the centre in units of it,")
    axes = zip(block.x.values(), ellipsoid.center.tolist(), scale.tolist(), strict=True)
    block.length = pyo.Constraint(expr=pyo.quicksum((s * (x - middle)) ** 2 for x, middle, s in axes) <= 1.0)


def set_indicators(model: Any, indicators: Indicators) -> None:
    """Flip a built model or block between MILP ("binary") and LP ("relaxed")."""
    domains = {"binary": pyo.Binary, "relaxed": pyo.UnitInterval}
    if indicators not in domains:
        raise ValueError(f"indicators must be 'binary' or 'relaxed', got {indicators!r}")
    for variable in model.a.values():
        variable.domain = domains[indicators]


def _variables(names: Sequence[Any], lower: FloatArray, upper: FloatArray) -> Any:
    variables = pyo.Var(names)
    variables.construct()
    for variable, low, high in zip(variables.values(), lower.tolist(), upper.tolist(), strict=True):
        variable.setlb(low)
        variable.setub(high)
    return variables


def linear_row(coefficients: FloatArray, variables: Any) -> AffineRow:
    """coefficients·variables without the zeros; variables: a numpy array of objects, sliced faster than a list."""
    present = np.flatnonzero(coefficients)
    return AffineRow(coefficients[present].tolist(), variables[present].tolist())


def _add_relus(model: Any, layout: TemplateLayout, neurons: Sequence[Any]) -> None:
    variables = np.array([*model.x.values(), *model.y.values(), *model.s.values()], dtype=object)
    lower, upper = layout.lower.tolist(), layout.upper.tolist()
    i = 0
    for layer in range(len(layout.unstable)):
        matrix, constant = layout.pre_activations(layer)
        require_finite(matrix, constant, f"a coefficient of ReLU layer {layer}")
        for row, shift in zip(matrix, constant.tolist(), strict=True):
            neuron = neurons[i]
            y, s, a = model.y[neuron], model.s[neuron], model.a[neuron]
            split = np.concatenate([-row, np.zeros(layout.count)])
            split[layout.inputs + i] += 1.0
            split[layout.inputs + layout.count + i] = -1.0
            model.split[neuron] = (shift, linear_row(split, variables), shift)
            if lower[i] < 0 < upper[i]:
                model.on[neuron] = (None, AffineRow([1.0, -upper[i]], [y, a]), 0.0)
                model.off[neuron] = (None, AffineRow([1.0, -lower[i]], [s, a]), -lower[i])
            else:  # of the full formulation: y ≤ u = 0 or s ≤ −l = 0 says it all
                a.setlb(float(upper[i] > 0))
                a.setub(float(upper[i] > 0))
            i += 1
