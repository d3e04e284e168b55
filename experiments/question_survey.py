"""Which instances of VNN-COMP benchmarks can be asked: does the network import, and is the property one about it?

    python experiments/question_survey.py vnncomp2021 vnncomp2022 --out results/question-survey

Every row (network, property, timeout) of every *instances.csv or expected.csv below the folders is one of these:

- `missing`: a file is not there (repositories fetched by others may lack their largest files);
- `large`: the network, as stored, has more than --largest bytes;
- `refused`: the network does not import (reasons: results/import-survey);
- `asked`: network and property fit, and the property's largest question was asked of the network: lowered to one row
  per group, and answered by the interval rung;
- `not_asked`: all else; why stands in not_asked.csv;
- `untried`: what was still to do when the run's --budget of seconds was over. The same command goes on with it.

`distinct` counts pairs of contents, unpacked, among asked and not_asked, since benchmarks are repeated over the years.
A pair takes at most --seconds, else it is not asked. pairs.csv has what was found for every pair of contents; a
run that was stopped is taken up there. --imports: a files.csv of the import survey, whose refused networks are not
tried again.
"""

from __future__ import annotations

import signal
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import FrameType

import pandas as pd
from import_survey import LONGEST, benchmark_folders, content_key

from toolkit.cli.experiment import ExperimentRun, end_experiment, experiment_parser, experiment_run
from toolkit.networks.network import Network
from toolkit.problems.lowering import with_input_outputs
from toolkit.problems.vnnlib_reader import VnnlibQuery, read_vnnlib
from toolkit.report import pipe_table
from toolkit.runs.scorecard import QueryInstance, read_instances
from toolkit.verify.ladder import certify
from toolkit.verify.queries import fitting_questions

TABLES = ("*instances.csv", "expected.csv")  # of instances: the competitions' own, and those beside official results
PAIRS = "pairs.csv"
COLUMNS = ("pair", "outcome", "boxes", "groups", "rows", "seconds", "reason")
OUTCOMES = ("asked", "not_asked", "untried", "refused", "large", "missing")
EVERY = 100  # pairs between two writings

read_network = lru_cache(16)(Network.load)  # the last ones: a benchmark asks the same networks again
read_query = lru_cache(16)(read_vnnlib)


class OutOfTimeError(Exception):
    """A pair took longer than it may."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises OutOfTimeError in the block when the seconds are over, where the system has such a clock."""

    def end(number: int, frame: FrameType | None) -> None:
        raise OutOfTimeError(f"took more than {seconds:g} s")

    if not hasattr(signal, "setitimer"):
        yield
        return
    earlier = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)


def instance_tables(folders: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Every table of instances, with the name of its folder below the given one's parent."""
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"no folder {folder}")
        for path in sorted(path for pattern in TABLES for path in folder.rglob(pattern)):
            yield path.parent.relative_to(folder.parent).as_posix(), path


def ask(network: Network, query: VnnlibQuery) -> dict[str, object]:
    """The sizes of a query whose largest question this network could be asked. Raises ValueError where none can."""
    questions = fitting_questions(network, query)
    rows = [len(one.groups) for one in questions]
    groups = [one.asked.count for one in questions]
    if questions:
        one = questions[rows.index(max(rows))]
        whole = network if one.input_rows is None else with_input_outputs(network)
        certify(whole, one.box, one.asked, ("interval",), bounds=("interval",))
    return {"boxes": len(questions), "groups": max(groups, default=0), "rows": max(rows, default=0)}


def survey_pair(files: tuple[Path, Path], seconds: float) -> dict[str, object]:
    """What there is to say of a network and a property."""
    start, outcome = time.perf_counter(), "refused"
    try:
        with time_limit(seconds):
            network = read_network(files[0])
            outcome = "not_asked"
            found = {"outcome": "asked", **ask(network, read_query(files[1]))}
    except (ValueError, MemoryError, OutOfTimeError) as error:
        reason = str(error) or type(error).__name__
        for path in files:
            reason = reason.replace(f"{path}: ", "").replace(f"{path}, ", "")
        found = {"outcome": outcome, "reason": reason[:LONGEST]}
    return {**found, "seconds": time.perf_counter() - start}


class Survey:
    """What is known of every pair, kept in pairs.csv, and of networks that do not import."""

    def __init__(self, run: ExperimentRun, options: Namespace) -> None:
        self.run, self.largest, self.seconds = run, options.largest, options.seconds
        self.end = float("inf") if options.budget is None else time.perf_counter() + options.budget
        self.keys: dict[Path, str] = {}
        self.pairs: dict[str, dict[str, object]] = {}
        self.seen: set[str] = set()
        self.refused: dict[str, str] = {}
        if (run.out / PAIRS).is_file():
            rows = pd.read_csv(run.out / PAIRS, dtype={"pair": str}).to_dict("records")
            self.pairs = {str(row["pair"]): {str(name): value for name, value in row.items()} for row in rows}
        if options.imports is not None:
            files = pd.read_csv(options.imports)
            without = files[~files["imports"].astype(bool)]
            self.refused = dict(zip(without["sha256"].tolist(), without["reason"].astype(str), strict=True))

    def outcome(self, instance: QueryInstance) -> tuple[str, dict[str, object]]:
        """(the pair of contents, "" where they were not read; what was found)."""
        network, query = instance.files
        if network.is_file() and network.stat().st_size > self.largest:
            return "", {"outcome": "large"}
        if not network.is_file() or not query.is_file():
            return "", {"outcome": "missing"}
        first = self.key(network)
        if first in self.refused:
            return "", {"outcome": "refused", "reason": self.refused[first]}
        pair = sha256(f"{first} {self.key(query)}".encode()).hexdigest()[:16]
        if pair not in self.pairs:
            if time.perf_counter() > self.end:
                return "", {"outcome": "untried"}
            found = survey_pair((network, query), self.seconds)
            if found["outcome"] == "refused":
                self.refused[first] = str(found["reason"])
                return "", found
            self.pairs[pair] = {**found, "pair": pair}
            if len(self.pairs) % EVERY == 0:
                self.write()
        self.seen.add(pair)
        return pair, self.pairs[pair]

    def key(self, path: Path) -> str:
        """The digest of a file's content, computed once."""
        if path not in self.keys:
            self.keys[path] = content_key(path)
        return self.keys[path]

    def write(self) -> None:
        """Keep what is known."""
        rows = pd.DataFrame(list(self.pairs.values())).reindex(columns=COLUMNS)
        self.run.write({PAIRS: rows}, float_format="%.3g")


def survey_table(name: str, path: Path, survey: Survey) -> tuple[dict[str, object], list[dict[str, object]]]:
    """A benchmark's line, and its instances that are not asked though their networks import."""
    counts: Counter[str] = Counter()
    pairs: dict[str, dict[str, object]] = {}
    others, refusals = [], set()
    instances = read_instances(path)
    for instance in instances:
        pair, found = survey.outcome(instance)
        outcome, reason = str(found["outcome"]), found.get("reason")
        counts[outcome] += 1
        if pair:
            pairs[pair] = found
        if outcome == "refused":
            refusals.add(kind_of_reason(str(reason)))
        elif outcome == "not_asked":
            others.append({"benchmark": name, "onnx": instance.onnx, "vnnlib": instance.vnnlib, "reason": reason})
    asked = [found for found in pairs.values() if found["outcome"] == "asked"]
    line: dict[str, object] = {"benchmark": name, "instances": len(instances)}
    line |= {outcome: counts[outcome] for outcome in OUTCOMES}
    line |= {"distinct": len(pairs), "distinct_asked": len(asked)}
    line |= {f"most_{what}": max((int(str(one[what]).split(".")[0]) for one in asked), default=0)
             for what in ("boxes", "groups", "rows")}  # fmt: skip
    line["most_seconds"] = max((float(str(one["seconds"])) for one in pairs.values()), default=0.0)
    reasons = {str(one["reason"]) for one in others}
    return line | {"why": "; ".join(sorted(refusals | reasons))[:LONGEST]}, others


def kind_of_reason(reason: str) -> str:
    """Why a network does not import, without the names of its nodes."""
    first = reason.split("; ")[0]
    return first.split("): ", 1)[1] if first.startswith("node ") and "): " in first else first


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Run, and write pairs.csv, not_asked.csv, table.csv, table.md and provenance.json."""
    parser = experiment_parser(__doc__, "question-survey")
    parser.add_argument("folders", nargs="*", type=Path, help="tables of instances below; else $RELUGAP_DATA/vnncomp")
    parser.add_argument("--largest", type=int, default=4 * 2**20, help="bytes of the largest network to read")
    parser.add_argument("--seconds", type=float, default=300.0, help="the most that one pair may take")
    parser.add_argument("--budget", type=float, default=None, help="seconds after which no new pair is begun")
    parser.add_argument("--imports", type=Path, default=None, help="files.csv of results/import-survey")
    options = parser.parse_args(arguments)
    lines, others = [], []
    with experiment_run(parser, options) as run:
        survey = Survey(run, options)
        for name, path in instance_tables(benchmark_folders(options.folders)):
            line, more = survey_table(name, path, survey)
            survey.write()
            lines.append(line)
            others += more
            print(", ".join(f"{key} {value}" for key, value in line.items()), file=sys.stderr)
        table = pd.DataFrame(lines)
        sums = table[["instances", *OUTCOMES, "distinct", "distinct_asked"]].sum()
        known = [survey.pairs[pair] for pair in survey.seen]
        sums["distinct"], sums["distinct_asked"] = len(known), sum(one["outcome"] == "asked" for one in known)
        table = pd.concat([table, pd.DataFrame([{"benchmark": "all", **sums}])], ignore_index=True)
        run.record(**{name: int(value) for name, value in sums.items()})
        listed = pd.DataFrame(others, columns=["benchmark", "onnx", "vnnlib", "reason"])
        texts = {"table.md": pipe_table(table, digits=3), "table.csv": table, "not_asked.csv": listed}
        run.write(texts, float_format="%.4g")
    return table


if __name__ == "__main__":
    sys.exit(end_experiment(main))
