"""`verify`: a VNN-LIB query about a network, answered as the VNN-LIB standard and VNN-COMP want it on stdout."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.json_output import json_line
from toolkit.cli.options import AsJson
from toolkit.data.names import printable

if TYPE_CHECKING:
    from toolkit.problems.vnnlib_declarations import Tensor
    from toolkit.problems.vnnlib_reader import VnnlibQuery
    from toolkit.verify.queries import QueryResult

EXIT_CODES = {"unsat": 0, "sat": 10, "unknown": 20, "timed-out": 20}
EMPTY: dict[str, object] = dict.fromkeys(  # of --json, in this order, whatever the answer is
    ("status", "seconds", "questions", "decided", "certified", "witness", "outputs", "onnxruntime_agrees", "message")
)
LEAST_TIMEOUT = 0.01  # seconds, where reading took all of them


def query_command(
    context: typer.Context,
    query: Annotated[Path, typer.Argument(help="A .vnnlib or .vnnlib.gz file, version 1.0 or 2.0.")],
    network: Annotated[str, typer.Option(help="FILE, or NAME=FILE with NAME as the query declares it.")],
    timeout: Annotated[float, typer.Option(help="Seconds for everything, reading and start included.")] = 60.0,
    results: Annotated[Path | None, typer.Option(help="Write what is printed to this file as well.")] = None,
    as_real: Annotated[
        bool, typer.Option("--as-real", help="Take the query's element types, such as float32, as Real.")
    ] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 0 unsat, 10 sat, 20 unknown or timed-out.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Is there an input that makes a VNN-LIB query true: sat, unsat, unknown or timed-out?

    The first line of stdout is that word; after sat follows the point. unsat is certified; sat is shown at the point in
    real arithmetic, and what onnxruntime says of it stands on stderr.

    Example: relugap verify prop.vnnlib --network net.onnx --timeout 60

    Example: relugap verify prop.vnnlib --network f=net.onnx --results out.txt
    """
    from toolkit.data.arguments import check_writable, real_number

    began = context.obj if isinstance(context.obj, float) else time.perf_counter()
    real_number("--timeout", timeout, above=0)
    if results is not None:
        check_writable(results)
    answer = TimedAnswer(results, timeout, began, as_json, EXIT_CODES["timed-out"] if exit_code else 0)
    with answer.within_timeout():
        from toolkit.problems.vnnlib_reader import read_vnnlib
        from toolkit.verify.queries import verify_query

        asked = read_vnnlib(query)
        file = network_file(network, asked)
        left = max(LEAST_TIMEOUT, timeout - (time.perf_counter() - began))
        found = verify_query(file, asked, left, as_real=as_real)
    answer.give(json_text(found) if as_json else answer_text(found))
    sides = {None: "", True: "; onnxruntime agrees", False: "; onnxruntime DISAGREES"}[found.deployed]
    notes = f"; {found.message}" if found.message else ""
    told = f"{found.seconds:.2f} s, {found.decided} of {found.questions} boxes decided{sides}{notes}"
    print(printable(told), file=sys.stderr)
    if exit_code:
        raise typer.Exit(EXIT_CODES[found.status])


class TimedAnswer:
    """What goes to stdout, once: the answer, or timed-out when the clock says so, whatever is running by then.

    Solvers look at the clock between their steps, and some steps are long; a thread of its own looks at it all the
    time. Once the word is said the process ends, since nothing that still runs is of use.
    """

    def __init__(self, results: Path | None, timeout: float, began: float, as_json: bool, code: int) -> None:
        self._results, self._end_at, self._code = results, began + timeout, code
        self._late = (
            json_line("verify", {**EMPTY, "status": "timed-out", "seconds": timeout}) if as_json else "timed-out"
        )
        self._given = threading.Lock()

    @contextlib.contextmanager
    def within_timeout(self) -> Iterator[None]:
        """Say timed-out, and end the process, where the block takes longer than the timeout."""
        timer = threading.Timer(max(0.0, self._end_at - time.perf_counter()), self._end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            if not self._given.acquire(blocking=False):
                timer.join()  # it ends the process

    def _end(self) -> None:
        if self._given.acquire(blocking=False):
            try:
                self.give(self._late)
                sys.stdout.flush()
            finally:
                os._exit(self._code)

    def give(self, text: str) -> None:
        """Print a text, and write it to the results."""
        from toolkit.data.atomic import write_text

        typer.echo(text)
        if self._results is not None:
            write_text(self._results, f"{text}\n")


def network_file(given: str, query: VnnlibQuery) -> str:
    """The file in NAME=FILE or FILE. Raises ValueError where the query declares no network of that name."""
    name, equals, file = given.partition("=")
    if not equals or Path(given).exists():
        return given
    if query.network and name != query.network:
        raise ValueError(f"--network names {name!r}, the query declares {query.network!r}")
    return file


def answer_text(found: QueryResult) -> str:
    """The word, and after sat the point: of version 1.0 as VNN-COMP has it, of 2.0 as the standard has it.

    Numbers have as many digits as tell them from every other float of their kind.
    """
    if found.witness is None or found.outputs is None:
        return str(found.status)
    query, point, outputs = found.query, found.witness.tolist(), found.outputs.tolist()
    if query.version == (1, 0):
        pairs = [f"(X_{i} {value!r})" for i, value in enumerate(point)]
        pairs += [f"(Y_{i} {value!r})" for i, value in enumerate(outputs)]
        return f"{found.status}\n({chr(10).join(pairs)})"
    return "\n".join([str(found.status), *_tensor_lines(query.input, point), *_tensor_lines(query.output, outputs)])


def _tensor_lines(tensor: Tensor, values: Sequence[float]) -> list[str]:
    kind = "Real" if tensor.kind == "real" else tensor.kind
    return [f"{tensor.name} {kind} [{','.join(map(str, tensor.shape))}]", *map(repr, values)]


def json_text(found: QueryResult) -> str:
    """The answer as one JSON object."""
    content = {
        **EMPTY,
        "status": str(found.status),
        "seconds": found.seconds,
        "questions": found.questions,
        "decided": found.decided,
        "certified": found.certified,
        "witness": None if found.witness is None else found.witness.tolist(),
        "outputs": None if found.outputs is None else found.outputs.tolist(),
        "onnxruntime_agrees": found.deployed,
        "message": found.message,
    }
    return json_line("verify", content)
