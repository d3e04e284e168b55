"""Solvers and formulations on the same templates: Gurobi, HiGHS, SCIP and the toolkit's own branch and bound.

    python experiments/solver_comparison.py --out results/solver-comparison            # about 10 minutes, one core
    RELUGAP_DATA=FOLDER python experiments/solver_comparison.py                        # with published networks, 20
    RELUGAP_DATA=FOLDER python experiments/solver_comparison.py --retry 15             # what a busy machine stopped

Every margin of a case is the same problem for all: network, ball, shared l,u, objective row. LPs (the lp rung's model)
for all nine targets of a sample, MILPs (the exact rung's) for the classes with the largest other logits, to an absolute
gap of 1e-4, one thread each. Two formulations of each: compact, the template every rung uses (stable neurons
substituted), and full (a variable for every neuron, stable ones fixed by an equality, unstable ones by big-M). `bab`
has no LP and no full formulation. Cases: the dense zoo networks at two ε each and, where their files are at hand,
LPD_MLP_B_0.1 (Salman et al. 2019) and Wong & Kolter's (2018) convolutional MNIST network at ε .1; the first COUNT test
images that the network classifies correctly and that leave an unstable neuron.

Seconds are the process's own (CPU), handing over a model included and divided over its margins, building the template
not (build_seconds); LPs of one sample follow one another in one warm session, as in the product. A licence that refuses
a model, and a time limit (wall-clock), are failures; --retry SECONDS forgets the sessions in which a margin was stopped
with less CPU time than that, once, before it measures what is missing. Published values: none.

Writes OUT/rows.csv (a margin, formulation and solver a row, appended while it runs: a stopped comparison goes on where
it was), OUT/table.csv, OUT/table.md, OUT/profile.png (performance profiles, Dolan & Moré 2002) and OUT/provenance.json.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from solver_comparison_report import METHOD, write_tables
from threadpoolctl import threadpool_limits

from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.atomic import write_csv
from toolkit.data.datasets import load_dataset
from toolkit.networks.network import Network
from toolkit.networks.published import PREFIX
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.relaxations.layout import Formulation, TemplateLayout
from toolkit.relaxations.template import build_template
from toolkit.rungs import get_rung
from toolkit.search.lp_bounder import template
from toolkit.solvers.linear_program import CompiledModel
from toolkit.solvers.registry import SOLVERS, open_session
from toolkit.solvers.session import SolverUnavailableError
from toolkit.solvers.solve_report import SolveReport
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem

GAP = 1e-4  # absolute, of every MILP
LP, MILP = "LP", "MILP"
FORMULATIONS: tuple[Formulation, ...] = ("compact", "full")
SESSION = ["network", "eps", "sample", *METHOD]  # what is measured in one go
COLUMNS = [*SESSION, "target", "unstable", "variables", "constraints", "version", "status", "bound", "upper", "trust",
           "cpu_seconds", "wall_seconds", "build_seconds", "nodes", "iterations", "message"]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One network. chain: of l,u. milps: targets that the MILP is solved for. limit: seconds a margin."""

    source: str
    dataset: str
    eps: tuple[float, ...]
    chain: tuple[str, ...] = ("interval", "dual")
    milps: int = 2
    limit: float = 20.0

    @property
    def name(self) -> str:
        """As in the table."""
        return self.source.partition(":")[2]


TIGHT = ("dual", "lp")
CASES = (
    Case("zoo:digits-standard", "digits", (0.02, 0.05)),
    Case("zoo:digits-adversarial", "digits", (0.03, 0.08)),
    Case("zoo:digits-dual", "digits", (0.06, 0.12)),
    Case("zoo:digits-interval", "digits", (0.06, 0.12)),
    Case("zoo:mnist5k-standard", "mnist5k", (0.01, 0.02)),
    Case("zoo:mnist5k-adversarial", "mnist5k", (0.02, 0.04)),
    Case("zoo:mnist5k-dual", "mnist5k", (0.06, 0.12)),
    Case("zoo:mnist5k-interval", "mnist5k", (0.06, 0.12)),
    Case("published:salman-2019/LPD_MLP_B_0.1", "mnist", (0.1,), TIGHT, milps=1),
    Case("published:wong-kolter-2018/mnist", "mnist", (0.1,), TIGHT, milps=1),
)


def problems(case: Case, eps: float, count: int) -> Iterator[tuple[int, Problem]]:
    """The first `count` samples to be asked about, all targets, largest logits first."""
    network, data = Network.load(case.source), load_dataset(case.dataset)
    settings = Settings(solver="highs", mip_gap=0.0, mip_gap_abs=GAP, time_limit=case.limit)
    found = 0
    for sample, (x, label) in enumerate(zip(data.features, data.labels.tolist(), strict=True)):
        if found == count:
            return
        if network.predict(x) != label:
            continue
        ball = LinfBall(x, eps, data.domain)
        bounds = layer_bounds(network, ball, case.chain, settings)
        if not any(unstable for unstable, _, _ in bounds.counts()):
            continue
        found += 1
        targets = [int(t) for t in network.forward(x).argsort()[::-1] if t != label]
        yield sample, margin_problem(network, ball, label, bounds, targets, settings)


def methods(solvers: Sequence[str]) -> list[tuple[str, Formulation, str]]:
    """(model, formulation, solver) in the order they are run: solvers take turns on one model."""
    every = [(model, form, solver) for model in (LP, MILP) for form in FORMULATIONS for solver in solvers]
    return [one for one in every if one[2] != "bab" or one[:2] == (MILP, "compact")]


class Templates:
    """The models of one problem, each built once; seconds: CPU time of building and compiling each formulation."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.seconds: dict[str, float] = {}
        self._built: dict[str, tuple[TemplateLayout, CompiledModel, CompiledModel]] = {}

    def get(self, formulation: Formulation, model: str) -> tuple[TemplateLayout, CompiledModel]:
        """Layout and matrices of one formulation as LP or MILP."""
        if formulation not in self._built:
            started = time.process_time()
            built = build_template(self.problem.region, formulation)
            relaxed = built.relaxed
            self.seconds[formulation] = time.process_time() - started
            self._built[formulation] = (built.layout, relaxed, built.exact)
        layout, relaxed, binary = self._built[formulation]
        return layout, relaxed if model == LP else binary


def measure(
    templates: Templates, model: str, formulation: Formulation, solver: str, count: int
) -> list[dict[str, Any]]:
    """One row per margin, of the first `count` targets, by one solver on one model."""
    problem = templates.problem
    layout, compiled = templates.get(formulation, model)
    shared = {
        "model": model,
        "formulation": formulation,
        "solver": solver,
        "unstable": sum(unstable for unstable, _, _ in problem.relu_bounds.counts()),
        "variables": compiled.matrix.shape[1],
        "constraints": compiled.matrix.shape[0],
        "build_seconds": templates.seconds[formulation],
    }
    asked = problem.with_rows(problem.rows[:count], problem.targets[:count])
    found = solve_tree(asked) if solver == "bab" else solve_session(asked, layout, compiled, solver)
    return [shared | {"target": target} | row for target, row in zip(asked.targets, found, strict=True)]


def solve_tree(problem: Problem) -> list[dict[str, Any]]:
    """Every row by the bab rung, certified where the rounding-proof part of its bound is within a tenth of GAP."""
    template(problem)  # as for the solvers, building is not timed
    rung, rows = get_rung("bab"), []
    for i, target in enumerate(problem.targets):
        cpu, wall = time.process_time(), time.perf_counter()
        [bound] = rung(problem.with_rows(problem.rows[[i]], (target,)))
        certified = bound.certified_lower >= bound.lower - 0.1 * GAP
        rows.append(
            {"version": bound.solver_version, "status": str(bound.status), "bound": bound.lower, "upper": bound.upper,
             "trust": "certified" if certified else "trusted", "nodes": bound.nodes, "iterations": bound.iterations,
             "cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall,
             "message": bound.message}
        )  # fmt: skip
    return rows


def solve_session(
    problem: Problem, layout: TemplateLayout, compiled: CompiledModel, solver: str
) -> list[dict[str, Any]]:
    """Every row in one session of a solver; where it cannot take the model, rows that say so."""
    cpu, wall = time.process_time(), time.perf_counter()
    session = open_session(compiled, replace(problem.settings, solver=solver))
    costs, offsets = layout.objective(problem.rows)
    opening = np.array([time.process_time() - cpu, time.perf_counter() - wall]) / len(costs)
    if session.name != solver:
        return [{"status": "licence", "message": session.note} for _ in costs]
    rows = []
    for i, (cost, offset) in enumerate(zip(costs, offsets.tolist(), strict=True)):
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            report = session.minimize(cost, offset)
        except SolverUnavailableError as error:
            return [{"status": "licence", "message": str(error)} for _ in costs]
        spent = opening + np.array([time.process_time() - cpu, time.perf_counter() - wall])
        checked = not compiled.is_mip
        rows.append(
            {"version": report.version, "status": str(report.status), "bound": report.bound,
             "upper": replayed(problem, i, report), "trust": "checked" if checked else "trusted",
             "nodes": report.nodes, "iterations": report.iterations, "cpu_seconds": spent[0],
             "wall_seconds": spent[1], "message": report.message}
        )  # fmt: skip
    return rows


def replayed(problem: Problem, row: int, report: SolveReport) -> float:
    """The margin at the solver's point by the network itself, +inf without a point."""
    if report.x is None:
        return np.inf
    point = problem.input_set.project(report.x[: problem.input_set.size])
    return float(problem.with_rows(problem.rows[[row]]).replay(point)[0, 0])


def run_case(case: Case, solvers: Sequence[str], count: int, file: Path) -> None:
    """Measure what the file lacks of a case and append it, a session at a time."""
    for eps in case.eps:
        for sample, problem in problems(case, eps, count):
            done = {tuple(row) for row in read_rows(file)[SESSION].itertuples(index=False)}
            templates = Templates(problem)
            for model, formulation, solver in methods(solvers):
                if (case.name, eps, sample, model, formulation, solver) in done:
                    continue
                asked = len(problem.targets) if model == LP else min(case.milps, len(problem.targets))
                rows = measure(templates, model, formulation, solver, asked)
                frame = pd.DataFrame([{"network": case.name, "eps": eps, "sample": sample} | row for row in rows])
                frame.reindex(columns=COLUMNS).to_csv(
                    file, mode="a", header=not file.is_file(), index=False, float_format="%.15g"
                )
                spent = frame.reindex(columns=COLUMNS)["cpu_seconds"].sum()
                print(f"{case.name} ε={eps:g} #{sample} {model} {formulation} {solver}: "
                      f"{', '.join(sorted(set(frame['status'])))} {spent:.2f} s", flush=True)  # fmt: skip


def read_rows(file: Path) -> pd.DataFrame:
    """The stored rows; none for a missing file."""
    return pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=COLUMNS)


def forget_stopped(file: Path, seconds: float) -> None:
    """Drop the sessions in which a time limit stopped a margin with less CPU time than `seconds`."""
    rows = read_rows(file)
    early = (rows["status"] == "time_limit") & (rows["cpu_seconds"] < seconds)
    lost = early.groupby([rows[key] for key in SESSION]).transform("any")
    write_csv(file, rows[~lost.astype(bool)], float_format="%.15g")


def available(case: Case) -> str:
    """Why a case cannot be run here, "" if it can."""
    if not case.source.startswith(PREFIX):
        return ""
    try:
        Network.load(case.source)
        load_dataset(case.dataset)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        return str(error).splitlines()[0]
    return ""


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Run the comparison and write its tables and figure; returns the table."""
    parser = experiment_parser(__doc__, "solver-comparison")
    parser.add_argument("--count", type=int, default=2, help="samples per network and ε")
    parser.add_argument("--networks", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--solvers", nargs="*", default=["bab", *SOLVERS])
    parser.add_argument("--retry", type=float, metavar="SECONDS", help="measure again what had less CPU time than this")
    options = parser.parse_args(arguments)
    skipped = {name: solver.status().reason for name, solver in SOLVERS.items() if not solver.status().usable}
    solvers = [name for name in options.solvers if name not in skipped]
    file = options.out / "rows.csv"
    if options.retry is not None and file.is_file():
        forget_stopped(file, options.retry)
    chosen = []
    with experiment_run(parser, options) as run, threadpool_limits(1):
        for case in (case for case in CASES if case.name in options.networks):
            reason = available(case)
            if reason:
                skipped[case.name] = reason
                continue
            chosen.append(asdict(case))
            run_case(case, solvers, options.count, file)
        run.record(cases=chosen, gap=GAP, skipped=skipped)
        return write_tables(read_rows(file), options.out, GAP, skipped)


if __name__ == "__main__":
    sys.exit(end_experiment(main))
