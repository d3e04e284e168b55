"""The commands, their options and help. What a command does is imported when it runs, so that --help is fast."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
from rich.console import Console
from rich.text import Text

from toolkit.cli.errors import expected_message, plain_warnings
from toolkit.cli.question import DEFAULT_LADDER, Question, listed
from toolkit.cli.radius import radius_command
from toolkit.cli.results import results_app
from toolkit.cli.scorecard import scorecard_command
from toolkit.cli.streams import take_any_text
from toolkit.cli.supports import supports_command
from toolkit.cli.verify import query_command
from toolkit.data.names import printable
from toolkit.runs.interrupts import ENDED

HELP = """How tightly can the robustness of a ReLU network be certified?

Exact, relaxed (LP) and dual margins of a network over a ball (ℓ∞, ℓ1, ℓ2), on the same bounds l,u, side by side.
Start with: relugap demo"""

PIPE_CLOSED = 141  # as of a program that SIGPIPE ended
LEFT = {  # what an interrupted command leaves, and how to go on
    "demo": "finished rows are kept; the same command continues",
    "certify": "nothing is kept",
    "check": "nothing was verified",
    "scorecard": "answers are kept; the same command continues",
    "sweep": "finished rows are kept; the same command continues",
    "radius": "with --count, finished images are kept; the same command continues",
    "report": "tables and figures may be incomplete; run it again",
    "reproduce": "what was finished is kept; the same command continues",
    "train": "networks that are finished, and finished epochs of the next, are kept; the same command continues",
    "doctor": "nothing is kept",
    "results": "no row is lost",
}


class InterruptedCommandError(Exception):
    """An interrupt during a command, with what the command says about it; typer would drop the text."""


class _Commands(typer.core.TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            left = LEFT.get(ctx.invoked_subcommand or "", "nothing is kept")
            raise InterruptedCommandError(str(interrupt) or f"interrupted; {left}") from interrupt


app = typer.Typer(
    cls=_Commands,
    name="relugap", help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@plain_warnings()
def main(arguments: Sequence[str] | None = None, began: float | None = None) -> int:
    """Run a command and return its exit code: 0, 2 for an error told in one line, 130 after an interrupt, 141 where the
    reader of the output went away.

    arguments: None = those of the process; with --debug errors are raised. began: when the command's clock started.
    """
    take_any_text()
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        code = app(args=given, standalone_mode=False, prog_name="relugap", obj=began)
        sys.stdout.flush()  # here, where a full disk or a closed pipe can still be told
    except InterruptedCommandError as stop:
        return _complain(str(stop), ENDED)
    except (SystemExit, BrokenPipeError):  # rich and typer leave by SystemExit where a pipe is closed
        return _closed_pipe()
    except Exception as error:
        message = expected_message(error)
        if message is None or debug:
            raise
        return _complain(message, 2)
    if code == ENDED:  # typer's answer to an interrupt before the command began
        return _complain("interrupted; nothing was begun", ENDED)
    return code if isinstance(code, int) else 0


def _closed_pipe() -> int:
    """Leave without a word, and without one at exit, when what is still buffered has no reader."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_CLOSED


def _complain(message: str, code: int) -> int:
    text = Text(f"error: {message}", style="red") if code == 2 else Text(message)
    with contextlib.suppress(OSError, SystemExit):  # a terminal that was closed has no reader either
        Console(stderr=True, soft_wrap=True).print(text)
    return code


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"relugap {version('relugap')}")
        raise typer.Exit


Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Everywhere")]


app.add_typer(results_app, name="results")
app.command("verify")(query_command)
app.command("supports")(supports_command)
app.command("scorecard")(scorecard_command)
app.command("radius")(radius_command)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Options of every command; the work is in the commands."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("results/demo"),
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one per core.")] = None,
    debug: Debug = False,
) -> None:
    """The gap table of two small networks, in about a minute.

    Runs experiments/demo.toml: dual ≤ LP ≤ m* for every target of a few test images over several ε; prints the table
    and writes it with figures. Stopped half-way, it continues when run again.

    Example: relugap demo --workers 2
    """
    from toolkit.cli.sweeps import run_demo

    run_demo(out, workers)


@app.command("certify")
def certify_command(
    network: Annotated[
        str, typer.Argument(help="zoo:NAME, published:NAME, or a file: .npz, .onnx, .pth (with --architecture).")
    ],
    eps: Annotated[float, typer.Option(help="Radius ε of the ball, in input units.")],
    norm: Annotated[str, typer.Option(help="Norm of the ball: linf, l1 or l2.")] = "linf",
    data: Annotated[str | None, typer.Option(help="Data set whose test image is the centre, as in mnist5k.")] = None,
    index: Annotated[int | None, typer.Option(help="Index of that image, from 0.")] = None,
    image: Annotated[Path | None, typer.Option(help="An image of your own instead: .npy or .png.")] = None,
    label: Annotated[int | None, typer.Option(help="Class c* of --image; replaces the data set's with --data.")] = None,
    rung: Annotated[list[str] | None, typer.Option(help="A bound to compute; may be repeated.")] = None,
    rungs: Annotated[str | None, typer.Option(help="The same as a list.", show_default="dual,lp,exact")] = None,
    bounds: Annotated[str, typer.Option(help="Rungs that bound every ReLU's input, in order.")] = "interval,dual",
    property_file: Annotated[Path | None, typer.Option("--property", help="What must hold instead: a .toml.")] = None,
    target: Annotated[list[int] | None, typer.Option(help="A class t ≠ c*; may be repeated. Default: all.")] = None,
    domain: Annotated[str, typer.Option(help="LOW,HIGH: the ball is cut by this box.")] = "0,1",
    no_domain: Annotated[bool, typer.Option("--no-domain", help="Do not cut the ball.")] = False,
    architecture: Annotated[
        str | None, typer.Option(help="Architecture of a .pth file, which needs one: mlp, a name, or a specification.")
    ] = None,
    solver: Annotated[str, typer.Option(help="auto, highs, gurobi or scip.")] = "auto",
    time_limit: Annotated[float | None, typer.Option(help="Seconds per margin; with --count, per image.")] = None,
    count: Annotated[int | None, typer.Option(help="Verdicts of the first COUNT test images of --data.")] = None,
    ladder: Annotated[
        str | None, typer.Option(help="Rungs to climb for the verdict; else --rungs.", show_default=DEFAULT_LADDER)
    ] = None,
    trust_solver: Annotated[bool, typer.Option("--trust-solver", help="Trust a MILP solver, and say so.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="With --count: processes.")] = 1,
    out: Annotated[Path | None, typer.Option(help="With --count: a CSV file with one row per image.")] = None,
    proof: Annotated[Path | None, typer.Option(help="Write a proof to this .npz, for `relugap check`.")] = None,
    debug: Debug = False,
) -> None:
    """One image: its margins by every rung, and the verdict. Or many: --count.

    YES: every margin has a certified lower bound > 0. NO: a point of the ball, replayed through the network, is
    misclassified, whatever the rounding. MAYBE: neither was shown.

    Example: relugap certify zoo:mnist5k-standard --data mnist5k --index 3 --eps 0.02

    Example: relugap certify zoo:mnist5k-standard --data mnist5k --count 100 --eps 0.01
    """
    _answer(
        Question(
            network=network, architecture=architecture, eps=eps, norm=norm, box=None if no_domain else domain,
            data=data, index=index, image=image, label=label, rung=rung or (), rungs=rungs, bounds=bounds,
            targets=target, climbed=ladder, solver=solver, trust_solver=trust_solver, time_limit=time_limit,
            count=count, workers=workers, out=out, proof=proof, property_file=property_file,
        )
    )  # fmt: skip


def _answer(question: Question) -> None:
    """Check that the options fit together, and answer for one image or for many."""
    question.check()
    if question.count is not None:
        from toolkit.cli.verdicts import answer_batch

        return answer_batch(question)
    from toolkit.cli.certify import answer

    answer(question)
    if question.proof is not None:
        from toolkit.cli.check import prove

        prove(question, question.proof)
    return None


@app.command("check")
def check_command(
    proof: Annotated[Path, typer.Argument(help="A proof written by certify --proof.")],
    network: Annotated[str, typer.Option(help="The network it is about, as certify takes it.")],
    architecture: Annotated[
        str | None, typer.Option(help="Architecture of a .pth file, which needs one: mlp, a name, or a specification.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Data set whose test image the centre must be.")] = None,
    index: Annotated[int | None, typer.Option(help="Which image of --data.")] = None,
    property_file: Annotated[Path | None, typer.Option("--property", help="What it must be about: a .toml.")] = None,
    debug: Debug = False,
) -> None:
    """Verify a proof without any solver. Exit code 1 if it is rejected.

    Example: relugap check proof.npz --network zoo:mnist5k-standard --data mnist5k --index 3
    """
    from toolkit.cli.check import answer_check

    if not answer_check(proof, network, architecture, data, index, property_file):
        raise typer.Exit(1)


@app.command()
def sweep(
    spec: Annotated[Path, typer.Argument(help="The sweep as a TOML file; see experiments/demo.toml.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the rows.", show_default="results/NAME")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one per core.")] = None,
    rerun: Annotated[str | None, typer.Option(help="Compute rows again: failed, timeout or all.")] = None,
    max_hours: Annotated[float | None, typer.Option(help="Start no task after so many hours.")] = None,
    dask: Annotated[str | None, typer.Option(help="A Dask scheduler's address, or local for a cluster here.")] = None,
    debug: Debug = False,
) -> None:
    """Networks × samples × ε × rungs, as a spec says; rows that are there already are not computed again.

    Ctrl-C finishes what is running and stops; the same command continues.

    Example: relugap sweep experiments/demo.toml --out results/mine --workers 2

    Example: relugap sweep experiments/demo.toml --dask tcp://10.0.0.5:8786
    """
    from toolkit.cli.sweeps import run_spec

    run_spec(spec, out, workers, rerun, max_hours, dask)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A sweep's results folder.")],
    out: Annotated[Path | None, typer.Option(help="Folder for tables and figures.", show_default="FOLDER")] = None,
    formats: Annotated[str, typer.Option(help="Of the figures: png, svg, pdf.")] = "png",
    tolerance: Annotated[float, typer.Option(help="By which bounds may break their order.")] = 1e-6,
    html: Annotated[bool, typer.Option("--html", help="Also write report.html, one interactive page.")] = False,
    debug: Debug = False,
) -> None:
    """Tables and figures of a sweep; refuses rows that contradict each other.

    With --html also report.html (needs the extra `html`): one file to open in any browser, without a network.

    Example: relugap report results/demo --formats png,pdf

    Example: relugap report results/demo --html
    """
    from toolkit.cli.sweeps import run_report

    run_report(folder, out, listed("--formats", formats), tolerance, html)


@app.command("reproduce")
def reproduce_command(
    name: Annotated[str | None, typer.Argument(help="An experiment, or all. Left out: which there are.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results.", show_default="results/NAME, with --count NAME-COUNT")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="At most so many images a row: a smaller size.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one per core. Scripts have one.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget what a stopped run left in the folder (not for scripts).")
    ] = False,
    debug: Debug = False,
) -> None:
    """A paper's table or one of the project's experiments, ours beside the published.

    Stopped half-way, the same command continues. Published weights and data are taken from $RELUGAP_DATA, else fetched.

    Example: relugap reproduce salman-2019-table2

    Example: relugap reproduce wong-kolter-2018-table1 --count 100 --out results/try
    """
    from toolkit.cli.reproduce import list_experiments, run_named

    if name is None:
        list_experiments()
    else:
        run_named(name, out, count, workers, fresh)


@app.command("train")
def train_command(
    spec: Annotated[Path, typer.Argument(help="Networks to train, as a TOML file; see experiments/zoo.toml.")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.npz, README.md and the training curves.")],
    only: Annotated[list[str] | None, typer.Option(help="Train this network; may be repeated. Default: all.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Train again what is there already.")] = False,
    debug: Debug = False,
) -> None:
    """Train networks (needs the extra `train`).

    Example: relugap train experiments/zoo.toml --out networks --only digits-standard
    """
    from toolkit.training.loop import train_spec

    written = train_spec(spec, out, only=only or None, force=force)
    Console().print(f"trained: {', '.join(map(printable, written))}", highlight=False, markup=False)


@app.command()
def doctor(debug: Debug = False) -> None:
    """What is installed here: solvers with licence and limits, optional packages, data sets.

    Every solver is tried on a network whose exact margin is known. Exit code 1 if none passes.

    Example: relugap doctor
    """
    from toolkit.cli.doctor import print_diagnosis

    if not print_diagnosis():
        raise typer.Exit(1)
