"""CIFAR-10's files: wherever they lie, checked by SHA-256; the Python version's pickles build numbers and nothing else.

The real files are not needed: sources of a few images stand in for them.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.data import cifar_files as cifar
from toolkit.data.datasets import DATASETS, find_data, load_dataset
from toolkit.data.registry import Download

EACH = 3


def tar(path: Path, files: Mapping[str, bytes]) -> str:
    """A .tar.gz of files; its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, np.ndarray]:
    """Six batches of three images, no file yet; `cifar10` is a source of them and $RELUGAP_DATA an empty folder."""
    rng = np.random.default_rng(0)
    batches = {}
    for name in cifar.BINARY_FILES:
        records = rng.integers(0, 256, (EACH, cifar.RECORD)).astype(np.uint8)
        records[:, 0] %= 10
        batches[name] = records
    files = tuple((name, hashlib.sha256(records.tobytes()).hexdigest()) for name, records in batches.items())
    source = cifar.CifarSource(
        Download("cifar10/cifar-10-binary.tar.gz", "http://127.0.0.1:9/b", "0" * 64),
        Download("cifar10/cifar-10-python.tar.gz", "http://127.0.0.1:9/p", "0" * 64), files, EACH,
    )  # fmt: skip
    monkeypatch.setitem(DATASETS, "cifar10", source)
    monkeypatch.setenv("RELUGAP_DATA", str(tmp_path))
    return batches


def use(monkeypatch: pytest.MonkeyPatch, **archives: Download) -> None:
    monkeypatch.setitem(DATASETS, "cifar10", replace(DATASETS["cifar10"], **archives))  # type: ignore[type-var]


def check(batches: Mapping[str, np.ndarray]) -> None:
    for split, names in cifar.BATCHES.items():
        whole, data = np.concatenate([batches[name] for name in names]), load_dataset("cifar10", split)
        assert (data.shape, data.key) == ((3, 32, 32), "cifar10")
        np.testing.assert_array_equal(data.features, whole[:, 1:] / 255.0)
        np.testing.assert_array_equal(data.labels, whole[:, 0])


@pytest.mark.parametrize("place", ["cifar10/cifar-10-batches-bin", "cifar-10-batches-bin"])
def test_unpacked_files_of_the_binary_version(small: dict[str, np.ndarray], place: str, tmp_path: Path) -> None:
    (tmp_path / place).mkdir(parents=True)
    for name, records in small.items():
        (tmp_path / place / f"{name}.bin").write_bytes(records.tobytes())
    assert all(one.available for one in find_data() if one.name == "cifar10")
    check(small)
    broken = tmp_path / place / "test_batch.bin"
    broken.write_bytes(broken.read_bytes()[:-1] + b"x")
    with pytest.raises(
        ValueError, match=r"test_batch.bin must have the SHA-256 [0-9a-f]{64}, got .*; replace or remove it"
    ):
        cifar_read("test")


def cifar_read(split: str) -> Any:
    return DATASETS["cifar10"].read(split)


def test_the_binary_archive(small: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"cifar-10-batches-bin/{name}.bin": records.tobytes() for name, records in small.items()}
    path = tmp_path / "cifar10" / "cifar-10-binary.tar.gz"
    with pytest.raises(FileNotFoundError, match=r"download http://127.0.0.1:9/b and put it into"):
        cifar_read("test")
    found = tar(path, files)
    with pytest.raises(ValueError, match=r"cifar-10-binary.tar.gz must have the SHA-256 0{64}"):
        cifar_read("test")
    use(monkeypatch, binary=Download("cifar10/cifar-10-binary.tar.gz", "http://127.0.0.1:9/b", found))
    check(small)
    found = tar(path, {})
    use(monkeypatch, binary=Download("cifar10/cifar-10-binary.tar.gz", "http://127.0.0.1:9/b", found))
    with pytest.raises(ValueError, match=r"holds no cifar-10-batches-bin/test_batch.bin"):
        cifar_read("test")


def batch_of(records: np.ndarray, protocol: int = 2) -> bytes:
    content = {b"batch_label": b"a batch", b"labels": records[:, 0].tolist(), b"data": records[:, 1:].copy()}
    return pickle.dumps(content, protocol)


def test_the_python_archive(small: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"cifar-10-batches-py/{name}": batch_of(records) for name, records in small.items()}
    found = tar(tmp_path / "cifar-10-python.tar.gz", files)
    use(monkeypatch, python=Download("cifar10/cifar-10-python.tar.gz", "http://127.0.0.1:9/p", found))
    check(small)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_pickled_batch_reads_as_the_binary_one(protocol: int, small: dict[str, np.ndarray]) -> None:
    records = small["test_batch"]
    assert cifar.python_batch(batch_of(records, protocol), "test_batch") == records.tobytes()


class Call:
    """Unpickled by anything that calls what it is told, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        import os

        return os.mkdir, (str(self.path),)


def test_a_pickle_that_calls_something_is_refused_unread(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    for content in (
        Call(trap),
        {b"data": Call(trap)},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": [Call(trap)]},
    ):
        with pytest.raises(ValueError, match=r"a batch must hold numbers and texts alone, got (posix|nt).mkdir"):
            cifar.python_batch(pickle.dumps(content), "x")
    assert not trap.exists()
    calls = b"cbuiltins\neval\n(S'1'\ntR."
    with pytest.raises(ValueError, match=r"got builtins.eval"):
        cifar.python_batch(calls, "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x is not a batch: EOFError"),
        (b"\x80\x04K\x01.", "x must be a dictionary, got int"),
        (pickle.dumps({b"labels": [1]}), "x must hold data of bytes"),
        (pickle.dumps({b"data": np.zeros((1, 3072)), b"labels": [1]}), "x must hold data of bytes"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [1, 2]}), "x must hold 1 labels"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}), "labels in 0 … 9"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [True]}), "labels in 0 … 9"),
    ],
)
def test_batches_of_another_content_are_named(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cifar.python_batch(content, "x")


def test_records_are_checked() -> None:
    source = cifar.CifarSource(per_file=1)
    with pytest.raises(ValueError, match="b must hold 1 records of 3073 bytes, got 5 bytes"):
        source._checked("b", b"12345")
    with pytest.raises(ValueError, match=r"b must hold classes 0 … 9, got 77"):
        source._checked("b", b"\x4d" * cifar.RECORD)


def test_the_real_test_set_has_a_thousand_of_each_class() -> None:
    if not next(s for s in find_data() if (s.name, s.split) == ("cifar10", "test")).available:
        pytest.skip("needs CIFAR-10: set RELUGAP_DATA to the folder that holds cifar10/cifar-10-binary.tar.gz")
    assert np.bincount(load_dataset("cifar10").labels).tolist() == [1000] * 10
