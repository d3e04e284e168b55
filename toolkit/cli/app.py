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

from toolkit.cli.certify_command import certify_command
from toolkit.cli.errors import expected_message, plain_warnings
from toolkit.cli.options import ArchitectureName, AsJson, everywhere, own_log
from toolkit.cli.question import listed
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

COMPLETION = "_RELUGAP_COMPLETE"  # set by a shell that completes a command
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
    name="relugap", help=HELP, no_args_is_help=True, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@own_log()
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
    except (SystemExit, BrokenPipeError) as left:  # rich and typer leave by SystemExit where a pipe is closed
        if COMPLETION in os.environ and isinstance(left, SystemExit):  # and where a shell asked what may follow
            return left.code if isinstance(left.code, int) else 0
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
    if not message:
        return code
    text = Text(f"error: {message}", style="red") if code == 2 else Text(message)
    with contextlib.suppress(OSError, SystemExit):  # a terminal that was closed has no reader either
        Console(stderr=True, soft_wrap=True).print(text)
    return code


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"relugap {version('relugap')}")
        raise typer.Exit


app.add_typer(results_app, name="results")
app.command("verify")(everywhere(query_command))
app.command("supports")(everywhere(supports_command))
app.command("scorecard")(everywhere(scorecard_command))
app.command("radius")(everywhere(radius_command))
app.command("certify")(everywhere(certify_command))


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command; the work is in the commands."""


@app.command()
@everywhere
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("results/demo"),
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one per core.")] = None,
) -> None:
    """The gap table of small networks, in about a minute.

    Runs experiments/demo.toml: dual ≤ LP ≤ m* for every target of a few test images over several ε; prints the table
    and writes it with figures. Stopped half-way, it continues when run again.

    Example: relugap demo --workers 2
    """
    from toolkit.cli.sweeps import run_demo

    run_demo(out, workers)


@app.command("check")
@everywhere
def check_command(
    proof: Annotated[Path, typer.Argument(help="A proof written by certify --proof.")],
    network: Annotated[str, typer.Option(help="The network it is about, as certify takes it.")],
    architecture: ArchitectureName = None,
    data: Annotated[str | None, typer.Option(help="Data set whose test image the centre must be.")] = None,
    index: Annotated[int | None, typer.Option(help="Which image of --data.")] = None,
    property_file: Annotated[Path | None, typer.Option("--property", help="What it must be about: a .toml.")] = None,
    as_json: AsJson = False,
) -> None:
    """Verify a proof without any solver. Exit code 1 if it is rejected.

    Example: relugap check proof.npz --network zoo:mnist5k-standard --data mnist5k --index 3
    """
    from toolkit.cli.check import answer_check

    if not answer_check(proof, network, architecture, data, index, property_file, as_json):
        raise typer.Exit(1)


@app.command()
@everywhere
def sweep(
    spec: Annotated[Path, typer.Argument(help="The sweep as a TOML file; see experiments/demo.toml.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the rows.", show_default="results/NAME")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one per core.")] = None,
    rerun: Annotated[str | None, typer.Option(help="Compute rows again: failed, timeout or all.")] = None,
    max_hours: Annotated[float | None, typer.Option(help="Start no task after so many hours.")] = None,
    dask: Annotated[str | None, typer.Option(help="A Dask scheduler's address, or local for a cluster here.")] = None,
) -> None:
    """Networks × samples × ε × rungs, as a spec says; rows that are there already are not computed again.

    Ctrl-C finishes what is running and stops; the same command continues.

    Example: relugap sweep experiments/demo.toml --out results/mine --workers 2

    Example: relugap sweep experiments/demo.toml --dask tcp://10.0.0.5:8786
    """
    from toolkit.cli.sweeps import run_spec

    run_spec(spec, out, workers, rerun, max_hours, dask)


@app.command()
@everywhere
def report(
    folder: Annotated[Path, typer.Argument(help="A sweep's results folder.")],
    out: Annotated[Path | None, typer.Option(help="Folder for tables and figures.", show_default="FOLDER")] = None,
    formats: Annotated[str, typer.Option(help="Of the figures: png, svg, pdf.")] = "png",
    tolerance: Annotated[float, typer.Option(help="By which bounds may break their order.")] = 1e-6,
    html: Annotated[bool, typer.Option("--html", help="Also write report.html, one interactive page.")] = False,
) -> None:
    """Tables and figures of a sweep; refuses rows that contradict each other.

    With --html also report.html (needs the extra `html`): one file to open in any browser, without a network.

    Example: relugap report results/demo --formats png,pdf

    Example: relugap report results/demo --html
    """
    from toolkit.cli.sweeps import run_report

    run_report(folder, out, listed("--formats", formats), tolerance, html)


@app.command("reproduce")
@everywhere
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
@everywhere
def train_command(
    spec: Annotated[Path, typer.Argument(help="Networks to train, as a TOML file; see experiments/zoo.toml.")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.npz, README.md and the training curves.")],
    only: Annotated[list[str] | None, typer.Option(help="Train this network; may be repeated. Default: all.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Train again what is there already.")] = False,
) -> None:
    """Train networks (needs the extra `train`).

    Losses: standard, adversarial, adversarial-fgsm, dual, dual-margin, interval, crown-ibp, mtl-ibp.

    Example: relugap train experiments/zoo.toml --out networks --only digits-standard
    """
    from toolkit.training.loop import train_spec

    written = train_spec(spec, out, only=only or None, force=force)
    Console().print(f"trained: {', '.join(map(printable, written))}", highlight=False, markup=False)


@app.command()
@everywhere
def doctor(as_json: AsJson = False) -> None:
    """What is installed here: solvers with licence and limits, optional packages, data sets.

    Every solver is tried on a network whose exact margin is known. Exit code 1 if none passes.

    Example: relugap doctor
    """
    from toolkit.cli.doctor import print_diagnosis

    if not print_diagnosis(as_json):
        raise typer.Exit(1)
