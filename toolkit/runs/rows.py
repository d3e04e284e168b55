"""What rows on disk hold: one bound of a sweep, or one sample's answer in a paper table; and their columns' types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from toolkit.arrays import FloatArray
from toolkit.problems.answers import Status

_DTYPES = {"str": "str", "int": "int64", "float": "float64"}
_ARROW = {"str": pa.string(), "int64": pa.int64(), "float64": pa.float64()}


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What every row has. key: hash of all that determines the row. run_id: an entry of provenance.json."""

    key: str
    run_id: str


@dataclass(frozen=True, kw_only=True)
class Row(Stored):
    """One bound in a table: what was asked, what was proven, how long it took, and where it comes from.

    lower, upper: proven interval for m*_t (lower −inf and status "failed" where a rung failed; `message` says why).
    certified_lower: a lower bound that holds in real arithmetic and trusts no solver, −inf where a rung gives none.
    certified_upper: an upper bound in real arithmetic, from the rung's witness or the sample itself, +inf without one.
    seconds, build_seconds: of this row; bounds_seconds: of the l,u chain, shared by the rows of a task. unstable,
    active, inactive: neurons over all layers. relaxed: how many unstable neurons the relaxation's optimum leaves off
    their ReLU (0: its bound is m*; −1 where its point, replayed, does not show that), max_slack: by how much at most,
    y − max(x̂, 0); both −1 where a rung has no such point. clean_margin: F_{c*} − F_t at the sample. domain: "[0, 1]" or
    "none". layer_bounds: the chain, "interval+dual".
    """

    network: str
    network_digest: str
    dataset: str
    sample: int
    label: int
    target: int
    norm: str
    eps: float
    domain: str
    layer_bounds: str
    rung: str
    lower: float
    upper: float
    certified_lower: float
    certified_upper: float
    status: str
    seconds: float
    build_seconds: float
    bounds_seconds: float
    solver: str
    solver_version: str
    nodes: int
    unstable: int
    active: int
    inactive: int
    clean_margin: float
    relaxed: int
    max_slack: float
    message: str


@dataclass(frozen=True, kw_only=True)
class VerdictRow(Stored):
    """One sample's verdict in a table of errors, as `certify` gives it.

    rung: the last one needed, "" where it is MAYBE. lower, upper: of the least margin. unstable: neurons, −1: l,u not
    needed. rung_seconds: of l,u and of every rung asked, as JSON.
    """

    sample: int
    label: int
    verdict: str
    rung: str
    lower: float
    upper: float
    unstable: int
    rung_seconds: str
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class RadiusRow(Stored):
    """One sample's radius: the largest ε certified, the smallest refuted (+inf: none), and verdicts asked for it."""

    sample: int
    certified: float
    refuted: float
    verdicts: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class QueryRow(Stored):
    """The answer to one VNN-LIB instance of a benchmark.

    onnx, vnnlib: as the benchmark names them. timeout: seconds allowed. verdict: sat, unsat, unknown, timed-out, or
    error, with the reason as message. certified: 1 where it is proven in real arithmetic. deployed: whether onnxruntime
    agrees or disagrees that the point is unsafe, "" without one. questions: boxes asked. cpu_seconds: of its process,
    NaN where that died and in rows of version 1.
    """

    benchmark: str
    onnx: str
    vnnlib: str
    timeout: float
    verdict: str
    seconds: float
    certified: int
    deployed: str
    questions: int
    message: str
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class DistanceRow(Stored):
    """One sample's least distance to an unsafe point, in [certified, refuted] (+inf: none found).

    rungs: what each rung showed, as JSON: [[rung, certified, refuted or null, verdicts, seconds], …] in order.
    """

    sample: int
    label: int
    certified: float
    refuted: float
    rungs: str
    verdicts: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Schema:
    """The columns of one kind of row. version: raised when columns are added; `added` is what rows of version 1 lack.

    rank: of several rows with one key and run, the one that counts has the largest; None: the last written.
    """

    kind: type[Stored]
    version: int = 1
    added: Mapping[str, float] = field(default_factory=dict)
    rank: Callable[[pd.DataFrame], FloatArray] | None = None

    @cached_property
    def columns(self) -> dict[str, str]:
        """dtype of every column, in order; key and run_id come last."""
        found = {one.name: _DTYPES[str(one.type)] for one in fields(self.kind)}
        return {name: dtype for name, dtype in found.items() if name not in ("key", "run_id")} | {
            "key": "str",
            "run_id": "str",
        }

    @cached_property
    def arrow(self) -> Any:  # pyarrow has no types
        """The columns for Parquet."""
        return pa.schema([(name, _ARROW[dtype]) for name, dtype in self.columns.items()])

    @cached_property
    def lines(self) -> Any:
        """The columns of a line in a shard, which says its version."""
        return self.arrow.append(pa.field("schema", pa.int64()))


def _finished_first(rows: pd.DataFrame) -> FloatArray:
    """A bound that neither failed nor ran out of time empty-handed."""
    finished = 2 * (rows["status"] != Status.FAILED) - (rows["status"] == Status.TIME_LIMIT)
    return np.asarray(2 * finished + (rows["lower"] > -np.inf), dtype=np.float64)


BOUND_ROWS = Schema(Row, 2, {"certified_upper": float("inf")}, _finished_first)  # by default nothing is proven
VERDICT_ROWS = Schema(VerdictRow)
RADIUS_ROWS = Schema(RadiusRow)
QUERY_ROWS = Schema(QueryRow, 2, {"cpu_seconds": float("nan")})
DISTANCE_ROWS = Schema(DistanceRow)
ROW_COLUMNS = BOUND_ROWS.columns
