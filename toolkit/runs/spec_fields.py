"""Values that several kinds of spec files hold, with their checks: pydantic types."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from toolkit.data.arguments import one_of
from toolkit.data.datasets import dataset_names
from toolkit.data.names import BALL_NORMS
from toolkit.networks.published import PREFIX, published_network
from toolkit.networks.sources import zoo_names
from toolkit.rungs import get_rung

Names = tuple[str, ...]
Count = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]


def _dataset_known(name: str) -> str:
    if name not in dataset_names():
        raise ValueError(f"unknown data set {name!r}; allowed: {', '.join(dataset_names())}")
    return name


def _source_known(source: str) -> str:
    if source.startswith("zoo:") and source.removeprefix("zoo:") not in zoo_names():
        allowed = ", ".join(f"zoo:{name}" for name in zoo_names())
        raise ValueError(f"unknown zoo network {source!r}; allowed: {allowed}")
    if source.startswith(PREFIX):
        published_network(source)
    return source


def _ordered(domain: tuple[float, float]) -> tuple[float, float]:
    if not domain[0] < domain[1]:
        raise ValueError(f"domain must be [low, high] with low < high, got {list(domain)}")
    return domain


def _norm_known(norm: str) -> str:
    return one_of("norm", norm, BALL_NORMS)


def _rung_known(name: str) -> str:
    get_rung(name)
    return name


DatasetName = Annotated[str, AfterValidator(_dataset_known)]
NetworkSource = Annotated[str, AfterValidator(_source_known)]  # zoo:NAME, published:NAME or a file, not opened here
Domain = Annotated[tuple[float, float], AfterValidator(_ordered)]
NormName = Annotated[str, AfterValidator(_norm_known)]  # of balls
RungName = Annotated[str, AfterValidator(_rung_known)]
