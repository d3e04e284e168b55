"""`certify`: one image's margins by every rung asked for, side by side, and the verdict."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from toolkit.arrays import FloatArray
from toolkit.cli.notes import show_notes
from toolkit.cli.question import Question
from toolkit.data.datasets import load_dataset
from toolkit.data.images import check_fits, read_image
from toolkit.data.names import NORM_TITLES, markup_text, printable
from toolkit.networks.network import Network
from toolkit.problems.answers import Bound, Verdict
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_sets import make_ball
from toolkit.problems.lowering import lowered
from toolkit.problems.problem import Problem
from toolkit.problems.properties import Property, as_property, robustness
from toolkit.problems.property_table import load_property
from toolkit.problems.region import Region
from toolkit.problems.settings import Settings
from toolkit.rungs import RUNGS, get_rung
from toolkit.rungs.rung import Rung, Side
from toolkit.solvers.registry import check_solver_name
from toolkit.verify.certification import Certification
from toolkit.verify.explain import explain_equality
from toolkit.verify.ladder import certify
from toolkit.verify.layer_bounds import layer_bounds

CLOSED = 1e-3  # an interval narrower than this share of the margin or of the clean margin is shown as one number
Found = Mapping[str, Sequence[Bound]]
STYLES = {Verdict.YES: "bold green", Verdict.NO: "bold red", Verdict.MAYBE: "bold yellow"}


def answer(question: Question) -> None:
    """Compute and print; names and files are checked before any work."""
    solver, limit = check_solver_name(question.solver), question.time_limit
    settings = Settings(solver, time_limit=limit, rigorous=not question.trust_solver)
    chosen = sorted({get_rung(name).name: get_rung(name) for name in question.shown}.values(), key=_place)
    network = Network.load(question.network, question.architecture)
    title, center, label = centre(question, network)
    asked = asked_property(question, network, label)
    ball = make_ball(question.norm, center, question.eps, question.domain)
    whole, rows = lowered(network, asked)
    started = time.perf_counter()
    relu_bounds = layer_bounds(whole, ball, question.chain, settings)
    seconds = time.perf_counter() - started
    problem = Problem(Region(whole, ball, relu_bounds), rows.objective, settings)
    found = {rung.name: rung(problem) for rung in chosen}
    console = Console()
    where = f"domain [{ball.domain[0]:g}, {ball.domain[1]:g}]" if ball.domain else "no domain"
    title = f"{title}, {about(question, label)}"
    console.print(f"[bold]{markup_text(network.name or question.network)}[/], {markup_text(title)}", highlight=False)
    show_notes(console, network)
    console.print(
        f"ε = {question.eps:g} in {NORM_TITLES[question.norm]}, {where}, l,u by {' + '.join(question.chain)}",
        highlight=False,
    )
    console.print(neuron_table(relu_bounds, seconds))
    _print_whole(console, margin_columns(problem, chosen, found))
    if note := equality_note(found):
        console.print(note, highlight=False, markup=False)
    answer = certify(
        network, ball, asked, question.ladder, question.chain, settings=settings, time_limit=limit, known=found,
    )  # fmt: skip
    _print_verdict(console, answer)
    for note in sorted({bound.message for bounds in found.values() for bound in bounds if bound.message}):
        console.print(f"note: {printable(note)}", highlight=False, markup=False)


def _place(rung: Rung) -> tuple[int, int]:
    """Lower bounds first, then exact rungs, then attacks; within a side in the registry's order."""
    return [Side.LOWER, Side.EXACT, Side.UPPER].index(rung.side), list(RUNGS).index(rung.name)


def asked_property(question: Question, network: Network, label: int | None) -> Property:
    """The property of --property, else that the class c* = label holds. Raises ValueError if it is not about the
    network's outputs."""
    if question.property_file is not None:
        return as_property(load_property(question.property_file), network.output_size)
    assert label is not None
    return robustness(network.output_size, label, question.targets)


def about(question: Question, label: int | None) -> str:
    """What is asked, in words: the class, or the file of the property."""
    return f"class {label}" if question.property_file is None else f"property {question.property_file.name}"


def centre(question: Question, network: Network) -> tuple[str, FloatArray, int | None]:
    """What the centre is called, its features, and its class c*; None where a property is asked of an --image."""
    if (question.data is None) == (question.image is None):
        raise ValueError("give either --data NAME --index N or --image FILE --label C")
    if question.image is not None:
        if question.label is None and question.property_file is None:
            raise ValueError("--image needs --label, the class the image shows")
        image = read_image(question.image, network.input_shape, question.domain)
        return f"{question.image.name} ({image.reading})", image.pixels.ravel(), question.label
    if question.index is None:
        raise ValueError("--data needs --index, which of its test images to take")
    data = load_dataset(str(question.data))
    if not 0 <= question.index < len(data):
        raise ValueError(f"--index must be in 0 … {len(data) - 1} for {data.name}, got {question.index}")
    features = data.features[question.index]
    if features.size != network.input_size:
        raise ValueError(f"{data.name} has images of {features.size} numbers, the network takes {network.input_size}")
    check_fits(data.shape, network.input_shape)
    label = int(data.labels[question.index]) if question.label is None else question.label
    return f"{data.name} test image {question.index}", features, label


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
