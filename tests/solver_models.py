"""Programs whose optima are worked out by hand, and sessions that say what a test tells them to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from toolkit.problems.answers import Status
from toolkit.problems.settings import Settings
from toolkit.solvers.linear_program import CompiledModel
from toolkit.solvers.session import Licence, Session, Solver
from toolkit.solvers.solve_report import SolveReport

inf = np.inf


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
    "= in a wider box": Known(model_of([[1, 2]], [(3, 3)], [(0, 5)] * 2), (1, 1), 1.5, (0.5,)),
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
    # min −x − 2y, x + y ≤ 4, x − y ≥ −2: x = 1, y = 3
    "two rows": Known(model_of([[1, 1], [1, -1]], [(-inf, 4), (-2, inf)], [(0, 10)] * 2), (-1, -2), -7.0, (-1.5, 0.5)),
    "negative columns": Known(model_of([[1, 1]], [(-3, inf)], [(-4, -1), (-4, -1)]), (2, 1), -5.0, (2,)),
}

MIPS = {
    # a = b = 1
    "knapsack": Known(model_of([[2, 3, 1]], [(-inf, 5)], [(0, 1)] * 3, [True] * 3), (-5, -4, -3), -9.0),
    "two-sided": Known(model_of([[2, 3, 4]], [(4.5, 6.5)], [(0, 1)] * 3, [True] * 3), (2, 2, 1), 3.0),
    "equality": Known(model_of([[3, 5, 7]], [(8, 8)], [(0, 1)] * 3, [True] * 3), (-1, -1, -3), -2.0),
    "general integers": Known(model_of([[7, -3]], [(-4, 5)], [(0, 4), (-1, 3)], [True] * 2), (-3, -1), -9.0),
    # the relaxation's −9.5 lies under it: z ≤ 19/7
    "rounding": Known(model_of([[7]], [(-inf, 19)], [(0, 5)], [True]), (-3.5,), -7.0),
    # y is continuous and fills what x leaves
    "mixed": Known(model_of([[2, 1]], [(-inf, 2.5)], [(0, 3), (0, 1)], [True, False]), (-3, -1), -3.5),
}


class ClaimingSession(Session):
    """A session whose solver claims whatever the test says."""

    claim = SolveReport(Status.OPTIMAL, 0.0)

    def _solve(self, cost: np.ndarray, offset: float, settings: Settings) -> SolveReport:
        return self.claim


CLAIMED = Solver("claimed", "numpy", "nobody", ClaimingSession, lambda: Licence(True, "any"))
