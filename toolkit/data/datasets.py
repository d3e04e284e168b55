"""Image data sets as one type, by name; where each is read from stands in `DATASETS`.

A new data set is a `DatasetSource` in a file of its own and a line there.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.arrays import FloatArray, IndexArray
from toolkit.data import idx_files, packaged_images
from toolkit.data.arguments import instance, real_number, shown, text, whole_numbers
from toolkit.data.dataset_source import DatasetSource
from toolkit.data.summaries import counted, one_line, sizes, span

DATASETS: dict[str, DatasetSource] = {
    "digits": packaged_images.DIGITS,
    "mnist5k": packaged_images.MNIST5K,
    "mnist": idx_files.MNIST,
    "fashion-mnist": idx_files.FASHION_MNIST,
}
SPLITS = ("train", "test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images in the unit box with their classes.

    images: float64 (n, channels, height, width) in [0, 1], read-only. labels: int64 (n,). shape: of one image.
    domain: the range of every pixel. Raises ValueError where images and labels are not that, naming the first offender.
    """

    name: str
    split: str
    images: FloatArray
    labels: IndexArray
    shape: tuple[int, ...]
    domain: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        who = f"data set {text('name', self.name)!r} ({text('split', self.split)})"
        for key in ("images", "labels"):
            instance(f"{who}: {key}", getattr(self, key), np.ndarray)
        if self.images.dtype.kind != "f":
            raise ValueError(f"{who}: images must be floating-point numbers, got {self.images.dtype}")
        object.__setattr__(self, "shape", whole_numbers(f"{who}: shape", self.shape, 1))
        if not isinstance(self.domain, Sequence) or len(self.domain) != 2:
            raise ValueError(f"{who}: domain must be (low, high), got {shown(self.domain)}")
        for end in self.domain:
            real_number(f"{who}: domain", end)
        if self.images.shape[1:] != tuple(self.shape) or not len(self.images):
            raise ValueError(f"{who}: images must have shape (n, {self.shape}) with n ≥ 1, got {self.images.shape}")
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype.kind not in "iu":
            raise ValueError(
                f"{who}: labels must be {len(self.images)} whole numbers, one per image, "
                f"got {self.labels.dtype} of shape {self.labels.shape}"
            )
        if int(self.labels.min()) < 0:
            raise ValueError(f"{who}: labels must be ≥ 0, got {self.labels.min()} at {int(self.labels.argmin())}")
        low, high = float(self.images.min()), float(self.images.max())  # NaN where any pixel is
        if not (low >= self.domain[0] and high <= self.domain[1]):
            raise ValueError(f"{who}: pixels must lie in {list(self.domain)}, got {low:g} … {high:g}")

    def __len__(self) -> int:
        return int(self.labels.size)

    def __repr__(self) -> str:
        images = f"{counted(len(self), 'image')} of {sizes(self.shape)} in {span(self.images)}"
        return one_line("Dataset", [self.name, self.split, images, f"classes {span(self.labels)}"])

    @property
    def features(self) -> FloatArray:
        """The images as flat vectors, shape (n, channels·height·width)."""
        return self.images.reshape(len(self), -1)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.labels.max()) + 1


@dataclass(frozen=True)
class DataStatus:
    """Whether one split is at hand, without reading it: where = what provides it, or how to get it."""

    name: str
    split: str
    available: bool
    where: str


def dataset_names() -> tuple[str, ...]:
    """The names `load_dataset` knows."""
    return tuple(DATASETS)


def load_dataset(name: str, split: str = "test") -> Dataset:
    """The named data set's split, pixels divided by their largest value.

    digits: 8×8, 1,297 train and 500 test. mnist5k: 28×28, 4,000 train and 1,000 test of MNIST's first training
    images. Both splits are fixed and stratified by class. mnist, fashion-mnist: 28×28, 60,000 train and 10,000 test.
    Raises ValueError for an unknown name or split and for a file with the wrong content, FileNotFoundError (saying
    what to download and where to put it) for files that are neither here nor reachable.
    """
    if text("name", name) not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; allowed: {', '.join(DATASETS)}")
    if text("split", split) not in SPLITS:
        raise ValueError(f"split must be train or test, got {split!r}")
    return _read(DATASETS[name], name, split)


@functools.lru_cache(maxsize=4)
def _read(source: DatasetSource, name: str, split: str) -> Dataset:
    images, labels = source.read(split)
    own = np.ascontiguousarray(images, dtype=np.float64)
    own.setflags(write=False)
    return Dataset(name, split, own, labels.astype(np.int64), tuple(own.shape[1:]))


def find_data() -> list[DataStatus]:
    """Where each data set would be read from; neither reads nor fetches anything."""
    return [DataStatus(name, split, *source.found(split)) for name, source in DATASETS.items() for split in SPLITS]
