"""Types of ONNX files and torch modules: which bounds their numbers reach, which casts are none in real arithmetic."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.networks.network import Network

FLOAT32_MAX = float(np.finfo(np.float32).max)


def onnx_network(
    folder: Path,
    nodes: Sequence[tuple[str, Sequence[str], Sequence[str], dict[str, Any]]],
    dtype: str = "FLOAT",
    opset: int = 17,
    output: str = "",
    **constants: np.ndarray,
) -> Network:
    """The network of nodes (operator, inputs, outputs, attributes) on two inputs x; output: else the last node's."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra: onnx)")
    helper, kind = onnx.helper, getattr(onnx.TensorProto, dtype)
    graph = helper.make_graph(
        [helper.make_node(name, inputs, outputs, **attributes) for name, inputs, outputs, attributes in nodes],
        "net",
        [helper.make_tensor_value_info("x", kind, [1, 2])],
        [helper.make_tensor_value_info(output or nodes[-1][2][0], kind, ["a", "b"])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, folder / "net.onnx")
    return Network.load(folder / "net.onnx")


@pytest.mark.parametrize("bound", [FLOAT32_MAX, 1e39])
@pytest.mark.parametrize("dtype", ["FLOAT", "DOUBLE"])
def test_a_bound_of_clip_counts_where_the_type_reaches_it(tmp_path: Path, bound: float, dtype: str) -> None:
    numpy_type = {"FLOAT": np.float32, "DOUBLE": np.float64}[dtype]
    with np.errstate(over="ignore"):
        ends = {"low": np.array(-bound, numpy_type), "high": np.array(bound, numpy_type)}
    network = onnx_network(tmp_path, [("Clip", ["x", "low", "high"], ["y"], {})], dtype, **ends)
    far = np.array([2 * bound, -3 * bound])
    np.testing.assert_allclose(network.forward(far), far if dtype == "FLOAT" else far / [2, 3], rtol=1e-15)
    assert network.forward(np.array([0.3, -1e9])).tolist() == [0.3, -1e9]
    assert len(network.relu_sizes) == (0 if dtype == "FLOAT" else 2)


def test_the_bounds_of_clip_as_attributes_are_of_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operator sets before 11: ±float32's maximum is the default, of doubles too (not in onnxruntime)."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    network = onnx_network(tmp_path, [("Clip", ["x"], ["y"], {"min": 0.0})], opset=10)
    assert network.forward(np.array([1e39, -1.0])).tolist() == [1e39, 0.0]
    casts = [("Cast", ["x"], ["z"], {"to": 11}), ("Clip", ["z"], ["w"], {}), ("Cast", ["w"], ["y"], {"to": 1})]
    network = onnx_network(tmp_path, casts, opset=10)
    assert network.forward(np.array([1e39, -1e39])).tolist() == [FLOAT32_MAX, -FLOAT32_MAX]


@pytest.mark.parametrize("name", ["clamp", "hardtanh"])
@pytest.mark.parametrize("kind", ["float32", "float64", "none"])
def test_a_bound_of_clamp_counts_where_the_type_reaches_it(name: str, kind: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra: torch)")

    class Bounded(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            if kind != "none":
                self.one = torch.nn.Parameter(torch.ones(1, dtype=getattr(torch, kind)))

        def forward(self, x: Any) -> Any:
            x = x if kind == "none" else x * self.one
            if name == "clamp":
                return x.clamp(max=FLOAT32_MAX)
            return torch.nn.functional.hardtanh(x, -FLOAT32_MAX, FLOAT32_MAX)

    network = Network.from_torch(Bounded(), (2,))
    far = [2 * FLOAT32_MAX, 1.0]
    assert network.forward(np.array(far)).tolist() == (far if kind == "float32" else [FLOAT32_MAX, 1.0])


@pytest.mark.parametrize("like", ["int64", "bool", "int8"])
def test_a_cast_to_whole_numbers_is_refused_whatever_names_the_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, like: str
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    nodes = [("CastLike", ["x", "k"], ["z"], {}), ("CastLike", ["z", "f"], ["y"], {})]
    with pytest.raises(ValueError, match=f"depends on the input to {like.upper()} is not continuous"):
        onnx_network(tmp_path, nodes, k=np.ones(1, like), f=np.ones(1, np.float32))


@pytest.mark.parametrize("like", ["float32", "float64"])
def test_a_cast_to_numbers_like_others_is_none(tmp_path: Path, like: str) -> None:
    nodes = [("CastLike", ["x", "k"], ["z"], {}), ("CastLike", ["z", "x"], ["y"], {})]
    network = onnx_network(tmp_path, nodes, k=np.ones(1, like))
    assert network.forward(np.array([1.7, -0.6])).tolist() == [1.7, -0.6]


def test_the_mask_of_a_dropout_is_true_outside_training(tmp_path: Path) -> None:
    nodes = [("Dropout", ["x"], ["z", "mask"], {}), ("Where", ["mask", "z", "k"], ["y"], {})]
    assert onnx_network(tmp_path, nodes, k=np.zeros((1, 2), np.float32)).forward(np.ones(2)).tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"reads 'mask', which is output 1 of 'z' \(Dropout\) and not known here"):
        onnx_network(tmp_path, nodes, opset=10, k=np.zeros((1, 2), np.float32))


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        ({"p": np.zeros(4, np.int64), "v": np.zeros(0, np.float32)}, "one number"),
        ({"p": np.zeros(2, np.int64), "v": np.zeros(1, np.float32), "a": np.array([2])}, "axes must be ones of −2 … 1"),
    ],
)
def test_inputs_of_pad_that_do_not_fit(tmp_path: Path, inputs: dict[str, np.ndarray], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        onnx_network(tmp_path, [("Pad", ["x", *inputs], ["y"], {})], opset=18, **inputs)
