"""Data sets: shapes, ranges, fixed stratified splits, idx files checked and fetched, one's own images."""

import functools
import gzip
import hashlib
import http.server
import threading
from dataclasses import replace

import numpy as np
import pytest

from toolkit.data import datasets as data
from toolkit.data import idx_files as idx
from toolkit.data.dataset_source import DatasetSource
from toolkit.data.datasets import dataset_names, find_data, load_dataset
from toolkit.data.images import read_image
from toolkit.training.spec import load_train_spec


@pytest.mark.parametrize(
    ("name", "shape", "counts"), [("digits", (1, 8, 8), (1297, 500)), ("mnist5k", (1, 28, 28), (4000, 1000))]
)
def test_packaged_splits_are_disjoint_stratified_and_in_the_unit_box(name, shape, counts):
    splits = [load_dataset(name, split) for split in ("train", "test")]
    assert tuple(len(part) for part in splits) == counts
    for part in splits:
        assert part.shape == shape == part.images.shape[1:]
        assert part.images.dtype == np.float64
        assert part.labels.dtype == np.int64
        assert part.images.min() == 0.0
        assert part.images.max() == 1.0
        assert part.classes == 10
        assert np.array_equal(part.features[3], part.images[3].ravel())
    whole = np.concatenate([part.labels for part in splits])
    for label in range(10):  # each class keeps its share, to within one image
        assert abs((splits[1].labels == label).sum() - (whole == label).sum() * counts[1] / sum(counts)) <= 1
    rows = {image.tobytes() for image in splits[0].images}
    overlap = sum(image.tobytes() in rows for image in splits[1].images)
    assert overlap == 0


def test_test_indices_never_move():
    """Results name test images by index: a split that changed would silently change their meaning."""
    digests = {
        name: hashlib.sha256(load_dataset(name).images.astype(np.float32).tobytes()).hexdigest()[:16]
        for name in ("digits", "mnist5k")
    }
    assert digests == {"digits": "8b129128b079b51a", "mnist5k": "752223c09489fae2"}


def test_a_data_set_is_shared_and_read_only():
    first, again = load_dataset("digits"), load_dataset("digits")
    assert first.images is again.images
    with pytest.raises(ValueError, match="read-only"):
        first.images[0] = 0.5


def test_unknown_names_list_what_is_allowed():
    names = ("digits", "mnist5k", "mnist", "fashion-mnist", "cifar10", "sdp-mnist", "sdp-cifar", "eran-mnist")
    assert dataset_names() == names
    allowed = f"allowed: {', '.join(names)}; own data are a .npz or .csv file, or a folder"
    with pytest.raises(ValueError, match=rf"unknown data set 'cifar100'; {allowed}"):
        load_dataset("cifar100")
    with pytest.raises(ValueError, match="split must be train or test, got 'validation'"):
        load_dataset("digits", "validation")


class Stripes(DatasetSource):
    """Two images and the wrong pixels or labels that a test asks for."""

    def __init__(self, scale=1.0, labels=(0, 1)):
        self.scale, self.labels = scale, np.array(labels)

    def read(self, split):
        images = np.zeros((2, 1, 2, 2))
        images[1, 0, 1] = self.scale
        return images, self.labels


def test_a_new_data_set_is_one_source_and_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(data.DATASETS, "stripes", Stripes())
    loaded = load_dataset("stripes", "train")
    assert (loaded.name, loaded.split, loaded.shape, loaded.classes) == ("stripes", "train", (1, 2, 2), 2)
    assert not loaded.images.flags.writeable
    assert [status.where for status in find_data() if status.name == "stripes"] == [__name__] * 2
    (tmp_path / "t.toml").write_text('[[networks]]\nname = "a"\ndataset = "stripes"\nhidden = [4]\n')
    assert load_train_spec(tmp_path / "t.toml").networks[0].dataset == "stripes"
    monkeypatch.setitem(data.DATASETS, "stripes", Stripes(scale=2.0))  # another source, not the first one's images
    with pytest.raises(ValueError, match=r"data set 'stripes' \(train\): pixels must lie in \[0.0, 1.0\], got 0 … 2"):
        load_dataset("stripes", "train")
    monkeypatch.setitem(data.DATASETS, "stripes", Stripes(labels=(0, -1)))
    with pytest.raises(ValueError, match="labels must be ≥ 0, got -1 at 1"):
        load_dataset("stripes")


def _idx_bytes(array):
    return b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def small_mnist(monkeypatch, tmp_path):
    """The source `mnist` replaced by a 5-image set of known content, and an empty data folder."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 28, 28)).astype(np.uint8)
    labels = np.array([3, 1, 4, 1, 5], dtype=np.uint8)
    origin = tmp_path / "origin"
    origin.mkdir()
    files = []
    for name, array in (("t10k-images-idx3-ubyte", images), ("t10k-labels-idx1-ubyte", labels)):
        content = _idx_bytes(array)
        zipped = gzip.compress(content)
        (origin / f"{name}.gz").write_bytes(zipped)
        files.append(idx.IdxFile(name, hashlib.sha256(content).hexdigest(), hashlib.sha256(zipped).hexdigest()))
    source = idx.IdxSource("mnist", "http://127.0.0.1:9/", None, {"test": tuple(files), "train": tuple(files)})
    monkeypatch.setitem(data.DATASETS, "mnist", source)
    monkeypatch.setenv("RELUGAP_DATA", str(tmp_path / "data"))
    return images, labels, origin, tmp_path / "data"


def _place(origin, folder, zipped=True):
    folder.mkdir(parents=True)
    for path in origin.iterdir():
        if zipped:
            (folder / path.name).write_bytes(path.read_bytes())
        else:
            (folder / path.stem).write_bytes(gzip.decompress(path.read_bytes()))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("subfolder", ["mnist", "."])
def test_idx_files_are_found_zipped_or_raw_in_either_folder(small_mnist, zipped, subfolder):
    images, labels, origin, folder = small_mnist
    _place(origin, folder / subfolder, zipped)
    found = load_dataset("mnist")
    assert np.array_equal(found.images, images[:, None] / 255.0)
    assert np.array_equal(found.labels, labels)
    statuses = {(s.name, s.split): s for s in find_data()}
    assert statuses["mnist", "test"].available
    assert statuses["mnist", "test"].where == str((folder / subfolder).resolve())
    assert statuses["digits", "train"].available


def test_a_file_of_the_wrong_content_is_named(small_mnist):
    _, _, origin, folder = small_mnist
    _place(origin, folder / "mnist")
    broken = folder / "mnist" / "t10k-images-idx3-ubyte.gz"
    broken.write_bytes(broken.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte.gz is not mnist's .* replace it"):
        load_dataset("mnist")
    broken.write_bytes(gzip.compress(b"something else"))
    with pytest.raises(ValueError, match="SHA-256"):
        load_dataset("mnist")


def test_another_data_sets_file_of_the_same_name_is_passed_over(small_mnist):
    _, labels, origin, folder = small_mnist
    _place(origin, folder / "mnist")
    (folder / "t10k-images-idx3-ubyte").write_bytes(b"fashion's file, same name")
    assert np.array_equal(load_dataset("mnist").labels, labels)


def test_missing_data_say_what_to_fetch_and_where_to_put_it(small_mnist):
    folder = small_mnist[3]
    assert not next(s for s in find_data() if (s.name, s.split) == ("mnist", "test")).available
    with pytest.raises(FileNotFoundError, match=r"download .*t10k-images-idx3-ubyte.gz and put it into") as caught:
        load_dataset("mnist")
    assert str(folder / "mnist") in str(caught.value)


@pytest.fixture
def served(small_mnist):
    """The origin folder behind a local HTTP server."""
    handler = functools.partial(_Quiet, directory=str(small_mnist[2]))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_missing_files_are_fetched_once(small_mnist, served, monkeypatch):
    images, _, origin, folder = small_mnist
    monkeypatch.setitem(data.DATASETS, "mnist", replace(data.DATASETS["mnist"], origin=served))
    assert np.array_equal(load_dataset("mnist").images, images[:, None] / 255.0)
    for path in origin.iterdir():
        path.unlink()
    monkeypatch.setitem(data.DATASETS, "mnist", replace(data.DATASETS["mnist"]))  # read anew
    assert len(load_dataset("mnist")) == 5  # from the folder it was fetched into
    assert (folder / "mnist" / "t10k-labels-idx1-ubyte.gz").is_file()


def test_a_download_of_the_wrong_content_is_refused(small_mnist, served, monkeypatch):
    origin = small_mnist[2]
    (origin / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"tampered"))
    monkeypatch.setitem(data.DATASETS, "mnist", replace(data.DATASETS["mnist"], origin=served))
    with pytest.raises(FileNotFoundError, match=r"cannot fetch t10k-images-idx3-ubyte\.gz"):
        load_dataset("mnist")


def test_the_full_mnist_test_set_has_its_published_class_counts():
    if not next(s for s in find_data() if (s.name, s.split) == ("mnist", "test")).available:
        pytest.skip("needs the MNIST test set: set RELUGAP_DATA to the folder that holds mnist/t10k-*.gz")
    full = load_dataset("mnist")
    assert np.bincount(full.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_own_images_from_npy_and_png(tmp_path):
    from matplotlib.image import imsave

    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    np.save(tmp_path / "floats.npy", pixels / 255.0)
    np.save(tmp_path / "bytes.npy", pixels)
    imsave(tmp_path / "colour.png", np.stack([pixels] * 3, axis=-1))
    for name in ("floats.npy", "bytes.npy", "colour.png"):
        for shape in ((1, 8, 8), (8, 8), (64,)):
            image = read_image(tmp_path / name, shape).pixels
            assert image.shape == shape
            assert np.allclose(image.ravel(), pixels.ravel() / 255.0, atol=1e-6)
    assert np.allclose(read_image(tmp_path / "colour.png", (3, 8, 8)).pixels[2], pixels / 255.0, atol=1e-6)


def test_own_images_that_do_not_fit_are_refused(tmp_path):
    np.save(tmp_path / "large.npy", np.full((8, 8), 7.0))
    np.save(tmp_path / "nan.npy", np.full((8, 8), np.nan))
    np.save(tmp_path / "words.npy", np.array(["a"] * 64))
    (tmp_path / "broken.png").write_bytes(b"not a png")
    (tmp_path / "photo.jpg").write_bytes(b"")
    cases = {
        "large.npy": r"large.npy: must hold numbers in \[0, 1\], got 7 … 7; save whole numbers 0 … 255 as uint8",
        "nan.npy": r"every number must be finite, got nan at \(0, 0, 0\), 64 such in all",
        "words.npy": "must hold uint8 .* got <U1",
        "broken.png": "not a readable .png",
        "photo.jpg": "read from .npy or .png",
    }
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message):
            read_image(tmp_path / name, (1, 8, 8))
    np.save(tmp_path / "small.npy", np.zeros((4, 4)))
    with pytest.raises(
        ValueError, match=r"has shape \(4, 4\), the network takes \(1, 8, 8\); allowed are .* flat \(64,\)"
    ):
        read_image(tmp_path / "small.npy", (1, 8, 8))
    with pytest.raises(FileNotFoundError, match="no image file"):
        read_image(tmp_path / "absent.npy", (1, 8, 8))


IDX = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("content", "axes", "message"),
    [
        (_idx_bytes(IDX)[:-1], 3, r"must hold 24 bytes of \(2, 3, 4\), got 23"),
        (_idx_bytes(IDX) + b"\0", 3, "must hold 24 bytes of .*, got 25"),
        (_idx_bytes(IDX)[:9], 3, "not an idx file: it has 9 bytes and begins with 00000803"),
        (b"", 1, "not an idx file: it has 0 bytes"),
        (_idx_bytes(IDX), 1, "must have 1 axes, got 3"),
        (b"\0\0\x0d" + _idx_bytes(IDX)[3:], 3, "type 08, got type 0d"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + b"\0" * 24, 3, r"\(4294967295, 4294967295, 4294967295\), got 24"),
        (b"\0\0\x08\x03" + np.array([2**31, 2**31, 4], ">u4").tobytes(), 3, "must hold 18446744073709551616 bytes"),
        (b"PK" + _idx_bytes(IDX)[2:], 3, "begins with 504b0803"),
    ],
)
def test_idx_headers_are_checked(content, axes, message):
    with pytest.raises(ValueError, match=rf"^labels .*{message}"):
        idx.parse_idx(content, "labels", axes)


def test_an_idx_file_is_read_as_it_is():
    assert np.array_equal(idx.parse_idx(_idx_bytes(IDX), "images", 3), IDX)


def test_a_gz_bomb_is_not_unpacked(small_mnist, monkeypatch):
    _, _, origin, folder = small_mnist
    _place(origin, folder / "mnist")
    monkeypatch.setattr(idx, "LARGEST_IDX", 10_000)
    (folder / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(10_000_000)))
    read = []
    monkeypatch.setattr(idx.hashlib, "sha256", lambda content: read.append(len(content)) or hashlib.sha1(content))
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte.gz is not mnist's"):
        load_dataset("mnist")
    assert max(read, default=0) <= 10_000


GOOD = {"images": np.zeros((3, 1, 2, 2)), "labels": np.array([0, 1, 2]), "shape": (1, 2, 2)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([0, 1])}, r"labels must be 3 whole numbers, one per image, got int64 of shape \(2,\)"),
        ({"labels": np.array([0.0, 1.0, 2.0])}, "whole numbers, one per image, got float64"),
        ({"labels": np.array([[0], [1], [2]])}, r"got int64 of shape \(3, 1\)"),
        ({"labels": np.array([0, -1, 2])}, "labels must be ≥ 0, got -1 at 1"),
        ({"images": np.full((3, 1, 2, 2), np.nan)}, r"pixels must lie in \[0.0, 1.0\], got nan"),
        ({"images": np.full((3, 1, 2, 2), 255.0)}, "got 255 … 255"),
        ({"shape": (2, 2, 1)}, r"images must have shape \(n, \(2, 2, 1\)\) with n ≥ 1, got \(3, 1, 2, 2\)"),
        ({"images": np.zeros((0, 1, 2, 2)), "labels": np.zeros(0, int)}, "with n ≥ 1"),
    ],
)
def test_data_sets_that_are_none_are_refused(change, message):
    data.Dataset("own", "test", **GOOD)
    with pytest.raises(ValueError, match=rf"data set 'own' \(test\): .*{message}"):
        data.Dataset("own", "test", **(GOOD | change))
