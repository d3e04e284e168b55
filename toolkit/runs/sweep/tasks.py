"""One unit of a sweep: every rung on one (network, sample, ε); and the keys that identify its rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.data.names import printable
from toolkit.problems.answers import Verdict
from toolkit.problems.properties import Property, robustness
from toolkit.problems.property_table import property_digest
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rung
from toolkit.rungs.rung import Rung

KEY_VERSION = 2  # raised when rows of the same key would mean something else
Chain = tuple[str, ...]


@dataclass(frozen=True)
class NetworkRef:
    """Where a worker finds a network, and the digest it must have."""

    source: str
    architecture: str | None
    name: str
    digest: str
    outputs: int


@dataclass(frozen=True)
class Work:
    """What all tasks of a run share. out: the results folder, absolute. cache_bounds: keep l,u in OUT/bounds.

    targets: the classes asked about, None: all. property: what is asked of every sample in place of its label.
    """

    out: str
    run_id: str
    settings: Settings
    domain: tuple[float, float] | None
    task_time_limit: float | None = None
    cache_bounds: bool = False
    norm: str = "linf"
    targets: tuple[int, ...] | None = None
    property: Property | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """One (network, sample, ε) with the rungs still wanted per chain. center: the image, flat."""

    work: Work
    network: NetworkRef
    dataset: str
    sample: int
    label: int
    eps: float
    center: FloatArray = field(repr=False)
    wanted: tuple[tuple[Chain, tuple[str, ...]], ...]

    @property
    def targets(self) -> tuple[int, ...]:
        """Every class asked about but the label; of a property the numbers of its groups."""
        if self.work.property is not None:
            return tuple(range(self.work.property.count))
        asked = range(self.network.outputs) if self.work.targets is None else self.work.targets
        return tuple(t for t in asked if t != self.label)

    @property
    def question(self) -> Property:
        """What is asked of the network."""
        if self.work.property is not None:
            return self.work.property
        return robustness(self.network.outputs, self.label, self.targets)

    @property
    def title(self) -> str:
        """For people: network, sample and ε."""
        return f"{printable(self.network.name)} {self.dataset} #{self.sample} ε={self.eps:g}"


@dataclass(frozen=True)
class TaskReport:
    """What a task did, without its rows. verdict: all rungs taken together."""

    rows: int
    failed: int
    seconds: float
    verdict: Verdict
    message: str = ""


def relevant_settings(rung: Rung, settings: Settings) -> dict[str, object]:
    """The settings a rung's numbers may depend on; closed forms depend on none."""
    return {name: getattr(settings, name) for name in sorted(rung.reads or ())}


def described(names: Sequence[str], settings: Settings) -> list[tuple[str, int, dict[str, object]]]:
    """Name, version and relevant settings of each rung."""
    rungs = [get_rung(name) for name in names]
    return [(rung.name, rung.version, relevant_settings(rung, settings)) for rung in rungs]


def question(task: Task) -> dict[str, object]:
    """What l,u depend on besides their chain: network, image, ball and domain."""
    return {
        "version": KEY_VERSION,
        "network": task.network.digest,
        "center": hashlib.sha256(np.ascontiguousarray(task.center).tobytes()).hexdigest(),
        "norm": task.work.norm,
        "eps": task.eps.hex(),
        "domain": task.work.domain,
    }


def row_keys(task: Task) -> dict[tuple[Chain, str], list[str]]:
    """For every wanted (chain, rung) the keys of its rows, one per target.

    key = SHA-256 over the network's digest and name, the image, its place in the data set, label, target, norm, ε,
    domain, and the names, versions and relevant settings of the chain's rungs and of the rung; besides, where they are
    given, over the sweep's targets (a rung may share work among rows) or its property.
    """
    names = {"name": task.network.name, "dataset": task.dataset, "sample": task.sample, "label": task.label}
    names |= {} if task.work.targets is None else {"targets": task.targets}
    names |= {} if task.work.property is None else {"property": property_digest(task.work.property)}
    state = hashlib.sha256(json.dumps(question(task) | names, sort_keys=True).encode())
    keys = {}
    for chain, rungs in task.wanted:
        for rung in rungs:
            part = [described(chain, task.work.settings), described([rung], task.work.settings)]
            keys[chain, rung] = _target_keys(state, json.dumps(part, sort_keys=True), task.targets)
    return keys


def _target_keys(state: hashlib._Hash, part: str, targets: Sequence[int]) -> list[str]:
    found = []
    for target in targets:
        own = state.copy()
        own.update(f"{part}{target}".encode())
        found.append(own.hexdigest())
    return found
