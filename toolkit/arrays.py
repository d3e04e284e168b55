"""The kinds of arrays that modules hand to each other, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import scipy.sparse as sp

FloatArray = NDArray[np.float64]
SparseMatrix: TypeAlias = "sp.csr_array"
Matrix: TypeAlias = "FloatArray | sp.csr_array"
BoolArray = NDArray[np.bool_]
IndexArray = NDArray[np.int64]
PhaseArray = NDArray[np.int8]  # of unstable neurons: −1 free, 0 inactive, 1 active
IntegerArray = NDArray[np.object_]  # of Python integers, exact whatever their size
AnyArray = NDArray[Any]
Array = Any  # of any array-API library (numpy, torch); scipy.sparse where a docstring says so
