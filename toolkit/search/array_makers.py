"""Where a search computes: functions that put numpy and scipy.sparse arrays into a library, a type and on a device.

float32 holds the squares of what a search meets up to 1e±19: numbers of networks whose weights, l,u or rows are larger
or smaller than FLOAT32_RANGE all together stay in float64. Nothing here is trusted: bounds are evaluated again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import AnyArray, Array
from toolkit.data.extras import not_installed

ArrayMaker = Callable[[Any], Array]
FLOAT32_RANGE = (1e-15, 1e15)


def in_float64(values: Any) -> Array:
    """Numpy float64, for an optimum."""
    return values if _is_operator(values) else np.asarray(values, dtype=np.float64)


def in_float32(values: Any) -> Array:
    """Numpy float32, for a search on a core."""
    if sp.issparse(values):
        return values.astype(np.float32)
    return values if _is_operator(values) else np.asarray(values, dtype=np.float32)


def in_torch(device: str = "cpu", dtype: Literal["float32", "float64"] = "float32") -> ArrayMaker:
    """Tensors on a device, such as "cuda", for a search there.

    Convolutions without a matrix stay on the host: what they multiply goes there and back. Raises ImportError without
    torch, ValueError for another type and for a device that is not there.
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    try:
        import torch
    except ImportError:
        raise not_installed("torch", "a search on a device") from None
    try:
        torch.zeros(1, device=device).cpu()  # "meta" makes tensors that hold nothing
    except (RuntimeError, AssertionError, ImportError) as error:  # torch without CUDA asserts
        raise ValueError(
            f"device {device!r} is not one that torch has here ({str(error).splitlines()[0][:200]}); "
            "allowed: 'cpu', or a name such as 'cuda'"
        ) from None

    def make(values: Any) -> Array:
        if sp.issparse(values):
            entries = sp.coo_array(values)
            place, shape = np.stack(entries.coords).astype(np.int64), entries.shape
            place, values = torch.from_numpy(place), make(entries.data)
            return torch.sparse_coo_tensor(place, values, shape, device=device, check_invariants=True).coalesce()
        if _is_operator(values):
            return _HostOperator(values, make)
        return torch.from_numpy(np.array(values, dtype=dtype, order="C")).to(device)  # tensors share no memory

    return make


def fitting_maker(arrays: Iterable[Any], device: str = "cpu") -> ArrayMaker:
    """float32 where these numbers fit it, else float64: numpy's for the device "cpu", torch's for any other. Raises as
    `in_torch`."""
    fits = fits_float32(arrays)
    if device == "cpu":
        return in_float32 if fits else in_float64
    return in_torch(device, "float32" if fits else "float64")


def fits_float32(arrays: Iterable[Any]) -> bool:
    """Whether the largest finite size in every one of these arrays, numpy or scipy.sparse, is 0 or in FLOAT32_RANGE."""
    low, high = FLOAT32_RANGE
    for one in arrays:
        values = one.data if sp.issparse(one) else one
        if _is_operator(values) or not values.size:
            continue
        size = max(float(values.max()), -float(values.min()))
        if not np.isfinite(size):
            size = float(np.max(np.abs(values), initial=0.0, where=np.isfinite(values)))
        if size and not low <= size <= high:
            return False
    return True


def on_host(values: Array) -> AnyArray:
    """A numpy array of its own."""
    return np.array(values.cpu().numpy() if hasattr(values, "cpu") else values)


class _HostOperator:
    """Something that multiplies numpy columns, for columns that are elsewhere."""

    def __init__(self, operator: Any, make: ArrayMaker) -> None:
        self.operator, self.make = operator, make

    def __matmul__(self, columns: Array) -> Array:
        return self.make(self.operator @ on_host(columns))


def _is_operator(values: Any) -> bool:
    """Whether these are no plain array but something that multiplies like one, in its own precision."""
    return not isinstance(values, np.ndarray | list | float)
