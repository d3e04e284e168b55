"""What every solver must do, on programs whose optima are worked out by hand.

The suite runs over the registry: a solver is tested by being listed there, as far as it declares to go (lp, mip,
changes_model).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import random_dense_network
from solver_models import LPS, MIPS, UNIT2, Known, inf, model_of

from toolkit.problems.answers import Bound, Status
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rung
from toolkit.search.lp_bounder import minimize_rows, template
from toolkit.solvers.linear_program import CompiledModel
from toolkit.solvers.registry import SOLVERS, open_session
from toolkit.solvers.session import NoSession, Session, Solver, SolverUnavailableError
from toolkit.verify.margins import margin_problem

TIGHT = Settings(mip_gap=0.0, mip_gap_abs=0.0)


def solvers_that(can: Callable[[Solver], bool]) -> pytest.MarkDecorator:
    """Runs a test with every solver of the registry that declares so; those not usable here are skipped, with why."""
    chosen = [
        pytest.param(name, marks=[] if solver.status().usable else pytest.mark.skip(reason=solver.status().reason))
        for name, solver in SOLVERS.items()
        if can(solver)
    ]
    return pytest.mark.parametrize("solver", chosen)


each_solver = solvers_that(lambda solver: True)
each_lp_solver = solvers_that(lambda solver: solver.lp)
each_mip_solver = solvers_that(lambda solver: solver.mip)
each_changing = solvers_that(lambda solver: solver.changes_model)
each_unchanging = solvers_that(lambda solver: not solver.changes_model)


def opened(model: CompiledModel, solver: str) -> Session:
    session = open_session(model, replace(TIGHT, solver=solver))
    assert session.name == solver, session.note
    return session


def simple(solver: str) -> Known:
    """A program that the solver takes."""
    return LPS["≤"] if SOLVERS[solver].lp else MIPS["knapsack"]


@pytest.mark.parametrize("name", SOLVERS)
def test_what_a_solver_declares_is_complete(name: str) -> None:
    solver = SOLVERS[name]
    assert solver.name == name
    assert solver.citation
    assert solver.lp or solver.mip
    assert Status.OPTIMAL in solver.statuses.values()
    assert Status.FAILED not in solver.statuses.values()  # which is every word that is not there
    licence = solver.status()
    assert licence.kind
    assert licence.usable == bool(solver.version()) == (not licence.reason)


def test_there_is_one_last_resort_and_it_takes_everything() -> None:
    (last,) = [solver for solver in SOLVERS.values() if solver.last_resort]
    assert last.lp
    assert last.mip
    assert last.status().usable
    assert last.status().size_limit is None


@each_solver
@pytest.mark.parametrize("kind", ["lp", "mip"])
def test_what_a_solver_does_not_take_falls_back_with_the_reason(solver: str, kind: str) -> None:
    known = LPS["≤"] if kind == "lp" else MIPS["knapsack"]
    report = open_session(known.model, replace(TIGHT, solver=solver)).minimize(np.array(known.cost))
    assert report.bound == pytest.approx(known.optimum)
    if getattr(SOLVERS[solver], kind):
        assert (report.solver, report.message) == (solver, "")
    else:
        assert report.solver != solver
        assert f"{solver} solves no {'LP' if kind == 'lp' else 'MILP'}s" in report.message


@each_solver
def test_a_status_that_is_not_declared_proves_nothing(solver: str) -> None:
    known = simple(solver)
    silent = replace(SOLVERS[solver], statuses={})
    report = silent.open(known.model, TIGHT).minimize(np.array(known.cost))
    assert (report.status, report.bound, report.x, report.incumbent) == (Status.FAILED, -inf, None, inf)
    assert report.message.startswith(f"{solver}: ")


@each_lp_solver
@pytest.mark.parametrize("name", LPS)
def test_an_lp_is_solved_and_its_duals_prove_it(solver: str, name: str) -> None:
    known = LPS[name]
    session = opened(known.model, solver)
    for offset in (0.0, -2.5):
        report = session.minimize(np.array(known.cost, dtype=float), offset)
        assert report.status is Status.OPTIMAL
        assert (report.solver, report.version) == (solver, SOLVERS[solver].version())
        assert report.incumbent == pytest.approx(known.optimum + offset, rel=1e-9, abs=1e-7)
        assert report.bound == pytest.approx(known.optimum + offset, rel=1e-9, abs=1e-7)
        assert known.cost @ report.x == pytest.approx(known.optimum, rel=1e-9, abs=1e-7)
        cost = np.array(known.cost, dtype=float)
        assert known.model.dual_bound(cost, offset, report.duals) == pytest.approx(report.bound, abs=1e-7)
        if known.duals is not None:
            np.testing.assert_allclose(report.duals, known.duals, atol=1e-7)


@each_lp_solver
@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e6, 1e12])
@pytest.mark.parametrize("name", LPS)
def test_units_of_columns_rows_and_objective_do_not_matter(solver: str, unit: float, name: str) -> None:
    """x → x/unit, the first row times unit, the objective times 1/unit: the optimum is the same, in its unit."""
    known = LPS[name]
    model, columns = known.model, len(known.cost)
    step = np.where(np.arange(columns) == 0, unit, 1.0)
    weight = np.where(np.arange(model.row_lower.size) == 0, unit, 1.0)
    scaled = CompiledModel(
        sp.csr_array(model.matrix.toarray() * step * weight[:, None]),
        model.row_lower * weight, model.row_upper * weight,
        model.lower / step, model.upper / step,
        model.integer,
    )  # fmt: skip
    report = opened(scaled, solver).minimize(np.array(known.cost) * step / unit)
    assert report.status is Status.OPTIMAL
    size = max(1.0, float(np.abs(known.cost @ np.diag(np.maximum(np.abs(model.lower), np.abs(model.upper)))).max()))
    assert report.bound * unit == pytest.approx(known.optimum, abs=1e-6 * size)
    if known.duals is not None:
        np.testing.assert_allclose(report.duals * unit * weight, known.duals, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, known in MIPS.items() if known.model.integer.all()])
def test_the_known_optima_are_those_of_enumeration(name: str) -> None:
    model, cost = MIPS[name].model, [Fraction(value) for value in MIPS[name].cost]
    rows = [[Fraction(value) for value in row] for row in model.matrix.toarray().tolist()]
    every = product(*(range(int(low), int(high) + 1) for low, high in zip(model.lower, model.upper, strict=True)))

    def feasible(z: tuple[int, ...]) -> bool:
        sums = [sum(a * b for a, b in zip(row, z, strict=True)) for row in rows]
        return all(low <= v <= high for v, low, high in zip(sums, model.row_lower, model.row_upper, strict=True))

    assert MIPS[name].optimum == min(sum(c * v for c, v in zip(cost, z, strict=True)) for z in every if feasible(z))


@each_mip_solver
@pytest.mark.parametrize("name", MIPS)
@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_a_milp_is_solved_to_its_optimum(solver: str, name: str, unit: float) -> None:
    known = MIPS[name]
    session, cost = opened(known.model, solver), np.array(known.cost, dtype=float)
    for offset in (0.0, 1.0, 2.5):
        report = session.minimize(unit * cost, unit * offset)
        assert report.status is Status.OPTIMAL
        assert (report.solver, report.version) == (solver, SOLVERS[solver].version())
        assert report.bound == pytest.approx(unit * (known.optimum + offset), abs=1e-6 * unit)
        assert report.incumbent == pytest.approx(unit * (known.optimum + offset), abs=1e-6 * unit)
        assert cost @ report.x == pytest.approx(known.optimum, abs=1e-6)
        whole = report.x[known.model.integer]
        np.testing.assert_allclose(whole, np.round(whole), atol=1e-6)


@each_mip_solver
def test_objectives_one_after_another_equal_fresh_sessions(solver: str) -> None:
    session = opened(MIPS["knapsack"].model, solver)
    for cost in np.random.default_rng(0).normal(size=(6, 3)):
        best = min(cost @ np.array(z) for z in np.ndindex(2, 2, 2) if np.dot([2, 3, 1], z) <= 5)
        assert session.minimize(cost).bound == pytest.approx(best, abs=1e-6)


INFEASIBLE = {
    "two rows": ([[1, 1], [1, 1]], [(1.5, inf), (-inf, 1)], UNIT2),
    "a row and a bound": ([[1]], [(2, inf)], [(0, 1)]),
}


@each_solver
@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("name", INFEASIBLE)
def test_an_infeasible_model_never_gives_a_finite_bound_or_a_point(
    solver: str, integer: bool, unit: float, name: str
) -> None:
    if not (SOLVERS[solver].mip if integer else SOLVERS[solver].lp):
        pytest.skip(f"{solver} declares that it takes no {'MILPs' if integer else 'LPs'}")
    matrix, rows, columns = INFEASIBLE[name]
    scaled = unit * np.array(matrix), unit * np.array(rows)
    report = opened(model_of(*scaled, columns, [integer] * len(columns)), solver).minimize(np.ones(len(columns)))
    assert report.x is None
    assert report.incumbent == inf
    if report.status is Status.INFEASIBLE:  # proven by Farkas multipliers, of LPs alone
        assert not integer
        assert report.bound == inf
    else:
        assert (report.status, report.bound) == (Status.FAILED, -inf)
        assert report.message


@each_mip_solver
@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_stop_at_is_in_the_unit_of_the_objective(solver: str, unit: float) -> None:
    """A MILP with a wide gap between relaxation and optimum −9·unit, asked on both sides of it."""
    known = MIPS["knapsack"]
    session = opened(known.model, solver)
    for stop_at in (-12.0, -9.5, -8.5, 0.0):
        report = session.minimize(unit * np.array(known.cost), settings=replace(TIGHT, stop_at=stop_at * unit))
        assert report.status in (Status.DECIDED, Status.OPTIMAL)
        if stop_at < -9:
            assert report.bound > stop_at * unit
        else:
            assert report.incumbent <= stop_at * unit
        assert report.bound <= -9 * unit * (1 - 1e-6)


@each_lp_solver
@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("name", ["≤", "two rows", "="])
def test_a_cutoff_may_end_an_lp_early_with_a_proven_bound(solver: str, unit: float, name: str) -> None:
    known = LPS[name]
    session, cost = opened(known.model, solver), unit * np.array(known.cost, dtype=float)
    for distance in (-2.0, -0.25, 0.5, 2.5):
        cutoff = known.optimum + distance
        report = session.minimize(cost, cutoff=cutoff * unit)
        assert report.bound <= unit * (known.optimum + 1e-6)
        assert report.bound >= unit * (min(cutoff, known.optimum) - 1e-6)
        if distance > 0:
            assert report.status is Status.OPTIMAL
    assert session.minimize(cost).bound == pytest.approx(unit * known.optimum, abs=1e-6 * unit)


@each_mip_solver
def test_a_time_limit_ends_a_milp_with_what_it_has(solver: str) -> None:
    rng = np.random.default_rng(3)
    ball = LinfBall(rng.normal(size=20), eps=0.5)
    settings = Settings(solver=solver, rigorous=False, time_limit=0.3)
    problem = margin_problem(random_dense_network(rng, (20, 60, 60, 3)), ball, 0, targets=[1], settings=settings)
    cost, offset = template(problem).layout.objective(problem.rows)
    report = opened(template(problem).exact, solver).minimize(cost[0], float(offset[0]), settings)
    assert report.status is Status.TIME_LIMIT
    assert report.seconds < 5
    assert report.bound <= problem.replay(ball.sample(200)).min()


@each_solver
@pytest.mark.parametrize("seconds", [1e21, 1e300, inf])
def test_a_time_limit_beyond_what_a_solver_counts_is_none(solver: str, seconds: float) -> None:
    for known in [LPS["two rows"]] * SOLVERS[solver].lp + [MIPS["knapsack"]] * SOLVERS[solver].mip:
        settings = replace(TIGHT, solver=solver, time_limit=seconds)
        report = opened(known.model, solver).minimize(np.array(known.cost, dtype=float), settings=settings)
        assert (report.status, report.message) == (Status.OPTIMAL, "")
        assert report.bound == pytest.approx(known.optimum)


@each_mip_solver
def test_a_time_limit_keeps_bound_and_incumbent(solver: str) -> None:
    """On a MILP too large for the time given, what is kept still encloses sampled values."""
    rng = np.random.default_rng(3)
    network = random_dense_network(rng, (20, 60, 60, 3))
    ball = LinfBall(rng.normal(size=20), eps=0.5)
    problem = margin_problem(network, ball, 0, targets=[1], settings=Settings(solver=solver, time_limit=1.0))
    (relaxed,) = get_rung("lp")(problem)
    (bound,) = get_rung("exact")(problem)
    assert bound.status is Status.TIME_LIMIT
    assert relaxed.lower <= bound.lower < bound.upper < np.inf
    assert bound.seconds < 10
    assert bound.upper <= problem.replay(ball.sample(500)).min() + 5.0
    assert bound.lower <= problem.replay(ball.sample(500)).min()
    assert ball.contains(bound.witness)
    assert problem.replay(bound.witness)[0, 0] == pytest.approx(bound.upper, abs=1e-12)


@each_mip_solver
def test_stop_at_decides_early_and_soundly(solver: str) -> None:
    rng = np.random.default_rng(5)
    network = random_dense_network(rng, (8, 20, 20, 3))
    ball = LinfBall(rng.normal(size=8), eps=0.3)
    full = margin_problem(network, ball, 0, targets=[1], settings=Settings(solver=solver))
    (truth,) = get_rung("exact")(full)
    (relaxed,) = get_rung("lp")(full)
    assert relaxed.lower < truth.lower - 1e-3
    between = 0.5 * (relaxed.lower + truth.lower)
    (below,) = get_rung("exact")(full.with_settings(replace(full.settings, stop_at=between)))
    assert below.lower > between
    (above,) = get_rung("exact")(full.with_settings(replace(full.settings, stop_at=truth.upper + 0.1)))
    assert above.upper <= truth.upper + 0.1
    for early in (below, above):
        assert early.status in (Status.DECIDED, Status.OPTIMAL)
        assert early.lower <= truth.upper + 1e-6
        assert early.upper >= truth.lower - 1e-6


@each_lp_solver
def test_a_constant_that_dwarfs_the_objective_stops_no_lp(solver: str) -> None:
    """Solvers take 10²⁰ for infinite: the point and the duals are those without the constant."""
    known = LPS["≤"]
    session = opened(known.model, solver)
    for offset in (1e25, -1e25, 1e12):
        report = session.minimize(np.array(known.cost), offset)
        assert report.status is Status.OPTIMAL
        assert report.bound == pytest.approx(offset + known.optimum, rel=1e-12)
        np.testing.assert_allclose(report.x, [0.5, 1.0], atol=1e-9)
        np.testing.assert_allclose(report.duals, known.duals, atol=1e-9)


@each_changing
@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_changes_of_the_model_equal_a_model_made_so(solver: str, unit: float) -> None:
    """max x + y in the unit square, first column in other units: x + y ≤ 3/2, then x ≤ 1/4, then without the first."""
    session = opened(model_of([[unit, 1]], [(-inf, 1.5)], [(0, 1 / unit), (0, 1)]), solver)
    cost = np.array([-unit, -1.0])
    assert session.minimize(cost).bound == pytest.approx(-1.5)
    session.add_rows(sp.csr_array([[-unit, 0.0]]), np.array([-0.25]), np.array([inf]))
    report = session.minimize(cost)
    assert report.bound == pytest.approx(-1.25)
    np.testing.assert_allclose(report.duals, [0, 1], atol=1e-9)  # y = 1 at its bound, x bound by the new row
    session.set_bounds(np.array([1]), np.array([0.5]), np.array([0.75]))
    assert session.minimize(cost).bound == pytest.approx(-1.0)
    assert session.minimize(-cost).bound == pytest.approx(0.5)
    session.keep_rows(np.array([True, False]))
    assert session.minimize(cost).bound == pytest.approx(-1.5)
    session.set_bounds(np.array([0, 1]), np.zeros(2), np.array([0.0, 1.0]))
    assert session.minimize(cost).bound == pytest.approx(-1.0)


@each_unchanging
def test_sessions_that_cannot_change_say_so(solver: str) -> None:
    known = simple(solver)
    session = opened(known.model, solver)
    for change in (
        lambda: session.add_rows(sp.csr_array((1, 2)), np.zeros(1), np.zeros(1)),
        lambda: session.keep_rows(np.array([True])),
        lambda: session.set_bounds(np.array([0]), np.zeros(1), np.ones(1)),
    ):
        with pytest.raises(SolverUnavailableError, match="do not change their model"):
            change()
    assert session.minimize(np.array(known.cost)).bound == pytest.approx(known.optimum)


WILD = {
    "infinite entry": model_of([[inf, 1]], [(0, 1)], UNIT2),
    "entry that is no number": model_of([[np.nan, 1]], [(0, 1)], UNIT2),
    "side that is no number": model_of([[1, 1]], [(np.nan, 1)], UNIT2),
    "infinite column": model_of([[1, 1]], [(0, 1)], [(0, inf), (0, 1)]),
    "shift that overflows": model_of([[1e300, 1]], [(0, 1)], [(1e300, 2e300), (0, 1)]),
}


@each_solver
@pytest.mark.parametrize("name", WILD)
def test_a_model_that_is_not_finite_is_a_failed_report(solver: str, name: str) -> None:
    session = open_session(WILD[name], Settings(solver=solver))
    assert isinstance(session, NoSession)
    report = session.minimize(np.ones(2))
    assert (report.status, report.bound, report.x) == (Status.FAILED, -inf, None)
    assert "no solver takes the model" in report.message
    assert "finite" in report.message or "no number" in report.message


@each_solver
@pytest.mark.parametrize("cost", [inf, np.nan])
def test_an_objective_that_is_not_finite_is_a_failed_report_and_harms_no_other(solver: str, cost: float) -> None:
    known = simple(solver)
    session = opened(known.model, solver)
    report = session.minimize(np.array([cost, 1.0]))
    assert (report.status, report.bound) == (Status.FAILED, -inf)
    assert "finite" in report.message
    assert session.minimize(np.array(known.cost)).bound == pytest.approx(known.optimum)


@each_lp_solver
def test_extreme_ranges_are_solved_or_refused_but_never_wrong(solver: str) -> None:
    """Entries and ranges at the ends of float64, whose products are what matters."""
    model = model_of([[1e200, 1e-200]], [(-inf, 1.5)], [(0, 1e-200), (0, 1e200)])
    report = opened(model, solver).minimize(np.array([-1e200, -2e-200]))
    assert report.bound == pytest.approx(-2.5, abs=1e-6)
    wide = model_of([[1.0]], [(-inf, 0)], [(-1.7e308, 1.7e308)])
    assert open_session(wide, Settings(solver=solver)).minimize(np.array([-1.0])).bound <= 0.0 + 1e-6 * 1.7e308


@each_mip_solver
def test_ctrl_c_in_a_solve_is_an_interrupt_and_no_failed_row(solver: str) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        pytest.skip("started where Ctrl-C is ignored, as a shell's background jobs are")
    rng = np.random.default_rng(3)
    settings = Settings(solver=solver, rigorous=False, time_limit=20.0)
    network = random_dense_network(rng, (20, 60, 60, 3))
    problem = margin_problem(network, LinfBall(rng.normal(size=20), eps=0.5), 0, targets=[1], settings=settings)
    compiled = template(problem).exact
    # from another process: a solver may hold the interpreter, and every thread of it, while it runs
    sender = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -INT {os.getpid()}"])
    started = time.perf_counter()
    try:
        with pytest.raises(KeyboardInterrupt):
            minimize_rows(problem, compiled, [Bound(-np.inf)])
    finally:
        sender.wait()
    assert time.perf_counter() - started < 10
    assert not problem.workspace.holds(
        problem.region, ("session", "milp", solver)
    )  # whatever the solver was left with is not used again
