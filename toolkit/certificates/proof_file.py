"""Reading a proof file for `check.py`: every key known and used, every array of the shape and kind it must have.

header: JSON with PROOF_KEYS and the set's norm. The set: center; of a box set.lower and set.upper; of an ℓ∞ ball with
a radius per coordinate (eps null) also set.eps. The question: label, and the targets; of another property label null,
question.* and its groups' numbers as targets. Per ReLU layer k lowerK, upperK and tightK.*, trees of single sides, of
the network that the question is lowered to; cut.*, with shares where any are not 1; per target t targetT.*, a tree over
phases or one over the box. Format 1 had one leaf without splits per tightened side and no trees over boxes; it is read
as what it means. Nothing here says whether the proof holds; it only makes sure that what `check.py` reads is all there
is.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.arrays import FloatArray
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
from toolkit.networks.weights import dense_array
from toolkit.problems.input_set import InputSet
from toolkit.problems.input_sets import BALLS, Box, L1Ball, L2Ball, LinfBall
from toolkit.problems.properties import Property, robustness
from toolkit.problems.vnnlib_box import RationalBox

PROOF_FORMAT = 2
READ_FORMATS = (1, PROOF_FORMAT)
PROOF_LIMIT = 1 << 30  # bytes of all arrays
PROOF_RATIO = 2000  # leaves without multipliers of their own, NaN throughout, compress as strongly as a bomb
PROOF_KEYS = ("format", "network", "ball", "eps", "domain", "label", "targets", "claims")
NORM_KEY = "norm"  # of the input set; absent in older files, which are about ℓ∞ balls
PROVABLE = (*BALLS, Box.norm)
QUESTION = ("rows", "constants", "groups")
LEAF = ("neurons", "signs", "multipliers")
TIGHT = {1: LEAF, PROOF_FORMAT: (*LEAF, "ends", "phases", "empty")}
CUT = ("neurons", "ends", "columns")
SHARES = "cut.shares"  # of the columns; absent where all are 1
TARGET = ("phases", "multipliers", "empty", "weights", "cuts", "ends")
BOXES = ("axis", "cut")
LARGEST_FLOAT = sys.float_info.max


def read_header(archive: Archive) -> dict[str, Any]:
    """The header, its values of the right types. Raises ArchiveError."""
    header = archive.json("header")
    require_keys("header key", header, PROOF_KEYS, (*PROOF_KEYS, NORM_KEY))
    header.setdefault(NORM_KEY, LinfBall.norm)
    checked_text(header, NORM_KEY, 16)
    if header[NORM_KEY] not in PROVABLE:
        raise ArchiveError(f"norm must be one of {', '.join(PROVABLE)}, got {header[NORM_KEY]!r}")
    checked_integer(header, "format")
    if header["format"] not in READ_FORMATS:
        raise ArchiveError(f"format must be {' or '.join(map(str, READ_FORMATS))}, got {header['format']}")
    checked_text(header, "network", 128)
    checked_text(header, "ball", 128)
    if header["eps"] is not None:
        checked_number(header, "eps", 0.0, LARGEST_FLOAT)
    elif header[NORM_KEY] not in (Box.norm, LinfBall.norm):
        raise ArchiveError(f"eps must be a number for a ball in {header[NORM_KEY]}")
    if header["domain"] is not None:
        ends = [as_number("domain", end) for end in checked_list(header, "domain", 2)]
        if len(ends) != 2 or not ends[0] < ends[1]:
            raise ArchiveError(f"domain must be null or [low, high] with low < high, got {header['domain']}")
    if header["label"] is not None:
        checked_integer(header, "label")
    for target in checked_list(header, "targets", 1 << 20):
        checked_integer({"targets": target}, "targets")
    for claim in checked_list(header, "claims", 1 << 20):
        as_number("claims", claim, -math.inf, LARGEST_FLOAT)
    return header


def provable_set(input_set: InputSet) -> InputSet:
    """The set that a proof of this one is about: the box of floats around a box with rational ends, else itself."""
    return Box(input_set.lower, input_set.upper) if isinstance(input_set, RationalBox) else input_set


def set_parts(input_set: InputSet) -> tuple[dict[str, Any], dict[str, FloatArray]]:
    """What a proof says of its input set: in the header, and as arrays. Raises ValueError for a set of another kind."""
    if isinstance(input_set, LinfBall) and input_set.domain is not None and np.ndim(input_set.domain[0]):
        raise ValueError("a proof is about one domain for all coordinates, got one per coordinate; give (low, high)")
    if isinstance(input_set, Box):
        header: dict[str, Any] = {"eps": None, "domain": None}
        arrays = {"set.lower": input_set.lower, "set.upper": input_set.upper}
    elif isinstance(input_set, LinfBall) and not isinstance(input_set.eps, float):
        header, arrays = (
            {"eps": None, "domain": input_set.domain},
            {"center": input_set.center, "set.eps": input_set.eps},
        )
    elif isinstance(input_set, LinfBall | L1Ball | L2Ball):
        header, arrays = {"eps": input_set.eps, "domain": input_set.domain}, {"center": input_set.center}
    else:
        raise ValueError(f"proofs are about sets in {', '.join(PROVABLE)}, got {type(input_set).__name__}")
    return {"ball": input_set.digest, NORM_KEY: input_set.norm, **header}, arrays


def set_arrays(header: Mapping[str, Any]) -> tuple[str, ...]:
    """The arrays that hold the input set a header speaks of."""
    if header[NORM_KEY] == Box.norm:
        return "set.lower", "set.upper"
    return ("center", "set.eps") if header["eps"] is None else ("center",)


def read_set(header: Mapping[str, Any], content: Mapping[str, Any]) -> InputSet:
    """The input set of a header and its arrays. Raises ValueError for parts that do not make one."""
    norm, domain = header[NORM_KEY], header["domain"]
    if norm == Box.norm:
        return Box(content["set.lower"], content["set.upper"], domain)
    if header["eps"] is None:
        return LinfBall(content["center"], content["set.eps"], domain)
    return BALLS[norm](content["center"], header["eps"], domain)


def question_parts(question: Property) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a proof says of its question: in the header, and as arrays."""
    if question.label is not None:
        return {"label": question.label, "targets": list(question.objective.targets)}, {}
    rows, constants = dense_array(question.objective.rows), question.objective.constants
    shift = np.zeros(len(rows)) if constants is None else constants
    arrays = dict(zip(question_arrays({"label": None}), (rows, shift, question.groups), strict=True))
    return {"label": None, "targets": list(range(question.count))}, arrays


def question_arrays(header: Mapping[str, Any]) -> tuple[str, ...]:
    """The arrays that hold the question a header speaks of."""
    return () if header["label"] is not None else tuple(f"question.{part}" for part in QUESTION)


def read_question(archive: Archive, header: Mapping[str, Any], outputs: int) -> Property:
    """The question of a header and its arrays. Raises ValueError for parts that do not make one."""
    targets = [int(t) for t in header["targets"]]
    if header["label"] is not None:
        return robustness(outputs, int(header["label"]), targets)
    own = question_arrays(header)
    rows = archive.array(own[0], (None, outputs), finite=True)
    constants = archive.array(own[1], rows.shape[:1], finite=True)
    question = Property.of(rows, constants, archive.array(own[2], rows.shape[:1], "i", low=0).tolist())
    if targets != list(range(question.count)):
        raise ArchiveError(f"targets must be the groups 0 … {question.count - 1}, got {str(targets)[:80]}")
    return question


def read_arrays(archive: Archive, inputs: int, relu_sizes: Sequence[int], header: Mapping[str, Any]) -> dict[str, Any]:
    """All arrays by key but the question's, for a network with so many inputs and neurons. Raises ArchiveError."""
    own_set, targets = set_arrays(header), [int(t) for t in header["targets"]]
    layers, parts = range(len(relu_sizes)), TIGHT[header["format"]]
    sides = [f"{side}{k}" for k in layers for side in ("lower", "upper")]
    tight = [f"tight{k}.{part}" for k in layers for part in parts]
    boxes = [t for t in targets if header["format"] > 1 and f"target{t}.{BOXES[0]}" in archive]
    trees = [f"target{t}.{part}" for t in targets for part in (BOXES if t in boxes else TARGET)]
    cuts = [*(f"cut.{part}" for part in CUT), *([SHARES] if header["format"] > 1 and SHARES in archive else [])]
    archive.require(["header", *own_set, *question_arrays(header), *sides, *tight, *cuts, *trees])
    content = {name: archive.array(name, (inputs,), finite=True) for name in own_set}
    for k, size in enumerate(relu_sizes):
        content |= {f"{side}{k}": archive.array(f"{side}{k}", (size,), low=-math.inf) for side in ("lower", "upper")}
        content |= _sides(archive, f"tight{k}", parts, size, sum(relu_sizes[:k]))
    neurons = archive.array("cut.neurons", (None,), "i", low=0)
    content["cut.neurons"] = neurons
    content["cut.ends"] = archive.array("cut.ends", neurons.shape, "i", low=0)
    columns = content["cut.columns"] = archive.array("cut.columns", (None,), "i", low=0)
    shared = SHARES in cuts
    content[SHARES] = archive.array(SHARES, columns.shape, low=0.0, high=1.0) if shared else np.ones(columns.shape)
    for t in targets:
        own = f"target{t}"
        content |= _boxes(archive, own, inputs) if t in boxes else _tree(archive, own, sum(relu_sizes))
    return content


def _sides(archive: Archive, own: str, parts: Sequence[str], neurons: int, earlier: int) -> dict[str, Any]:
    """The trees of a layer of so many neurons, over at most so many unstable ones of earlier layers."""
    sides = archive.array(f"{own}.neurons", (None,), "i", low=0, high=neurons - 1)
    found = {"neurons": sides, "signs": archive.array(f"{own}.signs", sides.shape, "i", low=-1, high=1)}
    if "ends" in parts:
        empty = archive.array(f"{own}.empty", (None,), "b")
        phases = _table(archive, f"{own}.phases", empty.shape, earlier, "i")
        ends = archive.array(f"{own}.ends", sides.shape, "i", low=0, high=empty.size)
        found |= {"empty": empty, "phases": phases, "ends": ends}
        found["multipliers"] = archive.array(f"{own}.multipliers", phases.shape)
    else:
        multipliers = _table(archive, f"{own}.multipliers", sides.shape, earlier)
        found |= {"multipliers": multipliers, "phases": np.full(multipliers.shape, -1, dtype=np.int8)}
        found |= {"empty": np.zeros(sides.size, dtype=np.bool_), "ends": np.arange(1, sides.size + 1)}
    return {f"{own}.{part}": array for part, array in found.items()}


def _boxes(archive: Archive, own: str, inputs: int) -> dict[str, Any]:
    """A tree over the box of so many inputs, as its nodes in preorder."""
    axis = archive.array(f"{own}.axis", (None,), "i", low=-1, high=inputs - 1)
    return {f"{own}.axis": axis, f"{own}.cut": archive.array(f"{own}.cut", axis.shape, finite=True)}


def _tree(archive: Archive, own: str, neurons: int) -> dict[str, Any]:
    """The leaves of a tree over at most so many unstable neurons."""
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
