"""`radius` at work: one image's interval rung by rung, or those of many with a table and figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from toolkit.arrays import FloatArray
from toolkit.cli.asked import about, asked_images, asked_property, ball_domain, centre, property_of_all
from toolkit.cli.notes import show_notes
from toolkit.cli.question import Question
from toolkit.cli.radius_json import print_radii, print_radius
from toolkit.cli.witness_file import check_witness_file, save_witness
from toolkit.data.amounts import domain_text
from toolkit.data.names import NORM_TITLES, markup_text, printable
from toolkit.networks.network import Network
from toolkit.networks.replay import replay_margins
from toolkit.problems.lowering import lowered
from toolkit.problems.properties import Property
from toolkit.problems.settings import Settings
from toolkit.report.formats import pipe_table
from toolkit.report.radii import radius_boxes, radius_distribution
from toolkit.report.write import save_figure
from toolkit.runs.distances import DistancePlan, check_distances, distance_table, measure_distances, open_samples
from toolkit.runs.lock import folder_lock
from toolkit.runs.outputs import write_files
from toolkit.runs.progress import RunProgress
from toolkit.runs.provenance import recorded_run
from toolkit.solvers.registry import check_solver_name
from toolkit.verify.radius import Radius

FOLDER_OF_RADII = Path("results/radii")
PRINTED = ("rung", "end", "images", "mean", "least", "median", "largest", "open", "seconds")


def _plan(question: Question, rungs: Sequence[str], tolerance: float | None, largest: float | None) -> DistancePlan:
    return DistancePlan(
        norm=question.norm,
        domain=ball_domain(question),
        rungs=tuple(rungs),
        time_limit=question.time_limit,
        tolerance=tolerance,
        largest=largest,
        bounds=question.chain,
        settings=Settings(solver=check_solver_name(question.solver)),
    )


def answer_radius(question: Question, rungs: Sequence[str], tolerance: float | None, largest: float | None) -> bool:
    """One image: a line per rung, then the interval and what the network says at the nearest point. Whether it is
    closed."""
    plan = _plan(question, rungs, tolerance, largest)
    network = Network.load(question.network, question.architecture)
    check_witness_file(question.witness_file, network)
    title, center, label = centre(question, network)
    asked = asked_property(question, network, label)
    console = Console(quiet=question.as_json)
    _print_head(console, network, question, f"{title}, {about(question, label)}", plan)
    with RunProgress() as progress:
        steps = iter(range(1, len(plan.rungs) + 1))

        def step(name: str, certified: float, refuted: float) -> None:
            progress.advance(
                "rungs", next(steps), len(plan.rungs), f"{name}: [{_number(certified)}, {_number(refuted)}]"
            )

        radius = plan.radius(network, center, asked, step)
    rows = [
        (one.rung, _number(one.certified), _number(one.refuted), one.verdicts, f"{one.seconds:.2f}")
        for one in radius.by_rung
    ]
    console.print(_grid(("rung", "certified", "nearest found", "verdicts", "seconds"), rows))
    console.print(_sentence(radius, network, plan.norm, asked), highlight=False, markup=False)
    if question.as_json:
        print_radius(question, network, center, plan, label, radius)
    if question.witness_file is not None:
        told = save_witness(question.witness_file, network, center, radius.witness, label)
        console.print(printable(told), highlight=False, markup=False, soft_wrap=True)
    return plan.closed(center, radius.certified, radius.refuted)


def answer_radii(question: Question, rungs: Sequence[str], tolerance: float | None, largest: float | None) -> bool:
    """Many images: progress, a table by rung, and in the folder the rows, the table and both figures. Whether every
    image's interval is closed."""
    plan, out = _plan(question, rungs, tolerance, largest), question.out or FOLDER_OF_RADII
    network = Network.load(question.network, question.architecture)
    plan = replace(plan, question=property_of_all(question, network))
    data, images = asked_images(question)
    count = len(images)
    check_distances(network, data, images, plan)
    console = Console(quiet=question.as_json)
    named = "" if plan.question is None else f", {about(question, None)}"
    _print_head(console, network, question, f"first {count} test images of {data.name}{named}", plan)
    details = {"dataset": data.name, "count": count, "workers": question.workers, **plan.asked}
    facts = {"details": details, "networks": {network.name or question.network: network.digest}}
    with folder_lock(out), recorded_run(out, facts) as run, RunProgress() as progress:
        lines = measure_distances(network, data, images, plan, out, run["run_id"], question.workers, progress.advance)
        table = distance_table(lines)
        title = f"{network.name or 'network'}, {count} images of {data.name}"
        write_files(out, {"radii.csv": lines, "table.csv": table, "table.md": pipe_table(_readable(table))})
        save_figure(radius_distribution(lines, plan.norm, title), out / "radii")
        save_figure(radius_boxes(lines, plan.norm, title), out / "radii_box")
    console.print(_grid(PRINTED, _readable(table)[list(PRINTED)].itertuples(index=False)))
    still_open = open_samples(data, plan, lines)
    console.print(f"{count - len(still_open)} of {count} intervals as narrow as asked", highlight=False)
    console.print(f"written to {printable(out)}", highlight=False, markup=False)
    if question.as_json:
        print_radii(question, network, plan, lines, table, still_open, out)
    return not still_open


def _print_head(console: Console, network: Network, question: Question, about: str, plan: DistancePlan) -> None:
    console.print(
        f"[bold]{markup_text(network.name or question.network)}[/], {markup_text(about)}, distances in "
        f"{NORM_TITLES.get(plan.norm, plan.norm)}, {domain_text(plan.domain)}, rungs {' → '.join(plan.rungs)}",
        highlight=False,
    )
    show_notes(console, network)


def _sentence(radius: Radius, network: Network, norm: str, asked: Property) -> str:
    """The interval in words, how much of it is open, and what is seen at its upper end."""
    name = NORM_TITLES.get(norm, norm)
    unsafe = "unsafe" if asked.label is None else "misclassified"
    if radius.witness is None:
        return f"no {unsafe} point found; none within {_number(radius.certified)} in {name}"
    if radius.refuted == 0.0:
        return f"radius 0: the image itself is {unsafe}"
    if asked.label is None:
        seen = f"breaks group {_broken(network, asked, radius.witness)}"
    else:
        seen = f"is of class {int(network.predict(radius.witness))}"
    share = 100.0 * radius.gap / radius.refuted
    return (
        f"least distance in [{_number(radius.certified)}, {_number(radius.refuted)}] in {name}, "
        f"{share:.2g} % of it open; the nearest point found {seen}"
    )


def _broken(network: Network, asked: Property, point: FloatArray) -> int:
    """The group whose margin is least at a point."""
    whole, rows = lowered(network, asked)
    return int(replay_margins(whole, rows.objective.rows, point)[1][0].argmin())


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table's numbers as texts."""
    lines = [[_cell(name, value) for name, value in row.items()] for row in table.to_dict("records")]
    return pd.DataFrame(lines, columns=table.columns)


def _cell(name: object, value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}" if name == "seconds" else _number(value)
    return "" if value == -1 else str(value)


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "–"


def _grid(names: Iterable[str], rows: Iterable[Sequence[object]]) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in names:
        grid.add_column(str(name), justify="left" if name in ("rung", "end") else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*map(str, row))
    return grid
