"""MILP solvers, formulations and bounds l,u on the same templates: Gurobi, HiGHS, SCIP and our own branch and bound.

    python experiments/milp_comparison.py --out results/milp-comparison            # about an hour of one core
    RELUGAP_DATA=FOLDER python experiments/milp_comparison.py                        # with published networks too
    RELUGAP_DATA=FOLDER python experiments/milp_comparison.py --retry 8              # what a busy machine stopped

Every margin of a case is the same problem for all: network, ball, shared l,u, objective row. LPs (the lp rung's model)
for all nine targets of a sample, MILPs (the exact rung's) for the two classes with the largest other logits, to an
absolute gap of 1e-4, one thread each. Two formulations of each: compact, the template every rung uses (stable neurons
substituted), and full (a variable for every neuron, stable ones fixed by an equality, unstable ones by big-M), the
latter on the first samples where it is large. `bab` has no LP and no full formulation. Cases: the dense zoo networks at
two ε each and, where their files are at hand, MLP-B networks of Salman et al. 2019, Wong & Kolter's (2018)
convolutional MNIST network and the 256x2 network of VNN-COMP's mnistfc (2021); the first test images that the network
classifies correctly and that leave an unstable neuron: 20 MILP margins a network, 10 of the three whose MILPs run into
their limit most.

What l,u are worth: the networks marked `study` are asked again, compact, at their larger ε, with l,u by interval
arithmetic, the dual, LPs (every unstable neuron's two) and refined by trees: how far the LP of all targets stays from
m*, which images its verdict leaves at MAYBE, and how long the MILP of the closest class takes.

Seconds are the process's own (CPU), handing over a model included and divided over its margins, building the template
not (build_seconds; bounds_seconds are those of l,u); LPs of one sample follow one another in one warm session, as in
the product. A licence that refuses a model, and a time limit (wall-clock), are failures; --retry SECONDS forgets the
sessions in which a margin was stopped with less CPU time than that, once, before it measures what is missing. Published
values: none.

Writes OUT/rows.csv (a margin, l,u, formulation and solver a row, appended while it runs: a stopped comparison goes on
where it was), OUT/table.{csv,md}, OUT/bounds.{csv,md}, OUT/profile.png (performance profiles, Dolan & Moré 2002),
OUT/bounds.png and OUT/provenance.json.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from milp_comparison_bounds import write_bounds
from milp_comparison_cases import CASES, CHAINS, GAP, MILPS, SECONDS, Case, Question, load_network, questions
from milp_comparison_report import METHOD, write_tables
from threadpoolctl import threadpool_limits

from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.atomic import write_csv
from toolkit.data.datasets import load_dataset
from toolkit.problems.problem import Problem
from toolkit.relaxations.layout import Formulation, TemplateLayout
from toolkit.relaxations.template import build_template
from toolkit.rungs import get_rung
from toolkit.search.lp_bounder import template
from toolkit.solvers.linear_program import CompiledModel
from toolkit.solvers.registry import SOLVERS, open_session
from toolkit.solvers.session import SolverUnavailableError
from toolkit.solvers.solve_report import SolveReport

LP, MILP = "LP", "MILP"
FORMULATIONS: tuple[Formulation, ...] = ("compact", "full")
SESSION = ["network", "eps", "sample", "chain", *METHOD]  # what is measured in one go
COLUMNS = [*SESSION, "target", "unstable", "variables", "constraints", "version", "status", "bound", "upper", "trust",
           "cpu_seconds", "wall_seconds", "build_seconds", "bounds_seconds", "nodes", "iterations",
           "message"]  # fmt: skip


def methods(solvers: Sequence[str], full: bool) -> list[tuple[str, Formulation, str]]:
    """(model, formulation, solver) in the order they are run: solvers take turns on one model."""
    forms = FORMULATIONS if full else FORMULATIONS[:1]
    every = [(model, form, solver) for model in (LP, MILP) for form in forms for solver in solvers]
    return [one for one in every if one[2] != "bab" or one[:2] == (MILP, "compact")]


def studied(solvers: Sequence[str]) -> list[tuple[str, Formulation, str]]:
    """As `methods`, of what is compared over chains for l,u: LPs by HiGHS, MILPs by all but SCIP."""
    return [(LP, "compact", "highs"), *((MILP, "compact", one) for one in solvers if one != "scip")]


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


def run_case(case: Case, solvers: Sequence[str], count: int | None, file: Path) -> None:
    """Measure what the file lacks of a case and append it, a session at a time."""
    samples = case.samples if count is None else min(count, case.samples)
    for eps in case.eps:
        for place, question in enumerate(questions(case, eps, samples)):
            run_question(case, eps, question, case.chain, methods(solvers, place < case.full), MILPS, file)
            for chain in CHAINS if case.study and eps == case.eps[-1] else ():
                run_question(case, eps, question, chain, studied(solvers), 1, file)


def run_question(
    case: Case,
    eps: float,
    question: Question,
    chain: str,
    asked: Sequence[tuple[str, Formulation, str]],
    milps: int,
    file: Path,
) -> None:
    """Measure what the file lacks of these methods on one sample with l,u of one chain. milps: targets of a MILP."""
    done = {tuple(row) for row in read_rows(file)[SESSION].itertuples(index=False)}
    first = case.name, eps, question.sample, chain
    lacking = [method for method in asked if (*first, *method) not in done]
    if not lacking:
        return
    problem, bounds_seconds = question.problem(chain)
    templates = Templates(problem)
    for method in lacking:
        rows = measure(templates, *method, len(problem.targets) if method[0] == LP else milps)
        told = dict(zip(SESSION, (*first, *method), strict=True)) | {"bounds_seconds": bounds_seconds}
        frame = pd.DataFrame([told | row for row in rows]).reindex(columns=COLUMNS)
        frame.to_csv(file, mode="a", header=not file.is_file(), index=False, float_format="%.15g")
        print(f"{case.name} ε={eps:g} #{question.sample} l,u {chain} {' '.join(method)}: "
              f"{', '.join(sorted(set(frame['status'])))} {frame['cpu_seconds'].sum():.2f} s", flush=True)  # fmt: skip


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
    if case.source.startswith("zoo:"):
        return ""
    try:
        load_network(case)
        load_dataset(case.dataset)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        return str(error).splitlines()[0]
    return ""


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Run the comparison and write its tables and figure; returns the table."""
    parser = experiment_parser(__doc__, "milp-comparison")
    parser.add_argument("--count", type=int, help="at most so many samples per network and ε")
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
        run.record(cases=chosen, gap=GAP, seconds=SECONDS, skipped=skipped)
        rows, chains = read_rows(file), {case.name: case.chain for case in CASES}
        write_bounds(rows, options.out, tuple(CHAINS))
        return write_tables(rows[rows["chain"] == rows["network"].map(chains)], options.out, GAP, skipped)


if __name__ == "__main__":
    sys.exit(end_experiment(main))
