"""The training loop: same seed same weights, resumes after a kill, schedules, errors, files; specs."""

import csv
import math
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install relugap[train]")

from toolkit.data.datasets import load_dataset  # noqa: E402
from toolkit.networks.network import Network  # noqa: E402
from toolkit.training.loop import train, train_spec  # noqa: E402
from toolkit.training.schedules import learning_rate, radius  # noqa: E402
from toolkit.training.spec import NetworkSpec, load_train_spec  # noqa: E402
from toolkit.training.trainable import frozen, parameters  # noqa: E402

DIGITS = {
    "name": "net",
    "dataset": "digits",
    "hidden": (12, 10),
    "epochs": 3,
    "images": 200,
    "batch": 40,
    "monitor": 20,
}
ROBUST = {**DIGITS, "eps": 0.05, "domain": (0.0, 1.0), "lr": 1e-2}


def _data():
    return load_dataset("digits", "train"), load_dataset("digits", "test")


def _train(**keys):
    return train(NetworkSpec(**keys), *_data())


def _weights(trained):
    return [tensor.detach().numpy() for tensor in parameters(trained.network)]


def _same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(_weights(first), _weights(second), strict=True))


@pytest.mark.parametrize("keys", [{"loss": "dual"}, {"loss": "adversarial"}, {"loss": "dual", "projections": 11}])
def test_the_seed_decides_the_weights(keys):
    runs = [_train(**ROBUST, **keys, seed=seed) for seed in (3, 3, 4)]
    assert _same(runs[0], runs[1])
    assert not _same(runs[0], runs[2])
    assert [epoch.loss for epoch in runs[0].history] == [epoch.loss for epoch in runs[1].history]


def test_dual_training_certifies_where_standard_training_does_not():
    shared = {**ROBUST, "hidden": (16, 16), "eps": 0.1, "images": 1000, "epochs": 8, "monitor": 100}
    plain, robust = _train(**shared, loss="standard"), _train(**shared, loss="dual")
    first, last = plain.history[-1], robust.history[-1]
    assert first.certified_error > 0.9
    assert last.certified_error < 0.6
    for epoch in (*plain.history, *robust.history):
        assert epoch.attacked_error <= epoch.certified_error


@pytest.mark.parametrize("loss", ["interval", "dual-margin", "adversarial-fgsm", "crown-ibp"])
def test_the_other_losses_train_too(loss):
    keys = {**ROBUST, "eps": 0.02, "epochs": 4, "images": 1000, "kappa": 0.3}
    history = _train(**keys, loss=loss).history
    assert history[-1].loss < 0.8 * history[0].loss
    assert history[-1].clean_error < 0.5


def test_chunks_change_nothing_but_memory():
    runs = [_train(**{**ROBUST, "epochs": 1}, loss="dual", chunk=chunk) for chunk in (40, 7)]
    for a, b in zip(_weights(runs[0]), _weights(runs[1]), strict=True):
        assert np.allclose(a, b, atol=1e-4)


def test_kappa_one_is_standard_training():
    runs = [_train(**ROBUST, loss="dual", kappa=1.0), _train(**ROBUST, loss="standard")]
    for a, b in zip(_weights(runs[0]), _weights(runs[1]), strict=True):
        assert np.allclose(a, b, atol=1e-6)


def test_radius_ramps_linearly_from_a_small_start():
    spec = NetworkSpec(**{**ROBUST, "eps": 0.1, "epochs": 10, "ramp": 0.5}, loss="dual")
    assert radius(spec, 0) == 0.01
    assert radius(spec, 2.5) == pytest.approx(0.055)
    assert radius(spec, 5) == radius(spec, 10) == 0.1
    assert radius(spec.model_copy(update={"ramp": 0.0}), 0) == 0.1
    assert radius(spec.model_copy(update={"eps": 0.004}), 0) == 0.004


def test_learning_rate_falls_geometrically():
    spec = NetworkSpec(**{**DIGITS, "lr": 0.1, "lr_decay": 0.01, "epochs": 3})
    assert [learning_rate(spec, epoch) for epoch in (1, 2, 3)] == pytest.approx([0.1, 0.01, 0.001])


KILLED = """
import os, signal, sys
from pathlib import Path
from toolkit.data.datasets import load_dataset
from toolkit.training.loop import train
from toolkit.training.spec import NetworkSpec

def kill(epoch):
    if epoch.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)

spec = NetworkSpec.model_validate_json(sys.argv[1])
train(spec, load_dataset("digits", "train"), load_dataset("digits", "test"), kill, Path(sys.argv[2]))
"""


def test_training_goes_on_after_a_kill_as_if_nothing_had_happened(tmp_path):
    spec = NetworkSpec(**{**ROBUST, "epochs": 4}, loss="adversarial")
    checkpoint = tmp_path / "net.pt"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, spec.model_dump_json(), str(checkpoint)], capture_output=True, check=False
    )
    assert done.returncode == -9, done.stderr.decode()
    seen = []
    resumed = train(spec, *_data(), seen.append, checkpoint)
    assert [epoch.epoch for epoch in seen] == [3, 4]
    assert _same(resumed, train(spec, *_data()))


def test_checkpoints_that_do_not_fit_are_refused(tmp_path):
    checkpoint = tmp_path / "net.pt"
    train(NetworkSpec(**DIGITS), *_data(), None, checkpoint)
    with pytest.raises(ValueError, match=r"net\.pt is of another spec; remove it"):
        train(NetworkSpec(**DIGITS, seed=1), *_data(), None, checkpoint)
    checkpoint.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"net\.pt is not a checkpoint"):
        train(NetworkSpec(**DIGITS), *_data(), None, checkpoint)


def test_a_loss_that_is_not_finite_names_epoch_batch_and_eps():
    diverging = {**ROBUST, "optimizer": "sgd", "lr": 1e9}
    with pytest.raises(
        ValueError, match=r"net: the loss became (nan|inf) in epoch 1, batch \d, at eps 0\.0\d+; lower lr"
    ):
        _train(**diverging, loss="dual")


def test_files_of_a_training_run(tmp_path):
    source = tmp_path / "nets.toml"
    source.write_text(
        """
        [defaults]
        dataset = "digits"
        hidden = [8]
        epochs = 2
        eps = 0.03
        monitor = 20
        evaluate = 30
        images = 300
        [[networks]]
        name = "plain"
        [[networks]]
        name = "robust"
        loss = "dual"
        """
    )
    out = tmp_path / "out"
    assert train_spec(source, out, progress=False) == [out / "plain.npz", out / "robust.npz"]
    network = Network.load(out / "robust.npz")
    record = network.metadata
    errors = record["errors"]
    test = load_dataset("digits")
    assert errors["clean"] == pytest.approx(np.mean(network.predict(test.images) != test.labels))
    assert errors["fgsm"] <= errors["dual"]
    assert errors["pgd"] <= min(errors["dual"], errors["interval"])
    assert (errors["samples"], errors["eps"]) == (30, 0.03)
    assert record["spec"]["loss"] == "dual"
    assert record["versions"]["torch"] == torch.__version__
    with (out / "history" / "robust.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert 0 < float(rows[-1]["certified_error"]) <= 1
    assert (out / "history" / "robust.png").stat().st_size > 5000
    assert not (out / "checkpoints").exists()
    assert "| robust | 64-8-10 | digits | dual | 0.03 | 2 |" in (out / "README.md").read_text()

    before = (out / "robust.npz").stat().st_mtime_ns
    train_spec(source, out, progress=False)
    assert (out / "robust.npz").stat().st_mtime_ns == before  # made by the same spec: left alone
    source.write_text(source.read_text().replace('loss = "dual"', 'loss = "interval"'))
    train_spec(source, out, only=["plain"], progress=False)
    assert Network.load(out / "robust.npz").metadata["spec"]["loss"] == "dual"
    train_spec(source, out, only=["robust"], progress=False)
    assert Network.load(out / "robust.npz").metadata["spec"]["loss"] == "interval"
    with pytest.raises(ValueError, match=r"no network 'other' in .*; allowed: plain, robust"):
        train_spec(source, out, only=["other"])


def test_trained_weights_are_exact_in_the_saved_network(tmp_path):
    trained = _train(**DIGITS)
    saved = Network.load(frozen(trained.network, "net").save(tmp_path / "net.npz"))
    for layer, tensor in zip(saved.layers, parameters(trained.network)[::2], strict=True):
        assert np.array_equal(layer.weight, tensor.detach().numpy().astype(np.float64))


def test_a_convolutional_network_trains_and_loads(tmp_path):
    layers = [{"conv": 3, "kernel": 3, "stride": 2, "padding": 1}, {"conv": 4, "kernel": 2, "stride": 2}, {"dense": 8}]
    keys = {key: value for key, value in ROBUST.items() if key != "hidden"}
    trained = _train(**{**keys, "epochs": 2}, layers=layers, loss="dual")
    assert math.isfinite(trained.history[-1].loss)
    saved = Network.load(frozen(trained.network, "net").save(tmp_path / "net.npz"))
    assert saved.input_shape == (1, 8, 8)
    assert saved.relu_sizes == (48, 16, 8)


STAGES = {
    "residual": [{"dense": 12}, {"residual": [{"dense": 8}, {"dense": 12}]}],
    "pooled": [{"conv": 2, "kernel": 3}, {"max_pool": 2}, {"dense": 8}],
}


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("loss", ["standard", "adversarial", "dual", "interval"])
def test_residual_and_max_pool_networks_train(tmp_path, kind, loss):
    keys = {key: value for key, value in ROBUST.items() if key != "hidden"}
    trained = _train(**{**keys, "epochs": 2}, layers=STAGES[kind], loss=loss)
    assert trained.history[-1].loss < trained.history[0].loss or loss != "standard"
    assert trained.history[-1].attacked_error <= trained.history[-1].certified_error
    certifying = frozen(trained.network, "net")
    saved = Network.load(certifying.save(tmp_path / "net.npz"))
    assert saved.digest == certifying.digest
    assert not saved.sequential


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("loss", ["standard", "adversarial", "dual", "interval"])
def test_training_runs_on_cuda(loss):
    trained = _train(**ROBUST, loss=loss, device="cuda")
    assert parameters(trained.network)[0].is_cuda
    assert trained.history[-1].loss < trained.history[0].loss or loss != "standard"


GOOD = '[[networks]]\nname = "a"\ndataset = "digits"\nhidden = [4]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "epoch = 3\n", r"line 5: unknown key 'networks\[0\]\.epoch'; allowed: .*epochs.*did you mean 'epochs'"),
        ("[default]\n" + GOOD, r"unknown key 'default'; allowed: defaults, networks"),
        (GOOD + 'loss = "hinge"\n', r"loss must be one of standard, adversarial, .*, got 'hinge'"),
        (GOOD.replace("digits", "cifar"), r"unknown data set 'cifar'; allowed: digits, mnist5k, .*; own data are"),
        (GOOD + "eps = -0.1\n", r"line 5: networks\[0\]\.eps: .*greater than or equal to 0, got -0\.1"),
        (GOOD + 'loss = "dual"\n', r"loss 'dual' needs eps > 0, got 0"),
        (GOOD + "projections = 5\neps = 0.1\n", r"projections estimate the bounds of dual losses, got loss 'standard'"),
        (GOOD + 'architecture = "wong-kolter-small"\n', r"exactly one of hidden, layers, architecture"),
        (GOOD.replace("hidden = [4]", 'architecture = "vgg"'), r"architecture must be one of wong-kolter-small"),
        (
            GOOD.replace("hidden = [4]", "layers = [{ dense = 3, width = 2 }]"),
            r"unknown key 'networks\[0\]\.layers\[0\]\.width'; allowed: dense, conv",
        ),
        (GOOD.replace("hidden = [4]", "layers = [{ kernel = 3 }]"), r"either dense = WIDTH or conv = CHANNELS"),
        (
            GOOD.replace("hidden = [4]", "layers = [{ dense = 3, max_pool = 2 }]"),
            r"either dense = WIDTH or conv = CHANNELS or max_pool = WINDOW or residual = \[LAYERS\]",
        ),
        (GOOD.replace("hidden = [4]", "layers = [{ max_pool = 1 }]"), r"max_pool: .*greater than or equal to 2, got 1"),
        (GOOD.replace("hidden = [4]", "layers = [{ max_pool = 2, stride = 2 }]"), r"kernel, stride and padding are of"),
        (
            GOOD.replace("hidden = [4]", "layers = [{ residual = [{ dense = 4 }] }]"),
            r"a residual block holds at least two layers and no block, got 1 layers",
        ),
        (
            GOOD.replace("hidden = [4]", "layers = [{ residual = [{ dense = 4 }, { max_pool = 2 }] }]"),
            r"a residual block's last layer is dense or conv",
        ),
        (
            GOOD.replace("hidden = [4]", "layers = [{ residual = [{ dense = 4 }, { dens = 4 }] }]"),
            r"unknown key 'networks\[0\]\.layers\[0\]\.residual\[1\]\.dens'; allowed: .* did you mean 'dense'",
        ),
        (
            GOOD.replace("hidden = [4]", 'layers = [{ dense = 4, skip = "identity" }]'),
            r"skip is a key of residual blocks, got skip = 'identity' elsewhere",
        ),
        (
            GOOD.replace("hidden = [4]", 'layers = [{ residual = [{ dense = 4 }, { dense = 4 }], skip = "none" }]'),
            r"skip: .*'identity' or 'projection', got 'none'",
        ),
        (GOOD.replace("hidden = [4]", "hidden = [0]"), r"hidden must be widths ≥ 1, got \[0\]"),
        (GOOD + GOOD, "two networks are named 'a'"),
        ("networks = []", "networks"),
        ("[[networks]\n", "is not valid TOML"),
    ],
)
def test_bad_specs_are_refused_in_one_line(tmp_path, text, message):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        load_train_spec(file)
    assert "bad.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_spec_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no training file at"):
        load_train_spec(tmp_path / "absent.toml")
