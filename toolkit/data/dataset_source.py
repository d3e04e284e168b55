"""What a data set is read from: the one thing a new data set has to say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from toolkit.arrays import FloatArray, IndexArray
from toolkit.data.arguments import number_array
from toolkit.data.own_data import class_array


class DatasetSource(ABC):
    """Reads the images of one data set; its name stands in `datasets.DATASETS`.

    fixed: whether its content is checked, by SHA-256, so that the name alone says what it is.
    """

    fixed: ClassVar[bool] = False

    @abstractmethod
    def read(self, split: str) -> tuple[FloatArray, IndexArray]:
        """Images, shape (n, channels, height, width), pixels in [0, 1], and their classes 0, 1, …, shape (n,).

        split: "train" or "test". Results name test images by index, so their order never changes. Raises ValueError for
        files with the wrong content, FileNotFoundError (saying how to get them) for missing ones.
        """

    def found(self, split: str) -> tuple[bool, str]:
        """Whether the split is at hand, and where, or how it is got; neither reads nor fetches anything."""
        return True, type(self).__module__


class LoadedSource(DatasetSource):
    """A data set of one's own, read by a function: load(split) gives images in [0, 1] and their classes."""

    def __init__(self, load: Callable[[str], tuple[Any, Any]]) -> None:
        self._load = load

    def read(self, split: str) -> tuple[FloatArray, IndexArray]:
        found = self._load(split)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise ValueError(f"its loader must give (images, labels), got {type(found).__name__}")
        return number_array("its images", found[0]), class_array("its labels", found[1])  # copies

    def found(self, split: str) -> tuple[bool, str]:
        return True, str(getattr(self._load, "__module__", "a function"))
