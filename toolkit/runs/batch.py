"""Verdicts of many samples of a data set: one certification each, on one or several processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd

from toolkit.arrays import FloatArray, IndexArray
from toolkit.data.amounts import DataDomain, keyed
from toolkit.data.arguments import check_labels, instance, optional_number, real_number, whole_numbers
from toolkit.data.datasets import Dataset
from toolkit.data.images import check_fits
from toolkit.networks.class_names import check_class_names
from toolkit.networks.network import Network
from toolkit.problems.answers import Verdict
from toolkit.problems.input_sets import make_ball
from toolkit.problems.properties import Property, as_property
from toolkit.problems.property_table import property_digest
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rungs
from toolkit.rungs.rung import Side
from toolkit.runs.executors import check_workers
from toolkit.runs.run import gather
from toolkit.verify.ladder import LADDER, TIGHTEN, certify
from toolkit.verify.usable_settings import usable_settings
from toolkit.verify.verdict import TOLERANCE

BatchRow = dict[str, object]
LARGEST_CHUNK = 16  # samples a process is handed at a time


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """What every sample of a batch is asked; the parameters are those of `certify`.

    question: a property, asked of every sample in place of its label's class.
    """

    eps: float | FloatArray
    domain: DataDomain | None = (0.0, 1.0)
    ladder: tuple[str, ...] = LADDER
    bounds: tuple[str, ...] = ("interval", "dual")
    tighten: tuple[str, ...] = TIGHTEN
    settings: Settings = field(default_factory=Settings)
    time_limit: float | None = None
    tolerance: float = TOLERANCE
    norm: str = "linf"
    question: Property | None = None

    @property
    def record(self) -> dict[str, Any]:
        """All that determines the answers; the norm and the question only where they are not the usual ones, as answers
        kept from before lack them."""
        plain = asdict(replace(self, question=None))
        found = {name: keyed(value) for name, value in plain.items()} | {"settings": self.settings.record}
        found["question"] = None if self.question is None else property_digest(self.question)
        usual = {"norm": "linf", "question": None}
        return {name: value for name, value in found.items() if name not in usual or value != usual[name]}


def certify_samples(
    network: Network,
    data: Dataset,
    samples: Sequence[int],
    plan: BatchPlan,
    workers: int = 1,
    progress: Callable[[BatchRow], None] | None = None,
) -> pd.DataFrame:
    """One row per sample: sample, label, verdict, rung (the last one needed), seconds, cpu_seconds (of the process),
    lower and upper (of the least margin), unstable (neurons, −1: l,u not needed), message, seconds_NAME per rung.

    progress: called with each row as it is finished. A sample that raises gets verdict MAYBE and the error as message.
    Raises ValueError for an unknown rung, a sample outside the data set or a network that does not take its images.
    """
    workers, samples = check_workers(workers), whole_numbers("samples", samples)
    check_batch(network, data, samples, plan)
    size = max(1, min(LARGEST_CHUNK, len(samples) // (8 * workers))) if workers > 1 else 1
    parts = [list(samples[k : k + size]) for k in range(0, len(samples), size)]
    chunks = [Chunk(network, data.features[part], data.labels[part], part, plan) for part in parts]
    rows: list[BatchRow] = []

    def keep(found: list[BatchRow]) -> None:
        for row in found:
            rows.append(row)
            if progress is not None:
                progress(row)

    gather(certify_chunk, chunks, workers, keep, _given_up)
    return pd.DataFrame(rows).sort_values("sample", ignore_index=True) if rows else pd.DataFrame()


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some samples of a batch, which one process is handed at a time. images: flat, one per sample."""

    network: Network
    images: FloatArray
    labels: IndexArray
    samples: Sequence[int]
    plan: BatchPlan


def _given_up(chunk: Chunk, error: Exception) -> list[BatchRow]:
    each = zip(chunk.samples, chunk.labels.tolist(), strict=True)
    return [_failed(sample, label, error) for sample, label in each]


def check_batch(network: Network, data: Dataset, samples: Sequence[int], plan: BatchPlan) -> None:
    """Raises ValueError, before any work, for whatever would fail for every sample or should not have been asked."""
    instance("network", network, Network)
    instance("data", data, Dataset)
    instance("plan", plan, BatchPlan)
    usable_settings(plan.settings)
    optional_number("time_limit", plan.time_limit, above=0)
    real_number("tolerance", plan.tolerance, 0)
    get_rungs("ladder", plan.ladder)
    for name in (*get_rungs("bounds", plan.bounds), *get_rungs("tighten", plan.tighten, empty=True)):
        if name.side is Side.UPPER:
            raise ValueError(f"rung {name.name!r} gives upper bounds only and cannot bound layers")
    check_samples(network, data, samples, plan.question)
    for sample in samples:
        make_ball(plan.norm, data.features[sample], plan.eps, plan.domain)


def check_samples(network: Network, data: Dataset, samples: Sequence[int], question: Property | None = None) -> None:
    """Raises ValueError for a sample outside the data set, for images that the network does not take, and for a
    question that is not about its outputs; without one for labels that it does not know."""
    for sample in samples:
        if not 0 <= sample < len(data):
            raise ValueError(f"sample must be in 0 … {len(data) - 1} for {data.name}, got {sample}")
    check_fits(data.shape, network.input_shape, data.name)
    check_class_names(network, data)
    if question is None:
        check_labels(data.labels[list(samples)], network.output_size, data.name)
    else:
        as_property(instance("question", question, Property), network.output_size)


def certify_chunk(chunk: Chunk) -> list[BatchRow]:
    """The rows of some samples; a module-level function, so that it can run in another process."""
    each = zip(chunk.samples, chunk.labels.tolist(), chunk.images, strict=True)
    return [_row(*of, chunk.network, chunk.plan) for of in each]


def _failed(sample: int, label: int, error: Exception) -> BatchRow:
    message = f"{type(error).__name__}: {error}"
    return {"sample": sample, "label": label, "verdict": Verdict.MAYBE.value, "rung": "", "message": message}


def _row(sample: int, label: int, image: FloatArray, network: Network, plan: BatchPlan) -> BatchRow:
    ball, began = make_ball(plan.norm, image, plan.eps, plan.domain), time.process_time()
    asked = label if plan.question is None else plan.question
    try:
        outcome = certify(
            network, ball, asked, plan.ladder, plan.bounds, plan.tighten, plan.settings, plan.time_limit, plan.tolerance
        )
    except Exception as error:  # one sample's failure must not lose the others
        return _failed(sample, label, error)
    counts = outcome.relu_bounds.counts() if outcome.relu_bounds is not None else None
    row: BatchRow = {
        "sample": sample,
        "label": label,
        "verdict": outcome.verdict.value,
        "rung": outcome.rung if outcome.verdict is not Verdict.MAYBE else "",
        "seconds": outcome.seconds,
        "cpu_seconds": time.process_time() - began,
        "lower": min(bound.lower for bound in outcome.margins),
        "upper": min(bound.upper for bound in outcome.margins),
        "unstable": -1 if counts is None else sum(count[0] for count in counts),
        "message": "; ".join(sorted({bound.message for bound in outcome.margins if bound.message})),
    }
    return row | {f"seconds_{name}": seconds for name, seconds in outcome.rung_seconds.items()}


@dataclass(frozen=True)
class BatchSummary:
    """Counts and times of a batch: verdicts, which rung settled how many, seconds per rung and in all."""

    verdicts: dict[str, int]
    settled_by: dict[str, int]
    rung_seconds: dict[str, float]
    seconds: float
    slowest: float


def batch_totals(rows: pd.DataFrame) -> BatchSummary:
    """Totals over the rows of `certify_samples`."""
    names = [str(name) for name in rows.columns if str(name).startswith("seconds_")]
    times = {name.removeprefix("seconds_"): float(rows[name].sum()) for name in names}
    seconds = rows["seconds"].fillna(0.0) if "seconds" in rows else pd.Series([0.0])
    return BatchSummary(
        {verdict.value: int((rows["verdict"] == verdict.value).sum()) for verdict in Verdict},
        {str(name) or "undecided": int(count) for name, count in rows["rung"].value_counts().items()},
        times,
        float(seconds.sum()),
        float(seconds.max()),
    )
