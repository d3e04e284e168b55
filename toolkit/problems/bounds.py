"""Bounds l ≤ x̂ ≤ u on every ReLU input, with what they hold on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from toolkit.arrays import BoolArray, FloatArray
from toolkit.data.arguments import instance, names, text, yes_or_no
from toolkit.data.notebook import html_table
from toolkit.data.summaries import one_line, span
from toolkit.networks.network import Network
from toolkit.networks.weights import exact_float64, is_frozen, read_only
from toolkit.problems.input_set import InputSet
from toolkit.problems.other_models import BoundedModels
from toolkit.problems.phases import is_active, is_inactive, is_unstable


def region_digest(network: Network, input_set: InputSet) -> str:
    """What bounds on every ReLU input depend on: the digests of the input set and, per layer, of the maps up to it.

    Parted by dots, so that the bounds of a network's first ReLU layers serve its cuts.
    """
    return ".".join((input_set.digest, *network.prefix_digests[:-1]))


def _frozen(name: str, side: FloatArray) -> FloatArray:
    """The side itself if it is float64 that nobody can write, else a read-only copy."""
    if side.dtype == np.float64 and is_frozen(side):
        return side
    return np.asarray(read_only(exact_float64(name, side)))


def meet(
    low: FloatArray, high: FloatArray, other_low: FloatArray, other_high: FloatArray, certified: bool
) -> tuple[FloatArray, FloatArray]:
    """What two bounds of the same neurons say together; where they cross, the first's own, unless both are certified:
    then one of them has said something false, and ReluBounds will not take what is returned."""
    lower, upper = np.maximum(low, other_low), np.minimum(high, other_high)
    crossed = (lower > upper) & (not certified)
    return np.where(crossed, low, lower), np.where(crossed, high, upper)


@dataclass(frozen=True, eq=False)
class ReluBounds(BoundedModels):
    """Bounds l ≤ x̂ ≤ u on the inputs of every ReLU layer over a ball.

    lower, upper: one flat array per ReLU layer, in the network's order, kept as read-only float64 copies. chain: names
    of the rungs they come from. region: what they hold on, `region_digest(network, ball)`; "" = given by hand.
    certified: whether they hold in real arithmetic, rounding included; never so for bounds given by hand, which are
    believed but certify nothing. seal: the numbers and the region that certified bounds were made with, see `sealed`; a
    copy with others is given by hand. Raises ValueError for shapes that do not match, NaN, l > u, l = +inf or u = −inf.
    A neuron is active if l ≥ 0, inactive if u ≤ 0 (and not active), unstable if l < 0 < u.
    """

    lower: tuple[FloatArray, ...]
    upper: tuple[FloatArray, ...]
    chain: tuple[str, ...] = ()
    certified: bool = False
    region: str = ""
    seal: tuple[Any, ...] = field(default=(), repr=False)

    @classmethod
    def sealed(
        cls,
        lower: Sequence[FloatArray],
        upper: Sequence[FloatArray],
        chain: Sequence[str],
        certified: bool,
        region: str,
    ) -> ReluBounds:
        """The bounds that the chain gave on this region; `certified` is the caller's word for exactly these numbers."""
        low, high = (tuple(_frozen(f"layer {k}", one) for k, one in enumerate(side)) for side in (lower, upper))
        return cls(low, high, tuple(chain), certified, region, (region, *zip(low, high, strict=True)))

    def intersected(self, other: ReluBounds) -> ReluBounds:
        """What both say together, on one region; certified if both are.

        Where l > u then, which of uncertified ones holds within a solver's tolerance only, these bounds' own; raises
        ValueError where both are certified.
        """
        both = self.certified and other.certified and self.region == other.region
        sides = zip(self.lower, self.upper, other.lower, other.upper, strict=True)
        lower, upper = zip(*(meet(*four, both) for four in sides), strict=True) if len(self) else ((), ())
        return ReluBounds.sealed(lower, upper, self.chain, both, self.region)

    def __post_init__(self) -> None:
        for name, side in (("lower", self.lower), ("upper", self.upper)):
            for low in instance(name, side, tuple, "one array per ReLU layer"):
                instance(f"every entry of {name}", low, np.ndarray)
        if len(self.lower) != len(self.upper):
            raise ValueError(f"lower has {len(self.lower)} layers, upper has {len(self.upper)}")
        for name in ("lower", "upper"):
            sides = (_frozen(f"layer {k}: {name}", side) for k, side in enumerate(getattr(self, name)))
            object.__setattr__(self, name, tuple(sides))
        names("chain", self.chain), text("region", self.region)
        certified = yes_or_no("certified", self.certified)
        object.__setattr__(self, "certified", certified and bool(self.region) and self._is_sealed())
        for layer, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
            if low.shape != high.shape or low.ndim != 1:
                raise ValueError(f"layer {layer}: lower has shape {low.shape}, upper {high.shape}; both must be (n,)")
            wrong = np.flatnonzero(~((low <= high) & (low < np.inf) & (high > -np.inf)))
            if wrong.size:
                i = int(wrong[0])
                raise ValueError(f"layer {layer}, neuron {i}: lower must be ≤ upper, got {low[i]} and {high[i]}")

    def _is_sealed(self) -> bool:
        """Whether these are the very arrays, of the first layers or all, and the region that `sealed` was told of."""
        if not isinstance(self.seal, tuple) or len(self.seal) <= len(self.lower) or self.seal[0] != self.region:
            return False
        made = zip(self.lower, self.upper, self.seal[1:], strict=False)
        return all(low is sides[0] and high is sides[1] for low, high, sides in made)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickled bounds are read-only as well."""
        self.__dict__.update(state)
        for side in (*self.lower, *self.upper):
            read_only(side)

    def _repr_html_(self) -> str:
        layers = zip(self.lower, self.upper, self.counts(), strict=True)
        rows = [(k, low.size, *counts, span(low), span(high)) for k, (low, high, counts) in enumerate(layers)]
        heads = ("ReLU layer", "neurons", "unstable", "active", "inactive", "l", "u")
        by = f"l,u by {'+'.join(self.chain)}" if self.chain else "l,u by hand"
        return html_table(heads, rows, f"{by}, {'certified' if self.certified else 'not certified'}")

    def check_region(self, network: Network, input_set: InputSet) -> None:
        """Raise ValueError if the bounds are known to hold on another input set or for other weights."""
        if not self.region:
            return
        own, *maps = self.region.split(".")
        if own != input_set.digest:
            raise ValueError(f"relu_bounds belong to another ball than this one of {input_set.title}")
        for k, (known, digest) in enumerate(zip(maps, network.prefix_digests[:-1], strict=False)):
            if known != digest:
                raise ValueError(f"relu_bounds belong to another network: map {k} differs from {network.name!r}")
        if len(maps) < len(self.lower):
            raise ValueError(f"relu_bounds name the maps of {len(maps)} ReLU layers only, got {len(self.lower)}")

    def __len__(self) -> int:
        return len(self.lower)

    def __repr__(self) -> str:
        layers = "-".join(str(low.size) for low in self.lower) or "no"
        unstable = sum(count[0] for count in self.counts())
        parts = [f"{layers} neurons", f"{unstable} unstable", f"l,u {span(*self.lower, *self.upper)}"]
        chain = f"by {'+'.join(self.chain)}" if self.chain else "by hand"
        return one_line("ReluBounds", [*parts, chain, "certified" if self.certified else "not certified"])

    def unstable(self, layer: int) -> BoolArray:
        """Mask of neurons with l < 0 < u."""
        return np.asarray(is_unstable(self.lower[layer], self.upper[layer]))

    def active(self, layer: int) -> BoolArray:
        """Mask of neurons with l ≥ 0: the ReLU is the identity there."""
        return np.asarray(is_active(self.lower[layer]))

    def inactive(self, layer: int) -> BoolArray:
        """Mask of neurons with u ≤ 0 and not active: the ReLU is zero there."""
        return np.asarray(is_inactive(self.lower[layer], self.upper[layer]))

    def counts(self) -> list[tuple[int, int, int]]:
        """(unstable, active, inactive) per ReLU layer."""
        return [
            (int(self.unstable(k).sum()), int(self.active(k).sum()), int(self.inactive(k).sum()))
            for k in range(len(self))
        ]
