"""Data sets made of what people have in memory: arrays, frames, torch data sets; none of their libraries is needed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from toolkit import Dataset, load_dataset, register_dataset
from toolkit.data.datasets import DATASETS

X = np.array([[0.0, 0.5], [1.0, 0.25], [0.0, 1.0]])
Y = np.array([0, 1, 2])


def test_arrays_are_taken_as_they_are() -> None:
    data = Dataset.from_arrays(X, Y, shape=(1, 2), class_names=("a", "b", "c"))
    assert (data.shape, data.classes, len(data)) == ((1, 2), 3, 3)
    np.testing.assert_array_equal(data.features, X)
    assert not data.images.flags.writeable
    wide = Dataset.from_arrays(X * 255, Y.tolist(), domain=(0, 255))
    assert wide.domain == (0.0, 255.0)
    assert Dataset.from_arrays(-X, Y, domain=None).images.min() == -1.0
    own = Dataset.from_arrays(X, Y, domain=(np.array([0.0, 0.25]), np.array([1.0, 1.0])))
    assert own.domain is not None
    np.testing.assert_array_equal(own.domain[0], [0.0, 0.25])


def test_images_and_labels_stay_as_they_are() -> None:
    own = X.copy(), Y.copy()
    for data in (load_dataset("digits"), Dataset.from_arrays(*own), Dataset("a", "test", *own, shape=(2,))):
        for array in (data.images, data.labels):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1
    own[0][:], own[1][:] = 0, 0
    assert (data.labels.tolist(), data.images.max()) == ([0, 1, 2], 1.0)


@pytest.mark.parametrize("path", [None, 0, b"x", ["a"], ""])
def test_paths_that_are_none_are_named(path: Any) -> None:
    with pytest.raises(ValueError, match="path must be a path, got"):
        Dataset.load(path)


@pytest.mark.parametrize("domain", [5, "0,1", (0, 1, 2), ("0", "1"), (1, 0)])
def test_domains_that_are_none_are_named(domain: Any) -> None:
    for load in (load_dataset, Dataset.load):
        with pytest.raises(ValueError, match=r"domain must (be|have) "):
            load("none.npz", domain=domain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images": X * 255},
            r"pixels must lie in \[0.0, 1.0\], got 0 … 255; divide them by 255, or state their domain",
        ),
        ({"images": X - 1}, r"got -1 … 0; state their domain, or none"),
        ({"images": np.where(X == 1, np.nan, X)}, r"got nan … nan, first nan in image 1 at \(0,\)"),
        (
            {"images": np.where(X == 1, np.inf, X), "domain": None},
            r"pixels must be finite, got 0 … inf, first inf in image 1 at",
        ),
        ({"images": X.ravel()}, r"images must have shape \(n, …\), one image a row, got \(6,\)"),
        ({"images": [["a", "b"]] * 3}, "images must be an array of real numbers"),
        (
            {"labels": np.eye(3)},
            r"labels must be whole numbers.* of one-hot rows or logits take labels.argmax\(axis=1\)",
        ),
        ({"labels": [0.0, 1.0, 2.0]}, "labels must be whole numbers, one per image, got float64"),
        ({"labels": [[0], [1, 2], 0]}, "labels must be whole numbers, one per image, got .*"),
        (
            {"labels": np.array([0, 1, 1 << 63], dtype=np.uint64)},
            "labels must be ≤ 999999999, got 9223372036854775808 at 2",
        ),
        ({"labels": np.ma.masked_array(Y, [0, 0, 1])}, "labels must have no masked entries"),
        ({"class_names": None}, "class_names must be a list of names, got None"),
        ({"class_names": "abc"}, "class_names must be a list of names, got 'abc'"),
        ({"class_names": (1, 2, 3)}, "class_names must hold names, got 1 in it"),
        ({"domain": 5}, r"domain must be \(low, high\), got 5"),
        ({"domain": "0,1"}, r"domain must be \(low, high\), got '0,1'"),
        ({"labels": [0, 1]}, "labels must be 3 whole numbers, one per image"),
        ({"labels": [0, 1, -2]}, "labels must be ≥ 0, got -2 at 2"),
        ({"shape": (3,)}, r"shape must have as many entries as an image of shape \(2,\), got \(3,\)"),
        ({"class_names": ("a",)}, "class 2 has no name, named are 1 classes"),
        ({"domain": (1, 0)}, r"domain must have low < high, got \(1, 0\)"),
        ({"domain": (0, 1, 2)}, r"domain must be \(low, high\)"),
        ({"domain": ([0, 0, 0], [1, 1, 1])}, r"domain must have one end per coordinate of \(2,\), got shape \(3,\)"),
        (
            {"domain": ([0.0, 0.3], [1.0, 1.0])},
            r"numbers must lie in their domain per .*, got 0.25 in image 1 at \(1,\)",
        ),
    ],
)
def test_what_is_no_data_set_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dataset.from_arrays(**({"images": X, "labels": Y} | change))


def test_frames_have_a_column_of_labels() -> None:
    frame = pd.DataFrame({"a": X[:, 0], "species": ["fox", "owl", "ant"], "b": X[:, 1]})
    data = Dataset.from_frame(frame, label="species")
    np.testing.assert_array_equal(data.features, X)
    assert (data.labels.tolist(), data.class_names) == ([1, 2, 0], ("ant", "fox", "owl"))
    assert Dataset.from_frame(frame.assign(species=[2, 0, 1]), label="species").labels.tolist() == [2, 0, 1]
    wrong: list[tuple[Any, str]] = [
        (frame, "must have one column 'label' of labels, got columns a, species, b"),
        (frame.assign(label=[1.0, 2.0, 3.0]), "column 'label' must hold whole numbers or texts, got float64"),
        (frame.assign(label=["x", None, "y"]), "column 'label' must hold a label in every row, got none in row 1"),
        (frame.assign(label=Y), "column 'species' must hold numbers, got 'fox'"),
        (pd.DataFrame({"a": [0.5, np.nan], "label": [0, 1]}), "column 'a' must hold finite numbers, got nan in row 1"),
        (pd.DataFrame({"label": [0, 1]}), "must have rows, and columns beside 'label'"),
        ([1, 2], "frame must be a DataFrame"),
    ]
    for given, message in wrong:
        with pytest.raises(ValueError, match=message):
            Dataset.from_frame(given)


class Pairs:
    """A torch data set in all but name."""

    classes = ("cat", "dog", "emu")

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> Any:
        return self.items[place]


def test_pairs_by_index_are_a_torch_data_set() -> None:
    data = Dataset.from_torch(Pairs(*zip(X.reshape(3, 1, 2), Y, strict=True)))
    np.testing.assert_array_equal(data.features, X)
    assert (data.shape, data.labels.tolist(), data.class_names) == ((1, 2), [0, 1, 2], ("cat", "dog", "emu"))
    assert len(Dataset.from_torch(Pairs(*zip(X, Y, strict=True)), count=2)) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Pairs((X[0], 0), (X[0, :1], 1)), r"item 1 has shape \(1,\), the items before it have \(2,\)"),
        (Pairs(X[0]), r"item 0 must be \(image, label\)"),
        (Pairs((X[0], 0.5)), "item 0 must have a whole number as its label, in .*, got 0.5"),
        (Pairs((X[0], np.eye(3)[0])), "item 0 must have a whole number as its label"),
        (Pairs((X[0], True)), "item 0 must have a whole number as its label, .*, got True"),
        (Pairs((X[0], 1 << 70)), "item 0 must have a whole number as its label, in 0 … 999999999, got"),
        (Pairs(("a", 0)), "item 0 must be an array of real numbers"),
        (Pairs(), "must hold at least one"),
        (iter([]), "must have a length"),
        (5, "must have a length"),
    ],
)
def test_other_sequences_are_named(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dataset.from_torch(given)


def test_torch_data_sets_and_pillow_images() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra train")
    image_module = pytest.importorskip("PIL.Image")
    tensors = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    np.testing.assert_array_equal(Dataset.from_torch(tensors).features, X)
    with pytest.raises(ValueError, match=r"item 0 must hold an array of numbers.*the transform ToTensor\(\)"):
        Dataset.from_torch(Pairs((image_module.new("RGB", (2, 2)), 0)))


def test_no_other_library_is_imported_for_it() -> None:
    code = "import sys; from toolkit.data import Dataset; assert not {'torch', 'pandas', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_keys_follow_the_content_but_for_checked_files() -> None:
    first, second = (Dataset.from_arrays(X, labels) for labels in (Y, Y[::-1].copy()))
    assert first.key != second.key
    assert first.key == Dataset.from_arrays(X.copy(), Y.copy()).key
    assert load_dataset("digits").key == "digits"


def test_a_registered_function_is_a_data_set_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.data.datasets.DATASETS", dict(DATASETS))
    register_dataset("mine", lambda split: (X if split == "test" else X[:1], Y if split == "test" else Y[:1]))
    assert (len(load_dataset("mine")), len(load_dataset("mine", "train"))) == (3, 1)
    assert not np.shares_memory(load_dataset("mine").images, X)
    assert X.flags.writeable
    with pytest.raises(ValueError, match="the name 'mine' is taken"):
        register_dataset("mine", lambda _: (X, Y))
    register_dataset("mine", lambda _: X, replace=True)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match=r"its loader must give \(images, labels\)"):
        load_dataset("mine")
    for name, load, message in (("a/b", lambda _: (X, Y), "name of a data set"), ("b", 3, "must be a function")):
        with pytest.raises(ValueError, match=message):
            register_dataset(name, load)  # type: ignore[arg-type]
