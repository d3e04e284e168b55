"""What a training run stands on, checked before its first epoch: two splits that fit each other, and a device."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from toolkit.data.arguments import check_labels
from toolkit.data.datasets import Dataset
from toolkit.training.spec import NetworkSpec


def data_digests(training: Dataset, test: Dataset) -> dict[str, str]:
    """Split → SHA-256 of its content, of splits that their name does not fix."""
    return {data.split: data.digest for data in (training, test) if not data.fixed}


def known_digests(record: Mapping[str, object], own: Mapping[str, str]) -> bool:
    """Whether a record is of data with these digests; one from before they were kept counts as such."""
    return record.get("data", own) == own


def training_device(spec: NetworkSpec) -> torch.device:
    """The spec's device. Raises ValueError for CUDA where torch has none."""
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device must be cpu or auto where torch has no CUDA, got 'cuda'")
    if spec.device != "auto":
        return torch.device(spec.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def check_splits(spec: NetworkSpec, training: Dataset, test: Dataset) -> None:
    """Raises ValueError, naming the network, for splits of other shapes, classes or domains, for labels that the
    network will not know, and for images outside the spec's domain."""
    try:
        _check(spec, training, test)
    except ValueError as error:
        raise ValueError(f"{spec.name}: {error}") from error


def _check(spec: NetworkSpec, training: Dataset, test: Dataset) -> None:
    if training.shape != test.shape:
        raise ValueError(f"images of {_named(training)} have shape {training.shape}, of {_named(test)} {test.shape}")
    for name, own, other in (
        ("domain", training.cut, test.cut),
        ("class names", training.class_names, test.class_names),
    ):
        if own and other and not _equal(own, other):  # where both say
            raise ValueError(f"{_named(training)} and {_named(test)} must have the same {name}, got {own} and {other}")
    if training.classes < 2:
        raise ValueError(f"{_named(training)} must hold at least two classes, got {training.classes}")
    check_labels(test.labels, training.classes, _named(test))
    if spec.domain is None or spec.eps == 0:
        return
    for data in (training, test):
        low, high = float(data.images.min()), float(data.images.max())
        if low < spec.domain[0] or high > spec.domain[1]:
            raise ValueError(
                f"domain must hold the images of {_named(data)}, {low:g} … {high:g}, got {list(spec.domain)}"
            )


def _named(data: Dataset) -> str:
    return f"{data.name} ({data.split})"


def _equal(one: object, other: object) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    return one == other
