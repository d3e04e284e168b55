"""Which solver opens a model: the one asked for, else the last resort, which says why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from solver_models import CLAIMED, LPS, MIPS

from toolkit.problems.answers import Status
from toolkit.problems.settings import Settings
from toolkit.solvers.registry import SOLVERS, check_solver_name, last_resort, open_session
from toolkit.solvers.session import Licence, NoSession, Session, SolverUnavailableError


def test_a_solver_asked_for_by_name_falls_back_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = replace(SOLVERS["gurobi"], licence=lambda: Licence(False, "none", reason="licence expired"))
    monkeypatch.setitem(SOLVERS, "gurobi", gone)
    report = open_session(MIPS["knapsack"].model, Settings(solver="gurobi")).minimize(np.array([-5.0, -4, -3]))
    assert report.solver == "highs"
    assert "fell back to highs: licence expired" in report.message
    assert report.bound == pytest.approx(-9)


def test_unknown_solver_is_named_with_the_allowed_ones() -> None:
    with pytest.raises(ValueError, match="unknown solver 'cplex'; allowed: auto, highs, gurobi, scip"):
        open_session(LPS["≤"].model, Settings(solver="cplex"))


def test_a_solver_registered_later_is_asked_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown solver 'claimed'"):
        check_solver_name("claimed")
    monkeypatch.setitem(SOLVERS, "claimed", CLAIMED)
    assert check_solver_name("claimed") == "claimed"
    assert open_session(LPS["≤"].model, Settings(solver="claimed")).name == "claimed"


def test_a_solver_is_not_given_what_it_declares_not_to_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOLVERS, "claimed", replace(CLAIMED, mip=False))
    assert open_session(LPS["≤"].model, Settings(solver="claimed")).name == "claimed"
    session = open_session(MIPS["knapsack"].model, Settings(solver="claimed"))
    assert session.name == last_resort().name
    assert session.note == f"fell back to {last_resort().name}: claimed solves no MILPs"


def test_a_solver_that_is_not_installed_says_how_to_get_it() -> None:
    missing = replace(CLAIMED, package="no_such_package").status()
    assert (missing.usable, missing.reason) == (
        False,
        "no_such_package is not installed (pip install no_such_package)",
    )
    extra = replace(CLAIMED, package="no_such_package", extra="scip").status()
    assert 'pip install "relugap[scip]"' in extra.reason


def test_where_the_last_resort_refuses_too_every_report_has_both_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> Session:
        raise SolverUnavailableError("the last one refuses too")

    monkeypatch.setitem(SOLVERS, "highs", replace(SOLVERS["highs"], session=refuses))
    monkeypatch.setitem(SOLVERS, "claimed", replace(CLAIMED, licence=lambda: Licence(False, "-", reason="expired")))
    session = open_session(LPS["≤"].model, Settings(solver="claimed"))
    assert isinstance(session, NoSession)
    session.keep_rows(np.array([False]))  # nothing to change, nothing to raise
    report = session.minimize(np.ones(2))
    assert (report.status, report.bound) == (Status.FAILED, -np.inf)
    assert report.message == "no solver takes the model: expired; the last one refuses too"
