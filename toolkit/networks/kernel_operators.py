"""A large convolution between chosen outputs and inputs: what stands in place of a matrix that would not fit.

It answers what matrices are asked for (`@`, `abs`, `T`, sums) without being one: values are scattered into the whole
image, the kernel runs over it, and the chosen ones are gathered. Norms come from the squared kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import Array, FloatArray, IndexArray, SparseMatrix
from toolkit.networks.correlation import BLOCK_ENTRIES, Correlation, matrix_rows, row_peaks, tap_counts
from toolkit.networks.float_error import FLOOR, SAFETY

STORED_ENTRIES = 1 << 24  # of a matrix that many sparse rows are multiplied by: 200 MB


@dataclass(frozen=True, eq=False)
class KernelOperator:
    """±W between the named outputs and inputs of a correlation (None: all). sign: +1 or −1."""

    correlation: Correlation
    outputs: IndexArray | None = None
    inputs: IndexArray | None = None
    sign: float = 1.0
    __array_ufunc__ = None  # so that rows @ operator is __rmatmul__

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        rows, columns = math.prod(self.correlation.output_shape), math.prod(self.correlation.shape)
        return (
            rows if self.outputs is None else int(self.outputs.size),
            columns if self.inputs is None else int(self.inputs.size),
        )

    def linear(self, x: FloatArray) -> FloatArray:
        """Wx along the last axis. Shapes: (…, inputs) → (…, outputs)."""
        size = math.prod(self.correlation.shape)
        return self._through(self.correlation.forward, x, (self.inputs, self.outputs), size, self.shape[0])

    def adjoint(self, nu: FloatArray) -> FloatArray:
        """Wᵀν along the last axis. Shapes: (…, outputs) → (…, inputs)."""
        size = math.prod(self.correlation.output_shape)
        return self._through(self.correlation.adjoint, nu, (self.outputs, self.inputs), size, self.shape[1])

    def _through(
        self,
        run: Callable[[FloatArray], FloatArray],
        values: FloatArray,
        ends: tuple[IndexArray | None, IndexArray | None],
        size: int,
        count: int,
    ) -> FloatArray:
        """`run` row by row, on what is scattered to ends[0] of `size` places; what it gives, gathered at ends[1]."""
        given = np.asarray(values, dtype=np.float64)
        flat = given.reshape(math.prod(given.shape[:-1]), given.shape[-1])
        found = np.empty((len(flat), count))
        spread = np.zeros((1, size)) if ends[0] is not None else None
        for row, result in zip(flat, found, strict=True):
            whole = np.ascontiguousarray(row)[None]
            if spread is not None:
                spread[0, ends[0]] = row
                whole = spread
            gathered = run(whole)[0]
            result[:] = gathered if ends[1] is None else gathered[ends[1]]
        if self.sign < 0:
            np.negative(found, out=found)
        return found.reshape(*given.shape[:-1], count)

    def __matmul__(self, columns: FloatArray) -> FloatArray:
        return self.linear(columns.T).T

    def __rmatmul__(self, rows: FloatArray) -> FloatArray:
        return self.adjoint(rows)

    def __abs__(self) -> KernelOperator:
        return replace(self, correlation=self._kernel(np.abs), sign=1.0)

    def _kernel(self, change: Callable[[FloatArray], FloatArray]) -> Correlation:
        return self.correlation.with_weight(change(self.correlation.weight))

    @property
    def T(self) -> TransposedOperator:
        """Wᵀ, for `@`."""
        return TransposedOperator(self)

    def sum(self, axis: int) -> FloatArray:
        """The sums of the columns (axis 0) or rows (axis 1)."""
        ones = np.ones(self.shape[axis])
        return self.adjoint(ones) if axis == 0 else self.linear(ones)

    def __getitem__(self, chosen: slice) -> SparseMatrix:
        """A block of rows, written out."""
        return self.rows(np.arange(self.shape[0])[chosen])

    def restrict(self, outputs: IndexArray | None, inputs: IndexArray | None, sign: float = 1.0) -> KernelOperator:
        """The part between the named ones of its outputs and inputs (None: all), times `sign`."""
        return KernelOperator(
            self.correlation, _chosen(self.outputs, outputs), _chosen(self.inputs, inputs), self.sign * sign
        )

    def rows(self, chosen: IndexArray | None = None) -> SparseMatrix:
        """The named rows (None: all) as a sparse matrix. Raises ValueError where it would have too many entries."""
        matrix = matrix_rows(self.correlation, _chosen(self.outputs, chosen))
        matrix = matrix if self.inputs is None else matrix[:, self.inputs]
        return matrix if self.sign > 0 else -matrix

    @cached_property
    def stored(self) -> SparseMatrix:
        """All rows, kept."""
        return self.rows()

    @property
    def is_stored(self) -> bool:
        """Whether `stored` is there already."""
        return "stored" in self.__dict__

    @cached_property
    def most_entries(self) -> tuple[int, int]:
        """The most entries in a column and in a row of the whole matrix."""
        (tall, above), (wide, beside) = (tap_counts(self.correlation, axis) for axis in (0, 1))
        channels, per_group = self.correlation.weight.shape[:2]
        column = channels // self.correlation.groups * above * beside
        return column, per_group * int(tall.max(initial=0)) * int(wide.max(initial=0))

    def row_peaks(self) -> FloatArray:
        """The largest |entry| of every row, those at inputs left out among them, shape (outputs,)."""
        peaks = row_peaks(self.correlation)
        return peaks if self.outputs is None else peaks[self.outputs]

    def norms(self, axis: int, scale: FloatArray | None = None) -> FloatArray:
        """‖W_:j∘scale‖₂ of every column (axis 0) or ‖W_i:∘scale‖₂ of every row (axis 1), rounded up.

        scale ≥ 0: one number per output (axis 0) or input (axis 1), None: ones. +inf where squares overflow.
        """
        peak = float(np.abs(self.correlation.weight).max(initial=0.0)) or 1.0  # so that squares do not overflow
        squared = replace(self, correlation=self._kernel(lambda weight: np.square(weight / peak)), sign=1.0)
        each = np.ones(self.shape[axis]) if scale is None else scale
        unit = float(each.max(initial=0.0)) or 1.0
        sums = (squared.adjoint if axis == 0 else squared.linear)(np.square(each / unit))
        with np.errstate(over="ignore"):
            return SAFETY * peak * unit * (np.sqrt(sums) + FLOOR)


@dataclass(frozen=True, eq=False)
class TransposedOperator:
    """Wᵀ of an operator W, for columns."""

    operator: KernelOperator

    def __matmul__(self, columns: FloatArray) -> FloatArray:
        return self.operator.adjoint(columns.T).T


def sparse_product(rows: SparseMatrix, operator: KernelOperator) -> SparseMatrix:
    """rows·W as CSR. Shapes: (m, outputs) → (m, inputs).

    W is written out in blocks of BLOCK_ENTRIES; or once and for all, where one call needs as much and it may be kept.
    """
    each = max(1, operator.most_entries[1])
    whole = operator.shape[0] * each
    if operator.is_stored or (rows.nnz * each > whole and whole <= STORED_ENTRIES):
        return rows @ operator.stored
    written = rows.indptr.astype(np.int64) * each
    long = np.flatnonzero(np.diff(written) > BLOCK_ENTRIES)  # by themselves, through the kernel
    full = 1 + np.flatnonzero(np.diff(written[:-1] // BLOCK_ENTRIES))
    ends = np.unique([0, *full, *long, *(long + 1), rows.shape[0]]).tolist()
    parts = []
    for first, stop in pairwise(ends):
        block = rows[first:stop]
        used = np.unique(block.indices)
        if block.nnz * each > 2 * BLOCK_ENTRIES:
            parts.append(sp.csr_array(operator.adjoint(block.toarray())))
        else:
            parts.append(block[:, used] @ operator.rows(used))
    return sp.vstack(parts, format="csr") if parts else sp.csr_array((0, operator.shape[1]))


def _chosen(known: IndexArray | None, index: Array) -> IndexArray | None:
    if index is None:
        return known
    return np.asarray(index, dtype=np.int64) if known is None else known[index]
