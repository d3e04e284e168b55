"""`relugap radius`: one image and many, on the command line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from toolkit.cli import main

ASKED = ["radius", "zoo:digits-standard", "--data", "digits", "--rungs", "pgd,dual", "--solver", "highs"]


def test_one_image_has_an_interval_and_the_class_at_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ASKED, "--index", "1"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "least distance in [0.09" in shown
    assert "of it open; the nearest point found is of class" in shown


def test_many_images_leave_rows_a_table_and_figures_and_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ASKED, "--count", "3", "--out", str(tmp_path)]) == 0
    assert {"radii.csv", "table.csv", "table.md", "radii.png", "radii_box.png", "provenance.json"} <= {
        path.name for path in tmp_path.iterdir()
    }
    first = pd.read_csv(tmp_path / "radii.csv")
    assert list(first["rung"]) == ["pgd", "dual"] * 3
    assert main([*ASKED, "--count", "4", "--out", str(tmp_path)]) == 0
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "radii.csv").iloc[:6], first
    )  # seconds too: nothing was redone
    assert str(tmp_path) in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--index", "1", "--norm", "l9"], "norm must be one of"),
        (["--index", "1", "--rungs", "nothing"], "unknown rung"),
        (["--index", "1", "--out", "x"], "--out is for --count"),
        (["--count", "0"], "--count must be in 1"),
        ([], "--data needs --index"),
    ],
)
def test_wrong_options_are_told_in_one_line(more: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ASKED, *more]) == 2
    assert message in capsys.readouterr().err
