"""One's own files: .npz, .csv, folders of images, as a person saves them; and every way in which they can be wrong."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit import Dataset, load_dataset

PIXELS = np.array([[[0, 51], [102, 255]], [[255, 0], [0, 204]]], dtype=np.uint8)  # two 2×2 images


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def png(path: Path, pixels: np.ndarray) -> Path:
    from PIL.Image import fromarray

    path.parent.mkdir(parents=True, exist_ok=True)
    fromarray(pixels).save(path)
    return path


# ------------------------------------------------------------------------------------------------------- .npz


def test_an_archive_of_images_and_labels(tmp_path: Path) -> None:
    path = npz(tmp_path / "mine.npz", images=PIXELS, labels=np.array([1, 0]), names=np.array(["cat", "dog"]))
    data = load_dataset(str(path))
    np.testing.assert_array_equal(data.images, PIXELS / 255.0)
    assert (data.name, data.labels.tolist(), data.class_names) == ("mine.npz", [1, 0], ("cat", "dog"))
    assert data.domain == (0.0, 1.0)


def test_the_domain_is_the_files_own_else_what_is_asked(tmp_path: Path) -> None:
    labels = np.array([1, 0])
    levels = npz(tmp_path / "a.npz", images=PIXELS, labels=labels, domain=np.array([0, 255]))
    np.testing.assert_array_equal(load_dataset(levels).images, PIXELS)
    plain = npz(tmp_path / "b.npz", images=PIXELS.astype(np.float32), labels=labels)
    with pytest.raises(
        ValueError, match=r"'b.npz' \(test\): pixels must lie in \[0.0, 1.0\], got 0 … 255; divide them"
    ):
        load_dataset(plain)
    assert load_dataset(plain, domain=(0.0, 255.0)).domain == (0.0, 255.0)
    assert load_dataset(plain, domain=None).cut is None
    each = np.stack([np.zeros((2, 2)), np.full((2, 2), 255.0)])
    own = load_dataset(npz(tmp_path / "c.npz", images=PIXELS * 1.0, labels=labels, domain=each)).domain
    assert own is not None
    np.testing.assert_array_equal(own[1], each[1])
    with pytest.raises(
        ValueError, match=r"uint8 is read as numbers in \[0, 1\] or \[0, 255\], the domain is \(-1.0, 1.0\)"
    ):
        load_dataset(npz(tmp_path / "d.npz", images=PIXELS, labels=labels, domain=np.array([-1.0, 1.0])))


def test_flat_images_have_a_stated_shape(tmp_path: Path) -> None:
    path = npz(tmp_path / "m.npz", images=PIXELS.reshape(2, 4), labels=np.array([1, 0]), shape=np.array([1, 2, 2]))
    assert load_dataset(path).shape == (1, 2, 2)


def test_a_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    path = npz(tmp_path / "m.npz", images=PIXELS, labels=np.array([1, 0]))
    assert load_dataset(path).labels.tolist() == [1, 0]
    npz(path, images=PIXELS, labels=np.array([1, 0, 3])[:2], names=np.array(["a", "b", "c"]))
    assert load_dataset(path).class_names == ("a", "b", "c")


GOOD = {"images": PIXELS, "labels": np.array([1, 0])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": PIXELS.astype(object)}, "m.npz: images .*"),
        ({"images": np.array(["a", "b"])}, r"m.npz: images must have shape \(n, …\)"),
        ({"images": np.array([["a"], ["b"]])}, "m.npz: images must hold float16, float32 or float64, got dtype <U1"),
        ({"images": PIXELS.astype(np.int64)}, "m.npz: images must hold float"),
        ({"images": np.full((2, 4), np.nan)}, r"m.npz: images must be finite, got nan at index \(0, 0\)"),
        (
            {"images": np.zeros((0, 4)), "labels": np.zeros(0, int)},
            r"m.npz: images must have shape .* n ≥ 1, got \(0, 4\)",
        ),
        ({"images": np.zeros(4)}, r"m.npz: images must have shape \(n, …\) with n ≥ 1, got \(4,\)"),
        ({"labels": np.array([1, 0, 1])}, "m.npz: labels must have shape 2, got 3"),
        ({"labels": np.array([1, -1])}, r"m.npz: labels must be ≥ 0 and ≤ 1e\+09, got -1"),
        ({"labels": np.array([1.0, 0.0])}, "m.npz: labels must hold whole numbers, got dtype float64"),
        ({"labels": None}, "m.npz: labels .*"),
        ({"shape": np.array([3])}, r"m.npz: shape must have as many entries as an image of shape \(2, 2\), got \(3,\)"),
        ({"domain": np.array([0.0, 1.0, 2.0])}, r"m.npz: domain must have shape \(2,\) or \(2, …\)"),
        ({"domain": np.array([0.0, np.inf])}, "m.npz: domain must be finite"),
        ({"names": np.array([["a"]])}, "m.npz: names must be a list of texts"),
        ({"names": np.array(["a" * 201])}, "m.npz: names must have at most 200 characters each"),
        ({"x_test": PIXELS}, "m.npz: unknown array 'x_test'; allowed: images, labels, shape, domain, names"),
    ],
)
def test_archives_that_are_wrong_say_where(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    arrays = {name: value for name, value in (GOOD | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        load_dataset(npz(tmp_path / "m.npz", **arrays))


def test_a_file_that_is_no_archive_is_named(tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04", b"\x80\x04\x95."):
        (tmp_path / "m.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"^m.npz: the file cannot be read"):
            load_dataset(tmp_path / "m.npz")
    with pytest.raises(
        FileNotFoundError, match=r"no data at .*none.npz; own data are a .npz or .csv file, or a folder"
    ):
        load_dataset("none.npz")


def test_a_pickle_inside_is_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    np.savez(tmp_path / "m.npz", images=np.array([[Trap()]], dtype=object), labels=np.array([0]))
    with pytest.raises(ValueError, match=r"m.npz: images must hold plain numbers or text, got dtype"):
        load_dataset(tmp_path / "m.npz")
    assert not (tmp_path / "sprung").exists()


# ------------------------------------------------------------------------------------------------------- .csv


@pytest.mark.parametrize(
    ("text", "labels", "features", "names"),
    [
        ("1,0.5,0\n0,1,0.25\n", [1, 0], [[0.5, 0], [1, 0.25]], ()),
        ("y,a,b\n1,0.5,0\n0,1,0.25\n", [1, 0], [[0.5, 0], [1, 0.25]], ()),
        ("a,label,b\n0.5,3,0\n1,0,0.25\n", [3, 0], [[0.5, 0], [1, 0.25]], ()),
        ("owl,0.5,0\nfox,1,0.25\n", [1, 0], [[0.5, 0], [1, 0.25]], ("fox", "owl")),
        ("kind,a\nNA,0.5\nnan,0.5\n", [0, 1], [[0.5], [0.5]], ("NA", "nan")),
        ("Label,a\n1,0.5\n0,0.5\n", [1, 0], [[0.5], [0.5]], ()),
        ("kind,x,y\n1,0.5,0\n0,1,0.5\n", [1, 0], [[0.5, 0], [1, 0.5]], ()),
        ("0,1\n1,0.5\n", [0, 1], [[1], [0.5]], ()),
        ("label,a\r\nb,0.1\r\na,1e-3\r\n", [1, 0], [[0.1], [1e-3]], ("a", "b")),
    ],
)
def test_tables_with_and_without_a_head(
    text: str, labels: list[int], features: list[list[float]], names: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(text)
    data = load_dataset(tmp_path / "t.csv")
    assert (data.labels.tolist(), data.class_names) == (labels, names)
    np.testing.assert_array_equal(data.features, features)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.csv: not a table"),
        ("label,a\n1,x\n", "t.csv: column 'a' must hold numbers, got 'x'"),
        ("label,a\n1,0.5\n0,\n", "t.csv: column 'a' must hold finite numbers, got nan in row 1"),
        ("label,a\n,0.5\n", "t.csv: column 'label' must hold a label in every row, got none in row 0"),
        ("label,a\n1,0.5\n1,2,3\n", "t.csv: not a table"),
        ("label\n1\n", "t.csv: the table must have rows, and columns beside 'label'"),
        ("label,a\n1,200\n", r"pixels must lie in \[0.0, 1.0\], got 200 … 200; divide them by 255, or state"),
        ("label,a,b\n0,0.1,0.2,0.3\n1,0.4,0.5\n", "t.csv: not a table"),
        ("label,a\n1,0.5\n0,NA\n", "t.csv: column 'a' must hold numbers, got 'NA' in row 1"),
        ("label,a\n2.0,0.5\nowl,0.5\n", "t.csv: labels must all be whole numbers or all be names, got '2.0' and 'owl'"),
        ("0,1,2\n5,0.1,0.2\n", "t.csv: the first line 0,1,…,2 may be a head or an image; name the columns"),
        (",0,1\n0,5,0.1\n", "t.csv: column 0 has no name, as the index that pandas writes; leave it out"),
        (",label,a\n0,5,0.1\n", "t.csv: column 0 has no name"),
        (
            "a,Label\n0.5,3\n",
            "t.csv: labels are read from the column 'label', else from the first, 'a'; rename 'Label'",
        ),
        ("p0,p1,target\n0,0.5,3\n", "t.csv: labels are .* else from the first, 'p0'; rename 'target'"),
        ("label;a\n1;0.5\n", "t.csv: columns must be separated by commas, got the line 'label;a'"),
        ("label,a\n10.0,0.5\n2.0,0.5\n", "t.csv: labels that are numbers must be whole, .*, got '10.0'"),
        ("label,a\n-1,0.5\n0,0.5\n", "t.csv: labels that are numbers must be whole, .*, got '-1'"),
        ("label,a\n0,0.5\n9999999999,0.5\n", "of at most 9 digits, got '9999999999'"),
    ],
)
def test_tables_that_are_wrong_say_where(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_dataset(tmp_path / "t.csv")


# ------------------------------------------------------------------------------------------------------- folders


def test_a_folder_a_class_in_turns(tmp_path: Path) -> None:
    for name, level in (("cat/a", 0), ("cat/b", 51), ("dog/x", 102)):
        png(tmp_path / "photos" / f"{name}.png", np.full((2, 3), level, dtype=np.uint8))
    data = load_dataset(tmp_path / "photos")
    assert data.shape == (1, 2, 3)
    assert data.image_names == ("cat/a.png", "dog/x.png", "cat/b.png")
    assert (data.labels.tolist(), data.class_names) == ([0, 1, 0], ("cat", "dog"))
    np.testing.assert_array_equal(data.images[:, 0, 0, 0], np.array([0, 102, 51]) / 255)
    np.testing.assert_array_equal(
        load_dataset(tmp_path / "photos", domain=(0.0, 255.0)).images[:, 0, 0, 0], [0, 102, 51]
    )
    assert load_dataset(tmp_path / "photos", domain=None).images.max() < 1


def test_folders_named_by_numbers_are_these_classes_and_colour_is_three_channels(tmp_path: Path) -> None:
    for name in ("10", "2"):
        png(tmp_path / name / "a.png", np.stack([PIXELS[0]] * 3, axis=-1))
    data = Dataset.load(tmp_path)
    assert (data.labels.tolist(), data.shape) == ([10, 2], (3, 2, 2))
    np.testing.assert_array_equal(data.images[0, 2], PIXELS[0] / 255.0)


def test_train_and_test_in_one_folder_are_its_splits(tmp_path: Path) -> None:
    npz(tmp_path / "train.npz", images=PIXELS, labels=np.array([1, 0]))
    png(tmp_path / "test" / "0" / "a.png", PIXELS[0])
    assert [len(load_dataset(tmp_path, split)) for split in ("train", "test")] == [2, 1]
    with pytest.raises(ValueError, match="has no train split; put two data sets, train and test, into a folder"):
        load_dataset(tmp_path / "train.npz", "train")


def test_a_folder_of_other_things_is_refused_before_it_is_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / "usr" / "bin" / "deep"
    deep.mkdir(parents=True)
    (tmp_path / "usr" / "bin" / "gone.png").symlink_to(tmp_path / "nowhere")

    def looked(self: Path, pattern: str) -> None:
        raise AssertionError(f"everything below {self} was listed")

    monkeypatch.setattr(Path, "rglob", looked)
    with pytest.raises(ValueError, match=r"usr: bin must hold .png images alone, got 'deep'"):
        load_dataset(tmp_path / "usr")
    deep.rmdir()
    with pytest.raises(ValueError, match=r"usr: bin must hold .png images alone, got 'gone.png', which is no file"):
        load_dataset(tmp_path / "usr")


def test_no_name_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    png(tmp_path / "0" / "a.png", PIXELS[0])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="unknown data set ''"):
        load_dataset("")
    with pytest.raises(ValueError, match="path must be a path, got ''"):
        Dataset.load("")


def folder_of(tmp_path: Path, **files: Any) -> Path:
    for name, content in files.items():
        path = tmp_path / "f" / name.replace("__", "/").replace("_png", ".png").replace("_txt", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, np.ndarray):
            png(path, content)
        else:
            path.write_bytes(content)
    (tmp_path / "f").mkdir(exist_ok=True)
    return tmp_path / "f"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "f: must hold 1 to 2,000,000 images"),
        ({"a_png": PIXELS[0]}, "f: must hold a sub-folder a class and nothing else, got 'a.png'"),
        ({"c__notes_txt": b"x"}, "f: c must hold .png images alone, got 'notes.txt'"),
        ({"c__a_png": b"not a png"}, "f: c/a.png: not a readable .png"),
        ({"c__a_png": PIXELS[0], "d__b_png": PIXELS[0][:1]}, "f: d/b.png is 1×2 in grey, c/a.png is 2×2 in grey"),
        (
            {"c__a_png": PIXELS[0], "d__b_png": np.stack([PIXELS[0]] * 3, axis=-1)},
            "f: d/b.png is 2×2 in colour, c/a.png is 2×2 in grey",
        ),
        ({"c__a_png": np.zeros((2, 2, 4), np.uint8)}, "f: c/a.png: must be opaque"),
    ],
)
def test_folders_that_are_wrong_say_where(files: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_dataset(folder_of(tmp_path, **files))


def test_a_png_that_claims_to_be_huge_takes_no_memory(tmp_path: Path) -> None:
    from PIL.Image import fromarray

    buffer = io.BytesIO()
    fromarray(PIXELS[0]).save(buffer, "png")
    content = bytearray(buffer.getvalue())
    content[16:24] = (2**31 - 1).to_bytes(4, "big") * 2
    with pytest.raises(ValueError, match=r"c/a.png: must have at most 67,108,864 pixels, got 2147483647×2147483647"):
        load_dataset(folder_of(tmp_path, c__a_png=bytes(content)))
