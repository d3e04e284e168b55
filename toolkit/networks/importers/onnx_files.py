"""ONNX files, none of whose content is trusted: .onnx, .onnx.gz, and weights kept in files beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.arrays import AnyArray
from toolkit.data.compressed import read_bytes
from toolkit.networks.importers.onnx_evaluation import import_onnx

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

DOMAINS = ("", "ai.onnx")  # both name the standard operators
OLDEST = 7  # Add and Gemm broadcast differently in older operator sets
LARGEST_FILE = 2**31 - 1  # bytes, protobuf's own limit


def load_model(path: Path) -> ModelProto:
    """The model of a file, checked by onnx.checker, weights of files beside it loaded.

    Raises ValueError for anything that is no ONNX model, for one that unpacks to more than 2 GB, for weights in files
    elsewhere, for operator sets before 7 and functions of the file's own.
    """
    onnx = import_onnx()
    try:
        model: ModelProto = onnx.load_model_from_string(read_bytes(path, LARGEST_FILE))
    except ValueError:
        raise
    except Exception as error:  # protobuf raises its own types
        raise ValueError(f"not a valid ONNX model: {_reason(error)}") from None
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_external(tensor, path.parent)
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except Exception as error:  # the checker and missing external data each raise their own types
        raise ValueError(f"not a valid ONNX model: {_reason(error)}") from None
    if len(model.graph.node) == 0 and not model.graph.output:
        raise ValueError("not a valid ONNX model: it has no graph")
    if model.functions:
        raise ValueError(f"functions of the file's own are not supported, got {model.functions[0].name!r}")
    operator_set(model)
    return model


def operator_set(model: ModelProto) -> int:
    """The version of the standard operators that the file uses."""
    versions = {int(item.version) for item in model.opset_import if item.domain in DOMAINS}
    newest = import_onnx().defs.onnx_opset_version()  # what later sets mean is not known
    if len(versions) != 1 or not OLDEST <= min(versions) <= newest:
        raise ValueError(f"the ONNX operator set must be one of {OLDEST} … {newest}, got {sorted(versions)}")
    return min(versions)


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """All tensors the graph holds, in initializers and in attributes of its nodes."""
    yield from model.graph.initializer
    for node in model.graph.node:
        for item in node.attribute:
            yield item.t
            yield from item.tensors


def has_doubles(model: ModelProto) -> bool:
    """Whether the input, a constant or a cast is of type DOUBLE."""
    double = import_onnx().TensorProto.DOUBLE
    given = any(item.type.tensor_type.elem_type == double for item in model.graph.input)
    casts = (item.i for node in model.graph.node for item in node.attribute if item.name in ("to", "dtype"))
    return given or double in casts or any(tensor.data_type == double for tensor in _tensors(model))


def tensor_values(tensor: TensorProto) -> AnyArray:
    """The numbers of a tensor in the file. Raises ValueError where they are not as many as its shape says."""
    try:
        values: AnyArray = import_onnx().numpy_helper.to_array(tensor)
    except Exception as error:  # numpy's, for shapes that do not fit, and the package's own for unknown types
        raise ValueError(f"weights {tensor.name!r} of shape {list(tensor.dims)}: {_reason(error)}") from None
    return values


def _check_external(tensor: TensorProto, folder: Path) -> None:
    """Raise ValueError unless the tensor's numbers are all in a plain file beside the model."""
    entries = {item.key: item.value for item in tensor.external_data}
    name = entries.get("location", "")
    target = folder / name
    if not name or name in (".", "..") or any(mark in name for mark in "/\\\0:") or target.is_symlink():
        raise ValueError(f"weights {tensor.name!r} must be in a file beside the model, got {name!r}")
    if not target.is_file():
        raise ValueError(f"weights {tensor.name!r} are in {name!r}, which is not there")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
        dtype = import_onnx().helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"weights {tensor.name!r} in {name!r}: {_reason(error)}") from None
    size = target.stat().st_size
    needed = math.prod(int(n) for n in tensor.dims) * dtype.itemsize
    if offset < 0 or min(tensor.dims, default=0) < 0 or (length if length >= 0 else size - offset) != needed:
        raise ValueError(f"weights {tensor.name!r} of shape {list(tensor.dims)} need {needed} bytes of {name!r}")
    if offset + needed > size:
        raise ValueError(f"weights {tensor.name!r} need {offset + needed} bytes of {name!r}, which has {size}")


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
