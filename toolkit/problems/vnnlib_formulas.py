"""What VNN-LIB expressions mean, in rationals: affine terms, inequalities, and formulas as an OR of conjunctions.

A variable is a whole number: i ≥ 0 is input i, ~j < 0 is output j. An inequality Σ a_v·v + c ≤ 0 knows whether it is
strict: questions take it as closed, which contains it, and a point that is to meet it must do so strictly. Formulas are
expanded as they are read, to disjunctive normal form; how large that may get is limited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import pairwise

MOST_CONJUNCTIONS = 200_000
LARGEST_BITS = 2**16  # of numerator and denominator
MOST_INEQUALITIES = 5_000_000  # over all conjunctions of one formula


class FormulaError(ValueError):
    """An expression that is not of the language, or not linear, or too large; the reader adds where it stands."""


@dataclass(frozen=True)
class Affine:
    """Σ terms[v]·v + constant."""

    terms: dict[int, Fraction]
    constant: Fraction = Fraction(0)


def _weighted(terms: Sequence[Affine], factors: Sequence[Fraction]) -> Affine:
    """Σ factors[k]·terms[k]."""
    total: dict[int, Fraction] = {}
    constant = Fraction(0)
    for term, factor in zip(terms, factors, strict=True):
        for variable, value in term.terms.items():
            total[variable] = _check_digits(total.get(variable, 0) + factor * value)
        constant = _check_digits(constant + factor * term.constant)
    return Affine({variable: value for variable, value in total.items() if value}, constant)


def _check_digits(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > LARGEST_BITS:
        raise FormulaError(f"makes a number of more than {LARGEST_BITS} bits")
    return value


@dataclass(frozen=True)
class Inequality:
    """Σ terms·v + constant ≤ 0, or < 0; terms: (variable, coefficient ≠ 0), ascending by variable, none twice."""

    terms: tuple[tuple[int, Fraction], ...]
    constant: Fraction
    strict: bool = False

    @cached_property
    def _hash(self) -> int:
        return hash(str(self))  # of text: hash(-1) = hash(-2), and a file could be full of rationals that collide

    def __hash__(self) -> int:
        return self._hash

    def value(self, inputs: Sequence[Fraction], outputs: Sequence[Fraction]) -> Fraction:
        """The left side at a point."""
        total = self.constant
        for variable, factor in self.terms:
            total += factor * (inputs[variable] if variable >= 0 else outputs[~variable])
        return total

    def holds(self, inputs: Sequence[Fraction], outputs: Sequence[Fraction]) -> bool:
        """Whether it is true at a point."""
        value = self.value(inputs, outputs)
        return value < 0 if self.strict else value <= 0

    @cached_property
    def bound(self) -> tuple[int, bool, Fraction] | None:
        """(input, whether it is an upper bound, its value) where it bounds one input and nothing else."""
        if len(self.terms) != 1 or self.terms[0][0] < 0:
            return None
        ((variable, factor),) = self.terms
        return variable, factor > 0, -self.constant / factor


Conjunction = tuple[Inequality, ...]


@dataclass(frozen=True)
class Formula:
    """An OR of conjunctions; none is false, an empty conjunction is true."""

    conjunctions: list[Conjunction] = field(default_factory=list)

    def holds(self, inputs: Sequence[Fraction], outputs: Sequence[Fraction]) -> bool:
        """Its value at a point, in rational arithmetic."""
        return any(all(one.holds(inputs, outputs) for one in every) for every in self.conjunctions)


Term = Affine | Formula


def below(left: Affine, right: Affine, strict: bool = False) -> Formula:
    """left ≤ right, or left < right."""
    difference = _weighted((left, right), (Fraction(1), Fraction(-1)))
    if not difference.terms:
        true = difference.constant < 0 if strict else difference.constant <= 0
        return Formula([()] if true else [])
    return Formula([(Inequality(tuple(sorted(difference.terms.items())), difference.constant, strict),)])


def disjunction(formulas: Sequence[Formula]) -> Formula:
    """The OR of them."""
    every = [one for formula in formulas for one in formula.conjunctions]
    _check_size(len(every), 0)
    return Formula(every)


def conjunction(formulas: Sequence[Formula]) -> Formula:
    """The AND of them, expanded."""
    if not all(formula.conjunctions for formula in formulas):
        return Formula([])
    certain = tuple(one for formula in formulas if len(formula.conjunctions) == 1 for one in formula.conjunctions[0])
    found: list[Conjunction] = [certain]
    for formula in formulas:
        others = formula.conjunctions
        if len(others) == 1:
            continue
        size = sum(map(len, found)) * len(others) + sum(map(len, others)) * len(found)
        _check_size(len(found) * len(others), size)
        # an AND's parts in order of appearance, each once
        found = list(dict.fromkeys(tuple(dict.fromkeys((*one, *other))) for one in found for other in others))
    return Formula(found)


def _check_size(conjunctions: int, inequalities: int) -> None:
    if conjunctions > MOST_CONJUNCTIONS or inequalities > MOST_INEQUALITIES:
        raise FormulaError(
            f"expands to {conjunctions} conjunctions of {inequalities} inequalities, "
            f"allowed are {MOST_CONJUNCTIONS} and {MOST_INEQUALITIES}"
        )


def _sum(terms: Sequence[Affine]) -> Affine:
    return _weighted(terms, [Fraction(1)] * len(terms))


def _difference(terms: Sequence[Affine]) -> Affine:
    first = Fraction(-1 if len(terms) == 1 else 1)
    return _weighted(terms, [first, *[Fraction(-1)] * (len(terms) - 1)])


def _product(terms: Sequence[Affine]) -> Affine:
    factor, variable = Fraction(1), Affine({}, Fraction(1))
    for term in terms:
        if not term.terms:
            factor *= term.constant
            _check_digits(factor)
        elif variable.terms:
            raise FormulaError("multiplies variables by each other; only linear expressions are supported")
        else:
            variable = term
    return _weighted([variable], [factor])


def _quotient(terms: Sequence[Affine]) -> Affine:
    if any(term.terms or not term.constant for term in terms[1:]):
        raise FormulaError("divides by zero or by a variable")
    divisors = [Affine({}, 1 / term.constant) for term in terms[1:]]
    return _product([terms[0], *divisors])


def _chain(pairs: Callable[[Affine, Affine], Formula]) -> Callable[[Sequence[Affine]], Formula]:
    """a ⋈ b ⋈ c means a ⋈ b and b ⋈ c."""

    def chained(terms: Sequence[Affine]) -> Formula:
        if len(terms) < 2:
            raise FormulaError("compares two expressions, got one")
        found = [pairs(left, right) for left, right in pairwise(terms)]
        return found[0] if len(found) == 1 else conjunction(found)

    return chained


def _above(left: Affine, right: Affine) -> Formula:
    return below(right, left)


def _strictly_below(left: Affine, right: Affine) -> Formula:
    return below(left, right, strict=True)


def _strictly_above(left: Affine, right: Affine) -> Formula:
    return below(right, left, strict=True)


def _equal(left: Affine, right: Affine) -> Formula:
    return conjunction([below(left, right), below(right, left)])


ARITHMETIC: dict[str, Callable[[Sequence[Affine]], Affine]] = {
    "+": _sum, "-": _difference, "*": _product, "/": _quotient,
}  # fmt: skip
RELATIONS: dict[str, Callable[[Sequence[Affine]], Formula]] = {
    "<=": _chain(below), "<": _chain(_strictly_below), ">=": _chain(_above), ">": _chain(_strictly_above),
    "=": _chain(_equal), "==": _chain(_equal),
}  # fmt: skip
CONNECTIVES: dict[str, Callable[[Sequence[Formula]], Formula]] = {"and": conjunction, "or": disjunction}


def applied(head: str, terms: Sequence[Term]) -> Term:
    """(head term …). Raises FormulaError for an unknown operator, no term, or terms of the wrong kind."""
    if head in CONNECTIVES:
        return CONNECTIVES[head](_all_of(Formula, head, terms))
    if head not in ARITHMETIC and head not in RELATIONS:
        allowed = ", ".join((*CONNECTIVES, *RELATIONS, *ARITHMETIC))
        raise FormulaError(f"is not supported; allowed: {allowed}")
    affine = _all_of(Affine, head, terms)
    return ARITHMETIC[head](affine) if head in ARITHMETIC else RELATIONS[head](affine)


def _all_of(kind: type, head: str, terms: Iterable[Term]) -> list:  # type: ignore[type-arg]
    found = list(terms)
    if not found:
        raise FormulaError("takes at least one argument")
    if wrong := [term for term in found if not isinstance(term, kind)]:
        wanted = "formulas" if kind is Formula else "numbers and variables"
        raise FormulaError(f"takes {wanted}, got {'a formula' if isinstance(wrong[0], Formula) else 'a number'}")
    return found
