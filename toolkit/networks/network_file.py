"""A network's .npz: written in one step; read with every shape and index checked before a map is built from it.

    header                                 JSON: format, name, layers (number of maps), input_shape, metadata, and,
                                           where the network is no chain, places: what each stage's maps read
    layerK.dense.weight, .bias
    layerK.conv2d.weight, .bias, .geometry (shape, stride, padding, dilation, groups)
    layerK.channel.scale, .shift, .shape
    layerK.sparse.data, .indices, .indptr, .shape, .bias   (CSR)
    layerK.error.columns, .bias            optional, both or none: what merging maps into this one may have rounded

Weights are stored in float32 where that is exact. Checked: what archives.py checks; every key known; indices inside the
matrix; sizes that multiply to what can be computed with, and chain.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import AnyArray
from toolkit.data.archives import (
    Archive,
    ArchiveError,
    checked_integer,
    checked_list,
    checked_text,
    open_archive,
    parse_json,
    require_keys,
)
from toolkit.data.atomic import write_atomically
from toolkit.networks.convolutions import Conv2d
from toolkit.networks.correlation import LARGEST_MATRIX
from toolkit.networks.layers import AffineMap, ChannelAffine, Dense, Sparse
from toolkit.networks.parts import NetworkParts, layer_arrays
from toolkit.networks.stages import Stage, sequential

NETWORK_FORMAT = 1
LAYERS = 10_000
FEATURES = 1 << 24  # numbers a layer takes or gives
TAPS = 1 << 33  # multiplications of a pass of a convolution that needs no matrix: seconds
NETWORK_HEADER = ("format", "name", "layers", "input_shape", "metadata")
PLACES = "places"
PARTS = {
    "dense": ("weight", "bias"),
    "conv2d": ("weight", "bias", "geometry"),
    "channel": ("scale", "shift", "shape"),
    "sparse": ("data", "indices", "indptr", "shape", "bias"),
}
ERROR_PARTS = ("columns", "bias")


def read_network_file(path: Path) -> NetworkParts:
    """What a network's .npz holds; a network without a name takes the file's.

    Raises ValueError naming the file, the key and what is wrong.
    """
    try:
        with open_archive(path) as archive:
            return _content(archive, path.stem)
    except (ValueError, OverflowError) as error:  # ArchiveError, and what the maps themselves refuse
        raise ValueError(f"{path} is not a relugap network: {error}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None


def _content(archive: Archive, stem: str) -> NetworkParts:
    header = archive.json("header")
    require_keys("header key", header, NETWORK_HEADER, (*NETWORK_HEADER, PLACES))
    if checked_integer(header, "format") != NETWORK_FORMAT:
        raise ArchiveError(f"its format must be {NETWORK_FORMAT}, got {header['format']}")
    count = checked_integer(header, "layers", 1, LAYERS)
    sizes = checked_list(header, "input_shape", 8)
    if not sizes or not all(type(n) is int and 1 <= n <= FEATURES for n in sizes) or math.prod(sizes) > FEATURES:
        raise ArchiveError(f"input_shape must be sizes ≥ 1 of at most {FEATURES} inputs, got {str(sizes)[:80]}")
    if not isinstance(header["metadata"], dict):
        raise ArchiveError(f"metadata must be a JSON object, got {type(header['metadata']).__name__}")
    known: dict[str, list[str]] = {}  # layer → its kinds
    for place, kind in dict.fromkeys(tuple(key.split(".")[:2]) for key in archive.keys if key.count(".") == 2):
        known.setdefault(place, []).extend([kind] if kind in PARTS else [])
    kinds = [_kind(known.get(f"layer{k}", []), k) for k in range(count)]
    archive.require(["header", *(key for k, kind in enumerate(kinds) for key in _layer_keys(archive, k, kind))])
    layers = tuple(_layer(archive, k, kind) for k, kind in enumerate(kinds))
    stages = _wired(layers, header) if PLACES in header else sequential(layers)
    return NetworkParts(stages, checked_text(header, "name") or stem, header["metadata"], tuple(sizes))


def _wired(layers: Sequence[AffineMap], header: dict[str, Any]) -> tuple[Stage, ...]:
    """The stages whose maps read the named places, in order; NetworkParts looks whether these are there."""
    places = checked_list(header, PLACES, LAYERS)
    allowed = range(len(places))
    if not all(type(own) is list and own and all(type(j) is int and j in allowed for j in own) for own in places):
        raise ArchiveError(f"{PLACES} must list what every stage reads, got {str(places)[:80]}")
    if sum(len(own) for own in places) != len(layers):
        raise ArchiveError(f"{PLACES} must name {len(layers)} sources, one per map, got {sum(map(len, places))}")
    waiting = iter(layers)
    sources = [tuple((place, next(waiting)) for place in own) for own in places]
    return tuple(Stage(own, k < len(sources) - 1) for k, own in enumerate(sources))


def _kind(found: list[str], k: int) -> str:
    if len(found) != 1:
        raise ArchiveError(f"layer {k} must be one of {', '.join(PARTS)}, got {' and '.join(found) or 'none'}")
    return found[0]


def _layer_keys(archive: Archive, k: int, kind: str) -> Iterator[str]:
    yield from (f"layer{k}.{kind}.{part}" for part in PARTS[kind])
    if any(f"layer{k}.error.{part}" in archive for part in ERROR_PARTS):
        yield from (f"layer{k}.error.{part}" for part in ERROR_PARTS)


def _layer(archive: Archive, k: int, kind: str) -> AffineMap:
    layer = _READERS[kind](archive, f"layer{k}.{kind}.")
    if f"layer{k}.error.columns" not in archive:
        return layer
    columns = archive.array(f"layer{k}.error.columns", (layer.input_size,), low=0.0, finite=True)
    bias = archive.array(f"layer{k}.error.bias", (), low=0.0, finite=True)
    return layer.with_error(columns, float(bias))


def _dense(archive: Archive, at: str) -> AffineMap:
    weight = archive.array(f"{at}weight", (None, None), finite=True)
    _features(at, *weight.shape)
    return Dense(weight, archive.array(f"{at}bias", weight.shape[:1], finite=True))


def _conv2d(archive: Archive, at: str) -> AffineMap:
    weight = archive.array(f"{at}weight", (None, None, None, None), finite=True)
    numbers = archive.array(f"{at}geometry", (10,), "i", low=0, high=FEATURES).tolist()
    channels, height, width, *pairs, groups = numbers
    stride, padding, dilation = pairs[:2], pairs[2:4], pairs[4:]
    _positive(f"{at}weight", *weight.shape)
    _positive(f"{at}geometry", channels, height, width, *stride, *dilation, groups)
    _features(at, channels * height * width)
    bias_shape = archive.shape(f"{at}bias")
    _features(at, math.prod(bias_shape))
    layer = Conv2d(weight, archive.array(f"{at}bias", (None,), finite=True), (channels, height, width), stride, padding,
                   dilation, groups)  # fmt: skip
    _features(at, layer.output_size)
    taps, most = layer.correlation.taps, TAPS if layer.operator is not None else LARGEST_MATRIX
    if taps > most:
        raise ArchiveError(f"{at}geometry asks for {taps} multiplications, more than {most}")
    return layer


def _channel(archive: Archive, at: str) -> AffineMap:
    channels, height, width = archive.array(f"{at}shape", (3,), "i", low=1, high=FEATURES).tolist()
    _features(at, channels * height * width)
    scale = archive.array(f"{at}scale", (channels,), finite=True)
    return ChannelAffine(scale, archive.array(f"{at}shift", (channels,), finite=True), (channels, height, width))


def _sparse(archive: Archive, at: str) -> AffineMap:
    rows, columns = archive.array(f"{at}shape", (2,), "i", low=0, high=FEATURES).tolist()
    _features(at, rows, columns)
    data = archive.array(f"{at}data", (None,), finite=True)
    indices = archive.array(f"{at}indices", data.shape, "i", low=0, high=columns - 1)
    indptr = archive.array(f"{at}indptr", (rows + 1,), "i", low=0, high=data.size)
    if indptr[0] != 0 or indptr[-1] != data.size or np.any(np.diff(indptr) < 0):
        raise ArchiveError(f"{at}indptr must rise from 0 to {data.size} entries, got {indptr[0]} … {indptr[-1]}")
    places = np.repeat(np.arange(rows, dtype=np.int64) * columns, np.diff(indptr)) + indices
    if np.unique(places).size != places.size:  # a sum that column norms and rounding errors would not see
        raise ArchiveError(f"{at}indices must not repeat within a row")
    matrix = sp.csr_array((data, indices, indptr), shape=(rows, columns))
    return Sparse(matrix, archive.array(f"{at}bias", (rows,), finite=True))


_READERS = {"dense": _dense, "conv2d": _conv2d, "channel": _channel, "sparse": _sparse}


def _features(at: str, *counts: int) -> None:
    if max(counts) > FEATURES:
        raise ArchiveError(f"{at}* must have at most {FEATURES} features, got {max(counts)}")


def _positive(key: str, *sizes: int) -> None:
    if min(sizes) < 1:
        raise ArchiveError(f"{key} must have sizes ≥ 1, got {min(sizes)}")


def write_network_file(path: Path, parts: NetworkParts) -> None:
    """Write a network's .npz, no pickle, in one step. Raises ValueError for metadata that JSON does not hold."""
    checked_text({"name": parts.name}, "name")  # as the reader asks for it
    arrays: dict[str, AnyArray] = {}
    for k, layer in enumerate(parts.maps):
        arrays.update({key: _shortest(array) for key, array in layer_arrays(layer, k).items()})
    header: dict[str, Any] = {
        "format": NETWORK_FORMAT,
        "name": parts.name,
        "layers": len(parts.maps),
        "input_shape": parts.input_shape,
        "metadata": parts.metadata,
    }
    if not parts.sequential:
        header[PLACES] = [[place for place, _ in stage.sources] for stage in parts.stages]
    try:
        head = json.dumps(header)
        parse_json("metadata", head)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"metadata must be what JSON can hold: {error}") from None
    with write_atomically(path) as file:
        np.savez_compressed(file, header=np.array(head), **arrays)  # type: ignore[arg-type]


def _shortest(array: AnyArray) -> AnyArray:
    """float32 where every entry survives the round trip, else the array itself."""
    if array.dtype != np.float64:
        return array
    with np.errstate(over="ignore"):
        short = array.astype(np.float32)
    return short if np.array_equal(short.astype(np.float64), array) else array
