"""Properties: what must hold of the outputs, as groups of linear rows.

A property is an OR of unsafe conjunctions: a point is unsafe if, for some group g, every row j of g has
c_j·F + d_j ≤ 0. With the margin of a group

    m*_g = min_{x̃∈P} max_{j∈g} (c_j·F(x̃) + d_j),

the property holds on all of P iff every m*_g > 0. `robustness(outputs, label)` has one group of one row e_{c*} − e_t
for every class t ≠ c*: the lecture's m*_t.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray, IndexArray
from toolkit.data.arguments import class_label, class_targets, instance, whole_number, whole_numbers
from toolkit.data.summaries import counted, one_line, span
from toolkit.networks.weights import dense_array, exact_float64, exact_numbers, is_frozen, read_only


@dataclass(frozen=True, eq=False)
class Objective:
    """Rows C·F + d to be bounded, each by itself.

    rows: C, shape (m, outputs), dense or scipy.sparse, kept as a read-only float64 copy, none of it rounded. constants:
    d, shape (m,); zeros by default. targets: the class each row belongs to, or None. Raises ValueError for shapes that
    do not fit, numbers that are not finite, and sparse rows that give an entry twice.
    """

    rows: Any
    constants: FloatArray | None = None
    targets: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        if getattr(self.rows, "ndim", None) != 2:
            raise ValueError(f"rows must have shape (m, outputs), got {getattr(self.rows, 'shape', self.rows)}")
        count = int(self.rows.shape[0])
        object.__setattr__(self, "rows", checked_rows(self.rows))
        values = self.rows.data if sp.issparse(self.rows) else self.rows
        if not np.all(np.isfinite(values)):
            raise ValueError("rows must be finite, got a coefficient that is infinite or NaN")
        if self.constants is not None:
            given = exact_numbers("constants", self.constants)
            if given.shape != (count,) or not np.all(np.isfinite(given)):
                raise ValueError(f"constants must be {count} finite numbers, one per row, got shape {given.shape}")
            object.__setattr__(self, "constants", read_only(exact_float64("constants", given)) if given.any() else None)
        if not self.targets:
            object.__setattr__(self, "targets", (None,) * count)
        elif len(self.targets) != count:
            raise ValueError(f"targets must name one class per row: {len(self.targets)} for {count} rows")

    @property
    def outputs(self) -> int:
        """Number of outputs the rows are about."""
        return int(self.rows.shape[1])

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def __repr__(self) -> str:
        rows = f"{counted(len(self), 'row')} on {counted(self.outputs, 'output')}"
        constants = "" if self.constants is None else f"constants {span(self.constants)}"
        return one_line("Objective", [rows, f"entries {span(self.rows)}", constants])


@dataclass(frozen=True, eq=False)
class Property:
    """An objective whose rows form groups: unsafe is a point where all rows of some group are ≤ 0.

    objective: the rows. groups: for every row the number of its group, 0 … g − 1, each at least once, ascending. label:
    the class a robustness question is about, None for others. Raises ValueError for groups that are none of that, for
    a label whose rows are not its margins, and for a class that several groups name as their target.
    """

    objective: Objective
    groups: IndexArray
    label: int | None = None

    def __post_init__(self) -> None:
        instance("objective", self.objective, Objective, "Property.of(rows) makes a property of rows")
        given = np.asarray(self.groups)
        count = len(self.objective)
        if given.shape != (count,) or given.dtype.kind not in "iu" or not count:
            raise ValueError(f"groups must be one whole number for each of {count} ≥ 1 rows, got shape {given.shape}")
        steps = np.diff(given, prepend=-1)
        if given[0] != 0 or not np.all((steps[1:] == 0) | (steps[1:] == 1)):
            raise ValueError(f"groups must ascend from 0 without gaps, got {given.tolist()}")
        object.__setattr__(self, "groups", read_only(given.astype(np.int64)))
        if self.label is not None:
            object.__setattr__(self, "label", self._checked_label())
        asked = {(target, g) for target, g in zip(self.objective.targets, given.tolist(), strict=True)}
        for target, number in Counter(target for target, _ in asked if target is not None).items():
            if number > 1:
                raise ValueError(f"targets must not repeat a class in another group, got {target} in {number} groups")

    def _checked_label(self) -> int:
        """The label, if the rows are its margins to their targets, and nothing else."""
        label = class_label("label", self.label, self.outputs)
        rows, _ = margin_rows(self.outputs, label, self.objective.targets)  # type: ignore[arg-type]
        wanted = f"a property of label {label} has rows e_{label} − e_target, each a group, as robustness makes them"
        if self.objective.constants is not None or self.count < len(rows):
            raise ValueError(f"{wanted}; got constants or groups of several rows")
        other = np.flatnonzero((dense_array(self.objective.rows) != rows).any(axis=1))
        if other.size:
            raise ValueError(f"{wanted}; got another row for target {self.objective.targets[other[0]]}")
        return label

    @property
    def count(self) -> int:
        """Number of groups."""
        return int(self.groups[-1]) + 1

    @property
    def outputs(self) -> int:
        """Number of outputs the rows are about."""
        return self.objective.outputs

    def __repr__(self) -> str:
        groups = f"{counted(self.count, 'group')}, {counted(len(self.objective), 'row')}"
        label = "" if self.label is None else f"label {self.label}"
        return one_line("Property", [f"{groups} on {counted(self.outputs, 'output')}", label])

    @classmethod
    def of(cls, rows: ArrayLike, constants: ArrayLike | None = None, groups: Sequence[int] | None = None) -> Property:
        """A property from numbers; groups None: every row is a group of its own."""
        given = np.atleast_2d(exact_numbers("rows", rows))
        own = None if constants is None else np.atleast_1d(exact_numbers("constants", constants))
        chosen = range(len(given)) if groups is None else whole_numbers("groups", groups, 0)
        return cls(Objective(given, own), np.array(chosen, dtype=np.int64))


def robustness(outputs: int, label: int, targets: Sequence[int] | None = None) -> Property:
    """No point of the set is put into another class than `label`, or into none of `targets`; ties are unsafe.

    One group of one row e_{c*} − e_t per target. Raises ValueError for fewer than two outputs, a label or target
    outside 0 … outputs − 1, a target equal to the label or listed twice, or no target.
    """
    outputs = whole_number("outputs", outputs, hint="of a network it is network.output_size")
    label = class_label("label", label, outputs)
    rows, chosen = margin_rows(outputs, label, targets)
    return Property(Objective(rows, None, chosen), np.arange(len(chosen)), label)


def as_property(question: int | Property, outputs: int, targets: Sequence[int] | None = None) -> Property:
    """The property that a label, the short form, stands for; a property itself, if it is about so many outputs."""
    if not isinstance(question, Property):
        return robustness(outputs, question, targets)
    if targets is not None:
        raise ValueError("targets belong to a label; a property names its rows itself")
    if question.outputs != outputs:
        raise ValueError(f"the property is about {question.outputs} outputs, the network has {outputs}")
    return question


def margin_rows(outputs: int, label: int, targets: Sequence[int] | None = None) -> tuple[FloatArray, tuple[int, ...]]:
    """Rows e_{c*} − e_t for every target t ≠ c*, and those targets; raises as `robustness`. Shapes: (m, outputs)."""
    label = class_label("label", label, outputs)
    chosen = class_targets(targets, label, outputs)
    rows = np.zeros((len(chosen), outputs))
    rows[:, label] = 1.0
    rows[np.arange(len(chosen)), list(chosen)] = -1.0
    return rows, chosen


def selection_rows(size: int, neurons: Sequence[int] | IndexArray, sign: Literal[1, -1]) -> Any:
    """Rows ±e_i for the named neurons, as a sparse matrix of shape (m, size)."""
    chosen = np.asarray(neurons, dtype=np.int64)
    data = np.full(chosen.size, float(sign))
    return sp.csr_array((data, chosen, np.arange(chosen.size + 1)), shape=(chosen.size, size))


def one_dense_row(rows: Any, row: int) -> FloatArray:
    """One row of a dense or sparse matrix, shape (outputs,); −0 as 0."""
    return np.asarray(dense_array(rows[[row]])[0] + 0.0)


def checked_rows(rows: Any) -> Any:
    """Rows as read-only float64 numbers of their own, none of them rounded, every entry of a sparse matrix given
    once."""
    values = rows.data if sp.issparse(rows) else rows
    ready = isinstance(values, np.ndarray) and values.dtype == np.float64
    if not sp.issparse(rows):
        return rows if ready and is_frozen(rows) else read_only(exact_float64("rows", rows))
    if ready and rows.format == "csr" and rows.has_canonical_format:
        return _frozen_parts(rows.copy())
    whole = sp.csr_array(rows, copy=True)
    whole.data = exact_float64("rows", whole.data)
    given = whole.nnz
    whole.sum_duplicates()
    if whole.nnz != given:
        raise ValueError(f"rows must give every entry once, got {given - whole.nnz} entries again")
    return _frozen_parts(whole)


def _frozen_parts(rows: Any) -> Any:
    for part in (rows.data, rows.indices, rows.indptr):
        read_only(part)
    return rows
