"""An ONNX file run as it is deployed: by onnxruntime, in the file's own arithmetic."""

from __future__ import annotations

import gzip
import importlib
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray

LARGEST_MODEL = 2 * 2**30  # bytes
_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


def read_model(path: Path) -> bytes:
    """The bytes of an .onnx or .onnx.gz file. Raises FileNotFoundError, ValueError for one too large or damaged."""
    if not path.is_file():
        raise FileNotFoundError(f"no ONNX file at {path}")
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(LARGEST_MODEL + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: not a gzip file that can be read: {error}") from None
    if len(data) > LARGEST_MODEL:
        raise ValueError(f"{path}: an ONNX file has at most {LARGEST_MODEL} bytes here")
    return data


def deployed_outputs(path: str | Path, point: ArrayLike) -> FloatArray:
    """What onnxruntime computes at a point, flat, in float64; the point is rounded to the file's input type.

    path: .onnx or .onnx.gz with one input and one output. point: (n,), row-major; a free batch axis is 1. Raises
    ModuleNotFoundError without onnxruntime, ValueError for a file that it does not run.
    """
    runtime = importlib.import_module("onnxruntime")
    source = Path(path)
    data = read_model(source)
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    try:
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        inputs = session.get_inputs()
        if len(inputs) != 1 or len(session.get_outputs()) != 1 or inputs[0].type not in _TYPES:
            raise ValueError(f"it has inputs {[(each.name, each.type) for each in inputs]}")
        shape = [length if isinstance(length, int) and length > 0 else 1 for length in inputs[0].shape]
        values = np.asarray(point, dtype=np.float64).astype(_TYPES[inputs[0].type]).reshape(shape)
        (found,) = session.run(None, {inputs[0].name: values})
    except Exception as error:  # onnxruntime raises types of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{source}: onnxruntime does not run it: {reason}") from None
    return np.asarray(found, dtype=np.float64).ravel()
