"""What every experiment script shares: options, provenance, and how it ends."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.runs.provenance import read_provenance


def parsed(arguments: Sequence[str]) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = experiment_parser("What it does.", "some-thing")
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--eps", type=float, nargs="+", default=[0.1])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--fast", action="store_true")
    return parser, parser.parse_args(arguments)


def test_a_run_records_command_options_and_details_and_no_paths(tmp_path: Path) -> None:
    given = ["--out", str(tmp_path / "out"), "--eps", "0.1", "0.2", "--weights", str(tmp_path), "--fast"]
    for _ in range(2):  # a second run replaces what the first left, its record included
        with experiment_run(*parsed(given)) as run:
            run.write({"table.csv": pd.DataFrame({"a": [1.23456789]}), "table.md": "text"}, "%.3g")
            run.record(gap=0.5)
    (entry,) = read_provenance(tmp_path / "out")
    assert entry["command"] == "python experiments/some_thing.py --eps 0.1 0.2 --weights FOLDER --fast"
    assert entry["details"] == {"count": 3, "eps": [0.1, 0.2], "weights": "FOLDER", "fast": True, "gap": 0.5}
    assert entry["outcome"] == "finished"
    assert entry["started"] <= entry["ended"]
    assert entry["packages"]["pandas"] == pd.__version__
    assert (tmp_path / "out" / "table.csv").read_text() == "a\n1.23\n"
    assert (tmp_path / "out" / "table.md").read_text() == "text"
    assert str(tmp_path) not in (tmp_path / "out" / "provenance.json").read_text()


def test_a_run_that_fails_says_so(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), experiment_run(*parsed(["--out", str(tmp_path)])):
        raise ZeroDivisionError
    assert [run["outcome"] for run in read_provenance(tmp_path)] == ["ended by ZeroDivisionError"]


def test_exit_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["x.py", "--count", "1"])

    def failing(error: BaseException) -> object:
        raise error

    assert end_experiment(lambda arguments: len(arguments)) == 2
    assert end_experiment(lambda _: {"a": 1}) == 0
    assert json.loads(capsys.readouterr().out) == {"a": 1}
    assert end_experiment(lambda _: pd.DataFrame({"b": [5]})) == 0
    assert "b" in capsys.readouterr().out
    assert end_experiment(lambda _: failing(ValueError("count must be ≥ 1, got 0"))) == 2
    assert capsys.readouterr().err == "error: count must be ≥ 1, got 0\n"
    assert end_experiment(lambda _: failing(KeyboardInterrupt())) == 130
    with pytest.raises(ZeroDivisionError):
        end_experiment(lambda _: failing(ZeroDivisionError()))
