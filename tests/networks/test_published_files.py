"""The registry of published networks: what its entries promise, and networks of several files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toolkit.data.datasets import DATASETS, load_dataset
from toolkit.networks import published
from toolkit.networks.network import Network
from toolkit.networks.published import PUBLISHED, PublishedNetwork


def here(data_dir: Path, name: str) -> Network:
    """The published network, if its files are in the data folder."""
    missing = [file.path for file in PUBLISHED[name].files if not (data_dir / file.path).is_file()]
    if missing:
        pytest.skip(f"needs {missing[0]} in RELUGAP_DATA")
    return Network.load(f"published:{name}")


def test_every_entry_names_files_of_its_own_at_a_fixed_commit() -> None:
    files = [file for network in PUBLISHED.values() for file in network.files]
    assert len({file.path for file in files}) == len(files)
    assert len({file.sha256 for file in files}) == len(files)
    for file in files:
        assert len(bytes.fromhex(file.sha256)) == 32
        assert any(len(part) == 40 and int(part, 16) for part in file.url.split("/") if part.isalnum()), file.url


def test_one_file_is_a_state_dict_and_several_are_weights_and_biases() -> None:
    for network in PUBLISHED.values():
        suffixes = {Path(file.path).suffix for file in network.files}
        assert (network.architecture is None) == (suffixes == {".npy"}), network.name
        assert len(network.files) == 1 or network.architecture is None
        assert network.architecture is not None or len(network.files) % 2 == 0


def test_arrays_are_layers_in_the_order_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    arrays = {"W1": (3, 5), "B1": (5,), "W2": (5, 2), "B2": (2,)}
    values = {name: rng.normal(size=shape).astype(np.float32) for name, shape in arrays.items()}
    for name, value in values.items():
        np.save(tmp_path / f"{name}.npy", value)
    real = PUBLISHED["tjeng-2019/RSL18a"]
    monkeypatch.setitem(PUBLISHED, "mine", PublishedNetwork("mine", real.files, None, "nobody 2000"))
    monkeypatch.setattr(published, "obtain", lambda file: tmp_path / Path(file.path).name)
    network = Network.load("published:mine")
    x = rng.normal(size=(4, 3))
    hidden = np.maximum(x @ values["W1"].astype(float) + values["B1"], 0)
    np.testing.assert_allclose(network.forward(x), hidden @ values["W2"].astype(float) + values["B2"], atol=1e-12)


def test_files_that_are_not_what_was_published_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / PUBLISHED["tjeng-2019/RSL18a"].files[0].path
    file.parent.mkdir(parents=True)
    np.save(file, np.zeros((784, 500), np.float32))
    monkeypatch.setenv("RELUGAP_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"W1\.npy must have the SHA-256 074e6d3f"):
        Network.load("published:tjeng-2019/RSL18a")


# right of the first 1,000 MNIST test images, as ERAN prints them, and of the 200 of Dathathri et al. as counted here
RIGHT = {
    "eran/mnist_6_100": ("eran-mnist", 960),
    "eran/mnist_9_100": ("eran-mnist", 947),
    "eran/mnist_6_200": ("eran-mnist", 972),
    "eran/mnist_9_200": ("eran-mnist", 950),
    "eran/mnist_conv_small": ("eran-mnist", 980),
    "dathathri-2020/mnist_cnn_a_adv": ("sdp-mnist", 195),
    "dathathri-2020/cifar_cnn_a_adv": ("sdp-cifar", 140),
    "dathathri-2020/cifar_cnn_a_adv4": ("sdp-cifar", 115),
    "dathathri-2020/cifar_cnn_a_mix": ("sdp-cifar", 158),
    "dathathri-2020/cifar_cnn_a_mix4": ("sdp-cifar", 149),
}


@pytest.mark.parametrize("name", RIGHT)
def test_networks_of_the_verifiers_are_right_as_often_as_published(name: str, data_dir: Path) -> None:
    """That the normalisation is folded in as the authors' code does it: without it, other counts."""
    dataset, right = RIGHT[name]
    network = here(data_dir, name)
    source = DATASETS[dataset]
    if not source.found("test")[0]:
        pytest.skip(f"needs {dataset} in RELUGAP_DATA")
    data = load_dataset(dataset)
    assert int((network.predict(data.features) == data.labels).sum()) == right


@pytest.mark.parametrize(("name", "wrong"), [("tjeng-2019/WK17a", 189), ("tjeng-2019/RSL18a", 418)])
def test_networks_of_tjeng_reach_their_clean_errors(name: str, wrong: int, data_dir: Path) -> None:
    """Tjeng et al. 2019: 1.89 % and 4.18 % of the 10,000 MNIST test images; Wong & Kolter's mnist.pth has 1.80 %."""
    network, data = here(data_dir, name), load_dataset("mnist")
    found = [network.predict(data.features[k : k + 500]) != data.labels[k : k + 500] for k in range(0, len(data), 500)]
    assert int(np.sum(found)) == wrong
