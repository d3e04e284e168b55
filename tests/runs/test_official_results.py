"""What a scorecard makes of instances that were killed, and of official rows and timeouts that cannot be."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import pytest

from toolkit.runs import scorecard
from toolkit.runs.scorecard import (
    QueryInstance,
    compared,
    instance_key,
    markdown,
    read_instances,
    read_official,
    run_instances,
    totals,
)


def _sleep(task: tuple[str, QueryInstance]) -> dict[str, object]:
    time.sleep(60.0)
    return {}


def test_an_instance_that_is_killed_for_its_time_is_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorecard, "SLACK", 1.0)
    monkeypatch.setattr(scorecard, "answer_instance", _sleep)
    asked = [QueryInstance("tiny", "net.onnx", "q.vnnlib", 0.5, tmp_path)]
    rows = run_instances(asked, tmp_path / "out", "r0001-abcdef")
    assert rows["verdict"].tolist() == ["error"]
    assert rows["seconds"].tolist() == [1.5]
    assert totals(compared(rows, {})).iloc[-1]["late"] == 1


def _official(folder: Path, *verdicts: str) -> Path:
    path = folder / "official.csv"
    path.write_text("".join(f"tiny,net.onnx,q.vnnlib,0,{word},{k + 1}\n" for k, word in enumerate(verdicts)))
    return path


@pytest.mark.parametrize(
    ("verdicts", "found"),
    [
        (("sat", "unsat"), "disputed"),
        (("holds", "unknown", "violated", "holds"), "disputed"),
        (("timeout", "unsat", "holds"), "unsat"),
        (("unknown", "timeout"), "timed-out"),
    ],
)
def test_official_rows_that_contradict_each_other_decide_nothing(
    verdicts: tuple[str, ...], found: str, tmp_path: Path
) -> None:
    official = read_official(_official(tmp_path, *verdicts))
    assert official[instance_key("tiny", "net.onnx", "q.vnnlib")].verdict == found
    row = {"benchmark": "tiny", "onnx": "net.onnx", "vnnlib": "q.vnnlib", "timeout": 20.0, "verdict": "sat"}
    row |= {"seconds": 0.5, "cpu_seconds": 0.5, "certified": 1, "run_id": "r"}
    table = compared(pd.DataFrame([row]), official)
    assert table["agrees"].tolist() == ["WRONG" if found == "unsat" else ""]
    page = markdown(table, totals(table))
    assert ("- disputed tiny net.onnx q.vnnlib: official rows say sat and unsat, here sat" in page) == (
        found == "disputed"
    )


@pytest.mark.parametrize("timeout", [0, -5, float("nan"), "10"])
def test_a_timeout_that_is_none_is_refused(timeout: object, tmp_path: Path) -> None:
    path = tmp_path / "instances.csv"
    path.write_text("net.onnx,q.vnnlib,10\n")
    with pytest.raises(ValueError, match="timeout must be"):
        read_instances(path, timeout)  # type: ignore[arg-type]
    assert [one.timeout for limit in (None, 3, float("inf")) for one in read_instances(path, limit)] == [10, 3, 10]
