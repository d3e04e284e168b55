"""Tensors as a file of torch.save stores them: numbers of a storage, and views of it by offset, sizes and strides.

Checked: that the numbers are real and float64 holds them as they are; that a view lies in its storage and repeats none
of its numbers. Trusted: nothing else; whatever bytes there are, are numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from toolkit.arrays import AnyArray, FloatArray


class StoredType(NamedTuple):
    """The numbers of one kind of storage: numpy's dtype, torch's name, whether float64 holds them as they are."""

    numpy: str
    torch: str
    real: bool = False


DTYPES = {
    "FloatStorage": StoredType("<f4", "torch.float32", True),
    "DoubleStorage": StoredType("<f8", "torch.float64", True),
    "HalfStorage": StoredType("<f2", "torch.float16", True),
    "BFloat16Storage": StoredType("<u2", "torch.bfloat16", True),
    "LongStorage": StoredType("<i8", "torch.int64"),
    "IntStorage": StoredType("<i4", "torch.int32"),
    "ShortStorage": StoredType("<i2", "torch.int16"),
    "CharStorage": StoredType("<i1", "torch.int8"),
    "ByteStorage": StoredType("<u1", "torch.uint8"),
    "BoolStorage": StoredType("<u1", "torch.bool"),
    "ComplexFloatStorage": StoredType("<c8", "torch.complex64"),
    "ComplexDoubleStorage": StoredType("<c16", "torch.complex128"),
}


class PickleError(ValueError):
    """The pickle is none that holds plain tensors; the text says what is wrong."""


@dataclass(frozen=True)
class Storage:
    """Numbers in a file. kind: a key of DTYPES. key: under which name the file holds them. size: how many."""

    kind: str
    key: str
    size: int


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor: a view of a storage, in numbers as torch counts them."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        """One past the last number of the storage that it shows; 0 where it has none."""
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return self.offset + last + 1 if self.size else 0

    def check(self) -> None:
        """Raise PickleError for a tensor that float64 would not hold as it is (complex, whole numbers), for one that
        leaves its storage, and for one that repeats numbers, which would take memory without bound."""
        if not DTYPES[self.storage.kind].real:
            raise PickleError(f"weights must be real floating-point numbers, got {DTYPES[self.storage.kind].torch}")
        if self.size > self.storage.size:
            raise PickleError(f"must hold all its numbers, got a view that repeats them to {self.shape}")
        if self.end > self.storage.size:
            raise PickleError(f"must lie in its storage of {self.storage.size} numbers, got number {self.end - 1}")

    def values(self, content: Callable[[Storage], memoryview]) -> FloatArray:
        """Its numbers as float64, exactly. content: the bytes of a storage. Raises PickleError as `check` does."""
        self.check()
        given, kind = content(self.storage), np.dtype(DTYPES[self.storage.kind].numpy)
        if len(given) != self.storage.size * kind.itemsize:
            needed = f"{self.storage.size} numbers of {kind.itemsize} bytes"
            raise PickleError(f"its storage must hold {needed}, got {len(given)} bytes")
        stored = np.frombuffer(given, kind)
        if not self.size:
            return np.zeros(self.shape)
        used = _float64(stored[self.offset : self.end], self.storage.kind)
        steps = tuple(used.itemsize * stride for stride in self.strides)
        return np.array(np.lib.stride_tricks.as_strided(used, self.shape, steps, writeable=False))


def _float64(stored: AnyArray, kind: str) -> FloatArray:
    if kind == "BFloat16Storage":  # the upper half of a float32
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(stored, dtype=np.float64)
