"""Mean radii: for every test image the largest ε a ladder certifies and the smallest at which it finds a witness.

Column of a method that certifies: the mean of the largest ε certified, a lower bound of the mean robustness radius; of
an attack: the mean of the smallest ε at which it succeeded, an upper bound. Both by bisection (radius.py), every
method starting from the interval that those before it left: list attacks first, then certificates from weak to strong.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from toolkit.arrays import FloatArray
from toolkit.data.datasets import load_dataset
from toolkit.networks.network import Network
from toolkit.runs.executors import run_calls
from toolkit.runs.tables.cells import Advance, Cell, CellError
from toolkit.runs.tables.entries import Method, RadiiEntry, RadiiRow
from toolkit.verify.radius import certified_radius

CELL_COLUMNS = ("certified", "refuted", "verdicts", "seconds")
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
        network, samples = Network.load(row.network, row.architecture), list(row.samples[:count])
        known = dict.fromkeys(samples, (0.0, math.inf))
        earlier: list[Method] = []
        for method in entry.methods_of(row):
            earlier.append(method)
            radii = _measure(row, earlier, network, known, out, workers, advance)
            cells.append(_cell(row, method, network, radii))
            found.append(radii.reset_index().assign(row=row.name, column=method.name))
            sides = zip(radii.index, radii["certified"], radii["refuted"], strict=True)
            known = {int(i): (max(low, known[int(i)][0]), min(high, known[int(i)][1])) for i, low, high in sides}
    return cells, pd.concat(found, ignore_index=True)[["row", "column", "sample", *CELL_COLUMNS]]


def _measure(
    row: RadiiRow,
    methods: Sequence[Method],
    network: Network,
    known: Mapping[int, tuple[float, float]],
    out: Path,
    workers: int,
    advance: Advance,
) -> pd.DataFrame:
    """Stored radii by the last of the methods, computing those that are missing. Indexed by sample."""
    data, method = load_dataset(row.dataset), methods[-1]
    samples = list(known)
    outside = [sample for sample in samples if sample >= len(data)]
    if outside:
        raise ValueError(f"row {row.name!r}: samples must be in 0 … {len(data) - 1}, got {outside[0]}")
    asked = [
        one.model_dump() | {"rungs": one.versions} for one in methods
    ]  # all of them: each starts from what those before it found
    question = {"network": network.digest, "row": row.model_dump(include={"dataset", "largest", "domain", "predicted"})}
    cell = Cell(out, row.name, method.name, question | {"methods": asked}, CELL_COLUMNS)
    stored = cell.read()
    missing = [sample for sample in samples if sample not in stored.index]
    title, done = f"{row.name} · {method.name}", len(samples) - len(missing)
    advance(title, done, len(samples))
    labels = network.predict(data.features[missing]) if row.predicted and missing else data.labels[missing]
    calls = [
        (network, data.features[i], int(label), i, row, method, known[i])
        for i, label in zip(missing, labels, strict=True)
    ]
    failed: list[str] = []
    for call, finished in run_calls(measure_one, calls, workers if len(missing) > 1 else 1):
        error = finished.exception()
        if error is None:
            cell.append(finished.result())
        else:
            failed.append(f"image {call[3]}: {type(error).__name__}: {error}")
        done += 1
        advance(title, done, len(samples))
    if failed:
        raise CellError(f"{title}: {len(failed)} of {len(missing)} images failed, first {failed[0]}")
    return cell.read().loc[samples]


def measure_one(
    network: Network,
    image: FloatArray,
    label: int,
    sample: int,
    row: RadiiRow,
    method: Method,
    known: tuple[float, float],
) -> dict[str, Any]:
    """One sample's radius as a line of its cell; a module-level function, so that it can run in another process."""
    started = time.perf_counter()
    plan = method.plan(row.largest, row.domain)
    radius = certified_radius(
        network, image, label, plan.ladder, row.largest, method.tolerance, row.domain, plan.bounds, plan.tighten,
        plan.settings, plan.time_limit, known,
    )  # fmt: skip
    return {
        "sample": sample,
        "certified": radius.certified,
        "refuted": radius.refuted,
        "verdicts": len(radius.tried),
        "seconds": time.perf_counter() - started,
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
