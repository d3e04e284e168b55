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
from toolkit import run_sweep
"""
WORK = 'print("rows", len(run_sweep("s.toml", "out", workers=2)))\n'


@pytest.mark.parametrize("guarded", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_script_under_spawn(guarded: bool, tmp_path: Path) -> None:
    """Without a guard one sentence, and no cascade of RuntimeErrors; with one, the rows."""
    (tmp_path / "s.toml").write_text(SPEC)
    work = f'if __name__ == "__main__":\n    {WORK}' if guarded else WORK
    (tmp_path / "script.py").write_text(SPAWN + work)
    command = [sys.executable, "script.py"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    if guarded:
        assert found.returncode == 0, found.stderr
        assert "rows 18" in found.stdout
        return
    assert found.returncode == 1
    assert found.stderr.count("Traceback") == 1
    assert found.stderr.splitlines()[-1] == f"toolkit.runs.workers.MissingGuardError: {GUARD_HINT}"
    assert "RuntimeError" not in found.stderr
    assert "rows" not in found.stdout
