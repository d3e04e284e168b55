"""The image sets of the verifiers: read as the files say, refused where they are not what was published."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from toolkit.data import datasets
from toolkit.data.datasets import find_data, load_dataset
from toolkit.data.registry import Download
from toolkit.data.verifier_images import VerifierImages


def saved(folder: Path, path: str, values: np.ndarray) -> Download:
    """A file below the data folder, with its own SHA-256."""
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    np.save(folder / path, values)
    return Download(path, f"https://nowhere.example/{path}", hashlib.sha256((folder / path).read_bytes()).hexdigest())


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_are_channels_first_and_pixels_as_stored(
    channels_last: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    images = rng.uniform(size=(4, 3, 5, 2)).astype(np.float32)
    monkeypatch.setenv("RELUGAP_DATA", str(tmp_path))
    stored = np.moveaxis(images, 1, -1) if channels_last else images
    source = VerifierImages(saved(tmp_path, "X.npy", stored), saved(tmp_path, "y.npy", np.arange(4)), channels_last)
    monkeypatch.setitem(datasets.DATASETS, "sdp-mnist", source)
    data = load_dataset("sdp-mnist")
    np.testing.assert_array_equal(data.images, images.astype(np.float64))
    assert data.labels.tolist() == [0, 1, 2, 3]
    assert data.shape == (3, 5, 2)
    np.save(tmp_path / "X.npy", stored + 1)
    monkeypatch.setitem(datasets.DATASETS, "sdp-mnist", VerifierImages(source.images, source.labels, channels_last))
    with pytest.raises(ValueError, match=r"X\.npy must have the SHA-256"):
        load_dataset("sdp-mnist")


def test_there_is_a_test_split_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELUGAP_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"split must be test, the only one of alpha-beta-crown/sdp/cifar/X_sdp\.npy"):
        load_dataset("sdp-cifar", "train")
    status = {(one.name, one.split): one for one in find_data()}
    assert status["sdp-cifar", "train"].where == "there is none"
    assert "8250d5fbd530c76e5e3243db28b3cad5fbaef740" in status["sdp-cifar", "test"].where
    assert not status["eran-mnist", "test"].available


def test_eran_and_sdp_images_are_mnist_test_images(data_dir: Path) -> None:
    """ERAN's are the first 1,000; those of Dathathri et al. are 200 different ones."""
    if not all(datasets.DATASETS[name].found("test")[0] for name in ("eran-mnist", "sdp-mnist")):
        pytest.skip("needs alpha-beta-crown/eran/mnist_eran and alpha-beta-crown/sdp/mnist in RELUGAP_DATA")
    mnist, eran, sdp = load_dataset("mnist"), load_dataset("eran-mnist"), load_dataset("sdp-mnist")
    np.testing.assert_allclose(eran.features, mnist.features[:1000], rtol=0, atol=1e-7)
    np.testing.assert_array_equal(eran.labels, mnist.labels[:1000])
    places = {np.rint(255 * image).astype(np.uint8).tobytes(): k for k, image in enumerate(mnist.features)}
    found = [places[np.rint(255 * image).astype(np.uint8).tobytes()] for image in sdp.features]
    assert len(set(found)) == len(sdp) == 200
    np.testing.assert_array_equal(sdp.labels, mnist.labels[found])
    np.testing.assert_allclose(sdp.features, mnist.features[found], rtol=0, atol=1e-7)
