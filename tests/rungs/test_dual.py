"""The closed-form and optimised dual points: hand-computed values, soundness, gradient, strong duality."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import structures
from conftest import random_conv_network, random_dense_network
from hypothesis import given
from naive import naive_lp
from structures import cases

from toolkit.data.datasets import load_dataset
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.answers import Status
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.reduced import alive_network
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rung
from toolkit.rungs.dual import certified_values
from toolkit.search.ascent import Ascent
from toolkit.search.dual_function import DualFunction
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem

HIGHS = Settings(solver="highs", mip_gap=0.0)
CHAINS = [("interval",), ("dual",), ("interval", "dual"), ("interval", "crown"), ("interval", "alpha"), ("lp",)]


def alpha_trajectory(problem: Problem, iterations: int) -> np.ndarray:
    """The best value of every row after 0, 1, … iterations, without stopping early. Shape (iterations + 1, m)."""
    ascent = Ascent(problem)
    values = [ascent.best]
    for _ in range(iterations):
        ascent.step()
        values.append(ascent.best)
    return np.array(values)


def lower(name: str, problem: Problem) -> np.ndarray:
    return get_rung(name).lower_values(problem)


def random_problem(seed: int, chain: tuple[str, ...] = ("interval", "dual")) -> Problem:
    """Margins of a random dense network (even seeds) or convolutional one (odd seeds) over a random ball."""
    rng = np.random.default_rng(seed)
    network = random_conv_network(rng) if seed % 2 else random_dense_network(rng, (5, 12, 10, 8, 3))
    ball = LinfBall(rng.uniform(0, 1, network.input_size), eps=float(rng.uniform(0.02, 0.25)), domain=(0, 1))
    return margin_problem(network, ball, 0, layer_bounds(network, ball, chain, HIGHS), settings=HIGHS)


def drawn_problem(case: structures.Case) -> Problem:
    return margin_problem(case.network, case.ball, 0, settings=HIGHS)


def relu_of_x(low: float, high: float, output: list[float]) -> Problem:
    """One objective Σ_i output_i·max(x, 0) over x ∈ [low, high]."""
    network = Network([Dense(np.ones((len(output), 1))), Dense([output])])
    ball = LinfBall([0.5 * (low + high)], eps=0.5 * (high - low))
    return Problem.of(network, ball, np.eye(1), layer_bounds(network, ball, ("interval",)), HIGHS)


# min max(x,0) over [−1, 2], s = 2/3: interval 0; α = s gives min s·x = −2/3; u ≥ −l, so CROWN's α = 1 gives −1; α = 0
# gives 0. Over [−2, 1], s = 1/3: α = s gives −2/3, u < −l gives CROWN's α = 0 and 0. min max(x,0) − max(x,0) over
# [−1, 2]: interval 0 − 2; the second term is −s·(x+1), the first α·x: α = s gives −2/3; α = 1 gives min x/3 − 2/3 = −1.
@pytest.mark.parametrize(
    ("low", "high", "output", "interval", "dual", "crown", "alpha"),
    [
        (-1.0, 2.0, [1.0], 0.0, -2 / 3, -1.0, 0.0),
        (-2.0, 1.0, [1.0], 0.0, -2 / 3, 0.0, 0.0),
        (-1.0, 2.0, [1.0, -1.0], -2.0, -2 / 3, -1.0, -2 / 3),
        (-1.0, 2.0, [-1.0], -2.0, -2.0, -2.0, -2.0),
    ],
)
def test_values_computed_by_hand(
    low: float, high: float, output: list[float], interval: float, dual: float, crown: float, alpha: float
) -> None:
    """Rows 1 to 3 show interval, dual and crown pairwise incomparable."""
    problem = relu_of_x(low, high, output)
    expected = {"interval": interval, "dual": dual, "crown": crown, "alpha": alpha, "lp": alpha}
    for name, value in expected.items():
        assert lower(name, problem)[0] == pytest.approx(value, abs=1e-6 if name == "alpha" else 1e-9), name


@given(case=cases(largest=0))
def test_any_slopes_in_the_unit_interval_are_sound(case: structures.Case) -> None:
    problem = drawn_problem(case)
    rng = np.random.default_rng(case.seed)
    slopes = [rng.uniform(0, 1, (problem.rows.shape[0], low.size)) for low in alive_network(problem).lower]
    values = certified_values(problem, slopes)
    assert np.all(values <= lower("lp", problem) + 1e-7)
    assert np.all(values <= problem.replay(problem.input_set.sample(200)).min(axis=0) + 1e-9)


@given(case=cases(largest=0))
def test_gradient_is_that_of_the_dual_function(case: structures.Case) -> None:
    """The sweep's value is certified_values; its gradient matches central differences along a random direction."""
    problem = drawn_problem(case)
    function, rng = DualFunction(problem), np.random.default_rng(case.seed)
    slopes = rng.uniform(0.1, 0.9, (function.size, problem.rows.shape[0]))
    swept = function.parts().sweep(slopes)
    np.testing.assert_allclose(swept.value, certified_values(problem, function.spread(slopes)), atol=1e-10)
    direction, h = rng.normal(size=slopes.shape), 1e-7
    ahead, behind = (function.parts().sweep(slopes + sign * h * direction).value for sign in (1, -1))
    slope = (swept.gradient * direction).sum(axis=0)
    np.testing.assert_allclose((ahead - behind) / (2 * h), slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chain", CHAINS, ids="+".join)
@pytest.mark.parametrize("seed", range(4))
def test_strong_duality(seed: int, chain: tuple[str, ...]) -> None:
    """On l,u no tighter than the LP's own, the best slopes reach the LP optimum."""
    problem = random_problem(seed, chain)
    optimum, reached = lower("lp", problem), lower("alpha", problem)
    assert sum(count[0] for count in problem.relu_bounds.counts()) > 0
    assert np.all(reached <= optimum + 1e-7)
    np.testing.assert_allclose(reached, optimum, rtol=1e-3, atol=1e-6)


def test_exact_layer_bounds_lift_the_lp_above_every_slope() -> None:
    """l,u tighter than the LP's: l ≤ x̂ ≤ u, implied by the triangles, then counts, and g has no multiplier for it.

    The template's LP still equals the LP written with the triangle rows only (no indicator a).
    """
    rng = np.random.default_rng(2)
    network = random_dense_network(rng, (4, 8, 8, 8, 3))
    ball = LinfBall(rng.normal(size=4), eps=0.3)
    for chain, equal in ((("lp",), True), (("lp", "bab"), False)):
        problem = margin_problem(network, ball, 0, layer_bounds(network, ball, chain, HIGHS), settings=HIGHS)
        relaxed, reached = lower("lp", problem), lower("alpha", problem)
        triangles = [naive_lp(network, ball, problem.relu_bounds, row) for row in problem.rows]
        np.testing.assert_allclose(relaxed, triangles, atol=1e-6)
        assert np.allclose(reached, relaxed, rtol=1e-3) == equal
        assert np.all(reached <= relaxed + 1e-7)
        assert np.all(relaxed <= lower("exact", problem) + 1e-6)


@given(case=cases(largest=0))
def test_the_ascent_encloses_the_lp_optimum(case: structures.Case) -> None:
    problem = drawn_problem(case)
    optimum, ascent = lower("lp", problem), Ascent(problem)
    for _ in range(40):
        ascent.step()
    ascent.finished()
    assert np.all(ascent.best <= optimum + 1e-7)
    assert np.all(np.isfinite(ascent.relaxed))
    assert np.all(ascent.relaxed >= optimum - 1e-7)


def test_trajectory_starts_at_the_better_closed_form_and_never_falls() -> None:
    problem = random_problem(3)
    path = alpha_trajectory(problem, 250)
    assert path.shape == (251, 2)
    np.testing.assert_allclose(path[0], np.maximum(lower("dual", problem), lower("crown", problem)), atol=1e-9)
    assert np.all(np.diff(path, axis=0) >= 0)
    np.testing.assert_allclose(path[-1], lower("lp", problem), rtol=1e-3)


def test_rows_do_not_depend_on_their_company() -> None:
    problem = random_problem(4)
    together = lower("alpha", problem)
    alone = [lower("alpha", problem.with_rows(problem.rows[[i]]))[0] for i in range(problem.rows.shape[0])]
    np.testing.assert_allclose(alone, together, atol=1e-9)


def test_alpha_without_unstable_neurons_is_exact() -> None:
    rng = np.random.default_rng(0)
    network = random_dense_network(rng, (4, 6, 3))
    problem = margin_problem(network, LinfBall(rng.normal(size=4), eps=1e-4), 0)
    assert [count[0] for count in problem.relu_bounds.counts()] == [0]
    (bound, _) = get_rung("alpha")(problem)
    assert (bound.iterations, bound.status) == (0, Status.COMPUTED)
    np.testing.assert_allclose(lower("alpha", problem), lower("exact", problem), atol=1e-9)


def test_alpha_stops_when_told_and_keeps_what_it_proved() -> None:
    problem = random_problem(2)
    free = get_rung("alpha")(problem)
    start = np.maximum(lower("dual", problem), lower("crown", problem))
    hurried = get_rung("alpha")(problem.with_settings(Settings(time_limit=1e-9)))
    target = 0.5 * (start[0] + free[0].lower)
    decided = get_rung("alpha")(problem.with_settings(Settings(stop_at=target)))
    for i, (full, late) in enumerate(zip(free, hurried, strict=True)):
        assert late.status is Status.TIME_LIMIT
        assert start[i] - 1e-9 <= late.lower <= full.lower
        assert late.iterations == 1 < full.iterations
    assert target < decided[0].lower <= lower("lp", problem)[0] + 1e-7
    assert decided[0].status is Status.DECIDED
    assert decided[0].iterations < free[0].iterations


# MNIST test images, ball cut by [0,1], from an independent prototype: network, image, label, target, ε → dual, crown,
# LP with l,u by the dual recursion (first layer exact), and the smallest LP margin over all targets with LP-ALL bounds.
PUBLISHED_NETWORKS = [
    ("LPD_MLP_B_0.1", 0, 7, 9, 0.1, 5.1047, 5.1533, 5.1533, 5.156),
    ("NOR_MLP_B", 0, 7, 3, 0.02, 4.4427, 4.8246, 5.1765, 5.432),
    ("ADV_MLP_B_0.1", 0, 7, 9, 0.1, -1.1070, -1.1363, -0.4653, -0.137),
    ("LPD_MLP_B_0.1", 7, 9, 3, 0.1, -0.6903, -0.7749, -0.5709, -0.530),
]
Case = tuple[str, int, int, int, float, float, float, float, float]


def published_problem(data_dir: Path, case: Case, chain: tuple[str, ...]) -> Problem:
    name, image, label, _, eps = case[:5]
    network = Network.load(data_dir / "robust-verify-benchmark" / f"{name}.pth", "mlp")
    mnist = load_dataset("mnist")
    assert mnist.labels[image] == label
    ball = LinfBall(mnist.images[image], eps, domain=(0, 1))
    return margin_problem(network, ball, label, layer_bounds(network, ball, chain, HIGHS), settings=HIGHS)


@pytest.mark.parametrize("case", PUBLISHED_NETWORKS, ids=lambda case: f"{case[0]}-{case[1]}")
def test_published_figures(case: Case, data_dir: Path) -> None:
    problem = published_problem(data_dir, case, ("dual",))
    row = problem.targets.index(case[3])
    for rung, value in zip(("dual", "crown", "alpha", "lp"), (*case[5:8], case[7]), strict=True):
        assert lower(rung, problem)[row] == pytest.approx(value, abs=2e-3), rung


@pytest.mark.parametrize(
    ("chain", "lp_all"),
    [(("interval",), False), (("dual",), False), (("dual", "crown"), False), (("dual", "alpha"), True),
     (("dual", "lp"), True)],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
@pytest.mark.parametrize("case", PUBLISHED_NETWORKS, ids=lambda case: f"{case[0]}-{case[1]}")
def test_strong_duality_on_published_networks(case: Case, chain: tuple[str, ...], lp_all: bool, data_dir: Path) -> None:
    """For every target; optimised slopes and LPs on every layer's neurons also give the same l,u."""
    problem = published_problem(data_dir, case, chain)
    optimum = lower("lp", problem)
    np.testing.assert_allclose(lower("alpha", problem), optimum, rtol=1e-3)
    if lp_all:
        assert optimum.min() == pytest.approx(case[8], abs=2e-3)


def test_strong_duality_experiment_runs(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "experiments" / "strong_duality.py"
    table = runpy.run_path(str(script))["main"](["--shipped", "--iterations", "20", "--out", str(tmp_path)])
    assert np.all(table["relative"].abs() <= 1e-3)
    assert np.all(table[["dual", "crown"]].max(axis=1) <= table["alpha"] + 1e-9)
    assert np.all(table["lp"] <= table["pgd"] + 1e-7)
    assert {path.name for path in tmp_path.iterdir()} == {"alpha_vs_lp.png", "table.csv", "provenance.json"}
