"""What the scripts in experiments/ share: options, a results folder with provenance, and how they end.

def main(arguments=None):
    parser = experiment_parser(__doc__, "trust")
    parser.add_argument("--count", type=int, default=40)
    options = parser.parse_args(arguments)
    with experiment_run(parser, options) as run:
        table = …
        run.write({"table.csv": table, "table.md": pipe_table(table)})
    return table

if __name__ == "__main__":
    sys.exit(end_experiment(main))
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from toolkit.cli.errors import expected_message
from toolkit.cli.streams import take_any_text
from toolkit.runs.interrupts import ENDED
from toolkit.runs.outputs import Content, write_files
from toolkit.runs.provenance import RunRecord, recorded_run

HIDDEN = "FOLDER"  # shown for a path, which may say more of a machine than of a run


def experiment_parser(doc: str | None, name: str) -> argparse.ArgumentParser:
    """A parser with --out (default: results/NAME). doc: the script's, shown by --help."""
    parser = argparse.ArgumentParser(
        prog=f"experiments/{name.replace('-', '_')}.py", description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("results", name), help="folder for the results")
    return parser


@dataclass(frozen=True)
class ExperimentRun:
    """A run while it lasts: where it writes, and its entry in provenance.json."""

    out: Path
    entry: RunRecord

    def write(self, contents: Mapping[str, Content], float_format: str | None = None) -> None:
        """Tables and texts, each file whole or absent; see write_files."""
        write_files(self.out, contents, float_format)

    def record(self, **details: Any) -> None:
        """Add to what the entry says of the run, as JSON can hold it."""
        self.entry.setdefault("details", {}).update(details)


@contextmanager
def experiment_run(
    parser: argparse.ArgumentParser, options: argparse.Namespace, keep_runs: bool = False
) -> Iterator[ExperimentRun]:
    """Make --out, and record there what the block does: the command with its options, and its details.

    keep_runs: whether what earlier runs left there counts still, so that they stay on record.
    """
    values = {name: _shown(value) for name, value in vars(options).items() if name != "out"}
    given = [_given(name, value) for name, value in values.items() if vars(options)[name] != parser.get_default(name)]
    options.out.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python", parser.prog, *given])
    with recorded_run(options.out, {"command": command}, keep_runs) as entry:
        entry["details"] = values
        yield ExperimentRun(options.out, entry)


def _shown(value: object) -> Any:
    """An option as JSON can hold it, paths hidden."""
    if isinstance(value, Path):
        return HIDDEN
    return [_shown(one) for one in value] if isinstance(value, list | tuple) else value


def _given(name: str, value: object) -> str:
    """An option as it was given."""
    if name == "what":  # the one name of a positional argument
        return str(value)
    values = [] if value is True else [str(one) for one in value] if isinstance(value, list) else [str(value)]
    return " ".join([f"--{name.replace('_', '-')}", *values])


def end_experiment(main: Callable[[Sequence[str]], object]) -> int:
    """Run `main` on the process's arguments, print what it returns, and give the exit code: a number it returns, else
    0; 2 for an error told in one line; 130 after an interrupt."""
    take_any_text()
    try:
        found = main(sys.argv[1:])
    except KeyboardInterrupt:
        print("interrupted; what was written before is kept", file=sys.stderr)
        return ENDED
    except Exception as error:
        message = expected_message(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 2
    if isinstance(found, int):
        return found
    if isinstance(found, pd.DataFrame):
        with pd.option_context("display.width", 200, "display.max_columns", 30):
            print(found.to_string(index=False))
    elif isinstance(found, Mapping):
        print(json.dumps(found, indent=1, default=str))
    return 0
