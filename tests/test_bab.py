"""Branch and bound: the same margins as enumeration and as MILP solvers, sound at any stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import random_conv_network, random_dense_network
from hypothesis import given, settings
from hypothesis import strategies as st
from test_template import enumerate_patterns

from toolkit.balls import LinfBall
from toolkit.data import load_dataset
from toolkit.layer_bounds import layer_bounds
from toolkit.layers import Dense
from toolkit.margins import margin_problem, margins
from toolkit.network import Network
from toolkit.problem import ReluBounds, Settings, Status
from toolkit.pseudo_costs import PseudoCosts
from toolkit.rungs import get_rung
from toolkit.session import SolveReport
from toolkit.solvers import SOLVERS, HighsSession, Licence

TIGHT = Settings(solver="highs", mip_gap=0.0, mip_gap_abs=1e-7)


@given(seed=st.integers(0, 10**6))
def test_equals_the_least_over_activation_patterns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = random_dense_network(rng, (3, 4, 3, 2))
    ball = LinfBall(rng.normal(size=3), eps=float(rng.uniform(0.05, 0.8)))
    (bound,) = margins(network, ball, 1, "bab", settings=TIGHT)
    truth = enumerate_patterns(network, ball, np.array([-1.0, 1.0]))
    assert bound.status is Status.OPTIMAL
    assert bound.lower <= truth + 1e-7
    assert bound.lower == pytest.approx(truth, abs=1e-6)
    assert bound.upper == pytest.approx(truth, abs=1e-6)


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_agrees_with_the_milp_on_every_row(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = random_dense_network(rng, (5, 10, 9, 4)) if seed % 2 else random_conv_network(rng)
    ball = LinfBall(rng.uniform(0, 1, network.input_size), eps=0.3, domain=(0, 1))
    problem = margin_problem(network, ball, 0, settings=TIGHT)
    for tree, milp in zip(get_rung("bab")(problem), get_rung("exact")(problem), strict=True):
        assert tree.target == milp.target
        assert tree.lower <= milp.upper + 1e-6
        assert milp.lower <= tree.upper + 1e-6
        assert tree.upper - tree.lower <= 1e-6
        assert ball.contains(tree.witness)
        assert problem.replay(tree.witness)[0].min() <= tree.upper + 1e-12


def _hard() -> tuple[Network, LinfBall]:
    rng = np.random.default_rng(3)
    return random_dense_network(rng, (20, 40, 40, 3)), LinfBall(rng.normal(size=20), eps=0.35)


def test_a_time_limit_returns_the_interval_reached() -> None:
    network, ball = _hard()
    problem = margin_problem(network, ball, 0, targets=[1], settings=replace(TIGHT, time_limit=0.6))
    (lp,) = get_rung("lp")(problem)
    (bound,) = get_rung("bab")(problem)
    assert bound.status is Status.TIME_LIMIT
    assert bound.seconds < 5
    assert lp.lower <= bound.lower < bound.upper
    assert bound.lower <= problem.replay(ball.sample(500)).min()


def test_stop_at_ends_early_on_either_side() -> None:
    network, ball = _hard()
    easy = LinfBall(ball.center, eps=0.08)
    problem = margin_problem(network, easy, 0, targets=[1], settings=TIGHT)
    (lp,), (truth,) = get_rung("lp")(problem), get_rung("bab")(problem)
    assert truth.status is Status.OPTIMAL
    assert truth.lower - lp.lower > 1e-3
    below = 0.5 * (lp.lower + truth.lower)
    (yes,) = get_rung("bab")(problem.with_settings(replace(TIGHT, stop_at=below)))
    assert yes.status is Status.DECIDED
    assert yes.lower > below
    assert yes.nodes <= truth.nodes
    (no,) = get_rung("bab")(problem.with_settings(replace(TIGHT, stop_at=truth.upper + 0.05)))
    assert no.status is Status.DECIDED
    assert no.upper <= truth.upper + 0.05
    for early in (yes, no):
        assert early.lower <= truth.upper + 1e-7
        assert early.upper >= truth.lower - 1e-7


def test_the_region_is_left_as_it_was_found() -> None:
    """Splits are undone: the ideal rung on the same problem gives no more than m* afterwards, row after row."""
    network, ball = _hard()
    small = LinfBall(ball.center, eps=0.1)
    problem = margin_problem(network, small, 0, settings=TIGHT)
    first = get_rung("bab")(problem)
    ideal = get_rung("ideal")(problem)
    again = get_rung("bab")(problem)
    for a, b, c in zip(first, ideal, again, strict=True):
        assert b.lower <= a.upper + 1e-7
        assert c.lower == pytest.approx(a.lower, abs=1e-5)


def test_automatic_choice_takes_the_tree_without_gurobi(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured: bab beats HiGHS' MILP everywhere, Gurobi beats bab where its licence takes the model."""
    rng = np.random.default_rng(5)
    network = random_dense_network(rng, (5, 10, 9, 3))
    ball = LinfBall(rng.normal(size=5), eps=0.2)
    gone = replace(SOLVERS["gurobi"], licence=lambda: Licence(False, "none", reason="expired"))
    for asked, expected in (
        (Settings(), "gurobi" if SOLVERS["gurobi"].status().usable else "bab/highs"),
        (Settings(rigorous=True), "bab/highs"),
        (Settings(solver="highs"), "highs"),
    ):
        assert {b.solver for b in margins(network, ball, 0, "exact", settings=asked)} == {expected}
    monkeypatch.setitem(SOLVERS, "gurobi", gone)
    found = margins(network, ball, 0, "exact", settings=Settings())
    assert {b.solver for b in found} == {"bab/highs"}
    for own, milp in zip(found, margins(network, ball, 0, "exact", settings=TIGHT), strict=True):
        assert own.lower == pytest.approx(milp.lower, rel=1e-3)
        assert own.certified_lower == pytest.approx(own.lower, abs=1e-8)
        assert milp.certified_lower <= milp.upper


def test_a_time_limit_still_certifies_what_was_reached() -> None:
    network, ball = _hard()
    problem = margin_problem(network, ball, 0, targets=[1], settings=replace(TIGHT, time_limit=0.5))
    (bound,) = get_rung("bab")(problem)
    assert bound.certified_lower == pytest.approx(bound.lower, abs=1e-6 * (1 + abs(bound.lower)))


def test_a_root_stopped_at_once_is_not_called_optimal() -> None:
    """The first point HiGHS holds may lie on every ReLU, with nothing to split; it is not the LP's least."""
    network, data = Network.load("zoo:mnist5k-standard"), load_dataset("mnist5k")
    ball = LinfBall(data.features[3], 0.03, (0.0, 1.0))
    label = int(data.labels[3])
    problem = margin_problem(network, ball, label, targets=[(label + 1) % 10], settings=replace(TIGHT, time_limit=1e-9))
    (bound,) = get_rung("bab")(problem)
    assert bound.upper - bound.lower > 0.1
    assert bound.status is Status.TIME_LIMIT


def test_a_leaf_whose_lp_failed_leaves_the_margin_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A solver that gives up at a node: the interval stays right, and is not called optimal."""
    network, ball = _hard()
    problem = margin_problem(network, LinfBall(ball.center, eps=0.1), 0, targets=[1], settings=TIGHT)
    (truth,) = get_rung("bab")(problem)
    assert truth.nodes > 1
    solve = HighsSession._solve

    def give_up(self: HighsSession, cost: np.ndarray, offset: float, given: Settings) -> SolveReport:
        if self.cutoff is None or self.iteration_limit is not None:  # the root, and trials
            return solve(self, cost, offset, given)
        return SolveReport(Status.FAILED, -np.inf, message="lost")

    monkeypatch.setattr(HighsSession, "_solve", give_up)
    (bound,) = get_rung("bab")(margin_problem(network, LinfBall(ball.center, eps=0.1), 0, targets=[1], settings=TIGHT))
    assert bound.status is Status.TIME_LIMIT
    assert "lost" in bound.message
    assert bound.certified_lower <= bound.lower + 1e-9
    assert bound.lower < truth.lower - 1e-3
    assert bound.upper >= truth.lower - 1e-7


def test_pseudo_costs_prefer_the_neuron_that_gained_most_per_distance() -> None:
    costs = PseudoCosts(3)
    y = s = np.ones(3)
    assert np.ptp(costs.estimate(y, s)) == 0.0  # nothing seen, nothing preferred
    for neuron, gain in enumerate((0.1, 0.4)):
        for phase in (0, 1):
            costs.learn(neuron, phase, gain, 2.0)
            costs.learn(neuron, phase, 3 * gain, 2.0)
    np.testing.assert_allclose(costs.estimate(y, s), [0.1**2, 0.4**2, 0.25**2])  # the unseen: the average


def test_published_network_without_a_milp_solver(data_dir: Path) -> None:
    """MNIST image 8, target 6 of Wong & Kolter's network: m* = −0.2988 (Gurobi)."""
    network = Network.load(data_dir / "convex_adversarial" / "mnist.pth", architecture="wong-kolter-small")
    ball = LinfBall(load_dataset("mnist").images[8], eps=0.1, domain=(0, 1))
    tight = Settings(solver="highs", mip_gap=0.0, mip_gap_abs=1e-4)
    bounds = layer_bounds(network, ball, ("dual", "lp"), tight)
    (bound,) = margins(network, ball, 5, "bab", bounds, [6], tight)
    assert bound.lower == pytest.approx(-0.2988, abs=1e-3)
    assert bound.upper - bound.lower <= 1e-4


def test_wrong_layer_bounds_that_empty_the_region_are_a_failure_and_no_bound() -> None:
    """l,u are trusted, but a template they make infeasible must not turn into a lower bound of +inf."""
    network, ball = _hard()
    bounds = layer_bounds(network, ball)
    lower, upper = [side.copy() for side in bounds.lower], [side.copy() for side in bounds.upper]
    neuron = int(np.flatnonzero(bounds.unstable(0))[0])
    width = upper[0][neuron] - lower[0][neuron]
    lower[0][neuron], upper[0][neuron] = -1e-3 * width, 1e-6  # far from what x̂ can be …
    first, *rest = network.layers
    shifted = Dense(first.weight, first.bias + 10 * width * np.eye(first.output_size)[neuron])
    network = Network([shifted, *rest])  # … once the neuron is shifted
    wrong = ReluBounds(tuple(lower), tuple(upper))
    for name in ("lp", "ideal", "bab"):
        for bound in margins(network, ball, 0, name, wrong, settings=TIGHT):
            assert bound.status is Status.FAILED
            assert bound.lower < np.inf
            assert bound.certified_lower < np.inf
