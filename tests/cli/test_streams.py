"""Output through an encoding of few characters, as Windows has for pipes; the command without a script on the path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.cli import main


def test_python_m_toolkit_speaks_through_any_encoding() -> None:
    command = [sys.executable, "-m", "toolkit", "--help"]
    found = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "cp1252"}, capture_output=True, check=False)
    assert found.returncode == 0, found.stderr
    assert b"relugap" in found.stdout
    whole = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "utf-8"}, capture_output=True, check=True)
    assert "ℓ∞" in whole.stdout.decode()  # which cp1252 has not


@pytest.mark.skipif(os.name != "posix", reason="streams are closed by a shell's >&-")
def test_a_stream_that_is_closed_takes_no_output_and_changes_no_answer() -> None:
    asked = "certify zoo:digits-standard --data digits --index 3 --eps 0.3 --rungs pgd --exit-code"
    for closed, more in ((">&-", ""), ("2>&-", ""), (">&- 2>&-", ""), (">&-", " --json")):
        command = f"exec {sys.executable} -m toolkit {asked}{more} {closed}"
        found = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        assert (found.returncode, found.stderr) == (10, "")


@pytest.mark.parametrize("group", [[], ["results"]])
def test_a_command_alone_prints_its_help_and_no_error(group: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(group) == 2
    told = capsys.readouterr()
    assert "Usage: relugap" in told.out + told.err
    assert "error" not in told.err


def test_a_home_folder_is_one_in_every_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home" / "s.toml").write_text(
        'name = "s"\nsamples = 1\neps = [0.01]\nrungs = ["dual"]\n'
        '[[networks]]\nsource = "zoo:digits-standard"\ndataset = "digits"\n'
    )
    assert main(["sweep", "~/s.toml", "--out=~/out", "--workers", "1", "-q"]) == 0
    assert main(["results", "ls", "~", "--json"]) == 0
    assert '"rows": 9' in capsys.readouterr().out
    assert main(["report", "~/out", "--out=~/report"]) == 0
    assert main(["certify", "zoo:digits-standard", "--data", "digits", "--count", "1", "--eps", "0.01",
                 "--out=~/rows.csv"]) == 0  # fmt: skip
    kept = {path.name for path in (tmp_path / "home").iterdir() if not path.name.startswith(".")}
    assert kept == {"s.toml", "out", "report", "rows.csv"}
    assert {path.name for path in tmp_path.iterdir()} == {"home"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("certify zoo:digits-standard --eps 1 --index abc", "'--index': Input should be a valid integer"),
        ("certify zoo:digits-standard --eps 1 --workers 0", "'--workers': Input should be greater than or equal to 1"),
        ("report none --tolerance abc", "'--tolerance': Input should be a valid number"),
    ],
)
def test_options_of_another_type_are_shown(options: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options.split()) == 2
    message = capsys.readouterr().err
    assert told in message
    assert f", got {options.split()[-1]!r}; see relugap" in message
