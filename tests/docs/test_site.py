"""The site leads to its pages, its reference has every public name, and its links are checked."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import toolkit

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def navigation() -> dict[str, list[str]]:
    """NAVIGATION of conf.py, which may need packages that are not installed here."""
    for node in ast.parse((DOCS / "conf.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [target.id for target in node.targets if isinstance(target, ast.Name)] == [
            "NAVIGATION"
        ]:
            found: Any = ast.literal_eval(node.value)
            return found
    raise AssertionError("docs/conf.py has no NAVIGATION")


def test_the_navigation_names_pages_that_are_there_and_every_notebook() -> None:
    listed = [page for group in navigation().values() for page in group]
    assert len(set(listed)) == len(listed)
    assert [page for page in listed if not list(DOCS.glob(f"{page}.*"))] == []
    notebooks = {f"notebooks/{path.stem}" for path in (DOCS / "notebooks").glob("*.ipynb")}
    assert notebooks | {"api/index"} <= set(listed)


def test_the_reference_names_what_the_package_hands_out() -> None:
    """Every name of toolkit.__all__ has its entry, once; a new one is given a line in a page of docs/api."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.rst"))
    entries = re.findall(r"^\.\. auto(class|function):: toolkit\.(\w+)(?:\(.*\))?$", text, re.MULTILINE)
    public = [name for name in toolkit.__all__ if not name.startswith("_")]
    assert sorted(name for _, name in entries) == sorted(public)
    for kind, name in entries:
        assert isinstance(getattr(toolkit, name), type) == (kind == "class"), name
        assert getattr(toolkit, name).__doc__, name


def test_every_page_of_the_reference_is_listed() -> None:
    listed = set(re.findall(r"^   (\w+)$", (DOCS / "api" / "index.rst").read_text(encoding="utf-8"), re.MULTILINE))
    assert listed == {path.stem for path in (DOCS / "api").glob("*.rst")} - {"index"}


def checked(site: Path) -> tuple[int, str]:
    command = [sys.executable, str(DOCS / "check_site.py"), str(site)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_broken_links_and_foreign_resources_are_named(tmp_path: Path) -> None:
    (tmp_path / "other.html").write_text('<h1 id="here">Here</h1>')
    whole = '<a href="other.html#here">a</a> <a href="#top">b</a> <p id="top"> <a href="https://example.org">c</a>'
    (tmp_path / "index.html").write_text(whole)
    assert checked(tmp_path) == (0, "2 pages, 0 broken links or foreign resources\n")
    wrong = (
        '<a href="gone.html">a</a> <a href="other.html#there">b</a> <script src="https://example.org/x.js"></script>'
    )
    (tmp_path / "index.html").write_text(whole + wrong)
    code, said = checked(tmp_path)
    assert code == 1
    for fault in ("gone.html: no such file", "other.html#there: no such anchor", "loads https://example.org/x.js"):
        assert f"index.html: {fault}" in said
