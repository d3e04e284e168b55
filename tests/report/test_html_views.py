"""Pages of radii and scorecards: what they hold, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_html import Page

from toolkit.cli import main
from toolkit.report import html_views
from toolkit.report.html_views import RADII, SCORECARD, read_view, view_of
from toolkit.runs.distances import distance_table
from toolkit.runs.scorecard import totals

pytest.importorskip("plotly", reason="the HTML report needs the extra html")
EVIL = "</script><script>alert(1)</script>"
LINES = pd.DataFrame(
    [
        (0, 3, "pgd", "upper", 0.0, 0.3, 4, 0.1), (0, 3, "dual", "lower", 0.1, 0.3, 4, 0.2),
        (0, 3, "exact", "exact", 0.25, 0.3, 4, 0.5), (1, 5, "pgd", "upper", 0.0, np.inf, 4, 0.1),
        (1, 5, "dual", "lower", 0.2, np.inf, 4, 0.2), (1, 5, "exact", "exact", 0.4, np.inf, 4, 0.5),
    ],
    columns=["sample", "label", "rung", "side", "certified", "refuted", "verdicts", "seconds"],
)  # fmt: skip
SCORES = pd.DataFrame(
    {
        "benchmark": ["acas", "acas", EVIL], "onnx": ["a.onnx"] * 3, "vnnlib": ["p.vnnlib"] * 3, "timeout": [60.0] * 3,
        "verdict": ["unsat", "sat", "timed-out"], "seconds": [0.5, 2.0, 60.0], "certified": [1.0, 1.0, 0.0],
        "official": ["unsat", "unsat", ""], "official_seconds": [1.0, 3.0, np.nan], "agrees": ["right", "WRONG", ""],
        "message": ["", "", "=1+1"],
    }
)  # fmt: skip


def write_radii_html(lines: pd.DataFrame, path: Path) -> Path:
    return html_views.write_radii_html(lines, path, (), distance_table)


def write_scorecard_html(table: pd.DataFrame, path: Path) -> Path:
    return html_views.write_scorecard_html(table, path, (), totals)


def parsed(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def panels(page: Page) -> list[dict[str, object]]:
    return json.loads(page.all("script", id="panels")[0]["text"])  # type: ignore[no-any-return]


def test_radii_become_steps_that_count_images(tmp_path: Path) -> None:
    page = parsed(write_radii_html(LINES, tmp_path / "page.html"))
    [panel] = panels(page)
    curves = {trace["hovertemplate"].partition(":")[0]: trace for trace in panel["data"]}  # type: ignore[attr-defined]
    assert set(curves) == {"pgd", "dual", "exact, certified", "exact, refuted"}
    assert (curves["dual"]["x"], curves["dual"]["y"]) == ([0.0, 0.1, 0.2], [0.0, 0.5, 1.0])
    assert (curves["pgd"]["x"], curves["pgd"]["y"]) == ([0.0, 0.3], [0.0, 0.5])  # of one image none was found
    lines = [line for line in page.inside("all-table", "tr") if "data-rung" in line["attrs"]]
    assert [line["attrs"]["data-rung"] for line in lines] == list(LINES["rung"])
    assert len(page.inside("totals", "tr")) == 1 + 4  # head, and both ends of the exact rung


def test_a_scorecard_says_what_is_wrong_first(tmp_path: Path) -> None:
    page = parsed(write_scorecard_html(SCORES, tmp_path / "page.html"))
    assert len(page.all("script")) == 3
    [wrong] = page.all("p", **{"class": "wrong"})
    assert "official unsat, here sat" in wrong["text"]
    [panel] = panels(page)
    here, official = panel["data"]  # type: ignore[misc]
    assert (here["x"], here["y"]) == ([0.5, 2.0], [1.0, 2.0])
    assert official["x"] == [1.0, 3.0]
    assert {one["text"] for one in page.inside("all-verdict", "option")} == {"all", "unsat", "sat", "timed-out"}


def test_pages_load_nothing_and_name_every_part(tmp_path: Path) -> None:
    for path in (write_radii_html(LINES, tmp_path / "a.html"), write_scorecard_html(SCORES, tmp_path / "b.html")):
        page = parsed(path)
        [policy] = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
        assert policy["attrs"]["content"].startswith("default-src 'none'")
        names = {one["attrs"]["id"] for one in page.elements if "id" in one["attrs"]}
        assert {one["attrs"]["href"][1:] for one in page.all("a")} <= names
        assert all("aria-pressed" in one["attrs"] for one in page.all("button") if "data-group" in one["attrs"])
        assert {one["attrs"]["for"] for one in page.all("label")} <= names


def test_report_finds_what_a_folder_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, table in ((RADII, LINES), (SCORECARD, SCORES)):
        folder = tmp_path / name
        folder.mkdir()
        table.to_csv(folder / name, index=False)
        assert view_of(folder) == name
        assert main(["report", str(folder)]) == 2
        assert "--html writes a page" in capsys.readouterr().err
        assert main(["report", str(folder), "--html"]) == 0
        assert (folder / "report.html").stat().st_size > 1e6
    assert view_of(tmp_path) is None


TORN = LINES.to_csv(index=False) + "garbage\n"


@pytest.mark.parametrize("command", ["verify {}", "show {}", "export {} rows.csv", "compact {}"])
def test_results_are_of_sweeps_alone(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "radii").mkdir()
    LINES.to_csv(tmp_path / "radii" / RADII, index=False)
    record = {"runs": [{"run_id": "r1", "details": {"norm": "linf"}}]}
    (tmp_path / "radii" / "provenance.json").write_text(json.dumps(record))
    assert main(["results", *command.format("radii").split()]) == 2
    assert "radii must hold the rows of a sweep, it holds radii.csv" in capsys.readouterr().err
    assert not (tmp_path / "rows.csv").exists()


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "sample,certified\n1,many\n", TORN, "\x00\x01"])
def test_files_that_are_no_such_table_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / RADII).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"radii"):
        write_radii_html(read_view(tmp_path / RADII), tmp_path / "page.html")
    with pytest.raises(ValueError, match="a scorecard needs rows with"):
        write_scorecard_html(LINES, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
