"""A data set: inputs with their classes, in any range that is stated; made of arrays, frames, torch data sets or files.

Dataset.from_arrays(X, y, shape=(1, 28, 28))
Dataset.from_torch(torchvision_dataset)
Dataset.from_frame(frame, label="species", domain=None)
Dataset.load("mine.npz")                                   # or photos/ with CLASS/*.png, or a .csv
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.arrays import AnyArray, FloatArray, IndexArray
from toolkit.data.amounts import DataDomain, domain_text, stated_domain
from toolkit.data.arguments import file_path, instance, names, number_array, one_of, text, whole_numbers
from toolkit.data.dataset_parts import SPLITS, UNIT_RANGE, DatasetParts
from toolkit.data.own_data import class_array, frame_parts, torch_parts
from toolkit.data.own_files import read_own_data
from toolkit.data.summaries import counted, one_line, sizes, span

TEST = "test"
ANYWHERE = (-math.inf, math.inf)  # the domain of images that have none


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs with their classes.

    images: float64 (n, …), often (n, channels, height, width), finite. labels: int64 (n,), ≥ 0. Both are
    read-only. shape: of one image. domain: what every number lies in, (low, high), ANYWHERE, or arrays of one end per
    coordinate. class_names, image_names: what people call them, or none. fixed: whether its name stands for this
    content for good, as of files checked by SHA-256. Raises ValueError where that is not so, naming the first offender.
    """

    name: str
    split: str
    images: FloatArray
    labels: IndexArray
    shape: tuple[int, ...]
    domain: DataDomain = UNIT_RANGE
    class_names: tuple[str, ...] = ()
    image_names: tuple[str, ...] = ()
    fixed: bool = False

    def __post_init__(self) -> None:
        who = f"data set {text('name', self.name)!r} ({text('split', self.split)})"
        for key in ("images", "labels"):
            instance(f"{who}: {key}", getattr(self, key), np.ndarray)
        if self.images.dtype.kind != "f":
            raise ValueError(f"{who}: images must be floating-point numbers, got {self.images.dtype}")
        object.__setattr__(self, "shape", whole_numbers(f"{who}: shape", self.shape, 1))
        if self.images.shape[1:] != tuple(self.shape) or not len(self.images):
            raise ValueError(f"{who}: images must have shape (n, {self.shape}) with n ≥ 1, got {self.images.shape}")
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype.kind not in "iu":
            raise ValueError(
                f"{who}: labels must be {len(self.images)} whole numbers, one per image, "
                f"got {self.labels.dtype} of shape {self.labels.shape}"
            )
        if int(self.labels.min()) < 0:
            raise ValueError(f"{who}: labels must be ≥ 0, got {self.labels.min()} at {int(self.labels.argmin())}")
        object.__setattr__(self, "labels", _read_only(class_array(f"{who}: labels", self.labels)))
        object.__setattr__(
            self,
            "images",
            _read_only(number_array(f"{who}: images", self.images) if self.images.flags.writeable else self.images),
        )
        for key in ("class_names", "image_names"):
            object.__setattr__(self, key, names(f"{who}: {key}", getattr(self, key)))
        if self.class_names and int(self.labels.max()) >= len(self.class_names):
            raise ValueError(f"{who}: class {self.labels.max()} has no name, named are {len(self.class_names)} classes")
        if self.image_names and len(self.image_names) != len(self.images):
            raise ValueError(
                f"{who}: image_names must be {len(self.images)}, one per image, got {len(self.image_names)}"
            )
        object.__setattr__(self, "domain", _checked_domain(who, self.domain, tuple(self.shape)))
        _check_range(who, self.images, self.domain)

    def __len__(self) -> int:
        return int(self.labels.size)

    def __repr__(self) -> str:
        images = f"{counted(len(self), 'image')} of {sizes(self.shape)} in {span(self.images)}"
        return one_line("Dataset", [self.name, self.split, images, f"classes {span(self.labels)}"])

    @property
    def cut(self) -> DataDomain | None:
        """What balls around its features are cut by: the domain, arrays flat, None where that is ANYWHERE."""
        low, high = self.domain
        if isinstance(low, np.ndarray) or isinstance(high, np.ndarray):
            return np.ravel(low), np.ravel(high)
        return None if (low, high) == ANYWHERE else (low, high)

    @property
    def features(self) -> FloatArray:
        """The images as flat vectors, shape (n, channels·height·width)."""
        return self.images.reshape(len(self), -1)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names) or int(self.labels.max()) + 1

    @cached_property
    def digest(self) -> str:
        """SHA-256 over images, labels and shape."""
        state = hashlib.sha256(f"{self.images.shape}".encode())
        state.update(np.ascontiguousarray(self.images).tobytes())
        state.update(np.ascontiguousarray(self.labels, dtype=np.int64).tobytes())
        return state.hexdigest()

    @property
    def key(self) -> str:
        """What stored answers know it by: its name, with the content's digest where the name does not fix it."""
        return self.name if self.fixed else f"{self.name}:{self.digest}"

    @classmethod
    def from_arrays(
        cls, images: Any, labels: Any, *, name: str = "own", split: str = TEST, shape: Sequence[int] | None = None,
        domain: DataDomain | Sequence[float] | None = UNIT_RANGE, class_names: Sequence[str] = (),
    ) -> Dataset:  # fmt: skip
        """X and y. images: (n, …), numbers as the network takes them, of any library; labels: (n,) whole numbers ≥ 0.

        shape: of one image where the images are flat. domain: what their numbers lie in, None: anywhere. Nothing is
        scaled. Raises ValueError.
        """
        found = number_array("images", images)
        if found.ndim < 2:
            raise ValueError(f"images must have shape (n, …), one image a row, got {found.shape}")
        classes = class_array("labels", labels)
        own = tuple(found.shape[1:]) if shape is None else whole_numbers("shape", shape, 1)
        if math.prod(own) != math.prod(found.shape[1:]):
            raise ValueError(f"shape must have as many entries as an image of shape {found.shape[1:]}, got {own}")
        ends: Any = ANYWHERE if domain is None else domain
        parts = DatasetParts(found.reshape(len(found), *own), classes, ends, names("class_names", class_names))
        return cls._of(name, split, parts)

    @classmethod
    def from_torch(
        cls, dataset: Any, *, name: str = "own", split: str = TEST, count: int | None = None,
        domain: DataDomain | Sequence[float] | None = UNIT_RANGE,
    ) -> Dataset:  # fmt: skip
        """A torch data set, or any sequence of (image, label): the images as its transforms give them, in its order.

        count: the first so many only. domain: as of `from_arrays`. Raises ValueError naming the first item that is no
        such pair, or has another shape.
        """
        images, labels = torch_parts(dataset, count)
        named = getattr(dataset, "classes", None)
        class_names = tuple(map(str, named)) if isinstance(named, Iterable) and not isinstance(named, str) else ()
        return cls.from_arrays(images, labels, name=name, split=split, domain=domain, class_names=class_names)

    @classmethod
    def from_frame(
        cls, frame: Any, *, label: str = "label", name: str = "own", split: str = TEST,
        shape: Sequence[int] | None = None, domain: DataDomain | Sequence[float] | None = UNIT_RANGE,
    ) -> Dataset:  # fmt: skip
        """A DataFrame: a row an image, one column of labels (numbers, or texts numbered in sorted order).

        shape, domain: as of `from_arrays`. Raises ValueError naming the column or row that does not fit.
        """
        parts = frame_parts(frame, label)
        return cls.from_arrays(parts.images, parts.labels, name=name, split=split, shape=shape, domain=domain,
                               class_names=parts.class_names)  # fmt: skip

    @classmethod
    def load(
        cls, path: str | Path, split: str = TEST, domain: DataDomain | Sequence[float] | None = UNIT_RANGE
    ) -> Dataset:
        """A .npz or .csv file, or a folder of images; see `own_files.read_own_data`.

        domain: what its numbers may lie in where the file does not say. Raises FileNotFoundError, ValueError naming
        the file and what does not fit.
        """
        file = file_path("path", path)
        parts = read_own_data(file, one_of("split", split, SPLITS), stated_domain("domain", domain))
        return cls._of(file.resolve().name, split, parts)

    @classmethod
    def _of(cls, name: str, split: str, parts: DatasetParts) -> Dataset:
        images = _read_only(np.ascontiguousarray(parts.images, dtype=np.float64))
        ends = ANYWHERE if parts.domain is None else parts.domain
        return cls(name, split, images, parts.labels, tuple(images.shape[1:]), ends, parts.class_names,
                   parts.image_names)  # fmt: skip


def _read_only(array: AnyArray) -> AnyArray:
    array.setflags(write=False)
    return array


def _checked_domain(who: str, domain: object, shape: tuple[int, ...]) -> DataDomain:
    """Two numbers, or two arrays of an image's shape."""
    ends = stated_domain(f"{who}: domain", domain)
    if ends is None:
        raise ValueError(f"{who}: domain must be (low, high), got None")
    if isinstance(ends[0], float) and isinstance(ends[1], float):
        return ends
    for end in map(np.asarray, ends):
        if end.size not in (1, math.prod(shape)):
            raise ValueError(f"{who}: domain must have one end per coordinate of {shape}, got shape {end.shape}")
    lower, upper = (np.broadcast_to(np.ravel(end), math.prod(shape)).reshape(shape) for end in ends)
    if not (np.isfinite(lower) & np.isfinite(upper) & (lower <= upper)).all():
        raise ValueError(f"{who}: domain must have finite ends, low ≤ high, in every coordinate")
    return lower, upper


def _check_range(who: str, images: FloatArray, domain: DataDomain) -> None:
    """Every number finite and in the domain."""
    low, high = float(images.min()), float(images.max())  # NaN where any number is
    (least, most), finite = domain, math.isfinite(low) and math.isfinite(high)
    first = "" if finite else f", first {_first(images, ~np.isfinite(images))}"
    if isinstance(least, float) and isinstance(most, float):
        if not (finite and low >= least and high <= most):
            told = f"lie in {[least, most]}" if (least, most) != ANYWHERE else "be finite"
            raise ValueError(
                f"{who}: pixels must {told}, got {low:g} … {high:g}{first}{_hint((least, most), low, high)}"
            )
        return
    wrong = ~((images >= least) & (images <= most))
    if wrong.any():
        where = domain_text(domain)
        raise ValueError(f"{who}: numbers must lie in their {where}, got {_first(images, wrong)}")


def _first(images: FloatArray, wrong: Any) -> str:
    where = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"{images[where]} in image {where[0]} at {where[1:]}"


def _hint(domain: tuple[float, float], low: float, high: float) -> str:
    if domain == UNIT_RANGE and low >= 0 and 1 < high <= 255:
        return "; divide them by 255, or state their domain, (0, 255)"
    return "; state their domain, or none" if math.isfinite(low + high) else ""
