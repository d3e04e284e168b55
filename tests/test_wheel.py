"""The wheel: what is in it, and that the command works from it in an empty folder, with no checkout near."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import toolkit

ROOT = Path(__file__).parents[1]
BUILT_FROM = ("toolkit", "experiments", "pyproject.toml", "README.md", "LICENSE")
SCRIPTS = "Scripts" if os.name == "nt" else "bin"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a copy, as a wheel is from a source distribution, with the setuptools that are here."""
    pytest.importorskip("setuptools", "77", reason="building a wheel needs setuptools ≥ 77")
    folder = tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)
    code = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = (folder / "dist").glob("*.whl")
    return found


def test_the_wheel_holds_the_package_its_networks_and_the_specs(wheel: Path) -> None:
    """Every module and datum of the checkout, every spec under toolkit/experiments, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
        specs = {f"toolkit/experiments/{path.name}": path for path in (ROOT / "experiments").glob("*.toml")}
        assert {name: archive.read(name) for name in specs} == {name: path.read_bytes() for name, path in specs.items()}
    kept = {".py", ".npz", ".md", ".typed", ".html", ".css", ".js"}
    own = {path for path in (ROOT / "toolkit").rglob("*") if path.suffix in kept and "history" not in path.parts}
    assert found == {path.relative_to(ROOT).as_posix() for path in own} | {"toolkit/py.typed"} | set(specs)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked, as pip does with one of pure Python."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def relugap(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m toolkit …` in a folder, by the installed package and no other."""
    packages = sysconfig.get_path("purelib")
    code = (
        f"import sys, runpy; sys.path = [{str(installed)!r}, {packages!r}, *(p for p in sys.path if 'lib' in p)]\n"
        "import toolkit; assert toolkit.__file__.startswith(sys.path[0]), toolkit.__file__\n"
        f"sys.argv[1:] = {list(arguments)!r}; runpy.run_module('toolkit', run_name='__main__')"
    )
    command = [sys.executable, "-I", "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_scripts_are_said_to_need_a_checkout(installed: Path, tmp_path: Path) -> None:
    code = relugap(installed, tmp_path, "reproduce", "trust")
    assert code.returncode == 2
    assert "trust is a script, experiments/trust.py, that is not part of the installed package" in code.stderr
    assert "checkout" in code.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_demo_reproduce_and_zoo_work_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    listed = relugap(installed, tmp_path, "reproduce")
    assert "salman-2019-table1" in listed.stdout
    assert "(a script" in listed.stdout
    done = relugap(installed, tmp_path, "reproduce", "demo", "--count", "1", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "demo-1" / "tightness.png").is_file()
    question = ["certify", "zoo:digits-standard", "--data", "digits", "--index", "0", "--eps", "0.01"]
    assert relugap(installed, tmp_path, *question).returncode == 0
    spec = "experiments/demo.toml"  # as the documentation writes it
    swept = relugap(installed, tmp_path, "sweep", spec, "--out", "mine", "--workers", "1", "--max-hours", "0.00001")
    assert swept.returncode == 0, swept.stderr
    assert not (tmp_path / "experiments").exists()


@pytest.mark.slow
def test_pip_installs_it_with_its_command(wheel: Path, tmp_path: Path) -> None:
    """An environment of its own, the other packages lent by this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python, command = (tmp_path / "venv" / SCRIPTS / name for name in ("python", "relugap"))
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    )
    Path(own.stdout.strip(), "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True)
    (tmp_path / "empty").mkdir()
    question = ["certify", "zoo:digits-standard", "--data", "digits", "--index", "0", "--eps", "0.01"]
    done = subprocess.run([command, *question], cwd=tmp_path / "empty", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("relugap ")
    assert toolkit.__file__ not in done.stdout


def test_make_demo_leaves_nothing_for_git_to_see() -> None:
    """Its folder is ignored; the committed results/demo is another's."""
    (line,) = [line for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines() if "relugap demo" in line]
    folder = line.split("--out ")[1].split()[0]
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert f"{Path(folder).parent.as_posix()}/" in ignored
    assert folder != "results/demo"
