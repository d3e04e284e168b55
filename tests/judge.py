"""Holds what the toolkit says of a case against the truth in exact arithmetic, and names every false statement.

Faults: a certified bound (of a margin or a neuron) beyond the true one; YES where some point of the ball is not of the
class (a solver's word, asked for by rigorous=False, is counted apart); NO where no point is; a witness that lies
outside the ball or has another value than said; lower > upper without status FAILED; an exception.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from hard_networks import Case
from oracle import inside, neuron_ranges, value_at

from toolkit.problems.answers import Bound, Status, Verdict
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.rungs import RUNGS
from toolkit.verify.certification import Certification
from toolkit.verify.ladder import LADDER, certify
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem

LIMIT = 10.0  # seconds per row: nothing here takes as long unless something is wrong
NOISE = 1e-6  # relative to 1 + |m*|: by how much a float bound, not certified, may be off before it is counted
CHEAP = ("interval", "dual", "crown", "lipschitz", "pgd")
COSTLY = ("alpha", "lp", "ideal", "bab", "exact")
FAULTS = (
    "certified bound above m*",
    "certified l,u wrong",
    "certified, but m* is not positive",
    "certified_upper below the witness",
    "false YES",
    "false NO",
    "witness outside the ball",
    "witness is safe",
    "lower > upper",
    "exception",
)
REMARKS = ("float bound above m*", "solver's word: false YES")  # what nothing certified rests on


@dataclass(frozen=True)
class Certify:
    """One way to ask for a verdict."""

    ladder: tuple[str, ...] = LADDER
    settings: Settings = field(default_factory=Settings)
    arguments: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        asked = self.settings
        shown = [f"solver={asked.solver}", *(["not rigorous"] if not asked.rigorous else [])]
        return f"certify({'+'.join(self.ladder)}, {', '.join(shown)}, {dict(self.arguments)})"


WAYS = (
    Certify(settings=Settings(time_limit=LIMIT)),
    Certify(settings=Settings("highs", time_limit=LIMIT)),
    Certify(("exact",), Settings("highs", rigorous=False, time_limit=LIMIT)),
    Certify(("bab",), Settings(time_limit=LIMIT, mip_gap=0.0, mip_gap_abs=1e-9)),
    Certify(("dual", "lp"), Settings("highs", time_limit=LIMIT), (("tolerance", 0.0),)),
    Certify(("crown", "alpha"), arguments=(("tolerance", 0.0),)),
    Certify(("interval", "lipschitz", "fgsm")),
    Certify(settings=Settings(time_limit=0.005)),
    Certify(arguments=(("time_limit", 0.03),)),
    Certify(("ideal", "bab"), Settings(time_limit=LIMIT), (("tighten", ()),)),
    Certify(("exact",), Settings("highs", rigorous=True, time_limit=LIMIT), (("tolerance", 0.0),)),
    Certify(("pgd", "exact"), Settings(time_limit=LIMIT), (("bounds", ("interval", "lp")),)),
)


@dataclass(frozen=True)
class Finding:
    """A false statement: its kind (of FAULTS or REMARKS), who made it, and the numbers."""

    kind: str
    by: str
    detail: str


@dataclass
class Judgement:
    """What was found out about one case, and how much was asked."""

    findings: list[Finding] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)
    bounds: int = 0

    @property
    def faults(self) -> list[Finding]:
        return [one for one in self.findings if one.kind in FAULTS]

    def add(self, kind: str, by: str, detail: str) -> None:
        self.findings.append(Finding(kind, by, detail))


def judge(case: Case, ways: Sequence[Certify], rungs: Sequence[str], chain: tuple[str, ...]) -> Judgement:
    """Layer bounds by the chain, the rungs on them, and the verdicts of every way, all held against the truth."""
    found = Judgement()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=RuntimeWarning, module="toolkit")
        settings = Settings(time_limit=LIMIT)
        bounds = _tried(found, f"layer_bounds({'+'.join(chain)})", lambda: layer_bounds(
            case.network, case.ball, chain, settings))  # fmt: skip
        if bounds is not None:
            _judge_layers(found, case, bounds)
            problem = margin_problem(case.network, case.ball, case.label, bounds, settings=settings)
            for name in rungs:
                _judge_rung(found, case, problem, name)
        for way in ways:
            answer = _tried(found, str(way), lambda way=way: certify(
                case.network, case.ball, case.label, way.ladder, settings=way.settings, **dict(way.arguments)
            ))  # fmt: skip
            if answer is not None:
                _judge_verdict(found, case, way, answer)
    return found


def plan(number: int) -> tuple[list[Certify], list[str], tuple[str, ...]]:
    """What is asked of the case with this number: the default verdict and one other way, and one case in eight all."""
    ways = [WAYS[0], WAYS[1 + number % (len(WAYS) - 1)]]
    rungs = list(RUNGS) if number % 8 == 0 else [*CHEAP, COSTLY[number % len(COSTLY)]]
    return ways, rungs, ("interval", "dual", *(("lp",) if number % 7 == 0 else ()))


def _tried(found: Judgement, by: str, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "toolkit" in Path(f.filename).parts]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "?"
        text = (str(error).splitlines() or [""])[0]
        found.add("exception", by, f"{type(error).__name__} in {place}: {text}")
        return None


def _judge_layers(found: Judgement, case: Case, bounds: ReluBounds) -> None:
    by = f"layer_bounds({'+'.join(bounds.chain)})"
    for k, ranges in enumerate(neuron_ranges(case.network, case.ball)):
        for i, (low, high) in enumerate(ranges):
            for side, wrong in (("l", _above(bounds.lower[k][i], low)), ("u", _above(-bounds.upper[k][i], -high))):
                if wrong and bounds.certified:
                    stated = f"[{bounds.lower[k][i]!r}, {bounds.upper[k][i]!r}]"
                    found.add("certified l,u wrong", by, f"{side} of neuron {i}, layer {k}: {stated}, true "
                              f"[{float(low)!r}, {float(high)!r}]")  # fmt: skip


def _judge_rung(found: Judgement, case: Case, problem: Problem, name: str) -> None:
    answers = _tried(found, name, lambda: RUNGS[name](problem))
    for bound, truth, row in zip(answers or [], case.truth, problem.rows.tolist(), strict=False):
        _judge_bound(found, case, bound, truth, row, name)


def _judge_bound(
    found: Judgement, case: Case, bound: Bound, truth: Fraction, row: list[float], by: str, merged: bool = False
) -> None:
    """merged: the best of several bounds and points, whose certified_upper need not be that of the witness."""
    found.bounds += 1
    if _above(bound.certified_lower, truth):
        found.add("certified bound above m*", by, f"{bound.certified_lower!r} > {float(truth)!r}")
    if bound.lower > bound.upper and bound.status is not Status.FAILED:
        found.add("lower > upper", by, f"{bound.lower!r} > {bound.upper!r}, {bound.status}")
    if bound.status is not Status.FAILED and np.isfinite(bound.lower):
        excess = Fraction(bound.lower) - truth
        if excess > Fraction(NOISE) * (1 + abs(truth)):
            found.add("float bound above m*", by, f"{bound.lower!r} > {float(truth)!r}")
    if bound.witness is not None:
        if not inside(case.ball, bound.witness.tolist()):
            found.add("witness outside the ball", by, f"{bound.witness.tolist()}")
        elif not merged and _above(
            -bound.certified_upper, -(value := value_at(case.network, row, bound.witness.tolist()))
        ):
            found.add("certified_upper below the witness", by, f"{bound.certified_upper!r} < {float(value)!r}")
    if _above(-bound.certified_upper, -truth):
        found.add("certified_upper below the witness", by, f"{bound.certified_upper!r} < m* = {float(truth)!r}")


def _judge_verdict(found: Judgement, case: Case, way: Certify, answer: Certification) -> None:
    by, least = str(way), min(case.truth)
    found.verdicts.append(str(answer.verdict))
    if answer.verdict is Verdict.YES and least <= 0:
        kind = "false YES" if way.settings.rigorous or answer.certified else "solver's word: false YES"
        found.add(kind, by, f"by {answer.rung}, m* = {float(least)!r}")
    if answer.certified and least <= 0:
        found.add("certified, but m* is not positive", by, f"m* = {float(least)!r}")
    if answer.verdict is Verdict.NO:
        if least > 0:
            found.add("false NO", by, f"m* = {float(least)!r}")
        _judge_witness(found, case, answer, by)
    for row, bound, truth in zip(_rows(case), answer.margins, case.truth, strict=True):
        _judge_bound(found, case, bound, truth, row, by, merged=True)


def _judge_witness(found: Judgement, case: Case, answer: Certification, by: str) -> None:
    if answer.witness is None or not inside(case.ball, answer.witness.tolist()):
        found.add("witness outside the ball", by, f"{None if answer.witness is None else answer.witness.tolist()}")
        return
    values = [value_at(case.network, row, answer.witness.tolist()) for row in _rows(case)]
    if min(values) > 0:
        found.add("witness is safe", by, f"margin {float(min(values))!r}")


def _rows(case: Case) -> Iterator[list[float]]:
    outputs, label = case.network.output_size, case.label
    return ([float(i == label) - float(i == t) for i in range(outputs)] for t in range(outputs) if t != label)


def _above(claim: float, truth: Fraction) -> bool:
    """Whether a lower bound claims more than the truth; −inf claims nothing, NaN and +inf are false."""
    return claim != -np.inf and (not np.isfinite(claim) or Fraction(float(claim)) > truth)
