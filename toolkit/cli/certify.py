"""`certify`: one image's margins by every rung asked for, side by side, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from toolkit.cli.asked import about, centre
from toolkit.cli.certify_json import print_answer
from toolkit.cli.image_answer import Found, ImageAnswer, answer_image
from toolkit.cli.notes import show_notes
from toolkit.cli.question import Question
from toolkit.cli.witness_file import save_witness
from toolkit.data.amounts import domain_text, radius_text
from toolkit.data.names import NORM_TITLES, markup_text, printable
from toolkit.problems.answers import Bound, Verdict
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.problem import Problem
from toolkit.rungs.rung import Rung, Side
from toolkit.verify.certification import Certification
from toolkit.verify.explain import explain_equality

__all__ = ["STYLES", "answer", "centre", "equality_note", "margin_columns", "neuron_table"]

CLOSED = 1e-3  # an interval narrower than this share of the margin or of the clean margin is shown as one number
STYLES = {Verdict.YES: "bold green", Verdict.NO: "bold red", Verdict.MAYBE: "bold yellow"}


def answer(question: Question) -> Verdict:
    """Compute, and print as text or as JSON; write the witness if asked for."""
    done = answer_image(question)
    if question.as_json:
        print_answer(question, done)
    else:
        _print_text(question, done)
    if question.witness_file is not None:
        saved = save_witness(question.witness_file, done.network, done.ball.center, done.verdict.witness, done.label)
        console = Console(soft_wrap=True, quiet=question.as_json)
        console.print(printable(saved), highlight=False, markup=False)
    return done.verdict.verdict


def _print_text(question: Question, done: ImageAnswer) -> None:
    console, network = Console(), done.network
    title = f"{done.title}, {about(question, done.label)}"
    console.print(f"[bold]{markup_text(network.name or question.network)}[/], {markup_text(title)}", highlight=False)
    show_notes(console, network)
    console.print(
        f"{radius_text(done.ball.eps)} in {NORM_TITLES[question.norm]}, {domain_text(done.ball.domain)}, "
        f"l,u by {' + '.join(question.chain)}",
        highlight=False, markup=False,
    )  # fmt: skip
    console.print(neuron_table(done.problem.relu_bounds, done.bounds_seconds))
    _print_whole(console, margin_columns(done.problem, done.chosen, done.found))
    if note := equality_note(done.found):
        console.print(note, highlight=False, markup=False)
    _print_verdict(console, done.verdict)
    for note in done.notes:
        console.print(f"note: {printable(note)}", highlight=False, markup=False)


def _print_verdict(console: Console, answer: Certification) -> None:
    """The verdict, why, and which rung settled it; a YES about some classes, or on trust, is printed as such."""
    word = f"[{STYLES[answer.verdict]}]{answer.verdict}[/]"
    if answer.verdict is Verdict.YES and not answer.covers_all:
        word += " for class " + ", ".join(str(bound.target) for bound in answer.margins)
    if answer.trusts_solver:
        word += " on the solver's word"
    by = f" (by {answer.rung})" if answer.verdict is Verdict.YES else ""
    console.print(f"{word}: ", end="", highlight=False)
    console.print(f"{answer.reason}{by}", highlight=False, markup=False)


def neuron_table(relu_bounds: ReluBounds, seconds: float) -> Table:
    """Unstable, active and inactive neurons per ReLU layer."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=f"l,u took {seconds:.3g} s", caption_justify="left")
    for name in ("ReLU layer", "unstable", "active", "inactive"):
        grid.add_column(name, justify="right")
    for k, counts in enumerate(relu_bounds.counts(), start=1):
        grid.add_row(str(k), *(str(count) for count in counts))
    return grid


def margin_columns(problem: Problem, rungs: Sequence[Rung], found: Found) -> Table:
    """One row per target or group: clean margin, every rung, and m* − bound where an exact rung ran."""
    clean = problem.replay(problem.input_set.center)[0]
    exact = next((rung.name for rung in rungs if rung.side is Side.EXACT), None)
    lower = [rung.name for rung in rungs if rung.side is Side.LOWER]
    gaps = [f"m* −\n{name}" for name in lower] if exact else []
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_footer=True)
    grid.add_column("target", footer="s/margin")
    grid.add_column("clean", justify="right")
    for rung in rungs:
        mean = sum(bound.seconds for bound in found[rung.name]) / max(1, len(found[rung.name]))
        grid.add_column(rung.name, footer=f"{mean:.2g}", justify="right")
    for name in gaps:
        grid.add_column(name, justify="right")
    relaxed = [rung.name for rung in rungs if rung.side is Side.LOWER and rung.row_by_row]
    for name in relaxed:
        grid.add_column(f"relaxed\nby {name}", justify="right")
    for k, target in enumerate(problem.targets):
        size = abs(float(clean[k]))
        cells = [_shown(found[rung.name][k], rung.side, size) for rung in rungs]
        if exact:
            cells += [_gap(found[exact][k], found[name][k], size) for name in lower]
        cells += [_relaxed(found[name][k]) for name in relaxed]
        grid.add_row(f"group {k}" if target is None else str(target), _number(float(clean[k])), *cells)
    return grid


def _relaxed(bound: Bound) -> str:
    """How many unstable neurons the relaxation's optimum leaves off their ReLU; 0/N: its bound is m*."""
    if bound.slack is None:
        return ""
    why = explain_equality(bound)
    return f"{why.relaxed}/{why.unstable}" if why.relaxed or why.equal else f"?/{why.unstable}"


def equality_note(found: Found) -> str:
    """For how many targets the relaxation provably gives m*, and why; "" where no relaxation ran."""
    notes = []
    for name, answers in found.items():
        bounds = [bound for bound in answers if bound.slack is not None]
        if not bounds:
            continue
        reasons = [explain_equality(bound) for bound in bounds]
        equal = [why for why in reasons if why.equal]
        if equal:
            kind = "groups" if bounds[0].target is None else "targets"
            head = f"m* = {name} for {len(equal)} of {len(bounds)} {kind}"
            notes.append(f"{head}, because {equal[0].reason.partition('because ')[2]}")
        else:
            largest = max(why.largest_slack for why in reasons)
            kind = "group" if bounds[0].target is None else "target"
            notes.append(f"{name} may be below m* for every {kind}: y exceeds max(x̂, 0) by up to {largest:.2g}")
    return "\n".join(notes)


def _print_whole(console: Console, grid: Table) -> None:
    """Print a table that may be wider than the terminal without shortening its cells."""
    width = console.measure(grid, options=console.options.update(max_width=10_000)).maximum
    Console(width=max(width, console.width)).print(grid)


def _shown(bound: Bound, side: Side, size: float) -> str:
    if side is Side.UPPER:
        return _number(bound.upper)
    if side is Side.LOWER or _closed(bound, size):
        return _number(bound.upper if side is Side.EXACT else bound.lower)
    return f"[{_number(bound.lower)}, {_number(bound.upper)}]"


def _closed(bound: Bound, size: float) -> bool:
    return bound.upper - bound.lower <= CLOSED * max(size, abs(bound.upper))


def _gap(exact: Bound, lower: Bound, size: float) -> str:
    largest = exact.upper - lower.lower
    return _number(largest) if _closed(exact, size) else f"≤ {_number(largest)}"


def _number(value: float) -> str:
    """Four decimals; significant digits where these would show nothing, or too much."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"
