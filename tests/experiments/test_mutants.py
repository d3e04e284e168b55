"""The list of mutants: each applies to the code as it is, its guards exist, and the table says that all were killed."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "experiments"))

import mutants as experiment  # noqa: E402
from mutants import GOOD, Mutant, MutantError, Outcome, kept_lines, main, read_mutants, tabulate, try_all, try_mutant  # noqa: E402

MUTANTS = read_mutants()
TABLE = ROOT / "results" / "mutants" / "table.csv"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_applies_and_is_python(mutant: Mutant) -> None:
    changed = mutant.applied((ROOT / mutant.file).read_text(encoding="utf-8"))
    compile(changed, mutant.file, "exec")
    for test in mutant.tests:
        assert (ROOT / test.split("::")[0]).is_file(), f"{mutant.name} is guarded by {test}, which does not exist"


def test_mutants_are_of_every_part() -> None:
    counts = Counter(Path(mutant.file).name for mutant in MUTANTS)
    assert len(MUTANTS) >= 40
    expected = """dual_bound rounding leaves check knowledge verdict replay tree layer_bounds session solve_report
        linear_program linf_ball norm_balls norms onnx_operators"""
    assert {f"{name}.py" for name in expected.split()} <= set(counts)


def test_the_table_is_of_this_list_and_none_survived() -> None:
    """Run `make mutants` after any change of the list; the digests are those of file, texts and guards."""
    table = pd.read_csv(TABLE, keep_default_na=False)
    made = dict(zip(table["mutant"], table["digest"], strict=True))
    assert made == {mutant.name: mutant.digest for mutant in MUTANTS}
    alive = table[~table["outcome"].isin(GOOD)]
    assert not len(alive), f"not killed: {alive['mutant'].tolist()}"
    assert all(name.startswith("tests/") for name in table.loc[table["outcome"] == "killed", "by"])
    assert (TABLE.parent / "table.md").read_text(encoding="utf-8").count("\n") == len(table) + 2


@pytest.mark.parametrize(
    ("old", "new", "anchor", "reason"),
    [
        ("x = 3", "x = 4", "", "occurs 0 times"),
        ("x = 1", "x = 4", "", "occurs 2 times"),
        ("x = 1", "x = 4", "def g", ""),
        ("x = 1", "x = 4", "def h", "the anchor occurs 0 times"),
        ("x = 1", "x = 4", "def", "the anchor occurs 2 times"),
        ("y = 2", "y = 2", "", "the same"),
        ("y = 2", "y = 3", "", ""),
    ],
)
def test_a_text_must_occur_once(old: str, new: str, anchor: str, reason: str) -> None:
    source = "def f():\n    x = 1\ndef g():\n    x = 1\n    y = 2\n"
    mutant = Mutant("m", "f.py", old, new, ("t",), anchor)
    if reason:
        with pytest.raises(MutantError, match=reason):
            mutant.applied(source)
        return
    changed = mutant.applied(source)
    assert changed.count(new) == 1
    assert changed.replace(new, old) == source


TOY_LIST = """
[[mutant]]
name = "noticed"
file = "toy.py"
old = "a + b"
new = "a - b"
tests = ["tests/test_toy.py"]

[[mutant]]
name = "unnoticed"
file = "toy.py"
old = "a * b"
new = "a * b + 0.1"
tests = ["tests/test_toy.py::test_add"]

[[mutant]]
name = "gone"
file = "toy.py"
old = "a / b"
new = "a"
tests = ["tests/test_toy.py"]

[[mutant]]
name = "broken"
file = "toy.py"
old = "import math"
new = "import nothing_of_that_name"
tests = ["tests/test_toy.py"]
"""
TOY = """import math


def add(a, b):
    return a + b


def times(a, b):
    return a * b


def pi():
    return math.pi
"""
TOY_TESTS = """import toy


def test_add():
    assert toy.add(1, 2) == 3


def test_pi():
    assert toy.pi() > 3
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project = tmp_path / "toy"
    (project / "tests").mkdir(parents=True)
    (project / "toy.py").write_text(TOY, encoding="utf-8")
    (project / "tests" / "test_toy.py").write_text(TOY_TESTS, encoding="utf-8")
    (project / "list.toml").write_text(TOY_LIST, encoding="utf-8")
    monkeypatch.setattr(experiment, "ROOT", project)
    return project


@pytest.mark.slow
def test_outcomes_on_a_toy(toy: Path) -> None:
    outcomes = try_all(read_mutants(toy / "list.toml"), workers=2, timeout=120.0)
    assert not isinstance(outcomes, str), outcomes
    table = tabulate(outcomes).set_index("mutant")
    assert table["outcome"].to_dict() == {
        "noticed": "killed", "unnoticed": "SURVIVED", "gone": "did not apply", "broken": "did not run",
    }  # fmt: skip
    assert table.loc["noticed", "by"] == "tests/test_toy.py::test_add"
    assert "occurs 0 times" in table.loc["gone", "by"]
    assert (toy / "toy.py").read_text(encoding="utf-8") == TOY


def test_a_mutant_that_runs_without_end_is_killed_by_the_clock(toy: Path) -> None:
    (noticed, *_) = read_mutants(toy / "list.toml")
    outcome = try_mutant(noticed, toy, 1, timeout=0.01)
    assert (outcome.outcome, outcome.by) == ("timeout", "0.01 s")
    assert outcome.outcome in GOOD


def test_lines_of_unchanged_killed_mutants_are_kept(tmp_path: Path) -> None:
    killed, survived, changed, new = (Mutant(name, "f.py", "a", "b", ("t",)) for name in ("k", "s", "c", "n"))
    earlier = [Outcome(killed, "killed", "t::x"), Outcome(survived, "SURVIVED"), Outcome(changed, "killed", "t::x")]
    tabulate(earlier).to_csv(tmp_path / "table.csv", index=False)
    now = [killed, survived, replace(changed, new="c"), new]
    assert kept_lines(tmp_path / "table.csv", now)["mutant"].tolist() == ["k"]
    assert len(kept_lines(tmp_path / "none.csv", now)) == 0


def test_guards_that_fail_by_themselves_end_it(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (toy / "toy.py").write_text(TOY.replace("a + b", "a"), encoding="utf-8")
    arguments = ["--list", str(toy / "list.toml"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--only", "noticed"]) == 2
    assert "the guarding tests fail without any fault" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_list_with_mistakes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.toml"
    for text, reason in (
        (TOY_LIST.replace('name = "gone"', 'name = "noticed"'), r"names must be unique, got \['noticed'\]"),
        (TOY_LIST.replace('tests = ["tests/test_toy.py"]', "tests = []"), "a mutant needs"),
        (TOY_LIST + '[[mutant]]\nname = "x"\nfile = "y"\n', "a mutant needs"),
        (TOY_LIST + 'guard = "z"\n', "a mutant needs"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=reason):
            read_mutants(path)
