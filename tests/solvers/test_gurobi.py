"""Gurobi alone: its status words, and its licence that limits the size of models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import random_dense_network
from solver_models import MIPS

from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rung
from toolkit.solvers.gurobi import GUROBI, GUROBI_SIZE_LIMIT
from toolkit.solvers.linear_program import CompiledModel
from toolkit.solvers.registry import SOLVERS, open_session
from toolkit.solvers.session import Licence, SolverUnavailableError
from toolkit.verify.margins import margin_problem


def test_the_declared_statuses_are_words_of_gurobi() -> None:
    codes = pytest.importorskip("gurobipy").GRB.Status
    assert all(isinstance(getattr(codes, word), int) for word in GUROBI.statuses)


def _big_mip() -> CompiledModel:
    count = GUROBI_SIZE_LIMIT + 1
    zeros, ones = np.zeros(count), np.ones(count)
    return CompiledModel(sp.csc_array((1, count)), zeros[:1], ones[:1], zeros, ones, ones.astype(bool))


def test_auto_takes_gurobi_only_within_its_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = replace(SOLVERS["gurobi"], licence=lambda: Licence(True, "size-limited", GUROBI_SIZE_LIMIT))
    monkeypatch.setitem(SOLVERS, "gurobi", limited)
    assert open_session(_big_mip(), Settings()).name == "highs"
    if limited.status().usable:
        assert open_session(MIPS["knapsack"].model, Settings()).name == "gurobi"
    monkeypatch.setitem(SOLVERS, "gurobi", replace(limited, licence=lambda: Licence(False, "none", reason="expired")))
    assert open_session(MIPS["knapsack"].model, Settings()).name == "highs"


@pytest.mark.skipif(not SOLVERS["gurobi"].status().size_limit, reason="needs Gurobi with its size-limited licence")
def test_gurobis_size_error_is_caught_even_if_the_licence_was_misread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Error 10010 in the middle of a rung: the row is solved by HiGHS and says why."""
    monkeypatch.setitem(SOLVERS, "gurobi", replace(SOLVERS["gurobi"], licence=lambda: Licence(True, "full")))
    session = open_session(_big_mip(), Settings(solver="gurobi"))
    with pytest.raises(SolverUnavailableError, match="10010"):
        session.minimize(np.ones(3))
    rng = np.random.default_rng(0)
    network = random_dense_network(rng, (2001, 3, 2))
    problem = margin_problem(network, LinfBall(np.zeros(2001), 0.1), 0, settings=Settings(solver="gurobi"))
    (bound,) = get_rung("exact")(problem)
    assert bound.solver == "highs"
    assert "fell back to highs" in bound.message
    assert "10010" in bound.message
