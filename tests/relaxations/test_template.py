"""The template: relaxed = the lecture's LP written naively; binary = enumeration of activation patterns."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import random_conv_network, random_dense_network
from hypothesis import given
from hypothesis import strategies as st
from naive import enumerate_patterns, naive_lp
from structures import Case, cases, tiny

from toolkit.problems.input_sets import LinfBall
from toolkit.problems.region import Region
from toolkit.problems.settings import Settings
from toolkit.relaxations.compile import compile_model
from toolkit.relaxations.template import build_template, set_indicators
from toolkit.solvers.registry import open_session
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem, margins

HIGHS = Settings(solver="highs", mip_gap=0.0)


@given(case=cases(largest=0), chain=st.sampled_from([("interval",), ("interval", "dual"), ("dual",)]))
def test_relaxed_template_is_the_lectures_lp(case: Case, chain: tuple[str, ...]) -> None:
    network, ball = case.network, case.ball
    bounds = layer_bounds(network, ball, chain)
    for bound in margins(network, ball, 0, "lp", bounds, settings=HIGHS):
        row = np.eye(3)[0] - np.eye(3)[bound.target]
        assert bound.lower == pytest.approx(naive_lp(network, ball, bounds, row), abs=1e-7)


@given(case=tiny())
def test_binary_template_is_the_least_over_activation_patterns(case: Case) -> None:
    network, ball = case.network, case.ball
    bounds = layer_bounds(network, ball)
    (bound,) = margins(network, ball, 1, "exact", bounds, settings=HIGHS)
    truth = enumerate_patterns(network, ball, np.array([-1.0, 1.0]))
    assert bound.lower <= truth + 1e-6
    assert bound.lower == pytest.approx(truth, abs=1e-5)
    assert bound.upper == pytest.approx(truth, abs=1e-5)


def test_every_point_of_the_ball_is_feasible(rng: np.random.Generator) -> None:
    """Completeness: the constraints hold at (x, y, s, a) computed from a real forward pass."""
    network = random_conv_network(rng)
    ball = LinfBall(rng.uniform(0, 1, network.input_size), eps=0.2)
    bounds = layer_bounds(network, ball)
    template = build_template(Region(network, ball, bounds))
    layout, compiled = template.layout, template.exact
    rows, constants = layout.objective(np.eye(network.output_size))
    assert layout.count > 5
    for point in ball.sample(20):
        hidden = network.preactivations(point)
        x_hat = np.array([hidden[k][i] for k, i in layout.neurons])
        z = np.concatenate([point, np.maximum(x_hat, 0), np.maximum(-x_hat, 0), x_hat > 0])
        activity = compiled.matrix @ z
        assert np.all(activity >= compiled.row_lower - 1e-9)
        assert np.all(activity <= compiled.row_upper + 1e-9)
        assert np.all((z >= compiled.lower - 1e-12) & (z <= compiled.upper + 1e-12))
        np.testing.assert_allclose(rows @ z[: rows.shape[1]] + constants, hidden[-1], atol=1e-9)


def test_flipping_the_flag_on_a_built_model_equals_building_it_so(rng: np.random.Generator) -> None:
    network = random_dense_network(rng, (4, 8, 6, 3))
    ball = LinfBall(rng.normal(size=4), eps=0.5)
    bounds = layer_bounds(network, ball)
    template, built = (build_template(Region(network, ball, bounds)) for _ in range(2))
    set_indicators(built.model, "binary")
    one, other = template.exact, compile_model(built.model)
    assert one.is_mip
    assert one.integer.sum() == built.layout.count
    assert (one.matrix != other.matrix).nnz == 0
    for name in ("row_lower", "row_upper", "lower", "upper", "integer"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert not template.relaxed.is_mip
    assert not compile_model(template.model).is_mip  # relaxed again
    with template.binary():
        assert compile_model(template.model).is_mip
    assert not compile_model(template.model).is_mip


def test_swapping_the_pyomo_objective_gives_the_same_minimum(rng: np.random.Generator) -> None:
    """The Pyomo model stands on its own: Pyomo's own HiGHS interface finds what our session finds."""
    import pyomo.environ as pyo
    from pyomo.contrib.solver.common.factory import SolverFactory

    network = random_dense_network(rng, (4, 8, 6, 3))
    ball = LinfBall(rng.normal(size=4), eps=0.3)
    problem = margin_problem(network, ball, 0)
    template = build_template(problem.region)
    model = template.model
    for row, bound in zip(problem.rows, margins(network, ball, 0, "lp", problem.relu_bounds), strict=True):
        template.minimise(row)
        SolverFactory("highs").solve(model)
        assert pyo.value(model.objective) == pytest.approx(bound.lower, abs=1e-7)


def test_all_variables_are_bounded_and_stable_neurons_have_none(rng: np.random.Generator) -> None:
    network = random_dense_network(rng, (6, 20, 20, 4))
    ball = LinfBall(rng.normal(size=6), eps=0.05)
    bounds = layer_bounds(network, ball)
    compiled = build_template(Region(network, ball, bounds)).relaxed
    unstable = sum(count[0] for count in bounds.counts())
    assert 0 < unstable < 40
    assert compiled.matrix.shape == (3 * unstable, 6 + 3 * unstable)
    assert np.all(np.isfinite(compiled.lower) & np.isfinite(compiled.upper))


def test_no_unstable_neuron_means_lp_equals_exact_equals_clean(rng: np.random.Generator) -> None:
    network = random_dense_network(rng, (4, 6, 3))
    ball = LinfBall(rng.normal(size=4), eps=0.0)
    clean = network.forward(ball.center)
    for rung in ("lp", "exact"):
        for bound in margins(network, ball, 2, rung):
            assert bound.lower == pytest.approx(clean[2] - clean[bound.target], abs=1e-9)
            assert bound.upper == pytest.approx(bound.lower, abs=1e-9)


def test_unknown_indicator_value_is_named(rng: np.random.Generator) -> None:
    network = random_dense_network(rng, (2, 3, 2))
    ball = LinfBall(np.zeros(2), eps=0.1)
    template = build_template(Region(network, ball, layer_bounds(network, ball)))
    with pytest.raises(ValueError, match="'binary' or 'relaxed', got 'boolean'"):
        set_indicators(template.model, "boolean")  # type: ignore[arg-type]


@given(seed=st.integers(0, 10**6))
def test_any_duals_give_a_lower_bound(seed: int) -> None:
    """Neumaier & Shcherbina: random, wrong-signed, infinite or NaN multipliers never overshoot the LP optimum."""
    rng = np.random.default_rng(seed)
    network = random_dense_network(rng, (3, 6, 5, 2))
    ball = LinfBall(rng.normal(size=3), eps=0.4)
    problem = margin_problem(network, ball, 0)
    template = build_template(problem.region)
    compiled = template.relaxed
    cost, offset = template.layout.objective(problem.rows)
    full = np.zeros(compiled.lower.size)
    full[: cost.shape[1]] = cost[0]
    report = open_session(compiled, HIGHS).minimize(full, offset[0])
    assert report.bound == pytest.approx(report.incumbent, abs=1e-6)
    duals = report.duals + rng.normal(size=report.duals.size) * rng.choice([0.0, 1e-6, 1.0, 100.0])
    duals[rng.random(duals.size) < 0.1] = rng.choice([np.nan, np.inf, -np.inf])
    assert compiled.dual_bound(full, float(offset[0]), duals) <= report.incumbent + 1e-7


def test_an_affine_row_is_an_ordinary_pyomo_expression_to_everybody_else() -> None:
    import pyomo.environ as pyo
    from pyomo.repn import generate_standard_repn

    from toolkit.relaxations.affine_row import AffineRow

    model = pyo.ConcreteModel()
    model.x = pyo.Var(range(3), initialize={0: 1.0, 1: 10.0, 2: 100.0})
    row = AffineRow([1.0, -2.0, 0.5], list(model.x.values()))
    assert pyo.value(row) == 31.0
    assert pyo.value(row + 1.0) == 32.0
    assert pyo.value(2 * row + model.x[0]) == 63.0
    assert pyo.value(row + AffineRow([1.0], [model.x[2]])) == 131.0
    assert str(row) == "x[0] - 2.0*x[1] + 0.5*x[2]"
    assert pyo.value(row.clone()) == 31.0
    repn = generate_standard_repn(row)
    assert repn.linear_coefs == (1.0, -2.0, 0.5)
    model.x[1].fix(10.0)
    model.c = pyo.Constraint(expr=(None, row, 4.0))
    model.o = pyo.Objective(expr=AffineRow([1.0, 1.0], [model.x[0], model.x[2]]))
    compiled = compile_model_rows(model)
    np.testing.assert_allclose(compiled.A.toarray(), [[1.0, 0.5]])
    np.testing.assert_allclose(compiled.rhs, [24.0])
    with pytest.raises(ValueError, match="2 coefficients do not fit 1 variables"):
        AffineRow([1.0, 2.0], [model.x[0]])


def compile_model_rows(model):  # type: ignore[no-untyped-def]
    """Pyomo's own standard form, as `compile_model` starts from it."""
    from pyomo.repn.plugins.standard_form import LinearStandardFormCompiler

    return LinearStandardFormCompiler().write(model, mixed_form=True)


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_the_full_formulation_has_the_same_optima(kind: str) -> None:
    for seed in range(3):
        own = np.random.default_rng(seed)
        network = random_dense_network(own, (5, 9, 7, 3)) if kind == "dense" else random_conv_network(own)
        ball = LinfBall(own.uniform(0.2, 0.8, network.input_size), 0.05, (0, 1))
        bounds = layer_bounds(network, ball)
        rows = np.array([[1.0, -1.0, 0.0], [-0.5, 0.2, 1.0]])
        counts = np.array(bounds.counts()).sum(axis=0)
        assert counts[1:].min() > 0 < counts[0]  # unstable, active and inactive neurons are all there
        optima = {}
        for formulation in ("compact", "full"):
            for indicators in ("relaxed", "binary"):
                template = build_template(Region(network, ball, bounds), formulation)
                program = template.relaxed if indicators == "relaxed" else template.exact
                session = open_session(program, HIGHS)
                costs, offsets = template.layout.objective(rows)
                found = [session.minimize(cost, offset) for cost, offset in zip(costs, offsets.tolist(), strict=True)]
                optima[formulation, indicators] = np.array([[report.bound, report.incumbent] for report in found])
            assert template.layout.count == (counts[0] if formulation == "compact" else sum(network.relu_sizes))
        for indicators in ("relaxed", "binary"):
            np.testing.assert_allclose(optima["compact", indicators], optima["full", indicators], atol=1e-6)
        assert (optima["full", "relaxed"][:, 0] <= optima["full", "binary"][:, 1] + 1e-6).all()


def test_an_unknown_formulation_is_refused(rng: np.random.Generator) -> None:
    network, ball = random_dense_network(rng, (3, 4, 2)), LinfBall(np.zeros(3), 0.1)
    with pytest.raises(ValueError, match="formulation must be 'compact' or 'full', got 'big'"):
        build_template(Region(network, ball, layer_bounds(network, ball)), "big")  # type: ignore[arg-type]
