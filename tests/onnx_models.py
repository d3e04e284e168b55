"""Small ONNX networks, written to files: affine maps with Relus between."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Maps = Sequence[tuple[Any, Any]]  # (W, b) of every affine map


def write_onnx(path: Path, maps: Maps) -> Path:
    """An ONNX file of Gemm and Relu nodes; skips the test where onnx is not installed."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra: onnx)")
    helper, nodes, weights, current = onnx.helper, [], [], "X"
    for k, (weight, bias) in enumerate(maps):
        for name, values in ((f"W{k}", weight), (f"b{k}", bias)):
            weights.append(onnx.numpy_helper.from_array(np.asarray(values, dtype=np.float32), name))
        nodes.append(helper.make_node("Gemm", [current, f"W{k}", f"b{k}"], [f"z{k}"], transB=1))
        current = f"z{k}"
        if k < len(maps) - 1:
            nodes.append(helper.make_node("Relu", [current], [f"y{k}"]))
            current = f"y{k}"
    floats = onnx.TensorProto.FLOAT
    given = helper.make_tensor_value_info("X", floats, ["batch", len(maps[0][0][0])])
    made = helper.make_tensor_value_info(current, floats, ["batch", len(maps[-1][0])])
    graph = helper.make_graph(nodes, "net", [given], [made], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path
