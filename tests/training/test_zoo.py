"""The shipped networks: small, loadable without torch, and as good as their metadata say."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import toolkit
from toolkit.data.datasets import find_data, load_dataset
from toolkit.networks.network import Network
from toolkit.networks.sources import zoo_names
from toolkit.training.spec import load_train_spec

ZOO = Path(toolkit.__file__).parent / "zoo"
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SPECS = {
    spec.name: spec for name in ("zoo.toml", "zoo-conv.toml") for spec in load_train_spec(EXPERIMENTS / name).networks
}


def test_the_zoo_holds_what_its_specs_name():
    assert set(SPECS) == set(zoo_names())
    assert {"digits-standard", "mnist5k-standard"} <= set(zoo_names())


@pytest.mark.parametrize("name", zoo_names())
def test_a_zoo_network_is_as_good_as_recorded(name):
    network = Network.load(f"zoo:{name}")
    spec = network.metadata["spec"]
    if not next(one for one in find_data() if (one.name, one.split) == (spec["dataset"], "test")).available:
        pytest.skip(f"needs the test set of {spec['dataset']} (Debian package dataset-fashion-mnist, or RELUGAP_DATA)")
    test = load_dataset(spec["dataset"])
    assert network.name == name == spec["name"]
    assert network.input_shape == test.shape
    error = np.mean(network.predict(test.images) != test.labels)
    assert error == pytest.approx(network.metadata["errors"]["clean"], abs=1e-9)
    assert error < 0.3


@pytest.mark.parametrize("name", zoo_names())
def test_a_zoo_network_was_made_by_the_spec_in_experiments(name):
    spec = SPECS[name]
    network = Network.load(f"zoo:{name}")
    assert network.metadata["spec"] == spec.record
    assert len(network.relu_sizes) == len(spec.hidden_layers)
    for size, layer in zip(network.relu_sizes, spec.hidden_layers, strict=True):
        assert layer.dense in (size, None)  # a convolution's size follows from the image's
    assert f"| {name} |" in (ZOO / "README.md").read_text(encoding="utf-8")


def test_zoo_files_are_small_and_weights_fit_float32():
    for name in zoo_names():
        assert (ZOO / f"{name}.npz").stat().st_size < 1_000_000
        for layer in Network.load(f"zoo:{name}").layers:
            assert np.array_equal(layer.weight.astype(np.float32).astype(np.float64), layer.weight)


def test_the_zoo_loads_without_torch():
    code = (
        "import importlib.abc, sys\n"
        "class NoTorch(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torch': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from toolkit.networks.network import Network\n"
        "from toolkit.data.datasets import find_data, load_dataset\n"
        "net = Network.load('zoo:digits-standard')\n"
        "print(net.predict(load_dataset('digits').images[:1]).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1,)", done.stderr
