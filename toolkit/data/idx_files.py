"""The data sets that are four idx files, mnist and fashion-mnist: where the files may lie, their SHA-256, their format.

A file is looked for in $RELUGAP_DATA/NAME and $RELUGAP_DATA, then where Debian puts it, then fetched from its public
origin. Its SHA-256 is checked, wherever it was found.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.arrays import FloatArray, IndexArray
from toolkit.data.dataset_source import DatasetSource
from toolkit.data.registry import Download, data_folder, obtain


@dataclass(frozen=True)
class IdxFile:
    """One idx file: its name without .gz, the SHA-256 of its content and of the .gz at its public origin."""

    name: str
    content: str
    download: str


LARGEST_IDX = 64 * 2**20  # bytes of content; the largest of these files has 47,040,016


@dataclass(frozen=True, eq=False)
class IdxSource(DatasetSource):
    """A data set kept as idx files, images then labels of each split.

    origin: where NAME.gz is fetched. system: the folder of Debian's package, None where there is none.
    """

    fixed = True
    name: str
    origin: str
    system: str | None
    files: dict[str, tuple[IdxFile, IdxFile]]

    def read(self, split: str) -> tuple[FloatArray, IndexArray]:
        pixels, labels = (
            parse_idx(self._content(file), file.name, axes)
            for file, axes in zip(self.files[split], (3, 1), strict=True)
        )
        return pixels[:, None] / 255.0, labels.astype(np.int64)

    def found(self, split: str) -> tuple[bool, str]:
        paths = [next((path for path in self._candidates(file) if path.is_file()), None) for file in self.files[split]]
        if None in paths:
            return False, f"fetched from {self.origin} when asked for"
        return True, ", ".join(sorted({str(path.parent) for path in paths if path is not None}))

    def _candidates(self, file: IdxFile) -> list[Path]:
        """Every place where a file may be, in order. mnist and fashion-mnist share file names, so a folder counts."""
        folders = [data_folder() / self.name, data_folder(), *([Path(self.system)] if self.system else [])]
        return [folder / f"{file.name}{suffix}" for folder in folders for suffix in (".gz", "")]

    def _content(self, file: IdxFile) -> bytes:
        """The verified content of an idx file: the first copy that checks out, else fetched."""
        wrong: list[str] = []
        for path in self._candidates(file):
            if path.is_file():
                content = _read_file(path)
                if content is not None and hashlib.sha256(content).hexdigest() == file.content:
                    return content
                if path.parent != data_folder():  # where another data set's file may bear the same name
                    wrong.append(str(path))
        if wrong:
            raise ValueError(
                f"{wrong[0]} is not {self.name}'s {file.name} (the SHA-256 of its content must be {file.content}); "
                f"replace it by {self.origin}{file.name}.gz or remove it"
            )
        url = f"{self.origin}{file.name}.gz"
        return gzip.decompress(obtain(Download(f"{self.name}/{file.name}.gz", url, file.download)).read_bytes())


def parse_idx(content: bytes, name: str, axes: int) -> NDArray[np.uint8]:
    """The array of an idx file of unsigned bytes: 00 00 08 AXES, big-endian sizes, data; ValueError otherwise."""
    head = 4 + 4 * axes
    if content[:2] != b"\0\0" or len(content) < head:
        raise ValueError(f"{name} is not an idx file: it has {len(content)} bytes and begins with {content[:4].hex()}")
    if content[2] != 8:
        raise ValueError(f"{name} must hold unsigned bytes, type 08, got type {content[2]:02x}")
    if content[3] != axes:
        raise ValueError(f"{name} must have {axes} axes, got {content[3]}")
    shape = tuple(int(n) for n in np.frombuffer(content, dtype=">u4", count=axes, offset=4))
    if len(content) != head + math.prod(shape):
        raise ValueError(f"{name} must hold {math.prod(shape)} bytes of {shape}, got {len(content) - head}")
    return np.frombuffer(content, dtype=np.uint8, offset=head).reshape(shape)


def _read_file(path: Path) -> bytes | None:
    """The content, unzipped; None for a broken .gz and for one that grows beyond every file known here."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            content = stream.read(LARGEST_IDX + 1)
    except (OSError, EOFError, zlib.error):
        return None
    return content if len(content) <= LARGEST_IDX else None


MNIST = IdxSource(
    name="mnist",
    origin="https://storage.googleapis.com/cvdf-datasets/mnist/",
    system=None,
    files={
        "train": (
            IdxFile(
                "train-images-idx3-ubyte",
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            IdxFile(
                "train-labels-idx1-ubyte",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
        ),
        "test": (
            IdxFile(
                "t10k-images-idx3-ubyte",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            IdxFile(
                "t10k-labels-idx1-ubyte",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
    },
)
FASHION_MNIST = IdxSource(
    name="fashion-mnist",
    origin="https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    system="/usr/share/datasets/fashion-mnist",
    files={
        "train": (
            IdxFile(
                "train-images-idx3-ubyte",
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            IdxFile(
                "train-labels-idx1-ubyte",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
        ),
        "test": (
            IdxFile(
                "t10k-images-idx3-ubyte",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            IdxFile(
                "t10k-labels-idx1-ubyte",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
    },
)
