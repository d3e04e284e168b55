"""The question survey at smoke size: what can be asked is, and every other instance is told why not."""

from __future__ import annotations

import gzip
import sys
import time
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest
from onnx_models import write_onnx

pytest.importorskip("onnx", reason="onnx is not installed (extra: onnx)")
sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

BOX = "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (>= X_0 -1))(assert (<= X_0 1))"
QUERIES = {
    "one": f"{BOX}(assert (>= Y_0 0.5))",
    "two": f"{BOX}(assert (or (and (<= X_0 0) (<= Y_0 X_0)) (and (>= X_0 0) (>= Y_0 0.5) (<= Y_0 0.7))))",
    "free": "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (>= X_0 -1))(assert (>= Y_0 0.5))",
    "wide": f"(declare-const X_1 Real){BOX}",
    "more": f"{BOX[:24]}(declare-const X_1 Real){BOX[24:]}(assert (<= X_1 1))(assert (>= X_1 0))(assert (>= Y_0 0))",
}
ROWS = """net.onnx,one.vnnlib,20
./net.onnx,two.vnnlib,20
net.onnx,free.vnnlib,20
net.onnx,wide.vnnlib,20
net.onnx,more.vnnlib,20
net.onnx,none.vnnlib,20
same.onnx,one.vnnlib,20
bad.onnx,one.vnnlib,20
large.onnx,one.vnnlib,20
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "year"
    own = made / "tiny"
    own.mkdir(parents=True)
    net = write_onnx(own / "net.onnx", [([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0])])  # |x|
    (own / "same.onnx.gz").write_bytes(gzip.compress(net.read_bytes()))
    (own / "bad.onnx").write_bytes(b"no network")
    (own / "large.onnx").write_bytes(bytes(10_000))
    for name, text in QUERIES.items():
        (own / f"{name}.vnnlib").write_text(text)
    (own / "tiny_instances.csv").write_text(ROWS)
    return made


def test_a_survey_of_nine_instances(folder: Path) -> None:
    import question_survey

    out = folder.parent / "out"
    given = [str(folder), "--out", str(out), "--largest", "9999"]
    table = question_survey.main(given)
    names = ["benchmark", "instances", "asked", "not_asked", "refused", "large", "missing"]
    assert table[names].to_numpy().tolist() == [["year/tiny", 9, 3, 3, 1, 1, 1], ["all", 9, 3, 3, 1, 1, 1]]
    assert table["distinct"].tolist() == [5, 5]  # the same network, packed, is no other
    assert table.loc[0, ["most_boxes", "most_groups", "most_rows"]].tolist() == [2, 1, 2]
    others = pd.read_csv(out / "not_asked.csv").set_index("vnnlib")["reason"]
    assert "input 0 of X has no upper bound" in others["free.vnnlib"]
    assert "X_0 is to follow" in others["wide.vnnlib"]
    assert "2 inputs and 1 outputs, the network has 1 and 1" in others["more.vnnlib"]
    assert {path.name for path in out.iterdir()} == {
        "pairs.csv", "not_asked.csv", "table.csv", "table.md", "provenance.json",
    }  # fmt: skip
    with patch.object(question_survey, "ask", side_effect=AssertionError("was asked again")):  # a run is taken up
        again = question_survey.main(given)
    assert again[[*names, "distinct", "distinct_asked"]].equals(table[[*names, "distinct", "distinct_asked"]])


def test_a_run_whose_budget_is_spent_says_what_is_untried(folder: Path) -> None:
    import question_survey

    given = [str(folder), "--out", str(folder.parent / "out"), "--largest", "9999"]
    table = question_survey.main([*given, "--budget", "-1"])
    assert table[["asked", "not_asked", "untried", "refused"]].to_numpy().tolist() == [[0, 0, 7, 0]] * 2
    table = question_survey.main(given)
    assert table[["asked", "not_asked", "untried", "refused"]].to_numpy().tolist() == [[3, 3, 0, 1]] * 2


def test_networks_that_the_import_survey_refused_are_not_tried(folder: Path) -> None:
    import question_survey
    from import_survey import content_key

    files = folder.parent / "files.csv"
    key = content_key(folder / "tiny" / "net.onnx")
    pd.DataFrame([{"sha256": key, "imports": False, "reason": "operator Sin"}]).to_csv(files, index=False)
    table = question_survey.main([str(folder), "--out", str(folder.parent / "out"), "--imports", str(files)])
    assert table["refused"].tolist() == [9 - 1, 9 - 1]
    assert table["missing"].tolist() == [1, 1]
    assert "operator Sin" in table["why"][0]


@pytest.mark.skipif(not hasattr(__import__("signal"), "setitimer"), reason="there is no such clock here")
def test_a_pair_that_takes_too_long_is_not_asked(folder: Path) -> None:
    import question_survey

    own = folder / "tiny"
    with patch.object(question_survey, "ask", side_effect=lambda *_: time.sleep(30)):
        found = question_survey.survey_pair((own / "net.onnx", own / "one.vnnlib"), 0.2)
    assert (found["outcome"], found["reason"]) == ("not_asked", "took more than 0.2 s")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    import question_survey

    with pytest.raises(ValueError, match=r"no folder .*none"):
        question_survey.main([str(tmp_path / "none"), "--out", str(tmp_path / "out")])
