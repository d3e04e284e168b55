"""Small files that ask for much: sizes are refused before anything of them is made."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.networks.importers import onnx_graphs, tensors
from toolkit.networks.importers.compiler import StageCompiler, shifted
from toolkit.networks.importers.onnx_files import load_model
from toolkit.networks.network import Network

KERNEL = {"k": np.ones((1, 1, 2, 2), np.float32)}
FAR = {"strides": [30000, 30000], "pads": [0, 0, 30000, 30000]}
HUGE = {"kernel_shape": [10**5, 10**5], "pads": [99998] * 4}
LONG = {"kernel_shape": [3 * 10**7, 1], "strides": [1, 1], "pads": [3 * 10**7 - 1, 0, 3 * 10**7 - 1, 0]}
ASKED: dict[str, tuple[str, dict[str, np.ndarray], dict[str, Any], str]] = {
    "strides": ("ConvTranspose", KERNEL, {"strides": [8000, 8000]}, "the outputs of a transposed convolution would be"),
    "pads": ("Conv", KERNEL, {"pads": [10**6] * 4}, "the outputs of a convolution would be 4,000,"),
    "uneven pads": ("Conv", KERNEL, FAR, "a kernel with uneven padding would need"),
    "uneven pads and their matrix": ("Conv", KERNEL, {"pads": [0, 0, 2000, 2000]}, "a kernel with uneven padding"),
    "a mean of much": ("AveragePool", {}, HUGE, "average pooling would need"),
    "a long mean": ("AveragePool", {}, LONG, "average pooling would need"),
    "many means": ("AveragePool", {}, {"kernel_shape": [1, 1], "pads": [10**5] * 4}, "the outputs of a convolution"),
    "a largest of much": ("MaxPool", {}, HUGE, "pooling would need"),
    "scales": ("Upsample", {"s": np.array([1, 1, 1e4, 1e4], np.float32)}, {}, "resized features would be"),
    "no size": ("Upsample", {"s": np.array([1, 1, 0.1, 1], np.float32)}, {}, "must leave every axis ≥ 1"),
    "two constants": (
        "Max",
        {"a": np.ones((10**5, 1), np.float32), "b": np.ones((1, 10**5), np.float32)},
        {},
        "the largest of constants would be",
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_small_file_that_asks_for_much(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra: onnx)")
    operator, constants, attributes, match = ASKED[name]
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", *constants], ["y"], **attributes)],
        "net",
        [helper.make_tensor_value_info("x", floats, [1, 1, 4, 4])],
        [helper.make_tensor_value_info("y", floats, ["a", "b", "c", "d"])],
        [onnx.numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 9 if operator == "Upsample" else 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "net.onnx")

    def loaded(path: Path) -> Any:
        model = load_model(path)
        tracemalloc.reset_peak()
        return model

    monkeypatch.setattr(onnx_graphs, "load_model", loaded)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match):
            Network.load(tmp_path / "net.onnx")
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_a_sum_of_constants_and_features_in_any_order(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra: onnx)")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Sum", ["a", "b", "x"], ["z"]), helper.make_node("Mean", ["a", "z", "b"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", floats, [1, 2])],
        [helper.make_tensor_value_info("y", floats, [1, 2])],
        [onnx.numpy_helper.from_array(np.array([value], np.float32), key) for key, value in (("a", 1), ("b", 2))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "n.onnx")
    np.testing.assert_allclose(Network.load(tmp_path / "n.onnx").forward(np.array([3.0, 0.0])), [3.0, 2.0], rtol=1e-15)


def test_stages_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "LARGEST", 100)
    compiler = StageCompiler((40,))
    x = compiler.relu(shifted(compiler.relu(compiler.input), np.array(-1.0)))
    with pytest.raises(ValueError, match="the ReLUs so far would be 120 numbers; at most 100 are stored"):
        compiler.relu(shifted(x, np.array(-1.0)))


@pytest.mark.parametrize(("name", "count"), [("expand", 10**11), ("repeat", 4 * 10**9), ("zeros", 10**10)])
def test_what_a_torch_module_asks_for(name: str, count: int) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra: torch)")
    makes = {
        "expand": lambda x: x[:, :1].expand(1, 10**11),
        "repeat": lambda x: x.repeat(1, 10**9),
        "zeros": lambda x: x + torch.zeros(10**10)[:4],
    }

    class Asking(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return makes[name](x)

    with pytest.raises(ValueError, match=f"what {name} gives would be {count:,} numbers"):
        Network.from_torch(Asking(), (4,))
