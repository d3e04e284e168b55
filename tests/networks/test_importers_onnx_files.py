"""ONNX files are hostile: packed, cut, with weights elsewhere, and with sizes that would fill the memory."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.networks.importers import onnx_evaluation
from toolkit.networks.network import Network

onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra: onnx)")
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT
node = helper.make_node
WEIGHT = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def model(nodes: list[Any], tensors: list[Any], opset: int = 17) -> Any:
    """A model from x of shape (1, 4) to y."""
    given, made = (helper.make_tensor_value_info(k, FLOAT, s) for k, s in (("x", [1, 4]), ("y", ["a", "b"])))
    graph = helper.make_graph(nodes, "net", [given], [made], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def named(values: np.ndarray, name: str) -> Any:
    return onnx.numpy_helper.from_array(np.asarray(values), name)


def plain() -> Any:
    return model([node("MatMul", ["x", "W"], ["y"])], [named(WEIGHT, "W")])


def save(made: Any, path: Path) -> Path:
    path.write_bytes(made.SerializeToString())
    return path


def test_packed_files_are_the_files_they_pack(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx.gz"
    path.write_bytes(gzip.compress(plain().SerializeToString()))
    net = Network.load(path)
    assert net.name == "net"
    assert net.digest == Network.load(save(plain(), tmp_path / "net.onnx")).digest
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"net\.onnx\.gz: not a gzip file: ."):
        Network.load(path)
    path.write_bytes(b"no gzip")
    with pytest.raises(ValueError, match=r"net\.onnx\.gz: not a gzip file: ."):
        Network.load(path)


def test_a_file_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.networks.importers import onnx_files

    path = tmp_path / "bomb.onnx.gz"
    path.write_bytes(gzip.compress(bytes(2**20)))
    monkeypatch.setattr(onnx_files, "LARGEST_FILE", 2**16)
    with pytest.raises(ValueError, match="holds more than 65,536 bytes"):
        Network.load(path)


def external(location: str, **entries: int) -> Any:
    """The plain model with its weights in another file."""
    made = plain()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return made


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "net.data").write_bytes(bytes(8) + WEIGHT.tobytes())
    net = Network.load(save(external("net.data", offset=8, length=48), tmp_path / "net.onnx"))
    assert net.digest == Network.load(save(plain(), tmp_path / "plain.onnx")).digest


@pytest.mark.parametrize(
    ("location", "entries", "message"),
    [
        ("../outside.data", {}, "must be in a file beside the model, got '../outside.data'"),
        ("sub/net.data", {}, "must be in a file beside the model"),
        ("/etc/hostname", {}, "must be in a file beside the model"),
        ("link.data", {}, "must be in a file beside the model"),
        ("none.data", {}, "'none.data', which is not there"),
        ("net.data", {"length": 40}, "need 48 bytes"),
        ("net.data", {"offset": 8, "length": 48}, "need 56 bytes of 'net.data', which has 48"),
        ("net.data", {"offset": -8, "length": 48}, "need 48 bytes"),
    ],
)
def test_weights_elsewhere_are_not(location: str, entries: dict[str, int], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path / "outside.data", folder / "sub" / "net.data", folder / "net.data"):
        place.write_bytes(WEIGHT.tobytes())
    (folder / "link.data").symlink_to(tmp_path / "outside.data")
    with pytest.raises(ValueError, match=message):
        Network.load(save(external(location, **entries), folder / "net.onnx"))


BOMBS: dict[str, tuple[list[Any], list[Any]]] = {
    "Expand": ([node("Expand", ["x", "s"], ["y"])], [named(np.array([10**9, 4]), "s")]),
    "Tile": ([node("Tile", ["x", "s"], ["y"])], [named(np.array([10**9, 1]), "s")]),
    "Pad": ([node("Pad", ["x", "s"], ["y"])], [named(np.array([0, 0, 10**9, 0]), "s")]),
    "Resize": (
        [node("Resize", ["x", "", "s"], ["y"], mode="nearest")],
        [named(np.array([1, 2e7], np.float32), "s")],
    ),
    "ConstantOfShape": (
        [node("ConstantOfShape", ["s"], ["c"]), node("MatMul", ["x", "c"], ["y"])],
        [named(np.array([4, 10**10]), "s")],
    ),
    "Range": (
        [
            node("Range", ["a", "b", "c"], ["r"]),
            node("Cast", ["r"], ["f"], to=FLOAT),
            node("Unsqueeze", ["f", "a1"], ["u"]),
            node("Add", ["x", "u"], ["y"]),
        ],
        [named(np.array(v), k) for k, v in (("a", 0), ("b", 10**10), ("c", 1))] + [named(np.array([1]), "a1")],
    ),
    "Gather": (
        [node("Gather", ["x", "i"], ["g"], axis=0), node("Expand", ["g", "s"], ["y"])],
        [named(np.zeros(1000, np.int64), "i"), named(np.array([10**6, 1000, 4]), "s")],
    ),
    "Add": (
        [node("Add", ["u", "v"], ["w"]), node("Mul", ["x", "w"], ["y"])],
        [named(np.ones((10**5, 1), np.float32), "u"), named(np.ones((1, 10**5), np.float32), "v")],
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_sizes_are_checked_before_anything_is_stored(name: str, tmp_path: Path) -> None:
    nodes, tensors = BOMBS[name]
    with pytest.raises(ValueError, match=rf"\({name}\): .*(numbers are stored|are stored|not known beforehand)|Expand"):
        Network.load(save(model(nodes, tensors), tmp_path / "bomb.onnx"))


def test_a_tensor_that_lies_about_its_shape_is_refused(tmp_path: Path) -> None:
    made = plain()
    made.graph.initializer[0].dims[:] = [4, 10**10]
    with pytest.raises(ValueError, match=r"lie\.onnx: "):
        Network.load(save(made, tmp_path / "lie.onnx"))


def test_what_a_file_says_of_shapes_is_not_believed(tmp_path: Path) -> None:
    made = plain()
    made.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    inner = helper.make_tensor_value_info("y0", FLOAT, [1, 10**9])
    made.graph.value_info.append(inner)
    assert Network.load(save(made, tmp_path / "lie.onnx")).output_size == 3


def test_constants_are_computed_by_onnx_itself(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["W"], ["n"]),
        node("Gather", ["n", "one"], ["k"], axis=0),
        node("Unsqueeze", ["k", "zero"], ["u"]),
        node("ConstantOfShape", ["u"], ["c"], value=helper.make_tensor("v", FLOAT, [1], [0.5])),
        node("Transpose", ["W"], ["t"]),
        node("Transpose", ["t"], ["w"]),
        node("MatMul", ["x", "w"], ["h"]),
        node("Add", ["h", "c"], ["y"]),
    ]
    tensors = [named(WEIGHT, "W"), named(np.array(1), "one"), named(np.array([0]), "zero")]
    net = Network.load(save(model(nodes, tensors), tmp_path / "net.onnx"))
    np.testing.assert_allclose(net.forward(np.ones(4)), WEIGHT.astype(float).sum(0) + 0.5, rtol=1e-15)


@pytest.mark.parametrize("operator", ["RandomNormal", "RandomUniform"])
def test_random_constants_are_refused(operator: str, tmp_path: Path) -> None:
    nodes = [node(operator, [], ["r"], shape=[1, 4]), node("Add", ["x", "r"], ["y"])]
    with pytest.raises(ValueError, match=rf"\({operator}\): operator {operator} is not supported on constants"):
        Network.load(save(model(nodes, []), tmp_path / "net.onnx"))


def test_subgraphs_are_refused(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info("z", FLOAT, [1, 4])
    body = helper.make_graph([node("Identity", ["k"], ["z"])], "body", [], [info])
    nodes = [node("If", ["c"], ["i"], then_branch=body, else_branch=body), node("Add", ["x", "i"], ["y"])]
    tensors = [named(np.array(True), "c"), named(np.ones((1, 4), np.float32), "k")]
    with pytest.raises(ValueError, match=r"\(If\): operator If is not supported"):
        Network.load(save(model(nodes, tensors), tmp_path / "net.onnx"))


def test_an_evaluator_that_fails_is_named() -> None:
    with pytest.raises(ValueError, match="a size that is not known beforehand"):
        onnx_evaluation.evaluate_node(node("Add", ["a", "b"], ["c"]), [np.ones(3), np.ones(2)], 17)
