"""What proves the leaves of a search tree: multipliers and cuts, and the certified bound of all leaves together.

A leaf is a part of the region (some ReLUs split active or inactive) with the multipliers of an LP that was solved there
or in a part that contains it; multipliers prove what they prove in any part. The certified bound of a tree is the least
over its leaves of the bound in dual_bound.py, with the leaf's splits; an empty leaf is proven by the bound of 0·F.
The trees of many rows are arrays: `Forest`; their cuts are shared by many leaves (`SharedCuts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import AnyArray, BoolArray, FloatArray, IndexArray, PhaseArray
from toolkit.certificates.dual_bound import CHORD, Cuts, Forms, certified_bounds, derive_cuts, linear_forms
from toolkit.certificates.rounding import ErrorModel
from toolkit.networks.weights import dense_array

BATCH = 256
FOREST_BATCH = 1024  # leaves of a forest at once, and fewer where the widest place would make more than …
FOREST_ENTRIES = 1 << 20  # … so many numbers of them: an array of 8 MB, a dozen of which live at a time


@dataclass(frozen=True, eq=False)
class Evidence:
    """λ of the unstable neurons, and ids and weights of cuts; empty: they prove a part empty, not a bound."""

    multipliers: FloatArray
    cuts: IndexArray
    weights: FloatArray
    empty: bool = False


@dataclass
class CutStore:
    """Every cut ever made in a region, by id: its neuron and the columns (x, then y) of its subset I, or of those with
    a share in it, and these."""

    neurons: list[int] = field(default_factory=list)
    subsets: list[IndexArray] = field(default_factory=list)
    shares: dict[int, FloatArray] = field(default_factory=dict)
    _shared: dict[int, tuple[SharedCuts, int]] = field(default_factory=dict)

    def add(self, rows: Any, variables: int, inputs: int) -> IndexArray:
        """Ids for cuts given as template rows; variables: number of x and y columns. The last y is the cut's own."""
        first = len(self.neurons)
        for r in range(rows.shape[0]):
            columns = rows.indices[rows.indptr[r] : rows.indptr[r + 1]]
            columns = np.sort(columns[columns < variables]).astype(np.int64)
            self.neurons.append(int(columns[-1]) - inputs)
            self.subsets.append(columns[:-1])
        return np.arange(first, len(self.neurons), dtype=np.int64)

    def share(self, cuts: SharedCuts) -> int:
        """The id of the first of these cuts, the others' following; added where they are not in the store."""
        if id(cuts) not in self._shared:
            self._shared[id(cuts)] = cuts, len(self.neurons)
            for neuron, shares in zip(cuts.neurons.tolist(), cuts.shares, strict=True):
                columns = np.flatnonzero(shares > 0)
                self.shares[len(self.neurons)] = shares[columns]
                self.neurons.append(neuron)
                self.subsets.append(columns)
        return self._shared[id(cuts)][1]

    def derive(self, model: ErrorModel, ids: IndexArray) -> Cuts:
        """The named cuts, derived again from the network."""
        whole = not any(i in self.shares for i in ids.tolist())
        members: AnyArray = np.zeros((ids.size, model.input_set.size + model.count), dtype=np.bool_ if whole else float)
        for r, i in enumerate(ids.tolist()):
            members[r, self.subsets[i]] = self.shares.get(i, True)
        return derive_cuts(model, np.array([self.neurons[i] for i in ids.tolist()], dtype=np.int64), members)


class Leaves:
    """The leaves of one objective row's tree; `certified` is the least certified bound over those added so far.

    keep: hold every leaf for a proof; otherwise they are evaluated in batches and let go.
    """

    def __init__(self, model: ErrorModel, row: Any, store: CutStore, keep: bool = False) -> None:
        dense = row.toarray() if sp.issparse(row) else row
        self.model, self.row, self.store, self.keep = model, np.ravel(dense), store, keep
        self.kept: list[tuple[PhaseArray, Evidence | None]] = []
        self._waiting: list[tuple[PhaseArray, Evidence | None]] = []
        self._least = np.inf

    def add(self, phases: PhaseArray, evidence: Evidence | None) -> None:
        """A leaf is done with; evidence None: nothing is known but the dual rung's multipliers."""
        self._waiting.append((phases, evidence))
        if self.keep:
            self.kept.append((phases, evidence))
        if len(self._waiting) >= BATCH:
            self._evaluate()

    @property
    def certified(self) -> float:
        """A lower bound, in real arithmetic, of the row over all leaves; −inf without any, and if all are proven empty:
        no region is, so l,u must be false."""
        self._evaluate()
        return self._least if self._least < np.inf else -np.inf

    def _evaluate(self) -> None:
        if self._waiting:
            found = leaf_bounds(self.model, self.row, self.store, self._waiting)
            self._least = min(self._least, float(found.min()))
            self._waiting = []


def leaf_bounds(
    model: ErrorModel, row: FloatArray, store: CutStore, leaves: list[tuple[PhaseArray, Evidence | None]]
) -> FloatArray:
    """Certified bound of every leaf, shape (leaves,); +inf for those proven empty."""
    count = len(leaves)
    multipliers = np.full((count, model.count), CHORD)
    phases = np.full((count, model.count), -1, dtype=np.int8)
    empty = np.zeros(count, dtype=np.bool_)
    entries: list[tuple[int, IndexArray, FloatArray]] = []
    for i, (own, evidence) in enumerate(leaves):
        phases[i] = own
        if evidence is not None:
            multipliers[i], empty[i] = evidence.multipliers, evidence.empty
            entries.append((i, evidence.cuts, evidence.weights))
    ids = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *(cuts for _, cuts, _ in entries)]))
    cuts = store.derive(model, ids) if ids.size else None
    weights = sp.lil_array((count, max(1, ids.size)))
    for i, own_cuts, own_weights in entries:
        if own_cuts.size:
            weights[[i], np.searchsorted(ids, own_cuts)] = own_weights
    rows = np.where(empty[:, None], 0.0, row[None])
    found = certified_bounds(model, rows, multipliers, phases, cuts, weights.tocsr())
    return np.where(empty, np.where(found > 0, np.inf, -np.inf), found)


class SharedCuts:
    """Cuts that many leaves weigh. neurons: (C,) unstable ones; shares: θ of their inputs, (C, inputs), see
    `derive_cuts`; alike: others of the same neurons, whose linear forms serve these too. Raises ValueError for parts
    that do not fit each other."""

    def __init__(self, neurons: IndexArray, shares: FloatArray, alike: SharedCuts | None = None) -> None:
        if neurons.ndim != 1 or neurons.dtype.kind != "i" or shares.ndim != 2 or shares.shape[:1] != neurons.shape:
            raise ValueError(f"shares must be one row per neuron, got shapes {neurons.shape} and {shares.shape}")
        self.neurons, self.shares = neurons, shares
        self._derived: tuple[ErrorModel, Cuts] | None = None
        same = alike is not None and np.array_equal(alike.neurons, neurons)
        self._forms: list[tuple[ErrorModel, Forms]] = alike._forms if alike is not None and same else []

    def derive(self, model: ErrorModel) -> Cuts:
        """The cuts, derived from the network; memoised. Raises ValueError for those of another region."""
        if self._derived is None or self._derived[0] is not model:
            inputs, own = model.input_set.size, self.neurons
            if self.shares.shape[1] != inputs or (own.size and not 0 <= own.min() <= own.max() < model.count):
                raise ValueError(f"cuts must be of {model.count} neurons over {inputs} inputs")
            members = np.zeros((own.size, inputs + model.count))
            members[:, :inputs] = self.shares
            if not self._forms or self._forms[0][0] is not model:
                self._forms[:] = [(model, linear_forms(model, own))]
            self._derived = model, derive_cuts(model, own, members, self._forms[0][1])
        return self._derived[1]

    def forget(self) -> None:
        """Drop what is memoised: some ten times as much memory as the shares."""
        self._derived = None


@dataclass(frozen=True, eq=False)
class Forest:
    """The leaves of many rows' trees in one region, in any order.

    tree: (L,) which row, from 0 on, each leaf belongs to. phases: (L, N) int8 over the region's unstable neurons, −1
    free, 0 split inactive, 1 split active. multipliers: (L, N) λ, float32 or float64, NaN = CHORD. empty: (L,) whether
    the multipliers prove the leaf empty instead of a bound. family: (L,) which of `cuts` a leaf weighs, −1 none, and
    weights: (L, C) their μ, in the first of C columns; None: no leaf has cuts. Raises ValueError for parts that do not
    fit each other.
    """

    tree: IndexArray
    phases: PhaseArray
    multipliers: FloatArray
    empty: BoolArray
    weights: AnyArray | None = None
    family: IndexArray | None = None
    cuts: tuple[SharedCuts, ...] = ()

    def __post_init__(self) -> None:
        if (self.weights is None) != (self.family is None):
            raise ValueError("weights and family must both be given, or none of them")
        count, kinds = self.tree.shape, {"tree": "iu", "phases": "i", "multipliers": "f", "empty": "b"}
        for name, kind in (kinds if self.weights is None else kinds | {"weights": "f", "family": "i"}).items():
            array = getattr(self, name)
            if array.dtype.kind not in kind or array.shape[:1] != count or array.ndim != 1 + (name in TABLES):
                raise ValueError(f"{name} must fit {count} leaves, got shape {array.shape} and dtype {array.dtype}")
        if self.phases.shape != self.multipliers.shape:
            raise ValueError(f"phases have shape {self.phases.shape}, multipliers {self.multipliers.shape}")
        if self.phases.size and not (self.phases.min() >= -1 and self.phases.max() <= 1):
            raise ValueError(f"phases must be −1, 0 or 1, got {self.phases.min()} … {self.phases.max()}")
        if self.weights is not None and self.family is not None:
            widest = max((cuts.neurons.size for cuts in self.cuts), default=0)
            if widest > self.weights.shape[1] or np.any((self.family < -1) | (self.family >= len(self.cuts))):
                raise ValueError(f"leaves must name one of {len(self.cuts)} families and weigh all its cuts")

    @classmethod
    def none(cls, neurons: int) -> Forest:
        """No leaf at all, in a region with so many unstable neurons."""
        table = np.zeros((0, neurons))
        return cls(np.zeros(0, dtype=np.int64), table.astype(np.int8), table, np.zeros(0, dtype=np.bool_))

    @classmethod
    def joined(cls, forests: Sequence[Forest]) -> Forest:
        """The leaves of several forests of one region and one numbering of trees and cuts, one after the other."""
        parts = ([getattr(one, name) for one in forests] for name in ("tree", "phases", "multipliers", "empty"))
        widest = max((one.weights.shape[1] for one in forests if one.weights is not None), default=0)
        whole = [np.concatenate(part) for part in parts]
        if not widest:
            return cls(whole[0], whole[1], whole[2], whole[3])
        cuts = list({id(own): own for one in forests for own in one.weighed()}.values())
        place = {id(own): at for at, own in enumerate(cuts)}
        weights, family = [], []
        for one in forests:
            names = np.array([*(place.get(id(own), -1) for own in one.cuts), -1], dtype=np.int64)
            own = np.zeros((one.tree.size, 0), dtype=np.float32) if one.weights is None else one.weights
            weights.append(np.pad(own, ((0, 0), (0, widest - own.shape[1]))))
            family.append(np.full(one.tree.size, -1) if one.family is None else names[one.family])
        mixed = np.concatenate(weights), np.concatenate(family), tuple(cuts)
        return cls(whole[0], whole[1], whole[2], whole[3], *mixed)

    def take(self, leaves: Any) -> Forest:
        """Some of the leaves, a mask or indices, in that order."""
        parts = self.tree[leaves], self.phases[leaves], self.multipliers[leaves], self.empty[leaves]
        if self.weights is None or self.family is None:
            return Forest(*parts)
        return Forest(*parts, self.weights[leaves], self.family[leaves], self.cuts)

    def weighed(self) -> list[SharedCuts]:
        """The cuts that any leaf names."""
        used = np.zeros(0, dtype=np.int64) if self.family is None else np.unique(self.family)
        return [self.cuts[at] for at in used.tolist() if at >= 0]

    def groups(self) -> list[tuple[IndexArray, SharedCuts | None]]:
        """Leaves that can be certified together: those that weigh the same cuts."""
        if self.family is None:
            return [(np.arange(self.tree.size), None)]
        several = ((at, self.cuts[at] if at >= 0 else None) for at in np.unique(self.family).tolist())
        return [(np.flatnonzero(self.family == at), cuts) for at, cuts in several]


TABLES = ("phases", "multipliers", "weights")


def forest_bounds(model: ErrorModel, rows: Any, forest: Forest) -> FloatArray:
    """The certified minimum of every row over the leaves of its tree, shape (T,); rows (T, outputs), or scipy.sparse.

    Holds wherever the leaves cover the region, which is not looked at here (see `coverage.covered`). −inf for a tree
    without leaves, and for one all of whose leaves are proven empty: no region is, so l,u must be false. Raises
    ValueError for a forest of another region, and for a tree that has no row.
    """
    proven = forest_leaf_bounds(model, rows, forest)
    for cuts in forest.cuts:
        cuts.forget()
    least = np.full(rows.shape[0], np.inf)
    np.minimum.at(least, forest.tree, proven)
    return np.where(least < np.inf, least, -np.inf)


def forest_leaf_bounds(model: ErrorModel, rows: Any, forest: Forest) -> FloatArray:
    """The certified bound of every leaf, shape (L,); +inf for those proven empty; arguments as of `forest_bounds`."""
    leaves, neurons = forest.phases.shape
    if neurons != model.count:
        raise ValueError(f"the forest is over {neurons} unstable neurons, the region has {model.count}")
    if leaves and not (forest.tree.min() >= 0 and forest.tree.max() < rows.shape[0]):
        raise ValueError(f"trees must be 0 … {rows.shape[0] - 1}, got {forest.tree.min()} … {forest.tree.max()}")
    rows = sp.csr_array(rows) if sp.issparse(rows) else np.asarray(rows, dtype=np.float64)
    widest = max(model.input_set.size, rows.shape[1], neurons, *(low.size for low in model.lower), 1)
    step = max(1, min(FOREST_BATCH, FOREST_ENTRIES // widest))
    found = np.empty(leaves)
    for members, cuts in forest.groups():
        for start in range(0, members.size, step):
            part = members[start : start + step]
            own, empty = rows[forest.tree[part]], forest.empty[part]
            dense = dense_array(own)
            phases = forest.phases[part] if np.any(forest.phases[part] >= 0) else None
            dense = np.where(empty[:, None], 0.0, dense)
            weighed = _weighed(model, forest, part, cuts)
            bounds = certified_bounds(model, dense, forest.multipliers[part], phases, *weighed)
            found[part] = np.where(empty, np.where(bounds > 0, np.inf, -np.inf), bounds)
    return found


def _weighed(model: ErrorModel, forest: Forest, part: IndexArray, cuts: SharedCuts | None) -> tuple[Cuts | None, Any]:
    """Cuts and what these leaves weigh them with."""
    if cuts is None or forest.weights is None:
        return None, None
    return cuts.derive(model), sp.csr_array(forest.weights[part, : cuts.neurons.size].astype(np.float64))


@dataclass(frozen=True, eq=False)
class SideTrees:
    """A layer's sides by trees: tree t of the forest bounds sign_t·x̂ of neuron_t, from below.

    neurons: (T,) indices in the layer; signs: (T,) 1 for l and −1 for u. A neuron and sign may have several trees, of
    which the best counts. Raises ValueError for parts that do not fit each other.
    """

    neurons: IndexArray
    signs: AnyArray
    forest: Forest

    def __post_init__(self) -> None:
        for name in ("neurons", "signs"):
            array = getattr(self, name)
            if array.ndim != 1 or array.dtype.kind != "i" or array.shape != self.neurons.shape:
                raise ValueError(f"{name} must be one whole number per tree, got {array.shape} of {array.dtype}")
        if not np.all(np.abs(self.signs) == 1):
            raise ValueError("signs must be 1 for lower and −1 for upper sides")

    @classmethod
    def none(cls, unstable: int) -> SideTrees:
        """No tree, in a region with so many unstable neurons."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int8), Forest.none(unstable))

    def ranges(self, model: ErrorModel, low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """l and u of the layer, each tightened where a tree proves more, and what every tree proves: (n,), (n,), (T,).

        model: of the network cut at this layer. Raises ValueError for neurons that are not there.
        """
        if self.neurons.size and not (self.neurons.min() >= 0 and self.neurons.max() < low.size):
            raise ValueError(f"neurons must be 0 … {low.size - 1}, got {self.neurons.min()} … {self.neurons.max()}")
        place = np.arange(self.neurons.size)
        rows = sp.csr_array((self.signs.astype(np.float64), (place, self.neurons)), shape=(place.size, low.size))
        proven = forest_bounds(model, rows, self.forest)
        low, high = low.copy(), high.copy()
        below = self.signs == 1
        np.maximum.at(low, self.neurons[below], proven[below])
        np.minimum.at(high, self.neurons[~below], -proven[~below])
        return low, high, proven
