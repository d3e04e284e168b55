"""Whether an experiment's networks and images are at hand, or can be fetched, before its work begins."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from toolkit.data.arguments import check_labels
from toolkit.data.datasets import load_dataset
from toolkit.data.images import check_fits
from toolkit.networks.network import Network
from toolkit.runs.sweep.spec import SweepSpec
from toolkit.runs.tables.entries import Entry, ErrorsRow, RadiiRow

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Need:
    """What one row of a table, or network of a sweep, asks for. domain: as of `load_dataset`, for data of one's own;
    samples: indices that it names itself."""

    name: str
    network: str
    dataset: str
    domain: Any = None
    architecture: str | None = None
    samples: tuple[int, ...] = ()


def needs_of(experiment: Entry | SweepSpec) -> list[Need]:
    """The networks and data sets of an experiment, row by row."""
    if isinstance(experiment, SweepSpec):
        return [
            Need(one.name or one.source, one.source, one.dataset, experiment.domain, one.architecture)
            for one in experiment.networks
            if isinstance(one.source, str) and isinstance(one.dataset, str)  # objects are at hand
        ]
    return [
        Need(row.name, row.network, row.dataset, row.domain, row.architecture, _samples(row)) for row in experiment.rows
    ]


def _samples(row: ErrorsRow | RadiiRow) -> tuple[int, ...]:
    return row.samples if isinstance(row, RadiiRow) else ()


def check_ready(needs: Iterable[Need]) -> None:
    """Load every network and data set, fetching what is not here, and look whether they fit each other.

    Raises FileNotFoundError naming every row whose files are neither here nor reachable, ValueError naming every row
    whose files do not fit.
    """
    missing: dict[str, list[str]] = {}  # what is said → rows
    unfit: dict[str, list[str]] = {}
    files = _Files()
    for need in needs:
        try:
            _check(need, files)
        except OSError as error:
            missing.setdefault(str(error), []).append(need.name)
        except ValueError as error:
            unfit.setdefault(str(error), []).append(need.name)
    if missing:
        rows = ", ".join(name for names in missing.values() for name in names)
        raise FileNotFoundError(f"nothing was begun, since files are missing for {rows}: {_told(list(missing))}")
    if unfit:
        told = "; ".join(f"{', '.join(names)}: {said}" for said, names in unfit.items())
        raise ValueError(f"nothing was begun: {told}")


def _told(reasons: list[str]) -> str:
    """The first reason in full, with what to do; of the others the part that names the file, up to its semicolon."""
    return "; ".join([*reasons[:1], *(reason.split(";")[0] for reason in reasons[1:])])


class _Files:
    """Networks and data sets, each asked for once: what could not be fetched is not tried again for the next row."""

    def __init__(self) -> None:
        self._found: dict[Hashable, Any] = {}

    def get(self, key: Hashable, load: Callable[[], _Found]) -> _Found:
        """What `load` gives or gave, or raises or raised."""
        if key not in self._found:
            try:
                self._found[key] = load()
            except (OSError, ValueError) as error:
                self._found[key] = error
        if isinstance(self._found[key], Exception):
            raise self._found[key]
        return self._found[key]  # type: ignore[no-any-return]


def _check(need: Need, files: _Files) -> None:
    network = files.get((need.network, need.architecture), partial(Network.load, need.network, need.architecture))
    data = files.get((need.dataset, repr(need.domain)), partial(load_dataset, need.dataset, domain=need.domain))
    check_fits(data.shape, network.input_shape, need.dataset)
    check_labels(data.labels, network.output_size, need.dataset)
    outside = [sample for sample in need.samples if sample >= len(data)]
    if outside:
        raise ValueError(f"samples must be in 0 … {len(data) - 1}, got {outside[0]}")
