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
from toolkit.networks.stages import Stage, place_sizes

OperatorNorm = tuple[float, float, int]


@dataclass(frozen=True, eq=False)
class NetworkParts:
    """Stages in order: hidden ones with a ReLU, and a last one without.

    metadata: anything JSON can hold. input_shape: of one input, channels first. Raises ValueError for no stage, for
    stages that are linear where they must not be, whose sizes do not fit, or that read a place twice, and for an
    input_shape of another size than the input's.
    """

    stages: tuple[Stage, ...]
    name: str
    metadata: dict[str, Any]
    input_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("a network needs at least one affine map, got none")
        for k, stage in enumerate(self.stages):
            if stage.relu is (k == len(self.stages) - 1):
                raise ValueError(f"every stage but the last has a ReLU, got relu = {stage.relu} at stage {k}")
        sizes = [layer.input_size for stage in self.stages for place, layer in stage.sources if place == 0]
        if not sizes:
            raise ValueError("some stage must read the input, place 0")
        place_sizes(self.stages, sizes[0])
        if math.prod(self.input_shape) != self.input_size:
            raise ValueError(f"input_shape {self.input_shape} does not hold the {self.input_size} inputs")

    @cached_property
    def input_size(self) -> int:
        """Number of inputs n."""
        return next(layer.input_size for stage in self.stages for place, layer in stage.sources if place == 0)

    @property
    def output_size(self) -> int:
        """Number of logits."""
        return self.stages[-1].output_size

    @property
    def relu_sizes(self) -> tuple[int, ...]:
        """Number of neurons of each ReLU layer."""
        return tuple(stage.output_size for stage in self.stages[:-1])

    @cached_property
    def maps(self) -> tuple[AffineMap, ...]:
        """The affine maps of all stages and their sources, in order."""
        return tuple(layer for stage in self.stages for _, layer in stage.sources)

    @property
    def sequential(self) -> bool:
        """Whether every stage reads what the one before it gives, and nothing else."""
        return all(len(stage.sources) == 1 and stage.sources[0][0] == k for k, stage in enumerate(self.stages))

    @property
    def layers(self) -> tuple[AffineMap, ...]:
        """The affine maps of a sequential network. Raises ValueError for any other."""
        if not self.sequential:
            raise ValueError(f"{self.name or 'the network'} is not a chain of maps; its stages are .stages")
        return self.maps

    @property
    def digest(self) -> str:
        """SHA-256 over kinds, shapes, float64 weights and their errors: equal digests compute the same function."""
        return self.prefix_digests[-1]

    def check_weights(self) -> None:
        """Raise ValueError for torch weights, which have other numbers and arithmetic: such networks only train."""
        if "prefix_digests" in self.__dict__:  # made of numpy weights, and layers do not change
            return
        for k, layer in enumerate(self.maps):
            if is_torch_array(layer.bias_vector):
                raise ValueError(
                    f"layer {k} has torch tensors as weights, which serve training only; Network.from_torch(module) "
                    "converts a module, Dense(weight.detach().numpy(), …) a layer"
                )

    @cached_property
    def operator_norms(self) -> tuple[tuple[OperatorNorm, ...], ...]:
        """`operator_norm` of every map, per stage and source."""
        return tuple(tuple(operator_norm(layer) for _, layer in stage.sources) for stage in self.stages)

    @cached_property
    def prefix_digests(self) -> tuple[str, ...]:
        """The digest of `cut(k)` for every stage k, in one pass; sources count where they are not a chain's."""
        self.check_weights()
        state, found, own = hashlib.sha256(), [], 0
        for k, stage in enumerate(self.stages):
            places = [place for place, _ in stage.sources]
            if places != [k]:
                state.update(f"stage{k}.places{places}".encode())
            for _, layer in stage.sources:
                for key, array in layer_arrays(layer, own).items():
                    state.update(f"{key}{array.shape}{array.dtype.str}".encode())
                    state.update(np.ascontiguousarray(array).tobytes())
                own += 1
            found.append(state.copy().hexdigest())
        return tuple(found)


def operator_norm(layer: AffineMap) -> OperatorNorm:
    """‖W‖_{∞→∞} (the largest ℓ1 norm of a row), ‖b‖_∞, as floats, and the most entries in a row."""
    weight = layer.operand()
    norm = float(abs(weight).sum(axis=1).max(initial=0.0)) if weight.shape[0] else 0.0
    return norm, float(np.abs(np.asarray(layer.bias_vector)).max(initial=0.0)), layer.row_entries


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
