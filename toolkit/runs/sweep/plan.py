"""From a spec to its tasks: networks and images loaded and checked, before any work starts.

Tasks come sample by sample, and for each sample in turns over ε and networks, so that a sweep stopped at any time has
results for every network and ε.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.data.arguments import check_outputs
from toolkit.data.datasets import Dataset, load_dataset
from toolkit.data.images import check_fits
from toolkit.networks.network import Network
from toolkit.problems.input_sets import make_ball
from toolkit.problems.lowering import check_ranking
from toolkit.problems.properties import as_property
from toolkit.runs.sweep.spec import SweepSpec, SweptNetwork
from toolkit.runs.sweep.tasks import NetworkRef, Task, Work, row_keys


@dataclass(frozen=True, eq=False)
class PlannedNetwork:
    """A network with the images and radii it is asked about. centers: flat, one per sample."""

    ref: NetworkRef
    dataset: str
    eps: tuple[float, ...]
    samples: tuple[int, ...]
    labels: tuple[int, ...]
    centers: tuple[FloatArray, ...]


@dataclass(frozen=True, eq=False)
class SweepPlan:
    """All tasks of a sweep, in the order they are worked on."""

    spec: SweepSpec
    networks: tuple[PlannedNetwork, ...]

    def work(self, out: Path) -> Work:
        """What the spec says of all tasks; of a run that has no name yet. out: the results folder, absolute."""
        spec = self.spec
        return Work(
            str(out), "", spec.settings(), spec.domain, spec.task_time_limit, spec.cache_bounds, spec.norm,
            spec.targets, None if spec.property is None else spec.property.as_property(),
        )  # fmt: skip

    def tasks(self, work: Work) -> Iterator[Task]:
        """Every task with all its rungs."""
        wanted = tuple((chain, self.spec.rungs) for chain in self.spec.layer_bounds)
        for rank in range(max(len(network.samples) for network in self.networks)):
            for place in range(max(len(network.eps) for network in self.networks)):
                for network in self.networks:
                    if rank < len(network.samples) and place < len(network.eps):
                        yield Task(
                            work,
                            network.ref,
                            network.dataset,
                            network.samples[rank],
                            network.labels[rank],
                            network.eps[place],
                            network.centers[rank],
                            wanted,
                        )

    def keys(self, work: Work) -> Iterator[str]:
        """The keys of every row, in order."""
        for task in self.tasks(work):
            for keys in row_keys(task).values():
                yield from keys

    def missing(self, work: Work, done: Iterable[str]) -> Iterator[Task]:
        """The tasks with rows not in `done`, each with only the rungs that lack a row."""
        present = done if isinstance(done, set | frozenset) else frozenset(done)
        for task in self.tasks(work):
            lacking = {pair for pair, keys in row_keys(task).items() if not present.issuperset(keys)}
            wanted = tuple(
                (chain, tuple(rung for rung in rungs if (chain, rung) in lacking)) for chain, rungs in task.wanted
            )
            if lacking:
                yield replace(task, wanted=tuple((chain, rungs) for chain, rungs in wanted if rungs))

    def facts(self, spec_text: str) -> dict[str, Any]:
        """What provenance records of the sweep, without absolute paths. spec_text: of the spec's file."""
        for entry in self.spec.networks:
            if Path(entry.source).is_absolute():
                spec_text = spec_text.replace(entry.source, Path(entry.source).name)
        spec = self.spec.model_dump(mode="json", exclude_none=True)
        for network in spec["networks"]:
            network["source"] = _shown_source(network["source"])
        networks = [
            {"name": network.ref.name, "source": _shown_source(network.ref.source), "digest": network.ref.digest}
            for network in self.networks
        ]
        return {"seed": self.spec.seed, "networks": networks, "spec": spec, "spec_text": spec_text}


def _shown_source(source: str) -> str:
    """A network's source without the folders of an absolute path."""
    return Path(source).name if Path(source).is_absolute() else source


def make_plan(spec: SweepSpec) -> SweepPlan:
    """Load and check all that a sweep needs.

    Raises FileNotFoundError or ValueError naming the network, data set or sample that does not fit.
    """
    planned = tuple(_planned(entry, spec) for entry in spec.networks)
    titles = [(network.ref.name, network.dataset) for network in planned]
    for k, (name, dataset) in enumerate(titles):
        if (name, dataset) in titles[:k]:
            raise ValueError(f"two networks are called {name!r} on {dataset}; give one of them another name = …")
    return SweepPlan(spec, planned)


def _planned(entry: SweptNetwork, spec: SweepSpec) -> PlannedNetwork:
    network = Network.load(entry.source, entry.architecture)
    dataset = load_dataset(entry.dataset)
    if network.input_size != dataset.features.shape[1]:
        raise ValueError(
            f"network {entry.source!r} takes {network.input_size} inputs, "
            f"images of {entry.dataset} have {dataset.features.shape[1]}"
        )
    check_fits(dataset.shape, network.input_shape)
    try:
        _check_question(spec, network)
    except ValueError as error:
        raise ValueError(f"network {entry.source!r}: {error}") from None
    samples = choose_samples(dataset, spec.samples, spec.seed)
    samples = tuple(sample for sample in samples if spec.targets != (int(dataset.labels[sample]),))
    if not samples:
        raise ValueError(f"targets {list(spec.targets or ())} leave nothing to ask: all samples are of that class")
    labels = tuple(int(dataset.labels[sample]) for sample in samples)
    for sample, label in zip(samples, labels, strict=True):
        if label >= network.output_size and spec.property is None:
            raise ValueError(
                f"sample {sample} of {entry.dataset} has label {label}, "
                f"network {entry.source!r} has {network.output_size} classes"
            )
    centers = tuple(np.array(dataset.features[sample], dtype=np.float64) for sample in samples)
    for center in centers:
        make_ball(spec.norm, center, 0.0, spec.domain)  # raises for images outside the domain
    name = entry.name or network.name or entry.source
    ref = NetworkRef(entry.source, entry.architecture, name, network.digest, network.output_size)
    return PlannedNetwork(ref, entry.dataset, entry.eps or spec.eps, samples, labels, centers)


def _check_question(spec: SweepSpec, network: Network) -> None:
    """Raises ValueError for targets or a property that are not about the network's outputs."""
    outputs = network.output_size
    if spec.property is not None:
        check_ranking(network, as_property(spec.property.as_property(), outputs))
        return
    check_outputs(outputs)
    wrong = [target for target in spec.targets or () if target >= outputs]
    if wrong:
        raise ValueError(f"targets must be in 0 … {outputs - 1}, its classes, got {wrong[0]}")


def choose_samples(dataset: Dataset, samples: int | tuple[int, ...], seed: int) -> tuple[int, ...]:
    """The given indices, or a count of them drawn without replacement; a larger count begins with the smaller one's.

    Raises ValueError for an index or a count beyond the data set.
    """
    size = len(dataset)
    if isinstance(samples, int):
        if samples > size:
            raise ValueError(f"samples must be ≤ {size}, the test images of {dataset.name}, got {samples}")
        return tuple(int(k) for k in np.random.default_rng(seed).permutation(size)[:samples])
    for sample in samples:
        if not 0 <= sample < size:
            raise ValueError(f"samples must be in 0 … {size - 1}, the test images of {dataset.name}, got {sample}")
    return samples
