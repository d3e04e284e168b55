"""The answer to one question, with the intervals, the rungs and the point it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from toolkit.arrays import FloatArray
from toolkit.data.summaries import counted, number, one_line, span
from toolkit.problems.answers import Bound, Verdict
from toolkit.problems.bounds import ReluBounds
from toolkit.verify.certification_html import margins_html
from toolkit.verify.verdict import TOLERANCE, is_safe


@dataclass(frozen=True, eq=False)
class Certification:
    """The answer for one sample, and how it came about.

    margins: per target (of a property: per group) an interval [lower, upper] that holds m*, the best of all rungs;
    certified_lower and certified_upper are what the verdict rests on. label: None where the question was another
    property. decided_by: the rung that settled each margin, "" if none. witness:
    the point that proves NO, of class witness_class. rung_seconds: time spent in each rung, "bounds" for l,u.
    relu_bounds: the last ones used, None when they were not needed. tolerance: what a margin had to exceed. covers_all:
    whether every class but the label was a target; a YES about some says nothing of the others.
    """

    verdict: Verdict
    label: int | None
    margins: tuple[Bound, ...]
    decided_by: tuple[str, ...]
    witness: FloatArray | None = field(repr=False)
    witness_class: int | None
    seconds: float
    rung_seconds: dict[str, float]
    relu_bounds: ReluBounds | None = field(repr=False)
    tolerance: float = TOLERANCE
    covers_all: bool = True

    def __repr__(self) -> str:
        label = "" if self.label is None else f"label {self.label}"
        least = min(self.margins, key=lambda bound: bound.certified_lower)
        margins = f"{counted(len(self.margins), 'margin')}, the least in [{number(least.lower)}, {number(least.upper)}]"
        witness = "" if self.witness is None else f"witness of class {self.witness_class}, {span(self.witness)}"
        by = self.rung and f"by {self.rung}"
        return one_line("Certification", [str(self.verdict), label, margins, by, witness, f"{number(self.seconds)} s"])

    def _repr_html_(self) -> str:
        names, tolerance = self.margin_names, self.tolerance
        return margins_html(self.verdict, self.reason, names, self.margins, self.decided_by, tolerance)

    @property
    def margin_names(self) -> list[str]:
        """What every margin is to: "class 3", or of a property without classes "group 0"."""
        own = enumerate(self.margins)
        return [f"group {k}" if self.label is None else f"class {bound.target}" for k, bound in own]

    @property
    def certified(self) -> bool:
        """Whether every margin is above the tolerance in real arithmetic, rounding included, whatever a solver said."""
        return all(bool(is_safe(bound.certified_lower, self.tolerance)) for bound in self.margins)

    @property
    def trusts_solver(self) -> bool:
        """Whether a YES rests on a MILP solver's word (settings.rigorous = False)."""
        return self.verdict is Verdict.YES and not self.certified

    @property
    def reason(self) -> str:
        """The verdict in one sentence: what was proven, of which classes, or what is missing."""
        least = min(self.margins, key=lambda bound: bound.certified_lower)
        if self.verdict is Verdict.NO:
            worst, by = min(zip(self.margins, self.decided_by, strict=True), key=lambda pair: pair[0].certified_upper)
            who = "the centre itself" if by == "clean" else f"a point of the ball, found by {by},"
            return f"{who} is unsafe; the least margin found {self._of([worst])} is {worst.upper:.6g}"
        if self.verdict is Verdict.YES and self.certified:
            floor = f"> {self.tolerance:g}, the least {least.certified_lower:.6g}"
            return f"every margin{self._scope()} has a certified lower bound {floor}"
        still = [bound for bound in self.margins if not is_safe(bound.certified_lower, self.tolerance)]
        if self.verdict is Verdict.YES:
            return f"{self._of(still, 'for')} that is the MILP solver's word, not certified"
        text = f"neither proven nor refuted {self._of(self._open(), 'for')}"
        close = [bound for bound in self._open() if bound.upper <= 0]
        if close:
            where = f"a point with margin {close[0].upper:.3g} {self._of(close[:1])}"
            text += f"; {where} is no proof, since rounding can explain it"
        return text

    def _scope(self) -> str:
        """Which classes the margins are about, where they are not all but the label; "" where they are."""
        return "" if self.covers_all else f" {self._of(self.margins)} (no other class was asked)"

    def _of(self, bounds: Sequence[Bound], word: str = "to") -> str:
        """Which margins these are: "to class 3, 5", or of a property without classes "of group 0"."""
        if self.label is None:
            places = {id(bound): i for i, bound in enumerate(self.margins)}
            return f"{'of' if word == 'to' else word} group {', '.join(str(places[id(bound)]) for bound in bounds)}"
        return f"{word} class {', '.join(str(bound.target) for bound in bounds)}"

    def _open(self) -> list[Bound]:
        return [bound for bound, name in zip(self.margins, self.decided_by, strict=True) if not name]

    @property
    def rung(self) -> str:
        """The last rung that was needed."""
        order = ["", "clean", *self.rung_seconds]
        return max(self.decided_by, key=order.index)
