"""Classes of two splits are numbered together, whichever split is read; names that are numbers are these numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.data.test_own_files import npz, png
from toolkit import Dataset, load_dataset
from toolkit.data.dataset_parts import numbered

GREY = np.array([[0, 51], [102, 255]], dtype=np.uint8)
TWO = np.stack([GREY, GREY])


def class_folder(path: Path, *names: str) -> Path:
    for name in names:
        png(path / name / "a.png", GREY)
    return path


def table(path: Path, *labels: str) -> Path:
    path.write_text("label,a,b\n" + "".join(f"{label},0.5,0.25\n" for label in labels))
    return path


def named_labels(data: Dataset) -> list[str]:
    return [data.class_names[label] for label in data.labels]


def test_folders_of_two_splits_number_their_classes_alike(tmp_path: Path) -> None:
    class_folder(tmp_path / "train", "cat", "dog", "fox")
    class_folder(tmp_path / "test", "cat", "fox")
    training, test = load_dataset(tmp_path, "train"), load_dataset(tmp_path)
    assert training.class_names == test.class_names == ("cat", "dog", "fox")
    assert (training.labels.tolist(), test.labels.tolist()) == ([0, 1, 2], [0, 2])
    class_folder(tmp_path / "train", "ant")
    assert load_dataset(tmp_path).labels.tolist() == [1, 3]  # read anew, as the other split changed


def test_tables_and_folders_number_their_classes_alike(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", "owl", "NA", "fox")
    class_folder(tmp_path / "test", "owl")
    training, test = load_dataset(tmp_path, "train"), load_dataset(tmp_path)
    assert named_labels(training) == ["owl", "NA", "fox"]
    assert (test.class_names, test.labels.tolist()) == (training.class_names, [2])


def test_numbers_in_one_split_and_names_in_the_other_are_refused(tmp_path: Path) -> None:
    class_folder(tmp_path / "train", "0", "1")
    class_folder(tmp_path / "test", "cat")
    for split in ("train", "test"):
        with pytest.raises(ValueError, match="labels must all be whole numbers or all be names, got '0' and 'cat'"):
            load_dataset(tmp_path, split)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (("dog", "cat"), "test.npz and train.npz must name the same classes .*, got class 0: 'dog' and 'cat'"),
        (("cat", "dog", "fox"), "test.npz and train.npz must name the same classes .*, got 3 and 2 classes"),
    ],
)
def test_names_of_archives_that_differ_are_refused(others: tuple[str, ...], message: str, tmp_path: Path) -> None:
    npz(tmp_path / "train.npz", images=TWO, labels=np.array([1, 0]), names=np.array(["cat", "dog"]))
    npz(tmp_path / "test.npz", images=TWO, labels=np.array([1, 0]), names=np.array(others))
    with pytest.raises(ValueError, match=message):
        load_dataset(tmp_path)
    npz(tmp_path / "test.npz", images=TWO, labels=np.array([1, 0]), names=np.array(["cat", "dog"]))
    assert load_dataset(tmp_path).class_names == ("cat", "dog")


def test_names_of_an_archive_are_those_of_the_folder_beside_it(tmp_path: Path) -> None:
    class_folder(tmp_path / "train", "cat", "dog")
    npz(tmp_path / "test.npz", images=TWO, labels=np.array([1, 0]), names=np.array(["dog", "cat"]))
    for split in ("train", "test"):
        with pytest.raises(ValueError, match="must name the same classes in the same order, got class 0"):
            load_dataset(tmp_path, split)
    npz(tmp_path / "test.npz", images=TWO, labels=np.array([1, 0]))
    assert load_dataset(tmp_path).labels.tolist() == [1, 0]


def test_numbers_beside_other_names_are_refused() -> None:
    assert numbered(["10", "2", "0"])[0].tolist() == [10, 2, 0]
    frame = pd.DataFrame({"a": np.zeros(12), "label": [*map(str, range(11)), "unknown"]})
    with pytest.raises(ValueError, match="must all be whole numbers or all be names, got '0' and 'unknown'"):
        Dataset.from_frame(frame)


def test_one_split_is_enough(tmp_path: Path) -> None:
    class_folder(tmp_path / "test", "cat", "fox")
    assert load_dataset(tmp_path / "test").labels.tolist() == [0, 1]
