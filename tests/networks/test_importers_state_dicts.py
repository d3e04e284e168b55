"""State dicts of .pth files: the architecture is the caller's, the weights the file's, and misfits are named."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.networks.importers.state_dicts import STATE_DICT_ARCHITECTURES
from toolkit.networks.network import Network

torch = pytest.importorskip("torch", reason="torch is not installed (extra: train)")
nn = torch.nn


def mlp() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


def conv_net() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def saved(content: Any, folder: Path) -> Path:
    torch.save(content, folder / "weights.pth")
    return folder / "weights.pth"


def test_an_mlp_is_read_off_the_shapes_when_asked_for(tmp_path: Path) -> None:
    net = Network.load(saved(mlp().state_dict(), tmp_path), "mlp")
    assert net.name == "weights"
    assert net.digest == Network.from_torch(mlp(), (12,)).digest


LOOKALIKES = {
    "relu": lambda: mlp(),
    "tanh": lambda: nn.Sequential(nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3)),
    "gelu": lambda: nn.Sequential(nn.Linear(12, 5), nn.GELU(), nn.Linear(5, 3)),
    "convolutions": lambda: conv_net(),
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_no_architecture_is_ever_guessed(name: str, tmp_path: Path) -> None:
    """The state dict of a Tanh network has the keys and shapes of a ReLU network's."""
    path = saved(LOOKALIKES[name]().state_dict(), tmp_path)
    first = next(iter(LOOKALIKES[name]().state_dict()))
    with pytest.raises(
        ValueError, match=rf"needs an architecture .*allowed: {NEEDS}.* the file holds '{first}' \d"
    ) as e:
        Network.load(path)
    assert "\n" not in str(e.value)
    assert "--architecture" in str(e.value)


def test_what_was_assumed_is_said_and_kept(tmp_path: Path) -> None:
    net = Network.load(saved(mlp().state_dict(), tmp_path), "mlp")
    assert net.metadata["assumed"] == "mlp (Linear 12→5, ReLU, Linear 5→4, ReLU, Linear 4→3)"
    again = Network.load(net.save(tmp_path / "again.npz"))
    assert again.metadata["assumed"] == net.metadata["assumed"]
    conv = Network.load(saved(conv_net().state_dict(), tmp_path), "wong-kolter-small")
    assert conv.metadata["assumed"].startswith(
        "wong-kolter-small (Conv2d 1×28×28→16×14×14 (kernel 4×4, stride 2, padding 1), ReLU, Conv2d 16×14×14→32×7×7 "
    )
    given = Network.load(saved(nn.Linear(4, 2).state_dict(), tmp_path), "2x2 flatten linear relu")
    assert given.metadata["assumed"] == "as given (Flatten, Linear 4→2, ReLU)"


def test_wong_and_kolters_network_by_name(tmp_path: Path) -> None:
    net = Network.load(saved(conv_net().state_dict(), tmp_path), "wong-kolter-small")
    assert (net.input_shape, net.relu_sizes, net.output_size) == ((1, 28, 28), (3136, 1568, 100), 10)
    assert net.digest == Network.from_torch(conv_net(), (1, 28, 28)).digest


def test_an_architecture_can_be_spelled_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 6, 2, 2, 1, 2, 2), nn.Flatten(), nn.Linear(96, 3)
    )
    words = "2x9x9 conv relu conv(stride=2,padding=1,dilation=2,groups=2) flatten linear"
    net = Network.load(saved(module.state_dict(), tmp_path), words)
    assert net.digest == Network.from_torch(module, (2, 9, 9)).digest


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_normalisation_is_folded_in_and_padding_stays_zero_behind_it(
    per_channel: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)).double()
    mean, std = ([0.5, 0.25, 0.4], [0.25, 0.2, 0.3]) if per_channel else ([0.1307], [0.3081])
    spelled = f"normalize(mean={':'.join(map(str, mean))},std={':'.join(map(str, std))})"
    net = Network.load(
        saved(module.state_dict(), tmp_path), f"3x8x8 {spelled} conv(stride=2,padding=1) relu flatten linear"
    )
    images = rng.uniform(size=(5, 3, 8, 8))
    normalized = (images - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))
    with torch.no_grad():
        expected = module(torch.as_tensor(normalized)).numpy()
    np.testing.assert_allclose(net.forward(images.reshape(5, -1)), expected, rtol=0, atol=1e-12)
    assert f"(x − {mean[0]}" in str(net.metadata["assumed"])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s},
        lambda s: {"state_dict": [s], "err": 0.1},
        lambda s: [s],
        lambda s: {"epoch": 3, "model_state_dict": s, "optimizer_state_dict": {"state": {}, "param_groups": []}},
        lambda s: {"net": {"state_dict": s}},
        lambda s: {"model": {f"module.{key}": value for key, value in s.items()}},
    ],
)
def test_wrapped_state_dicts_are_unwrapped(wrap: Any, tmp_path: Path) -> None:
    net = Network.load(saved(wrap(mlp().state_dict()), tmp_path), "mlp")
    assert net.digest == Network.from_torch(mlp(), (12,)).digest


def test_double_precision_weights_are_read_exactly(tmp_path: Path) -> None:
    state = mlp().double().state_dict()
    state["1.weight"][0, 0] = 0.1
    net = Network.load(saved(state, tmp_path), "mlp")
    assert net.layers[0].to_sparse()[0, 0] == 0.1  # which float32 cannot hold


def reordered() -> dict[str, Any]:
    state = mlp().state_dict()
    return {key: state[key] for key in ("3.weight", "3.bias", "1.weight", "1.bias")}


NEEDS = "mlp, wong-kolter-small, or a specification such as"
REFUSED: dict[str, tuple[Any, str | None, str]] = {
    "an unknown architecture": (
        lambda: mlp().state_dict(),
        "resnet18",
        f"unknown architecture 'resnet18'; allowed: {NEEDS}",
    ),
    "convolutions as mlp": (lambda: conv_net().state_dict(), "mlp", r"layer '0' of an mlp .* got \(16, 1, 4, 4\)"),
    "an mlp as convolutions": (
        lambda: mlp().state_dict(),
        "wong-kolter-small",
        r"layer '1': a convolution's weight must have 4 axes, got \(5, 12\)",
    ),
    "another order": (reordered, "mlp", "layers must be in order, got '3' before '1'"),
    "another order of squares": (
        lambda: {"net.fc10.weight": torch.eye(3), "net.fc9.weight": torch.ones(3, 3)},
        "mlp",
        "layers must be in order, got 'net.fc10' before 'net.fc9'",
    ),
    "layers that do not chain": (
        lambda: {"b.weight": torch.zeros(4, 5), "a.weight": torch.zeros(5, 12)},
        "mlp",
        "layer 'a': a dense map takes 12 features, got 4",
    ),
    "layers left over": (lambda: mlp().state_dict(), "12 linear relu linear", "uses 2 layers, '5' is left over"),
    "layers missing": (lambda: mlp().state_dict(), "12 linear linear linear linear", "all 3 layers are used"),
    "no input shape": (
        lambda: mlp().state_dict(),
        "linear relu linear",
        "starts with the input shape, .* got 'linear'",
    ),
    "an unknown operation": (
        lambda: mlp().state_dict(),
        "12 linear tanh",
        "layer '3': unknown operation 'tanh'; allowed:",
    ),
    "an unknown option": (
        lambda: conv_net().state_dict(),
        "1x28x28 conv(pad=1)",
        "unknown option 'pad' .* allowed: stride",
    ),
    "stride 0": (lambda: conv_net().state_dict(), "1x28x28 conv(stride=0)", "stride must be an integer ≥ 1"),
    "running statistics": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).state_dict(),
        "mlp",
        "'1.running_mean' is neither a weight nor a bias, so no architecture here uses it",
    ),
    "a layer norm": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2)).state_dict(),
        "mlp",
        r"layer '1' of an mlp must have a matrix as weight, got \(3,\)",
    ),
    "a learned slope": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.PReLU(), nn.Linear(3, 2)).state_dict(),
        "4 linear relu linear",
        "layer '1': Dense weight must have 2 axes",
    ),
    "two checkpoints in one": (
        lambda: {"model": mlp().state_dict(), "net": mlp().state_dict()},
        "mlp",
        "got several, under model, net",
    ),
    "complex weights": (lambda: {"0.weight": torch.eye(2) * 1j}, "mlp", "'0.weight': .* got torch.complex64"),
    "whole numbers": (
        lambda: {"0.weight": torch.eye(2, dtype=torch.int64)},
        "mlp",
        "real floating-point numbers, got torch.int64",
    ),
    "sparse weights": (lambda: {"0.weight": torch.eye(2).to_sparse()}, "mlp", "must be dense tensors with values"),
    "a view that repeats": (
        lambda: {"0.weight": torch.zeros(1).expand(3_000_000, 3_000_000)},
        "mlp",
        r"got a view that repeats them to \(3000000, 3000000\)",
    ),
    "a bias per place": (
        lambda: {"0.weight": torch.ones(1, 1, 2, 2), "0.bias": torch.ones(4)},
        "1x3x3 conv",
        r"1 channels has as many biases, got \(4,\)",
    ),
    "an option twice": (
        lambda: conv_net().state_dict(),
        "1x28x28 conv(stride=1,stride=2)",
        "option 'stride' stands twice",
    ),
    "a mean that is no number": (
        lambda: mlp().state_dict(),
        "12 normalize(mean=grey,std=1) linear",
        "normalize takes numbers, one or one per channel, .* got 'normalize\\(mean=grey,std=1\\)'",
    ),
    "a number that is none": (lambda: mlp().state_dict(), "12 normalize(mean=1.2.3,std=1) linear", "takes numbers"),
    "a mean of too many channels": (
        lambda: conv_net().state_dict(),
        "1x28x28 normalize(mean=0:1,std=1) conv",
        "mean must be one number or 1, one per channel, got 2",
    ),
    "an infinite mean": (lambda: mlp().state_dict(), "12 normalize(mean=1e999,std=1) linear", "mean must be finite"),
    "a std of zero": (lambda: mlp().state_dict(), "12 normalize(mean=0,std=0) linear", "std must be > 0, got 0"),
    "options run together": (lambda: conv_net().state_dict(), "1x28x28 conv(stride=2padding=1)", "unknown operation"),
    "a bias alone": (lambda: {"0.bias": torch.zeros(3)}, "mlp", "layer '0' has a bias but no weight"),
    "nothing": (dict, None, "the state dict is empty"),
    "numbers": (lambda: {"0.weight": 3.0}, None, "entry '0.weight' must be a tensor, got float"),
    "two state dicts": (lambda: [mlp().state_dict(), mlp().state_dict()], None, "must hold one state dict, got list"),
    "a tensor": (lambda: torch.zeros(3), None, "must hold one state dict, got Tensor"),
    "a pickled module": (mlp, None, "only plain tensors are read"),
    "nan": (lambda: {"0.weight": torch.full((2, 2), torch.nan)}, "mlp", "Dense weight must be finite, got nan"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_misfits_are_refused_in_one_line_that_names_the_file(name: str, tmp_path: Path) -> None:
    make, architecture, message = REFUSED[name]
    path = saved(make(), tmp_path)
    with pytest.raises(ValueError, match=rf"weights\.pth: .*{message}") as caught:
        Network.load(path, architecture)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = saved(mlp().state_dict(), tmp_path)
    whole = path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"weights\.pth: not a state dict") as caught:
            Network.load(path)
        assert "\n" not in str(caught.value)


def test_every_named_architecture_is_described() -> None:
    assert {"mlp", "wong-kolter-small"} <= set(STATE_DICT_ARCHITECTURES)
    assert all(architecture.description for architecture in STATE_DICT_ARCHITECTURES.values())


PUBLISHED = {
    "convex_adversarial/mnist.pth": ("wong-kolter-small", (3136, 1568, 100), conv_net),
    "convex_adversarial/fashion_mnist.pth": ("wong-kolter-small", (3136, 1568, 100), conv_net),
    "robust-verify-benchmark/NOR_MLP_B.pth": ("mlp", (100, 100), None),
    "robust-verify-benchmark/ADV_MLP_B_0.1.pth": ("mlp", (100, 100), None),
    "robust-verify-benchmark/LPD_MLP_B_0.1.pth": ("mlp", (100, 100), None),
    "robust-verify-benchmark/mnist_MLP_9_100_LPD.pth": ("mlp", (100,) * 9, None),
}


@pytest.mark.parametrize("file", PUBLISHED)
def test_published_networks_load_and_agree_with_torch(file: str, data_dir: Path, rng: np.random.Generator) -> None:
    architecture, sizes, make = PUBLISHED[file]
    net = Network.load(data_dir / file, architecture)
    assert (net.input_size, net.relu_sizes, net.output_size) == (784, sizes, 10)
    widths = (784, *sizes, 10)
    chain = [part for k in range(len(widths) - 1) for part in (nn.Linear(widths[k], widths[k + 1]), nn.ReLU())]
    module = make() if make else nn.Sequential(nn.Flatten(), *chain[:-1])
    module.load_state_dict(torch.load(data_dir / file, map_location="cpu", weights_only=True))
    images = rng.uniform(0, 1, (8, 1, 28, 28)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.as_tensor(images)).double().numpy()
    found = net.forward(images.reshape(8, 784))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_the_published_network_reaches_its_clean_error(data_dir: Path) -> None:
    """Wong & Kolter 2018, Table 1: standard error 1.80 % on the 10,000 MNIST test images."""

    def idx(name: str, offset: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((data_dir / "mnist" / name).read_bytes()), np.uint8, offset=offset)

    images = idx("t10k-images-idx3-ubyte.gz", 16).reshape(10_000, 784)
    labels = idx("t10k-labels-idx1-ubyte.gz", 8)
    net = Network.load(data_dir / "convex_adversarial/mnist.pth", "wong-kolter-small")
    wrong = sum(
        int((net.predict(images[k : k + 500] / 255) != labels[k : k + 500]).sum()) for k in range(0, 10_000, 500)
    )
    assert wrong == 180
