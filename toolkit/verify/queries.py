"""One VNN-LIB query about one network: sat, unsat, unknown or timed-out.

`sat` is said of a point of the query's box that is unsafe in real arithmetic, rounding against it; `unsat` where every
question of the query has certified margins > 0. What onnxruntime makes of the point in the file's own arithmetic is
said beside it, and whether the two agree.

Checked: the point against the rational assertions; bounds, by `certify`. Trusted: that the imported network is the file
(the importer compares it with onnxruntime).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from pathlib import Path

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.data.arguments import optional_number, shown, yes_or_no
from toolkit.data.summaries import counted, number, one_line, span
from toolkit.networks.network import Network
from toolkit.networks.onnx_runtime import deployed_outputs
from toolkit.networks.replay import LARGEST_EXACT, exact_margins, exact_within, most_weights, replay_margins
from toolkit.problems.answers import Verdict
from toolkit.problems.input_sets import Box
from toolkit.problems.lowering import lowered, with_copies, with_input_outputs, without_constants
from toolkit.problems.problem import Problem
from toolkit.problems.properties import Property
from toolkit.problems.region import Region
from toolkit.problems.settings import Settings
from toolkit.problems.vnnlib import VnnlibQuestion, vnnlib_questions
from toolkit.problems.vnnlib_declarations import REAL
from toolkit.problems.vnnlib_reader import VnnlibQuery, read_vnnlib
from toolkit.rungs import get_rung, get_rungs
from toolkit.rungs.attack import FALSIFY
from toolkit.rungs.rung import Rung
from toolkit.search.falsify import MOST_ROUNDS, Falsification, falsify
from toolkit.verify.ladder import LADDER, certify
from toolkit.verify.usable_settings import usable_settings

QUERY_LADDER = tuple(FALSIFY if name == "pgd" else get_rung(name) for name in LADDER)  # signs are all that is asked
CHEAP: Sequence[Rung | str] = ("dual", FALSIFY)  # asked of all questions before the whole ladder is of any
RESERVE = 0.5  # seconds of the timeout that are kept for the answer, at most a tenth of it
SHORTEST = 0.05  # seconds that a question gets at least, while any are left
MANY_NEURONS = 8000  # neurons from which l,u take so long that points are sought before them
FIRST_SHARE, FIRST_SECONDS = 0.05, 1.0  # of the time left, and seconds at most, for that
WITHOUT_CLOCK = 3  # rounds of a search for points without a timeout
LEAST_CONFIRMING = 0.1  # seconds for the proof that a point found is one, where none are left


class QueryStatus(StrEnum):
    """The answer to a query, by the VNN-LIB standard's words."""

    SAT = "sat"
    UNSAT = "unsat"
    UNKNOWN = "unknown"
    TIMED_OUT = "timed-out"


@dataclass(frozen=True, eq=False)
class QueryResult:
    """The answer to a query.

    witness: the point that proves sat, flat; outputs: the network's there, of onnxruntime where it ran, else in
    float64, without the last operator where the message says so. certified: whether an unsat or sat is proven in real
    arithmetic. deployed: whether the point makes the query true with onnxruntime's outputs too, None where that was not
    asked. message: what else there is to say. seconds: all of it, files included. questions: how many boxes; decided:
    how many of them were settled.
    """

    status: QueryStatus
    seconds: float
    query: VnnlibQuery = field(repr=False)
    questions: int
    decided: int
    certified: bool
    witness: FloatArray | None = field(default=None, repr=False)
    outputs: FloatArray | None = field(default=None, repr=False)
    deployed: bool | None = None
    message: str = ""

    def __repr__(self) -> str:
        certified = "certified" if self.certified else ""
        settled = f"{self.decided} of {counted(self.questions, 'question')} settled"
        witness = "" if self.witness is None else f"witness of {self.witness.size} inputs {span(self.witness)}"
        outputs = "" if self.outputs is None else f"outputs {span(self.outputs)}"
        seconds = f"{number(self.seconds)} s"
        return one_line("QueryResult", [str(self.status), certified, settled, witness, outputs, seconds, self.message])


def verify_query(
    network: str | Path | Network,
    query: str | Path | VnnlibQuery,
    timeout: float | None = 60.0,
    ladder: Sequence[Rung | str] = QUERY_LADDER,
    settings: Settings | None = None,
    as_real: bool = False,
) -> QueryResult:
    """Whether a point makes the query true with the network's outputs.

    network: what Network.load takes, or a Network; onnxruntime is asked where it is an ONNX file. query: a
    .vnnlib or .vnnlib.gz file, or one that was read. timeout: seconds for everything, None: no limit. ladder: rungs, as
    for `certify`. as_real: take the query's element types, such as float32, as Real. Raises ValueError for files that
    cannot be read, where network and query do not fit, and for a query about machine numbers without as_real.
    """
    started = time.perf_counter()
    limit = optional_number("timeout", timeout, above=0)
    rungs, settings = get_rungs("ladder", ladder), usable_settings(settings)
    yes_or_no("as_real", as_real)
    if not isinstance(query, VnnlibQuery | str | Path):
        raise ValueError(f"query must be the path of a .vnnlib file or a VnnlibQuery, got {shown(query)}")
    file = str(network) if str(network).endswith((".onnx", ".onnx.gz")) else None
    found = network if isinstance(network, Network) else Network.load(network)
    asked = query if isinstance(query, VnnlibQuery) else read_vnnlib(query)
    _check_types(asked, as_real)
    questions = fitting_questions(found, asked)
    deadline = None if limit is None else started + limit - min(RESERVE, 0.1 * limit)
    search = _Search(found, file, asked, questions, rungs, settings, started, deadline)
    return search.run()


def _check_types(query: VnnlibQuery, as_real: bool) -> None:
    """Raises ValueError for a query about machine numbers, unless it is to be read as one about reals."""
    kinds = {query.input.kind, query.output.kind} - {REAL}
    if kinds and not as_real:
        raise ValueError(
            f"the query is about {', '.join(sorted(kinds))}, proofs here are in real arithmetic; declare Real in the "
            "query or say as_real (--as-real)"
        )


def fitting_questions(network: Network, query: VnnlibQuery) -> list[VnnlibQuestion]:
    """The questions of a query. Raises ValueError where the network has other inputs or outputs, and as they do."""
    sizes = (query.input.size, query.output.size)
    if sizes != (network.input_size, network.output_size):
        raise ValueError(
            f"the query is about {sizes[0]} inputs and {sizes[1]} outputs, the network has {network.input_size} and "
            f"{network.output_size}"
        )
    return vnnlib_questions(query)


class _Search:
    """One query: its questions, and the clock."""

    def __init__(
        self,
        network: Network,
        file: str | None,
        query: VnnlibQuery,
        questions: list[VnnlibQuestion],
        ladder: tuple[Rung | str, ...],
        settings: Settings,
        started: float,
        deadline: float | None,
    ) -> None:
        self.network, self.file, self.query = network, file, query
        self.ladder, self.settings = ladder, settings
        self.started, self.deadline = started, deadline
        self.notes: list[str] = []
        self.questions = questions
        self.open = list(range(len(self.questions)))
        self.sought: dict[int, Falsification] = {}  # by question
        self.edges: set[int] = set()  # questions with an unsafe point that does not make the query true

    def run(self) -> QueryResult:
        """All questions by cheap rungs, where there are several; then what is open by the ladder; then what is still
        open by searches for points, as long as there is time; where the network is large, such a search first."""
        passes = [CHEAP, self.ladder] if len(self.questions) > 1 else [self.ladder]
        return self._begin() or self._climb(passes) or self._insist() or self._undecided()

    def _begin(self) -> QueryResult | None:
        """A short search for a point of each question, where the network is large."""
        if sum(self.network.relu_sizes) < MANY_NEURONS:
            return None
        share = FIRST_SHARE / max(1, len(self.questions))
        return next(filter(None, (self._seek(k, 1, share, FIRST_SECONDS) for k in self.open)), None)

    def _climb(self, passes: Sequence[Sequence[Rung | str]]) -> QueryResult | None:
        for ladder in passes:
            waiting, self.open = self.open, []
            for place, k in enumerate(waiting):
                left = self._left()
                if left == 0.0:
                    self.open += waiting[place:]
                    break
                share = None if left is None else max(SHORTEST, left / (len(waiting) - place))
                result = self._ask(k, ladder, share)
                if result is not None:
                    return result
        return None

    def _undecided(self) -> QueryResult:
        """The answer where no point was found."""
        if not self.open:
            return self._result(QueryStatus.UNSAT, certified=True)
        return self._result(QueryStatus.TIMED_OUT if self._left() == 0.0 else QueryStatus.UNKNOWN)

    def _insist(self) -> QueryResult | None:
        """Rounds of searches for points of the questions that are open; few of them without a timeout."""
        last = WITHOUT_CLOCK if self.deadline is None else MOST_ROUNDS
        for rounds in range(1, last + 1):
            for k in self.open:
                found = None if self._left() == 0.0 or k in self.edges else self._seek(k, rounds)
                if found is not None:
                    return found
        return None

    def _seek(self, k: int, rounds: int, share: float = 1.0, most: float = np.inf) -> QueryResult | None:
        """Search for a point of a question that makes the query true, to so many rounds in all."""
        question, left, earlier = self.questions[k], self._left(), self.sought.get(k)
        network, asked = lowered(asked_network(self.network, question), question.asked)
        problem = Problem(Region.unbounded(network, question.box), asked.objective, self.settings)
        seconds = None if left is None else min(most, share * left)
        self.sought[k] = found = falsify(problem, seconds, rounds, earlier)
        return None if found.witness is None else self._confirmed(k, found.witness)

    def _left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.perf_counter())

    def _ask(self, k: int, ladder: Sequence[Rung | str], seconds: float | None) -> QueryResult | None:
        question = self.questions[k]
        network = asked_network(self.network, question)
        answer = certify(network, question.box, question.asked, ladder, settings=self.settings, time_limit=seconds)
        if answer.verdict is not Verdict.YES:
            self.open.append(k)
        if answer.verdict is Verdict.NO and answer.witness is not None:
            return self._confirmed(k, answer.witness)
        return None

    def _confirmed(self, k: int, witness: FloatArray) -> QueryResult | None:
        """sat, if the witness, or a point next to it, makes the query true as it is written."""
        question, left = self.questions[k], self._left()
        seconds = None if left is None else max(left, LEAST_CONFIRMING)
        point = confirmed_point(asked_network(self.network, question), question, witness, seconds)
        if point is not None and (not self.query.strict or holds_strictly(self.network, self.query, point, left)):
            return self._sat(point)
        what = "on the edge of strict comparisons" if point is not None else "up to rounding of the file's numbers"
        self.notes.append(f"a point was found that is unsafe only {what}")
        self.edges.add(k)
        return None

    def _sat(self, point: FloatArray) -> QueryResult:
        outputs = np.asarray(self.network.forward(point), dtype=np.float64)
        deployed = None
        if self.file is not None:
            try:
                outputs = deployed_outputs(self.file, point)
                deployed = bool(np.all(np.isfinite(outputs))) and _holds(self.query, point, outputs)
            except (ValueError, ImportError, OSError) as error:
                self.notes.append(f"not checked with onnxruntime: {error}")
        if deployed is None and (dropped := self.network.metadata.get("dropped")):
            self.notes.append(f"Y are the outputs without {dropped}")
        if deployed is False:
            self.notes.append("onnxruntime, in the file's arithmetic, does not find the point unsafe; exactly, it is")
        return self._result(QueryStatus.SAT, True, point, outputs, deployed)

    def _result(
        self,
        status: QueryStatus,
        certified: bool = False,
        witness: FloatArray | None = None,
        outputs: FloatArray | None = None,
        deployed: bool | None = None,
    ) -> QueryResult:
        notes = [*self.notes, *(["strict comparisons are searched as closed ones"] if self.query.strict else [])]
        seconds, decided = time.perf_counter() - self.started, len(self.questions) - len(self.open)
        count = len(self.questions)
        message = "; ".join(dict.fromkeys(notes))
        return QueryResult(status, seconds, self.query, count, decided, certified, witness, outputs, deployed, message)


def asked_network(network: Network, question: VnnlibQuestion) -> Network:
    """The network whose outputs the question's rows are about."""
    own = with_copies(network, question.copies)
    return own if question.input_rows is None else with_input_outputs(own, question.copies)


def holds_strictly(network: Network, query: VnnlibQuery, point: FloatArray, seconds: float | None = None) -> bool:
    """Whether the assertions hold at a point as they are written, exactly; not said of rounded maps, nor of those too
    large for the seconds there are."""
    if any(layer.column_error is not None or layer.bias_error for layer in network.maps):
        return False
    if most_weights(network) > (LARGEST_EXACT if seconds is None else exact_within(seconds)):
        return False
    outputs = exact_margins(network, np.eye(network.output_size), point)
    return query.holds([Fraction(value) for value in point.tolist()], outputs)


def _holds(query: VnnlibQuery, point: FloatArray, outputs: FloatArray) -> bool:
    """Whether the assertions hold at a point with these outputs."""
    exact = [Fraction(value) for value in outputs.tolist()]
    inputs = [Fraction(value) for value in point.tolist()]
    return all(formula.holds(inputs, exact) for formula in query.formulas)


def confirmed_point(
    network: Network, question: VnnlibQuestion, witness: FloatArray, seconds: float | None = None
) -> FloatArray | None:
    """The witness, or the float32 point next to it, if it is shown to be unsafe in real arithmetic; else None.

    Float32 first: there onnxruntime computes at the very same point. Rows with d rounded up must be ≤ 0 by replay with
    rounding against them; where the box has slivers, on all of their width. seconds: about, for each of the two points.
    """
    for point in (_in_float32(question, witness), witness):
        if question.box.contains(point) and is_unsafe_point(network, question, point, seconds):
            return point
    return None


def is_unsafe_point(
    network: Network, question: VnnlibQuestion, point: FloatArray, seconds: float | None = None
) -> bool:
    """Whether some group's rows are all shown to be ≤ 0 at the point, or on the slivers around it."""
    box, sought = question.box, question.confirmed
    whole, objective = without_constants(network, sought.objective)
    largest = LARGEST_EXACT if seconds is None else exact_within(seconds)
    _, proven = replay_margins(whole, objective.rows, point, largest=largest)
    starts = np.flatnonzero(np.diff(sought.groups, prepend=-1))
    groups = np.flatnonzero(np.maximum.reduceat(proven[0], starts) <= 0)
    if not box.slivers.any():
        return bool(groups.size)
    around = Box(np.where(box.slivers, box.lower, point), np.where(box.slivers, box.upper, point))
    for group in groups.tolist():
        rows = np.flatnonzero(sought.groups == group)
        constants = sought.objective.constants
        negated = Property.of(-sought.objective.rows[rows], None if constants is None else -constants[rows])
        found = certify(network, around, negated, ("interval", "dual"), time_limit=seconds)
        if found.verdict is Verdict.YES:
            return True
    return False


def _in_float32(question: VnnlibQuestion, point: FloatArray) -> FloatArray:
    """The point with every coordinate rounded to float32, inwards where that leaves the box; as it was where no float32
    lies in it."""
    low, high = question.box.inner_lower, question.box.inner_upper
    with np.errstate(over="ignore"):
        near = point.astype(np.float32)
        up, down = np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))
    for candidate in (up, down):
        wide = near.astype(np.float64)
        near = np.where((wide < low) | (wide > high), candidate, near)
    wide = near.astype(np.float64)
    return np.where((wide >= low) & (wide <= high), wide, point)
