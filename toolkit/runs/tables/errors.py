"""Robust errors of published networks: each stage asks the images that no earlier one decided.

An image certified by one bound is certified by every tighter one and cannot be attacked, and an attacked image cannot
be certified; so a stage's column over all its images follows from the images it was asked. Column of a stage that
certifies: the share of images, misclassified ones included, that no stage up to it certified; of an attack: the share
that some stage up to it showed to be misclassified somewhere in the ball, by a replayed point.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from toolkit.data.arguments import check_labels
from toolkit.data.datasets import Dataset, load_dataset
from toolkit.networks.network import Network
from toolkit.problems.answers import Verdict
from toolkit.runs.batch import BatchPlan, BatchRow, certify_samples
from toolkit.runs.rows import VERDICT_ROWS
from toolkit.runs.tables.answers import Advance, Answer, Answers
from toolkit.runs.tables.entries import CLEAN, ErrorsEntry, ErrorsRow, StageSpec

TIME = "seconds_"  # how the columns of l,u's and rungs' seconds begin
ERROR_COLUMNS = ("label", "verdict", "rung", "lower", "upper", "unstable", "seconds", "cpu_seconds")


@dataclass(frozen=True)
class ErrorCell:
    """One number of the table, in % of `images`: error, and below it attacked where the two may differ.

    asked: images that reached the stage; yes, no, maybe: their verdicts; settled: how many each rung settled; seconds:
    of all of them, slowest: of one.
    published: as in the entry. digest: of the network.
    """

    row: str
    column: str
    images: int
    error: float
    attacked: float
    asked: int
    yes: int
    no: int
    maybe: int
    settled: str
    seconds: float
    slowest: float
    published: float | tuple[float, float] | None
    digest: str


def run_errors(
    entry: ErrorsEntry, out: Path, run_id: str, count: int | None, workers: int, advance: Advance
) -> tuple[list[ErrorCell], pd.DataFrame]:
    """The table's cells, and one line per (row, stage, image) asked, with the seconds of l,u and of each rung.

    count: at most so many images, None = all. Raises FileNotFoundError for weights or data that are neither here nor
    reachable, ValueError for what does not fit, UnansweredError where an image fails. run_id: of the run that new
    answers come from.
    """
    cells: list[ErrorCell] = []
    asked: list[pd.DataFrame] = []
    for row in entry.rows:
        network, data = Network.load(row.network, row.architecture), load_dataset(row.dataset, domain=row.domain)
        check_labels(data.labels[:count], network.output_size, row.dataset)
        verdicts = _clean_verdicts(network, data, count)
        cells.append(_clean_cell(row, network, verdicts))
        for stage in entry.stages_of(row):
            images = min(stage.samples or len(verdicts), len(verdicts))
            waiting = [i for i in range(images) if verdicts[i] == Verdict.MAYBE]
            plan = stage.plan(row.eps, row.domain, row.norm)
            question = {
                "network": network.digest,
                "dataset": data.key,
                "plan": plan.record,
                "rungs": stage.versions,
            }
            answers = Answers(out, run_id, VERDICT_ROWS, question)
            ask = partial(_ask, network, data, plan, workers)
            found = _with_times(answers.complete(f"{row.name} · {stage.name}", waiting, ask, advance), stage)
            for sample, verdict in found["verdict"].items():
                verdicts[int(str(sample))] = str(verdict)
            cells.append(_cell(row, stage, network, verdicts[:images], found))
            asked.append(found.reset_index().assign(row=row.name, column=stage.name))
    lines = pd.concat(asked, ignore_index=True)
    first = ["row", "column", "sample", *ERROR_COLUMNS]
    return cells, lines[[*first, *(name for name in lines.columns if name not in first)]]


def _clean_verdicts(network: Network, data: Dataset, count: int | None) -> list[str]:
    """NO for a misclassified image, MAYBE for every other."""
    images = min(count or len(data), len(data))
    right = network.predict(data.features[:images]) == data.labels[:images]
    return [str(Verdict.MAYBE if fits else Verdict.NO) for fits in right.tolist()]


def _ask(
    network: Network,
    data: Dataset,
    plan: BatchPlan,
    workers: int,
    samples: Sequence[int],
    settle: Callable[[Answer], None],
) -> None:
    def stored(row: BatchRow) -> None:
        """The row as it is kept, a failed one as it is."""
        times = {name.removeprefix(TIME): row[name] for name in row if name.startswith(TIME)}
        kept = {name: row[name] for name in ("sample", *ERROR_COLUMNS) if name in row}
        settle(kept | {"rung_seconds": json.dumps(times)} if "seconds" in row else row)

    certify_samples(network, data, samples, plan, workers, stored)


def _with_times(found: pd.DataFrame, stage: StageSpec) -> pd.DataFrame:
    """Answers with the seconds of l,u and of every rung as columns of their own, blank for what was not needed."""
    each = [json.loads(text) for text in found["rung_seconds"]]
    times = {f"{TIME}{name}": [one.get(name) for one in each] for name in ("bounds", *stage.ladder)}
    blank = found["rung"].where(found["rung"] != "")
    return found.drop(columns="rung_seconds").assign(
        rung=blank, **{name: np.array(values, dtype=np.float64) for name, values in times.items()}
    )


def _clean_cell(row: ErrorsRow, network: Network, verdicts: list[str]) -> ErrorCell:
    wrong = _percent(verdicts, Verdict.NO)
    published = row.published.get(CLEAN)
    return ErrorCell(
        row.name, CLEAN, len(verdicts), wrong, wrong, len(verdicts), 0, 0, 0, "", 0.0, 0.0, published, network.digest
    )


def _cell(row: ErrorsRow, stage: StageSpec, network: Network, verdicts: list[str], found: pd.DataFrame) -> ErrorCell:
    attacked = _percent(verdicts, Verdict.NO)
    settled = found["rung"].dropna().value_counts()
    counts = {verdict: int((found["verdict"] == str(verdict)).sum()) for verdict in Verdict}
    return ErrorCell(
        row=row.name,
        column=stage.name,
        images=len(verdicts),
        error=_percent(verdicts, Verdict.NO, Verdict.MAYBE) if stage.certifies else attacked,
        attacked=attacked,
        asked=len(found),
        yes=counts[Verdict.YES],
        no=counts[Verdict.NO],
        maybe=counts[Verdict.MAYBE],
        settled=", ".join(f"{name} {settled[name]}" for name in stage.ladder if name in settled),
        seconds=float(found["seconds"].sum()),
        slowest=float(found["seconds"].max()) if len(found) else 0.0,
        published=row.published.get(stage.name),
        digest=network.digest,
    )


def _percent(found: list[str], *verdicts: Verdict) -> float:
    """Share of the images with one of the verdicts: from counts, so that equal counts are equal numbers."""
    return 100.0 * sum(found.count(str(verdict)) for verdict in verdicts) / len(found)
