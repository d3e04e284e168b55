"""The region: a network over an input set with l,u, and everything that follows from these three alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.data.arguments import instance
from toolkit.networks.network import Network
from toolkit.networks.weights import read_only
from toolkit.problems.bounds import ReluBounds, region_digest
from toolkit.problems.input_set import InputSet, check_is_input_set

Derived = TypeVar("Derived")
Sides = tuple[FloatArray, FloatArray]


@dataclass(frozen=True, eq=False)
class Region:
    """F on P with l ≤ x̂ ≤ u there: what every relaxation, certificate and search is made for.

    shorter: the region of this network cut before its last ReLU layer, on the same l,u: what was derived there may
    serve here (`extends` looks whether it is that). Raises ValueError for parts that do not fit, and for relu_bounds
    that are known to hold somewhere else.
    """

    network: Network
    input_set: InputSet
    relu_bounds: ReluBounds
    shorter: Region | None = field(default=None, repr=False)
    _derived: dict[Callable[[Region], Any], Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        instance("network", self.network, Network), check_is_input_set("ball", self.input_set)
        instance("relu_bounds", self.relu_bounds, ReluBounds)
        check_input_set(self.network, self.input_set)
        sizes = self.network.relu_sizes
        given = tuple(low.size for low in self.relu_bounds.lower)
        if given != sizes:
            raise ValueError(f"relu_bounds must have layer sizes {sizes}, got {given}")
        self.relu_bounds.check_region(self.network, self.input_set)

    @classmethod
    def unbounded(cls, network: Network, input_set: InputSet) -> Region:
        """The region before anything is known of the ReLU inputs: l = −∞, u = ∞."""
        free = tuple(np.full(size, np.inf) for size in network.relu_sizes)
        return cls(network, input_set, ReluBounds(tuple(-side for side in free), free))

    def extends(self, shorter: Region) -> bool:
        """Whether these are the very maps, l,u and input set of a region of one ReLU layer less, and one more."""
        stages = zip(self.network.stages[:-1], shorter.network.stages, strict=False)
        own, other = self.relu_bounds, shorter.relu_bounds
        sides = zip((*own.lower[:-1], *own.upper[:-1]), (*other.lower, *other.upper), strict=False)
        return (
            len(own) == len(other) + 1
            and len(shorter.network.stages) == len(own)
            and self.input_set is shorter.input_set
            and all(one.sources == two.sources for one, two in stages)
            and all(one is two for one, two in sides)
        )

    def with_bounds(self, relu_bounds: ReluBounds, shorter: Region | None = None) -> Region:
        """The same question with other l,u; of what was derived only F at the centre, which knows no l,u, is kept."""
        found = Region(self.network, self.input_set, relu_bounds, shorter)
        if centre_outputs in self._derived:
            found._derived[centre_outputs] = self._derived[centre_outputs]
        return found

    def derive(self, make: Callable[[Region], Derived]) -> Derived:
        """make(region), computed once; `make` is a module-level function of the region and of nothing else."""
        if make not in self._derived:
            self._derived[make] = make(self)
        return cast(Derived, self._derived[make])


def bounds_by_layer(
    network: Network,
    input_set: InputSet,
    known: Sequence[Sides],
    chain: Sequence[str],
    certified: bool,
    bound_layer: Callable[[Region, int], Sides],
) -> tuple[ReluBounds, Region | None]:
    """l,u of all ReLU layers, and the region of the last cut, which may serve the whole network's as its `shorter`.

    known: of the first layers, taken as they are. bound_layer: of layer k, as outputs of the network cut there, on the
    l,u of the layers before. chain, certified: of the result.
    """
    sides = list(known)
    region: Region | None = None
    whole = region_digest(network, input_set)  # hashes the weights once for all cuts

    def sealed(digest: str) -> ReluBounds:
        return ReluBounds.sealed([low for low, _ in sides], [high for _, high in sides], chain, certified, digest)

    for k in range(len(sides), len(network.relu_sizes)):
        cut = network.cut(k)
        region = Region(cut, input_set, sealed(region_digest(cut, input_set)), region)
        low, high = bound_layer(region, k)
        sides.append((read_only(low), read_only(high)))
    return sealed(whole), region


def centre_outputs(region: Region) -> FloatArray:
    """F at the centre in float64, shape (outputs,); infinite or NaN where that overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(region.network.forward(region.input_set.center), dtype=np.float64)


def check_input_set(network: Network, input_set: InputSet) -> None:
    """Raise ValueError unless the centre is an input of the network: flat, or of its shape behind leading 1s.

    Sizes alone do not tell H×W×C from C×H×W; a network whose inputs are plain features takes a centre of any shape.
    """
    network.check_weights()
    if input_set.size != network.input_size:
        raise ValueError(f"the ball has {input_set.size} coordinates, the network takes {network.input_size} inputs")
    wanted, shape = network.input_shape, input_set.shape
    extra = len(shape) - len(wanted)
    leading = extra >= 0 and shape[:extra] == (1,) * extra and shape[extra:] == wanted
    if not (len(wanted) == 1 or shape == (input_set.size,) or leading):
        raise ValueError(
            f"the ball's centre has shape {shape}, the network takes {wanted} (channels first) or {input_set.size} "
            "numbers"
        )
