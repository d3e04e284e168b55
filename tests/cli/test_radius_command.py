"""`relugap radius`: one image and many, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from toolkit.cli import main
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network

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


@pytest.fixture
def crossing(tmp_path: Path) -> list[str]:
    """Class 0 while ½(x₀ + x₁) < 0.6, and three images of it: at ℓ∞ distance 0.2 and 0.1 of class 1, and in it."""
    Network([Dense(0.5 * np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([0.6, 0.0]))]).save(tmp_path / "net.npz")
    images = np.array([[0.4, 0.4], [0.5, 0.5], [0.7, 0.7]]).reshape(3, 1, 1, 2)
    np.savez(tmp_path / "data.npz", images=images, labels=np.zeros(3, dtype=np.int64))
    return ["radius", str(tmp_path / "net.npz"), "--data", str(tmp_path / "data.npz"), "--exit-code", "--json"]


@pytest.mark.parametrize(
    ("more", "interval", "code"),
    [
        (["--index", "0", "--rungs", "pgd,dual,exact", "--solver", "highs"], (0.2, 0.2), 0),
        (["--index", "0", "--rungs", "dual"], (0.2, None), 20),  # no unsafe point is known
        (["--index", "0", "--rungs", "pgd"], (0.0, 0.2), 20),  # nothing is certified
        (["--index", "0", "--rungs", "pgd", "--tolerance", "0.25"], (0.0, 0.2), 0),
        (["--index", "0", "--rungs", "dual", "--largest", "0.15"], (0.15, None), 0),  # none as far as was asked
        (["--index", "0", "--rungs", "dual", "--largest", "1e6"], (0.2, None), 20),
        (["--index", "0", "--rungs", "pgd,dual,exact", "--largest", "1e9", "--no-domain"], (0.2, 0.2), 0),
        (["--index", "2", "--rungs", "dual"], (0.0, 0.0), 0),
        (["--index", "0", "--rungs", "dual,none"], None, 2),
    ],
)
def test_the_exit_code_says_whether_the_interval_is_closed(
    more: list[str],
    interval: tuple[float, float | None] | None,
    code: int,
    crossing: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = [*crossing, *more]
    assert main(asked) == code
    told = capsys.readouterr()
    if interval is None:
        assert "unknown rung" in told.err
        return
    found = json.loads(told.out)
    assert found["closed"] == (code == 0)
    assert found["certified"] == pytest.approx(interval[0], abs=1e-3)
    assert found["refuted"] == (interval[1] if interval[1] is None else pytest.approx(interval[1], abs=1e-3))
    assert main([one for one in asked if one != "--exit-code"]) == 0
    capsys.readouterr()


def test_a_largest_that_is_no_number_is_refused(crossing: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for how in (["--index", "0"], ["--count", "2"]):
        assert main([*crossing, *how, "--largest", "inf"]) == 2
        assert "largest must be finite, got inf; left out it is what the domain holds" in capsys.readouterr().err


def test_the_exit_code_of_many_is_that_of_the_open_ones(
    crossing: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = [*crossing, "--count", "3", "--out", str(tmp_path / "out"), "--rungs", "pgd,dual"]
    assert main(many) == 0
    assert json.loads(capsys.readouterr().out)["not_closed"] == []
    assert main([*many[:-1], "pgd", "--tolerance", "0.15"]) == 20
    assert json.loads(capsys.readouterr().out)["not_closed"] == [0]
    plain = [one for one in many if one != "--json"]
    assert main([*plain[:-1], "pgd"]) == 20
    assert "1 of 3 intervals as narrow as asked" in capsys.readouterr().out
    assert main([one for one in [*plain[:-1], "pgd"] if one != "--exit-code"]) == 0
    capsys.readouterr()


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
