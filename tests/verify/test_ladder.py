"""The verdict: right against enumeration, never NO without a replayed witness, nothing lost to a time limit."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import random_conv_network, random_dense_network
from hypothesis import given
from hypothesis import strategies as st
from oracle import least_margins
from pieces import SETS, small_problem
from structures import Case, cases

from toolkit import rungs as rung_registry
from toolkit.data.datasets import load_dataset
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.answers import Bound, Status, Verdict
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.rungs.rung import Rung, Side, each_row
from toolkit.verify.explain import explain_equality
from toolkit.verify.ladder import (
    HOPE,
    LADDER,
    LAYER_HOPELESS,
    LAYER_NODES,
    SEARCH_NODES,
    SEARCH_SHARE,
    certify,
    triangle_heights,
)
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margins
from toolkit.verify.radius import certified_radius

HIGHS = Settings(solver="highs", mip_gap=0.0, attack_steps=10, attack_restarts=2)


def _case(seed: int) -> tuple[Network, LinfBall, int]:
    rng = np.random.default_rng(seed)
    network = (
        random_dense_network(rng, (3, 6, 5, 3)) if seed % 2 else random_conv_network(rng, channels=(2,), hidden=(4,))
    )
    ball = LinfBall(rng.uniform(0, 1, network.input_size), eps=float(rng.uniform(0.0, 0.3)), domain=(0, 1))
    return network, ball, int(network.predict(ball.center))


@given(case=cases(largest=0), ladder=st.sampled_from([LADDER, ("exact",), ("pgd", "lp", "exact"), ("interval",)]))
def test_the_verdict_agrees_with_the_exact_margins(case: Case, ladder: tuple[str, ...]) -> None:
    network, ball, label = case.network, case.ball, int(case.network.predict(case.ball.center))
    truth = margins(network, ball, label, "exact", settings=HIGHS)
    answer = certify(network, ball, label, ladder, settings=HIGHS)
    least = min(bound.upper for bound in truth)
    if answer.verdict is Verdict.YES:
        assert min(bound.lower for bound in truth) > -1e-6
        assert all(answer.decided_by)
        assert answer.witness is None
    elif answer.verdict is Verdict.NO:
        assert least <= 1e-6
        assert ball.contains(answer.witness)
        logits = network.forward(answer.witness)
        assert logits[label] <= logits[answer.witness_class]
    else:
        assert ladder == ("interval",) or abs(least) < 1e-4
    for known, exact in zip(answer.margins, truth, strict=True):
        assert known.target == exact.target
        assert known.lower <= exact.upper + 1e-6
        assert known.upper >= exact.lower - 1e-6


@pytest.mark.parametrize("last", ["exact", "bab", "ideal"])
def test_ideal_gets_a_share_of_the_time_where_an_exact_rung_follows(monkeypatch: pytest.MonkeyPatch, last: str) -> None:
    """By the limits that the rungs are given: all targets of `ideal` together a quarter, `exact` all that is left."""
    network, ball, label = _case(3)
    given: dict[str, list[float | None]] = {}

    def silent(rung: Rung) -> Rung:
        def run(problem: Problem) -> list[Bound]:
            given.setdefault(rung.name, []).append(problem.settings.time_limit)
            return [Bound(-np.inf) for _ in range(problem.rows.shape[0])]

        return replace(rung, run=each_row(run))

    for name in ("ideal", "exact", "bab"):
        monkeypatch.setitem(rung_registry.RUNGS, name, silent(rung_registry.RUNGS[name]))
    ladder = ("ideal", last) if last != "ideal" else ("ideal",)
    answer = certify(network, ball, label, ladder, tighten=(), settings=HIGHS, time_limit=1e6)
    assert answer.verdict is Verdict.MAYBE
    if last == "ideal":
        assert given["ideal"] == pytest.approx([1e6, 1e6], rel=0.01)
    else:  # two targets: the first gets half of the share, the second all that the first left of it
        assert given["ideal"] == pytest.approx([SEARCH_SHARE * 0.5e6, SEARCH_SHARE * 1e6], rel=0.01)
        together = rung_registry.RUNGS[last].batched  # one call with both rows, at so many seconds each
        assert given[last] == pytest.approx([0.5e6] if together else [1e6, 1e6], rel=0.01)
    given.clear()
    certify(network, ball, label, ladder, tighten=(), settings=HIGHS)
    assert given["ideal"] == [None, None]


def test_a_misclassified_centre_is_no_at_once() -> None:
    network, ball, label = _case(7)
    wrong = (label + 1) % 3
    answer = certify(network, ball, wrong)
    assert answer.verdict is Verdict.NO
    assert answer.rung == "clean"
    np.testing.assert_array_equal(answer.witness, ball.center)
    assert answer.witness_class == label
    assert answer.rung_seconds == {}
    assert answer.relu_bounds is None


def test_a_tie_counts_as_no() -> None:
    network = Network([Dense(np.eye(2), np.zeros(2)), Dense(np.eye(2), np.zeros(2))])
    answer = certify(network, LinfBall([0.5, 0.5], eps=0.0), 0)
    assert answer.verdict is Verdict.NO
    assert answer.witness_class == 1


def test_decided_targets_leave_the_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, list[int | None]] = {}

    def watch(rung: Rung) -> Rung:
        def run(problem: Problem) -> list[Bound]:
            asked.setdefault(rung.name, []).extend(t for t in problem.targets if t is not None)
            return rung(problem)

        return replace(rung, run=each_row(run))

    for name in LADDER:
        monkeypatch.setitem(rung_registry.RUNGS, name, watch(rung_registry.RUNGS[name]))
    climbed = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        network = random_dense_network(rng, (6, 16, 16, 8))
        center = rng.normal(size=6)
        label = int(network.predict(center))
        radius = certified_radius(network, center, label, ("dual",), tolerance=1e-3).certified
        asked.clear()
        answer = certify(network, LinfBall(center, 1.1 * radius + 1e-3), label, settings=HIGHS)
        targets = [bound.target for bound in answer.margins]
        order = [name for name in LADDER if name in asked]
        for rung, after in itertools.pairwise(order):
            decided = {t for t, by in zip(targets, answer.decided_by, strict=True) if by == rung}
            assert set(asked[after]) <= set(asked[rung]) - decided
        climbed += len(order) >= 3
    assert climbed > 0


@pytest.mark.parametrize("place", ["outside the ball, misclassified", "in the ball, not misclassified"])
def test_no_needs_a_witness_that_holds_on_replay(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """A rung that claims an upper bound ≤ 0 with a point that would prove it, if only it lay in the ball, or v.v."""
    network, _, _ = _case(3)
    ball = LinfBall(np.random.default_rng(3).uniform(0, 1, 3), eps=1e-4)
    label = int(network.predict(ball.center))
    far = ball.center + np.random.default_rng(0).normal(0, 10, (1000, 3))
    wrong = far[network.predict(far) != label][0]
    assert not ball.contains(wrong)
    assert network.forward(wrong)[label] < network.forward(wrong).max()
    point = wrong if place.startswith("outside") else ball.inner_upper
    asked = 0

    def lie(problem: Problem) -> list[Bound]:
        nonlocal asked
        asked += 1
        return [Bound(-np.inf, -5.0, witness=point, certified_upper=-5.0) for _ in problem.rows]

    monkeypatch.setitem(rung_registry.RUNGS, "pgd", Rung("pgd", Side.UPPER, "lies", "", each_row(lie)))
    answer = certify(network, ball, label, ("pgd", "exact"), settings=HIGHS)
    assert asked == 1
    assert answer.verdict is Verdict.YES
    assert answer.witness is None
    values = [network.forward(x) for x in (ball.center, *ball.corners())]
    for bound in answer.margins:
        assert bound.upper >= min(value[label] - value[bound.target] for value in values) - 1e-9
        assert bound.certified_upper > 0


def test_an_upper_side_without_its_point_is_not_taken_over() -> None:
    """F₀ − F₁ = x on the ball of radius 1/4 around 1/2: 1/4 at worst, whatever is said of it beforehand."""
    network = Network([Dense(np.array([[1.0], [0.0]]), np.zeros(2))])
    known = {"lp": [Bound(-1.0, upper=-0.5, target=1, certified_upper=-0.5)]}
    answer = certify(network, LinfBall([0.5], 0.25), 0, ("interval",), known=known)
    assert answer.verdict is Verdict.YES
    assert 0.25 <= answer.margins[0].upper <= 0.5
    assert 0.25 <= answer.margins[0].certified_upper <= 0.5 + 1e-9


def test_the_class_at_a_witness_is_right_where_floats_overflow() -> None:
    """F = (y₁ − y₂, −1, 0), y₁ = y₂ = 1e400: no float says so, but class 2 ties with class 0 and class 1 does not."""
    last = Dense(np.array([[1.0, -1.0], [0.0, 0.0], [0.0, 0.0]]), np.array([0.0, -1.0, 0.0]))
    network = Network([Dense(np.array([[1e200]])), Dense(np.array([[1e200], [1e200]])), last])
    answer = certify(network, LinfBall([1.0], 0.0), 0)
    assert answer.verdict is Verdict.NO
    assert answer.witness_class == 2


def test_certified_means_every_margin() -> None:
    """F₀ − F₁ = 1 and F₀ − F₂ = x on a ball around 0.5: the first is certified, the second is not positive."""
    network = Network([Dense(np.array([[1.0], [1.0], [0.0]]), np.array([0.0, -1.0, 0.0]))])
    for eps, every in ((0.4, True), (0.6, False)):
        answer = certify(network, LinfBall([0.5], eps), 0, ("interval",))
        assert [bound.certified_lower > 0 for bound in answer.margins] == [True, every]
        assert answer.certified is every
        assert (answer.verdict is Verdict.YES) is every


def test_a_time_limit_keeps_what_was_proven() -> None:
    rng = np.random.default_rng(11)
    network = random_dense_network(rng, (20, 60, 60, 60, 5))
    ball = LinfBall(rng.normal(size=20), eps=0.12)
    label = int(network.predict(ball.center))
    short = certify(network, ball, label, settings=HIGHS, time_limit=0.5)
    assert short.seconds < 5
    dual = margins(network, ball, label, "dual")
    for known, cheap in zip(short.margins, dual, strict=True):
        assert known.lower >= cheap.lower - 1e-9
        assert known.upper < np.inf
    with pytest.raises(ValueError, match="time_limit must be > 0 seconds or None, got 0"):
        certify(network, ball, label, time_limit=0)


def test_bad_arguments_are_named() -> None:
    network, ball, label = _case(5)
    with pytest.raises(ValueError, match="unknown rung 'milp'; allowed: interval"):
        certify(network, ball, label, ("dual", "milp"))
    with pytest.raises(ValueError, match="unknown rung 'magic'"):
        certify(network, ball, label, tighten=("magic",))
    with pytest.raises(ValueError, match="ladder must name at least one rung"):
        certify(network, ball, label, ())
    with pytest.raises(ValueError, match="label must be in 0 … 2, got 3"):
        certify(network, ball, 3)
    with pytest.raises(ValueError, match="tolerance must be ≥ 0, got -1"):
        certify(network, ball, label, tolerance=-1)
    with pytest.raises(ValueError, match="the ball has 2 coordinates"):
        certify(network, LinfBall([0.0, 0.0], 0.1), label)


@given(case=cases(largest=0))
def test_equality_claimed_is_equality(case: Case) -> None:
    """When every unstable neuron is integral at the LP optimum, the exact margin is the LP's."""
    network, ball, label = case.network, case.ball, int(case.network.predict(case.ball.center))
    for lp, exact in zip(
        margins(network, ball, label, "lp", settings=HIGHS),
        margins(network, ball, label, "exact", settings=HIGHS),
        strict=True,
    ):
        why = explain_equality(lp)
        if why.equal:
            assert why.reason.startswith("m* = LP, because")
            assert exact.lower == pytest.approx(lp.lower, abs=1e-4)
            assert lp.upper == pytest.approx(lp.lower, abs=1e-4)
        if exact.lower - lp.lower > 1e-3:
            assert not why.equal
            assert f"{why.relaxed} of {why.unstable} unstable neurons are relaxed" in why.reason


def test_a_linear_piece_is_explained() -> None:
    network, ball, label = _case(9)
    point = LinfBall(ball.center, eps=0.0)
    why = explain_equality(margins(network, point, label, "lp")[0])
    assert why.reason == "m* = LP, because no neuron is unstable: the network is linear on the ball"
    with pytest.raises(ValueError, match="only bounds from lp and ideal"):
        explain_equality(margins(network, point, label, "dual")[0])


def test_the_radius_of_a_linear_classifier_is_known() -> None:
    """F = (x₁ + x₂, 0) at (1, 1): the margin is 2 − 2ε, so the radius is 1, from both sides."""
    first = Dense(np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([10.0, 10.0]))
    network = Network([first, Dense(np.eye(2), -10.0 * np.ones(2))])
    radius = certified_radius(network, [1.0, 1.0], 0, ("dual", "pgd", "exact"), largest=3.0, tolerance=1e-3)
    assert radius.certified == pytest.approx(1.0, abs=2e-3)
    assert radius.refuted == pytest.approx(1.0, abs=2e-3)
    assert radius.certified <= 1.0 <= radius.refuted
    assert radius.gap <= 3e-3


def test_a_weaker_ladder_has_a_smaller_certified_radius() -> None:
    rng = np.random.default_rng(2)
    network = random_dense_network(rng, (4, 12, 12, 3))
    center = rng.normal(size=4)
    label = int(network.predict(center))
    found = {
        rung: certified_radius(network, center, label, ("pgd", rung), tolerance=2e-3, settings=HIGHS, tighten=())
        for rung in ("interval", "dual", "lp", "exact")
    }
    order = [found[name].certified for name in ("interval", "lp", "exact")]
    assert order == sorted(order)
    assert found["dual"].certified <= found["lp"].certified
    assert found["exact"].gap <= 2 * 2e-3 + 1e-12
    for radius in found.values():
        assert radius.certified <= found["exact"].refuted
        safe = [eps for eps, verdict in radius.tried if verdict is Verdict.YES]
        assert max(safe) == radius.certified
    with pytest.raises(ValueError, match="need 0 < tolerance < largest"):
        certified_radius(network, center, label, tolerance=0.0)


def test_hundred_published_images_without_a_maybe(data_dir: Path) -> None:
    """Wong & Kolter's MNIST network, ε = 0.1, ball cut by [0,1], first 100 test images."""
    network = Network.load(data_dir / "convex_adversarial" / "mnist.pth", architecture="wong-kolter-small")
    mnist = load_dataset("mnist")
    verdicts = []
    for image, label in zip(mnist.images[:100], mnist.labels[:100].tolist(), strict=True):
        verdicts.append(
            certify(network, LinfBall(image, 0.1, (0, 1)), label, settings=Settings(solver="highs")).verdict
        )
    assert verdicts.count(Verdict.MAYBE) == 0
    assert verdicts.count(Verdict.YES) == 96


def test_statuses_survive_the_merge() -> None:
    network, ball, label = _case(13)
    for bound in certify(network, ball, label, ("exact",), settings=HIGHS).margins:
        assert bound.status in (Status.OPTIMAL, Status.DECIDED, Status.COMPUTED)


@pytest.mark.parametrize("boxes", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_refining_and_searching_in_turns_gives_the_true_verdict(
    seed: int, boxes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("toolkit.rungs.bab", "toolkit.verify.ladder"):
        monkeypatch.setattr(f"{module}.splits_inputs", lambda problem: boxes)
    rng = np.random.default_rng(seed)
    network, ball = random_dense_network(rng, (3, 5, 4, 3)), LinfBall(rng.normal(size=3), 0.3)
    label = int(network.predict(ball.center))
    truth = [float(value) for value in least_margins(network, ball, label)]
    for ladder in (LADDER, ("bab",)):
        answer = certify(network, ball, label, ladder)
        assert min(map(abs, truth)) > 1e-6
        assert answer.verdict is (Verdict.YES if min(truth) > 0 else Verdict.NO)
        for margin, own in zip(answer.margins, truth, strict=True):
            assert margin.lower <= own + 1e-9
            assert margin.upper >= own - 1e-9
        if answer.verdict is Verdict.NO:
            assert ball.contains(answer.witness)
            assert network.forward(answer.witness)[label] <= network.forward(answer.witness).max()


FULL = [SEARCH_NODES * nodes for nodes in LAYER_NODES]


@pytest.mark.parametrize(
    ("left", "turns", "rows"),
    [(1.0, 1, []), (0.91, 1, []), (0.89, 4, FULL), (0.51, 4, FULL), (0.49, 4, [SEARCH_NODES] * 4)],
)
def test_nodes_grow_by_turns_as_long_as_layer_bounds_gain(
    left: float, turns: int, rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trees that tighten and trees that search, by the nodes after which each is hopeless; every turn leaves this share
    of the looseness. The last search has no limit of its own."""
    monkeypatch.setattr("toolkit.verify.ladder.splits_inputs", lambda problem: False)
    rng = np.random.default_rng(3)
    network, ball = random_dense_network(rng, (4, 8, 8, 8, 3)), LinfBall(rng.normal(size=4), 0.8)
    asked: list[int | None] = []
    layers: list[int | None] = []

    def ranges(problem: Problem, neurons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        layers.append(problem.settings.nodes)
        assert problem.settings.hopeless == LAYER_HOPELESS
        return np.full(neurons.size, -np.inf), np.full(neurons.size, np.inf)

    def run(problem: Problem) -> list[Bound]:
        settings = problem.settings
        asked.append(settings.hopeless)
        assert settings.nodes == (None if settings.hopeless is None else HOPE * settings.hopeless)
        return [Bound(-np.inf) for _ in range(len(problem.objective))]

    monkeypatch.setattr("toolkit.verify.ladder.triangle_heights", lambda bounds: left ** len(set(layers)))
    bab = rung_registry.RUNGS["bab"]
    monkeypatch.setitem(rung_registry.RUNGS, "bab", replace(bab, run=each_row(run), ranges=ranges, certifies=False))
    certify(network, ball, int(network.predict(ball.center)), ("bab",))
    assert asked == [SEARCH_NODES, *rows, None]
    assert list(dict.fromkeys(layers)) == list(LAYER_NODES[:turns])


def test_nodes_that_are_asked_for_are_what_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.verify.ladder.splits_inputs", lambda problem: False)
    rng = np.random.default_rng(3)
    network, ball = random_dense_network(rng, (4, 8, 8, 8, 3)), LinfBall(rng.normal(size=4), 0.8)
    asked = []

    def ranges(problem: Problem, neurons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.append(("ranges", problem.settings.nodes, problem.settings.hopeless))
        return np.full(neurons.size, -np.inf), np.full(neurons.size, np.inf)

    def run(problem: Problem) -> list[Bound]:
        asked.append(("rows", problem.settings.nodes, problem.settings.hopeless))
        return [Bound(-np.inf) for _ in range(len(problem.objective))]

    bab = rung_registry.RUNGS["bab"]
    monkeypatch.setitem(rung_registry.RUNGS, "bab", replace(bab, run=each_row(run), ranges=ranges, certifies=False))
    certify(network, ball, int(network.predict(ball.center)), ("bab",), settings=Settings(nodes=7))
    assert {nodes for what, nodes, _ in asked if what == "ranges"} == {7}
    assert [nodes for what, nodes, _ in asked if what == "rows"][-1] == 7
    assert {hopeless for _, _, hopeless in asked} == {None}


@pytest.mark.parametrize("limit", [1e-9, 1e-3, 0.05])
def test_no_time_gives_bounds_that_hold(limit: float) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        network, ball = random_dense_network(rng, (3, 5, 4, 3)), LinfBall(rng.normal(size=3), 0.4)
        label = int(network.predict(ball.center))
        answer = certify(network, ball, label, time_limit=limit)
        truth = [float(value) for value in least_margins(network, ball, label)]
        for margin, own in zip(answer.margins, truth, strict=True):
            assert margin.lower <= own + 1e-9
            assert margin.upper >= own - 1e-9
        assert answer.verdict is not (Verdict.NO if min(truth) > 0 else Verdict.YES)


@pytest.mark.parametrize("kind", SETS)
def test_a_verdict_on_every_input_set_agrees_with_samples(kind: str) -> None:
    for seed in range(3):
        problem = small_problem(seed, (3, 5, 4, 3), 0.2, kind)
        network, input_set = problem.network, problem.input_set
        label = int(network.predict(input_set.center))
        answer = certify(network, input_set, label)
        others = np.delete(network.forward(input_set.sample(2000)), label, axis=1)
        worst = (network.forward(input_set.sample(2000))[:, label] - others.max(axis=1)).min()
        assert answer.verdict is not Verdict.MAYBE
        assert not (answer.verdict is Verdict.YES and worst <= 0)


def test_triangle_heights_are_those_of_the_chords_at_zero() -> None:
    problem = small_problem(0)
    bounds, total = problem.relu_bounds, 0.0
    for low, high in zip(bounds.lower, bounds.upper, strict=True):
        for l, u in zip(low, high, strict=True):  # noqa: E741
            total += -l * u / (u - l) if l < 0 < u else 0.0
    assert triangle_heights(bounds) == pytest.approx(total)
    refined = layer_bounds(problem.network, problem.input_set, ("interval", "dual", "bab"))
    assert triangle_heights(refined) <= total
    assert triangle_heights(refined.intersected(bounds)) <= triangle_heights(refined) + 1e-12
