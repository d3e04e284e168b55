"""What a data set is read from: the one thing a new data set has to say."""

from __future__ import annotations

from abc import ABC, abstractmethod

from toolkit.arrays import FloatArray, IndexArray


class DatasetSource(ABC):
    """Reads the images of one data set; its name stands in `datasets.DATASETS`."""

    @abstractmethod
    def read(self, split: str) -> tuple[FloatArray, IndexArray]:
        """Images, shape (n, channels, height, width), pixels in [0, 1], and their classes 0, 1, …, shape (n,).

        split: "train" or "test". Results name test images by index, so their order never changes. Raises ValueError for
        files with the wrong content, FileNotFoundError (saying how to get them) for missing ones.
        """

    def found(self, split: str) -> tuple[bool, str]:
        """Whether the split is at hand, and where, or how it is got; neither reads nor fetches anything."""
        return True, type(self).__module__
