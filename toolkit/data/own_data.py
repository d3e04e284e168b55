"""Data sets that other libraries hold, told by what they can do: none of these libraries is imported."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from toolkit.arrays import FloatArray, IndexArray
from toolkit.data.arguments import number_array, shown, whole_number
from toolkit.data.dataset_parts import LARGEST_LABEL, DatasetParts, check_count, numbered


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
            label = whole_number("label", item[1], 0, LARGEST_LABEL)
        except ValueError:
            told = f"a whole number as its label, in 0 … {LARGEST_LABEL}"
            raise ValueError(f"item {k} must have {told}, got {shown(item[1])}") from None
        yield image, label


def class_array(name: str, value: Any) -> IndexArray:
    """Labels as a new int64 array, one axis. Raises ValueError for what are no whole numbers."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(f"{name} must have no masked entries, got {shown(value)}")
    try:
        classes = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{name} must be whole numbers, one per image, got {shown(value)}: {reason}") from None
    if classes.dtype.kind not in "iu" or classes.ndim != 1:
        raise ValueError(
            f"{name} must be whole numbers, one per image, got {classes.dtype} of shape {classes.shape}; "
            "of one-hot rows or logits take labels.argmax(axis=1)"
        )
    large = np.flatnonzero(classes > LARGEST_LABEL)
    if large.size:
        raise ValueError(f"{name} must be ≤ {LARGEST_LABEL}, got {classes[large[0]]} at {large[0]}")
    return np.array(classes, dtype=np.int64)


def frame_parts(frame: Any, label: str, what: str = "frame", beside: Collection[str] = ()) -> DatasetParts:
    """The rows of a DataFrame; see `Dataset.from_frame`. what: how messages call it. beside: as of `numbered`."""
    if not (hasattr(frame, "columns") and hasattr(frame, "drop") and hasattr(frame, "to_numpy")):
        raise ValueError(f"frame must be a DataFrame, got {shown(frame)}")
    names = [str(name) for name in frame.columns]
    if names.count(str(label)) != 1:
        raise ValueError(f"{what} must have one column {label!r} of labels, got columns {', '.join(names)[:200]}")
    place = names.index(str(label))
    labels, class_names = frame_labels(frame.iloc[:, place], f"column {label!r}", beside)
    others = [k for k in range(len(names)) if k != place]
    if not others or not len(frame):
        raise ValueError(f"{what} must have rows, and columns beside {label!r}, got {len(frame)} × {len(others)}")
    check_count(len(frame) * len(others))
    return DatasetParts(np.stack([_column(frame, k, names[k]) for k in others], axis=1), labels, None, class_names)


def _column(frame: Any, place: int, name: str) -> FloatArray:
    column = frame.iloc[:, place]
    if getattr(column.dtype, "kind", "O") not in "biuf":
        row, wrong = next(
            ((row, value) for row, value in enumerate(column) if not _is_real(value)), (0, column.iloc[0])
        )
        raise ValueError(f"column {name[:60]!r} must hold numbers, got {shown(wrong)} in row {row}")
    values = np.asarray(column.to_numpy(dtype=np.float64))
    missing = np.flatnonzero(~np.isfinite(values))
    if missing.size:
        raise ValueError(f"column {name[:60]!r} must hold finite numbers, got {values[missing[0]]} in row {missing[0]}")
    return values


def _is_real(value: Any) -> bool:
    """Whether a cell is a number, or a text that says one, as tables read in pieces have them beside other texts."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def frame_labels(column: Any, what: str, beside: Collection[str]) -> tuple[IndexArray, tuple[str, ...]]:
    """The classes of a column, and their names. what: how messages call it. beside: as of `numbered`."""
    missing = np.flatnonzero(np.asarray(column.isna()))
    if missing.size:
        raise ValueError(f"{what} must hold a label in every row, got none in row {missing[0]}")
    if getattr(column.dtype, "kind", "O") in "iu":
        return class_array(what, column.to_numpy(dtype=f"{column.dtype.kind}8")), ()
    if getattr(column.dtype, "kind", "O") in "fcb":
        raise ValueError(f"{what} must hold whole numbers or texts, got {column.dtype}, first {column.iloc[0]}")
    return numbered([str(value) for value in column], beside)
