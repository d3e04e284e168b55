"""What every solver session must do, on models whose optima are worked out by hand; the same suite for all of them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import random_dense_network

from toolkit.problems.answers import Bound, Status
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.search.lp_bounder import minimize_rows, template
from toolkit.solvers.linear_program import CompiledModel
from toolkit.solvers.registry import SOLVERS, open_session
from toolkit.solvers.session import NoSession, Session, SolverUnavailableError
from toolkit.verify.margins import margin_problem

inf = np.inf
AVAILABLE = [
    pytest.param(name, marks=[] if solver.status().usable else pytest.mark.skip(reason=solver.status().reason))
    for name, solver in SOLVERS.items()
]
TIGHT = Settings(mip_gap=0.0, mip_gap_abs=0.0)
each_solver = pytest.mark.parametrize("solver", AVAILABLE)


def model_of(
    matrix: Sequence[Sequence[float]],
    rows: Sequence[tuple[float, float]],
    columns: Sequence[tuple[float, float]],
    integer: Sequence[bool] | None = None,
) -> CompiledModel:
    """rows, columns: (lower, upper) of each; all continuous unless said."""
    sides, box = np.array(rows, dtype=float).reshape(-1, 2), np.array(columns, dtype=float)
    whole = np.zeros(len(columns), dtype=bool) if integer is None else np.array(integer)
    entries = sp.csr_array(np.array(matrix, dtype=float).reshape(-1, len(columns)))
    return CompiledModel(entries, sides[:, 0], sides[:, 1], box[:, 0], box[:, 1], whole)


def opened(model: CompiledModel, solver: str) -> Session:
    session = open_session(model, Settings(solver=solver, mip_gap=0.0, mip_gap_abs=0.0))
    assert session.name == solver, session.note
    return session


@dataclass(frozen=True)
class Known:
    """min cost·z, with its optimum and, where they are unique, its row duals, worked out by hand."""

    model: CompiledModel
    cost: tuple[float, ...]
    optimum: float
    duals: tuple[float, ...] | None = None


UNIT2 = [(0, 1), (0, 1)]
LPS = {
    # x + y ≤ 3/2 binds from above; it costs 1 to raise the side by 1
    "≤": Known(model_of([[1, 1]], [(-inf, 1.5)], UNIT2), (-1, -2), -2.5, (-1,)),
    # y fills the row at 1/2 a unit, x at 1
    "≥": Known(model_of([[1, 2]], [(1, inf)], UNIT2), (1, 1), 0.5, (0.5,)),
    "=": Known(model_of([[1, 2]], [(1, 1)], UNIT2), (1, 1), 0.5, (0.5,)),
    # an equality's dual may have either sign: here raising the side gains
    "= with a negative dual": Known(model_of([[1, 2]], [(1.5, 1.5)], UNIT2), (-1, -1), -1.25, (-0.5,)),
    # one row with both sides, each binding for its own objective: forgetting one gives 0 or −2
    "two-sided, lower": Known(model_of([[1, 2]], [(0.5, 2)], UNIT2), (1, 3), 0.5, (1,)),
    "two-sided, upper": Known(model_of([[1, 2]], [(1, 2)], UNIT2), (-1, -1), -1.5, (-0.5,)),
    # rows of one column are bounds, but their duals are still asked for
    "singletons": Known(model_of([[2, 0], [0, -1]], [(0.5, inf), (-0.25, inf)], UNIT2), (1, -1), 0.0, (0.5, 1)),
    "a zero row": Known(model_of([[0, 0], [1, 1]], [(-1, 1), (1, inf)], UNIT2), (1, 2), 1.0),
    "a zero column": Known(model_of([[1, 0]], [(0.5, inf)], UNIT2), (1, -3), -2.5, (1,)),
    "no objective": Known(model_of([[1, 2]], [(1, 2)], UNIT2), (0, 0), 0.0),
    "no rows": Known(model_of([], [], [(-1, 2), (3, 5)]), (2, -1), -7.0),
    "a fixed column": Known(model_of([[1e6, 1]], [(-inf, 2e6 + 0.5)], [(2, 2), (0, 1)]), (1e6, -1), 2e6 - 0.5),
    # without the row x would run to 10⁶
    "a very wide box": Known(model_of([[1, -1]], [(-inf, 0)], [(-1e6, 1e6), (0, 3)]), (-1, 2), 0.0, (-1,)),
    "negative columns": Known(model_of([[1, 1]], [(-3, inf)], [(-4, -1), (-4, -1)]), (2, 1), -5.0, (2,)),
}


@each_solver
@pytest.mark.parametrize("name", LPS)
def test_an_lp_is_solved_and_its_duals_prove_it(solver: str, name: str) -> None:
    known = LPS[name]
    session = opened(known.model, solver)
    for offset in (0.0, -2.5):
        report = session.minimize(np.array(known.cost, dtype=float), offset)
        assert report.status is Status.OPTIMAL
        assert report.incumbent == pytest.approx(known.optimum + offset, rel=1e-9, abs=1e-7)
        assert report.bound == pytest.approx(known.optimum + offset, rel=1e-9, abs=1e-7)
        assert known.cost @ report.x == pytest.approx(known.optimum, rel=1e-9, abs=1e-7)
        cost = np.array(known.cost, dtype=float)
        assert known.model.dual_bound(cost, offset, report.duals) == pytest.approx(report.bound, abs=1e-7)
        if known.duals is not None:
            np.testing.assert_allclose(report.duals, known.duals, atol=1e-7)


@each_solver
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


MIPS = {
    "knapsack": (model_of([[2, 3, 1]], [(-inf, 5)], [(0, 1)] * 3, [True] * 3), (-5, -4, -3)),
    "two-sided": (model_of([[2, 3, 4]], [(4.5, 6.5)], [(0, 1)] * 3, [True] * 3), (2, 2, 1)),
    "equality": (model_of([[3, 5, 7]], [(8, 8)], [(0, 1)] * 3, [True] * 3), (-1, -1, -3)),
    "general integers": (model_of([[7, -3]], [(-4, 5)], [(0, 4), (-1, 3)], [True] * 2), (-3, -1)),
}


@each_solver
@pytest.mark.parametrize("name", MIPS)
@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_a_milp_is_solved_to_the_value_of_enumeration(solver: str, name: str, unit: float) -> None:
    model, cost = MIPS[name]
    rows = [[Fraction(v) for v in row] for row in model.matrix.toarray().tolist()]
    every = product(*(range(int(low), int(high) + 1) for low, high in zip(model.lower, model.upper, strict=True)))

    def feasible(z: tuple[int, ...]) -> bool:
        sums = [sum(a * b for a, b in zip(row, z, strict=True)) for row in rows]
        return all(low <= v <= high for v, low, high in zip(sums, model.row_lower, model.row_upper, strict=True))

    best = float(min(sum(Fraction(c) * v for c, v in zip(cost, z, strict=True)) for z in every if feasible(z)))
    report = opened(model, solver).minimize(unit * np.array(cost, dtype=float), offset=unit)
    assert report.status is Status.OPTIMAL
    assert report.bound == pytest.approx(unit * (best + 1), abs=1e-6 * unit)
    assert report.incumbent == pytest.approx(unit * (best + 1), abs=1e-6 * unit)
    np.testing.assert_allclose(report.x, np.round(report.x), atol=1e-6)


@each_solver
@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_an_infeasible_model_never_gives_a_finite_bound_or_a_point(solver: str, integer: bool, unit: float) -> None:
    model = model_of([[unit, unit], [unit, unit]], [(1.5 * unit, inf), (-inf, unit)], UNIT2, [integer] * 2)
    report = opened(model, solver).minimize(np.ones(2))
    assert report.x is None
    assert report.incumbent == inf
    assert (report.status, report.bound) in ((Status.INFEASIBLE, inf), (Status.FAILED, -inf))
    assert report.status is Status.INFEASIBLE or report.message


@each_solver
@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_stop_at_and_cutoff_are_in_the_unit_of_the_objective(solver: str, unit: float) -> None:
    """A MILP with a wide gap between relaxation and optimum −9·unit, asked on both sides of it."""
    model, cost = MIPS["knapsack"]
    session = opened(model, solver)
    for stop_at in (-12.0, -9.5, -8.5, 0.0):
        report = session.minimize(unit * np.array(cost, dtype=float), settings=replace(TIGHT, stop_at=stop_at * unit))
        assert report.status in (Status.DECIDED, Status.OPTIMAL)
        if stop_at < -9:
            assert report.bound > stop_at * unit
        else:
            assert report.incumbent <= stop_at * unit
        assert report.bound <= -9 * unit * (1 - 1e-6)
    lp = LPS["≤"]
    session = opened(lp.model, solver)
    for cutoff in (-4.0, -2.75, 0.0):
        report = session.minimize(unit * np.array(lp.cost), cutoff=cutoff * unit)
        assert report.bound <= unit * (lp.optimum + 1e-6)
        assert report.bound >= unit * (min(cutoff, lp.optimum) - 1e-6)


@each_solver
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


CHANGING = [param for param in AVAILABLE if SOLVERS[str(param.values[0])].session.changes]


@pytest.mark.parametrize("solver", CHANGING)
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


@pytest.mark.parametrize("solver", [param for param in AVAILABLE if param not in CHANGING])
def test_sessions_that_cannot_change_say_so(solver: str) -> None:
    session = opened(LPS["≤"].model, solver)
    for change in (
        lambda: session.add_rows(sp.csr_array((1, 2)), np.zeros(1), np.zeros(1)),
        lambda: session.keep_rows(np.array([True])),
        lambda: session.set_bounds(np.array([0]), np.zeros(1), np.ones(1)),
    ):
        with pytest.raises(SolverUnavailableError, match="do not change their model"):
            change()
    assert session.minimize(np.array(LPS["≤"].cost)).bound == pytest.approx(LPS["≤"].optimum)


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
@pytest.mark.parametrize("cost", [[inf, 1.0], [np.nan, 1.0]])
def test_an_objective_that_is_not_finite_is_a_failed_report_and_harms_no_other(solver: str, cost: list[float]) -> None:
    session = opened(LPS["≤"].model, solver)
    report = session.minimize(np.array(cost))
    assert (report.status, report.bound) == (Status.FAILED, -inf)
    assert "finite" in report.message
    assert session.minimize(np.array(LPS["≤"].cost)).bound == pytest.approx(LPS["≤"].optimum)


@each_solver
def test_extreme_ranges_are_solved_or_refused_but_never_wrong(solver: str) -> None:
    """Entries and ranges at the ends of float64, whose products are what matters."""
    model = model_of([[1e200, 1e-200]], [(-inf, 1.5)], [(0, 1e-200), (0, 1e200)])
    report = opened(model, solver).minimize(np.array([-1e200, -2e-200]))
    assert report.bound == pytest.approx(-2.5, abs=1e-6)
    wide = model_of([[1.0]], [(-inf, 0)], [(-1.7e308, 1.7e308)])
    assert open_session(wide, Settings(solver=solver)).minimize(np.array([-1.0])).bound <= 0.0 + 1e-6 * 1.7e308


@pytest.mark.parametrize("solver", AVAILABLE)
def test_ctrl_c_in_a_solve_is_an_interrupt_and_no_failed_row(solver: str) -> None:
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
