"""VNN-LIB queries: what a file says of inputs X and outputs Y, in rationals. Versions 1.0 and 2.0.

1.0: (declare-const X_0 Real) … and assertions. 2.0: (vnnlib-version <2.0>), one network, (declare-network f
(declare-input X Real [1,4]) (declare-output Y Real [3])), elements X[0,3] in row-major order. A query is satisfiable
if some point makes every assertion true with Y = F(X): a point that is *unsafe*.

Terms are reduced when their bracket closes, so that depth costs no recursion. Source: SMT-LIB 2.6, §3; the VNN-LIB 2.0
standard, chapter 2. Not of the language here: hidden nodes, several networks or tensors, products of variables, !=.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from toolkit.problems.vnnlib_declarations import DECLARATIONS, IGNORED, NO_ARGUMENTS, Declarations, Form, Tensor
from toolkit.problems.vnnlib_formulas import Affine, Formula, FormulaError, applied, below
from toolkit.problems.vnnlib_syntax import Comparison, QueryText, Token, is_number, quoted

DEEPEST_FORM = 10_000
ONE = Fraction(1)


@dataclass(frozen=True, eq=False)
class VnnlibQuery:
    """What a file asks: is there X with lower ≤ X ≤ upper and all of `formulas`, Y = F(X)?

    version: (1, 0) or (2, 0). network: its name in 2.0, "" in 1.0. lower, upper: of every input the tightest bound that
    an assertion gives by itself, None without one. formulas: the other assertions. strict: whether some comparison is
    strict. open_bounds: (input, whether above) of the bounds that are.
    """

    version: tuple[int, int]
    network: str
    input: Tensor
    output: Tensor
    lower: list[Fraction | None]
    upper: list[Fraction | None]
    formulas: list[Formula]
    strict: bool
    open_bounds: frozenset[tuple[int, bool]] = frozenset()

    def holds(self, inputs: Sequence[Fraction], outputs: Sequence[Fraction]) -> bool:
        """Whether every assertion is true at a point, in rational arithmetic, strict comparisons strictly."""
        each = zip(self.lower, inputs, self.upper, strict=True)
        inside = all((low is None or low <= x) and (high is None or x <= high) for low, x, high in each)
        for i, above in self.open_bounds:
            inside = inside and inputs[i] != (self.upper if above else self.lower)[i]
        return inside and all(formula.holds(inputs, outputs) for formula in self.formulas)


def read_vnnlib(path: str | Path) -> VnnlibQuery:
    """The query in a .vnnlib or .vnnlib.gz file. Raises FileNotFoundError; ValueError that names line and token."""
    return parse_vnnlib(QueryText.read(path))


def parse_vnnlib(text: QueryText | str) -> VnnlibQuery:
    """The query that a text states. Raises ValueError that names line and token."""
    return _Reader(text if isinstance(text, QueryText) else QueryText(text)).query()


class _Reader:
    """One pass over a text: what it declares, and what it asserts."""

    def __init__(self, text: QueryText) -> None:
        self.text = text
        self.declared = Declarations(text)
        self.lower: dict[int, Fraction] = {}
        self.upper: dict[int, Fraction] = {}
        self.formulas: list[Formula] = []
        self.known: dict[str, Formula] = {}
        self.strict = False
        self.open: set[tuple[int, bool]] = set()
        self.began = False

    def query(self) -> VnnlibQuery:
        """Read all of it."""
        forms: list[Form] = []
        opened: Token | None = None  # a bracket whose head is still to come
        for item in self.text.items():
            if isinstance(item, Comparison):
                if opened is not None or (forms and forms[-1].is_declaration):
                    self.declared.fail(item.variable, "stands in a comparison where the name of a command must")
                self._compare(item, forms)
            elif opened is not None and item.text == ")" and forms and forms[-1].head.text == "declare-fun":
                forms[-1].words.append(Token(NO_ARGUMENTS, opened.place))
                opened = None
            elif opened is not None:
                self._open(forms, item)
                opened = None
            elif item.text == "(":
                opened = item
            elif item.text == ")":
                self._close(forms, item)
            elif not forms:
                self.declared.fail(item, "stands outside of every command")
            else:
                self._word(forms[-1], item)
        return self._finished()

    def _open(self, forms: list[Form], head: Token) -> None:
        if head.text in "()" or head.text[0] in '["':
            self.declared.fail(head, "stands where the name of a command or operator must")
        if len(forms) >= DEEPEST_FORM:
            self.declared.fail(head, f"is nested deeper than {DEEPEST_FORM}")
        inside = forms[-1].head.text if forms else ""
        form = Form(head)
        if not forms:
            if head.text != "assert" and not form.is_declaration:
                self.declared.fail(head, f"is no command; allowed: assert, {', '.join(DECLARATIONS)}")
        elif head.text == "assert" or (form.is_declaration and inside != "declare-network"):
            self.declared.fail(head, "is a command, and stands inside another")
        elif inside == "declare-network" and head.text not in ("declare-input", "declare-output"):
            self.declared.fail(head, "is not supported in a network: one declare-input and one declare-output are")
        elif forms[-1].is_declaration and inside not in ("declare-network", *IGNORED):
            self.declared.fail(head, f"stands in {quoted(inside)}, which takes words only")
        if forms and not forms[-1].is_declaration:
            self._settle_name(forms[-1])
        forms.append(form)

    def _word(self, form: Form, word: Token) -> None:
        """One more word of the innermost form: kept as it is in declarations, else the term that it stands for."""
        if form.is_declaration:
            form.words.append(word)
        elif word.text[0] == "[":  # the index of the word before
            if not form.words or form.words[-1].text[0] == "[":
                self.declared.fail(word, "is the index of nothing")
            self._settle_name(form, word)
        else:
            self._settle_name(form)
            if is_number(word.text):
                form.terms.append(Affine({}, self.text.number(word)))
            else:
                form.words.append(word)

    def _settle_name(self, form: Form, index: Token | None = None) -> None:
        """Turn a variable's name, kept until it is clear whether an index follows, into a term."""
        if form.words:
            form.terms.append(
                Affine({self.declared.variable(form.words.pop(), None if index is None else index.text): ONE})
            )

    def _close(self, forms: list[Form], bracket: Token) -> None:
        if not forms:
            self.declared.fail(bracket, "closes a bracket with nothing in it")
        form = forms.pop()
        if form.is_declaration:
            if self.began and form.head.text not in IGNORED:
                self.declared.fail(form.head, "must stand before every assertion")
            self.declared.take(form, forms)
            return
        self._settle_name(form)
        if form.head.text == "assert":
            self._assert(form)
            return
        self.strict |= form.head.text in "<>"
        try:
            forms[-1].terms.append(applied(form.head.text, form.terms))
        except FormulaError as error:
            self.declared.fail(form.head, str(error))

    def _assert(self, form: Form) -> None:
        if len(form.terms) != 1 or not isinstance(form.terms[0], Formula):
            self.declared.fail(form.head, f"takes one formula, got {len(form.terms)} terms")
        self.began = True
        self._take(form.terms[0])

    def _take(self, formula: Formula) -> None:
        """One more assertion; what of it bounds single inputs, for certain, goes to the base box."""
        if len(formula.conjunctions) != 1:
            self.formulas.append(formula)
            return
        others = []
        for one in formula.conjunctions[0]:
            if one.bound is not None:
                self._bound(*one.bound, one.strict)
            else:
                others.append(one)
        if others:
            self.formulas.append(Formula([tuple(others)]))

    def _compare(self, item: Comparison, forms: list[Form]) -> None:
        """A comparison read at once: asserted, or one more term of the innermost form."""
        if item.asserted:
            self.began = True
            self._take(self._comparison(item))
            return
        text = item.found[0]  # large files say the same again and again
        formula = self.known.get(text)
        if formula is None:
            formula = self.known[text] = self._comparison(item)
        form = forms[-1]
        if form.words:
            self._settle_name(form)
        form.terms.append(formula)

    def _comparison(self, item: Comparison) -> Formula:
        self.strict |= item.relation in "<>"
        (index, other_index), other = item.indices, item.other
        left = Affine({self.declared.variable(item.variable, index): ONE})
        if not is_number(other.text):
            right = Affine({self.declared.variable(other, other_index): ONE})
        elif other_index is None:
            right = Affine({}, self.text.number(other))
        else:
            self.declared.fail(other, "is a number and has an index")
        strict = len(item.relation) == 1
        return below(left, right, strict) if item.relation[0] == "<" else below(right, left, strict)

    def _bound(self, variable: int, above: bool, value: Fraction, strict: bool) -> None:
        side = self.upper if above else self.lower
        known = side.get(variable)
        if known is None or (value < known if above else value > known):
            side[variable] = value
            self.open.discard((variable, above))
        if strict and side[variable] == value:
            self.open.add((variable, above))

    def _finished(self) -> VnnlibQuery:
        inputs, outputs = self.declared.sides()
        lower, upper = ([side.get(i) for i in range(inputs.size)] for side in (self.lower, self.upper))
        declared = self.declared
        return VnnlibQuery(
            declared.version,
            declared.network,
            inputs,
            outputs,
            lower,
            upper,
            self.formulas,
            self.strict,
            frozenset(self.open),
        )
