"""Sceptical: solvers that lie, and what the toolkit then says held against exact arithmetic.

Every report of the LP and MILP solver is falsified on its way in. Nothing false may be said on its word: bounds are
proven by multipliers, whoever made them up, and witnesses are replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hard_networks import Case, Recipe, build
from judge import Certify, judge

from toolkit.problems.answers import Status
from toolkit.problems.settings import Settings
from toolkit.solvers.highs import HighsSession
from toolkit.solvers.solve_report import SolveReport

HIGHS = Settings("highs", rigorous=True, time_limit=0.2)
WAYS = tuple(
    Certify((rung,), HIGHS, (("bounds", bounds), ("tolerance", 0.0)))
    for rung in ("lp", "ideal", "exact", "bab")
    for bounds in (("interval", "dual"), ("interval", "lp"))
)
PLAIN = Recipe((2, (3, 2)), 2, "dense", "real", 0, True, 0, "none", "real", "none", 0, "real", 0.3, "none")
KINDS = (
    PLAIN,
    replace(PLAIN, shape=(1, (3, 2, 2)), tie="near", ulps=1000),
    replace(PLAIN, tie="near", ulps=-1000, eps=1.0),
    replace(PLAIN, numbers="integers", eps=1.0),
    replace(PLAIN, scales=6),
    replace(PLAIN, twins="equal", eps=1.0),
    replace(PLAIN, bias="boundary", eps=1.0),
    replace(PLAIN, eps=0.0),
    replace(PLAIN, shape=(3, (4,)), eps=1.0, domain="half"),
)


def case_of(seed: int) -> Case:
    """A small network of one of the kinds."""
    rng = np.random.default_rng(seed)
    return build(KINDS[seed % len(KINDS)], lambda *shape: rng.normal(size=shape))


def _higher(report: SolveReport) -> SolveReport:
    """Claims more than is true, with a status to match."""
    return replace(report, bound=report.bound + 10, incumbent=report.incumbent + 10, status=Status.OPTIMAL)


def _optimal(report: SolveReport) -> SolveReport:
    return replace(report, status=Status.OPTIMAL, bound=1e6)


def _infeasible(report: SolveReport) -> SolveReport:
    return replace(report, status=Status.INFEASIBLE, bound=np.inf)


def _nan(report: SolveReport) -> SolveReport:
    return replace(report, bound=np.nan, incumbent=np.nan, x=None if report.x is None else report.x * np.nan)


def _garbled(report: SolveReport) -> SolveReport:
    rng = np.random.default_rng(0)
    duals = None if report.duals is None else rng.normal(size=report.duals.size) * 100
    return replace(report, duals=duals)


def _infinite_duals(report: SolveReport) -> SolveReport:
    duals = None if report.duals is None else np.where(np.arange(report.duals.size) % 2, np.inf, np.nan)
    return replace(report, duals=duals)


def _flipped(report: SolveReport) -> SolveReport:
    return replace(report, duals=None if report.duals is None else -report.duals)


def _elsewhere(report: SolveReport) -> SolveReport:
    """A solution far outside the ball."""
    return replace(report, x=None if report.x is None else report.x + 1e3, incumbent=-1e3)


LIES: tuple[Callable[[SolveReport], SolveReport], ...] = (
    _higher, _optimal, _infeasible, _nan, _garbled, _infinite_duals, _flipped, _elsewhere,
)  # fmt: skip


def judge_all(count: int) -> tuple[list[str], list[str]]:
    """Faults found and verdicts given over `count` networks, all ways of asking."""
    faults, verdicts = [], []
    for seed in range(count):
        found = judge(case_of(seed), WAYS, ("lp", "ideal"), ("interval", "dual"))
        faults += [f"seed {seed}: {fault.kind}: {fault.by}: {fault.detail}" for fault in found.faults]
        verdicts += found.verdicts
    return faults, verdicts


@pytest.mark.parametrize("lie", [*LIES, None], ids=lambda lie: lie.__name__.strip("_") if lie else "stopped")
def test_a_lying_solver_never_gets_a_false_word_in(
    lie: Callable[[SolveReport], SolveReport] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stopped`: LPs end after one iteration and are called optimal."""
    honest = HighsSession._solve
    told = 0

    def lying(self: HighsSession, cost: np.ndarray, offset: float, settings: Settings) -> SolveReport:
        nonlocal told
        told += 1
        if lie is None:
            self.iteration_limit = 1
            return replace(honest(self, cost, offset, settings), status=Status.OPTIMAL, bound=1e6)
        return lie(honest(self, cost, offset, settings))

    monkeypatch.setattr(HighsSession, "_solve", lying)
    monkeypatch.setattr("toolkit.search.cutting_planes.ROUNDS", 6)
    faults, _ = judge_all(9)
    assert not faults, "\n".join([f"{len(faults)} faults", *faults])
    assert told > 50


def test_an_honest_solver_decides_these_networks() -> None:
    """The networks on which a lie could tip a verdict: most are decided, on either side, when nobody lies."""
    faults, verdicts = judge_all(9)
    assert not faults, "\n".join([f"{len(faults)} faults", *faults])
    assert verdicts.count("YES") > 10
    assert verdicts.count("NO") > 10
    assert verdicts.count("MAYBE") < 0.5 * len(verdicts)
