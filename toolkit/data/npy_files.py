"""One .npy file, read as hostile: mapped, so that a header that lies takes no memory; never a pickle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def open_npy(file: Path) -> NDArray[np.generic]:
    """The array in a .npy file, mapped and of any type. Raises ValueError for what is none, OSError."""
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, TypeError, EOFError, SyntaxError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"not an array of numbers: {reason}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError("not one array of numbers, but an archive of several")
    return array


def read_numbers(file: Path) -> NDArray[np.float64]:
    """The numbers of a .npy file in double precision, all finite. Raises FileNotFoundError, ValueError naming it."""
    if not file.is_file():
        raise FileNotFoundError(f"no .npy file at {file}")
    try:
        array = open_npy(file)
        if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
            raise ValueError(f"must hold numbers of at most 64 bits, got {array.dtype}")
        numbers = np.array(array, dtype=np.float64)
        wrong = np.argwhere(~np.isfinite(numbers))
        if wrong.size:
            where = tuple(int(i) for i in wrong[0])
            raise ValueError(f"every number must be finite, got {numbers[where]} at {where}")
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from error
    return numbers
