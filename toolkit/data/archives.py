"""Archives of arrays (.npz) read as hostile: every name, size and number is checked before it is used.

An .npz is a zip of .npy members, each a header (dtype, order, shape) and raw numbers. Before anything is decompressed
the zip directory gives every member's size and each header is parsed; a member is decompressed only when it is asked
for, after its shape and kind were found to be what the reader expects, and never beyond the size it declared.

Checked: no pickle, objects, structures, text where numbers are due; no name twice; how many members, how large alone
and in all, and how strongly compressed; CRC-32 of every member that is read; shapes against sizes, numbers against
their range. Trusted: zipfile and zlib, and whoever reads the arrays for what they mean.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from toolkit.arrays import AnyArray

LARGEST_ARCHIVE = 1 << 32  # bytes of all members, decompressed
MEMBERS = 100_000
LARGEST_RATIO = 200  # decompressed / stored: a bomb above it, from LARGE bytes on; weights compress by less than 20
LARGE = 1 << 26
HEADER_LIMIT = 10_000  # characters of a .npy header, as numpy's own limit
TEXT_LIMIT = 1 << 26  # bytes of a text member
PIECE = 1 << 22  # bytes decompressed at a time
ENCRYPTED = 0x1
KINDS = {"f": "float16, float32 or float64", "i": "whole numbers", "b": "booleans", "U": "text"}
OpenShape = tuple[int | None, ...]


class ArchiveError(ValueError):
    """The file is not an archive that may be read; the text names the member and what is wrong."""


@dataclass(frozen=True)
class _Member:
    info: zipfile.ZipInfo
    start: int  # where the numbers begin
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


class Archive:
    """The members of an open .npz by name; nothing is decompressed before `array` or `text` asks for it."""

    def __init__(self, file: zipfile.ZipFile, members: Mapping[str, _Member]) -> None:
        self._file, self._members = file, members

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the members, in the file's order."""
        return tuple(self._members)

    def __contains__(self, key: str) -> bool:
        return key in self._members

    def require(self, allowed: Collection[str]) -> None:
        """Raise ArchiveError unless the members are exactly those: none is missing, none would be ignored."""
        require_keys("member", self._members, allowed, allowed)

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape in the member's header."""
        return self._member(key).shape

    def dtype(self, key: str) -> np.dtype[Any]:
        """The type in the member's header."""
        return self._member(key).dtype

    def array(
        self,
        key: str,
        shape: OpenShape | None = None,
        kind: str = "f",
        low: float | None = None,
        high: float | None = None,
        finite: bool = False,
    ) -> AnyArray:
        """The numbers of a member, native and in C order: floats as float64, unsigned whole numbers as int64.

        shape: None in it leaves an axis open. kind: "f", "i" or "b". low, high: inclusive; NaN is refused with either.
        """
        member = self._member(key)
        _check_kind(key, member.dtype, kind)
        if shape is not None and not _fits(member.shape, shape):
            wanted = "×".join("any" if n is None else str(n) for n in shape)
            raise ArchiveError(f"{key} must have shape {wanted}, got {'×'.join(map(str, member.shape)) or 'a scalar'}")
        array = self._content(key, member)
        values = np.ascontiguousarray(array, dtype=_native(key, array)).reshape(member.shape)
        return checked_range(key, values, low, high, finite)

    def text(self, key: str) -> str:
        """The text of a scalar member."""
        member = self._member(key)
        _check_kind(key, member.dtype, "U")
        if member.shape != ():
            raise ArchiveError(f"{key} must be one text, got shape {member.shape}")
        if member.dtype.itemsize > TEXT_LIMIT:
            raise ArchiveError(f"{key} must have at most {TEXT_LIMIT} bytes, got {member.dtype.itemsize}")
        try:
            return str(self._content(key, member)[()])
        except ValueError as error:  # numbers that are no characters
            raise ArchiveError(f"{key} is not text: {error}") from None

    def json(self, key: str) -> dict[str, Any]:
        """The JSON object in a text member; see `parse_json`."""
        return parse_json(key, self.text(key))

    def _member(self, key: str) -> _Member:
        if key not in self._members:
            raise ArchiveError(f"{key} is missing")
        return self._members[key]

    def _content(self, key: str, member: _Member) -> AnyArray:
        """The raw numbers, as many bytes as the header promises: not one more is decompressed."""
        content = bytearray(member.info.file_size - member.start)
        view, filled = memoryview(content), 0
        with _reported(key), self._file.open(member.info) as stream:
            stream.seek(member.start)
            while filled < len(content) and (count := stream.readinto(view[filled : filled + PIECE])):  # type: ignore[attr-defined]
                filled += count
            beyond = stream.read(1)  # also has the CRC-32 checked
        if filled < len(content) or beyond:
            raise ArchiveError(f"{key} must hold {len(content)} bytes, got {'more' if beyond else filled}")
        return np.ndarray(member.shape, member.dtype, content, order="F" if member.fortran else "C")


@contextmanager
def open_archive(path: str | Path, limit: int = LARGEST_ARCHIVE, ratio: int = LARGEST_RATIO) -> Iterator[Archive]:
    """The .npz at `path`, its directory and headers checked, to be read inside the block.

    limit: bytes of all members together, decompressed. ratio: the strongest compression believed of a large member.
    Raises ArchiveError, FileNotFoundError, and OSError for a file that cannot be read.
    """
    with Path(path).open("rb") as raw:
        size = os.fstat(raw.fileno()).st_size
        with _reported("the file"):
            file = zipfile.ZipFile(raw)
        with file:
            yield Archive(file, _members(file, size, limit, ratio))


def _members(file: zipfile.ZipFile, size: int, limit: int, ratio: int) -> dict[str, _Member]:
    entries = file.infolist()
    if len(entries) > MEMBERS:
        raise ArchiveError(f"it must have at most {MEMBERS} members, got {len(entries)}")
    total = sum(entry.file_size for entry in entries)
    if total > limit:
        raise ArchiveError(f"its members must have at most {limit} bytes decompressed, got {total}")
    if total > LARGE and total > ratio * size:
        raise ArchiveError(f"{size} bytes are said to become {total}: refused as a decompression bomb")
    members: dict[str, _Member] = {}
    for entry in entries:
        key = entry.filename.removesuffix(".npy")
        if key == entry.filename or not key or key in members:
            raise ArchiveError(f"member {entry.filename[:100]!r} is {'there twice' if key in members else 'no .npy'}")
        if entry.flag_bits & ENCRYPTED or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArchiveError(f"{key} must be stored or deflated, without a password")
        stored = entry.compress_type == zipfile.ZIP_STORED
        if entry.compress_size > size or (stored and entry.compress_size != entry.file_size):
            raise ArchiveError(f"{key} says it takes {entry.compress_size} of the file's {size} bytes")
        with _reported(key), file.open(entry) as stream:
            members[key] = _header(key, entry, stream)
    return members


def _header(key: str, entry: zipfile.ZipInfo, stream: IO[bytes]) -> _Member:
    """What the .npy header promises, which must be exactly what the member holds."""
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):  # later ones serve structures only, and have headers of any length
        raise ArchiveError(f"{key} has the .npy version {version[0]}.{version[1]}, must be 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=HEADER_LIMIT)
    if dtype.hasobject or dtype.fields or dtype.subdtype:
        raise ArchiveError(f"{key} must hold plain numbers or text, got dtype {str(dtype)[:60]}")
    if len(shape) > 8 or not all(type(n) is int and n >= 0 for n in shape):
        raise ArchiveError(f"{key} must have up to 8 axes of length ≥ 0, got shape {shape}")
    size = math.prod(shape) * dtype.itemsize
    if entry.file_size - stream.tell() != size:
        raise ArchiveError(f"{key} of shape {shape} must hold {size} bytes, got {entry.file_size - stream.tell()}")
    return _Member(entry, stream.tell(), shape, bool(fortran), dtype)


@contextmanager
def _reported(key: str) -> Iterator[None]:
    """Whatever a damaged zip raises, as ArchiveError that names the member."""
    try:
        yield
    except (ArchiveError, FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # from zlib.error and struct.error to NotImplementedError
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ArchiveError(f"{key} cannot be read: {reason}") from None


def _check_kind(key: str, dtype: np.dtype[Any], kind: str) -> None:
    found = "i" if dtype.kind == "u" else dtype.kind
    if found != kind or (kind == "f" and dtype.itemsize > 8):  # a long double would be rounded
        raise ArchiveError(f"{key} must hold {KINDS[kind]}, got dtype {dtype}")


def _native(key: str, array: AnyArray) -> np.dtype[Any]:
    if array.dtype.kind == "f":
        return np.dtype(np.float64)
    if array.dtype.kind == "u":
        if array.size and int(array.max()) > np.iinfo(np.int64).max:
            raise ArchiveError(f"{key} must be < 2⁶³, got {int(array.max())}")
        return np.dtype(np.int64)
    return array.dtype.newbyteorder("=")


def _fits(found: tuple[int, ...], wanted: OpenShape) -> bool:
    return len(found) == len(wanted) and all(w is None or n == w for n, w in zip(found, wanted, strict=True))


def checked_range(
    name: str, values: AnyArray, low: float | None = None, high: float | None = None, finite: bool = False
) -> AnyArray:
    """The values, once all are in [low, high] and, if asked for, finite. Raises ArchiveError with the first."""
    wrong = ~np.isfinite(values) if finite else np.zeros(values.shape, dtype=np.bool_)
    if low is not None:
        wrong |= ~(values >= low)
    if high is not None:
        wrong |= ~(values <= high)
    if wrong.any():
        bounds = [f"≥ {low:g}" if low is not None else "", f"≤ {high:g}" if high is not None else ""]
        rule = " and ".join(filter(None, ["finite" if finite else "", *bounds]))
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ArchiveError(f"{name} must be {rule}, got {values[where]} at index {where}")
    return values


def parse_json(name: str, text: str) -> dict[str, Any]:
    """The JSON object in a text: no key twice, no nesting beyond Python's, no other value at the top."""
    try:
        content = json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ArchiveError(f"{name} is nested too deeply") from None
    except ValueError as error:
        raise ArchiveError(f"{name} is not JSON: {str(error)[:200]}") from None
    if not isinstance(content, dict):
        raise ArchiveError(f"{name} must be a JSON object, got {type(content).__name__}")
    return content


def _without_repeats(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)[:100]!r} is there twice")
    return found


def require_keys(what: str, content: Collection[str], required: Collection[str], allowed: Collection[str]) -> None:
    """Raise ArchiveError naming a key that is missing, or one that would be ignored."""
    missing = [key for key in required if key not in content]
    if missing:
        raise ArchiveError(f"{what} {missing[0]} is missing")
    known = frozenset(allowed)
    unknown = [key for key in content if key not in known]
    if unknown:
        raise ArchiveError(f"unknown {what} {unknown[0][:100]!r}; allowed: {', '.join(allowed)[:500]}")


def checked_integer(content: Mapping[str, object], key: str, low: int = 0, high: int = 2**53) -> int:
    """content[key], a whole number in [low, high]; true and 1.0 are none."""
    value = content.get(key)
    if type(value) is not int or not low <= value <= high:
        raise ArchiveError(f"{key} must be a whole number in {low} … {high}, got {_shown(value)}")
    return value


def checked_number(content: Mapping[str, object], key: str, low: float = -math.inf, high: float = math.inf) -> float:
    """content[key], a number in [low, high]; true and NaN are none, infinity only where a limit is infinite itself."""
    return as_number(key, content.get(key), low, high)


def as_number(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """`checked_number` of a value."""
    number = math.nan
    if type(value) is float or (type(value) is int and abs(value) <= 2**53):
        number = float(value)
    if not low <= number <= high:
        raise ArchiveError(f"{name} must be a number in [{low:g}, {high:g}], got {_shown(value)}")
    return number


def checked_text(content: Mapping[str, object], key: str, longest: int = 1000) -> str:
    """content[key], a text of at most `longest` characters."""
    value = content.get(key)
    if not isinstance(value, str) or len(value) > longest:
        raise ArchiveError(f"{key} must be a text of at most {longest} characters, got {_shown(value)}")
    return value


def checked_list(content: Mapping[str, object], key: str, longest: int) -> list[Any]:
    """content[key], a list of at most `longest` entries."""
    value = content.get(key)
    if not isinstance(value, list) or len(value) > longest:
        raise ArchiveError(f"{key} must be a list of at most {longest} entries, got {_shown(value)}")
    return value


def _shown(value: object) -> str:
    text = f"a number of {value.bit_length()} bits" if isinstance(value, int) and abs(value) > 2**64 else repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
