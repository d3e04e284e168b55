"""Nothing false is ever said: hard small networks against exact arithmetic, and the judge itself against liars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import judge as judging
import numpy as np
import pandas as pd
import pytest
from hard_networks import CHOICES, Case, Recipe, build, random_case
from hypothesis import given
from judge import FAULTS, REMARKS, WAYS, Certify, judge, plan
from oracle import inside, least_margins
from strategies import cases

from toolkit.problems.answers import Bound, Status, Verdict
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.problem import Problem
from toolkit.rungs import RUNGS
from toolkit.verify.certification import Certification

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
EASY = Recipe((2, (3,)), 2, "dense", "real", 0, True, 0, "none", "real", "none", 0, 0.0, 0.1, "none")


def assert_nothing_false(seeds: range, least_verdicts: int) -> None:
    """No fault, and enough verdicts of both kinds that none could have hidden behind MAYBE."""
    wrong, verdicts = [], []
    for seed in seeds:
        case = random_case(seed)
        found = judge(case, *plan(seed))
        verdicts += found.verdicts
        wrong += [f"seed {seed} ({case.recipe}): {f.kind}: {f.by}: {f.detail}" for f in found.faults]
    assert not wrong, "\n".join([f"{len(wrong)} faults; one network: python experiments/fuzz.py --only SEED", *wrong])
    assert min(verdicts.count("YES"), verdicts.count("NO")) >= least_verdicts


@pytest.mark.parametrize("first", [0, 20, 40])
def test_nothing_false_is_said_of_hard_networks(first: int) -> None:
    assert_nothing_false(range(first, first + 20), least_verdicts=5)


@pytest.mark.slow
def test_nothing_false_is_said_of_thousands_of_hard_networks() -> None:
    assert_nothing_false(range(1000, 4000), least_verdicts=1000)


@given(case=cases())
def test_nothing_false_is_said_of_drawn_networks(case: Case) -> None:
    found = judge(case, (WAYS[0], WAYS[3]), ("interval", "dual", "crown", "lipschitz", "pgd", "lp", "bab"), ("dual",))
    assert found.faults == []


def test_hard_networks_are_of_every_kind() -> None:
    """Every choice occurs, m* is 0 or within rounding of it on both sides, and every kind of map is among them."""
    made = [random_case(seed) for seed in range(400)]
    for name, choices in CHOICES.items():
        assert {getattr(case.recipe, name) for case in made} == set(choices), name
    near = [float(min(case.truth)) for case in made if case.recipe.tie == "near"]
    assert sum(value == 0 for value in near) > 5
    for side in (1, -1):
        assert sum(0 < side * value < 1e-9 for value in near) > 10
    kinds = {type(layer).__name__ for case in made for layer in case.network.layers}
    assert kinds == {"Dense", "Sparse", "Conv2d", "ChannelAffine"}
    assert (
        sum(0 < np.abs(layer.to_sparse().data).min(initial=1) < 1e-307 for c in made for layer in c.network.layers) > 20
    )
    assert random_case(3).network.digest == random_case(3).network.digest


def test_the_plan_asks_all_rungs_of_some_and_every_way_in_turn() -> None:
    assert set(plan(8)[1]) == set(RUNGS)
    assert {str(plan(k)[0][1]) for k in range(len(WAYS) - 1)} == {str(way) for way in WAYS[1:]}
    asked = {name for k in range(1, 8) for name in plan(k)[1]}
    assert asked == set(judging.CHEAP) | set(judging.COSTLY)


def easy_case(positive: bool) -> Case:
    """A case without any trouble whose m* is well above or below 0."""
    for seed in range(100):
        rng = np.random.default_rng(seed)
        case = build(EASY, lambda *shape, rng=rng: rng.normal(size=shape))
        if (min(case.truth) > 0.01) if positive else (min(case.truth) < -0.01):
            return case
    raise AssertionError("no such case")


def kinds(case: Case, way: Certify = WAYS[0]) -> set[str]:
    return {finding.kind for finding in judge(case, (way,), ("dual",), ("interval", "dual")).findings}


def test_easy_cases_have_no_findings() -> None:
    assert kinds(easy_case(True)) == kinds(easy_case(False)) == set()


def _lying_bound(change: Callable[[Case, Bound], Bound]) -> Callable[[pytest.MonkeyPatch, Case], None]:
    def install(patch: pytest.MonkeyPatch, case: Case) -> None:
        honest = RUNGS["dual"]

        def run(problem: Problem) -> list[Bound]:
            return [change(case, replace(bound, upper=np.inf, witness=None)) for bound in honest(problem)]

        patch.setattr(judging, "RUNGS", {**RUNGS, "dual": run})  # no Rung: that would look through some of the lies

    return install


def _lying_answer(change: Callable[[Case, Certification], Certification]) -> Callable[[pytest.MonkeyPatch, Case], None]:
    def install(patch: pytest.MonkeyPatch, case: Case) -> None:
        honest = judging.certify
        patch.setattr(judging, "certify", lambda *args, **more: change(case, honest(*args, **more)))

    return install


def _next(value: Any, towards: float) -> float:
    """The float after the one next to a real number."""
    return float(np.nextafter(np.nextafter(float(value), towards), towards))


def _wrong_layers(patch: pytest.MonkeyPatch, case: Case) -> None:
    honest = judging.layer_bounds

    def narrow(*args: Any) -> ReluBounds:
        bounds = honest(*args)
        halved = [0.5 * (low + high) for low, high in zip(bounds.lower, bounds.upper, strict=True)]
        return ReluBounds.sealed(bounds.lower, halved, bounds.chain, True, bounds.region)

    patch.setattr(judging, "layer_bounds", narrow)


def _raises(patch: pytest.MonkeyPatch, case: Case) -> None:
    patch.setattr(judging, "certify", lambda *args, **more: 1 / 0)


def _safe_point(case: Case) -> np.ndarray:
    return case.ball.center


YES, NO = True, False  # the truth about the case lied about
LIES: list[tuple[str, bool, Callable[[pytest.MonkeyPatch, Case], None]]] = [
    ("certified bound above m*", YES, _lying_bound(lambda c, b: replace(b, certified_lower=_next(c.truth[0], np.inf)))),
    ("certified bound above m*", YES, _lying_bound(lambda c, b: replace(b, certified_lower=np.nan))),
    ("float bound above m*", YES, _lying_bound(lambda c, b: replace(b, lower=float(c.truth[0]) + 0.01))),
    ("certified l,u wrong", YES, _wrong_layers),
    ("false YES", NO, _lying_answer(lambda c, a: replace(a, verdict=Verdict.YES))),
    ("certified, but m* is not positive", NO, _lying_answer(lambda c, a: replace(
        a, margins=tuple(replace(b, certified_lower=1e-300) for b in a.margins)))),
    ("false NO", YES, _lying_answer(lambda c, a: replace(a, verdict=Verdict.NO, witness=_safe_point(c)))),
    ("witness is safe", NO, _lying_answer(lambda c, a: replace(a, verdict=Verdict.NO, witness=_safe_point(c)))),
    ("witness outside the ball", NO, _lying_answer(lambda c, a: replace(a, verdict=Verdict.NO, witness=np.nextafter(
        c.ball.inner_upper, np.inf)))),
    ("witness outside the ball", NO, _lying_answer(lambda c, a: replace(a, verdict=Verdict.NO, witness=None))),
    ("certified_upper below the witness", YES, _lying_bound(lambda c, b: replace(
        b, certified_upper=_next(c.truth[0], -np.inf)))),
    ("lower > upper", YES, _lying_bound(lambda c, b: replace(b, upper=float(np.nextafter(b.lower, -np.inf))))),
    ("exception", YES, _raises),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "truth", "lie"), LIES, ids=[f"{kind} {k}" for k, (kind, _, _) in enumerate(LIES)])
def test_the_judge_sees_every_kind_of_lie(
    kind: str, truth: bool, lie: Callable[[pytest.MonkeyPatch, Case], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = easy_case(truth)
    lie(monkeypatch, case)
    assert kind in kinds(case)


def test_every_fault_has_a_lie() -> None:
    assert {kind for kind, _, _ in LIES} >= set(FAULTS)


def test_a_solvers_false_word_is_told_from_a_certified_one(monkeypatch: pytest.MonkeyPatch) -> None:
    case = easy_case(NO)
    _lying_answer(lambda c, a: replace(a, verdict=Verdict.YES))(monkeypatch, case)
    (trusting,) = (way for way in WAYS if not way.settings.rigorous)
    assert kinds(case, trusting) == {REMARKS[1]}


def test_a_failed_bound_may_cross(monkeypatch: pytest.MonkeyPatch) -> None:
    case = easy_case(YES)
    _lying_bound(lambda c, b: replace(b, lower=1e9, upper=0.0, status=Status.FAILED))(monkeypatch, case)
    assert kinds(case) == set()


def test_the_truth_is_that_of_the_case() -> None:
    """The margins that `build` states are those of the network it hands over, ties moved or not."""
    for seed in range(40):
        case = random_case(seed)
        assert list(case.truth) == least_margins(case.network, case.ball, case.label)
        assert inside(case.ball, case.ball.center.tolist())


def test_the_experiment_writes_counts_and_every_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import fuzz

    monkeypatch.setattr(fuzz, "random_case", lambda seed: easy_case(YES))
    _lying_answer(lambda c, a: replace(a, verdict=Verdict.NO, witness=_safe_point(c)))(monkeypatch, easy_case(YES))
    table = fuzz.main(["--count", "3", "--seed", "5", "--workers", "1", "--out", str(tmp_path)]).set_index("what")
    assert table.loc["networks", "count"] == 3
    assert table.loc["false NO", "count"] == 6  # two ways each
    assert table.loc["false NO", "seeds"] == "5 6 7"
    assert table.loc["false YES", "count"] == 0
    assert list(pd.read_csv(tmp_path / "table.csv")["what"]) == list(table.index)
    assert set(pd.read_csv(tmp_path / "findings.csv")["seed"]) == {5, 6, 7}
    assert (tmp_path / "provenance.json").is_file()
    alone = fuzz.main(["--only", "6"]).set_index("what")
    assert alone.loc["false NO", "count"] == 2
