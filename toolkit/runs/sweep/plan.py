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
from toolkit.networks.class_names import check_class_names
from toolkit.networks.network import Network
from toolkit.problems.input_sets import make_ball
from toolkit.problems.lowering import check_ranking
from toolkit.problems.properties import as_property
from toolkit.runs.sweep.spec import SweepSpec, SweptNetwork
from toolkit.runs.sweep.tasks import NetworkRef, Task, Work, row_keys

NETWORKS = "networks"  # where a results folder keeps networks that were given as objects


@dataclass(frozen=True, eq=False)
class PlannedNetwork:
    """A network with the images and radii it is asked about. centers: flat, one per sample. made: the network itself
    where it was given as an object, which workers read from a file that the sweep writes."""

    ref: NetworkRef
    dataset: str
    eps: tuple[float, ...]
    samples: tuple[int, ...]
    labels: tuple[int, ...]
    centers: tuple[FloatArray, ...]
    made: Network | None = None


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
        refs = {network: _placed(network, Path(work.out)) for network in self.networks}
        wanted = tuple((chain, self.spec.rungs) for chain in self.spec.layer_bounds)
        for rank in range(max(len(network.samples) for network in self.networks)):
            for place in range(max(len(network.eps) for network in self.networks)):
                for network in self.networks:
                    if rank < len(network.samples) and place < len(network.eps):
                        yield Task(
                            work,
                            refs[network],
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
            for path in (entry.source, entry.dataset):
                if isinstance(path, str) and Path(path).is_absolute():
                    spec_text = spec_text.replace(path, Path(path).name)
        spec = self.spec.model_dump(mode="json", exclude_none=True)
        for network in spec["networks"]:
            network |= {key: _shown_source(network[key]) for key in ("source", "dataset")}
        networks = [
            {"name": network.ref.name, "source": _shown_source(network.ref.source), "digest": network.ref.digest}
            for network in self.networks
        ]
        return {"seed": self.spec.seed, "networks": networks, "spec": spec, "spec_text": spec_text}


def _shown_source(source: str) -> str:
    """A network's source without the folders of an absolute path."""
    return Path(source).name if Path(source).is_absolute() else source


def _placed(network: PlannedNetwork, out: Path) -> NetworkRef:
    """Where workers find the network: an object in a file of the results folder."""
    if network.made is None:
        return network.ref
    return replace(network.ref, source=str(out / NETWORKS / f"{network.ref.digest[:40]}.npz"))


def write_networks(plan: SweepPlan, out: Path) -> None:
    """Write the networks that were given as objects, once each, into the results folder. Raises OSError."""
    for network in plan.networks:
        place = Path(_placed(network, out).source)
        if network.made is not None and not place.is_file():
            network.made.save(place)


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


def _network(entry: SweptNetwork) -> Network:
    if isinstance(entry.source, str):
        return Network.load(entry.source, entry.architecture)
    if entry.architecture is not None:
        raise ValueError(f"only .pth and .pt files take an architecture, got {entry.architecture!r} with a Network")
    return entry.source


def _planned(entry: SweptNetwork, spec: SweepSpec) -> PlannedNetwork:
    network = _network(entry)
    dataset = entry.dataset if isinstance(entry.dataset, Dataset) else load_dataset(entry.dataset, domain=spec.domain)
    source = entry.source if isinstance(entry.source, str) else network.name
    try:
        check_fits(dataset.shape, network.input_shape, dataset.name)
        check_class_names(network, dataset)
        _check_question(spec, network)
    except ValueError as error:
        raise ValueError(f"network {source!r}: {error}") from None
    samples = choose_samples(dataset, spec.samples, spec.seed)
    samples = tuple(sample for sample in samples if spec.targets != (int(dataset.labels[sample]),))
    if not samples:
        raise ValueError(f"targets {list(spec.targets or ())} leave nothing to ask: all samples are of that class")
    labels = tuple(int(dataset.labels[sample]) for sample in samples)
    for sample, label in zip(samples, labels, strict=True):
        if label >= network.output_size and spec.property is None:
            raise ValueError(
                f"sample {sample} of {dataset.name} has label {label}, "
                f"network {source!r} has {network.output_size} classes"
            )
    centers = tuple(np.array(dataset.features[sample], dtype=np.float64) for sample in samples)
    for center in centers:
        make_ball(spec.norm, center, 0.0, spec.domain)  # raises for images outside the domain
    name = entry.name or network.name or source
    made = None if isinstance(entry.source, str) else network
    ref = NetworkRef(source if made is None else "", entry.architecture, name, network.digest, network.output_size)
    return PlannedNetwork(ref, dataset.name, entry.eps or spec.eps, samples, labels, centers, made)


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
