"""Sequential ReLU networks: x̂⁽ˡ⁾ = W_l y⁽ˡ⁻¹⁾ + b_l, y⁽ˡ⁾ = max(x̂⁽ˡ⁾, 0), logits x̂⁽ᴸ⁾.

A Network is its affine maps in order; a ReLU between neighbours is implied. Reading torch and ONNX models is in
importers.py.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from array_api_compat import array_namespace, is_torch_array
from numpy.typing import NDArray

from toolkit.data.archives import checked_text, parse_json
from toolkit.data.arguments import file_path, instance, mapping, number_array, text, whole_number, whole_numbers
from toolkit.data.atomic import write_atomically
from toolkit.networks.layers import AffineMap, ChannelAffine, Conv2d, Dense, Sparse, merge
from toolkit.networks.network_file import FORMAT_VERSION, read_network_file

_LAYERS_HINT = "torch modules are converted by Network.from_torch, files read by Network.load"


class Flatten:
    """Marks where images become vectors; a no-op, since features are flat everywhere."""


class ReLU:
    """Marks a ReLU in `Network.from_operations`."""


class Network:
    """A ReLU network F given by its affine maps; between consecutive maps stands a ReLU.

    layers: AffineMap objects (Flatten entries are dropped), sizes chained. name: shown in tables.
    metadata: anything JSON can hold (how it was trained, its errors). Raises ValueError for sizes that do not chain.
    """

    def __init__(
        self,
        layers: Sequence[AffineMap | Flatten],
        name: str = "",
        metadata: Mapping[str, Any] | None = None,
        input_shape: Sequence[int] | None = None,
    ) -> None:
        if not isinstance(layers, Sequence):
            instance("layers", layers, list, _LAYERS_HINT)
        self.layers = tuple(layer for layer in layers if isinstance(layer, AffineMap))
        unknown = [type(layer).__name__ for layer in layers if not isinstance(layer, AffineMap | Flatten)]
        if unknown:
            raise ValueError(f"layers must be affine maps or Flatten, got {unknown[0]}; {_LAYERS_HINT}")
        if not self.layers:
            raise ValueError("a network needs at least one affine map, got none")
        for k, (before, after) in enumerate(zip(self.layers, self.layers[1:], strict=False)):
            if before.output_size != after.input_size:
                raise ValueError(
                    f"layer {k} gives {before.output_size} features, layer {k + 1} takes {after.input_size}"
                )
        self.name = text("name", name)
        self.metadata: dict[str, Any] = {} if metadata is None else dict(mapping("metadata", metadata))
        first = self.layers[0]
        natural = first.shape if isinstance(first, Conv2d) else (first.input_size,)
        self.input_shape: tuple[int, ...] = whole_numbers(
            "input_shape", natural if input_shape is None else input_shape
        )
        if math.prod(self.input_shape) != first.input_size:
            raise ValueError(f"input_shape {self.input_shape} does not hold the {first.input_size} inputs")

    @classmethod
    def from_operations(
        cls,
        operations: Sequence[AffineMap | Flatten | ReLU],
        name: str = "",
        metadata: Mapping[str, Any] | None = None,
        input_shape: Sequence[int] | None = None,
    ) -> Network:
        """A network from affine maps and explicit ReLUs; neighbouring affine maps are merged into one.

        A ReLU before the first or after the last affine map, or twice in a row, is bridged by an identity map or
        dropped (ReLU∘ReLU = ReLU); raises ValueError when no affine map is given.
        """
        if not isinstance(operations, Sequence):
            instance("operations", operations, list, _LAYERS_HINT)
        unknown = [type(op).__name__ for op in operations if not isinstance(op, AffineMap | Flatten | ReLU)]
        if unknown:
            raise ValueError(f"operations must be affine maps, Flatten or ReLU, got {unknown[0]}")
        steps = [op for op in operations if not isinstance(op, Flatten)]
        sizes = [op for op in steps if isinstance(op, AffineMap)]
        if not sizes:
            raise ValueError("a network needs at least one affine map, got none")
        layers: list[AffineMap] = []
        open_map: AffineMap | None = None
        width = sizes[0].input_size
        for op in steps:
            if isinstance(op, AffineMap):
                open_map = op if open_map is None else merge(open_map, op)
                width = op.output_size
            elif open_map is not None or not layers:
                layers.append(_identity(width) if open_map is None else open_map)
                open_map = None
        layers.append(_identity(width) if open_map is None else open_map)
        return cls(layers, name, metadata, input_shape)

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

    def __repr__(self) -> str:
        sizes = "-".join(str(size) for size in (self.input_size, *self.relu_sizes, self.output_size))
        return f"Network({self.name or 'unnamed'}, {sizes})"

    def preactivations(self, x: Any) -> list[Any]:
        """x̂⁽¹⁾ … x̂⁽ᴸ⁾: every affine map's output, the logits last. x: (…, n) or (…, *input_shape)."""
        known = is_torch_array(x) or (isinstance(x, np.ndarray) and x.dtype == np.float64)
        values = x if known else number_array("x", x)
        if is_torch_array(values):
            values = self._checked_tensor(values)
        axes = len(self.input_shape)
        if tuple(values.shape[-axes:]) == self.input_shape:
            values = values.reshape(*values.shape[:-axes], self.input_size)
        if tuple(values.shape[-1:]) != (self.input_size,):
            raise ValueError(f"x must end in {self.input_size} or {self.input_shape}, got shape {tuple(values.shape)}")
        outputs = [self.layers[0].forward(values)]
        xp = array_namespace(outputs[0])
        for layer in self.layers[1:]:
            outputs.append(layer.forward(xp.maximum(outputs[-1], xp.zeros_like(outputs[-1]))))
        return outputs

    def _checked_tensor(self, x: Any) -> Any:
        """In float64 for numpy weights. Raise ValueError for a tensor these cannot take, or whose gradient is lost."""
        if is_torch_array(self.layers[0].bias_vector):
            return x
        if x.requires_grad:
            raise ValueError("x must not need gradients, which do not flow through numpy weights; take x.detach()")
        if x.is_complex() or x.is_sparse or x.device.type != "cpu":
            raise ValueError(f"x must be a dense real tensor on the cpu, got {x.layout}, {x.dtype} on {x.device.type}")
        return x.double()

    def forward(self, x: Any) -> Any:
        """The logits F(x). Shapes: (…, n) or (…, *input_shape) → (…, outputs)."""
        return self.preactivations(x)[-1]

    def predict(self, x: Any) -> NDArray[np.int64]:
        """The class with the largest logit, the first of them on ties."""
        return np.asarray(np.argmax(self.forward(x), axis=-1), dtype=np.int64)

    def cut(self, layer: int) -> Network:
        """The network whose output is the input x̂ of ReLU layer `layer` (0-based; −1 cuts nothing off)."""
        count = len(self.layers)
        layer = whole_number("layer", layer)
        if not -1 <= layer < count:
            raise ValueError(f"layer must be in -1 … {count - 1}, got {layer}")
        if layer in (-1, count - 1):
            return self
        part = Network(self.layers[: layer + 1], self.name, input_shape=self.input_shape)
        if "prefix_digests" in self.__dict__:  # hashing is done once for all cuts
            part.__dict__["prefix_digests"] = self.prefix_digests[: layer + 1]
        return part

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
            for key, array in _pack(layer, k).items():
                state.update(f"{key}{array.shape}{array.dtype.str}".encode())
                state.update(np.ascontiguousarray(array).tobytes())
            found.append(state.copy().hexdigest())
        return tuple(found)

    def save(self, path: str | Path) -> Path:
        """Write a .npz (no pickle) in one step: weights float32 where that is exact, else float64, and the metadata."""
        target = file_path("path", path)
        if target.suffix != ".npz":
            raise ValueError(f"networks are saved as .npz, got {target.name!r}")
        self.check_weights()
        checked_text({"name": self.name}, "name")  # as the reader asks for it
        arrays: dict[str, Any] = {}
        for k, layer in enumerate(self.layers):
            arrays.update({key: _shortest(array) for key, array in _pack(layer, k).items()})
        header = {
            "format": FORMAT_VERSION,
            "name": self.name,
            "layers": len(self.layers),
            "input_shape": self.input_shape,
            "metadata": self.metadata,
        }
        try:
            head = json.dumps(header)
            parse_json("metadata", head)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"metadata must be what JSON can hold: {error}") from None
        with write_atomically(target) as file:
            np.savez_compressed(file, header=np.array(head), **arrays)
        return target

    @classmethod
    def load(cls, source: str | Path, architecture: str | None = None) -> Network:
        """Read "zoo:NAME", "published:NAME", a .npz written by `save`, an .onnx model, or a .pth state dict.

        architecture: needed for a .pth state dict and kept in metadata["assumed"], see importers.from_state_dict_file;
        refused for everything else. Raises FileNotFoundError for a missing file, ValueError (naming the file) for one
        that cannot be read.
        """
        if not isinstance(source, str | Path):
            instance("source", source, Path, "a file's path, zoo:NAME or published:NAME")
        text = str(source)
        if architecture is not None and Path(text).suffix not in (".pth", ".pt"):
            raise ValueError(f"only .pth and .pt files take an architecture, got {architecture!r} with {text}")
        if text.startswith("zoo:"):
            return _load_npz(_zoo_path(text.removeprefix("zoo:")))
        if text.startswith("published:"):
            from toolkit.networks.published import load_published

            return load_published(text)
        path = Path(source).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"no network file at {path}; networks shipped are named zoo:NAME ({', '.join(zoo_names())}), "
                "published ones published:NAME (see relugap doctor)"
            )
        if path.suffix == ".npz":
            return _load_npz(path)
        if path.suffix == ".onnx":
            return cls.from_onnx(path)
        if path.suffix in (".pth", ".pt"):
            from toolkit.networks.importers import from_state_dict_file

            return from_state_dict_file(path, architecture)
        raise ValueError(f"network files end in .npz, .onnx, .pth or .pt, got {path.name!r}")

    @classmethod
    def from_torch(cls, module: Any, input_shape: Sequence[int] | None = None, name: str = "") -> Network:
        """A network from a torch.nn.Sequential; see importers.from_torch."""
        from toolkit.networks.importers import from_torch

        return from_torch(module, input_shape, name)

    @classmethod
    def from_onnx(cls, path: str | Path, name: str = "") -> Network:
        """A network from an ONNX file; see importers.from_onnx."""
        from toolkit.networks.importers import from_onnx

        return from_onnx(file_path("path", path), name)


def zoo_names() -> list[str]:
    """Names of the networks shipped with the package."""
    return sorted(item.name.removesuffix(".npz") for item in _zoo().iterdir() if item.name.endswith(".npz"))


def _zoo() -> Path:
    return Path(str(resources.files("toolkit") / "zoo"))


def _zoo_path(name: str) -> Path:
    if name not in zoo_names():
        raise ValueError(f"no zoo network {name!r}; allowed: {', '.join(zoo_names())}")
    return _zoo() / f"{name}.npz"


def _identity(size: int) -> AffineMap:
    return Sparse(sp.eye_array(size, format="csr"), np.zeros(size))


def _shortest(array: NDArray[Any]) -> NDArray[Any]:
    """float32 where every entry survives the round trip, else the array itself."""
    if array.dtype != np.float64:
        return array
    with np.errstate(over="ignore"):
        short = array.astype(np.float32)
    return short if np.array_equal(short.astype(np.float64), array) else array


def _pack(layer: AffineMap, k: int) -> dict[str, NDArray[Any]]:
    """The arrays that define one layer, under keys `layerK.kind.part`, and `layerK.error.part` where it has errors."""
    arrays = _pack_weights(layer, k)
    if layer.column_error is not None or layer.bias_error:
        columns = np.zeros(layer.input_size) if layer.column_error is None else layer.column_error
        arrays |= {f"layer{k}.error.columns": columns, f"layer{k}.error.bias": np.array(layer.bias_error)}
    return arrays


def _pack_weights(layer: AffineMap, k: int) -> dict[str, NDArray[Any]]:
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


def _load_npz(path: Path) -> Network:
    content = read_network_file(path)
    try:
        return Network(content.layers, content.name or path.stem, content.metadata, content.input_shape)
    except ValueError as error:  # sizes that do not chain
        raise ValueError(f"{path} is not a relugap network: {error}") from None
