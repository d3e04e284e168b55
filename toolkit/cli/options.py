"""Options that several commands share, declared once; and the three that every command has."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.data.arguments import own_path

EVERYWHERE = "Everywhere"
TIME_PER_IMAGE = "Seconds an image, for all that is done with it; what is open then is said."
LOGGER = "relugap"
LOG_LEVELS = ("debug", "info", "warning", "error")


def _data_names(incomplete: str) -> list[str]:
    from toolkit.data.datasets import dataset_names

    return [name for name in dataset_names() if name.startswith(incomplete)]


def _network_names(incomplete: str) -> list[str]:
    from toolkit.networks.sources import zoo_names

    return [name for name in (f"zoo:{zoo}" for zoo in zoo_names()) if name.startswith(incomplete)]


NetworkName = Annotated[
    str,
    typer.Argument(
        help="zoo:NAME, published:NAME, or a file: .npz, .onnx, .pth (with --architecture).",
        autocompletion=_network_names,
    ),
]
DataName = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Data set whose test image is the centre: a name, or your own .npz, .csv or folder of CLASS/*.png.",
        autocompletion=_data_names,
    ),
]
ImageIndex = Annotated[int | None, typer.Option("--index", help="Index of that image, from 0.")]
ImageFile = Annotated[Path | None, typer.Option("--image", help="An image of your own instead: .npy or .png.")]
ImageLabel = Annotated[
    int | None, typer.Option("--label", help="Class c* of --image; replaces the data set's with --data.")
]
PropertyFile = Annotated[
    Path | None, typer.Option("--property", help="A .toml file (rows, constants, groups): what must hold instead.")
]
LayerChain = Annotated[str, typer.Option("--bounds", help="Rungs that bound every ReLU's input, in order.")]
DomainText = Annotated[
    str,
    typer.Option(
        "--domain",
        help="LOW,HIGH: points outside this box do not count; a .npy of shape (2, …): ends per coordinate; or data.",
        show_default="data: the data set's own, else 0,1",
    ),
]
NoDomain = Annotated[bool, typer.Option("--no-domain", help="All points count.")]
ArchitectureName = Annotated[
    str | None,
    typer.Option("--architecture", help="Of a .pth file, which needs one: mlp, a name, or a specification."),
]
SolverName = Annotated[str, typer.Option("--solver", help="auto, highs, gurobi or scip.")]
SecondsPerImage = Annotated[float | None, typer.Option("--time-limit", help=TIME_PER_IMAGE)]
ImageCount = Annotated[int | None, typer.Option("--count", help="The first COUNT test images of --data.")]
WitnessFile = Annotated[
    Path | None,
    typer.Option(
        "--save-witness",
        help="Write the unsafe point that is found: its numbers to a .npy, or a .png of image, point and difference.",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object instead, and nothing else; see docs/cli.md.")
]
ExitCode = Annotated[
    bool, typer.Option("--exit-code", help="Exit with 0 YES, 10 NO, 20 MAYBE; with --count the worst of all images.")
]


def everywhere(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options that every command has behind its own."""
    own = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def told(*args: Any, verbose: bool, quiet: bool, log_level: str | None, debug: bool, **kwargs: Any) -> None:
        _set_log(verbose, quiet, log_level)
        command(*args, **{name: own_path(one) if isinstance(one, Path) else one for name, one in kwargs.items()})

    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in _EVERYWHERE.items()
    ]
    whole = own.replace(parameters=[*own.parameters.values(), *added])
    told.__signature__ = whole  # type: ignore[attr-defined]
    told.__annotations__ = {name: one.annotation for name, one in whole.parameters.items()} | {"return": None}
    return told


_EVERYWHERE: dict[str, tuple[Any, Any]] = {
    "verbose": (
        Annotated[
            bool, typer.Option("--verbose", "-v", help="Log what is done to stderr.", rich_help_panel=EVERYWHERE)
        ],
        False,
    ),
    "quiet": (
        Annotated[
            bool, typer.Option("--quiet", "-q", help="No progress, no notes on stderr.", rich_help_panel=EVERYWHERE)
        ],
        False,
    ),
    "log_level": (
        Annotated[
            str | None,
            typer.Option(help=f"Of the log on stderr: {', '.join(LOG_LEVELS)}.", rich_help_panel=EVERYWHERE),
        ],
        None,
    ),
    "debug": (
        Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=EVERYWHERE)],
        False,
    ),
}


def _set_log(verbose: bool, quiet: bool, level: str | None) -> None:
    if verbose and quiet:
        raise ValueError("--verbose and --quiet contradict each other; give one of them")
    if level is not None and level.lower() not in LOG_LEVELS:
        raise ValueError(f"--log-level must be one of {', '.join(LOG_LEVELS)}, got {level!r}")
    named = level.lower() if level is not None else "info" if verbose else "error" if quiet else None
    if named is not None:
        log_to_stderr(getattr(logging, named.upper()))


def log_to_stderr(level: int) -> None:
    """Show what "relugap" logs, from a level on. Progress and warnings are shown where its level lets warnings pass."""
    logger = logging.getLogger(LOGGER)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
    logger.setLevel(level)


@contextlib.contextmanager
def own_log() -> Iterator[None]:
    """The log as it was, once the block is left: a command that is called from Python changes it for itself alone."""
    logger = logging.getLogger(LOGGER)
    before = logger.level, list(logger.handlers)
    try:
        yield
    finally:
        logger.setLevel(before[0])
        logger.handlers = before[1]
