"""`certify --count N`: verdicts of the first N test images, with a progress bar, totals and a table on disk."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from toolkit.cli.asked import about, asked_images, ball_domain, property_of_all
from toolkit.cli.certify import STYLES
from toolkit.cli.certify_json import network_facts, set_facts
from toolkit.cli.json_output import print_json
from toolkit.cli.notes import show_notes
from toolkit.cli.question import Question
from toolkit.data.amounts import domain_text, radius_text
from toolkit.data.arguments import check_writable
from toolkit.data.atomic import write_csv
from toolkit.data.dataset import Dataset
from toolkit.data.names import NORM_TITLES, markup_text, printable
from toolkit.networks.network import Network
from toolkit.problems.answers import Verdict
from toolkit.problems.settings import Settings
from toolkit.runs.batch import BatchPlan, BatchRow, batch_totals, certify_samples, check_batch
from toolkit.runs.progress import RunProgress
from toolkit.solvers.registry import check_solver_name


def answer_batch(question: Question) -> Verdict:
    """Certify, show progress, print totals; with `out`, write one row per image as CSV. The worst of all verdicts."""
    network = Network.load(question.network, question.architecture)
    data, images = asked_images(question)
    settings = Settings(solver=check_solver_name(question.solver), rigorous=not question.trust_solver)
    how = question.ladder, question.chain
    asked = property_of_all(question, network)
    plan = BatchPlan(question.eps, ball_domain(question), *how, settings=settings, time_limit=question.time_limit,
                     norm=question.norm, question=asked)  # fmt: skip
    check_batch(network, data, images, plan)
    if question.out is not None:
        check_writable(question.out)
    console = Console(quiet=question.as_json)
    console.print(
        f"[bold]{markup_text(network.name or question.network)}[/], first {len(images)} test images of "
        f"{markup_text(data.name)}, {radius_text(plan.eps)} in {NORM_TITLES[plan.norm]}, "
        f"{markup_text(domain_text(plan.domain))}, "
        f"{'' if asked is None else markup_text(about(question, None)) + ', '}ladder {' → '.join(plan.ladder)}",
        highlight=False,
    )
    show_notes(console, network)
    started = time.perf_counter()
    rows = _with_progress(network, data, plan, images, question)
    seconds = time.perf_counter() - started
    if question.out is not None:
        write_csv(question.out, rows)
    _print_totals(console, rows, seconds)
    if question.out is not None:
        console.print(f"one row per image in {printable(question.out)}", highlight=False, markup=False)
    if question.as_json:
        _print_json(question, network, plan, rows, seconds)
    return worst(rows["verdict"])


def worst(verdicts: Iterable[object]) -> Verdict:
    """NO if any is, else MAYBE if any is, else YES."""
    found = set(map(str, verdicts))
    return next(one for one in (Verdict.NO, Verdict.MAYBE, Verdict.YES) if str(one) in found or one is Verdict.YES)


def _print_json(question: Question, network: Network, plan: BatchPlan, rows: pd.DataFrame, seconds: float) -> None:
    texts = rows.astype(object).where(rows.notna(), None)
    print_json(
        "certify",
        {
            "network": network_facts(question, network),
            "data": question.data,
            "count": len(rows),
            "property": question.property_file,
            "set": set_facts(plan),
            "verdicts": batch_totals(rows).verdicts,
            "verdict": worst(rows["verdict"]),
            "images": texts.to_dict("records"),
            "seconds": seconds,
        },
    )


def _with_progress(network: Network, data: Dataset, plan: BatchPlan, images: range, question: Question) -> pd.DataFrame:
    """The rows of all images; of those that are finished in --out where an interrupt comes first."""
    seen: Counter[str] = Counter()
    finished: list[BatchRow] = []
    with RunProgress() as progress:

        def step(row: BatchRow) -> None:
            finished.append(row)
            seen[str(row["verdict"])] += 1
            text = "  ".join(f"{verdict} {seen[verdict]}" for verdict in Verdict)
            progress.advance("certifying", seen.total(), len(images), text)

        try:
            return certify_samples(network, data, images, plan, question.workers, step)
        except KeyboardInterrupt as stop:
            if question.out is None or not finished:
                raise
            write_csv(question.out, pd.DataFrame(finished).sort_values("sample", ignore_index=True))
            told = f"interrupted; {len(finished)} of {len(images)} images are in {question.out}"
            raise KeyboardInterrupt(told) from stop


def _print_totals(console: Console, rows: pd.DataFrame, seconds: float) -> None:
    total = batch_totals(rows)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("rung", "images settled", "seconds in it"):
        grid.add_column(name, justify="left" if name == "rung" else "right")
    order = ["clean", "bounds", *total.rung_seconds, "undecided"]
    for name in dict.fromkeys(order):
        settled, spent = total.settled_by.get(name, 0), total.rung_seconds.get(name)
        if settled or spent is not None:
            shown = "l,u" if name == "bounds" else name
            grid.add_row(shown, str(settled or ""), "" if spent is None else f"{spent:.2f}")
    console.print(grid)
    counts = "   ".join(
        f"[{STYLES[verdict]}]{verdict}[/] {total.verdicts[verdict.value]} "
        f"({100 * total.verdicts[verdict.value] / len(rows):.1f} %)"
        for verdict in Verdict
    )
    console.print(counts, highlight=False)
    console.print(f"{seconds:.1f} s in all, slowest image {total.slowest:.2f} s", highlight=False)
    for message in sorted({str(text) for text in rows["message"] if isinstance(text, str) and text}):
        console.print(f"note: {printable(message)}", highlight=False, markup=False)
