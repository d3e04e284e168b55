"""What training minimises: one function per loss, of the network, a batch and the region around each image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from toolkit.network import Network


@dataclass(frozen=True)
class Region:
    """The ball around every image of a batch: radius eps in pixel units, cut by the domain unless None."""

    eps: float
    domain: tuple[float, float] | None = None
    generator: torch.Generator | None = None


Loss = Callable[[Network, Tensor, Tensor, Region], Tensor]


def standard(network: Network, x: Tensor, y: Tensor, region: Region) -> Tensor:
    """Cross-entropy at the image itself; the region is not used. Shapes: x (B, n), y (B,) → (B,)."""
    return cross_entropy(network.forward(x), y, reduction="none")


LOSSES: dict[str, Loss] = {"standard": standard}
