"""Workers where they are spawned, as on Windows and macOS: each imports the script that started them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.runs.workers import GUARD_HINT

SPEC = """
name = "s"
samples = 2
eps = [0.01]
rungs = ["dual"]
[[networks]]
source = "zoo:digits-standard"
dataset = "digits"
"""
SPAWN = """
import multiprocessing
import toolkit.runs.executors
toolkit.runs.executors.start_context = lambda: multiprocessing.get_context("spawn")
"""
SWEEP = 'from toolkit import run_sweep\nprint("rows", len(run_sweep("s.toml", "out", workers=2)))\n'
GATHER = 'from toolkit.runs.run import gather\ngather(abs, [-1, -2], 2, print)\nprint("rows 18")\n'


def script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "s.toml").write_text(SPEC)
    (folder / "script.py").write_text(SPAWN + text)
    command = [sys.executable, "script.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("work", [GATHER, pytest.param(SWEEP, marks=pytest.mark.slow)], ids=["gather", "run_sweep"])
def test_a_script_without_a_guard_under_spawn(work: str, tmp_path: Path) -> None:
    """One sentence, and no cascade of RuntimeErrors."""
    found = script(tmp_path, work)
    assert found.returncode == 1
    assert found.stderr.count("Traceback") == 1
    assert found.stderr.splitlines()[-1] == f"toolkit.runs.workers.MissingGuardError: {GUARD_HINT}"
    assert "RuntimeError" not in found.stderr
    assert found.stdout == ""


@pytest.mark.parametrize("work", [GATHER, pytest.param(SWEEP, marks=pytest.mark.slow)], ids=["gather", "run_sweep"])
def test_a_script_with_a_guard_under_spawn(work: str, tmp_path: Path) -> None:
    indented = "".join(f"    {line}\n" for line in work.splitlines())
    found = script(tmp_path, f'if __name__ == "__main__":\n{indented}')
    assert found.returncode == 0, found.stderr
    assert "rows 18" in found.stdout
