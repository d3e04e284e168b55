"""The command `certify`: its options. What it does is imported when it runs, so that --help is fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.options import (
    ArchitectureName,
    AsJson,
    DataName,
    DomainText,
    ExitCode,
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
from toolkit.cli.question import DEFAULT_LADDER, OF_DATA, Question
from toolkit.data.amounts import read_radius

VERDICT_CODES = {"YES": 0, "NO": 10, "MAYBE": 20}


def certify_command(
    network: NetworkName,
    eps: Annotated[str, typer.Option(help="Radius ε of the ball in input units: 0.03, 8/255, or a .npy, one each.")],
    norm: Annotated[str, typer.Option(help="Norm of the ball: linf, l1 or l2.")] = "linf",
    data: DataName = None,
    index: ImageIndex = None,
    image: ImageFile = None,
    label: ImageLabel = None,
    rung: Annotated[list[str] | None, typer.Option(help="A bound to compute; may be repeated.")] = None,
    rungs: Annotated[str | None, typer.Option(help="The same as a list.", show_default="dual,lp,exact")] = None,
    bounds: LayerChain = "interval,dual",
    property_file: PropertyFile = None,
    target: Annotated[list[int] | None, typer.Option(help="A class t ≠ c*; may be repeated. Default: all.")] = None,
    domain: DomainText = OF_DATA,
    no_domain: NoDomain = False,
    architecture: ArchitectureName = None,
    solver: SolverName = "auto",
    time_limit: SecondsPerImage = None,
    count: ImageCount = None,
    ladder: Annotated[
        str | None, typer.Option(help="Rungs to climb for the verdict; else --rungs.", show_default=DEFAULT_LADDER)
    ] = None,
    trust_solver: Annotated[bool, typer.Option("--trust-solver", help="Trust a MILP solver, and say so.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="With --count: processes.")] = 1,
    out: Annotated[Path | None, typer.Option(help="With --count: a CSV file with one row per image.")] = None,
    proof: Annotated[Path | None, typer.Option(help="Write a proof to this .npz, for `relugap check`.")] = None,
    save_witness: WitnessFile = None,
    as_json: AsJson = False,
    exit_code: ExitCode = False,
) -> None:
    """One image: its margins by every rung, and the verdict. Or many: --count.

    YES: every margin has a certified lower bound > 0. NO: a point of the ball, replayed through the network, is
    misclassified, whatever the rounding. MAYBE: neither was shown.

    Example: relugap certify zoo:mnist5k-standard --data mnist5k --index 3 --eps 0.02

    Example: relugap certify zoo:mnist5k-standard --data mnist5k --count 100 --eps 2/255
    """
    verdict = _answer(
        Question(
            network=network, architecture=architecture, eps=read_radius("--eps", eps), norm=norm,
            box=None if no_domain else domain, data=data, index=index, image=image, label=label, rung=rung or (),
            rungs=rungs, bounds=bounds, targets=target, climbed=ladder, solver=solver, trust_solver=trust_solver,
            time_limit=time_limit, count=count, workers=workers, out=out, proof=proof, property_file=property_file,
            witness_file=save_witness, as_json=as_json,
        )
    )  # fmt: skip
    if exit_code:
        raise typer.Exit(VERDICT_CODES[verdict])


def _answer(question: Question) -> str:
    """Check that the options fit together, and answer for one image or for many; the verdict, of many the worst."""
    question.check()
    if question.count is not None:
        from toolkit.cli.verdicts import answer_batch

        return str(answer_batch(question))
    from toolkit.cli.certify import answer

    verdict = answer(question)
    if question.proof is not None:
        from toolkit.cli.check import prove

        prove(question, question.proof)
    return str(verdict)
