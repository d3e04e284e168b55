"""The one question every rung answers: bound min over P of C·F + d, row by row, on a region, under some settings.

rung(problem) -> list[Bound]        problem = (region, objective, settings), region = (network, input set, l,u)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray
from toolkit.data.arguments import instance
from toolkit.networks.network import Network
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_set import InputSet
from toolkit.problems.lowering import without_constants
from toolkit.problems.properties import Objective, one_dense_row
from toolkit.problems.region import Region, centre_outputs
from toolkit.problems.settings import Settings
from toolkit.problems.workspace import Workspace


@dataclass(frozen=True, eq=False)
class Problem:
    """Bound min over the region of C·F(x̃), row by row.

    workspace: lends solver sessions and the like; problems made of each other share it. Rows have no constants here:
    `Problem.of` puts them into the network, as an output that is 1. Raises ValueError for parts that do not fit.
    """

    region: Region
    objective: Objective
    settings: Settings = field(default_factory=Settings)
    workspace: Workspace = field(default_factory=Workspace, repr=False)

    def __post_init__(self) -> None:
        instance("region", self.region, Region), instance("objective", self.objective, Objective)
        instance("settings", self.settings, Settings)
        outputs = self.region.network.output_size
        if self.objective.outputs != outputs:
            raise ValueError(f"rows must have shape (m, {outputs}), got {self.objective.rows.shape}")
        if self.objective.constants is not None:
            raise ValueError("rows of a problem have no constants; Problem.of takes them")

    @classmethod
    def of(
        cls,
        network: Network,
        input_set: InputSet,
        rows: Any,
        relu_bounds: ReluBounds,
        settings: Settings | None = None,
        targets: Sequence[int | None] = (),
        constants: FloatArray | None = None,
    ) -> Problem:
        """The problem of these parts. rows: C, (m, outputs), dense or scipy.sparse; constants: d, (m,)."""
        objective = Objective(rows, constants, tuple(targets))
        instance("network", network, Network)
        network, objective = without_constants(network, objective)
        return cls(Region(network, input_set, relu_bounds), objective, Settings() if settings is None else settings)

    @property
    def network(self) -> Network:
        """F."""
        return self.region.network

    @property
    def input_set(self) -> InputSet:
        """P."""
        return self.region.input_set

    @property
    def relu_bounds(self) -> ReluBounds:
        """l,u."""
        return self.region.relu_bounds

    @property
    def rows(self) -> Any:
        """C, shape (m, outputs), dense or scipy.sparse."""
        return self.objective.rows

    @property
    def targets(self) -> tuple[int | None, ...]:
        """The class each row belongs to, or None."""
        return self.objective.targets

    def questions(self) -> list[str]:
        """`asked` of every row."""
        return [self.asked(row) for row in range(len(self.objective))]

    def asked(self, row: int) -> str:
        """What bounds of this row are about: SHA-256 of network, input set and the row itself."""
        state = self.region.derive(_identity)
        return hashlib.sha256(state + one_dense_row(self.rows, row).tobytes()).hexdigest()

    def with_rows(self, rows: Any, targets: Sequence[int | None] = ()) -> Problem:
        """The same region with other objective rows."""
        return replace(self, objective=Objective(rows, None, tuple(targets)))

    def with_settings(self, settings: Settings) -> Problem:
        """The same problem under other settings."""
        return replace(self, settings=settings)

    def replay(self, points: ArrayLike) -> FloatArray:
        """C·F at each point, by the original network. Shapes: (k, n) → (k, m)."""
        with np.errstate(over="ignore", invalid="ignore"):  # infinite or NaN then, which proves nothing
            outputs = self.network.forward(np.atleast_2d(np.asarray(points, dtype=np.float64)))
            return np.asarray((self.rows @ outputs.T).T, dtype=np.float64)

    def clean_values(self) -> FloatArray:
        """C·F at the set's centre, shape (m,)."""
        outputs = self.region.derive(centre_outputs)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(self.rows @ outputs, dtype=np.float64)


def _identity(region: Region) -> bytes:
    return f"{region.input_set.digest}.{region.network.digest}".encode()
