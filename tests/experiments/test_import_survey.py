"""The import survey at smoke size: what imports agrees with onnxruntime, what does not has its reason."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra: onnx)")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra: onnx)")
sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))


def model(*operators: str) -> bytes:
    """x of shape (1, 4) through a matrix and the operators, and x added."""
    node, values = onnx.helper.make_node, np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    nodes = [node("MatMul", ["x", "W"], ["v0"])]
    nodes += [node(operator, [f"v{k}"], [f"v{k + 1}"], name=operator) for k, operator in enumerate(operators)]
    nodes.append(node("Add", [f"v{len(operators)}", "x"], ["y"]))
    shapes = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = onnx.helper.make_graph(nodes, "net", shapes[:1], shapes[1:], [onnx.numpy_helper.from_array(values, "W")])
    opset = [onnx.helper.make_opsetid("", 17)]
    made: bytes = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    return made


def test_a_survey_of_three_files(tmp_path: Path) -> None:
    import import_survey

    folder, out = tmp_path / "models", tmp_path / "out"
    (folder / "right").mkdir(parents=True)
    (folder / "wrong").mkdir()
    (folder / "right" / "a.onnx").write_bytes(model("Relu", "Abs"))
    (folder / "right" / "b.onnx.gz").write_bytes(gzip.compress(model("Relu", "Abs")))
    (folder / "wrong" / "c.onnx").write_bytes(model("Tanh", "Floor"))
    (folder / "wrong" / "large.onnx").write_bytes(bytes(10_000))
    table = import_survey.main([str(folder), "--out", str(out), "--largest", "9999"])
    assert table[["folder", "files", "import", "refused"]].to_numpy().tolist() == [
        ["models/right", 2, 2, 0],
        ["models/wrong", 1, 0, 1],
    ]
    assert 0 < table["largest_difference"][0] <= 1e-6
    assert table["why_refused"][1] == "operator Tanh is not supported: it is not piecewise linear"
    files = pd.read_csv(out / "files.csv")
    assert files["same_as"].fillna("").tolist() == ["", "models/right/a.onnx", ""]
    assert "(Tanh)" in files["reason"][2]
    assert "(Floor)" in files["reason"][2]
    assert {path.name for path in out.iterdir()} == {"files.csv", "table.csv", "table.md", "provenance.json"}
    assert "models/right" in (out / "table.md").read_text()
    with patch.object(import_survey, "survey", side_effect=AssertionError("was read again")):  # a run is taken up
        again = import_survey.main([str(folder), "--out", str(out), "--largest", "9999"])
    counts = ["folder", "files", "import", "refused", "why_refused"]
    assert again[counts].equals(table[counts])


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    import import_survey

    with pytest.raises(ValueError, match=r"no folder .*none"):
        import_survey.main([str(tmp_path / "none"), "--out", str(tmp_path / "out")])
