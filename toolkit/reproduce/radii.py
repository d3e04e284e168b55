"""Mean radii: for every test image the largest ε a ladder certifies and the smallest at which it finds a witness.

Column of a method that certifies: the mean of the largest ε certified, a lower bound of the mean robustness radius; of
an attack: the mean of the smallest ε at which it succeeded, an upper bound. Both by bisection (radius.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from toolkit.data import load_dataset
from toolkit.executors import run_calls
from toolkit.network import Network
from toolkit.radius import certified_radius
from toolkit.reproduce.cells import Cell
from toolkit.reproduce.entries import Method, RadiiEntry, RadiiRow

CELL_COLUMNS = ("certified", "refuted", "verdicts", "seconds")
Advance = Callable[[str, int, int], None]
UNIT = 1e-3  # of the table's numbers


@dataclass(frozen=True)
class RadiusCell:
    """One number of the table, in units of 10⁻³.

    value: mean certified ε, for an attack the mean refuted one. certified, refuted: means of both sides, NaN where some
    image has none. images, seconds in all, published as in the entry, digest of the network.
    """

    row: str
    column: str
    images: int
    value: float
    certified: float
    refuted: float
    seconds: float
    published: float | None
    digest: str


def run_radii(
    entry: RadiiEntry, out: Path, count: int | None, workers: int, advance: Advance
) -> tuple[list[RadiusCell], pd.DataFrame]:
    """The table's cells, and one line per (row, method, image). count: the first so many images of every row."""
    cells: list[RadiusCell] = []
    found: list[pd.DataFrame] = []
    for row in entry.rows:
        network = Network.load(row.network, row.architecture)
        for method in entry.methods_of(row):
            radii = _measure(row, method, network, row.samples[:count], out, workers, advance)
            cells.append(_cell(row, method, network, radii))
            found.append(radii.reset_index().assign(row=row.name, column=method.name))
    return cells, pd.concat(found, ignore_index=True)[["row", "column", "sample", *CELL_COLUMNS]]


def _measure(
    row: RadiiRow,
    method: Method,
    network: Network,
    samples: tuple[int, ...],
    out: Path,
    workers: int,
    advance: Advance,
) -> pd.DataFrame:
    """Stored radii of the samples, computing those that are missing. Indexed by sample."""
    data = load_dataset(row.dataset)
    outside = [sample for sample in samples if sample >= len(data)]
    if outside:
        raise ValueError(f"row {row.name!r}: samples must be in 0 … {len(data) - 1}, got {outside[0]}")
    question = {
        "network": network.digest,
        "dataset": row.dataset,
        "largest": row.largest,
        "tolerance": method.tolerance,
        "plan": asdict(method.plan(row.largest, row.domain)),
    }
    cell = Cell(out, row.name, method.name, question, CELL_COLUMNS)
    known = cell.read()
    missing = [sample for sample in samples if sample not in known.index]
    title, done = f"{row.name} · {method.name}", len(samples) - len(missing)
    advance(title, done, len(samples))
    calls = [(network, data.features[i], int(data.labels[i]), i, row, method) for i in missing]
    for _, finished in run_calls(measure_one, calls, workers if len(missing) > 1 else 1):
        cell.append(finished.result())
        done += 1
        advance(title, done, len(samples))
    return cell.read().loc[list(samples)]


def measure_one(network: Network, image: Any, label: int, sample: int, row: RadiiRow, method: Method) -> dict[str, Any]:
    """One sample's radius as a line of its cell; a module-level function, so that it can run in another process."""
    started = time.perf_counter()
    plan = method.plan(row.largest, row.domain)
    radius = certified_radius(
        network, image, label, plan.ladder, row.largest, method.tolerance, row.domain, plan.bounds, plan.tighten,
        plan.settings, plan.time_limit,
    )  # fmt: skip
    spent = time.perf_counter() - started
    return {
        "sample": sample,
        "certified": radius.certified,
        "refuted": radius.refuted,
        "verdicts": len(radius.tried),
        "seconds": spent,
    }


def _cell(row: RadiiRow, method: Method, network: Network, radii: pd.DataFrame) -> RadiusCell:
    certified, refuted = float(radii["certified"].mean()) / UNIT, float(radii["refuted"].mean()) / UNIT
    return RadiusCell(
        row=row.name,
        column=method.name,
        images=len(radii),
        value=certified if method.certifies else refuted,
        certified=certified,
        refuted=refuted if np.isfinite(refuted) else float("nan"),
        seconds=float(radii["seconds"].sum()),
        published=row.published.get(method.name),
        digest=network.digest,
    )
