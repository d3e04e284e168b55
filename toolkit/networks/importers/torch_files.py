"""Files of torch.save, opened without torch: the object, and the bytes of its storages when they are asked for.

Since PyTorch 1.6 a zip of NAME/data.pkl and one uncompressed member NAME/data/KEY per storage; before that a stream of
pickles (magic number, version, machine, object, keys) and then, per key, the number of elements and the elements.

Source: torch/serialization.py (_save, _legacy_save). Checked: what pickled_tensors.py checks; that members are not
compressed, have the size that was announced and, by CRC-32, the content that was written; that bytes run from low to
high. Trusted: zipfile.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.networks.importers.pickled_tensors import PLAIN, read_pickle, read_program
from toolkit.networks.importers.stored_tensors import DTYPES, PickleError, Storage

ZIP = b"PK\x03\x04"
PROGRAM = "data.pkl"
MAGIC = 0x1950A86A20F9469CFC6C  # of the older format
LEGACY_VERSION = 1001
COUNT = struct.Struct("<q")
StorageBytes = Callable[[Storage], memoryview]


@dataclass(frozen=True, eq=False)
class TorchFile:
    """What a file of torch.save holds. content: the bytes of a storage; raises PickleError. size: bytes of the file."""

    value: Any
    content: StorageBytes
    size: int


@contextmanager
def open_torch_file(path: Path) -> Iterator[TorchFile]:
    """The file, to be read inside the block. Raises PickleError for anything else, OSError."""
    size = path.stat().st_size
    with path.open("rb") as raw:
        if raw.read(len(ZIP)) != ZIP:
            raw.seek(0)
            yield _stream(raw.read(), size)
            return
        with _damage_told(), zipfile.ZipFile(raw) as archive:
            yield _archive(archive, size)


@contextmanager
def _damage_told() -> Iterator[None]:
    """What zipfile says of a damaged archive, as PickleError; OSError: of members before the file's beginning."""
    try:
        yield
    except (zipfile.BadZipFile, EOFError, struct.error, NotImplementedError, RuntimeError, OSError) as error:
        raise PickleError(f"its zip archive is damaged: {str(error)[:200] or type(error).__name__}") from None


def _archive(archive: zipfile.ZipFile, size: int) -> TorchFile:
    programs = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith(f"/{PROGRAM}")]
    if len(programs) != 1:
        raise PickleError(f"a file of torch.save has one NAME/{PROGRAM}, got {len(programs)}")
    root = programs[0].removesuffix(PROGRAM)
    if f"{root}constants.pkl" in archive.namelist():
        raise PickleError(f"{PLAIN} (it is a TorchScript archive)")
    if f"{root}byteorder" in archive.namelist() and _member(archive, f"{root}byteorder") != b"little":
        raise PickleError("its numbers must be stored from the low byte to the high one")
    kept: dict[str, bytes] = {}

    def content(storage: Storage) -> memoryview:
        if storage.key not in kept:
            kept[storage.key] = _member(archive, f"{root}data/{storage.key}")
            if sum(map(len, kept.values())) > size:  # members that lie over each other
                raise PickleError("its storages must have less bytes than the file")
        return memoryview(kept[storage.key])

    return TorchFile(read_pickle(io.BytesIO(_member(archive, programs[0]))), content, size)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member, which torch never compresses: so none is larger than the file."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise PickleError(f"its storage {name[:100]!r} is missing") from None
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise PickleError(f"{name[:100]!r} must not be compressed")
    return archive.read(info)


def _stream(content: bytes, size: int) -> TorchFile:
    """The older format."""
    file = io.BytesIO(content)
    try:
        magic = read_pickle(file)
    except PickleError:
        magic = None
    if magic != MAGIC:
        raise PickleError("it is no file of torch.save")
    version, machine = read_pickle(file), read_pickle(file)
    if version != LEGACY_VERSION or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise PickleError("its version or byte order is another than torch.save's")
    value, storages = read_program(file)
    keys = read_pickle(file)
    if type(keys) is not list or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise PickleError("its pickle is damaged: the storages are not those of its tensors")
    places = _places(content, file.tell(), [storages[key] for key in dict.fromkeys(keys)])
    return TorchFile(value, lambda storage: places[storage.key], size)


def _places(content: bytes, start: int, storages: Iterable[Storage]) -> dict[str, memoryview]:
    """The bytes of storages that lie one behind the other, each behind its number of elements."""
    found: dict[str, memoryview] = {}
    for storage in storages:
        (count,) = COUNT.unpack_from(content, start) if start + COUNT.size <= len(content) else (-1,)
        end = start + COUNT.size + storage.size * np.dtype(DTYPES[storage.kind].numpy).itemsize
        if count != storage.size or end > len(content):
            raise PickleError(f"its storage {storage.key[:100]!r} is not whole")
        found[storage.key] = memoryview(content)[start + COUNT.size : end]
        start = end
    return found
