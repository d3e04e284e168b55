"""Networks from torch modules compute what the modules compute in evaluation mode; anything else is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from toolkit.networks.convolutions import Conv2d
from toolkit.networks.network import Network

torch = pytest.importorskip("torch", reason="torch is not installed (extra: train)")
nn = torch.nn
Sequential, Linear, ReLU = nn.Sequential, nn.Linear, nn.ReLU


class Normalize(nn.Module):  # type: ignore[misc,name-defined]
    """(x − mean)/std per channel, as torchvision's transform of that name."""

    def __init__(self, mean: Any, std: Any) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x: Any) -> Any:
        return (x - self.mean.reshape(-1, 1, 1)) / self.std.reshape(-1, 1, 1)


def settled(module: Any) -> Any:
    """The module with running statistics and affine parameters of its batch norms away from 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.copy_(torch.randn(part.num_features, generator=generator))
            part.running_var.copy_(torch.rand(part.num_features, generator=generator) + 0.3)
            if part.affine:
                part.weight.data.copy_(torch.randn(part.num_features, generator=generator))
                part.bias.data.copy_(torch.randn(part.num_features, generator=generator))
    return module


def assert_agrees(module: Any, net: Network) -> None:
    """Equal logits to 1e-6 of their scale in float32, and to 1e-12 of it in float64."""
    module = module.eval()
    points = np.random.default_rng(0).uniform(-1, 1, (5, *net.input_shape))
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        given = torch.as_tensor(points, dtype=dtype)
        with torch.no_grad():
            expected = module.to(dtype)(given).double().reshape(5, -1).numpy()
        found = net.forward(given.double().numpy())
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1.0, np.abs(expected).max()))


IMAGE = (3, 8, 7)
MODULES: dict[str, tuple[Callable[[], Any], tuple[int, ...] | None]] = {
    "mlp": (lambda: Sequential(Linear(6, 5), ReLU(), Linear(5, 4), ReLU(), Linear(4, 3)), None),
    "flatten first": (lambda: Sequential(nn.Flatten(), Linear(12, 5), ReLU(), Linear(5, 3)), None),
    "consecutive linear": (lambda: Sequential(Linear(6, 5), Linear(5, 4, bias=False), ReLU(), Linear(4, 3)), None),
    "nested": (lambda: Sequential(Sequential(Linear(6, 5), ReLU()), Sequential(Sequential(Linear(5, 3)))), None),
    "a bare Linear": (lambda: Linear(4, 2), None),
    "relu first and last": (lambda: Sequential(ReLU(), Linear(6, 5), ReLU(), ReLU()), None),
    "dropout and identity": (
        lambda: Sequential(Linear(6, 5), nn.Dropout(0.9), ReLU(), nn.Identity(), Linear(5, 3)),
        None,
    ),
    "conv": (
        lambda: Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1),
            ReLU(),
            nn.Conv2d(4, 2, (2, 3)),
            ReLU(),
            nn.Flatten(),
            Linear(12, 3),
        ),
        IMAGE,
    ),
    "conv geometry": (lambda: Sequential(nn.Conv2d(3, 6, 3, (2, 1), (1, 2), (1, 2), groups=3, bias=False)), IMAGE),
    "conv same": (lambda: Sequential(nn.Conv2d(3, 2, 3, padding="same", dilation=2), ReLU(), nn.Flatten()), IMAGE),
    "conv same, even kernel": (lambda: Sequential(nn.Conv2d(3, 2, (4, 2), padding="same", dilation=(1, 3))), IMAGE),
    "conv valid": (lambda: Sequential(nn.Conv2d(3, 2, 3, padding="valid")), IMAGE),
    "two convs": (lambda: Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3), ReLU(), nn.Flatten()), IMAGE),
    "batch norm after conv": (lambda: Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), ReLU()), IMAGE),
    "batch norm before conv": (lambda: Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1), ReLU()), IMAGE),
    "batch norm after linear": (lambda: Sequential(Linear(6, 5), nn.BatchNorm1d(5), ReLU(), Linear(5, 3)), None),
    "batch norm before linear": (lambda: Sequential(nn.BatchNorm1d(6), Linear(6, 5), ReLU(), Linear(5, 3)), None),
    "batch norm after relu": (lambda: Sequential(nn.Conv2d(3, 4, 3), ReLU(), nn.BatchNorm2d(4), nn.Flatten()), IMAGE),
    "plain batch norm": (lambda: Sequential(nn.BatchNorm1d(6, affine=False, eps=0.1), Linear(6, 3)), None),
    "normalised, padded conv": (
        lambda: Sequential(
            Normalize([0.1, 0.2, 0.3], [0.5, 0.6, 0.7]),
            nn.Conv2d(3, 4, 3, padding=1),
            ReLU(),
            nn.Flatten(),
            Linear(224, 3),
        ),
        IMAGE,
    ),
    "normalised by one number": (lambda: Sequential(Normalize(0.3, 0.5), nn.Flatten(), Linear(168, 3)), IMAGE),
    "average pooling": (
        lambda: Sequential(
            nn.Conv2d(3, 4, 3), ReLU(), nn.AvgPool2d(2), nn.AvgPool2d(2, 1, padding=1, divisor_override=3), nn.Flatten()
        ),
        IMAGE,
    ),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", MODULES)
def test_forward_agrees_with_torch(name: str) -> None:
    torch.manual_seed(0)
    make, shape = MODULES[name]
    module = settled(make())
    assert_agrees(module, Network.from_torch(module, shape, "named"))


def test_structure_and_shapes_are_kept() -> None:
    make, shape = MODULES["normalised, padded conv"]
    net = Network.from_torch(make(), shape, "named")
    assert (net.name, net.input_shape, net.relu_sizes, net.output_size) == ("named", (3, 8, 7), (224,), 3)
    first = net.layers[0]
    assert isinstance(first, Conv2d)
    assert first.bias.shape == (224,)  # the mean is absent from the zero padding, so the bias differs at the border
    assert Network.from_torch(MODULES["consecutive linear"][0]()).relu_sizes == (4,)


def test_the_module_is_left_as_it_was_and_not_shared() -> None:
    module = Sequential(Linear(4, 3).double(), nn.BatchNorm1d(3).double(), ReLU(), Linear(3, 2).double())
    module.train()
    module[1].eval()
    net = Network.from_torch(module)
    assert [part.training for part in module] == [True, False, True, True]
    before = net.forward(np.ones(4))
    with torch.no_grad():
        module[3].weight.fill_(7.0)
    np.testing.assert_array_equal(net.forward(np.ones(4)), before)


class Doubled(nn.Linear):  # type: ignore[misc,name-defined]
    def forward(self, x: Any) -> Any:
        return 2 * super().forward(x)


class Backwards(nn.Sequential):  # type: ignore[misc,name-defined]
    def forward(self, x: Any) -> Any:
        return super().forward(-x)


class FlatNormalize(Normalize):
    def forward(self, x: Any) -> Any:
        return x - self.mean


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (
            lambda: Sequential(Linear(3, 2), nn.Sigmoid(), Linear(2, 2)),
            None,
            r"module '1' \(Sigmoid\): sigmoid is",
        ),
        (lambda: Sequential(Linear(3, 2), nn.Softsign()), None, r"module '1' \(Softsign\): "),
        (lambda: Sequential(nn.Conv2d(3, 2, 3), nn.Softmax(dim=1)), IMAGE, "softmax acts on parts of the outputs"),
        (lambda: nn.ModuleList([Linear(3, 2)]), (3,), "class ModuleList"),
        (lambda: Sequential(nn.Conv2d(3, 2, 3)), None, r"input_shape is needed before Conv2d, e\.g\."),
        (lambda: Sequential(nn.Flatten(), ReLU()), None, "no affine layer"),
        (lambda: Sequential(nn.Conv2d(3, 2, 3)), (8, 7), r"takes \(channels, height, width\), .* shape \(8, 7\)"),
        (lambda: Sequential(nn.Conv2d(3, 2, 3)), (1, 8, 7), "does not fit 1 input channels"),
        (lambda: Sequential(Linear(7, 2)), IMAGE, r"last axis, but the features have shape \(3, 8, 7\); flatten first"),
        (lambda: Sequential(Linear(5, 4), Linear(3, 2)), None, "takes 3 features, got 4"),
        (lambda: Sequential(Linear(4, 2)), (0,), "must be positive sizes"),
        (lambda: Sequential(nn.BatchNorm2d(3, track_running_stats=False)), IMAGE, "no running statistics"),
        (lambda: Sequential(Normalize([0.1, 0.2], [1.0, 1.0]), nn.Flatten()), IMAGE, "must have 1 or 3 values"),
        (lambda: Sequential(Normalize([0.1] * 3, [1.0, 0.0, 1.0])), IMAGE, "must have std ≠ 0"),
        (lambda: Sequential(FlatNormalize([0.1, 5.0, 0.3], [1.0] * 3)), (3, 8, 3), "do not add up to its own output"),
    ],
)
def test_other_modules_are_refused_by_name(
    make: Callable[[], Any], shape: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Network.from_torch(make(), shape)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_refused() -> None:
    module = Sequential(Linear(3, 2))
    module[0].weight.data[1, 0] = float("nan")
    with pytest.raises(ValueError, match=r"Dense weight must be finite, got nan at index \(1, 0\)"):
        Network.from_torch(module)


def test_half_precision_weights_are_read_exactly() -> None:
    module = Sequential(Linear(6, 5), ReLU(), Linear(5, 3)).to(torch.bfloat16)
    net = Network.from_torch(module)
    np.testing.assert_array_equal(net.layers[0].to_sparse().toarray(), module[0].weight.detach().double().numpy())


def test_without_torch_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"needs torch: pip install .relugap\[train\]."):
        Network.from_torch(None)


class Negated(nn.Sequential):  # type: ignore[misc,name-defined]
    def forward(self, x: Any) -> Any:
        return -super().forward(x)


class Capped(nn.ReLU):  # type: ignore[misc,name-defined]
    """A ReLU inside the box where an import might look."""

    def forward(self, x: Any) -> Any:
        return super().forward(x).clamp(max=1e6)


class Mine(Sequential):  # type: ignore[misc,valid-type]
    """A Sequential under another name, with nothing changed."""


class Wrapper(nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.net = Sequential(Linear(4, 5), ReLU(), Linear(5, 3))

    def forward(self, x: Any) -> Any:
        return self.net(x)


def small() -> Any:
    torch.manual_seed(0)
    return Sequential(Linear(4, 5), ReLU(), Linear(5, 3))


def patched() -> Any:
    module = small()
    module[1].forward = lambda x: x
    return module


def hooked(register: str) -> Any:
    module = small()
    getattr(module[0], register)(lambda *given: None)
    return module


OWN: dict[str, tuple[Callable[[], Any], tuple[int, ...] | None]] = {
    "negated": (lambda: Negated(*small()), None),
    "negated inside": (lambda: Sequential(Negated(*small()), Linear(3, 2)), None),
    "capped": (lambda: Sequential(Linear(4, 5), Capped(), Linear(5, 3)), None),
    "patched": (patched, None),
    "doubled": (lambda: Sequential(Doubled(3, 2)), None),
    "backwards": (lambda: Backwards(Linear(3, 2)), None),
    "wrapper": (Wrapper, None),
    "data parallel": (lambda: nn.DataParallel(small()), None),
    "wrapper inside": (lambda: Sequential(Wrapper(), ReLU()), None),
    "relu6": (lambda: Sequential(Linear(4, 5), nn.ReLU6(), Linear(5, 3)), None),
    "leaky": (lambda: Sequential(Linear(4, 5), nn.LeakyReLU(0.0), Linear(5, 3)), None),
    "max pooling": (lambda: Sequential(nn.MaxPool2d(2), nn.Flatten()), IMAGE),
    "1-D convolution": (lambda: Sequential(nn.Conv1d(3, 2, 2)), (3, 8)),
    "circular padding": (lambda: Sequential(nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular")), IMAGE),
    "flatten a part": (lambda: Sequential(nn.Flatten(start_dim=2)), IMAGE),
    "pooling without the padding": (lambda: Sequential(nn.AvgPool2d(2, padding=1, count_include_pad=False)), IMAGE),
    "pooling over the border": (lambda: Sequential(nn.AvgPool2d(3, ceil_mode=True)), IMAGE),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", OWN)
def test_a_forward_of_its_own_is_followed(name: str) -> None:
    """What used to be refused, since only classes were looked at: now what the forward does is what is imported."""
    torch.manual_seed(0)
    make, shape = OWN[name]
    module = make()
    assert_agrees(module, Network.from_torch(module, shape))


FOREIGN: dict[str, tuple[Callable[[], Any], str]] = {
    "hook": (lambda: hooked("register_forward_hook"), "Linear with a forward hook"),
    "pre-hook": (lambda: hooked("register_forward_pre_hook"), "Linear with a forward hook"),
    "hook inside": (lambda: Sequential(Wrapper(), hooked("register_forward_hook")), "Linear with a forward hook"),
    "complex": (
        lambda: small().to(torch.complex64),
        "Linear: weights must be real floating-point numbers, got torch.com",
    ),
    "lazy": (lambda: Sequential(Linear(4, 5), nn.LazyLinear(3)), "Linear"),
    "quantised": (lambda: torch.ao.nn.quantized.dynamic.Linear(4, 3), "cannot import a module of class Linear"),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", FOREIGN)
def test_what_a_module_computes_is_known_or_it_is_refused(name: str) -> None:
    make, message = FOREIGN[name]
    with pytest.raises(ValueError, match=message):
        Network.from_torch(make())


def test_a_subclass_that_changes_nothing_is_imported() -> None:
    assert Network.from_torch(Mine(*small())).digest == Network.from_torch(small()).digest


class ShiftedNormalize(Normalize):
    """Normalisation with one pixel off by little: seen however small the outputs are."""

    def forward(self, x: Any) -> Any:
        y = super().forward(x)
        return torch.cat([y[..., :1] * (1 + 1e-5), y[..., 1:]], dim=-1)


class ClippedNormalize(Normalize):
    """Normalisation inside the unit box, something else outside."""

    def forward(self, x: Any) -> Any:
        return super().forward(x.clamp(-1, 1))


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-7, 1e-9, 1e-30, 1e6])
@pytest.mark.parametrize("kind", [ShiftedNormalize, ClippedNormalize])
def test_the_replay_is_relative_to_every_outputs_own_size(kind: Any, scale: float) -> None:
    """Output 0 has the given scale beside outputs of size 1, whose size must not hide it."""
    torch.manual_seed(0)
    head = Linear(12, 3)
    with torch.no_grad():
        head.weight[0] *= scale
        head.bias[0] *= scale
        head.weight[1:, ::2] = 0  # only output 0 sees the pixels that ShiftedNormalize changes
    rest = (nn.Flatten(), head)
    with pytest.raises(ValueError, match="do not add up to its own output"):
        Network.from_torch(Sequential(kind([0.1, 0.2, 0.3], [0.5, 0.6, 0.7]), *rest), (3, 2, 2))
    right = Sequential(Normalize([0.1, 0.2, 0.3], [0.5, 0.6, 0.7]), *rest)
    assert Network.from_torch(right, (3, 2, 2)).output_size == 3


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_hidden_values_of_any_size_pass_the_replay(scale: float) -> None:
    module = small()
    with torch.no_grad():
        module[0].weight.mul_(scale)
        module[0].bias.mul_(scale)
        module[2].weight.div_(scale)
    assert_agrees(module, Network.from_torch(module))


def test_deep_networks_and_half_precision_pass_the_replay() -> None:
    torch.manual_seed(0)
    parts = [part for _ in range(12) for part in (Linear(30, 30), ReLU())]
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        module = Sequential(*parts, Linear(30, 4)).to(dtype)
        net = Network.from_torch(module)
        expected = module.double()(torch.ones(1, 30, dtype=torch.float64)).detach().numpy()[0]
        np.testing.assert_allclose(net.forward(np.ones(30)), expected, rtol=1e-9)


def test_spectral_norm_in_training_mode_is_read_in_evaluation_mode_and_left_alone() -> None:
    from torch.nn.utils.parametrizations import spectral_norm

    torch.manual_seed(0)
    module = Sequential(spectral_norm(Linear(4, 5)), ReLU(), Linear(5, 3)).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    net = Network.from_torch(module)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert module.training
    assert module[0].training
    weight = module.eval()[0].weight.detach().double().numpy()
    np.testing.assert_array_equal(net.layers[0].to_sparse().toarray(), weight)


def test_pruning_is_read_as_of_now() -> None:
    """The pruned weight is made anew in each forward: a change of the original counts although `weight` is stale."""
    from torch.nn.utils import prune

    module = small()
    prune.l1_unstructured(module[0], "weight", 0.5)
    with torch.no_grad():
        module[0].weight_orig.mul_(3)
    assert_agrees(module, Network.from_torch(module))


def test_normalisation_by_python_numbers_is_not_rounded_to_single_precision() -> None:
    class PlainNormal(nn.Module):  # type: ignore[misc,name-defined]
        mean, std = 0.1307, 0.3081

        def forward(self, x: Any) -> Any:
            return (x - self.mean) / self.std

    net = Network.from_torch(Sequential(PlainNormal(), Linear(4, 2).double()), (4,))
    plain = Network.from_torch(PlainNormal(), (4,))
    np.testing.assert_allclose(plain.forward(np.ones(4)), (1 - 0.1307) / 0.3081, rtol=1e-15)
    assert net.output_size == 2
