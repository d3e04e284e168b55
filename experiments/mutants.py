"""Would the tests notice? One small fault at a time is put into a copy of the project, and the tests that guard it run.

    make mutants
    python experiments/mutants.py --out results/mutants
    python experiments/mutants.py --only ledger-terms leaf-last     # by name or part of it; prints, writes nothing
    python experiments/mutants.py --changed                         # those that the table does not show as killed

The faults are in mutants.toml: a file, a text in it, what it is replaced by, and the tests that guard the place. A text
must occur exactly once in its file, or exactly once behind its `anchor`. The guarding tests must pass on the code as it
is. Outcomes: "killed", with the first test that failed; "timeout", killed by running without end; "SURVIVED", no test
noticed; "did not apply", the text is not there (any more); "did not run", the tests could not be collected. All but the
first two are failures of the list or of the tests: exit code 1. Exit code 2: the guarding tests fail without a fault.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from queue import SimpleQueue

import pandas as pd

from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.report import pipe_table

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_suffix(".toml")
LEFT_OUT = (".git", ".venv", "results", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")
TIMEOUT = 300.0  # seconds per mutant
GOOD = ("killed", "timeout")


class MutantError(ValueError):
    """A mutant that cannot be applied; the text says why."""


@dataclass(frozen=True)
class Mutant:
    """One fault. anchor: the text to replace is looked for behind it only ("": in the whole file)."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    anchor: str = ""

    @property
    def digest(self) -> str:
        """Of everything but the name: a table made with another version of the mutant is noticed."""
        parts = [self.file, self.old, self.new, *self.tests, self.anchor]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]

    def applied(self, source: str) -> str:
        """The source with the fault in it. Raises MutantError."""
        start = 0
        if self.anchor:
            if source.count(self.anchor) != 1:
                raise MutantError(f"the anchor occurs {source.count(self.anchor)} times in {self.file}")
            start = source.index(self.anchor)
        count = source.count(self.old, start)
        if count != 1:
            raise MutantError(f"the text occurs {count} times in {self.file}{' behind its anchor' * bool(start)}")
        if self.old == self.new:
            raise MutantError("the text and its replacement are the same")
        place = source.index(self.old, start)
        return source[:place] + self.new + source[place + len(self.old) :]


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant. by: the first test that failed, or why it did not apply or run."""

    mutant: Mutant
    outcome: str
    by: str = ""
    seconds: float = 0.0


def read_mutants(path: Path = LIST) -> list[Mutant]:
    """The list. Raises ValueError for an unknown or missing field, a name used twice, or a mutant without tests."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    known = {field.name for field in fields(Mutant)}
    found = []
    for entry in entries:
        if not known - {"anchor"} <= set(entry) <= known or not entry["tests"]:
            raise ValueError(f"a mutant needs {sorted(known - {'anchor'})} and may have anchor, got {sorted(entry)}")
        found.append(Mutant(**{**entry, "tests": tuple(entry["tests"])}))
    names = [mutant.name for mutant in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"names must be unique, got {sorted(twice)} twice")
    return found


def copy_project(to: Path) -> Path:
    """The project without results and caches."""
    shutil.copytree(ROOT, to, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
    return to


def run_tests(project: Path, tests: Sequence[str], timeout: float) -> tuple[int | None, str]:
    """Exit code (None: timeout) and output of pytest on a copy of the project, its own code imported."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-n",
        "0",
        "-rfE",
        "-p",
        "no:cacheprovider",
        "--tb=line",
        *tests,
    ]
    environ = os.environ | {
        "PYTHONPATH": str(project),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "HYPOTHESIS_PROFILE": "unshrunk",
    }
    try:
        done = subprocess.run(
            command, cwd=project, env=environ, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout + done.stderr


def try_mutant(mutant: Mutant, project: Path, number: int, timeout: float = TIMEOUT) -> Outcome:
    """Put the fault into the copy, run the tests that guard it, and take it out again."""
    path = project / mutant.file
    started = time.perf_counter()
    if not path.is_file():
        return Outcome(mutant, "did not apply", f"no file {mutant.file}")
    missing = [test for test in mutant.tests if not (project / test.split("::")[0]).is_file()]
    if missing:
        return Outcome(mutant, "did not run", f"no file {missing[0]}")
    source = path.read_text(encoding="utf-8")
    try:
        changed = mutant.applied(source)
    except MutantError as error:
        return Outcome(mutant, "did not apply", str(error))
    try:
        path.write_text(changed, encoding="utf-8")
        os.utime(path, (number, number))  # no bytecode of another version may be taken for this one's
        code, output = run_tests(project, mutant.tests, timeout)
    finally:
        path.write_text(source, encoding="utf-8")
    seconds = round(time.perf_counter() - started, 1)
    failed = re.findall(r"^FAILED (.+?)(?: - .*)?$", output, re.MULTILINE)
    if code is None:
        return Outcome(mutant, "timeout", f"{timeout:g} s", seconds)
    if code == 0:
        return Outcome(mutant, "SURVIVED", "", seconds)
    if code == 1 and failed:
        return Outcome(mutant, "killed", failed[0], seconds)
    broken = re.findall(r"^ERROR (.+?)(?: - .*)?$", output, re.MULTILINE)
    if code == 1 and broken:  # a fixture fell over
        return Outcome(mutant, "killed", broken[0], seconds)
    return Outcome(mutant, "did not run", (broken or output.strip().splitlines() or ["?"])[-1], seconds)


def try_all(mutants: Sequence[Mutant], workers: int, timeout: float = TIMEOUT) -> list[Outcome] | str:
    """The outcome of every mutant, in order; or what the guarding tests print when they fail as it is."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies = [copy_project(Path(folder) / f"copy{k}") for k in range(workers)]
        guards = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
        present = [test for test in guards if (copies[0] / test.split("::")[0]).is_file()]
        code, output = run_tests(copies[0], present, timeout * 10)
        if code != 0:
            return output[-4000:] or "timeout"
        free: SimpleQueue[Path] = SimpleQueue()
        for copy in copies:
            free.put(copy)

        def one(numbered: tuple[int, Mutant]) -> Outcome:
            project = free.get()
            try:
                outcome = try_mutant(numbered[1], project, 10**9 + numbered[0], timeout)
            finally:
                free.put(project)
            print(f"{outcome.mutant.name}: {outcome.outcome} {outcome.by} ({outcome.seconds:g} s)", flush=True)
            return outcome

        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(one, enumerate(mutants)))


def tabulate(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """One line per mutant, in the list's order."""
    rows = [(o.mutant.name, o.mutant.file, o.outcome, o.by, o.seconds, o.mutant.digest) for o in outcomes]
    return pd.DataFrame(rows, columns=["mutant", "file", "outcome", "by", "seconds", "digest"])


def kept_lines(path: Path, mutants: Sequence[Mutant]) -> pd.DataFrame:
    """The lines of an earlier table that are about these very mutants, killed."""
    if not path.is_file():
        return tabulate([])
    table = pd.read_csv(path, keep_default_na=False)
    same = set(zip(table["mutant"], table["digest"], strict=True)) & {(m.name, m.digest) for m in mutants}
    wanted = [(name, digest) in same for name, digest in zip(table["mutant"], table["digest"], strict=True)]
    return table[pd.Series(wanted, index=table.index, dtype=bool) & table["outcome"].isin(GOOD)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and write table.csv, table.md and provenance.json; returns the exit code."""
    parser = experiment_parser(__doc__, "mutants")
    parser.add_argument("--list", type=Path, default=LIST, help="another list of mutants")
    parser.add_argument("--only", nargs="+", help="names, or parts of them; nothing is written")
    parser.add_argument(
        "--changed", action="store_true", help="keep the lines of OUT's table that are about killed ones"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds per mutant")
    options = parser.parse_args(arguments)
    mutants = read_mutants(options.list)
    if options.only:
        mutants = [mutant for mutant in mutants if any(part in mutant.name for part in options.only)]
        if not mutants:
            parser.error(f"no mutant is named like {options.only}")
    every, kept = [mutant.name for mutant in mutants], tabulate([])
    if options.changed:
        kept = kept_lines(options.out / "table.csv", mutants)
        mutants = [mutant for mutant in mutants if mutant.name not in set(kept["mutant"])]
    outcomes = try_all(mutants, options.workers, options.timeout)
    if isinstance(outcomes, str):
        print(f"the guarding tests fail without any fault put in:\n{outcomes}", file=sys.stderr)
        return 2
    table = pd.concat([kept, tabulate(outcomes)]) if len(kept) else tabulate(outcomes)
    table = table.set_index("mutant").loc[every].reset_index()
    print(pipe_table(table))
    wrong = table[~table["outcome"].isin(GOOD)]
    if len(wrong):
        print(f"{len(wrong)} of {len(table)} mutants not killed:\n{pipe_table(wrong)}", file=sys.stderr)
    if not options.only:
        with experiment_run(parser, options) as run:
            run.write({"table.csv": table, "table.md": pipe_table(table)})
            run.record(mutants=len(table), killed=len(table) - len(wrong))
    return int(len(wrong) > 0)


if __name__ == "__main__":
    sys.exit(end_experiment(main))
