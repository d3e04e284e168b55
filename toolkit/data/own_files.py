"""One's own data from files, read as hostile: .npz, .csv, folders of .png, and folders of a train and a test one.

Checked: types, shapes, that every number is finite, that every image has the shape of the first, sizes before anything
is read whole; no pickle. Trusted: that labels and the order of classes are what their maker meant.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from toolkit.arrays import FloatArray, IndexArray
from toolkit.data.amounts import DataDomain
from toolkit.data.archives import Archive, open_archive
from toolkit.data.arguments import own_path
from toolkit.data.dataset_parts import (
    LARGEST_LABEL,
    SPLITS,
    UNIT_RANGE,
    DatasetParts,
    check_count,
    numbered,
    scaled_levels,
)
from toolkit.data.images import read_levels, whole_levels
from toolkit.data.own_tables import read_table, table_classes

OWN_FILES = (".npz", ".csv")
MEMBERS_OF_DATA = ("images", "labels", "shape", "domain", "names")
LARGEST_FOLDER = 2_000_000  # images
LONGEST_CLASS = 200  # characters of a class's name
WHAT_FITS = "a .npz or .csv file, or a folder with a sub-folder of .png images a class"


def read_own_data(path: Path, split: str = "test", domain: DataDomain | None = UNIT_RANGE) -> DatasetParts:
    """What is at `path`: the parts of a data set.

    .npz: images (n, …), floats as they are or uint8, labels (n,) whole numbers; optional: shape of one image where they
    are flat, domain (2,) or (2, …), names of the classes. .csv: a row an image, the label in the column `label`, else
    in the first. A folder: CLASS/*.png, in turns a first image of every class, then a second, each by name; classes
    named by whole numbers are these, others 0, 1, … in sorted order. A folder that holds `train` and `test`, each one
    of these, has two splits, whose classes are numbered together; everything else is a test split.
    domain: where the file states none, what its numbers lie in; levels (uint8, .png) are divided by 255, but for
    [0, 255]. Raises FileNotFoundError, ValueError naming file, member, column or image.
    """
    file, other = _of_split(path, split)
    if not file.exists():
        raise FileNotFoundError(f"no data at {file}; own data are {WHAT_FITS}")
    beside = () if other is None else _class_texts(other)
    with _named(file):
        parts = _read(file, domain, beside)
    if other is not None:
        theirs = _stated_names(other) or (numbered([*beside])[1] if file.suffix == ".npz" and beside else ())
        _check_names(file, parts.class_names, other, theirs)
    return parts


def files_of(path: Path, split: str) -> list[Path]:
    """What `read_own_data` reads for a split, and what of the other its classes are numbered with; a folder that holds
    anything else is refused before it is looked through."""
    file, other = _of_split(path, split)
    found = [one for one in (file, other) if one is not None]
    with _named(file):
        if file.is_dir():
            found += [image for _, image in folder_images(file)]
    if other is not None and other.is_dir():
        found += sorted(other.iterdir())
    return found


def is_own_data(name: str) -> bool:
    """Whether a data set's name is a path: by its ending, by a separator, or as a folder that is there."""
    return name.endswith(OWN_FILES) or "/" in name or "\\" in name or (name != "" and own_path(name).is_dir())


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    """ValueErrors of the block with the file's name before them."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from error


def _read(file: Path, domain: DataDomain | None, beside: Collection[str]) -> DatasetParts:
    """beside: the texts by which the other split names its classes."""
    if file.is_dir():
        return _read_folder(file, domain, beside)
    if file.suffix == ".npz":
        with open_archive(file) as archive:
            return _read_npz(archive, domain)
    if file.suffix == ".csv":
        return read_table(file, domain, beside)
    raise ValueError(f"own data are {WHAT_FITS}")


def _class_texts(file: Path) -> Collection[str]:
    """The texts by which a folder or table names its classes."""
    with _named(file):
        if file.is_dir():
            return [inside.name for inside in file.iterdir() if inside.is_dir() and not inside.name.startswith(".")]
        return table_classes(file) if file.suffix == ".csv" else ()


def _stated_names(file: Path) -> tuple[str, ...]:
    """The names that an archive gives its classes."""
    if file.suffix != ".npz" or file.is_dir():
        return ()
    with _named(file), open_archive(file) as archive:
        return _names(archive)


def _check_names(file: Path, own: tuple[str, ...], other: Path, theirs: tuple[str, ...]) -> None:
    """Raises ValueError for two splits that give one number to classes of two names."""
    if own and theirs and own != theirs:
        k = next((k for k, pair in enumerate(zip(own, theirs, strict=False)) if pair[0] != pair[1]), None)
        told = f"{len(own)} and {len(theirs)} classes" if k is None else f"class {k}: {own[k]!r} and {theirs[k]!r}"
        raise ValueError(f"{file.name} and {other.name} must name the same classes in the same order, got {told}")


def _of_split(path: Path, split: str) -> tuple[Path, Path | None]:
    """The file or folder of a split, and that of the other where there is one. Raises ValueError for one that is not
    there."""
    if path.is_dir():
        parts = {name: [path / f"{name}{end}" for end in ("", *OWN_FILES)] for name in SPLITS}
        found = {name: [one for one in ends if one.exists()] for name, ends in parts.items()}
        if all(found.values()):
            for name, files in found.items():
                if len(files) > 1:
                    raise ValueError(
                        f"{path.name}: must hold one {name} split, got {', '.join(file.name for file in files)}"
                    )
            return found[split][0], next(files[0] for name, files in found.items() if name != split)
    if split != "test":
        raise ValueError(
            f"{path.name}: has no {split} split; put two data sets, train and test, into a folder and name it"
        )
    return path, None


# ------------------------------------------------------------------------------------------------------- .npz


def _read_npz(archive: Archive, domain: DataDomain | None) -> DatasetParts:
    for key in archive.keys:
        if key not in MEMBERS_OF_DATA:
            raise ValueError(f"unknown array {key[:100]!r}; allowed: {', '.join(MEMBERS_OF_DATA)}")
    size = archive.shape("images")
    if len(size) < 2 or not math.prod(size):
        raise ValueError(f"images must have shape (n, …) with n ≥ 1, got {size}")
    check_count(math.prod(size))
    labels: IndexArray = archive.array("labels", (size[0],), "i", 0, LARGEST_LABEL)
    ends: DataDomain | None
    stated = _domain(archive, domain)
    if archive.dtype("images") == np.uint8:
        images, ends = scaled_levels(archive.array("images", kind="i").astype(np.float64), stated, "uint8")
    else:
        images, ends = archive.array("images", finite=True), stated
    if "shape" in archive:
        own = tuple(archive.array("shape", (None,), "i", low=1).tolist())
        if math.prod(own) != math.prod(size[1:]):
            raise ValueError(f"shape must have as many entries as an image of shape {size[1:]}, got {own}")
        images = images.reshape(size[0], *own)
    return DatasetParts(images, labels, ends, _names(archive))


def _domain(archive: Archive, domain: DataDomain | None) -> DataDomain | None:
    if "domain" not in archive:
        return domain
    kind = "f" if archive.dtype("domain").kind == "f" else "i"
    ends = archive.array("domain", kind=kind, finite=True).astype(np.float64)
    if ends.shape[:1] != (2,):
        raise ValueError(f"domain must have shape (2,) or (2, …), low and high, got {ends.shape}")
    return (float(ends[0]), float(ends[1])) if ends.ndim == 1 else (ends[0], ends[1])


def _names(archive: Archive) -> tuple[str, ...]:
    if "names" not in archive:
        return ()
    if archive.dtype("names").itemsize > 4 * LONGEST_CLASS:
        raise ValueError(f"names must have at most {LONGEST_CLASS} characters each")
    try:
        return tuple(str(name) for name in archive.array("names", (None,), "U").tolist())
    except (ValueError, UnicodeError) as error:
        raise ValueError(f"names must be a list of texts: {error}") from None


# ------------------------------------------------------------------------------------------------------- folders


def folder_images(folder: Path) -> list[tuple[str, Path]]:
    """The .png images of every class's sub-folder, in turns over the classes; (class, file).

    Raises ValueError for a folder without such, and for other files in them, which would silently be left out.
    """
    classes: dict[str, list[Path]] = {}
    for inside in sorted(folder.iterdir()):
        if inside.name.startswith("."):
            continue
        if not inside.is_dir():
            raise ValueError(f"must hold a sub-folder a class and nothing else, got {inside.name!r}")
        files = sorted(file for file in inside.iterdir() if not file.name.startswith("."))
        other = next((file for file in files if file.suffix.lower() != ".png" or not file.is_file()), None)
        if other is not None:
            told = "" if other.suffix.lower() != ".png" else ", which is no file"
            raise ValueError(f"{inside.name} must hold .png images alone, got {other.name!r}{told}")
        if not files:
            raise ValueError(f"{inside.name} holds no images")
        classes[inside.name] = files
    count = sum(map(len, classes.values()))
    if not 0 < count <= LARGEST_FOLDER:
        raise ValueError(f"must hold 1 to {LARGEST_FOLDER:,} images, each in the sub-folder of its class, got {count}")
    longest = max(map(len, classes.values()))
    return [(name, files[k]) for k in range(longest) for name, files in classes.items() if k < len(files)]


def _read_folder(folder: Path, domain: DataDomain | None, beside: Collection[str]) -> DatasetParts:
    found = folder_images(folder)
    names = [f"{name}/{file.name}" for name, file in found]
    images: FloatArray | None = None
    for k, (_, file) in enumerate(found):
        try:
            levels = np.moveaxis(read_levels(file)[0], 2, 0)
        except (ValueError, OSError) as error:
            raise ValueError(f"{names[k]}: {error}") from error
        if images is None:
            check_count(len(found) * levels.size)
            images = np.empty((len(found), *levels.shape))
        if levels.shape != images.shape[1:]:
            raise ValueError(f"{names[k]} is {_size(levels.shape)}, {names[0]} is {_size(images.shape[1:])}")
        images[k] = levels
    assert images is not None
    whole, ends = images, scaled_levels(images[:1], domain, "a .png")[1]
    if ends != UNIT_RANGE:
        whole = whole_levels(images)
    labels, class_names = numbered([name for name, _ in found], beside)
    return DatasetParts(whole, labels, ends, class_names, tuple(names))


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}×{shape[2]} in {'grey' if shape[0] == 1 else 'colour'}"
