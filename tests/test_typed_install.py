"""Types are seen outside the checkout: the package says it has some, and an editable install is a path, not a hook."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import toolkit

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"


def test_an_editable_install_is_a_path_that_type_checkers_follow(tmp_path: Path) -> None:
    """Setuptools' own hook for imports hides a package from mypy and editors, which import nothing."""
    pytest.importorskip("setuptools", minversion="77")
    checkout, out = tmp_path / "checkout", tmp_path / "out"
    out.mkdir()
    (checkout / "toolkit/data").mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, checkout)
    for name in ("__init__.py", "py.typed", "data/build_specs.py"):
        shutil.copy2(ROOT / "toolkit" / name, checkout / "toolkit" / name)
    subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=checkout, check=True, capture_output=True, timeout=120)
    [wheel] = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [path] = [name for name in names if name.endswith(".pth")]
        assert Path(archive.read(path).decode().strip()) == checkout
    assert [name for name in names if "finder" in name] == []


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(toolkit.__file__).parent / "py.typed").is_file()
