"""From a VNN-LIB query to questions: boxes of inputs, each with the property that none of its points is unsafe.

The query's assertions are expanded to an OR of conjunctions. In each of them, bounds on single inputs make the box;
every other inequality is a row of the conjunction. Conjunctions with the same box are the groups of one property:
the query is satisfiable iff for some question some point of its box makes every row of some group ≤ 0.

Rounding: boxes are rational (vnnlib_box.py). Rows are scaled so that their coefficients are floats, or sums of several,
one for each copy of the outputs and inputs, without rounding; a constant that is none is rounded down to *ask* (the
question's unsafe set holds the true one) and up to *confirm* a point (it is held by the true one).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product
from math import gcd, lcm

import numpy as np

from toolkit.arrays import FloatArray, IndexArray
from toolkit.problems.properties import Objective, Property
from toolkit.problems.vnnlib_box import RationalBox, rounded_down, rounded_up
from toolkit.problems.vnnlib_formulas import MOST_CONJUNCTIONS, Conjunction, FormulaError, Inequality
from toolkit.problems.vnnlib_reader import VnnlibQuery

MOST_COPIES = 8  # of outputs and inputs: 400 bits of a coefficient
MOST_NUMBERS = 100_000_000  # in the ends of all boxes, and in the rows of all questions
Interval = tuple[Fraction | None, Fraction | None]
Ends = dict[int, Interval]  # by input


@dataclass(frozen=True, eq=False)
class VnnlibQuestion:
    """Is some point of the box unsafe: are all rows Σ C_p·F + Σ E_p·x̃ + d of some group ≤ 0?

    output_rows: C_1, C_2 …, side by side, shape (m, copies·outputs): one where floats hold all coefficients.
    input_rows: E, shape (m, copies·inputs), None where no row is about inputs. below, above: d rounded down and up.
    groups: of every row, ascending. copies: of outputs and inputs, that the rows are about.
    """

    box: RationalBox
    output_rows: FloatArray = field(repr=False)
    input_rows: FloatArray | None = field(repr=False)
    below: FloatArray = field(repr=False)
    above: FloatArray = field(repr=False)
    groups: IndexArray = field(repr=False)
    copies: int = 1

    @property
    def asked(self) -> Property:
        """The property to be proven; of outputs, followed by inputs where rows are about them."""
        return self._property(self.below)

    @property
    def confirmed(self) -> Property:
        """The property whose violation by a point makes the query true, whatever was rounded."""
        return self._property(self.above)

    def _property(self, constants: FloatArray) -> Property:
        whole = self.output_rows if self.input_rows is None else np.hstack([self.output_rows, self.input_rows])
        return Property(Objective(whole, constants), self.groups)


def vnnlib_questions(query: VnnlibQuery) -> list[VnnlibQuestion]:
    """The questions that make up a query, all of which must be safe; none where its assertions contradict each other.

    Raises ValueError for an input that some conjunction leaves without a bound, for an expansion that is too large, and
    for coefficients that are no floats however scaled.
    """
    base = list(zip(query.lower, query.upper, strict=True))
    if any(low is not None and high is not None and low > high for low, high in base):
        return []
    boxes: dict[tuple[tuple[int, Interval], ...], list[Conjunction]] = {}
    for ends, rows in _conjunctions(query, base):
        boxes.setdefault(tuple(sorted(ends.items())), []).append(rows)
    rows_in_all = sum(len(rows) + 1 for found in boxes.values() for rows in found)
    if max(len(boxes) * len(base), rows_in_all * (query.output.size + 1)) > MOST_NUMBERS:
        raise ValueError(
            f"the query has {len(boxes)} boxes of {len(base)} inputs and {rows_in_all} rows of {query.output.size} "
            f"outputs; at most {MOST_NUMBERS} numbers are allowed"
        )
    return [_question(query, base, dict(ends), found) for ends, found in boxes.items()]


def _conjunctions(query: VnnlibQuery, base: Sequence[Interval]) -> Iterator[tuple[Ends, Conjunction]]:
    """Every conjunction of the whole query: the ends that it tightens, and its rows. Empty boxes are left out."""
    found: list[tuple[Ends, Conjunction]] = [({}, ())]
    for formula in sorted(query.formulas, key=lambda formula: len(formula.conjunctions)):
        parts = [part for every in formula.conjunctions if (part := _split(every, base)) is not None]
        if len(found) * len(parts) > MOST_CONJUNCTIONS:
            raise FormulaError(
                f"the assertions together expand to {len(found) * len(parts)} conjunctions, "
                f"allowed are {MOST_CONJUNCTIONS}"
            )
        if len(parts) == 1 and not parts[0][0]:
            found = [(ends, rows + parts[0][1]) for ends, rows in found]
        else:
            found = [both for one in found for other in parts if (both := _together(one, other)) is not None]
    yield from {(tuple(sorted(ends.items())), rows): (ends, rows) for ends, rows in found}.values()


def _split(every: Conjunction, base: Sequence[Interval]) -> tuple[Ends, Conjunction] | None:
    """A conjunction as ends, cut by the base box, and rows; None where the box is empty."""
    ends: Ends = {}
    for one in every:
        if one.bound is not None:
            variable, above, value = one.bound
            known = ends.get(variable, base[variable])
            cut = _cut(known, (None, value) if above else (value, None))
            if cut is None:
                return None
            if cut is not known:
                ends[variable] = cut
    return ends, tuple(one for one in every if one.bound is None)


def _together(one: tuple[Ends, Conjunction], other: tuple[Ends, Conjunction]) -> tuple[Ends, Conjunction] | None:
    ends = dict(one[0])
    for variable, interval in other[0].items():
        cut = _cut(ends.get(variable, (None, None)), interval)
        if cut is None:
            return None
        ends[variable] = cut
    return ends, tuple(dict.fromkeys(one[1] + other[1]))


def _cut(one: Interval, other: Interval) -> Interval | None:
    """The intersection of two intervals, None if it is empty."""
    low = one[0] if other[0] is None or (one[0] is not None and one[0] >= other[0]) else other[0]
    high = one[1] if other[1] is None or (one[1] is not None and one[1] <= other[1]) else other[1]
    if low is not None and high is not None and low > high:
        return None
    return one if low is one[0] and high is one[1] else (low, high)


def _question(
    query: VnnlibQuery, base: Sequence[Interval], ends: Ends, conjunctions: Sequence[Conjunction]
) -> VnnlibQuestion:
    low, high = [], []
    for i, interval in enumerate(base):
        lower, upper = ends.get(i, interval)
        if lower is None or upper is None:
            side = "lower" if lower is None else "upper"
            raise ValueError(f"input {i} of {query.input.name} has no {side} bound; inputs must lie in a box")
        low.append(lower)
        high.append(upper)
    try:
        box = RationalBox(tuple(low), tuple(high))
        _ = box.lower, box.upper, box.inner_lower, box.inner_upper  # rounded when they are read
    except OverflowError:
        raise ValueError("a bound of an input lies outside the range of double precision") from None
    always = Inequality((), Fraction(0))  # a conjunction without rows is unsafe all over its box
    rows = [(group, row) for group, every in enumerate(conjunctions) for row in (every or (always,))]
    return _assembled(query, box, rows)


def _assembled(query: VnnlibQuery, box: RationalBox, rows: Sequence[tuple[int, Inequality]]) -> VnnlibQuestion:
    scaled = [_scaled(row) for _, row in rows]
    copies = max((len(one) for _, every in scaled for one in every), default=1)
    with_inputs = any(variable >= 0 for _, row in rows for variable, _ in row.terms)
    outputs = np.zeros((len(rows), copies, query.output.size))
    inputs = np.zeros((len(rows), copies if with_inputs else 0, query.input.size))
    ends = np.zeros((2, len(rows)))
    for k, ((_, row), (scale, every)) in enumerate(zip(rows, scaled, strict=True)):
        for (variable, _), one in zip(row.terms, every, strict=True):
            side, place = (outputs, ~variable) if variable < 0 else (inputs, variable)
            side[k, : len(one), place] = one
        ends[:, k] = rounded_down(row.constant * scale), rounded_up(row.constant * scale)
    flat = [side.reshape(len(rows), -1) for side in (outputs, inputs)]
    groups = np.array([group for group, _ in rows])
    return VnnlibQuestion(box, flat[0], flat[1] if with_inputs else None, ends[0], ends[1], groups, copies)


def _near_one(numbers: Sequence[Fraction], scale: Fraction) -> Fraction:
    """The scale halved or doubled until the largest of the numbers is 1 … 2."""
    largest = max(abs(number) for number in numbers) * scale
    halvings = largest.numerator.bit_length() - largest.denominator.bit_length()
    scale /= Fraction(2) ** halvings
    return scale * 2 if largest < Fraction(2) ** halvings else scale


def _floats(number: Fraction, most: int) -> list[float]:
    """At most so many floats whose sum is the number. Raises OverflowError where there are none."""
    found = [float(number)]
    while (rest := number - sum(map(Fraction, found))) and len(found) < most:
        found.append(float(rest))
    if rest:
        raise OverflowError(f"{number} is no sum of {most} floats")
    return found


def _scaled(row: Inequality) -> tuple[Fraction, list[list[float]]]:
    """A positive number, and the floats that sum up to each coefficient times it, if possible one; the largest of them
    and the constant is near 1: of a row only the sign is asked, and rows of one size are compared with the least
    rounding. Raises ValueError for none."""
    factors = [factor for _, factor in row.terms]
    if not factors:
        return Fraction(1), []
    numbers = (*factors, row.constant)
    for most, whole, near in product((1, MOST_COPIES), (False, True), (True, False)):
        scale = Fraction(1)
        if whole:
            scale = Fraction(lcm(*(one.denominator for one in factors)), gcd(*(one.numerator for one in factors)))
        try:
            scale = _near_one(numbers, scale) if near else scale
            found = [_floats(factor * scale, most) for factor in factors]
            rounded_down(row.constant * scale), rounded_up(row.constant * scale)
            return scale, found
        except OverflowError:
            continue
    if max(map(abs, numbers)) > Fraction(sys.float_info.max):
        raise ValueError("a row has a number outside the range of double precision")
    longest = max(factors, key=lambda factor: factor.numerator.bit_length() + factor.denominator.bit_length())
    raise ValueError(
        f"a row with the coefficient {float(longest)!r}, among others, cannot be scaled so that each is a sum of "
        f"{MOST_COPIES} floats, and so be asked without rounding"
    )
