"""ReLU networks: x̂⁽ᵏ⁾ = b_k + Σ_{j<k} W_kj y⁽ʲ⁾, y⁽ᵏ⁾ = max(x̂⁽ᵏ⁾, 0), y⁽⁰⁾ = x̃, logits the last x̂ (stages.py).

A Network is its stages in order; a sequential one is given by its affine maps, with a ReLU implied between neighbours.
Files are read by sources.py, models of torch and ONNX by importers/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace, is_torch_array

from toolkit.arrays import Array, IndexArray
from toolkit.data.arguments import file_path, instance, mapping, number_array, text, whole_number, whole_numbers
from toolkit.data.summaries import one_line, sizes
from toolkit.networks.convolutions import Conv2d
from toolkit.networks.importers import Layer, read_onnx, read_sklearn, read_torch, read_weight_arrays
from toolkit.networks.layers import AffineMap, Flatten
from toolkit.networks.network_file import write_network_file
from toolkit.networks.parts import NetworkParts
from toolkit.networks.sources import read_source
from toolkit.networks.stages import Stage, sequential

if TYPE_CHECKING:
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from torch import Tensor
    from torch.nn import Module

_LAYERS_HINT = "torch modules are converted by Network.from_torch, files read by Network.load"


class Network(NetworkParts):
    """A ReLU network F given by its affine maps, between which stand ReLUs, or by its stages.

    layers: AffineMap objects (Flatten entries are dropped), sizes chained; or Stage objects, the last one linear. name:
    shown in tables. metadata: anything JSON can hold (how it was trained, its errors). Raises ValueError for sizes that
    do not fit.
    """

    def __init__(
        self,
        layers: Sequence[AffineMap | Flatten] | Sequence[Stage],
        name: str = "",
        metadata: Mapping[str, Any] | None = None,
        input_shape: Sequence[int] | None = None,
    ) -> None:
        if not isinstance(layers, Sequence):
            instance("layers", layers, list, _LAYERS_HINT)
        stages = tuple(layer for layer in layers if isinstance(layer, Stage))
        if len(stages) < len(layers) or not stages:
            stages = sequential(_affine_maps(layers))
        if input_shape is None and stages:
            first = stages[0].sources[0][1]
            input_shape = first.shape if isinstance(first, Conv2d) else (first.input_size,)
        super().__init__(
            stages,
            text("name", name),
            {} if metadata is None else dict(mapping("metadata", metadata)),
            whole_numbers("input_shape", () if input_shape is None else input_shape),
        )

    @classmethod
    def _made_of(cls, parts: NetworkParts) -> Network:
        return cls(parts.stages, parts.name, parts.metadata, parts.input_shape)

    def __repr__(self) -> str:
        layers = "-".join(str(size) for size in (self.input_size, *self.relu_sizes, self.output_size))
        images = f"input {sizes(self.input_shape)}" if len(self.input_shape) > 1 else ""
        return one_line("Network", [self.name or "unnamed", layers, images])

    def preactivations(self, x: Array) -> list[Array]:
        """x̂⁽¹⁾ … x̂⁽ᴸ⁾: every stage's output before its ReLU, the logits last. x: (…, n) or (…, *input_shape)."""
        known = is_torch_array(x) or (type(x) is np.ndarray and x.dtype == np.float64)
        values: Array = x if known else number_array("x", x)
        if is_torch_array(values):
            values = _checked_tensor(values, self.maps[0])
        axes = len(self.input_shape)
        if tuple(values.shape[-axes:]) == self.input_shape:
            values = values.reshape(*values.shape[:-axes], self.input_size)
        if tuple(values.shape[-1:]) != (self.input_size,):
            raise ValueError(f"x must end in {self.input_size} or {self.input_shape}, got shape {tuple(values.shape)}")
        places, found = [values], []
        xp = array_namespace(values)
        for stage in self.stages:
            found.append(stage.forward(places))
            if stage.relu:
                places.append(xp.maximum(found[-1], xp.zeros_like(found[-1])))
        return found

    def forward(self, x: Array) -> Array:
        """The logits F(x). Shapes: (…, n) or (…, *input_shape) → (…, outputs)."""
        return self.preactivations(x)[-1]

    def predict(self, x: Array) -> IndexArray:
        """The class with the largest logit, the first of them on ties."""
        return np.asarray(np.argmax(self.forward(x), axis=-1), dtype=np.int64)

    def cut(self, layer: int) -> Network:
        """The network whose output is the input x̂ of ReLU layer `layer` (0-based; −1 cuts nothing off)."""
        count = len(self.stages)
        layer = whole_number("layer", layer)
        if not -1 <= layer < count:
            raise ValueError(f"layer must be in -1 … {count - 1}, got {layer}")
        if layer in (-1, count - 1):
            return self
        stages = (*self.stages[:layer], self.stages[layer].linear())
        part = Network(stages, self.name, input_shape=self.input_shape)
        if "prefix_digests" in self.__dict__:  # hashing is done once for all cuts
            part.__dict__["prefix_digests"] = self.prefix_digests[: layer + 1]
        return part

    def save(self, path: str | Path) -> Path:
        """Write a .npz (no pickle) in one step: weights float32 where that is exact, else float64, and the metadata."""
        target = file_path("path", path)
        if target.suffix != ".npz":
            raise ValueError(f"networks are saved as .npz, got {target.name!r}")
        self.check_weights()
        write_network_file(target, self)
        return target

    @classmethod
    def load(cls, source: str | Path, architecture: str | None = None) -> Network:
        """Read "zoo:NAME", "published:NAME", a .npz written by `save`, an .onnx(.gz) model, or a .pth state dict.

        architecture: needed for a .pth state dict and kept in metadata["assumed"], see state_dicts.py; refused for
        everything else. Raises FileNotFoundError for a missing file, ValueError (naming the file) for one that cannot
        be read.
        """
        return cls._made_of(read_source(source, architecture))

    @classmethod
    def from_torch(cls, module: Module, input_shape: Sequence[int] | None = None, name: str = "") -> Network:
        """A network from any piecewise-linear torch module; see torch_modules.py."""
        return cls._made_of(read_torch(module, input_shape, name))

    @classmethod
    def from_onnx(cls, path: str | Path, name: str = "") -> Network:
        """A network from an ONNX file; see onnx_graphs.py."""
        return cls._made_of(read_onnx(file_path("path", path), name))

    @classmethod
    def from_arrays(cls, layers: Sequence[Layer], orientation: str, name: str = "") -> Network:
        """A network from pairs (W, b) of dense layers, W "out_in" or "in_out"; see arrays.py."""
        return cls._made_of(read_weight_arrays(layers, orientation, name))

    @classmethod
    def from_sklearn(cls, model: MLPClassifier | MLPRegressor, name: str = "") -> Network:
        """A network from a fitted scikit-learn MLPClassifier or MLPRegressor; see sklearn_models.py."""
        return cls._made_of(read_sklearn(model, name))


def _affine_maps(layers: Sequence[AffineMap | Flatten | Stage]) -> list[AffineMap]:
    unknown = [type(layer).__name__ for layer in layers if not isinstance(layer, AffineMap | Flatten)]
    if unknown:
        raise ValueError(f"layers must be affine maps or Flatten, got {unknown[0]}; {_LAYERS_HINT}")
    return [layer for layer in layers if isinstance(layer, AffineMap)]


def _checked_tensor(x: Tensor, first: AffineMap) -> Tensor:
    """In float64 for numpy weights. Raise ValueError for a tensor these cannot take, or whose gradient is lost."""
    if is_torch_array(first.bias_vector):
        return x
    if x.requires_grad:
        raise ValueError("x must not need gradients, which do not flow through numpy weights; take x.detach()")
    if x.is_complex() or x.is_sparse or x.device.type != "cpu":
        raise ValueError(f"x must be a dense real tensor on the cpu, got {x.layout}, {x.dtype} on {x.device.type}")
    return x.double()
