"""Torch modules with a forward of their own compute what they compute, or the module that cannot go is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from toolkit.networks.network import Network

torch = pytest.importorskip("torch", reason="torch is not installed (extra: train)")
nn, F = torch.nn, torch.nn.functional
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")


class Function(nn.Module):  # type: ignore[misc,name-defined]
    """A module whose forward is a function of its layers and x."""

    def __init__(self, function: Callable[..., Any], **layers: Any) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


class Residual(nn.Module):  # type: ignore[misc,name-defined]
    """The block of a residual network: convolution, batch norm, ReLU, twice, and the input added."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])
        self.way = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Any) -> Any:
        y = F.relu(self.norms[0](self.first(x)), inplace=True)
        y = self.norms[1](self.second(y))
        y += self.way(x)
        return torch.relu(y)


def residual() -> Any:
    body = [nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), Residual(3, 3, 1), Residual(3, 4, 2)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


IMAGE = (1, 6, 6)
MODULES: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "residual": (residual, IMAGE),
    "max pooling": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)),
        IMAGE,
    ),
    "padded, dilated, over the border": (lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True), IMAGE),
    "activations": (
        lambda: Function(
            lambda m, x: (
                F.hardsigmoid(x) + F.hardtanh(x, -0.3, 0.4) + F.relu6(x) + m.slope(x) + x.abs() + x.clamp(max=0.2) - x
            ),
            slope=nn.PReLU(1),
        ),
        (5,),
    ),
    "a slope per channel": (lambda: nn.Sequential(nn.Conv2d(1, 3, 2), nn.PReLU(3), nn.Flatten()), IMAGE),
    "up and down": (
        lambda: Function(
            lambda m, x: m.up(F.interpolate(F.avg_pool2d(m.down(x), 2), scale_factor=2)),
            down=nn.Conv2d(1, 2, 3, padding=1),
            up=nn.ConvTranspose2d(2, 2, 3, stride=2, padding=1, output_padding=1),
        ),
        IMAGE,
    ),
    "entries moved about": (
        lambda: Function(
            lambda m, x: torch.cat([x.flip(1), x[:, ::2], x.roll(1, 1), torch.zeros_like(x[:, :1])], 1).view(1, 4, 4)
        ),
        (6,),
    ),
    "a part set": (lambda: Function(_part_set), (6,)),
    "padding of every kind": (
        lambda: Function(
            lambda m, x: (
                F.pad(F.pad(x, (1, 2, 0, 1), "reflect"), (0, 1), value=2.5) - F.pad(x, (2, 2, 1, 0), "replicate")
            )
        ),
        IMAGE,
    ),
    "reductions": (
        lambda: Function(lambda m, x: torch.stack([x.amax(-1), x.amin(-1), x.mean(-1), x.sum(-1)], -1).flatten(1)),
        IMAGE,
    ),
    "matrices from both sides": (
        lambda: Function(
            lambda m, x: torch.eye(6, dtype=x.dtype)[:3] @ x.transpose(2, 3) @ m.w, w=nn.Parameter(WEIGHT)
        ),
        IMAGE,
    ),
    "a choice by constants": (
        lambda: Function(lambda m, x: torch.where(torch.arange(5) % 2 == 0, x, torch.minimum(x, -x * 3) - 1)),
        (5,),
    ),
    "signals": (
        lambda: Function(lambda m, x: F.max_pool1d(m.c(x), 2).flatten(1), c=nn.Conv1d(2, 3, 3, padding="same")),
        (2, 8),
    ),
    "dropout in between": (lambda: Function(lambda m, x: F.dropout(F.leaky_relu(x), 0.5, m.training)), (5,)),
}
WEIGHT = torch.linspace(-1, 1, 24).reshape(6, 4)


def _part_set(module: Any, x: Any) -> Any:
    y = x * 2
    y[:, 1:3] = F.relu(x[:, 3:5])
    y[:, 0] = 0.5
    return y


@pytest.mark.parametrize("name", MODULES)
def test_forward_agrees_with_torch(name: str) -> None:
    torch.manual_seed(0)
    make, shape = MODULES[name]
    module = make()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.3, 1.3)
    module.train()
    net = Network.from_torch(module, shape, "named")
    assert module.training
    assert (net.name, net.input_shape) == ("named", shape)
    points = np.random.default_rng(1).uniform(-2, 2, (6, *shape))
    with torch.no_grad():
        own = module.eval().double()
        expected = np.stack([own(torch.as_tensor(point[None])).numpy().ravel() for point in points])
    np.testing.assert_allclose(net.forward(points), expected, rtol=0, atol=1e-12 * max(1.0, np.abs(expected).max()))


def test_a_residual_network_keeps_its_convolutions() -> None:
    from toolkit.networks.convolutions import Conv2d

    net = Network.from_torch(residual(), IMAGE)
    assert [[place for place, _ in stage.sources] for stage in net.stages] == [[0], [1], [1, 2], [3], [3, 4], [5]]
    assert sum(isinstance(layer, Conv2d) for layer in net.maps) == 6


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(-1), nn.Sigmoid()])
def test_a_final_operator_that_keeps_the_order_is_left_out_and_that_is_said(last: Any) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(4, 5), nn.LeakyReLU(), nn.Linear(5, 3))
    net = Network.from_torch(nn.Sequential(body, last))
    assert net.metadata["dropped"].startswith("the final ")
    assert net.digest == Network.from_torch(body).digest


def test_every_module_that_cannot_go_is_named_at_once() -> None:
    parts = {"a": nn.Linear(4, 4), "act": nn.Tanh(), "b": nn.Linear(4, 4), "norm": nn.LayerNorm(4)}
    module = Function(lambda m, x: m.b(m.act(m.a(x))) + m.norm(x) + x * x, **parts)
    with pytest.raises(ValueError, match="cannot import a module of class Function: ") as caught:
        Network.from_torch(module)
    for said in ("'act' (Tanh): tanh is not piecewise linear", "'norm' (LayerNorm)", "the product of two values"):
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda m, x: x if x.sum() > 0 else -x, "cannot import a module of class Function for inputs of shape"),
        (lambda m, x: (x, x), "must give one row of outputs per input, got 2 results"),
        (lambda m, x: torch.ones(1, 3), "does not depend on its input"),
        (lambda m, x: x + torch.rand(5), "rand is random"),
        (lambda m, x: x.round(), "round is not continuous"),
        (lambda m, x: x / x, "division by a value that depends on the input"),
        (lambda m, x: x.long() + x, "casting a value that depends on the input"),
        (lambda m, x: F.dropout(x, 0.5, True), "in training mode"),
        (lambda m, x: F.adaptive_avg_pool1d(x[:, None], 2), "windows of different sizes"),
    ],
)
def test_what_is_no_relu_network_is_refused(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Network.from_torch(Function(function), (5,))
    assert "\n" not in str(caught.value)


def test_without_a_shape_the_error_asks_for_it() -> None:
    with pytest.raises(ValueError, match="cannot import a module of class Residual without its input_shape"):
        Network.from_torch(Residual(3, 3, 1))
