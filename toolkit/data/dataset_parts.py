"""What a data set is made of before it is checked, so that readers of files need not know the type."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from toolkit.arrays import FloatArray, IndexArray
from toolkit.data.amounts import DataDomain

UNIT_RANGE = (0.0, 1.0)
SPLITS = ("train", "test")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
LARGEST_LABEL = 999_999_999  # of nine digits
LARGEST_COUNT = 1 << 29  # numbers in the images of one data set: 4 GiB in double precision


@dataclass(frozen=True, eq=False)
class DatasetParts:
    """images: (n, …). labels: (n,). domain: what their numbers lie in, None = any. class_names: by class, or none.
    image_names: by image, or none."""

    images: FloatArray
    labels: IndexArray
    domain: DataDomain | None = UNIT_RANGE
    class_names: tuple[str, ...] = ()
    image_names: tuple[str, ...] = ()


def check_count(numbers: int) -> None:
    """Raises ValueError for more numbers than are read into memory."""
    if numbers > LARGEST_COUNT:
        raise ValueError(f"must hold at most {LARGEST_COUNT:,} numbers in its images, got {numbers:,}")


def scaled_levels(levels: FloatArray, domain: DataDomain | None, what: str) -> tuple[FloatArray, DataDomain]:
    """Levels 0 … 255 as numbers, and what these lie in: divided by 255, or where [0, 255] is the domain as they are.

    Raises ValueError for another domain: how levels would be mapped into it is not guessed. what: how messages call it.
    """
    pair = domain is not None and all(np.ndim(end) == 0 for end in domain)
    ends = None if domain is None else tuple(map(float, domain)) if pair else "one per coordinate"
    if ends in (None, UNIT_RANGE):
        return levels / 255.0, UNIT_RANGE
    if ends == (0.0, 255.0):
        return levels, (0.0, 255.0)
    raise ValueError(
        f"{what} is read as numbers in [0, 1] or [0, 255], the domain is {ends}; save the numbers as float64"
    )


def numbered(names: list[str], beside: Collection[str] = ()) -> tuple[IndexArray, tuple[str, ...]]:
    """Classes of texts, one per image, and the names of the classes.

    Whole numbers are the classes they say. Other texts are numbered 0, 1, … in the order of the distinct sorted ones,
    which numbers would not keep: 10.0 comes before 2.0. Raises ValueError for those, such as -1 and 1.5, and for
    numbers beside other texts. beside: texts that are classes as well, of another split.
    """
    distinct = sorted({*names, *beside})
    numbers = [name for name in distinct if _NUMBER.fullmatch(name)]
    wrong = next((name for name in numbers if not (name.isascii() and name.isdigit() and len(name) <= 9)), None)
    if len(numbers) < len(distinct):
        if numbers:
            other = next(name for name in distinct if name not in numbers)
            raise ValueError(f"labels must all be whole numbers or all be names, got {numbers[0]!r} and {other[:60]!r}")
        place = {name: k for k, name in enumerate(distinct)}
        return np.array([place[name] for name in names], dtype=np.int64), tuple(distinct)
    if wrong is not None:
        raise ValueError(f"labels that are numbers must be whole, ≥ 0 and of at most 9 digits, got {wrong[:60]!r}")
    return np.array([int(name) for name in names], dtype=np.int64), ()
