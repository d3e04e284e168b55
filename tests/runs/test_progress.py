"""What a sweep says about itself while it runs."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from toolkit.problems.answers import Verdict
from toolkit.problems.settings import Settings
from toolkit.runs import progress as module
from toolkit.runs.notebook_page import as_html
from toolkit.runs.progress import RunProgress
from toolkit.runs.sweep.progress import SweepProgress, describe, read_snapshot
from toolkit.runs.sweep.tasks import NetworkRef, Task, TaskReport, Work


def tasks_of(count: int, eps: float) -> list[Task]:
    ref, work = NetworkRef("net.npz", None, "net", "d", 10), Work("out", "r1", Settings(), None)
    return [Task(work, ref, "digits", k, 0, eps, np.zeros(4), ((("interval",), ("dual",)),)) for k in range(count)]


def report(seconds: float, failed: int = 0, verdict: Verdict = Verdict.YES) -> TaskReport:
    return TaskReport(rows=9, failed=failed, seconds=seconds, verdict=verdict)


def test_time_to_go_comes_from_tasks_of_the_same_kind(tmp_path: Path) -> None:
    """3 tasks of ε = .1 at a measured 2 s and 4 of ε = .2 at a measured 10 s, on 2 workers: 23 s."""
    easy, hard = tasks_of(4, 0.1), tasks_of(5, 0.2)
    with SweepProgress("p", tmp_path, easy + hard, 0, workers=2, show=False) as progress:
        assert progress.snapshot().eta is None
        progress.started(easy[0])
        progress.finished(easy[0], report(2.0))
        assert progress.snapshot().eta == pytest.approx((3 + 5) * 2.0 / 2)  # nothing known of ε = .2 yet
        progress.started(hard[0])
        progress.finished(hard[0], report(10.0))
        assert progress.snapshot().eta == pytest.approx((3 * 2.0 + 4 * 10.0) / 2)
        for task in easy[1:] + hard[1:]:
            progress.finished(task, report(1.0))
        assert progress.snapshot().eta == 0.0


def test_counts_and_words(tmp_path: Path) -> None:
    tasks = tasks_of(5, 0.1)
    with SweepProgress("p", tmp_path, tasks, 18, workers=1, show=False) as progress:
        for task in tasks[:4]:
            progress.started(task)
        progress.finished(tasks[0], report(1.0))
        progress.finished(tasks[1], report(1.0, failed=9, verdict=Verdict.MAYBE))
        progress.lost(tasks[2], "killed", again=True)
        snapshot = progress.snapshot()
        assert (snapshot.tasks, snapshot.done, snapshot.failed, snapshot.running) == (5, 2, 1, 1)
        assert (snapshot.retried, snapshot.rows, snapshot.rows_present) == (1, 18, 18)
        assert snapshot.verdicts == {"YES": 1, "MAYBE": 1}
        text = describe(snapshot)
        assert "2/5 tasks, 1 running, 1 with failed rows, MAYBE 1 YES 1" in text
        assert "longest running: net digits #3 ε=0.1" in text
    saved = read_snapshot(tmp_path)
    assert saved is not None
    assert saved.ended
    assert replace(saved, ended=False, seconds=0, slowest="") == replace(snapshot, seconds=0, slowest="")
    log = (tmp_path / "sweep.log").read_text().splitlines()
    assert all(line.split()[0].endswith("+00:00") for line in log)
    assert "begin: 5 tasks, 18 rows present, 1 workers" in log[0]
    assert any("killed; will be tried again" in line for line in log)


def test_a_terminal_gets_a_bar_that_leaves_the_notes_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(module, "Console", lambda stderr: console)
    tasks = tasks_of(2, 0.1)
    with SweepProgress("p", tmp_path, tasks, 0, workers=1, show=True) as progress:
        progress.note("something happened")
        for task in tasks:
            progress.finished(task, report(1.0))
    shown = screen.getvalue()
    assert "something happened" in shown
    assert "p: 2/2 tasks" in shown
    assert "100 %" in shown


def test_a_folder_that_cannot_be_written_does_not_stop_the_display(tmp_path: Path) -> None:
    with SweepProgress("p", tmp_path / "gone", tasks_of(1, 0.1), 0, workers=1, show=False) as progress:
        progress.note("nowhere to write this")
    assert read_snapshot(tmp_path / "gone") is None


def test_counts_are_bars_on_a_terminal_and_lines_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing before the first count, a line at the end of every step; quiet where asked to be."""
    with RunProgress() as progress:
        assert progress.line() == ""
    assert capsys.readouterr().err == ""
    with RunProgress() as progress:
        progress.advance("first", 0, 2)
        progress.advance("first", 2, 2, "YES 2")
        progress.advance("second", 0, 0)
    assert capsys.readouterr().err == "first: 2/2, YES 2, 0 s\nsecond: 0/0, 0 s\n"
    with RunProgress(show=False) as progress:
        progress.advance("first", 1, 1)
    assert capsys.readouterr().err == ""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(module, "Console", lambda stderr: console)
    with RunProgress() as progress:
        progress.advance("third", 1, 2)
    assert "third" in screen.getvalue()
    assert "1/2" in screen.getvalue()


NOTEBOOK = """
import warnings; warnings.simplefilter("error")
from toolkit import LinfBall, Network, certify, load_dataset
from toolkit.runs.notebook_page import as_html
from toolkit.runs.progress import RunProgress
with RunProgress() as progress:
    for k in range(1, 4):
        progress.advance("a <b> bar", k, 3)
network, data = Network.load("zoo:digits-standard"), load_dataset("digits")
answer = certify(network, LinfBall(data.features[0], 0.05, (0, 1)), int(data.labels[0]), ladder=("dual",))
answer
"""
FIGURE = "from toolkit import plot_margins\nplot_margins(answer)"


@pytest.mark.slow
def test_a_notebook_shows_bars_and_answers_as_html(tmp_path: Path) -> None:
    """A real kernel: one output for the bars, whose last state is the end; the certification as a table."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    cells = [nbformat.v4.new_code_cell(text) for text in (NOTEBOOK, FIGURE)]
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "python"}})
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [one for one in book.cells[0].outputs if "data" in one]
    assert [one for one in book.cells[0].outputs if one.get("name") == "stderr"] == []
    bars, answer = (one["data"]["text/html"] for one in shown)
    assert "a &lt;b&gt; bar" in bars
    assert "3/3" in bars
    assert "certified lower bound" in answer
    assert "image/png" in book.cells[1].outputs[0]["data"]


def test_a_notebook_gets_one_output_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[list[str]] = []

    class Page:
        def __init__(self) -> None:
            shown.append([])

        def show(self, renderable: object) -> None:
            shown[-1].append(as_html(renderable))  # type: ignore[arg-type]

    monkeypatch.setattr(module, "in_notebook", lambda: True)
    monkeypatch.setattr(module, "NotebookPage", Page)
    with RunProgress() as progress:
        progress.advance("<b>", 1, 2)
        progress.advance("<b>", 2, 2)
    [states] = shown
    assert "2/2" in states[-1]
    assert all("&lt;b&gt;" in one and "<b>" not in one for one in states)
