"""Branch and bound: the same margins as enumeration and as MILP solvers, sound at any stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import random_dense_network
from hypothesis import given, settings
from naive import enumerate_patterns
from oracle import least
from pieces import SETS, small_problem
from structures import Case, cases, tiny

from toolkit.certificates.leaves import Leaves
from toolkit.certificates.rounding import error_model_of
from toolkit.data.datasets import load_dataset
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.answers import Bound, Status
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.relaxations.compile import integer_columns
from toolkit.rungs import get_rung
from toolkit.rungs.bab import by_boxes, by_phases, by_programs, search_row
from toolkit.search.branching import PhaseBrancher, PseudoCosts
from toolkit.search.clock import Clock
from toolkit.search.cutting_planes import CuttingPlanes
from toolkit.search.lp_bounder import template
from toolkit.search.lp_nodes import LpNodes
from toolkit.search.tree import Node, Relaxed, Tree
from toolkit.solvers.highs import HighsSession
from toolkit.solvers.registry import SOLVERS
from toolkit.solvers.session import Licence
from toolkit.solvers.solve_report import SolveReport
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem, margins

TIGHT = Settings(solver="highs", mip_gap=0.0, mip_gap_abs=1e-7)


@given(case=tiny())
def test_equals_the_least_over_activation_patterns(case: Case) -> None:
    network, ball = case.network, case.ball
    (bound,) = margins(network, ball, 1, "bab", settings=TIGHT)
    truth = enumerate_patterns(network, ball, np.array([-1.0, 1.0]))
    assert bound.status is Status.OPTIMAL
    assert bound.lower <= truth + 1e-7
    assert bound.lower == pytest.approx(truth, abs=1e-6)
    assert bound.upper == pytest.approx(truth, abs=1e-6)


@settings(max_examples=8)
@given(case=cases(largest=0))
def test_agrees_with_the_milp_on_every_row(case: Case) -> None:
    network, ball = case.network, case.ball
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
    (close,) = get_rung("bab")(problem.with_settings(replace(TIGHT, stop_at=truth.lower - 1e-5)))
    assert close.status is Status.DECIDED
    assert yes.nodes <= close.nodes
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
        (Settings(rigorous=False), "gurobi" if SOLVERS["gurobi"].status().usable else "bab/highs"),
        (Settings(), "bab/highs"),
        (Settings(solver="highs"), "highs"),
    ):
        assert {b.solver for b in margins(network, ball, 0, "exact", settings=asked)} == {expected}
    monkeypatch.setitem(SOLVERS, "gurobi", gone)
    found = margins(network, ball, 0, "exact", settings=Settings(rigorous=False))
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


def test_a_search_that_finds_every_part_empty_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The region is not, so l,u are wrong; the root's LP alone may not show it."""
    network, ball = _hard()
    problem = margin_problem(network, LinfBall(ball.center, eps=0.1), 0, targets=[1], settings=TIGHT)
    solve = LpNodes.solve

    def empty(self: LpNodes, node: Node) -> Relaxed:
        if node.split is None:
            return solve(self, node)
        node.raise_bound(np.inf, None)
        return Relaxed(None, False, "empty")

    monkeypatch.setattr(LpNodes, "solve", empty)
    monkeypatch.setattr(LpNodes, "trial", lambda self, node: None)  # a bound at the cutoff would close a part as well
    (bound,) = get_rung("bab")(problem)
    assert bound.status is Status.FAILED
    assert bound.lower == -np.inf
    assert "l,u are wrong" in bound.message


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


class Injected(BaseException):
    """Like KeyboardInterrupt: nobody catches it on the way."""


PLACES = {
    "solve": (HighsSession, "_solve"),
    "change of bounds": (HighsSession, "_bounds_set"),
    "new rows": (HighsSession, "_rows_added"),
    "fewer rows": (HighsSession, "_rows_kept"),
    "branching": (PhaseBrancher, "split"),
    "trial": (LpNodes, "trial"),
    "replay": (LpNodes, "_replayed"),
    "evidence": (CuttingPlanes, "evidence"),
}


@pytest.mark.parametrize("error", [Injected, RuntimeError])
@pytest.mark.parametrize("place", PLACES)
def test_a_search_that_is_broken_off_leaves_no_trace(
    place: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is raised, wherever and however late: later rungs on the same problem answer as on a fresh one."""
    rng = np.random.default_rng(1)
    network, small = random_dense_network(rng, (5, 16, 16, 3)), LinfBall(rng.normal(size=5), eps=0.4)
    fresh = margin_problem(network, small, 0, targets=[1], settings=TIGHT)
    truth = {name: get_rung(name)(fresh)[0] for name in ("lp", "ideal", "bab", "exact")}
    owner, name = PLACES[place]
    for call, forever in ((1, True), (4, False)):
        problem = margin_problem(network, small, 0, targets=[1], settings=TIGHT)
        calls = 0
        honest = getattr(owner, name)

        def broken(*args: Any, honest: Any = honest, call: int = call, forever: bool = forever, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call or (forever and calls > call):
                raise error("injected")
            return honest(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, broken)
            try:
                (early,) = get_rung("bab")(problem)
                assert early.lower <= truth["bab"].upper
                assert early.status is not Status.OPTIMAL or early.lower == pytest.approx(truth["bab"].lower, abs=1e-4)
            except error:
                pass
        assert calls > 0, "the place was not reached"
        for later in ("ideal", "bab", "exact"):
            (found,) = get_rung(later)(problem)
            assert found.status is truth[later].status
            assert found.lower <= truth["bab"].upper
            assert found.lower == pytest.approx(truth[later].lower, rel=2e-2 if later == "ideal" else 1e-4)


def test_a_search_puts_the_bounds_back_even_if_nobody_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ball = _hard()
    problem = margin_problem(network, LinfBall(ball.center, eps=0.1), 0, targets=[1], settings=TIGHT)
    planes = CuttingPlanes(problem)
    before = planes.session.model.lower.copy(), planes.session.model.upper.copy()
    depth = 0
    expand = Tree._expand

    def stop(self: Tree, node: Node) -> Node | None:
        nonlocal depth
        depth += 1
        if depth == 4:
            raise Injected
        return expand(self, node)

    monkeypatch.setattr(Tree, "_expand", stop)
    leaves = Leaves(error_model_of(problem), problem.rows[0], planes.store)
    with pytest.raises(Injected):
        search_row(problem, 0, planes, PseudoCosts(planes.layout.count), leaves)
    np.testing.assert_array_equal(planes.session.model.lower, before[0])
    np.testing.assert_array_equal(planes.session.model.upper, before[1])


def test_indicators_are_put_back_if_reading_them_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ball = _hard()
    problem = margin_problem(network, LinfBall(ball.center, eps=0.05), 0, targets=[1], settings=TIGHT)
    with monkeypatch.context() as patch:
        patch.setattr("toolkit.relaxations.template.integer_columns", lambda model: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            get_rung("exact")(problem)
    assert not integer_columns(template(problem).model).any()


def test_a_milp_solver_that_is_done_but_wrong_is_not_called_optimal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its dual bound is a word: the replayed minimiser decides what may be said of the interval."""
    network, ball = _hard()
    small = LinfBall(ball.center, eps=0.1)
    (truth,) = margins(network, small, 0, "bab", targets=[1])
    solve = HighsSession._solve

    for shift, expected in ((-0.05, Status.COMPUTED), (0.05, Status.FAILED)):

        def shifted(self: HighsSession, *args: Any, shift: float = shift) -> SolveReport:
            report = solve(self, *args)
            return replace(report, bound=report.bound + shift * abs(report.bound)) if self.model.is_mip else report

        monkeypatch.setattr(HighsSession, "_solve", shifted)
        (found,) = margins(network, small, 0, "exact", targets=[1], settings=Settings(solver="highs"))
        assert found.status is expected
        assert found.message
        assert found.lower <= truth.upper
        assert found.certified_lower <= truth.upper
        stop = replace(Settings(solver="highs"), stop_at=truth.lower - 0.01)
        (sign,) = margins(network, small, 0, "exact", targets=[1], settings=stop)
        assert sign.status in (expected, Status.DECIDED)
        assert sign.status is not Status.DECIDED or sign.lower > stop.stop_at


def _signed(seed: int, graph: bool = False, **chosen: Any) -> tuple[Problem, np.ndarray]:
    """A tiny problem that asks for signs about a mark between its rows' minima, and these."""
    plain = small_problem(seed, (3, 4, 3, 2), graph=graph)
    truth = np.array([float(value) for value, _ in least(plain.network, plain.input_set, plain.rows.tolist())])
    stop = float(np.sort(truth)[:2].mean())
    return plain.with_settings(Settings(stop_at=stop, **chosen)), truth


def _hold(problem: Problem, bounds: list[Bound], truth: np.ndarray) -> None:
    """Every interval holds its minimum, every upper side is a replayed point's, every decision lies on its side."""
    for row, (bound, least_value) in enumerate(zip(bounds, truth, strict=True)):
        assert bound.certified_lower <= least_value + 1e-9
        assert bound.lower <= least_value + 1e-9
        assert bound.upper >= least_value - 1e-9
        if bound.upper < np.inf:
            assert problem.input_set.contains(bound.witness)
            assert problem.replay(bound.witness)[0, row] == pytest.approx(bound.upper, rel=1e-12, abs=1e-12)
        if bound.status is Status.DECIDED:
            stop = problem.settings.stop_at
            assert bound.certified_lower > stop or bound.upper <= stop


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_boxes_phases_and_programs_agree_with_rational_arithmetic(
    seed: int, graph: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, truth = _signed(seed, graph)
    clear = np.abs(truth - problem.settings.stop_at) > 1e-3
    for search in (by_boxes, by_phases, by_programs):
        _hold(problem, search(problem, Clock(problem.settings)), truth)
    for boxes in (True, False):
        monkeypatch.setattr("toolkit.rungs.bab.splits_inputs", lambda problem, boxes=boxes: boxes)
        found = get_rung("bab")(problem)
        _hold(problem, found, truth)
        for bound, own in zip([b for b, c in zip(found, clear, strict=True) if c], truth[clear], strict=True):
            assert bound.status is Status.DECIDED
            assert (bound.certified_lower > problem.settings.stop_at) == (own > problem.settings.stop_at)


@pytest.mark.parametrize("boxes", [True, False])
@pytest.mark.parametrize("chosen", [{"nodes": 1}, {"nodes": 6}, {"time_limit": 1e-9}, {"time_limit": 1e-3}])
def test_limits_leave_intervals_that_hold(chosen: dict[str, Any], boxes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.rungs.bab.splits_inputs", lambda problem: boxes)
    for seed in range(4):
        problem, truth = _signed(seed, **chosen)
        found = get_rung("bab")(problem)
        _hold(problem, found, truth)
        if "nodes" in chosen:
            assert all(bound.status is Status.DECIDED or np.isfinite(bound.certified_lower) for bound in found)
            assert not any("+" in bound.solver and "highs" in bound.solver for bound in found)
            assert all(bound.status is not Status.TIME_LIMIT for bound in found), "no clock"
            assert all(bool(bound.message) == (bound.status is not Status.DECIDED) for bound in found)


@pytest.mark.parametrize("boxes", [True, False])
def test_a_refuted_row_is_enough_where_that_is_said(boxes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.rungs.bab.splits_inputs", lambda problem: boxes)
    for seed in range(6):
        problem, truth = _signed(seed, until_refuted=True)
        found = get_rung("bab")(problem)
        _hold(problem, found, truth)
        assert min(bound.upper for bound in found) <= problem.settings.stop_at
        for bound in found:  # no clock stopped them
            assert bound.status is Status.DECIDED or (
                bound.status is Status.COMPUTED and "another row" in bound.message
            )


@pytest.mark.parametrize("kind", SETS)
def test_signs_on_every_input_set(kind: str) -> None:
    for seed in range(2):
        plain = small_problem(seed, (3, 5, 4, 2), kind=kind)
        sampled = plain.replay(np.vstack([plain.input_set.sample(3000), plain.input_set.corners(50)])).min(axis=0)
        problem = plain.with_settings(Settings(stop_at=float(np.median(sampled)) - 0.2, time_limit=2.0))
        for row, bound in enumerate(get_rung("bab")(problem)):
            assert bound.certified_lower <= sampled[row] + 1e-9
            assert bound.status is Status.DECIDED
            if sampled[row] <= problem.settings.stop_at:
                assert bound.upper <= problem.settings.stop_at


def test_no_rows_no_bounds() -> None:
    problem, _ = _signed(0)
    assert get_rung("bab")(problem.with_rows(np.zeros((0, 2)))) == []
