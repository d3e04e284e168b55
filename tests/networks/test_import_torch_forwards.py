"""What a torch module's own forward may do: constants of its own precision, maxima in every spelling, fills, casts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from toolkit.networks.network import Network

torch = pytest.importorskip("torch", reason="torch is not installed (extra: torch)")
F = torch.nn.functional
MASK = torch.tensor([[True, False, True, False]])
POINTS = np.random.default_rng(0).uniform(-2, 2, (20, 4)).astype(np.float32)


class Own(torch.nn.Module):  # type: ignore[misc, name-defined]
    """A dense layer, a tensor that is no parameter, and any forward."""

    def __init__(self, forward: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dense, self.plain, self.own = torch.nn.Linear(4, 4), torch.randn(3, 4), forward

    def forward(self, x: Any) -> Any:
        return self.own(self, x)


FORWARDS: dict[str, Callable[[Any, Any], Any]] = {
    "a matrix that is no parameter": lambda m, x: F.linear(F.relu(m.dense(x)), m.plain),
    "a matrix made in forward": lambda m, x: m.dense(x) @ torch.eye(4),
    "a matrix of tenths": lambda m, x: m.dense(x) @ torch.full((4, 2), 0.1),
    "a cast": lambda m, x: m.dense(x.float()),
    "a cast to the type of another": lambda m, x: m.dense(x.type_as(m.plain)).to(m.plain),
    "zeros like it": lambda m, x: (m.dense(x) + torch.ones_like(x)) @ torch.eye(4),
    "max over an axis": lambda m, x: torch.max(m.dense(x), dim=1, keepdim=True).values,
    "min over an axis": lambda m, x: m.dense(x).min(dim=1)[0][:, None],
    "max of all": lambda m, x: m.dense(x).max()[None, None],
    "max of two": lambda m, x: torch.max(m.dense(x), x),
    "min with a constant": lambda m, x: torch.min(m.plain[:1], m.dense(x)),
    "the power 1": lambda m, x: m.dense(x) ** 1,
    "where with a number": lambda m, x: torch.where(MASK, m.dense(x), 5.0),
    "masked_fill": lambda m, x: m.dense(x).masked_fill(MASK, 2.5),
    "fill": lambda m, x: torch.cat([torch.full_like(x, 3.0), m.dense(x).clone().fill_(2.0), x], 1),
    "whole numbers beside features": lambda m, x: torch.cat([m.dense(x), torch.tensor([[7]])], 1),
    "max pooling with places": lambda m, x: F.max_pool2d(m.dense(x).view(1, 1, 2, 2), 2, return_indices=True)[0].view(
        1, 1
    ),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_the_network_is_the_module(name: str) -> None:
    module = Own(FORWARDS[name])
    network = Network.from_torch(module, (4,))
    with torch.no_grad():
        right = np.concatenate([module(torch.as_tensor(point[None])).numpy() for point in POINTS])
    np.testing.assert_allclose(network.forward(POINTS.astype(np.float64)), right, rtol=0, atol=1e-5)


REFUSED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "places of maxima": (lambda m, x: m.dense(x).max(dim=1).indices[:, None].double(), "reads result 1 of max"),
    "a dropout's mask": (lambda m, x: torch.native_dropout(m.dense(x), 0.5, False)[1].double(), "reads result 1 of"),
    "the bits": (lambda m, x: m.dense(x).view(torch.int32).double(), "view reads numbers as ones of another type"),
    "a cast to whole numbers": (lambda m, x: x.to(torch.zeros(1, dtype=torch.int64)).double(), "is not continuous"),
    "a sum of whole numbers": (lambda m, x: x.sum(1, keepdim=True, dtype=torch.int64).double(), "is not continuous"),
    "a square": (lambda m, x: m.dense(x) ** 2, "pow is not piecewise linear"),
    "shapes that do not fit": (lambda m, x: m.dense(x) @ torch.eye(3), "4.*3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_stands_in_the_way_is_named(name: str) -> None:
    forward, match = REFUSED[name]
    with pytest.raises(ValueError, match=match):
        Network.from_torch(Own(forward), (4,))


@pytest.mark.parametrize("last", [torch.nn.Softmax(1), torch.nn.LogSoftmax(1), torch.nn.Sigmoid()])
def test_a_last_operator_alone_leaves_the_identity(last: Any) -> None:
    network = Network.from_torch(last, (4,))
    assert "dropped" in network.metadata
    assert network.forward(np.arange(4.0)).tolist() == [0.0, 1.0, 2.0, 3.0]
