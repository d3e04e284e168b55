"""The kinds of arrays that modules hand to each other, by name."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IndexArray = NDArray[np.int64]
PhaseArray = NDArray[np.int8]  # of unstable neurons: −1 free, 0 inactive, 1 active
IntegerArray = NDArray[np.object_]  # of Python integers, exact whatever their size
AnyArray = NDArray[Any]
Array = Any  # of any array-API library (numpy, torch); scipy.sparse where a docstring says so
