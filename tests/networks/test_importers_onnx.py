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


def runtime_session(model: Any) -> Any:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra: onnx)")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def runtime_output(model: Any, points: np.ndarray) -> np.ndarray:
    """onnxruntime's output, point by point, shape (k, outputs)."""
    session = runtime_session(model)
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


# graphs that were refused while only chains were imported: steps, the input's shape, its batch axis (None: none)
BRANCHED: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "max pooling": (lambda: image_step("MaxPool", kernel_shape=[2, 2]), IMAGE),
    "transpose": (lambda: image_step("Transpose"), IMAGE),
    "cast": (lambda: step("Cast", to=1), (6,)),
    "residual": (branching, (6,)),
    "early output": (early_output, (6,)),
    "gemm transA": (lambda: build([Step("Gemm", ("x", normal(1, 5)), {"transA": 1})], (6,)), (6,)),
    "gemm by features": (lambda: build([Step("Gemm", (normal(4, 1), "x"))], (6,)), (6,)),
    "matmul from the left": (lambda: build([Step("MatMul", (normal(4, 1), "x"))], (6,)), (6,)),
    "matmul on an image": (lambda: image_step("MatMul", "x", normal(6, 5)), IMAGE),
    "widening add": (lambda: step("Add", "x", normal(4, 6)), (6,)),
    "1-D conv": (lambda: build([Step("Conv", ("x", normal(2, 3, 3)))], (3, 9)), (3, 9)),
    "flatten with the batch": (lambda: image_step("Flatten", axis=0), IMAGE),
    "flatten a part": (lambda: image_step("Flatten", axis=2), IMAGE),
    "reshape across the batch": (lambda: image_step("Reshape", "x", ints(-1, 63)), IMAGE),
    "reshape to one axis": (lambda: image_step("Reshape", "x", ints(-1)), IMAGE),
    "reshape to a batch of two": (lambda: image_step("Reshape", "x", ints(2, 63)), IMAGE),
    "pooling over the border": (lambda: image_step("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), IMAGE),
    "no affine map": (lambda: build([RELU], (6,)), (6,)),
    "max with 0": (lambda: build([Step("Max", ("x", np.float32(0)))], (6,)), (6,)),
}


@pytest.mark.parametrize("name", BRANCHED)
def test_what_is_no_chain_agrees_with_onnxruntime(name: str, tmp_path: Path) -> None:
    make, shape = BRANCHED[name]
    model = make()
    net = load(model, tmp_path)
    assert net.input_shape == shape
    points = np.random.default_rng(1).uniform(-1, 1, (5, *shape)).astype(np.float32)
    expected = runtime_output(model, points)
    np.testing.assert_allclose(net.forward(points), expected, rtol=0, atol=1e-6 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize(("batch", "shape"), [(6, ()), (2, (6,)), (1, (4, 1))])
def test_inputs_without_a_batch_axis(batch: int, shape: tuple[int, ...], tmp_path: Path) -> None:
    model = build([Step("MatMul", ("x", normal(6, 5))) if 6 in (batch, *shape) else Step("Neg"), RELU], shape, batch)
    net = load(model, tmp_path)
    assert net.input_shape == (shape if batch == 1 else (batch, *shape))
    point = np.random.default_rng(1).uniform(-1, 1, (batch, *shape)).astype(np.float32)
    session = runtime_session(model)
    expected = session.run(None, {"input": point})[0].ravel()
    np.testing.assert_allclose(net.forward(point.ravel()), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax", "Sigmoid"])
def test_a_final_operator_that_keeps_the_order_is_left_out_and_that_is_said(operator: str, tmp_path: Path) -> None:
    steps = [gemm(5, 6), RELU, gemm(4, 5)]
    model = build([*steps, Step(operator), Step("Identity")], (6,))
    net = load(model, tmp_path)
    assert net.metadata["dropped"] == f"the final {operator}, which keeps the order of the outputs"
    points = np.random.default_rng(1).uniform(-1, 1, (20, 6)).astype(np.float32)
    np.testing.assert_array_equal(
        np.argsort(net.forward(points), axis=1), np.argsort(runtime_output(model, points), axis=1)
    )
    assert "dropped" not in load(build(steps, (6,)), tmp_path).metadata
    whole = build([*steps, Step(operator), Step("Cast", ("x",), {"to": 7})], (6,))  # to integers: ties that were none
    with pytest.raises(ValueError, match=operator):
        load(whole, tmp_path)


def test_all_obstacles_are_named_at_once_with_their_kind(tmp_path: Path) -> None:
    steps = [gemm(5, 6), Step("Tanh"), gemm(5, 5), Step("Floor"), Step("Mul", ("x", "input")), Step("Round")]
    with pytest.raises(ValueError, match=r"\(Tanh\)") as caught:
        load(build(steps, (6,)), tmp_path)
    text = str(caught.value)
    assert "operator Tanh is not supported: it is not piecewise linear" in text
    assert "operator Floor is not supported: it is not continuous" in text
    assert "'node5' (Round)" in text
    assert text.count("is not supported") == 3
    assert "(Mul)" not in text


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "sigmoid": (
        lambda: build([gemm(3, 6), Step("Sigmoid"), gemm(3, 3)], (6,)),
        r"'node1' \(Sigmoid\).*Sigmoid is not supported: it is not piecewise linear",
    ),
    "softmax over parts": (
        lambda: build([conv(4, 3, 3, 3), Step("Softmax", ("x",), {"axis": 1})], IMAGE),
        "Softmax acts on 4 of the 80 outputs",
    ),
    "x times x": (lambda: step("Mul", "x", "x"), r"\(Mul\): the product of two values .* not piecewise linear"),
    "x times x by MatMul": (lambda: build([Step("MatMul", ("x", "input"))], (6,), 6), r"the product of two values"),
    "two outputs": (two_outputs, "one input and one output, got 1 and 2"),
    "constant output": (lambda: step("Mul", normal(1, 6), normal(1, 6)), "does not depend on the input"),
    "divided by x": (lambda: step("Div", normal(6), "x"), r"\(Div\): division by a value that depends"),
    "divided by 0": (lambda: step("Div", "x", np.zeros(6, np.float32)), "divisor must not be 0"),
    "cast to integers": (lambda: step("Cast", to=7), "to INT64 is not continuous"),
    "conv of wrong channels": (lambda: image_step("Conv", "x", normal(2, 2, 3, 3)), "does not fit 3 input channels"),
    "3-D conv": (
        lambda: build([Step("Conv", ("x", normal(2, 3, 3, 3, 3)))], (3, 9, 9, 9)),
        "only 1-D and 2-D convolutions",
    ),
    "reshape to a batch of two": (lambda: image_step("Reshape", "x", ints(2, 126)), r"\(Reshape\): "),
    "reshape of other size": (lambda: image_step("Reshape", "x", ints(1, 100)), r"\(Reshape\): "),
    "training dropout": (lambda: step("Dropout", "x", np.float32(0.5), np.bool_(True)), "training_mode must be false"),
    "two symbolic axes": (lambda: build([gemm(3, 6)], ("n",)), "fixed sizes but for a first axis"),  # type: ignore[arg-type]
    "only a symbolic axis": (lambda: build([RELU], ()), "fixed sizes but for a first axis"),
    "old operators": (lambda: build([gemm(3, 6)], (6,), opset=6), "operator set must be one of 7 … [0-9]+, got"),
    "nan weight": (
        lambda: step("Gemm", "x", np.full((6, 2), np.nan, np.float32)),
        "Dense weight must be finite, got nan",
    ),
    "foreign operator": (foreign_operator, "Gemm of com.example is not supported"),
    "cumulative sums": (
        lambda: build([Step("CumSum", ("x", np.int64(1))), RELU], (6,)),
        r"\(CumSum\): operator CumSum is not supported: it is piecewise linear",
    ),
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
    with pytest.raises(ValueError, match=r"needs onnx: pip install .relugap\[onnx\]."):
        Network.load(tmp_path / "model.onnx")
