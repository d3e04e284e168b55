"""Verdicts of many samples of a data set: one certification each, on one or several processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, field

import pandas as pd

from toolkit.balls import FloatArray, LinfBall
from toolkit.certify import LADDER, TOLERANCE, Certification, certify
from toolkit.data import Dataset
from toolkit.executors import ProcessExecutor, SerialExecutor
from toolkit.network import Network
from toolkit.problem import Settings, Verdict
from toolkit.rungs import get_rung


@dataclass(frozen=True)
class BatchPlan:
    """What every sample of a batch is asked; the parameters are those of `certify`."""

    eps: float
    domain: tuple[float, float] | None = (0.0, 1.0)
    ladder: tuple[str, ...] = LADDER
    bounds: tuple[str, ...] = ("interval", "dual")
    tighten: tuple[str, ...] = ("lp",)
    settings: Settings = field(default_factory=Settings)
    time_limit: float | None = None
    tolerance: float = TOLERANCE


def certify_samples(
    network: Network,
    data: Dataset,
    samples: Sequence[int],
    plan: BatchPlan,
    workers: int = 1,
    progress: Callable[[dict[str, object]], None] | None = None,
) -> pd.DataFrame:
    """One row per sample: sample, label, verdict, rung (the last one needed), seconds, lower and upper (of the least
    margin), unstable (neurons, −1 when l,u were not needed), message, and seconds_NAME per rung.

    progress: called with each row as it is finished. A sample that raises gets verdict MAYBE and the error as message.
    Raises ValueError for an unknown rung, a sample outside the data set or a network that does not take its images.
    """
    for name in (*plan.ladder, *plan.bounds, *plan.tighten):
        get_rung(name)
    for sample in samples:
        if not 0 <= sample < len(data):
            raise ValueError(f"sample must be in 0 … {len(data) - 1} for {data.name}, got {sample}")
    if data.features.shape[1] != network.input_size:
        raise ValueError(
            f"{data.name} has images of {data.features.shape[1]} numbers, the network takes {network.input_size}"
        )
    executor: Executor = SerialExecutor() if workers == 1 else ProcessExecutor(workers)
    rows = []
    with executor:
        futures = {}
        for sample in samples:
            label = int(data.labels[sample])
            future = executor.submit(certify_one, network, data.features[sample], label, plan)
            futures[future] = (sample, label)
            if workers > 1:
                continue
            rows.append(_row(sample, label, _outcome(future.result)))
            if progress is not None:
                progress(rows[-1])
        for future in as_completed(futures) if workers > 1 else ():
            rows.append(_row(*futures[future], _outcome(future.result)))
            if progress is not None:
                progress(rows[-1])
    return pd.DataFrame(rows).sort_values("sample", ignore_index=True) if rows else pd.DataFrame()


def certify_one(network: Network, image: FloatArray, label: int, plan: BatchPlan) -> Certification:
    """The certification of one sample of a batch; a module-level function, so that it can run in another process."""
    ball = LinfBall(image, plan.eps, plan.domain)
    return certify(
        network, ball, label, plan.ladder, plan.bounds, plan.tighten, plan.settings, plan.time_limit, plan.tolerance
    )


def _outcome(result: Callable[[], Certification]) -> Certification | str:
    try:
        return result()
    except Exception as error:  # one sample's failure must not lose the others
        return f"{type(error).__name__}: {error}"


def _row(sample: int, label: int, outcome: Certification | str) -> dict[str, object]:
    if isinstance(outcome, str):
        return {"sample": sample, "label": label, "verdict": Verdict.MAYBE.value, "rung": "", "message": outcome}
    counts = outcome.relu_bounds.counts() if outcome.relu_bounds is not None else None
    row: dict[str, object] = {
        "sample": sample,
        "label": label,
        "verdict": outcome.verdict.value,
        "rung": outcome.rung if outcome.verdict is not Verdict.MAYBE else "",
        "seconds": outcome.seconds,
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


def summarize(rows: pd.DataFrame) -> BatchSummary:
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
