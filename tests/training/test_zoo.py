"""The shipped networks: small, loadable without torch, and as good as their metadata say."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import toolkit
from toolkit.data.datasets import find_data, load_dataset
from toolkit.networks.layers import Sparse
from toolkit.networks.network import Network
from toolkit.networks.sources import zoo_names
from toolkit.problems.input_sets import LinfBall
from toolkit.training.spec import load_train_spec
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margins

ZOO = Path(toolkit.__file__).parent / "zoo"
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SPECS = {
    spec.name: spec for name in ("zoo.toml", "zoo-conv.toml") for spec in load_train_spec(EXPERIMENTS / name).networks
}
GRAPHS = ("digits-max-pool", "digits-residual")  # networks whose stages are no chain


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
    assert f"| {name} |" in (ZOO / "README.md").read_text(encoding="utf-8")
    if not network.sequential:
        assert name in GRAPHS
        return
    assert len(network.relu_sizes) == len(spec.hidden_layers)
    for size, layer in zip(network.relu_sizes, spec.hidden_layers, strict=True):
        assert layer.dense in (size, None)  # a convolution's size follows from the image's


@pytest.mark.parametrize("name", GRAPHS)
def test_networks_that_are_no_chains_have_the_stages_of_their_spec(name):
    pytest.importorskip("torch", reason="training needs torch: pip install relugap[train]")
    from toolkit.training.trainable import frozen, trainable_network

    network = Network.load(f"zoo:{name}")
    fresh = frozen(trainable_network(SPECS[name].hidden_layers, network.input_shape, network.output_size, 0))
    for own, other in zip(network.stages, fresh.stages, strict=True):
        assert [(place, type(layer)) for place, layer in own.sources] == [
            (place, type(layer)) for place, layer in other.sources
        ]
    assert network.relu_sizes == fresh.relu_sizes
    assert network.digest != fresh.digest


@pytest.mark.parametrize("name", GRAPHS)
def test_bounds_of_networks_that_are_no_chains_are_ordered(name, tmp_path):
    """dual ≤ LP ≤ m* ≤ margins at an attack's point, which is replayed; files give the same network back."""
    network, test = Network.load(f"zoo:{name}"), load_dataset("digits")
    assert Network.load(network.save(tmp_path / "again.npz")).digest == network.digest
    chosen = np.flatnonzero(network.predict(test.features[:20]) == test.labels[:20])[:2]
    for i in chosen:
        ball, label = LinfBall(test.features[i], 0.03, (0.0, 1.0)), int(test.labels[i])
        bounds = layer_bounds(network, ball)
        assert bounds.certified
        points = np.concatenate([ball.sample(200), ball.corners(200)])
        for hat, low, high in zip(network.preactivations(points), bounds.lower, bounds.upper, strict=False):
            assert np.all((low <= hat) & (hat <= high))
        found = {rung: margins(network, ball, label, rung, bounds) for rung in ("dual", "lp", "exact", "pgd")}
        for dual, lp, exact, attacked in zip(*found.values(), strict=True):
            assert dual.lower <= lp.lower + 1e-6
            assert lp.lower <= exact.lower + 1e-6
            assert exact.lower <= exact.upper
            assert exact.lower <= attacked.upper
            assert attacked.witness is not None
            assert ball.contains(attacked.witness)
            logits = network.forward(attacked.witness)
            assert logits[label] - logits[attacked.target] == pytest.approx(attacked.upper, abs=1e-9)


def test_zoo_files_are_small_and_weights_fit_float32():
    for name in zoo_names():
        assert (ZOO / f"{name}.npz").stat().st_size < 1_000_000
        for layer in Network.load(f"zoo:{name}").maps:
            weight = layer.matrix.data if isinstance(layer, Sparse) else layer.weight
            assert np.array_equal(weight.astype(np.float32).astype(np.float64), weight)
            assert layer.column_error is None


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
