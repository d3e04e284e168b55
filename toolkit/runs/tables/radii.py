"""Mean radii: for every test image the largest ε a ladder certifies and the smallest at which it finds a witness.

Column of a method that certifies: the mean of the largest ε certified, a lower bound of the mean robustness radius; of
an attack: the mean of the smallest ε at which it succeeded, an upper bound. Both by bisection (radius.py), every
method starting from the interval that those before it left: list attacks first, then certificates from weak to strong.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from toolkit.arrays import FloatArray
from toolkit.data.datasets import dataset_key, load_dataset
from toolkit.networks.network import Network
from toolkit.runs.rows import RADIUS_ROWS
from toolkit.runs.run import gather
from toolkit.runs.tables.answers import Advance, Answer, Answers, failed_answer
from toolkit.runs.tables.entries import RadiiEntry, RadiiRow, RadiusMethod
from toolkit.verify.radius import certified_radius

ASKED = {"dataset", "largest", "domain", "predicted"}  # keys of a row that its answers depend on
RADIUS_COLUMNS = ("certified", "refuted", "verdicts", "seconds")
THOUSANDTH = 1e-3  # of the table's numbers


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
    entry: RadiiEntry, out: Path, run_id: str, count: int | None, workers: int, advance: Advance
) -> tuple[list[RadiusCell], pd.DataFrame]:
    """The table's cells, and one line per (row, method, image). count: the first so many images of every row.

    run_id: of the run that new answers come from. Raises as run_errors does.
    """
    cells: list[RadiusCell] = []
    found: list[pd.DataFrame] = []
    for row in entry.rows:
        network, samples = Network.load(row.network, row.architecture), list(row.samples[:count])
        known = dict.fromkeys(samples, (0.0, math.inf))
        earlier: list[RadiusMethod] = []
        for method in entry.methods_of(row):
            earlier.append(method)
            # all methods so far: each starts from what those before it found
            methods = [one.model_dump() | {"rungs": one.versions} for one in earlier]
            about = row.model_dump(include=ASKED) | {"dataset": dataset_key(row.dataset, row.domain)}
            asked = {"network": network.digest, "row": about, "methods": methods}
            answers = Answers(out, run_id, RADIUS_ROWS, asked)
            ask = partial(_ask, row, method, network, known, workers)
            radii = answers.complete(f"{row.name} · {method.name}", samples, ask, advance)
            cells.append(_cell(row, method, network, radii))
            found.append(radii.reset_index().assign(row=row.name, column=method.name))
            sides = zip(radii.index, radii["certified"], radii["refuted"], strict=True)
            known = {int(i): (max(low, known[int(i)][0]), min(high, known[int(i)][1])) for i, low, high in sides}
    return cells, pd.concat(found, ignore_index=True)[["row", "column", "sample", *RADIUS_COLUMNS]]


@dataclass(frozen=True, eq=False)
class RadiusTask:
    """One image's radius by one method, from the interval that earlier methods left."""

    network: Network
    image: FloatArray
    label: int
    sample: int
    row: RadiiRow
    method: RadiusMethod
    known: tuple[float, float]


def _ask(
    row: RadiiRow,
    method: RadiusMethod,
    network: Network,
    known: Mapping[int, tuple[float, float]],
    workers: int,
    samples: Sequence[int],
    settle: Callable[[Answer], None],
) -> None:
    data = load_dataset(row.dataset, domain=row.domain)
    outside = [sample for sample in samples if sample >= len(data)]
    if outside:
        raise ValueError(f"row {row.name!r}: samples must be in 0 … {len(data) - 1}, got {outside[0]}")
    features = data.features[list(samples)]
    labels = network.predict(features) if row.predicted else data.labels[list(samples)]
    each = zip(features, labels.tolist(), samples, strict=True)
    tasks = [RadiusTask(network, image, int(label), i, row, method, known[i]) for image, label, i in each]
    gather(measure_radius, tasks, workers, settle, failed_answer)


def measure_radius(task: RadiusTask) -> Answer:
    """One sample's radius as the row that is kept of it, or why there is none; a module-level function, so that it can
    run in another process."""
    started, row, method = time.perf_counter(), task.row, task.method
    plan = method.plan(row.largest, row.domain)
    try:
        radius = certified_radius(
            task.network, task.image, task.label, plan.ladder, row.largest, method.tolerance, row.domain, plan.bounds,
            plan.tighten, plan.settings, plan.time_limit, task.known,
        )  # fmt: skip
    except Exception as error:  # one sample's failure must not lose the others
        return failed_answer(task, error)
    return {
        "sample": task.sample,
        "certified": radius.certified,
        "refuted": radius.refuted,
        "verdicts": len(radius.tried),
        "seconds": time.perf_counter() - started,
    }


def _cell(row: RadiiRow, method: RadiusMethod, network: Network, radii: pd.DataFrame) -> RadiusCell:
    certified, refuted = float(radii["certified"].mean()) / THOUSANDTH, float(radii["refuted"].mean()) / THOUSANDTH
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
