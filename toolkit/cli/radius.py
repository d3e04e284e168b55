"""`radius`: the least distance of one image to a misclassified point, or the distances of many; and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.options import (
    ArchitectureName,
    AsJson,
    DataName,
    DomainText,
    ImageCount,
    ImageFile,
    ImageIndex,
    ImageLabel,
    LayerChain,
    NetworkName,
    NoDomain,
    PropertyFile,
    SecondsPerImage,
    SolverName,
    WitnessFile,
)
from toolkit.cli.question import OF_DATA, Question, listed
from toolkit.data.amounts import amount

OPEN_CODE = 20  # exit code where an interval stays open, as for MAYBE
DEFAULT_RUNGS = "pgd,dual,lp,exact"  # as radius.CLOSEST, which would take a second to import for --help


def radius_command(
    network: NetworkName,
    data: DataName = None,
    index: ImageIndex = None,
    image: ImageFile = None,
    label: ImageLabel = None,
    property_file: PropertyFile = None,
    norm: Annotated[str, typer.Option(help="In which distances are measured: linf, l2 or l1.")] = "linf",
    rungs: Annotated[
        str, typer.Option(help="Attacks first, then bounds from weak to exact; each has a radius of its own.")
    ] = DEFAULT_RUNGS,
    bounds: LayerChain = "interval,dual",
    domain: DomainText = OF_DATA,
    no_domain: NoDomain = False,
    architecture: ArchitectureName = None,
    solver: SolverName = "auto",
    time_limit: SecondsPerImage = None,
    tolerance: Annotated[
        str | None,
        typer.Option(help="Width of the interval, as 0.001 or 1/255.", show_default="a thousandth of the distance"),
    ] = None,
    largest: Annotated[
        str | None, typer.Option(help="Largest ε asked, as 0.1 or 8/255.", show_default="what the domain holds")
    ] = None,
    count: ImageCount = None,
    workers: Annotated[int, typer.Option(min=1, help="With --count: processes.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="With --count: folder for rows, table and figures.", show_default="results/radii"),
    ] = None,
    save_witness: WitnessFile = None,
    as_json: AsJson = False,
    exit_code: Annotated[
        bool,
        typer.Option(
            "--exit-code", help="Exit with 0 where every interval is as narrow as asked, with 20 where one stays open."
        ),
    ] = False,
) -> None:
    """How far an image is from being misclassified: an interval that holds the least distance. Or many: --count.

    Attacks bound it from above, by the distance of the nearest misclassified point they find; certified verdicts from
    below. With --count also the distribution of the radii by rung; stopped half-way, the same command continues.

    Example: relugap radius zoo:mnist5k-standard --data mnist5k --index 3

    Example: relugap radius zoo:digits-standard --data digits --count 50 --rungs pgd,dual,crown,lp,exact

    Example: relugap radius zoo:digits-standard --data digits --count 50 --property eight.toml --exit-code
    """
    from toolkit.cli.distances import answer_radii, answer_radius

    question = Question(
        network=network, architecture=architecture, eps=0.0, norm=norm, box=None if no_domain else domain, data=data,
        index=index, image=image, label=label, bounds=bounds, solver=solver, time_limit=time_limit, count=count,
        workers=workers, out=out, property_file=property_file, witness_file=save_witness, as_json=as_json,
    )  # fmt: skip
    question.check()
    width, most = (
        None if text is None else amount(name, text)
        for name, text in (("--tolerance", tolerance), ("--largest", largest))
    )
    asked = listed("--rungs", rungs), width, most
    closed = answer_radius(question, *asked) if count is None else answer_radii(question, *asked)
    if exit_code and not closed:
        raise typer.Exit(OPEN_CODE)
