"""The page "your own torch network in five minutes", done as a script in an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow  # worker processes, and torch in a process of its own


def code_cells() -> list[str]:
    """What stands in for the user's folder and module, then the fifteen lines."""
    content = json.loads((ROOT / "docs" / "notebooks" / "five_minutes.ipynb").read_text(encoding="utf-8"))
    found = ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]
    return ["\n".join(line for line in text.splitlines() if not line.startswith("%")) for text in found[:3]]


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(script, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "script.py"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("torch")
    photos, module, _ = code_cells()
    (tmp_path / "mine.py").write_text(module, encoding="utf-8")
    done = run(photos, tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path


def test_fifteen_lines_certify_sweep_draw_and_store(folder: Path) -> None:
    lines = code_cells()[2]
    assert sum(bool(line.strip()) for line in lines.splitlines()) <= 15
    guarded = "from mine import model\n\nif __name__ == '__main__':\n" + textwrap.indent(lines, "    ")
    done = run(guarded, folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("YES ", "NO ", "MAYBE "))
    rows = json.loads((folder / "rows.json").read_text())
    assert {row["rung"] for row in rows} == {"dual", "lp", "exact"}
    assert {row["dataset"] for row in rows} == {"photos"}
    for name in ("margins.png", "tightness.pdf"):
        assert (folder / name).stat().st_size > 1000


def test_without_the_guard_one_sentence_says_so(folder: Path) -> None:
    done = run("from mine import model\n\n" + code_cells()[2], folder)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if '`if __name__ == "__main__":`' in line]
    assert len(said) == 1
    assert done.stderr.rstrip().endswith(said[0])
    assert not (folder / "rows.json").exists()
