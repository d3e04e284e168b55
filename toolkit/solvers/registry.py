"""The solvers, by name, and which of them opens a model. A new solver is one file here and one line in this registry.

`open_session` picks one for a compiled model and falls back to the last resort, which is always there, saying so in the
message of every report. A model that the last resort refuses as well gets a NoSession.
"""

from __future__ import annotations

from toolkit.problems.settings import Settings
from toolkit.solvers.gurobi import GUROBI
from toolkit.solvers.highs import HIGHS
from toolkit.solvers.linear_program import CompiledModel
from toolkit.solvers.scip import SCIP
from toolkit.solvers.session import NoSession, Session, Solver, SolverUnavailableError

SOLVERS: dict[str, Solver] = {
    solver.name: solver
    for solver in (
        HIGHS,
        GUROBI,
        SCIP,
    )
}
AUTOMATIC = "auto"
AUTOMATIC_LP = "highs"  # whose warm start was measured faster
AUTOMATIC_MILP = "gurobi"  # where the model fits the licence found


def check_solver_name(name: str) -> str:
    """The name itself; ValueError lists the allowed ones."""
    allowed = (AUTOMATIC, *SOLVERS)
    if name not in allowed:
        raise ValueError(f"unknown solver {name!r}; allowed: {', '.join(allowed)}")
    return name


def open_session(model: CompiledModel, settings: Settings) -> Session:
    """A session for the model in the solver the settings ask for.

    "auto": for an LP HiGHS, for a MILP Gurobi when the model fits the licence found, else the last resort. A solver
    asked for by name that cannot take the model falls back to the last resort, and the reason stands in the message of
    every report; where that cannot either, every report is FAILED with both reasons. Raises ValueError for an unknown
    name.
    """
    name = check_solver_name(settings.solver)
    if name == AUTOMATIC:
        name = automatic_milp_solver(model) if model.is_mip else AUTOMATIC_LP
    solver = SOLVERS[name]
    reason = solver.refusal(model)
    if not reason:
        try:
            return solver.open(model, settings)
        except SolverUnavailableError as error:
            reason = str(error)
    return fall_back(model, settings, reason)


def automatic_milp_solver(model: CompiledModel) -> str:
    """The MILP solver "auto" means for a model of this size: Gurobi within the licence found, else the last resort."""
    return last_resort().name if SOLVERS[AUTOMATIC_MILP].refusal(model) else AUTOMATIC_MILP


def last_resort() -> Solver:
    """The solver that takes whatever another one refuses."""
    return next(solver for solver in SOLVERS.values() if solver.last_resort)


def fall_back(model: CompiledModel, settings: Settings, reason: str) -> Session:
    """A session of the last resort whose reports say why another solver was not used, or a NoSession if it refuses."""
    solver = last_resort()
    try:
        return solver.open(model, settings, f"fell back to {solver.name}: {reason}")
    except SolverUnavailableError as error:
        reasons = dict.fromkeys((reason, str(error)))  # the same one if it was the first choice
        return NoSession(solver, "no solver takes the model: " + "; ".join(reasons))
