"""Every rung over ℓ1 and ℓ2 balls: order, alpha = LP, exact = a convex solver's enumeration, certificates."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from conftest import random_dense_network
from oracle import value_at
from rational import dot

from toolkit.certificates.dual_bound import CHORD, value_and_error
from toolkit.certificates.rounding import error_model_of, outward
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.answers import Status
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_sets import Ball, L1Ball, L2Ball, LinfBall, make_ball
from toolkit.problems.settings import Settings
from toolkit.rungs import RUNGS, get_rung
from toolkit.rungs.rung import Side
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem, margins

CASES = [(norm, domain) for norm in ("l1", "l2") for domain in (None, (0.0, 1.0))]
EPS = {"l1": 0.8, "l2": 0.45}
TOLERANCE = 1e-7


def question(norm: str, domain: tuple[float, float] | None, seed: int, sizes: tuple[int, ...] = (5, 8, 7, 3)) -> tuple[
    Network, Ball, int, ReluBounds
]:  # fmt: skip
    rng = np.random.default_rng(seed)
    network = random_dense_network(rng, sizes)
    ball = make_ball(norm, rng.uniform(0, 1, sizes[0]), EPS[norm], domain)
    label = int(network.predict(ball.center[None])[0])
    return network, ball, label, layer_bounds(network, ball, ("interval", "dual"))


def enumerated(network: Network, ball: Ball, row: np.ndarray, bounds: ReluBounds) -> float:
    """min row·F over the ball: one convex program per pattern of the unstable neurons, by Clarabel."""
    cp = pytest.importorskip("cvxpy")
    stable = [
        np.where(low >= 0, 1, np.where(up <= 0, 0, -1)) for low, up in zip(bounds.lower, bounds.upper, strict=True)
    ]
    free = [(k, int(i)) for k, phases in enumerate(stable) for i in np.flatnonzero(phases < 0)]
    order = {"l1": 1, "l2": 2}[ball.norm]
    best = np.inf
    for pattern in itertools.product((0, 1), repeat=len(free)):
        phases = [known.copy() for known in stable]
        for (k, i), phase in zip(free, pattern, strict=True):
            phases[k][i] = phase
        x = cp.Variable(ball.size)
        rows = [cp.norm(x - ball.center, order) <= ball.eps]
        if ball.domain is not None:
            rows += [x >= ball.domain[0], x <= ball.domain[1]]
        weight, bias = np.eye(ball.size), np.zeros(ball.size)
        for layer, own in zip(network.layers[:-1], phases, strict=True):
            dense = layer.to_sparse().toarray()
            weight, bias = dense @ weight, dense @ bias + layer.bias_vector
            sign = 2.0 * own - 1.0
            rows.append((sign[:, None] * weight) @ x + sign * bias >= 0)
            weight, bias = weight * own[:, None], bias * own
        last = network.layers[-1]
        dense = row @ last.to_sparse().toarray()
        program = cp.Problem(cp.Minimize((dense @ weight) @ x), rows)
        program.solve(solver=cp.CLARABEL)
        if program.status in ("optimal", "optimal_inaccurate"):
            best = min(best, program.value + dense @ bias + row @ last.bias_vector)
    return float(best)


@pytest.mark.parametrize(("norm", "domain"), CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_order_and_alpha_is_the_lp(norm: str, domain: tuple[float, float] | None, seed: int) -> None:
    network, ball, label, bounds = question(norm, domain, seed)
    found = {name: margins(network, ball, label, name, bounds) for name in RUNGS}
    for k, exact in enumerate(found["exact"]):
        size = exact.drop
        lower = {name: found[name][k].lower for name in RUNGS if RUNGS[name].side is Side.LOWER}
        assert exact.status is Status.OPTIMAL
        assert all(bound <= exact.upper + TOLERANCE for bound in lower.values())
        for name, rung in RUNGS.items():
            for weaker in rung.dominates:
                assert found[weaker][k].lower <= found[name][k].lower + 1e-6 * size + TOLERANCE
            assert found[name][k].certified_lower <= found[name][k].upper + TOLERANCE
        assert lower["lp"] - lower["alpha"] <= 1e-3 * max(abs(lower["lp"]), 0.05 * size)
        for attack in ("pgd", "fgsm"):
            assert found[attack][k].upper >= exact.lower - TOLERANCE
            assert ball.contains(found[attack][k].witness)


@pytest.mark.parametrize(("norm", "domain"), CASES)
def test_exact_is_the_enumeration(norm: str, domain: tuple[float, float] | None) -> None:
    network, ball, label, bounds = question(norm, domain, 3, (4, 5, 3, 2))
    problem = margin_problem(network, ball, label, bounds)
    for row, name in itertools.product(range(len(problem.rows)), ("exact", "bab")):
        bound = get_rung(name)(problem)[row]
        assert bound.status is Status.OPTIMAL
        dense = np.asarray(problem.rows[[row]].toarray() if hasattr(problem.rows, "toarray") else problem.rows[[row]])
        true = enumerated(network, ball, dense[0], bounds)
        assert bound.lower - 1e-7 <= true <= bound.upper + 1e-7
        assert bound.upper - bound.lower <= 1e-4 * max(1.0, abs(true))


@pytest.mark.parametrize(("norm", "domain"), CASES)
@pytest.mark.parametrize("solver", ["highs", "gurobi", "scip"])
def test_named_solvers_agree(norm: str, domain: tuple[float, float] | None, solver: str) -> None:
    network, ball, label, bounds = question(norm, domain, 4, (3, 5, 2))
    for rung in ("lp", "exact"):
        one = margins(network, ball, label, rung, bounds)
        two = margins(network, ball, label, rung, bounds, settings=Settings(solver=solver))
        for a, b in zip(one, two, strict=True):
            assert b.lower == pytest.approx(a.lower, abs=2e-4 * max(1.0, abs(a.lower)))


@pytest.mark.parametrize(("norm", "domain"), CASES)
def test_certified_bounds_hold_in_rational_arithmetic(norm: str, domain: tuple[float, float] | None) -> None:
    """No certified number is above the real value of F at any point of the set."""
    for seed in range(2):
        network, ball, label, bounds = question(norm, domain, seed, (4, 6, 5, 3))
        problem = margin_problem(network, ball, label, bounds)
        points = np.vstack([ball.sample(2, seed), ball.corners(2, seed)])
        points = np.vstack([points, *(bound.witness for bound in get_rung("exact")(problem))])
        rows = np.asarray(problem.rows.toarray() if hasattr(problem.rows, "toarray") else problem.rows)
        values = [[value_at(network, row, point) for point in points.tolist()] for row in rows]
        for name in RUNGS:
            for least, bound in zip(values, get_rung(name)(problem), strict=True):
                assert bound.certified_lower == -np.inf or Fraction(bound.certified_lower) <= min(least)


@pytest.mark.parametrize(("norm", "domain"), CASES)
def test_the_input_term_of_a_certificate_is_charged(norm: str, domain: tuple[float, float] | None) -> None:
    """An affine network with wide numbers: the certificate against exact values at minimisers, close to it."""
    rng = np.random.default_rng(7)
    for scale in (1e-9, 1.0, 1e9):
        network = random_dense_network(rng, (40, 2))
        ball = make_ball(norm, rng.uniform(0, 1, 40) * (1.0 if domain else scale), EPS[norm] * 3, domain)
        problem = margin_problem(network, ball, 0, ReluBounds((), ()))
        rows = np.asarray(problem.rows.toarray() if hasattr(problem.rows, "toarray") else problem.rows)
        value, error = value_and_error(error_model_of(problem), rows, np.full((len(rows), 0), CHORD))
        nu = rows @ network.layers[0].weight
        for row, low, point in zip(rows, outward(value, error), ball.argmin_linear(nu), strict=True):
            exact = value_at(network, row, point.tolist())
            assert Fraction(low) <= exact
            assert exact - Fraction(low) <= 1e-10 * max(1.0, float(dot(np.abs(nu[0]), np.abs(ball.upper))))


def test_a_ball_that_fills_its_box_is_the_box() -> None:
    """Balls so wide that the domain alone counts: ℓ1, ℓ2 and ℓ∞ give one answer."""
    network, _, label, _ = question("l2", (0.0, 1.0), 5)
    center = np.full(5, 0.5)
    boxes = [make_ball(norm, center, 10.0, (0.0, 1.0)) for norm in ("linf", "l1", "l2")]
    for rung in ("interval", "dual", "alpha", "lp", "exact"):
        values = [[bound.lower for bound in margins(network, ball, label, rung)] for ball in boxes]
        np.testing.assert_allclose(values[1], values[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(values[2], values[0], rtol=1e-4, atol=1e-5)


def test_a_radius_per_coordinate_is_the_box_of_its_ends() -> None:
    network, _, label, _ = question("l2", None, 6)
    eps = np.array([0.1, 0.0, 0.3, 0.2, 0.05])
    ball = LinfBall(np.full(5, 0.5), eps)
    wide, narrow = LinfBall(ball.center, 0.3), LinfBall(ball.center, 0.0)
    for rung in ("interval", "lipschitz", "dual", "lp", "exact", "pgd"):
        for low, own, high in zip(*(margins(network, b, label, rung) for b in (wide, ball, narrow)), strict=True):
            side = "upper" if rung == "pgd" else "lower"
            assert getattr(low, side) <= getattr(own, side) + 1e-6 <= getattr(high, side) + 2e-6


def test_time_limits_leave_an_interval_over_an_l2_ball() -> None:
    network, ball, label, bounds = question("l2", (0.0, 1.0), 8, (12, 40, 40, 3))
    for rung in ("lp", "exact"):
        for bound in margins(network, ball, label, rung, bounds, settings=Settings(time_limit=0.05)):
            assert bound.lower <= bound.upper
            assert bound.status in (Status.TIME_LIMIT, Status.OPTIMAL, Status.COMPUTED)


def test_the_lipschitz_rung_uses_the_dual_norm() -> None:
    """An affine network: the bound is the exact minimum, c·F(x) − ε‖cW‖_*."""
    network = random_dense_network(np.random.default_rng(0), (6, 2))
    for kind in (L1Ball, L2Ball):
        ball = kind(np.full(6, 0.5), 0.3)
        (found,), (exact,) = (margins(network, ball, 0, rung) for rung in ("lipschitz", "exact"))
        assert found.lower == pytest.approx(exact.lower, rel=1e-6)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_descents_spend_the_radius_where_the_domain_lets_them(norm: str) -> None:
    """An affine network and a centre in a corner of the domain: fgsm and pgd find the minimum."""
    network = random_dense_network(np.random.default_rng(1), (8, 2))
    ball = make_ball(norm, np.array([0.0, 1.0] * 4), 0.3, (0.0, 1.0))
    (exact,) = margins(network, ball, 0, "exact")
    for attack in ("fgsm", "pgd"):
        (found,) = margins(network, ball, 0, attack)
        assert found.upper == pytest.approx(exact.lower, abs=1e-6)


@pytest.mark.parametrize("eps", [5e-324, 1e-310, 1e-170, 1e-18])
@pytest.mark.parametrize("rung", ["lp", "ideal"])
@pytest.mark.parametrize("first", [np.zeros((4, 2)), np.ones((4, 2)), np.array([[3.0, -7.0]] * 4)])
def test_a_ball_that_rounding_hides_has_the_value_of_its_centre(first: np.ndarray, rung: str, eps: float) -> None:
    rng = np.random.default_rng(4)
    network = Network([Dense(first, -first @ [0.5, 0.25]), Dense(rng.normal(size=(3, 4)), rng.normal(size=3))])
    ball = L2Ball(np.array([0.5, 0.25]), eps)
    logits = network.forward(ball.center)
    for bound in margins(network, ball, 0, rung):
        assert bound.status is Status.OPTIMAL, bound.message
        assert bound.lower == pytest.approx(logits[0] - logits[bound.target], abs=1e-12)
