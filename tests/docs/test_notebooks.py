"""The notebooks run, cell after cell, in an empty folder; `make docs` runs them in a kernel and shows their output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
NEEDS = {"lecture": "torch", "five_minutes": "torch"}
WITH_WORKERS = {"five_minutes"}  # worker processes take seconds to start


def cells(notebook: Path, kind: str) -> list[str]:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == kind]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    pyplot.close("all")


def marked(notebook: Path) -> Any:
    slow = [pytest.mark.slow] if notebook.stem in WITH_WORKERS else []
    return pytest.param(notebook, id=notebook.stem, marks=slow)


@pytest.mark.parametrize("notebook", [marked(notebook) for notebook in NOTEBOOKS])
def test_cells_run_in_order(notebook: Path, workplace: Path) -> None:
    """In this process, which has loaded what they import; lines for the notebook itself (%…) are left out."""
    if notebook.stem in NEEDS:
        pytest.importorskip(NEEDS[notebook.stem])
    namespace: dict[str, Any] = {"__name__": notebook.stem}
    for number, text in enumerate(cells(notebook, "code"), start=1):
        python = "\n".join("" if line.startswith("%") else line for line in text.splitlines())
        exec(compile(python, f"{notebook.name}, code cell {number}", "exec"), namespace)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_nothing_that_was_computed_is_stored(notebook: Path) -> None:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_the_lecture_has_ten_cells() -> None:
    assert len(cells(ROOT / "docs" / "notebooks" / "lecture.ipynb", "code")) == 10
