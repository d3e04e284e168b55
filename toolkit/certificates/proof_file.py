"""Reading a proof file for `check.py`: every key known and used, every array of the shape and kind it must have.

header: JSON with PROOF_KEYS. center; per ReLU layer k lowerK, upperK and tightK.*; cut.*; per target t targetT.*.
Nothing here says whether the proof holds; it only makes sure that what `check.py` reads is all there is.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

from toolkit.data.archives import (
    Archive,
    ArchiveError,
    as_number,
    checked_integer,
    checked_list,
    checked_number,
    checked_text,
    require_keys,
)

PROOF_FORMAT = 1
PROOF_LIMIT = 1 << 30  # bytes of all arrays
PROOF_RATIO = 2000  # leaves without multipliers of their own, NaN throughout, compress as strongly as a bomb
PROOF_KEYS = ("format", "network", "ball", "eps", "domain", "label", "targets", "claims")
TIGHT = ("neurons", "signs", "multipliers")
CUT = ("neurons", "ends", "columns")
TARGET = ("phases", "multipliers", "empty", "weights", "cuts", "ends")
LARGEST_FLOAT = sys.float_info.max


def read_header(archive: Archive) -> dict[str, Any]:
    """The header, its values of the right types. Raises ArchiveError."""
    header = archive.json("header")
    require_keys("header key", header, PROOF_KEYS, PROOF_KEYS)
    checked_integer(header, "format")
    checked_text(header, "network", 128)
    checked_text(header, "ball", 128)
    checked_number(header, "eps", 0.0, LARGEST_FLOAT)
    if header["domain"] is not None:
        ends = [as_number("domain", end, -LARGEST_FLOAT, LARGEST_FLOAT) for end in checked_list(header, "domain", 2)]
        if len(ends) != 2 or not ends[0] < ends[1]:
            raise ArchiveError(f"domain must be null or [low, high] with low < high, got {header['domain']}")
    checked_integer(header, "label")
    for target in checked_list(header, "targets", 1 << 20):
        checked_integer({"targets": target}, "targets")
    for claim in checked_list(header, "claims", 1 << 20):
        as_number("claims", claim, -math.inf, LARGEST_FLOAT)
    return header


def read_arrays(archive: Archive, inputs: int, relu_sizes: Sequence[int], targets: Sequence[int]) -> dict[str, Any]:
    """All arrays by key, for a network with so many inputs and neurons. Raises ArchiveError."""
    layers = range(len(relu_sizes))
    sides = [f"{side}{k}" for k in layers for side in ("lower", "upper")]
    tight = [f"tight{k}.{part}" for k in layers for part in TIGHT]
    trees = [f"target{t}.{part}" for t in targets for part in TARGET]
    archive.require(["header", "center", *sides, *tight, *(f"cut.{part}" for part in CUT), *trees])
    content = {"center": archive.array("center", (inputs,), finite=True)}
    for k, size in enumerate(relu_sizes):
        content |= {f"{side}{k}": archive.array(f"{side}{k}", (size,), low=-math.inf) for side in ("lower", "upper")}
        rows, own = archive.shape(f"tight{k}.neurons")[:1], f"tight{k}"
        content[f"{own}.neurons"] = archive.array(f"{own}.neurons", rows, "i", low=0, high=size - 1)
        content[f"{own}.signs"] = archive.array(f"{own}.signs", rows, "i", low=-1, high=1)
        content[f"{own}.multipliers"] = _table(archive, f"{own}.multipliers", rows, sum(relu_sizes[:k]))
    neurons = archive.array("cut.neurons", (None,), "i", low=0)
    content["cut.neurons"] = neurons
    content["cut.ends"] = archive.array("cut.ends", neurons.shape, "i", low=0)
    content["cut.columns"] = archive.array("cut.columns", (None,), "i", low=0)
    for t in targets:
        content |= _tree(archive, f"target{t}", sum(relu_sizes))
    return content


def _tree(archive: Archive, own: str, neurons: int) -> dict[str, Any]:
    empty = archive.array(f"{own}.empty", (None,), "b")
    cuts = archive.array(f"{own}.cuts", (None,), "i", low=0)
    return {
        f"{own}.empty": empty,
        f"{own}.phases": _table(archive, f"{own}.phases", empty.shape, neurons, "i"),
        f"{own}.multipliers": _table(archive, f"{own}.multipliers", empty.shape, neurons),
        f"{own}.ends": archive.array(f"{own}.ends", empty.shape, "i", low=0),
        f"{own}.cuts": cuts,
        f"{own}.weights": archive.array(f"{own}.weights", cuts.shape, finite=True),
    }


def _table(archive: Archive, key: str, rows: tuple[int, ...], widest: int, kind: str = "f") -> Any:
    """One row per leaf, one column per unstable neuron, of which there are at most `widest`."""
    shape = archive.shape(key)
    if len(shape) == 2 and shape[1] > widest:
        raise ArchiveError(f"{key} must have at most {widest} columns, got {shape[1]}")
    return archive.array(key, (*rows, None), kind)
