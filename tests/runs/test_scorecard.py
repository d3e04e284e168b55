"""A benchmark's instances through the driver: resumed, compared, and wrong verdicts named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from onnx_models import write_onnx

from toolkit.cli import main
from toolkit.runs import scorecard
from toolkit.runs.rows import QUERY_ROWS
from toolkit.runs.scorecard import compared, instance_key, read_instances, read_official, run_instances, totals
from toolkit.runs.store import read_rows

QUERY = "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (>= X_0 -1))(assert (<= X_0 1))(assert (>= Y_0 {}))"


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    write_onnx(folder / "net.onnx", [([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0])])
    for name, level in (("low", "0.5"), ("high", "1.5"), ("bad", "Z")):
        (folder / f"{name}.vnnlib").write_text(QUERY.format(level))
    (folder / "instances.csv").write_text("net.onnx,low.vnnlib,20\n./net.onnx,high.vnnlib,20\nnet.onnx,bad.vnnlib,20\n")
    return folder


def test_instances_are_answered_once_and_compared(benchmark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed (extra: onnx)")
    monkeypatch.setattr(scorecard, "SLACK", None)  # in this process
    asked = read_instances(benchmark / "instances.csv", 10)
    assert [one.timeout for one in asked] == [10, 10, 10]
    official = benchmark / "official.csv"
    official.write_text("tiny,net.onnx.gz,low.vnnlib,0,holds,1.5\ntiny,net.onnx,high.vnnlib,0,unsat,2\n")
    rows = run_instances(asked, benchmark / "out", "r0001-abcdef")
    assert rows["verdict"].tolist() == ["sat", "unsat", "error"]
    assert "'Z'" in rows["message"][2]
    table = compared(rows, read_official(official))
    assert table["agrees"].tolist() == ["WRONG", "right", "open"]
    assert totals(table).iloc[-1][["instances", "sat", "unsat", "right", "WRONG"]].tolist() == [3, 1, 1, 1, 1]
    assert totals(table).iloc[-1]["certified"] == 2
    assert (rows["cpu_seconds"] <= rows["seconds"] + 0.1).all()
    answered = []
    monkeypatch.setattr(scorecard, "answer_instance", answered.append)
    monkeypatch.setattr(scorecard._Keeper, "finished", lambda *_: None)
    run_instances(asked, benchmark / "out", "r0002-abcdef")
    assert [one.vnnlib for _, one in answered] == ["bad.vnnlib"]  # what ended with an error is asked again


def test_the_command_names_wrong_verdicts_and_says_so_by_its_code(
    benchmark: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed (extra: onnx)")
    monkeypatch.setattr(scorecard, "SLACK", None)
    official = benchmark / "official.csv"
    official.write_text("benchmark,onnx,vnnlib,verdict\ntiny,net.onnx,low.vnnlib,unsat\n")
    out = benchmark / "out"
    given = ["scorecard", str(benchmark / "instances.csv"), "--official", str(official), "--out", str(out)]
    assert main([*given, "--count", "2"]) == 1
    assert "WRONG: tiny net.onnx low.vnnlib is unsat, we say sat" in capsys.readouterr().out.replace("\n", " ")
    assert "**WRONG**" in (out / "scorecard.md").read_text()
    assert (out / "provenance.json").is_file()
    official.write_text("benchmark,onnx,vnnlib,verdict\ntiny,net.onnx,low.vnnlib,sat\n")
    assert main([*given, "--count", "2"]) == 0


@pytest.mark.parametrize(
    "text", ["", "net.onnx,low.vnnlib\n", "net.onnx,low.vnnlib,soon\n", "net.onnx,low.vnnlib,nan\n"]
)
def test_tables_that_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "instances.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"instances\.csv"):
        read_instances(path)
    with pytest.raises(FileNotFoundError):
        read_official(tmp_path / "none.csv")


def test_answers_without_cpu_seconds_are_read_as_they_are(tmp_path: Path) -> None:
    """Rows of version 1 lack that column: they count, and it is not known."""
    shards = tmp_path / "answers" / "shards"
    shards.mkdir(parents=True)
    row = {"benchmark": "tiny", "onnx": "net.onnx", "vnnlib": "low.vnnlib", "timeout": 20.0, "verdict": "sat"}
    row |= {
        "seconds": 0.5,
        "certified": 1,
        "deployed": "",
        "questions": 1,
        "message": "",
        "key": "k",
        "run_id": "r0001",
    }
    (shards / "r0001-a.jsonl").write_text(json.dumps(row | {"schema": 1}) + "\n")
    found = read_rows(tmp_path / "answers", everything=True, schema=QUERY_ROWS)
    assert found["verdict"].tolist() == ["sat"]
    assert found["cpu_seconds"].isna().all()
    assert totals(compared(found, {})).iloc[-1]["cpu_seconds"] == 0


def test_the_tools_that_solved_an_instance_are_read(tmp_path: Path) -> None:
    path = tmp_path / "official.csv"
    path.write_text("benchmark,onnx,vnnlib,verdict,solved_by\ntiny,./net.onnx.gz,low.vnnlib,sat,fast  slow\n")
    assert read_official(path)[instance_key("tiny", "net.onnx", "low.vnnlib.gz")].solvers == ("fast", "slow")
