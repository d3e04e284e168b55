"""The documentation is true: its blocks run in order, its links, files, commands and names exist.

How a page says what is done with a block, in a comment on the line above it:

    <!-- file: NAME -->      the block is written to NAME
    <!-- run -->             its lines that begin with `relugap` are run, each must end with exit code 0
    <!-- not run: WHY -->    a python block that is only compiled

Every other ```python block is run. A page's blocks share a namespace and an empty working folder.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer.main

from toolkit.cli import main
from toolkit.cli.app import app
from toolkit.data.datasets import DATASETS
from toolkit.problems.answers import Status
from toolkit.report.tables import gap_table
from toolkit.report.write import FIGURES, GAP_FIGURES
from toolkit.rungs import RUNGS
from toolkit.rungs.rung import Side
from toolkit.runs.rows import ROW_COLUMNS
from toolkit.runs.sweep.spec import SweepSpec, SweptNetwork
from toolkit.runs.tables.errors import ErrorCell
from toolkit.runs.tables.radii import RadiusCell
from toolkit.solvers.registry import SOLVERS
from toolkit.training.spec import LOSS_NAMES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
IDS = [page.name for page in PAGES]
CLUSTER_ONLY = {"dask_jobqueue"}  # what no test machine has: blocks that need it are compiled only
EXTRAS = {"torch", "onnx", "onnxruntime", "plotly"}


@dataclass(frozen=True)
class Block:
    """A code block: its language ("" for an indented one), text, first line, and the comment above it."""

    language: str
    text: str
    line: int
    directive: str

    @property
    def file(self) -> str:
        """What it is to be written to, "" if nothing."""
        return self.directive.removeprefix("file:").strip() if self.directive.startswith("file:") else ""


def split_page(page: Path) -> tuple[str, list[Block]]:
    """A page's prose, blocks blanked out, and its blocks in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    prose, blocks, directive, k = [], [], "", 0
    while k < len(lines):
        line, start = lines[k], k
        fenced = re.fullmatch(r"```(\w*)", line)
        indented = line.startswith("    ") and (k == 0 or not lines[k - 1].strip() or bool(directive))
        if fenced or indented:
            k += 1
            while k < len(lines) and (lines[k] != "```" if fenced else lines[k].startswith("    ") or not lines[k]):
                k += 1
            body = lines[start + 1 : k] if fenced else [text[4:] for text in lines[start:k]]
            blocks.append(
                Block(fenced[1] if fenced else "", "\n".join(body) + "\n", start + 1 + bool(fenced), directive)
            )
            k += bool(fenced)
            prose += [""] * (k - start)
            directive = ""
            continue
        comment = re.fullmatch(r"<!-- (.*) -->", line)
        directive = comment[1] if comment else directive if not line.strip() else ""
        prose.append("" if comment else line)
        k += 1
    return "\n".join(prose), blocks


def inline_code(page: Path) -> set[str]:
    """A page's code spans; $`…`$ is mathematics."""
    prose = re.sub(r"\$`[^`]*`\$", "", split_page(page)[0])
    return {" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)}


def commands(block: Block) -> Iterator[str]:
    """The block's lines that begin with `relugap`, continued ones joined."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if line.startswith("relugap "):
            yield line


# ---------------------------------------------------------------------------------------------- blocks run


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in; modules, rungs, solvers and data sets that a page adds are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    registries: tuple[dict[str, Any], ...] = (RUNGS, SOLVERS, DATASETS)
    known, modules = [(registry, dict(registry)) for registry in registries], set(sys.modules)
    yield tmp_path
    for registry, before in known:
        registry.clear()
        registry.update(before)
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def missing_packages(text: str) -> set[str]:
    """Packages a block imports that are not installed here."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return {name for name in found if importlib.util.find_spec(name) is None}


def run_python(page: Path, block: Block, namespace: dict[str, Any]) -> None:
    missing = missing_packages(block.text)
    if missing & EXTRAS:
        pytest.skip(f"{page.name} needs {', '.join(sorted(missing))} from line {block.line} on, not installed here")
    code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
    if block.directive.startswith("not run:") or missing & CLUSTER_ONLY:
        return
    exec(code, namespace)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's, of its ONNX exporter
@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_blocks_run_in_order(page: Path, workplace: Path) -> None:
    namespace: dict[str, Any] = {"__name__": page.stem}
    for block in split_page(page)[1]:
        if block.file:
            target = workplace / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
        elif block.directive == "run":
            lines = list(commands(block))
            assert lines, f"{page.name}:{block.line}: nothing to run"
            for line in lines:
                assert main(shlex.split(line, comments=True)[1:]) == 0, f"{page.name}:{block.line}: {line}"
        elif block.language == "python":
            run_python(page, block, namespace)


def copy_with(folder: Path, written: str, place: str) -> None:
    """docs/adding.md, done in a copy of the checkout: the file it writes is moved to its place, the diff applied."""
    blocks = split_page(ROOT / "docs" / "adding.md")[1]
    (source,) = [block.text for block in blocks if block.file == written]
    (diff,) = [block.text for block in blocks if block.language == "diff" and block.text.startswith(f"--- a/{place}")]
    for name in ("toolkit", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / place / written).write_text(source.partition("\n\n\ndef register")[0].rstrip() + "\n")
    (folder / "added.diff").write_text(diff)
    run(["git", "apply", "added.diff"], folder)


def test_a_rung_becomes_part_of_the_toolkit(tmp_path: Path) -> None:
    """File and diff; the order test and the command take it."""
    copy_with(tmp_path, "two_slopes.py", "toolkit/rungs")
    question = "certify zoo:digits-standard --data digits --index 0 --eps 0.03 --rungs two_slopes,lp"
    chosen = "two_slopes or (keeps_the_order and 0-interval+dual)"
    code = f"""
import sys, pytest
from toolkit.cli import main
assert main({question.split()}) == 0
sys.exit(pytest.main(["tests/report/test_order.py", "-k", {chosen!r}, "-p", "no:cacheprovider"]))
"""
    printed = run([sys.executable, "-c", code], tmp_path)
    assert re.search(r"target +clean +two_slopes +lp", printed), printed
    assert " passed" in printed


def test_a_solver_becomes_part_of_the_toolkit(tmp_path: Path) -> None:
    """File and diff; the conformance suite, the command and the doctor take it."""
    copy_with(tmp_path, "linprog.py", "toolkit/solvers")
    question = "certify zoo:digits-standard --data digits --index 0 --eps 0.01 --rungs lp --solver linprog"
    code = f"""
import sys, pytest
from toolkit.cli import main
assert main({question.split()}) == 0
assert main(["doctor"]) == 0
sys.exit(pytest.main(["tests/solvers/test_solver_conformance.py", "-k", "linprog", "-p", "no:cacheprovider"]))
"""
    printed = run([sys.executable, "-c", code], tmp_path)
    assert re.search(r"linprog +\d+\.\d+", printed), printed
    assert " passed" in printed


def test_an_input_set_becomes_part_of_the_toolkit(tmp_path: Path) -> None:
    """docs/adding.md, "An input set": file and diff in a copy of the checkout; the conformance suite takes it."""
    blocks = split_page(ROOT / "docs" / "adding.md")[1]
    (text,) = [block.text for block in blocks if block.file == "brightness.py"]
    (diff,) = [block.text for block in blocks if block.language == "diff" and "input_sets.py" in block.text]
    for name in ("toolkit", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "toolkit" / "problems" / "brightness.py").write_text(text)
    (tmp_path / "set.diff").write_text(diff)
    run(["git", "apply", "set.diff"], tmp_path)
    printed = run([sys.executable, "-m", "pytest", "tests/problems/test_input_set_conformance.py", "-rA"], tmp_path)
    assert "test_no_functional_is_lower_than_it_says[brightness-0]" in printed


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---------------------------------------------------------------------------------------------- links, names


def anchors(page: Path) -> set[str]:
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", split_page(page)[0], re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_resolve(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", split_page(page)[0]):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            wrong.append(target)
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_exist_with_their_options(page: Path) -> None:
    """Every `relugap …` of a page, run or not: its command is there, and so are its options."""
    lines = [line for block in split_page(page)[1] for line in commands(block)]
    lines += [span for span in inline_code(page) if span.startswith("relugap ")]
    for line in lines:
        words = [word.strip("[]") for word in shlex.split(line, comments=True)[1:]]
        command: Any = typer.main.get_command(app)
        while words and hasattr(command, "commands") and not words[0].startswith("-"):
            assert words[0] in command.commands or words[0] in ("…", "..."), f"{line!r}: no command {words[0]!r}"
            command = command.commands.get(words.pop(0))
        known = {option for parameter in command.params for option in parameter.opts} if command else set()
        unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
        assert not unknown or command is None, f"{line!r}: no option {unknown[0]}"


SOURCES = sorted(path for name in ("toolkit", "experiments", "tests", "docs") for path in (ROOT / name).rglob("*.py"))


def defined_names() -> dict[str, set[str]]:
    """Every class of the package with its attributes; "" holds all functions and classes."""
    found: dict[str, set[str]] = {"": set()}
    for path in SOURCES:
        if path.is_relative_to(ROOT / "toolkit"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    found[""].add(node.name)
                if isinstance(node, ast.ClassDef):
                    members = found.setdefault(node.name, set())
                    for item in node.body:
                        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                            members.add(item.target.id)
                        elif isinstance(item, ast.FunctionDef):
                            members.add(item.name)
                        elif isinstance(item, ast.Assign):
                            members |= {target.id for target in item.targets if isinstance(target, ast.Name)}
    return found


NAMES = defined_names()


def importable(dotted: str) -> bool:
    """Whether toolkit.a.b names a module or something in one."""
    name, *attributes = dotted.split(".")
    value: Any = importlib.import_module(name)
    for attribute in attributes:
        name = f"{name}.{attribute}"
        if hasattr(value, attribute):
            value = getattr(value, attribute)
        elif importlib.util.find_spec(name):
            value = importlib.import_module(name)
        else:
            return False
    return True


def is_known(span: str, page: Path) -> bool:
    """False for a code span that looks like a module, a file, a call or an attribute of ours, and is none."""
    if re.fullmatch(r"toolkit(\.\w+)+", span):
        return importable(span)
    if re.fullmatch(r"[\w/]+\.py", span) and "NAME" not in span:
        written = {block.file for block in split_page(page)[1]}
        return span in written or any(f"/{path.relative_to(ROOT)}".endswith(f"/{span}") for path in SOURCES)
    if call := re.match(r"(\w+)\(", span):
        return call[1] in NAMES[""]
    if attribute := re.fullmatch(r"([A-Z]\w+)\.(\w+)", span):
        return attribute[2] in NAMES.get(attribute[1], ())
    return True


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_names_in_code_spans_exist(page: Path) -> None:
    assert [span for span in sorted(inline_code(page)) if not is_known(span, page)] == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_identifiers_in_code_spans_occur_in_the_sources(page: Path) -> None:
    """Columns, settings, statuses, rungs: what a page calls by name has that name."""
    texts = [path.read_text(encoding="utf-8") for path in SOURCES if path != Path(__file__)]
    texts += [path.read_text(encoding="utf-8") for path in (ROOT / "experiments").glob("*.toml")]
    texts += [(ROOT / "pyproject.toml").read_text(), *(block.text for block in split_page(page)[1])]
    words = set(re.findall(r"\w+", "\n".join(texts)))
    named = {span for span in inline_code(page) if re.fullmatch(r"[A-Za-z_]\w*", span)}
    assert sorted(named - words) == []


# ---------------------------------------------------------------------------------------------- nothing left out


def first_cells(page: Path) -> set[str]:
    """Code spans in the first column of a page's tables."""
    cells = re.findall(r"^\| (`.*?) \|", split_page(page)[0], re.MULTILINE)
    return {span for cell in cells for span in re.findall(r"`([^`]+)`", cell)}


def test_results_page_explains_everything_a_report_shows() -> None:
    named = first_cells(ROOT / "docs" / "results.md")
    assert set(ROW_COLUMNS) <= named
    assert {str(status) for status in Status if status is not Status.INFEASIBLE} <= named
    assert set(SweepSpec.model_fields) <= named
    assert {f"{name}.png" for name in FIGURES | GAP_FIGURES} <= inline_code(ROOT / "docs" / "results.md")
    assert set(SweptNetwork.model_fields) <= inline_code(ROOT / "docs" / "results.md")
    rows = pd.DataFrame([dict.fromkeys(ROW_COLUMNS, 0) | {"rung": "lp", "network": "net", "layer_bounds": "interval"}])
    assert set(gap_table(rows).columns) <= named


def test_tables_page_explains_every_column_of_a_reproduced_table() -> None:
    named = first_cells(ROOT / "docs" / "tables.md")
    assert {field.name for kind in (ErrorCell, RadiusCell) for field in fields(kind)} <= named


def test_method_page_lists_every_rung_and_loss() -> None:
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| `(\w+)` \|.*\| (lower|exact|upper) \| \S+ \|$", text, re.MULTILINE))
    assert table == {name: str(rung.side) for name, rung in RUNGS.items()}
    for name, rung in RUNGS.items():
        word = {True: "yes", False: "no"}[rung.certifies] if rung.side is not Side.UPPER else "–"
        assert re.search(rf"^\| `{name}` .*\| {word} \|$", text, re.MULTILINE), name
    assert set(LOSS_NAMES) <= first_cells(ROOT / "docs" / "method.md")
