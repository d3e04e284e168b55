"""Weights as maps hold them: finite float64, of their own and read-only; and products with sparse ones.

Checked: dtypes that float64 would round, axes, NaN and infinity, indices outside a sparse matrix, entries given twice.
Torch tensors pass unchanged, so that training keeps their gradients.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
from array_api_compat import is_torch_array
from numpy.typing import ArrayLike

from toolkit.arrays import AnyArray, Array, FloatArray, Matrix, SparseMatrix
from toolkit.data.arguments import check_unmasked, number_array, real_number, shown
from toolkit.data.summaries import one_line, sizes, span

DENSE_ABOVE = 0.3  # share of non-zeros above which a sparse result is stored dense
_Numbers = TypeVar("_Numbers", bound=AnyArray)


def exact_float64(name: str, values: ArrayLike) -> FloatArray:
    """A float64 copy of real numbers; ValueError for any other dtype and for numbers that float64 would round."""
    check_unmasked(name, values)
    given: AnyArray = np.asarray(values)
    if given.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be real numbers, got dtype {given.dtype}")
    with np.errstate(over="ignore"):
        array = np.array(given, dtype=np.float64)
    if given.dtype.kind == "f" and given.dtype.itemsize > 8:
        rounded = (array.astype(given.dtype) != given) & ~np.isnan(given)
    elif given.dtype.kind in "iu" and given.dtype.itemsize == 8:
        rounded = np.zeros(given.shape, dtype=np.bool_)
        for index in np.argwhere(np.abs(array) >= 2.0**53):
            rounded[tuple(index)] = int(array[tuple(index)]) != int(given[tuple(index)])
    else:
        return array
    if rounded.any():
        where = tuple(int(i) for i in np.argwhere(rounded)[0])
        place = f" at index {where}" if where else ""
        raise ValueError(f"{name} must fit into float64 exactly, got {given[where]} ({given.dtype}){place}")
    return array


def exact_numbers(name: str, value: object) -> FloatArray:
    """A float64 copy of an array, list or number of real numbers. Raises ValueError for others, and where float64 would
    round them: the question would not be the one that was asked."""
    array = number_array(name, value)
    given: AnyArray = np.asarray(value)
    if given.dtype.kind in "iuf":
        array = exact_float64(name, given)
    if given.dtype == object or isinstance(value, list | tuple):  # numpy rounds a list's numbers on the way
        _check_entries(name, np.array(value, dtype=object), array)
    return array


def exact_number(name: str, value: object, hint: str = "") -> float:
    """One real number as a float. Raises ValueError for others, and where float64 would round it."""
    if isinstance(value, np.longdouble):
        return float(exact_float64(name, value))
    found = float(real_number(name, value, hint=hint))
    entry = value.item() if hasattr(value, "item") else np.array(value, dtype=object).ravel()[0]
    _check_entries(name, np.array(entry, dtype=object), np.array(found))
    return found


def _check_entries(name: str, given: AnyArray, array: FloatArray) -> None:
    """Raise ValueError where a number of any type is another one than float64 made of it."""
    if given.shape != array.shape:
        return
    for index, entry in np.ndenumerate(given):
        own = entry.item() if hasattr(entry, "item") else entry
        where = f" at index {index}" if index else ""
        if own is None:
            raise ValueError(f"{name} must be an array of real numbers, got None{where}")
        if type(own) is not float and own == own and own != float(array[index]):
            raise ValueError(f"{name} must fit into float64 exactly, got {shown(own)}{where}; float(…) rounds it")


def read_only(array: _Numbers) -> _Numbers:
    """The array itself, no longer writable."""
    array.setflags(write=False)
    return array


def is_frozen(array: object) -> bool:
    """Whether this is a plain array that nobody may write to, nor to one that it is a view of."""
    if type(array) is not np.ndarray:
        return False
    while isinstance(array, np.ndarray) and not array.flags.writeable:
        if array.base is None:
            return True
        array = array.base
    return False


def checked_weights(name: str, values: Array, axes: int) -> Array:
    """Values as finite float64 numpy of their own, read-only (torch tensors pass unchanged), their axes counted."""
    array: Array = values if is_torch_array(values) else exact_float64(name, values)
    if array.ndim != axes:
        raise ValueError(f"{name} must have {axes} axes, got shape {tuple(array.shape)}")
    if is_torch_array(array):
        return array
    if not np.all(np.isfinite(array)):
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} must be finite, got {array[where]} at index {where}")
    return read_only(array)


def zero_weights(like: Array, size: int) -> Array:
    """Zeros of the library, dtype and device of `like`."""
    return like.new_zeros(size) if is_torch_array(like) else read_only(np.zeros(size))


def checked_matrix(matrix: ArrayLike | Matrix) -> SparseMatrix:
    """A CSR copy with sorted, single entries, read-only; ValueError where the same entry is given twice."""
    given: SparseMatrix = matrix if sp.issparse(matrix) else sp.csr_array(exact_float64("Sparse matrix", matrix))
    if given.format in ("csr", "csc", "bsr"):
        given.check_format(full_check=True)  # indices outside the shape would be read as memory
    entries = given.tocoo()
    data = checked_weights("Sparse matrix", entries.data, 1)
    whole = sp.csr_array((data, entries.coords), shape=given.shape)
    whole.sum_duplicates()
    if whole.nnz != data.size:
        raise ValueError(f"Sparse matrix must give every entry once, got {data.size - whole.nnz} entries again")
    return frozen_matrix(whole)


def frozen_matrix(matrix: SparseMatrix) -> SparseMatrix:
    """The matrix itself with sorted indices, no longer writable."""
    matrix.sort_indices()
    for part in (matrix.data, matrix.indices, matrix.indptr):
        read_only(part)
    return matrix


def dense_array(matrix: ArrayLike | Matrix) -> FloatArray:
    """A matrix of either kind as float64 numpy."""
    given: SparseMatrix = matrix
    return np.asarray(given.toarray() if sp.issparse(matrix) else matrix, dtype=np.float64)


def apply_sparse(matrix: SparseMatrix, x: Matrix) -> Matrix:
    """matrix·x along the last axis of a numpy array with any leading axes, or of the rows of a sparse matrix."""
    if sp.issparse(x):
        product = x @ matrix.T
        return product if product.nnz < DENSE_ABOVE * math.prod(product.shape) else product.toarray()
    flat = np.asarray(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return (matrix @ flat.T).T.reshape(*x.shape[:-1], matrix.shape[0])


def select_rows(rows: SparseMatrix, matrix: SparseMatrix) -> SparseMatrix:
    """rows·matrix; where `rows` are unit vectors, as layer bounds ask for, by slicing instead of multiplying."""
    if not (rows.nnz == rows.shape[0] and np.all(np.diff(rows.indptr) == 1) and np.all(rows.data == 1.0)):
        return rows @ matrix
    everything = rows.shape[0] == rows.shape[1] and np.array_equal(rows.indices, np.arange(rows.shape[1]))
    return matrix if everything else matrix[rows.indices]


def map_line(affine: Any) -> str:
    """An affine map in one line: what it takes and gives, with axes where it has them, and the range of its numbers."""
    shape = getattr(affine, "shape", None) or (affine.input_size,)
    gives = getattr(affine, "output_shape", None) or (affine.output_size,)
    numbers = {name: getattr(affine, name, None) for name in ("weight", "scale", "bias", "shift")}
    ranges = [f"{name} {span(values)}" for name, values in numbers.items() if values is not None]
    return one_line(type(affine).__name__, [f"{sizes(shape)} → {sizes(gives)}", *ranges])
