"""What a network is made of, as files and importers hand it over, and the digest of it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from array_api_compat import is_torch_array

from toolkit.arrays import AnyArray
from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import AffineMap, ChannelAffine, Dense


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

    @property
    def input_size(self) -> int:
        """Number of inputs n."""
        return self.layers[0].input_size

    @property
    def output_size(self) -> int:
        """Number of logits."""
        return self.layers[-1].output_size

    @property
    def relu_sizes(self) -> tuple[int, ...]:
        """Number of neurons of each ReLU layer."""
        return tuple(layer.output_size for layer in self.layers[:-1])

    @property
    def digest(self) -> str:
        """SHA-256 over kinds, shapes, float64 weights and their errors: equal digests compute the same function."""
        return self.prefix_digests[-1]

    def check_weights(self) -> None:
        """Raise ValueError for torch weights, which have other numbers and arithmetic: such networks only train."""
        if "prefix_digests" in self.__dict__:  # made of numpy weights, and layers do not change
            return
        for k, layer in enumerate(self.layers):
            if is_torch_array(layer.bias_vector):
                raise ValueError(
                    f"layer {k} has torch tensors as weights, which serve training only; Network.from_torch(module) "
                    "converts a module, Dense(weight.detach().numpy(), …) a layer"
                )

    @cached_property
    def operator_norms(self) -> tuple[tuple[float, float, int], ...]:
        """Per map ‖W‖_{∞→∞} (the largest ℓ1 norm of a row), ‖b‖_∞, as floats, and the most entries in a row."""
        found = []
        for layer in self.layers:
            weight = layer.to_sparse()
            norm = float(abs(weight).sum(axis=1).max(initial=0.0)) if weight.shape[0] else 0.0
            terms = int(np.diff(weight.indptr).max(initial=0))
            found.append((norm, float(np.abs(np.asarray(layer.bias_vector)).max(initial=0.0)), terms))
        return tuple(found)

    @cached_property
    def prefix_digests(self) -> tuple[str, ...]:
        """The digest of `cut(k)` for every map k, in one pass."""
        self.check_weights()
        state = hashlib.sha256()
        found = []
        for k, layer in enumerate(self.layers):
            for key, array in layer_arrays(layer, k).items():
                state.update(f"{key}{array.shape}{array.dtype.str}".encode())
                state.update(np.ascontiguousarray(array).tobytes())
            found.append(state.copy().hexdigest())
        return tuple(found)


def layer_arrays(layer: AffineMap, k: int) -> dict[str, AnyArray]:
    """The arrays that define one layer, under keys `layerK.kind.part`, and `layerK.error.part` where it has errors."""
    arrays = _weight_arrays(layer, k)
    if layer.column_error is not None or layer.bias_error:
        columns = np.zeros(layer.input_size) if layer.column_error is None else layer.column_error
        arrays |= {f"layer{k}.error.columns": columns, f"layer{k}.error.bias": np.array(layer.bias_error)}
    return arrays


def _weight_arrays(layer: AffineMap, k: int) -> dict[str, AnyArray]:
    if isinstance(layer, Dense):
        return {f"layer{k}.dense.weight": layer.weight, f"layer{k}.dense.bias": layer.bias}
    if isinstance(layer, Conv2d):
        numbers = (*layer.shape, *layer.stride, *layer.padding, *layer.dilation, layer.groups)
        return {
            f"layer{k}.conv2d.weight": layer.weight,
            f"layer{k}.conv2d.bias": layer.bias,
            f"layer{k}.conv2d.geometry": np.array(numbers, dtype=np.int64),
        }
    if isinstance(layer, ChannelAffine):
        return {
            f"layer{k}.channel.scale": layer.scale,
            f"layer{k}.channel.shift": layer.shift,
            f"layer{k}.channel.shape": np.array(layer.shape, dtype=np.int64),
        }
    matrix = layer.to_sparse()
    return {
        f"layer{k}.sparse.data": matrix.data,
        f"layer{k}.sparse.indices": matrix.indices.astype(np.int64),
        f"layer{k}.sparse.indptr": matrix.indptr.astype(np.int64),
        f"layer{k}.sparse.shape": np.array(matrix.shape, dtype=np.int64),
        f"layer{k}.sparse.bias": layer.bias_vector,
    }
