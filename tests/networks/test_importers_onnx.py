"""Networks from ONNX files compute what onnxruntime computes; anything else is refused with the operator's name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.networks.convolutions import Conv2d
from toolkit.networks.network import Network

onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra: onnx)")
RNG = np.random.default_rng(0)
IMAGE = (3, 7, 6)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


@dataclass
class Step:
    """One node: the operator, its inputs in order ("x" is the node before, arrays are constants), its attributes."""

    operator: str
    inputs: Sequence[Any] = ("x",)
    attributes: dict[str, Any] = field(default_factory=dict)
    constant_nodes: bool = False  # constants by Constant nodes in place of initializers


def build(steps: Sequence[Step], shape: Sequence[int], batch: int | str = "batch", opset: int = 17) -> Any:
    """An ONNX model of the steps in a row."""
    helper = onnx.helper
    nodes, initializers, current = [], [], "input"
    for k, step in enumerate(steps):
        names = []
        for j, given in enumerate(step.inputs):
            if isinstance(given, str):
                names.append(current if given == "x" else given)
                continue
            names.append(f"constant{k}_{j}")
            tensor = onnx.numpy_helper.from_array(np.asarray(given), names[-1])
            if step.constant_nodes:
                nodes.append(helper.make_node("Constant", [], [names[-1]], value=tensor))
            else:
                initializers.append(tensor)
        current = f"value{k}"
        nodes.append(helper.make_node(step.operator, names, [current], name=f"node{k}", **step.attributes))
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", floats, [batch, *shape])],
        [helper.make_tensor_value_info(current, floats, None)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return with_output_shape(model)


def with_output_shape(model: Any) -> Any:
    """The model with its output's shape filled in, as the checker asks; graphs that make no sense get any."""
    model = onnx.shape_inference.infer_shapes(model)
    output = model.graph.output[0]
    if not output.type.tensor_type.HasField("shape"):
        output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, ["batch", "n"]))
    return model


def load(model: Any, folder: Path) -> Network:
    onnx.save(model, folder / "model.onnx")
    return Network.from_onnx(folder / "model.onnx")


def runtime_output(model: Any, points: np.ndarray) -> np.ndarray:
    """onnxruntime's output, point by point, shape (k, outputs)."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra: onnx)")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = [session.run(None, {"input": point[None].astype(np.float32)})[0].ravel() for point in points]
    return np.asarray(found, dtype=np.float64)


def gemm(outputs: int, inputs: int, **attributes: Any) -> Step:
    return Step("Gemm", ("x", normal(outputs, inputs), normal(outputs)), {"transB": 1} | attributes)


def conv(*shape: int, **attributes: Any) -> Step:
    return Step("Conv", ("x", normal(*shape), normal(shape[0])), attributes)


def batch_norm(channels: int, **attributes: Any) -> Step:
    statistics = normal(channels), normal(channels), normal(channels), np.abs(normal(channels)) + np.float32(0.3)
    return Step("BatchNormalization", ("x", *statistics), attributes)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


RELU, FLATTEN = Step("Relu"), Step("Flatten")
MEAN, STD = np.array([0.1, 0.2, 0.3], np.float32).reshape(1, 3, 1, 1), np.float32(0.4)
GRAPHS: dict[str, tuple[list[Step], tuple[int, ...]]] = {
    "gemm": ([gemm(5, 6), RELU, gemm(4, 5), RELU, gemm(3, 4)], (6,)),
    "gemm untransposed": ([Step("Gemm", ("x", normal(6, 5), normal(1, 5)))], (6,)),
    "gemm of a square matrix": ([Step("Gemm", ("x", normal(6, 6), normal(6))), RELU, gemm(6, 6)], (6,)),
    "gemm alpha beta": ([gemm(5, 6, alpha=0.3, beta=-2.0), RELU, gemm(3, 5)], (6,)),
    "gemm without C": ([Step("Gemm", ("x", normal(6, 5))), RELU], (6,)),
    "gemm scalar C": ([Step("Gemm", ("x", normal(6, 5), np.float32(0.7)))], (6,)),
    "gemm constants from nodes": ([Step("Gemm", ("x", normal(6, 5), normal(5)), {}, True), RELU], (6,)),
    "matmul and add": (
        [Step("MatMul", ("x", normal(6, 5))), Step("Add", ("x", normal(5))), RELU, Step("MatMul", ("x", normal(5, 3)))],
        (6,),
    ),
    "add from the left": ([Step("MatMul", ("x", normal(6, 5))), Step("Add", (normal(1, 5), "x"))], (6,)),
    "matmul on 1×1×n": (
        [Step("MatMul", ("x", normal(6, 5))), Step("Add", ("x", normal(5))), FLATTEN, gemm(2, 5)],
        (1, 1, 6),
    ),
    "consecutive gemm": ([gemm(5, 6), gemm(4, 5), RELU, gemm(3, 4)], (6,)),
    "conv": ([conv(4, 3, 3, 2), RELU, FLATTEN, gemm(3, 100)], IMAGE),
    "conv geometry": (
        [conv(6, 1, 3, 2, pads=[1, 2, 1, 2], strides=[2, 1], dilations=[1, 2], group=3, kernel_shape=[3, 2]), RELU],
        IMAGE,
    ),
    "conv uneven pads": ([conv(4, 3, 3, 2, pads=[0, 2, 1, 0], strides=[2, 1], dilations=[2, 1]), RELU], IMAGE),
    "conv same upper": ([conv(4, 3, 4, 3, auto_pad="SAME_UPPER", strides=[2, 2]), RELU], IMAGE),
    "conv same lower": ([conv(4, 3, 4, 3, auto_pad="SAME_LOWER", strides=[1, 2]), RELU], IMAGE),
    "conv valid": ([conv(4, 3, 3, 3, auto_pad="VALID"), RELU], IMAGE),
    "conv without bias": ([Step("Conv", ("x", normal(2, 3, 3, 3))), RELU], IMAGE),
    "batch norm after conv": ([conv(4, 3, 3, 3, pads=[1, 1, 1, 1]), batch_norm(4, epsilon=0.01), RELU], IMAGE),
    "batch norm before conv": ([batch_norm(3), conv(4, 3, 3, 3, pads=[1, 1, 1, 1]), RELU], IMAGE),
    "batch norm after gemm": ([gemm(5, 6), batch_norm(5), RELU, gemm(3, 5)], (6,)),
    "normalised, padded conv": (
        [Step("Sub", ("x", MEAN)), Step("Div", ("x", STD), {}, True), conv(4, 3, 3, 3, pads=[1, 1, 1, 1]), RELU],
        IMAGE,
    ),
    "normalised by Mul and Add": ([Step("Mul", (STD, "x")), Step("Add", ("x", -MEAN)), conv(2, 3, 3, 3)], IMAGE),
    "mean image": ([Step("Sub", ("x", normal(1, *IMAGE))), conv(4, 3, 3, 3, pads=[1, 1, 1, 1]), RELU], IMAGE),
    "constant minus x": ([Step("Sub", (normal(5), "x")), RELU, gemm(3, 5)], (5,)),
    "reshape with -1": ([Step("Reshape", ("x", ints(-1, 126))), gemm(3, 126)], IMAGE),
    "reshape with 0": ([conv(2, 3, 7, 1), Step("Reshape", ("x", ints(0, -1))), gemm(3, 12)], IMAGE),
    "reshape to an image": ([Step("Reshape", ("x", ints(1, 3, 7, 6))), conv(2, 3, 3, 3), RELU], (126,)),
    "identity and dropout": (
        [gemm(5, 6), Step("Identity"), RELU, Step("Dropout", ("x", np.float32(0.5), np.bool_(False))), gemm(3, 5)],
        (6,),
    ),
    "average pooling": (
        [conv(2, 3, 2, 1), RELU, Step("AveragePool", ("x",), {"kernel_shape": [2, 3], "strides": [1, 2]}), FLATTEN],
        IMAGE,
    ),
    "average pooling, padded": (
        [Step("AveragePool", ("x",), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}), RELU],
        IMAGE,
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_forward_agrees_with_onnxruntime(name: str, tmp_path: Path) -> None:
    steps, shape = GRAPHS[name]
    model = build(steps, shape)
    net = load(model, tmp_path)
    assert net.input_shape == shape
    points = np.random.default_rng(1).uniform(-1, 1, (5, *shape)).astype(np.float32)
    expected = runtime_output(model, points)
    np.testing.assert_allclose(net.forward(points), expected, rtol=0, atol=1e-6 * max(1.0, np.abs(expected).max()))


def test_a_fixed_batch_of_one_and_old_style_initializers(tmp_path: Path) -> None:
    model = build(GRAPHS["gemm"][0], (6,), batch=1)
    for tensor in model.graph.initializer:  # before IR version 4, initializers were listed as inputs too
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    net = load(model, tmp_path)
    assert (net.name, net.relu_sizes, net.output_size) == ("model", (5, 4), 3)


def test_constants_of_every_written_form(tmp_path: Path) -> None:
    make = onnx.helper.make_node
    nodes = [
        make("Constant", [], ["half"], value_float=0.5),
        make("Constant", [], ["raw"], value_floats=[1.0, 2.0, 3.0]),
        make("Identity", ["raw"], ["shift"]),
        make("Constant", [], ["shape"], value_ints=[1, 3]),
        make("Mul", ["input", "half"], ["scaled"]),
        make("Add", ["scaled", "shift"], ["shifted"]),
        make("Reshape", ["shifted", "shape"], ["output"]),
    ]
    info = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3]) for name in ("input", "output")]
    graph = onnx.helper.make_graph(nodes, "net", info[:1], info[1:])
    net = load(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), tmp_path)
    np.testing.assert_allclose(net.forward([2.0, -4.0, 6.0]), [2.0, 0.0, 6.0], atol=1e-15)


def test_normalisation_stays_a_convolution(tmp_path: Path) -> None:
    first = load(build(*GRAPHS["normalised, padded conv"]), tmp_path).layers[0]
    assert isinstance(first, Conv2d)
    assert first.bias.shape == (first.output_size,)


def branching() -> Any:
    """x + Relu(Wx): the residual connection a sequential network does not have."""
    return build([gemm(6, 6), RELU, Step("Add", ("x", "input"))], (6,))


def two_outputs() -> Any:
    model = build([gemm(6, 6), RELU], (6,))
    model.graph.output.append(onnx.helper.make_tensor_value_info("value0", onnx.TensorProto.FLOAT, ["batch", 6]))
    return model


def foreign_operator() -> Any:
    model = step("Gemm", "x", normal(6, 2))
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    return model


def early_output() -> Any:
    model = build([gemm(6, 6), RELU], (6,))
    model.graph.output[0].name = "value0"
    return model


def step(operator: str, *inputs: Any, **attributes: Any) -> Any:
    """A model of one node on six features."""
    return build([Step(operator, inputs or ("x",), attributes)], (6,))


def image_step(operator: str, *inputs: Any, **attributes: Any) -> Any:
    return build([Step(operator, inputs or ("x",), attributes)], IMAGE)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "sigmoid": (
        lambda: build([gemm(3, 6), Step("Sigmoid")], (6,)),
        r"'node1' \(Sigmoid\).*Sigmoid is not supported; allowed: ",
    ),
    "max pooling": (lambda: image_step("MaxPool", kernel_shape=[2, 2]), "MaxPool is not supported"),
    "transpose": (lambda: image_step("Transpose"), "Transpose is not supported"),
    "cast": (lambda: step("Cast", to=1), "Cast is not supported"),
    "softmax": (lambda: step("Softmax"), "Softmax is not supported"),
    "residual": (branching, r"'node2' \(Add\): must read 'value1', .* only sequential graphs"),
    "x times x": (lambda: step("Mul", "x", "x"), r"\(Mul\): must read 'input'"),
    "two outputs": (two_outputs, "one input and one output, got 1 and 2"),
    "early output": (early_output, "the output 'value0' is not the last node's"),
    "gemm transA": (lambda: step("Gemm", "x", normal(1, 5), transA=1), "transA must be 0"),
    "gemm by features": (lambda: step("Gemm", normal(4, 1), "x"), r"\(Gemm\): the features must be input A"),
    "matmul from the left": (lambda: step("MatMul", normal(4, 1), "x"), "the features must be input A"),
    "matmul on an image": (lambda: image_step("MatMul", "x", normal(6, 5)), r"shape \(3, 7, 6\); flatten first"),
    "divided by x": (lambda: step("Div", normal(6), "x"), r"\(Div\): the features must be input 0"),
    "divided by 0": (lambda: step("Div", "x", np.zeros(6, np.float32)), "divisor must not be 0"),
    "widening add": (lambda: step("Add", "x", normal(4, 6)), "do not broadcast to features of shape"),
    "conv of wrong channels": (lambda: image_step("Conv", "x", normal(2, 2, 3, 3)), "does not fit 3 input channels"),
    "1-D conv": (lambda: build([Step("Conv", ("x", normal(2, 3, 3)))], (3, 9)), "only 2-D convolutions"),
    "flatten with the batch": (lambda: image_step("Flatten", axis=0), "axis must be 1"),
    "flatten a part": (lambda: image_step("Flatten", axis=2), "axis must be 1"),
    "reshape across the batch": (lambda: image_step("Reshape", "x", ints(-1, 63)), "must keep the batch axis"),
    "reshape to one axis": (lambda: image_step("Reshape", "x", ints(-1)), "must keep the batch axis"),
    "reshape to a batch of two": (lambda: image_step("Reshape", "x", ints(2, 126)), "must keep the batch axis"),
    "reshape of other size": (lambda: image_step("Reshape", "x", ints(1, 100)), r"the 126 features of \(3, 7, 6\)"),
    "training dropout": (lambda: step("Dropout", "x", np.float32(0.5), np.bool_(True)), "training_mode must be false"),
    "pooling over the border": (
        lambda: image_step("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        "count_include_pad 1 where there is padding",
    ),
    "no batch axis": (lambda: build([RELU], (), batch=6), r"first axis for the batch \(symbolic or 1\), got \[6\]"),
    "batch of two": (lambda: build([gemm(3, 6)], (6,), batch=2), r"got \[2, 6\]"),
    "symbolic features": (lambda: build([gemm(3, 6)], ("n",)), "fixed sizes after the batch axis"),  # type: ignore[arg-type]
    "old operators": (lambda: build([gemm(3, 6)], (6,), opset=6), "operator set must be one of 7 … [0-9]+, got"),
    "no affine map": (lambda: build([RELU], (6,)), "at least one affine map"),
    "nan weight": (
        lambda: step("Gemm", "x", np.full((6, 2), np.nan, np.float32)),
        "Dense weight must be finite, got nan",
    ),
    "foreign operator": (foreign_operator, "Gemm of com.example is not supported"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_graphs_are_refused(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    (tmp_path / "model.onnx").write_bytes(make().SerializeToString())
    with pytest.raises(ValueError, match=rf"model\.onnx: .*{message}") as caught:
        Network.load(tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"plainly no protobuf", bytes(range(256))])
def test_corrupt_files_are_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.onnx: not a valid ONNX model: .") as caught:
        Network.load(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    whole = build(GRAPHS["gemm"][0], (6,)).SerializeToString()
    path = tmp_path / "cut.onnx"
    for kept in (10, len(whole) // 3, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=r"cut\.onnx: .") as caught:
            Network.load(path)
        assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no ONNX file at .*none\.onnx"):
        Network.from_onnx(tmp_path / "none.onnx")


def test_without_onnx_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"needs onnx: pip install 'relugap\[onnx\]'"):
        Network.load(tmp_path / "model.onnx")
