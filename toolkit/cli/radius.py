"""`radius`: the least distance of one image to a misclassified point, or the distances of many; and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.question import Question, listed

DEFAULT_RUNGS = "pgd,dual,lp,exact"  # as radius.CLOSEST, which would take a second to import for --help


def radius_command(
    network: Annotated[
        str, typer.Argument(help="zoo:NAME, published:NAME, or a file: .npz, .onnx, .pth (with --architecture).")
    ],
    data: Annotated[str | None, typer.Option(help="Data set whose test image is the centre, as in mnist5k.")] = None,
    index: Annotated[int | None, typer.Option(help="Index of that image, from 0.")] = None,
    image: Annotated[Path | None, typer.Option(help="An image of your own instead: .npy or .png.")] = None,
    label: Annotated[int | None, typer.Option(help="Class c* of --image; replaces the data set's with --data.")] = None,
    property_file: Annotated[
        Path | None, typer.Option("--property", help="A .toml file (rows, constants, groups): what must hold instead.")
    ] = None,
    norm: Annotated[str, typer.Option(help="In which distances are measured: linf, l2 or l1.")] = "linf",
    rungs: Annotated[
        str, typer.Option(help="Attacks first, then bounds from weak to exact; each has a radius of its own.")
    ] = DEFAULT_RUNGS,
    bounds: Annotated[str, typer.Option(help="Rungs that bound every ReLU's input, in order.")] = "interval,dual",
    domain: Annotated[str, typer.Option(help="LOW,HIGH: points outside this box do not count.")] = "0,1",
    no_domain: Annotated[bool, typer.Option("--no-domain", help="All points count.")] = False,
    architecture: Annotated[
        str | None, typer.Option(help="Architecture of a .pth file, which needs one: mlp, a name, or a specification.")
    ] = None,
    solver: Annotated[str, typer.Option(help="auto, highs, gurobi or scip.")] = "auto",
    time_limit: Annotated[float | None, typer.Option(help="Seconds an image; what is open then is said.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Width of the interval.", show_default="a thousandth of the distance")
    ] = None,
    largest: Annotated[
        float | None, typer.Option(help="Largest ε asked.", show_default="what the domain holds")
    ] = None,
    count: Annotated[int | None, typer.Option(help="The first COUNT test images of --data.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="With --count: processes.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="With --count: folder for rows, table and figures.", show_default="results/radii"),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Everywhere")
    ] = False,
) -> None:
    """How far an image is from being misclassified: an interval that holds the least distance. Or many: --count.

    Attacks bound it from above, by the distance of the nearest misclassified point they find; certified verdicts from
    below. With --count also the distribution of the radii by rung; stopped half-way, the same command continues.

    Example: relugap radius zoo:mnist5k-standard --data mnist5k --index 3

    Example: relugap radius zoo:digits-standard --data digits --count 50 --rungs pgd,dual,crown,lp,exact
    """
    from toolkit.cli.distances import answer_radii, answer_radius

    question = Question(
        network=network, architecture=architecture, eps=0.0, box=None if no_domain else domain, data=data, index=index,
        image=image, label=label, bounds=bounds, solver=solver, time_limit=time_limit, count=count, workers=workers,
        out=out, property_file=property_file,
    )  # fmt: skip
    question.check()
    asked = listed("--rungs", rungs), norm, tolerance, largest
    if count is None:
        answer_radius(question, *asked)
    else:
        answer_radii(question, *asked)
