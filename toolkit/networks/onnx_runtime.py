"""An ONNX file run as it is deployed: by onnxruntime, in the file's own arithmetic."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray
from toolkit.data.compressed import read_bytes
from toolkit.data.extras import not_installed

LARGEST_MODEL = 2 * 2**30  # bytes
_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


def import_runtime() -> ModuleType | None:
    """The onnxruntime package, None where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    package: ModuleType = onnxruntime
    return package


def inference_session(data: bytes) -> Any:
    """A session of the model on one thread. Raises ModuleNotFoundError without onnxruntime, ValueError for a model that
    it does not take."""
    runtime = import_runtime()
    if runtime is None:
        raise not_installed("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    try:
        return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises its own types
        raise ValueError(f"onnxruntime does not take it: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    """What an exception of the runtime says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def deployed_outputs(path: str | Path, point: ArrayLike) -> FloatArray:
    """What onnxruntime computes at a point, flat, in float64; the point is rounded to the file's input type.

    path: .onnx or .onnx.gz with one input and one output. point: (n,), row-major; a free batch axis is 1. Raises
    FileNotFoundError, ModuleNotFoundError without onnxruntime, ValueError for a file that it does not run.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no ONNX file at {source}")
    try:
        session = inference_session(read_bytes(source, LARGEST_MODEL))
        inputs = session.get_inputs()
        if len(inputs) != 1 or len(session.get_outputs()) != 1 or inputs[0].type not in _TYPES:
            raise ValueError(f"it has inputs {[(each.name, each.type) for each in inputs]}")
        shape = [length if isinstance(length, int) and length > 0 else 1 for length in inputs[0].shape]
        values = np.asarray(point, dtype=np.float64).astype(_TYPES[inputs[0].type]).reshape(shape)
        (found,) = session.run(None, {inputs[0].name: values})
    except ModuleNotFoundError:
        raise
    except Exception as error:  # onnxruntime raises types of its own
        raise ValueError(f"{source}: onnxruntime does not run it: {first_line(error)}") from None
    return np.asarray(found, dtype=np.float64).ravel()
