"""CIFAR-10 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"): its files, and their SHA-256.

Looked for in $RELUGAP_DATA/cifar10 and $RELUGAP_DATA: the binary version's files in cifar-10-batches-bin, its archive,
the Python version's archive; else the binary version's archive is fetched from its public origin. SHA-256 of all are
checked before anything in them is read, and unpacked in memory only. Files of the Python version are pickles: they are
read by a reader that builds bytes, texts, numbers, lists, dictionaries and arrays of bytes, and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.arrays import FloatArray, IndexArray
from toolkit.data.dataset_source import DatasetSource
from toolkit.data.registry import Download, data_folder, obtain

CIFAR_FOLDER = "cifar10"
PIXELS = 3 * 32 * 32
RECORD = 1 + PIXELS  # a label, then the red, green and blue plane
PER_FILE = 10_000
BATCHES = {"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)}
ORIGIN = "https://www.cs.toronto.edu/~kriz/"
BINARY = Download(
    f"{CIFAR_FOLDER}/cifar-10-binary.tar.gz",
    f"{ORIGIN}cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
PYTHON = Download(
    f"{CIFAR_FOLDER}/cifar-10-python.tar.gz",
    f"{ORIGIN}cifar-10-python.tar.gz",
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
BINARY_FILES = {
    "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}


@dataclass(frozen=True, eq=False)
class CifarSource(DatasetSource):
    """binary, python: the archives. files: SHA-256 of the binary version's. per_file: images in each."""

    fixed: ClassVar[bool] = True
    binary: Download = BINARY
    python: Download = PYTHON
    files: tuple[tuple[str, str], ...] = tuple(BINARY_FILES.items())
    per_file: int = PER_FILE

    def read(self, split: str) -> tuple[FloatArray, IndexArray]:
        batches = self._batches(BATCHES[split])
        records = np.concatenate([self._checked(name, content) for name, content in batches.items()])
        return records[:, 1:].reshape(-1, 3, 32, 32) / 255.0, records[:, 0].astype(np.int64)

    def found(self, split: str) -> tuple[bool, str]:
        places = [self._unpacked(name) for name in BATCHES[split]]
        if all(path is not None for path in places):
            return True, str(places[0].parent) if places[0] else ""
        for archive in (self.binary, self.python):
            if (path := _lying(archive)) is not None:
                return True, str(path)
        return False, f"fetched from {self.binary.url} when asked for"

    def _batches(self, names: Sequence[str]) -> dict[str, bytes]:
        """The content of files as the binary version has it, wherever they are found."""
        paths = {name: self._unpacked(name) for name in names}
        if all(path is not None for path in paths.values()):
            hashes = dict(self.files)
            return {name: _with_hash(path, hashes[name]) for name, path in paths.items() if path is not None}
        if _lying(self.binary) is None and (archive := _lying(self.python)) is not None:
            wanted = {f"cifar-10-batches-py/{name}": name for name in names}
            found = _members(_with_hash(archive, self.python.sha256), wanted, archive.name)
            return {name: python_batch(content, name) for name, content in found.items()}
        place = _lying(self.binary) or obtain(self.binary)
        wanted = {f"cifar-10-batches-bin/{name}.bin": name for name in names}
        return _members(_with_hash(place, self.binary.sha256), wanted, place.name)

    def _unpacked(self, name: str) -> Path | None:
        folders = (data_folder() / CIFAR_FOLDER, data_folder())
        paths = [folder / "cifar-10-batches-bin" / f"{name}.bin" for folder in folders]
        return next((path for path in paths if path.is_file()), None)

    def _checked(self, name: str, content: bytes) -> NDArray[np.uint8]:
        if len(content) != self.per_file * RECORD:
            raise ValueError(f"{name} must hold {self.per_file} records of {RECORD} bytes, got {len(content)} bytes")
        records = np.frombuffer(content, dtype=np.uint8).reshape(-1, RECORD)
        if records[:, 0].max() > 9:
            raise ValueError(f"{name} must hold classes 0 … 9, got {records[:, 0].max()}")
        return records


def _lying(download: Download) -> Path | None:
    """The archive on this machine, in either folder."""
    name = Path(download.path).name
    return next((path for path in (data_folder() / CIFAR_FOLDER / name, data_folder() / name) if path.is_file()), None)


def _with_hash(path: Path, sha256: str) -> bytes:
    content = path.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(f"{path} must have the SHA-256 {sha256}, got {found}; replace or remove it")
    return content


def _members(archive: bytes, wanted: Mapping[str, str], what: str) -> dict[str, bytes]:
    """The content of files in a .tar.gz that was checked, by the names they are wanted under, in that order."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r|gz") as tar:
        for member in tar:
            if member.name in wanted and (file := tar.extractfile(member)) is not None:
                found[wanted[member.name]] = file.read()
    missing = next((path for path, name in wanted.items() if name not in found), None)
    if missing is not None:
        raise ValueError(f"{what} holds no {missing}")
    return {name: found[name] for name in wanted.values()}


# ------------------------------------------------------------------------------------------- the Python version


class _PlainUnpickler(pickle.Unpickler):
    """A reader of pickles that finds no class and no function but the two that a numpy array of bytes is made of."""

    def find_class(self, module: str, name: str) -> Any:
        arrays = {("numpy", "dtype"): np.dtype, ("numpy", "ndarray"): np.ndarray}
        made = {"numpy.core.multiarray", "numpy._core.multiarray"}
        if module in made and name == "_reconstruct":
            return _empty_array
        if (module, name) in arrays:
            return arrays[module, name]
        if (module, name) == ("_codecs", "encode"):
            return _latin_bytes
        raise ValueError(f"a batch must hold numbers and texts alone, got {module[:40]}.{name[:40]}")


def _empty_array(kind: object, shape: object, code: object) -> Any:
    if kind is not np.ndarray or shape != (0,):
        raise ValueError("a batch must hold plain arrays")
    return np.ndarray.__new__(np.ndarray, (0,), np.uint8)


def _latin_bytes(text: object, codec: object) -> bytes:
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise ValueError("a batch must hold bytes as latin1")
    return text.encode("latin-1")


def python_batch(content: bytes, name: str) -> bytes:
    """A pickled batch of the Python version as the binary one has it: a label, then the image, one after the other.

    Raises ValueError for anything but a dictionary with data, (n, 3072) of bytes, and labels, n numbers in 0 … 9.
    """
    try:
        batch = _PlainUnpickler(io.BytesIO(content), encoding="bytes").load()
    except ValueError:
        raise
    except Exception as error:  # of damaged pickles: almost any
        raise ValueError(f"{name} is not a batch: {type(error).__name__}") from None
    if not isinstance(batch, dict):
        raise ValueError(f"{name} must be a dictionary, got {type(batch).__name__}")
    data, labels = batch.get(b"data"), batch.get(b"labels")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != PIXELS:
        raise ValueError(f"{name} must hold data of bytes, (n, {PIXELS})")
    if not isinstance(labels, list) or len(labels) != len(data):
        raise ValueError(f"{name} must hold {len(data)} labels")
    if not all(type(label) is int and 0 <= label <= 9 for label in labels):
        raise ValueError(f"{name} must hold labels in 0 … 9")
    return np.concatenate([np.array(labels, dtype=np.uint8)[:, None], np.ascontiguousarray(data)], axis=1).tobytes()


CIFAR10 = CifarSource()
