"""Every operand of every ONNX operator may be the features: what loads computes what onnxruntime computes, the rest is
refused with the operator's name. No handler reads an input that it does not look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.networks.network import Network

onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra: onnx)")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra: onnx)")
FLOAT = onnx.TensorProto.FLOAT
node, value_info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return np.abs(normal(*shape)) + np.float32(0.3)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def model(
    nodes: list[Any],
    constants: dict[str, np.ndarray],
    shape: list[Any],
    opset: int = 17,
    kind: int = FLOAT,
    output: str = "y",
) -> Any:
    """A model from x to y with the given initializers; y's shape is inferred."""
    tensors = [onnx.numpy_helper.from_array(values, key) for key, values in constants.items()]
    graph = onnx.helper.make_graph(
        nodes, "net", [value_info("x", kind, shape)], [value_info(output, kind, None)], tensors
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(made)
    if not inferred.graph.output[0].type.tensor_type.HasField("shape"):
        inferred.graph.output[0].CopyFrom(value_info(output, kind, [1, "n"]))
    return inferred


def saved(made: Any, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def session(path: Path) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def assert_agrees(path: Path, shape: list[int]) -> None:
    """The network's outputs are onnxruntime's at points of three sizes, to float32's rounding."""
    net, run = Network.load(path), session(path)
    for scale in (0.01, 1.0, 100.0):
        for point in np.random.default_rng(1).uniform(-scale, scale, (4, *shape)).astype(np.float32):
            expected = np.asarray(run.run(None, {"x": point})[0], dtype=np.float64).ravel()
            found = net.forward(point.astype(np.float64).ravel())
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * max(1.0, scale))


# operator → attributes, and a value for every operand that fits beside features of shape (1, 4), (1, 1) or an image
OPERANDS: dict[str, tuple[dict[str, Any], list[np.ndarray]]] = {
    "Gemm": ({"alpha": 0.7, "beta": -1.5}, [normal(1, 4), normal(4, 4), normal(1, 4)]),
    "MatMul": ({}, [normal(1, 4), normal(4, 4)]),
    "Add": ({}, [normal(1, 4), normal(1, 4)]),
    "Sub": ({}, [normal(1, 4), normal(1, 4)]),
    "Mul": ({}, [normal(1, 4), normal(1, 4)]),
    "Div": ({}, [positive(1, 4), positive(1, 4)]),
    "Conv": ({}, [normal(1, 1, 3, 3), normal(1, 1, 2, 2), normal(1)]),
    "BatchNormalization": ({}, [normal(1, 4), normal(4), normal(4), normal(4), positive(4)]),
    "Dropout": ({}, [normal(1, 4), np.array(0.5, np.float32), np.array(False)]),
    "Reshape": ({}, [normal(1, 4), ints(1, 4)]),
    "AveragePool": ({"kernel_shape": [2, 2]}, [normal(1, 1, 3, 3)]),
    "Relu": ({}, [normal(1, 4)]),
    "Flatten": ({}, [normal(1, 4)]),
    "Identity": ({}, [normal(1, 4)]),
    "Sum": ({}, [normal(1, 4), normal(1, 4)]),
    "Mean": ({}, [normal(1, 4), normal(1, 4)]),
    "Neg": ({}, [normal(1, 4)]),
    "LeakyRelu": ({"alpha": 0.3}, [normal(1, 4)]),
    "PRelu": ({}, [normal(1, 4), normal(1, 4)]),
    "Clip": ({}, [normal(1, 4), np.array(-0.2, np.float32), np.array(0.3, np.float32)]),
    "Abs": ({}, [normal(1, 4)]),
    "HardSigmoid": ({}, [normal(1, 4)]),
    "Max": ({}, [normal(1, 4), normal(1, 4)]),
    "Min": ({}, [normal(1, 4), normal(1, 4)]),
    "ReduceSum": ({}, [normal(1, 4), ints(1)]),
    "ReduceMean": ({}, [normal(1, 4)]),
    "ReduceMax": ({"axes": [1]}, [normal(1, 4)]),
    "ReduceMin": ({"axes": [-1]}, [normal(1, 4)]),
    "ConvTranspose": ({"strides": [2, 2]}, [normal(1, 1, 3, 3), normal(1, 1, 2, 2), normal(1)]),
    "MaxPool": ({"kernel_shape": [2, 2]}, [normal(1, 1, 3, 3)]),
    "GlobalAveragePool": ({}, [normal(1, 1, 3, 3)]),
    "GlobalMaxPool": ({}, [normal(1, 1, 3, 3)]),
    "Pad": ({}, [normal(1, 4), ints(0, 1, 0, 2), np.array(0.7, np.float32)]),
    "Cast": ({"to": FLOAT}, [normal(1, 4)]),
    "CastLike": ({}, [normal(1, 4), normal(1)]),
    "Concat": ({"axis": 1}, [normal(1, 4), normal(1, 4)]),
    "Where": ({}, [np.array([[True, False, True, False]]), normal(1, 4), normal(1, 4)]),
    "ScatterND": ({}, [normal(1, 4), np.array([[0, 1]], np.int64), normal(1)]),
    "ScatterElements": ({"axis": 1}, [normal(1, 4), ints(1).reshape(1, 1), normal(1, 1)]),
    "Transpose": ({"perm": [1, 0]}, [normal(1, 4)]),
    "Squeeze": ({}, [normal(1, 4), ints(0)]),
    "Unsqueeze": ({}, [normal(1, 4), ints(0)]),
    "Expand": ({}, [normal(1, 4), ints(2, 4)]),
    "Tile": ({}, [normal(1, 4), ints(1, 2)]),
    "Slice": ({}, [normal(1, 4), ints(1), ints(3), ints(1)]),
    "Split": ({"axis": 1}, [normal(1, 4), ints(4)]),
    "Gather": ({"axis": 1}, [normal(1, 4), ints(2, 0)]),
    "GatherElements": ({"axis": 1}, [normal(1, 4), ints(2, 0).reshape(1, 2)]),
    "GatherND": ({}, [normal(1, 4), np.array([[0, 1]], np.int64)]),
    "DepthToSpace": ({"blocksize": 2}, [normal(1, 4, 2, 2)]),
    "SpaceToDepth": ({"blocksize": 2}, [normal(1, 1, 4, 4)]),
    "Resize": (
        {"mode": "nearest"},
        [normal(1, 1, 3, 3), np.zeros(0, np.float32), np.array([1, 1, 2, 2], np.float32)],
    ),
}
ELSEWHERE = ("Shape", "Size", "Upsample")  # computed shapes have their own tests, Upsample is of old operator sets
LOADS = {(operator, 0) for operator in OPERANDS}
LOADS |= {(operator, 1) for operator in ("Sum", "Mean", "Max", "Min", "Concat", "Where")} | {("Where", 2)}
LOADS |= {("ScatterND", 2), ("ScatterElements", 2)}
LOADS -= {("Where", 0)}
LOADS |= {("Add", 1), ("Sub", 1), ("Mul", 1), ("Gemm", 1), ("MatMul", 1)}
PLACES = [(operator, place) for operator, (_, operands) in OPERANDS.items() for place in range(len(operands))]


@pytest.mark.parametrize(("operator", "place"), PLACES)
def test_the_features_in_every_place_of_every_operator(operator: str, place: int, tmp_path: Path) -> None:
    attributes, operands = OPERANDS[operator]
    constants = {f"c{k}": operand for k, operand in enumerate(operands) if k != place}
    names = ["x" if k == place else f"c{k}" for k in range(len(operands))]
    nodes = [node(operator, names, ["h"], **attributes), node("Mul", ["h", "two"], ["y"])]
    shape = [int(n) for n in operands[place].shape] or [1, 1]
    path = saved(model(nodes, constants | {"two": np.array(2, np.float32)}, shape), tmp_path)
    if (operator, place) in LOADS:
        assert_agrees(path, shape)
        return
    with pytest.raises(ValueError, match=r"net\.onnx: ") as caught:
        Network.load(path)
    try:
        session(path)
    except Exception:  # not a model at all: any reason for refusing it will do
        return
    assert any(part in str(caught.value) for part in (f"({operator})", "of type FLOAT", "must have fixed sizes"))


def test_every_supported_operator_has_its_operands_here() -> None:
    from toolkit.networks.importers.onnx_operators import ONNX_HANDLERS

    assert set(ONNX_HANDLERS) == set(OPERANDS) | set(ELSEWHERE)


def test_a_moving_c_of_gemm_and_a_moving_bias_of_conv_are_refused(tmp_path: Path) -> None:
    """Both used to be read as the other operand: Gemm(A, B, x) as x·B, Conv(X, W, x) as a convolution of x."""
    gemm = model([node("Gemm", ["A", "B", "x"], ["y"])], {"A": normal(1, 4), "B": normal(4, 4)}, [1, 4])
    with pytest.raises(ValueError, match=r"\(Gemm\): the features must be input A or B"):
        Network.load(saved(gemm, tmp_path))
    constants = {"X": normal(1, 1, 3, 3), "W": normal(1, 1, 2, 2)}
    conv = model([node("Conv", ["X", "W", "x"], ["y"])], constants, [1])
    with pytest.raises(ValueError, match=r"\(Conv\): the features must be input X, the others constants"):
        Network.load(saved(conv, tmp_path))


GEMM = {"W": normal(4, 4), "V": normal(4, 3)}
TWICE: dict[str, tuple[list[Any], dict[str, np.ndarray]]] = {
    "skip connection": ([node("Relu", ["x"], ["h"]), node("Add", ["h", "x"], ["y"])], {}),
    "x + x": ([node("Add", ["x", "x"], ["y"])], {}),
    "x - x behind a Relu": (
        [node("Relu", ["x"], ["h"]), node("Sub", ["h", "h"], ["z"]), node("Add", ["z", "x"], ["y"])],
        {},
    ),
    "sum of two branches": (
        [node("MatMul", ["x", "W"], ["a"]), node("Relu", ["x"], ["b"]), node("Add", ["a", "b"], ["y"])],
        GEMM,
    ),
    "an inner value used twice": (
        [
            node("MatMul", ["x", "W"], ["h"]),
            node("Relu", ["h"], ["r"]),
            node("Relu", ["r"], ["s"]),
            node("Sub", ["s", "h"], ["y"]),
        ],
        GEMM,
    ),
    "C of Gemm is x": ([node("Gemm", ["x", "W", "x"], ["y"], beta=-0.3)], GEMM),
    "branches of different depth": (
        [
            node("MatMul", ["x", "W"], ["a"]),
            node("Relu", ["a"], ["b"]),
            node("MatMul", ["b", "W"], ["c"]),
            node("Relu", ["c"], ["d"]),
            node("Concat", ["x", "d", "b", "k"], ["e"], axis=1),
            node("Split", ["e"], ["f", "g"], axis=1, num_outputs=2),
            node("Sub", ["f", "g"], ["h"]),
            node("Max", ["h", "f", "g"], ["m"]),
            node("Min", ["m", "x0"], ["y"]),
        ],
        GEMM | {"k": normal(1, 4), "x0": normal(1, 1)},
    ),
}
TRULY: dict[str, tuple[list[Any], str]] = {
    "x · x": ([node("Mul", ["x", "x"], ["y"])], "the product of two values"),
    "x · xᵀ": ([node("MatMul", ["x", "W"], ["h"]), node("Mul", ["h", "x"], ["y"])], "the product of two values"),
}


@pytest.mark.parametrize("name", TWICE)
def test_a_value_may_be_used_twice(name: str, tmp_path: Path) -> None:
    nodes, constants = TWICE[name]
    assert_agrees(saved(model(nodes, constants, [1, 4], opset=18), tmp_path), [1, 4])


@pytest.mark.parametrize("name", TRULY)
def test_products_of_features_are_refused(name: str, tmp_path: Path) -> None:
    nodes, message = TRULY[name]
    with pytest.raises(ValueError, match=rf"net\.onnx: node .*{message}"):
        Network.load(saved(model(nodes, GEMM, [1, 4]), tmp_path))


def test_batch_norm_in_training_mode_is_refused_in_every_operator_set(tmp_path: Path) -> None:
    statistics = {"s": normal(4), "b": normal(4), "m": normal(4), "v": positive(4)}
    inputs = ["x", "s", "b", "m", "v"]
    old = model([node("BatchNormalization", inputs, ["y", "m1", "v1", "m2", "v2"])], statistics, [1, 4], opset=9)
    with pytest.raises(ValueError, match="training mode"):
        Network.load(saved(old, tmp_path))
    new = model([node("BatchNormalization", inputs, ["y"], training_mode=1)], statistics, [1, 4])
    with pytest.raises(ValueError, match=r"training_mode must be 0|Training_mode"):
        Network.load(saved(new, tmp_path))
    for opset in (7, 9, 14, 15):
        path = saved(model([node("BatchNormalization", inputs, ["y"])], statistics, [1, 4], opset=opset), tmp_path)
        assert_agrees(path, [1, 4])


def test_batch_norms_default_epsilon_is_float32s(tmp_path: Path) -> None:
    """With variance 0 the output is scale·x/√ε, so ε shows: the file's is the float32 nearest to 1e-5."""
    statistics = {"s": np.ones(2, np.float32), "b": np.zeros(2, np.float32)}
    statistics |= {"m": np.zeros(2, np.float32), "v": np.zeros(2, np.float32)}
    path = saved(model([node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"])], statistics, [1, 2]), tmp_path)
    expected = 1 / np.sqrt(np.float64(np.float32(1e-5)))
    np.testing.assert_allclose(Network.load(path).forward([1.0, 0.0]), [expected, 0.0], rtol=1e-15)


def test_integer_arithmetic_is_refused(tmp_path: Path) -> None:
    """Div of whole numbers truncates; so does everything behind an integer input."""
    kind = onnx.TensorProto.INT32
    made = model([node("Div", ["x", "c"], ["y"])], {"c": np.array([[2, 3]], np.int32)}, [1, 2], kind=kind)
    with pytest.raises(ValueError, match="input 'x' must be of type FLOAT, DOUBLE, FLOAT16, BFLOAT16, got INT32"):
        Network.load(saved(made, tmp_path))
    mixed = model([node("Mul", ["x", "c"], ["y"])], {"c": np.array([[2, 3]], np.int32)}, [1, 2])
    with pytest.raises(ValueError, match=r"net\.onnx: "):
        Network.load(saved(mixed, tmp_path))


def test_names_with_two_meanings_are_refused(tmp_path: Path) -> None:
    shadow = model(
        [
            node("Constant", [], ["W"], value=onnx.numpy_helper.from_array(normal(4, 3))),
            node("MatMul", ["x", "W"], ["y"]),
        ],
        {},
        [1, 4],
    )
    shadow.graph.initializer.append(onnx.numpy_helper.from_array(normal(4, 3), "W"))
    twice = model([node("MatMul", ["x", "W"], ["y"])], {"W": normal(4, 3)}, [1, 4])
    twice.graph.initializer.append(onnx.numpy_helper.from_array(normal(4, 3), "W"))
    for made in (shadow, twice):
        with pytest.raises(ValueError, match=r"net\.onnx: "):
            Network.load(saved(made, tmp_path))


def test_an_initializer_that_is_an_input_keeps_the_files_value(tmp_path: Path) -> None:
    made = model([node("MatMul", ["x", "W"], ["y"])], {"W": normal(4, 3)}, [1, 4])
    made.graph.input.append(value_info("W", FLOAT, [4, 3]))
    assert_agrees(saved(made, tmp_path), [1, 4])
    del made.graph.initializer[:]  # now it is a second input
    with pytest.raises(ValueError, match="one input and one output, got 2 and 1"):
        Network.load(saved(made, tmp_path))


def test_functions_and_two_operator_sets_are_refused(tmp_path: Path) -> None:
    made = model([node("Relu", ["x"], ["h"]), node("Mul", ["h", "c"], ["y"])], {"c": normal(1, 4)}, [1, 4])
    sets = [onnx.helper.make_opsetid("", 17)]
    made.functions.append(onnx.helper.make_function("", "Relu", ["a"], ["b"], [node("Neg", ["a"], ["b"])], sets))
    with pytest.raises(ValueError, match=r"functions of the file's own are not supported, got 'Relu'|not a valid ONNX"):
        Network.load(saved(made, tmp_path))
    del made.functions[:]
    made.opset_import.append(onnx.helper.make_opsetid("ai.onnx", 9))
    with pytest.raises(ValueError, match=r"net\.onnx: "):
        Network.load(saved(made, tmp_path))
    del made.opset_import[:]
    made.opset_import.append(onnx.helper.make_opsetid("", 9999))
    with pytest.raises(ValueError, match=r"operator set must be one of 7 … [0-9]+, got \[9999\]"):
        Network.load(saved(made, tmp_path))


@pytest.mark.parametrize(
    ("operator", "operands", "attributes", "message"),
    [
        ("Conv", [normal(1, 1, 2, 2)], {"kernel_shape": [3, 3]}, "kernel_shape|not a valid ONNX model"),
        ("Conv", [normal(1, 1, 2, 2), normal(4)], {}, "B must have shape|not a valid ONNX model"),
        ("BatchNormalization", [normal(1)] * 3 + [positive(2)], {}, "must have shape|not a valid ONNX model"),
        ("Reshape", [ints(-1, 2, 1)], {}, r"\(Reshape\): "),
        ("Reshape", [ints(0, 0, 9)], {"allowzero": 1}, r"\(Reshape\): |not a valid ONNX model"),
        ("Pad", [ints(0, 0, 1, 1)], {}, "pads must be two numbers per axis"),
        ("Clip", [np.float32(6), np.float32(0)], {}, "the bounds must be low ≤ high"),
        ("Flatten", [], {"axis": 9}, r"\(?Flatten\)?|not a valid ONNX model"),
    ],
)
def test_what_no_handler_gets_right_is_refused(
    operator: str, operands: list[np.ndarray], attributes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    constants = {f"c{k}": np.asarray(operand) for k, operand in enumerate(operands)}
    made = model([node(operator, ["x", *constants], ["y"], **attributes)], constants, [1, 1, 3, 3])
    with pytest.raises(ValueError, match=message):
        Network.load(saved(made, tmp_path))


@pytest.mark.parametrize(
    ("operator", "operands", "attributes"),
    [
        ("Transpose", [], {"perm": [0, 1, 3, 2]}),
        ("Pad", [ints(0, 0, 1, 1, 0, 0, 1, 1)], {"mode": "reflect"}),
        ("Pad", [ints(0, 0, -1, 1, 0, 0, 2, -1), np.float32(0.4)], {}),
        ("Pad", [ints(0, 0, 1, 1, 0, 0, 1, 1)], {"mode": "edge"}),
        ("Flatten", [], {"axis": 0}),
        ("Flatten", [], {"axis": -2}),
        ("Reshape", [ints(3, 3)], {}),
        ("Reshape", [ints(-1, 3, 1)], {}),
        ("AveragePool", [], {"kernel_shape": [2, 2], "ceil_mode": 1, "strides": [2, 2]}),
        ("AveragePool", [], {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1], "count_include_pad": 1}),
        ("AveragePool", [], {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("MaxPool", [], {"kernel_shape": [2, 2], "ceil_mode": 1, "strides": [2, 2]}),
        ("MaxPool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ("MaxPool", [], {"kernel_shape": [2, 2], "dilations": [1, 2], "pads": [1, 0, 0, 1]}),
        ("ConvTranspose", [normal(1, 2, 3, 2)], {"strides": [2, 1], "pads": [1, 0, 0, 1], "output_padding": [1, 0]}),
        ("ConvTranspose", [normal(1, 2, 3, 3), normal(2)], {"dilations": [2, 1]}),
        ("ConvTranspose", [normal(1, 1, 3, 3)], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("Clip", [np.float32(0), np.float32(6)], {}),
        ("LeakyRelu", [], {}),
        ("PRelu", [normal(1, 3, 1)], {}),
        ("Expand", [ints(2, 1, 1, 1)], {}),
        ("ReduceMean", [], {"axes": [2, 3], "keepdims": 0}),
        ("ReduceMax", [], {}),
        ("Resize", [np.zeros(0, np.float32), np.array([1, 1, 2, 1.5], np.float32)], {"mode": "nearest"}),
        (
            "Resize",
            [np.zeros(0, np.float32), np.zeros(0, np.float32), ints(1, 1, 6, 2)],
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        ),
        ("BatchNormalization", [normal(1), normal(1), normal(1), positive(1)], {}),
    ],
)
def test_settings_of_operators_agree_with_onnxruntime(
    operator: str, operands: list[np.ndarray], attributes: dict[str, Any], tmp_path: Path
) -> None:
    constants = {f"c{k}": np.asarray(operand) for k, operand in enumerate(operands)}
    nodes = [node("Mul", ["x", "m"], ["h"]), node(operator, ["h", *constants], ["z"], **attributes)]
    made = model([*nodes, node("Neg", ["z"], ["y"])], constants | {"m": normal(1, 1, 3, 3)}, [1, 1, 3, 3])
    assert_agrees(saved(made, tmp_path), [1, 1, 3, 3])


def test_gemms_beta_is_exact_or_refused(tmp_path: Path) -> None:
    """beta·C of float32 numbers is exact in float64; of float64 numbers only for powers of 2."""
    double = onnx.TensorProto.DOUBLE
    weight, bias = RNG.normal(size=(3, 2)), RNG.normal(size=2)
    gemm = node("Gemm", ["x", "B", "C"], ["y"], beta=0.3)
    with pytest.raises(ValueError, match=r"\(Gemm\): beta·C must be exact"):
        Network.load(saved(model([gemm], {"B": weight, "C": bias}, [1, 3], kind=double), tmp_path))
    gemm = node("Gemm", ["x", "B", "C"], ["y"], beta=-4.0)
    net = Network.load(saved(model([gemm], {"B": weight, "C": bias}, [1, 3], kind=double), tmp_path))
    np.testing.assert_array_equal(net.forward(np.zeros(3)), -4 * bias)
    gemm = node("Gemm", ["x", "B", "C"], ["y"], beta=0.3)
    small = {"B": weight.astype(np.float32), "C": bias.astype(np.float32)}
    net = Network.load(saved(model([gemm], small, [1, 3]), tmp_path))
    np.testing.assert_array_equal(net.forward(np.zeros(3)), float(np.float32(0.3)) * small["C"].astype(np.float64))


@pytest.mark.parametrize(
    ("before", "constants"),
    [
        ([node("Sub", ["c", "x"], ["h"])], {"c": normal(4)}),
        ([node("Sub", ["x", "c"], ["h"])], {"c": normal(1, 4)}),
        ([node("Div", ["x", "c"], ["h"])], {"c": positive(4)}),
        ([node("Mul", ["c", "x"], ["h"])], {"c": np.array([0, -1, 2, 0.5], np.float32)}),
        ([node("Add", ["c", "x"], ["h"])], {"c": np.array(0.25, np.float32)}),
        ([node("Sub", ["c", "x"], ["g"]), node("Div", ["g", "d"], ["h"])], {"c": normal(4), "d": positive(1)}),
    ],
)
def test_the_order_of_operands_before_a_relu(before: list[Any], constants: Any, tmp_path: Path) -> None:
    """c − x and x − c differ behind a ReLU; so does every other exchange of operands."""
    nodes = [*before, node("Relu", ["h"], ["r"]), node("MatMul", ["r", "V"], ["y"])]
    path = saved(model(nodes, constants | {"V": normal(4, 3)}, [1, 4]), tmp_path)
    assert_agrees(path, [1, 4])
