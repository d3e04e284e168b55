"""Output through an encoding of few characters, as Windows has for pipes; the command without a script on the path."""

from __future__ import annotations

import os
import subprocess
import sys


def test_python_m_toolkit_speaks_through_any_encoding() -> None:
    command = [sys.executable, "-m", "toolkit", "--help"]
    found = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "cp1252"}, capture_output=True, check=False)
    assert found.returncode == 0, found.stderr
    assert b"relugap" in found.stdout
    whole = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "utf-8"}, capture_output=True, check=True)
    assert "ℓ∞" in whole.stdout.decode()  # which cp1252 has not
