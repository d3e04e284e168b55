"""Is anything false ever said of a network? Thousands of hard small networks, each statement against exact arithmetic.

    python experiments/fuzz.py --count 5000 --seed 0 --out results/fuzz
    python experiments/fuzz.py --only 1234          # one network again: what it is, and what is wrong with it

Networks as in tests/hard_networks.py (hidden values of any scale, near ties, twins, cancelling biases of 1e16, balls
from a point to 1e6 wide around centres up to 1e16), the truth as in tests/oracle.py. Asked of every network: layer
bounds, five cheap rungs and a costly one (all rungs of every eighth), the default verdict and one other way of asking
(other ladders, solver highs, rigorous or not, time limits). Counted are the statements, the verdicts, and every kind of
false statement (tests/judge.py); all faults must be 0. Remarks are about what nothing certified rests on. A seed's
network and questions do not depend on the count. Exit code 1 if there is a fault.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from hard_networks import Case, random_case
from judge import FAULTS, REMARKS, Judgement, judge, plan

from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.report import pipe_table
from toolkit.runs.progress import RunProgress
from toolkit.runs.run import gather

CHUNK = 25  # networks a process is handed at a time
SHOWN = 8  # seeds per line of the table


@dataclass(frozen=True)
class Judged:
    """One seed's judgement, with what its network is."""

    seed: int
    recipe: str
    judgement: Judgement


def judged(seed: int) -> Judged:
    """Make the seed's network and ask of it what its number plans."""
    case = random_case(seed)
    return Judged(seed, str(case.recipe), judge(case, *plan(seed)))


def judge_chunk(seeds: Sequence[int]) -> list[Judged]:
    """Several seeds in one call, as another process is given them."""
    return [judged(seed) for seed in seeds]


def judge_seeds(seeds: Sequence[int], workers: int) -> list[Judged]:
    """Every seed's judgement, in order."""
    chunks = [seeds[k : k + CHUNK] for k in range(0, len(seeds), CHUNK)]
    found: list[Judged] = []
    with RunProgress() as progress:

        def keep(part: list[Judged]) -> None:
            found.extend(part)
            progress.advance("judged", len(found), len(seeds))

        gather(judge_chunk, chunks, workers, keep)
    return sorted(found, key=lambda one: one.seed)


def summarize(results: Sequence[Judged]) -> pd.DataFrame:
    """One line per count: networks, bounds, verdicts, and every kind of fault and remark with its first seeds."""
    verdicts = Counter(verdict for one in results for verdict in one.judgement.verdicts)
    lines: list[tuple[str, str, int, str]] = [
        ("asked", "networks", len(results), ""),
        ("asked", "bounds", sum(one.judgement.bounds for one in results), ""),
        *(("verdict", name, verdicts[name], "") for name in ("YES", "NO", "MAYBE")),
    ]
    for group, kinds in (("fault", FAULTS), ("remark", REMARKS)):
        for kind in kinds:
            seeds = [one.seed for one in results for finding in one.judgement.findings if finding.kind == kind]
            first = list(dict.fromkeys(seeds))[:SHOWN]
            lines.append((group, kind, len(seeds), " ".join(map(str, first))))
    return pd.DataFrame(lines, columns=["group", "what", "count", "seeds"])


def findings(results: Sequence[Judged]) -> pd.DataFrame:
    """Every finding with its seed."""
    rows = [(one.seed, f.kind, f.by, f.detail, one.recipe) for one in results for f in one.judgement.findings]
    return pd.DataFrame(rows, columns=["seed", "kind", "by", "detail", "recipe"])


def describe(case: Case, judgement: Judgement) -> str:
    """A network, its ball and truth in full, and everything found."""
    lines = [str(case.recipe), f"{case.ball}, label {case.label}"]
    lines += [f"{type(layer).__name__} {layer.to_sparse().toarray().tolist()} + {layer.bias_vector.tolist()}"
              for layer in case.network.layers]  # fmt: skip
    lines.append(f"m* = {[float(value) for value in case.truth]}, verdicts {judgement.verdicts}")
    return "\n".join([*lines, *(f"{f.kind}: {f.by}: {f.detail}" for f in judgement.findings)])


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Run, and write table.csv, table.md, findings.csv (if there are any) and provenance.json; returns the table."""
    parser = experiment_parser(__doc__, "fuzz")
    parser.add_argument("--count", type=int, default=5000, help="networks")
    parser.add_argument("--seed", type=int, default=0, help="of the first network")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", type=int, metavar="SEED", help="judge this network alone and show it; writes nothing")
    options = parser.parse_args(arguments)
    if options.only is not None:
        case = random_case(options.only)
        judgement = judge(case, *plan(options.only))
        print(describe(case, judgement))
        return summarize([Judged(options.only, str(case.recipe), judgement)])
    with experiment_run(parser, options) as run:
        results = judge_seeds(range(options.seed, options.seed + options.count), options.workers)
        table, found = summarize(results), findings(results)
        (options.out / "findings.csv").unlink(missing_ok=True)
        run.write({"table.csv": table, "table.md": pipe_table(table)} | ({"findings.csv": found} if len(found) else {}))
    return table


def _faults(arguments: Sequence[str]) -> int:
    table = main(arguments)
    print(pipe_table(table))
    return int(table.query("group == 'fault'")["count"].sum() > 0)


if __name__ == "__main__":
    sys.exit(end_experiment(_faults))
