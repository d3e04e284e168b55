"""What a network is made of: what files and importers hand over, and a Network is made from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from toolkit.networks.layers import AffineMap


@dataclass(frozen=True, eq=False)
class NetworkParts:
    """Affine maps in order, a ReLU between neighbours.

    metadata: anything JSON can hold. input_shape: of one input, channels first. Raises ValueError for no map, for maps
    whose sizes do not chain, and for an input_shape of another size than the first map's.
    """

    layers: tuple[AffineMap, ...]
    name: str
    metadata: dict[str, Any]
    input_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("a network needs at least one affine map, got none")
        for k, (before, after) in enumerate(zip(self.layers, self.layers[1:], strict=False)):
            if before.output_size != after.input_size:
                raise ValueError(
                    f"layer {k} gives {before.output_size} features, layer {k + 1} takes {after.input_size}"
                )
        if math.prod(self.input_shape) != self.layers[0].input_size:
            raise ValueError(f"input_shape {self.input_shape} does not hold the {self.layers[0].input_size} inputs")
