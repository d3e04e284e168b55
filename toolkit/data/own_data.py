"""Data sets that other libraries hold, told by what they can do: none of these libraries is imported."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from toolkit.arrays import FloatArray, IndexArray
from toolkit.data.arguments import number_array, shown, whole_number
from toolkit.data.dataset_parts import DatasetParts, check_count, numbered


def torch_parts(dataset: Any, count: int | None = None) -> tuple[FloatArray, IndexArray]:
    """Images and labels of the first `count` items of a torch data set, None = all; see `Dataset.from_torch`."""
    try:
        size = len(dataset)
    except TypeError:
        raise ValueError(f"dataset must have a length, got {shown(dataset)}; a stream is collected first") from None
    if not hasattr(dataset, "__getitem__"):
        raise ValueError(f"dataset must hold (image, label) pairs by index, got {shown(dataset)}")
    wanted = size if count is None else min(size, whole_number("count", count, 1))
    if wanted < 1:
        raise ValueError("dataset must hold at least one (image, label), got none")
    images: FloatArray | None = None
    labels = np.empty(wanted, dtype=np.int64)
    for k, (image, label) in enumerate(_pairs(dataset, wanted)):
        if images is None:
            check_count(wanted * image.size)
            images = np.empty((wanted, *image.shape))
        if image.shape != images.shape[1:]:
            raise ValueError(f"item {k} has shape {image.shape}, the items before it have {images.shape[1:]}")
        images[k], labels[k] = image, label
    assert images is not None
    return images, labels


def _pairs(dataset: Any, count: int) -> Iterator[tuple[FloatArray, int]]:
    for k in range(count):
        item = dataset[k]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise ValueError(f"item {k} must be (image, label), got {shown(item)}")
        hint = "an image becomes one by the transform ToTensor()"
        if hasattr(item[0], "getdata"):  # a Pillow image, which numpy would read as height×width×channels
            raise ValueError(f"item {k} must hold an array of numbers, got {shown(item[0])}; {hint}")
        image = number_array(f"item {k}", item[0])
        try:
            label = operator.index(item[1])
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"item {k} must have a whole number as its label, got {shown(item[1])}") from None
        yield image, label


def frame_parts(frame: Any, label: str) -> DatasetParts:
    """The rows of a DataFrame; see `Dataset.from_frame`."""
    if not (hasattr(frame, "columns") and hasattr(frame, "drop") and hasattr(frame, "to_numpy")):
        raise ValueError(f"frame must be a DataFrame, got {shown(frame)}")
    names = [str(name) for name in frame.columns]
    if names.count(str(label)) != 1:
        raise ValueError(f"frame must have one column {label!r} of labels, got columns {', '.join(names)[:200]}")
    place = names.index(str(label))
    labels, class_names = frame_labels(frame.iloc[:, place], f"column {label!r}")
    others = [k for k in range(len(names)) if k != place]
    if not others or not len(frame):
        raise ValueError(f"frame must have rows, and columns beside {label!r}, got {len(frame)} × {len(others)}")
    check_count(len(frame) * len(others))
    return DatasetParts(np.stack([_column(frame, k, names[k]) for k in others], axis=1), labels, None, class_names)


def _column(frame: Any, place: int, name: str) -> FloatArray:
    column = frame.iloc[:, place]
    if getattr(column.dtype, "kind", "O") not in "biuf":
        wrong = next((value for value in column if not isinstance(value, int | float)), column.iloc[0])
        raise ValueError(f"column {name[:60]!r} must hold numbers, got {shown(wrong)}")
    values = np.asarray(column.to_numpy(dtype=np.float64))
    missing = np.flatnonzero(~np.isfinite(values))
    if missing.size:
        raise ValueError(f"column {name[:60]!r} must hold finite numbers, got {values[missing[0]]} in row {missing[0]}")
    return values


def frame_labels(column: Any, what: str) -> tuple[IndexArray, tuple[str, ...]]:
    """The classes of a column, and their names. what: how messages call it."""
    missing = np.flatnonzero(np.asarray(column.isna()))
    if missing.size:
        raise ValueError(f"{what} must hold a label in every row, got none in row {missing[0]}")
    if getattr(column.dtype, "kind", "O") in "iu":
        return column.to_numpy().astype(np.int64), ()
    if getattr(column.dtype, "kind", "O") in "fcb":
        raise ValueError(f"{what} must hold whole numbers or texts, got {column.dtype}, first {column.iloc[0]}")
    return numbered([str(value) for value in column])
