"""Data sets by name; where each is read from stands in `DATASETS`. And one's own, by path.

A new data set is a `DatasetSource` in a file of its own and a line there, or a function and `register_dataset`.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from toolkit.data import cifar_files, idx_files, packaged_images, verifier_images
from toolkit.data.amounts import DataDomain, stated_domain
from toolkit.data.arguments import own_path, shown, text
from toolkit.data.dataset import Dataset
from toolkit.data.dataset_parts import SPLITS, UNIT_RANGE
from toolkit.data.dataset_source import DatasetSource, LoadedSource
from toolkit.data.names import path_name
from toolkit.data.own_data import class_array
from toolkit.data.own_files import WHAT_FITS, files_of, is_own_data

__all__ = [
    "DATASETS",
    "SPLITS",
    "DataStatus",
    "Dataset",
    "check_data_name",
    "data_beside",
    "dataset_key",
    "dataset_names",
    "find_data",
    "load_dataset",
    "register_dataset",
]

DATASETS: dict[str, DatasetSource] = {
    "digits": packaged_images.DIGITS,
    "mnist5k": packaged_images.MNIST5K,
    "mnist": idx_files.MNIST,
    "fashion-mnist": idx_files.FASHION_MNIST,
    "cifar10": cifar_files.CIFAR10,
    "sdp-mnist": verifier_images.SDP_MNIST,
    "sdp-cifar": verifier_images.SDP_CIFAR,
    "eran-mnist": verifier_images.ERAN_MNIST,
}
_logger = logging.getLogger("relugap.data")
_Named = TypeVar("_Named")


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


def register_dataset(name: str, load: Callable[[str], tuple[Any, Any]] | DatasetSource, replace: bool = False) -> None:
    """Make a data set of one's own known by a name, in this process, wherever data sets are named.

    load: called with "train" or "test", gives images in [0, 1], (n, …), and their classes, (n,); or a source. Raises
    ValueError for a name that is taken (unless `replace`) or unfit for a path, and for a loader that is none.
    """
    path_name(text("name", name), "name of a data set")
    if name in DATASETS and not replace:
        raise ValueError(f"the name {name!r} is taken by a data set; give another, or replace=True")
    if not isinstance(load, DatasetSource) and not callable(load):
        raise ValueError(f"load must be a function of the split, got {shown(load)}")
    DATASETS[name] = load if isinstance(load, DatasetSource) else LoadedSource(load)


def check_data_name(name: str) -> str:
    """The name of a data set that is known, or a path, which is not looked at. Raises ValueError for any other."""
    if text("name", name) not in DATASETS and not is_own_data(name):
        raise ValueError(f"unknown data set {name!r}; allowed: {', '.join(DATASETS)}; own data are {WHAT_FITS}")
    return name


def data_beside(name: _Named, folder: Path) -> _Named:
    """A data set's path as it is looked up beside the file that names it; anything else as it is."""
    if not isinstance(name, str) or name in DATASETS:
        return name
    return str(folder / own_path(name))  # type: ignore[return-value]


def load_dataset(name: str | Path, split: str = "test", domain: DataDomain | None = UNIT_RANGE) -> Dataset:
    """The named data set's split, pixels divided by their largest value; or one's own at a path.

    digits: 8×8, 1,297 train and 500 test. mnist5k: 28×28, 4,000 train and 1,000 test of MNIST's first training
    images. Both splits are fixed and stratified by class. mnist, fashion-mnist: 28×28, 60,000 train and 10,000 test.
    sdp-mnist, sdp-cifar, eran-mnist: 200, 200, 1,000 test images on which verifiers are compared (verifier_images.py).
    cifar10: 3×32×32, 50,000 train and 10,000 test. A path: see `own_files.read_own_data`, also for the domain, which
    the named ones state themselves.
    Raises ValueError for an unknown name or split and for a file with the wrong content, FileNotFoundError (saying
    what to download and where to put it) for files that are neither here nor reachable.
    """
    known = check_data_name(str(name) if isinstance(name, Path) else name)
    ends = stated_domain("domain", domain)
    if text("split", split) not in SPLITS:
        raise ValueError(f"split must be train or test, got {split!r}")
    if known in DATASETS:
        return _read(DATASETS[known], known, split)
    path = own_path(known).resolve()
    return _read_own(path, split, _Stated(ends), _stamp(path, split))


def dataset_key(name: str, domain: DataDomain | None = UNIT_RANGE) -> str:
    """`Dataset.key` of the test split, without reading it where the name fixes its content; see `load_dataset`."""
    source = DATASETS.get(name)
    return name if source is not None and source.fixed else load_dataset(name, domain=domain).key


@functools.lru_cache(maxsize=4)
def _read(source: DatasetSource, name: str, split: str) -> Dataset:
    images, labels = source.read(split)
    _logger.info("read %s (%s): %d images", name, split, len(images))
    own = np.ascontiguousarray(images, dtype=np.float64)
    own.setflags(write=False)
    classes = class_array(f"data set {name!r} ({split}): labels", labels)
    return Dataset(name, split, own, classes, tuple(own.shape[1:]), fixed=source.fixed)


class _Stated:
    """A domain, equal to others of the same numbers, which arrays in tuples are not."""

    def __init__(self, domain: DataDomain | None) -> None:
        self.domain = domain
        self._key = None if domain is None else tuple((np.shape(e), np.asarray(e, float).tobytes()) for e in domain)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Stated) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@functools.lru_cache(maxsize=2)
def _read_own(path: Path, split: str, stated: _Stated, stamp: str) -> Dataset:
    """stamp: of the content as it lies there now, so that what has changed is read anew."""
    data = Dataset.load(path, split, stated.domain)
    _logger.info("read %s (%s): %d images of shape %s, digest %s", path, split, len(data), data.shape, data.digest[:12])
    return data


def _stamp(path: Path, split: str) -> str:
    """Names, sizes and times of all files that a split is read from."""
    state = hashlib.sha256()
    for file in files_of(path, split) if path.exists() else ():
        found = file.stat() if file.exists() else file.lstat()
        state.update(f"{file}\0{found.st_size}\0{found.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return state.hexdigest()


def find_data() -> list[DataStatus]:
    """Where each data set would be read from; neither reads nor fetches anything."""
    return [DataStatus(name, split, *source.found(split)) for name, source in DATASETS.items() for split in SPLITS]
