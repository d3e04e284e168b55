"""The least distances of many samples of a data set: `closest` for each, stored one by one, as one row per rung.

A view of the one driver: tasks through `gather`, answers in the store at OUT/answers (tables/answers.py), so that a
stopped run goes on where it was. What was asked is part of every answer's key.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import pandas as pd

from toolkit.arrays import FloatArray
from toolkit.data.amounts import DataDomain, keyed
from toolkit.data.arguments import instance, one_of, optional_number, whole_numbers
from toolkit.data.datasets import Dataset
from toolkit.data.names import BALL_NORMS
from toolkit.networks.network import Network
from toolkit.problems.properties import Property
from toolkit.problems.property_table import property_digest
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rungs
from toolkit.rungs.rung import Side
from toolkit.runs.batch import check_samples
from toolkit.runs.executors import check_workers
from toolkit.runs.rows import DISTANCE_ROWS
from toolkit.runs.run import gather
from toolkit.runs.tables.answers import Advance, Answer, Answers, failed_answer
from toolkit.verify.ladder import TIGHTEN
from toolkit.verify.radius import CLOSEST, Radius, RungRadius, asked_range, closest, is_closed
from toolkit.verify.usable_settings import usable_settings

COLUMNS = ("sample", "label", "rung", "side", "certified", "refuted", "verdicts", "seconds")


@dataclass(frozen=True, eq=False)
class DistancePlan:
    """What every sample is asked; the parameters are those of `closest`. time_limit: seconds a sample.

    question: a property, asked of every sample in place of its label's class.
    """

    norm: str = "linf"
    domain: DataDomain | None = (0.0, 1.0)
    rungs: tuple[str, ...] = CLOSEST
    time_limit: float | None = None
    tolerance: float | None = None
    largest: float | None = None
    bounds: tuple[str, ...] = ("interval", "dual")
    tighten: tuple[str, ...] = TIGHTEN
    settings: Settings = field(default_factory=Settings)
    question: Property | None = None

    def radius(self, network: Network, image: FloatArray, label: int | Property, progress: object = None) -> Radius:
        """The interval of one image; label, progress: as in `closest`."""
        return closest(
            network, image, label, self.norm, self.domain, self.rungs, self.time_limit, self.tolerance, self.largest,
            self.bounds, self.tighten, self.settings, progress,  # type: ignore[arg-type]
        )  # fmt: skip

    @property
    def asked(self) -> dict[str, object]:
        """All that an answer depends on, but for the network and the sample; the question only where there is one, as
        answers kept from before lack it."""
        named = get_rungs("rungs", (*self.bounds, *self.tighten, *self.rungs))
        versions = {rung.name: rung.version for rung in named}
        found = asdict(replace(self, question=None)) | {
            "settings": self.settings.record, "domain": keyed(self.domain), "versions": versions
        }  # fmt: skip
        found["question"] = None if self.question is None else property_digest(self.question)
        return {name: value for name, value in found.items() if name != "question" or value is not None}

    def closed(self, image: FloatArray, certified: float, refuted: float) -> bool:
        """Whether an image's interval leaves nothing open of what was asked; see `is_closed`."""
        asked = asked_range(image, self.norm, self.domain, self.largest)
        return is_closed(certified, refuted, asked, self.tolerance)


@dataclass(frozen=True, eq=False)
class DistanceTask:
    """One image's question."""

    network: Network
    image: FloatArray
    label: int
    sample: int
    plan: DistancePlan


def measure_distances(
    network: Network,
    data: Dataset,
    samples: Sequence[int],
    plan: DistancePlan,
    out: Path,
    run_id: str,
    workers: int = 1,
    advance: Advance = lambda *_: None,
) -> pd.DataFrame:
    """One line per (sample, rung), with COLUMNS; only what OUT/answers does not hold is asked.

    side: of the rung. run_id: of the run that new answers come from. advance: called with a title, how many are done
    and of how many. Raises UnansweredError, the others stored, where samples failed; ValueError as `check_distances`.
    """
    samples = whole_numbers("samples", samples)
    check_distances(network, data, samples, plan)
    asked = {"network": network.digest, "dataset": data.key, "plan": plan.asked}
    answers = Answers(out, run_id, DISTANCE_ROWS, asked)
    ask = partial(_ask, network, data, plan, check_workers(workers))
    found = answers.complete(f"{network.name or 'network'} · {plan.norm}", samples, ask, advance)
    each = zip(found.index.tolist(), found["label"].tolist(), found["rungs"].tolist(), strict=True)
    lines = [(sample, label, *_line(one)) for sample, label, rungs in each for one in json.loads(rungs)]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _line(stored: Sequence[object]) -> tuple[object, ...]:
    name, certified, refuted, verdicts, seconds = stored
    (rung,) = get_rungs("rungs", [str(name)])
    return rung.name, str(rung.side), certified, math.inf if refuted is None else refuted, verdicts, seconds


def check_distances(network: Network, data: Dataset, samples: Sequence[int], plan: DistancePlan) -> None:
    """Raises ValueError, before any work, for what would fail for every sample."""
    instance("network", network, Network), instance("data", data, Dataset), instance("plan", plan, DistancePlan)
    for name in ("rungs", "bounds"):
        chosen = get_rungs(name, getattr(plan, name))
        if name == "bounds" and any(rung.side is Side.UPPER for rung in chosen):
            raise ValueError("bounds must be rungs with a lower side, got an attack")
    one_of("norm", plan.norm, BALL_NORMS), usable_settings(plan.settings)
    check_samples(network, data, samples, plan.question)
    optional_number("tolerance", plan.tolerance, above=0), optional_number("time_limit", plan.time_limit, above=0)
    for sample in samples:
        asked_range(data.features[sample], plan.norm, plan.domain, plan.largest)


def _ask(
    network: Network,
    data: Dataset,
    plan: DistancePlan,
    workers: int,
    samples: Sequence[int],
    settle: Callable[[Answer], None],
) -> None:
    tasks = [DistanceTask(network, data.features[i], int(data.labels[i]), i, plan) for i in samples]
    gather(measure_distance, tasks, workers, settle, failed_answer)


def measure_distance(task: DistanceTask) -> Answer:
    """One sample's row, or why there is none; a module-level function, so that it can run in another process."""
    started = time.perf_counter()
    try:
        asked = task.label if task.plan.question is None else task.plan.question
        radius = task.plan.radius(task.network, task.image, asked)
    except Exception as error:  # one sample's failure must not lose the others
        return failed_answer(task, error)
    return {
        "sample": task.sample,
        "label": task.label,
        "certified": radius.certified,
        "refuted": radius.refuted,
        "rungs": json.dumps([_stored(one) for one in radius.by_rung]),
        "verdicts": len(radius.tried),
        "seconds": time.perf_counter() - started,
    }


def open_samples(data: Dataset, plan: DistancePlan, lines: pd.DataFrame) -> list[int]:
    """The samples whose intervals stay open. lines: as `measure_distances` gives them."""
    ends = lines.groupby("sample", sort=False).agg(certified=("certified", "max"), refuted=("refuted", "min"))
    each = zip(ends.index.tolist(), ends["certified"].tolist(), ends["refuted"].tolist(), strict=True)
    return [sample for sample, *interval in each if not plan.closed(data.features[sample], *interval)]


def _stored(one: RungRadius) -> list[object]:
    refuted = one.refuted if math.isfinite(one.refuted) else None
    return [one.rung, one.certified, refuted, one.verdicts, one.seconds]


def distance_table(lines: pd.DataFrame) -> pd.DataFrame:
    """Per rung: images, and mean, least, quartiles and largest of its radius; of an exact one a row for each end.

    A rung's radius is what it certified, an attack's the distance it found. NaN where some image has none. open: images
    whose interval is wider than a hundredth of its upper end, for exact rungs.
    """
    found = []
    for (name, side), part in lines.groupby(["rung", "side"], sort=False):
        ends = {"lower": ["certified"], "upper": ["refuted"]}.get(str(side), ["certified", "refuted"])
        for end in ends:
            radii = part[end].where(part[end] < math.inf)
            low, middle, high = (
                float(radii.quantile(q)) if radii.notna().all() else math.nan for q in (0.25, 0.5, 0.75)
            )
            wide = (part["refuted"] - part["certified"] > 1e-2 * part["refuted"]) & (part["refuted"] > 0)
            found.append(
                {
                    "rung": name,
                    "end": end,
                    "images": len(part),
                    "mean": float(radii.mean(skipna=False)),
                    "least": float(radii.min(skipna=False)),
                    "quartile": low,
                    "median": middle,
                    "upper_quartile": high,
                    "largest": float(radii.max(skipna=False)),
                    "open": int(wide.sum()) if str(side) == "exact" else -1,
                    "verdicts": int(part["verdicts"].sum()),
                    "seconds": float(part["seconds"].sum()),
                }
            )
    return pd.DataFrame(found)
