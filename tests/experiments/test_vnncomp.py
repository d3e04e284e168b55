"""Scorecards of benchmarks at smoke size: answered once, beside what others say, and taken up again."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from onnx_models import write_onnx

from toolkit.runs import scorecard
from toolkit.runs.rows import QUERY_ROWS
from toolkit.runs.store import read_rows

pytest.importorskip("onnx", reason="onnx is not installed (extra: onnx)")
sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import vnncomp

BOX = "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (>= X_0 -1))(assert (<= X_0 1))"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two benchmarks about |x| with results of others, one of them with files packed, and one without."""
    monkeypatch.setattr(scorecard, "SLACK", None)  # in this process
    made = tmp_path / "benchmarks"
    for name, levels in (("first", (0.5, 1.5)), ("second", (0.75, 1.5)), ("third", (0.25,))):
        own = made / name
        own.mkdir(parents=True)
        net = write_onnx(own / "net.onnx", [([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0])])
        for level in levels:
            (own / f"above_{level}.vnnlib").write_text(f"{BOX}(assert (>= Y_0 {level}))")
        (own / "instances.csv").write_text("".join(f"net.onnx,above_{level}.vnnlib,20\n" for level in levels))
        if name == "second":
            (own / "net.onnx.gz").write_bytes(gzip.compress(net.read_bytes()))
            net.unlink()
    head = "benchmark,onnx,vnnlib,verdict,best_seconds,best_tool,solved_by\n"
    (made / "first" / "official.csv").write_text(
        f"{head}first,net.onnx,above_0.5.vnnlib,sat,1.5,fast,fast slow\n"
        "first,net.onnx,above_1.5.vnnlib,unsat,2,slow,slow\n"
    )
    (made / "second" / "official.csv").write_text(f"{head}second,net.onnx,above_0.75.vnnlib,unsat,3,slow,slow\n")
    return made


def test_benchmarks_beside_what_others_say(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = folder.parent / "out"
    table = vnncomp.main([str(folder), "--out", str(out), "--timeout", "10"]).set_index("benchmark")
    assert table["instances"].to_dict() == {"first": 2, "second": 2, "third": 1}
    assert table["decided"].to_dict() == {"first": 2, "second": 2, "third": 1}
    assert set(table["certified"]) == {"100%"}
    assert table["WRONG"].to_dict() == {"first": 0, "second": 1, "third": 0}  # the others' word is made up
    assert table["official"].to_dict() == {"first": 2, "second": 1, "third": 0}
    assert table["first"].to_dict() == {"first": 0, "second": 1, "third": 0}
    assert table.loc["first", "best tool"] == "slow 2"
    assert table.loc["first", "official seconds"] == 3.5
    assert {path.name for path in out.iterdir()} - {".lock"} == {
        "answers", "cactus.png", "provenance.json", "table.csv", "table.md",
        *(f"{name}-instances.csv" for name in ("first", "second", "third")),
    }  # fmt: skip
    assert "**WRONG** second net.onnx above_0.75.vnnlib: official unsat, here sat" in (out / "table.md").read_text()
    rows = pd.read_csv(out / "first-instances.csv")
    assert rows["verdict"].tolist() == ["sat", "unsat"]
    assert (rows["cpu_seconds"] <= rows["seconds"] + 0.1).all()
    assert rows["timeout"].tolist() == [10, 10]

    def never(*_: object) -> None:
        raise AssertionError("was asked again")

    monkeypatch.setattr(scorecard, "answer_instance", never)  # a run is taken up
    again = vnncomp.main([str(folder), "--out", str(out), "--timeout", "10", "--benchmarks", "third,first"])
    assert again["benchmark"].tolist() == ["third", "first"]
    runs = json.loads((out / "provenance.json").read_text())["runs"]
    assert [run["command"] for run in runs] == [
        "python experiments/vnncomp.py FOLDER --timeout 10.0",
        "python experiments/vnncomp.py FOLDER --benchmarks third,first --timeout 10.0",
    ]


def test_the_same_files_in_two_benchmarks_are_asked_once_and_named_twice(folder: Path) -> None:
    """first and second have one question in common: its answer serves both, under the names each has for it."""
    out = folder.parent / "out"
    table = vnncomp.main([str(folder / "first"), "--out", str(out), "--count", "1"])
    assert table[["benchmark", "instances", "sat"]].to_numpy().tolist() == [["first", 1, 1]]
    (folder / "third" / "above_0.25.vnnlib").write_text((folder / "first" / "above_0.5.vnnlib").read_text())
    vnncomp.main([str(folder), "--out", str(out), "--benchmarks", "third"])
    rows = pd.read_csv(out / "third-instances.csv")
    assert rows[["benchmark", "vnnlib", "verdict"]].to_numpy().tolist() == [["third", "above_0.25.vnnlib", "sat"]]
    assert len(read_rows(out / "answers", everything=True, schema=QUERY_ROWS)) == 1


def test_a_table_about_several_benchmarks_and_its_own_official_results(folder: Path) -> None:
    lines = ["benchmark,onnx,vnnlib,verdict,official_timeout_s,best_seconds,best_tool"]
    lines += ["first,net.onnx,above_0.5.vnnlib,sat,20,1,fast", "third,net.onnx,above_0.25.vnnlib,sat,20,1,fast"]
    for name in ("first", "second", "third"):
        (folder / name / "instances.csv").unlink()
    (folder / "expected.csv").write_text("\n".join(lines))
    found, official = vnncomp.read_benchmarks(folder, 5)
    assert {name: len(instances) for name, instances in found.items()} == {"first": 1, "third": 1}
    assert [one.verdict for one in official.values()] == ["sat", "sat"]
    assert all(one.timeout == 5 for instances in found.values() for one in instances)


def test_what_cannot_be_run_is_named(folder: Path, tmp_path: Path) -> None:
    given = [str(folder), "--out", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="unknown benchmark 'fourth'; allowed: first, second, third"):
        vnncomp.main([*given, "--benchmarks", "fourth"])
    with pytest.raises(ValueError, match="--count must be ≥ 1, got 0"):
        vnncomp.main([*given, "--count", "0"])
    with pytest.raises(ValueError, match=r"no folder .*none"):
        vnncomp.main([str(tmp_path / "none")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no instances\.csv or expected\.csv"):
        vnncomp.main([str(tmp_path / "empty")])


def test_the_curve_counts_what_is_decided_by_then() -> None:
    times, counts = vnncomp.decided_within(pd.Series([3.0, 0.001, np.nan, 2.0]))
    assert times.tolist() == [vnncomp.LEAST_SHOWN, 2.0, 3.0]
    assert counts.tolist() == [1, 2, 3]
