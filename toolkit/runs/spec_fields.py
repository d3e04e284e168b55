"""Values that several kinds of spec files hold, with their checks: pydantic types."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator
from pydantic_core import PydanticCustomError

from toolkit.data.amounts import amount
from toolkit.data.arguments import one_of
from toolkit.data.dataset import Dataset
from toolkit.data.datasets import check_data_name
from toolkit.data.names import BALL_NORMS
from toolkit.networks.network import Network
from toolkit.networks.published import PREFIX, published_network
from toolkit.networks.sources import zoo_names
from toolkit.rungs import get_rung

Names = tuple[str, ...]
Count = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]


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


def _amount_of(value: object) -> object:
    """A fraction in quotes as a number; anything else is for the type to say."""
    return amount("a radius", value) if isinstance(value, str) else value


def _text(value: object) -> str:
    if isinstance(value, os.PathLike):
        return str(Path(value))
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "Input should be a valid string")
    return value


def _source_or_network(value: object) -> str | Network:
    return value if isinstance(value, Network) else _source_known(_text(value))


def _name_or_dataset(value: object) -> str | Dataset:
    return value if isinstance(value, Dataset) else check_data_name(_text(value))


def _written(value: str | Network | Dataset) -> str:
    """What a record says of it: an object goes by its name."""
    return value if isinstance(value, str) else value.name


Amount = Annotated[float, BeforeValidator(_amount_of)]  # 0.03, or "8/255"
DatasetName = Annotated[str, AfterValidator(check_data_name)]  # a name, or a path, which is not looked at here
NetworkSource = Annotated[str, AfterValidator(_source_known)]  # zoo:NAME, published:NAME or a file, not opened here
AnyNetwork = Annotated[str | Network, PlainValidator(_source_or_network), PlainSerializer(_written)]
AnyDataset = Annotated[str | Dataset, PlainValidator(_name_or_dataset), PlainSerializer(_written)]
Domain = Annotated[tuple[float, float], AfterValidator(_ordered)]
NormName = Annotated[str, AfterValidator(_norm_known)]  # of balls
RungName = Annotated[str, AfterValidator(_rung_known)]
