"""VNN-LIB queries: what a file says of inputs X and outputs Y, in rationals. Versions 1.0 and 2.0.

1.0: (declare-const X_0 Real) … and assertions. 2.0: (vnnlib-version <2.0>), one (declare-network f (declare-input X Real
[1,4]) (declare-output Y Real [3])), elements X[0,3] in row-major order. A query is satisfiable if some point makes every
assertion true with Y = F(X): a point that is *unsafe*.

Terms are reduced when their bracket closes, so that depth costs no recursion. Source: SMT-LIB 2.6, §3; the VNN-LIB 2.0
standard, chapter 2. Not of the language here: hidden nodes, several networks or tensors, products of variables, !=.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

from toolkit.problems.vnnlib_formulas import Affine, Formula, FormulaError, Term, applied
from toolkit.problems.vnnlib_syntax import QueryText, SimpleBound, Token, is_number, quoted

DEEPEST_FORM = 10_000
MOST_VARIABLES = 10_000_000
IGNORED = ("set-logic", "set-info", "set-option", "check-sat", "get-model", "exit")
DECLARATIONS = ("vnnlib-version", "declare-const", "declare-fun", "declare-network", "declare-input", "declare-output")
REAL = "real"
NUMERIC_TYPES = (REAL, "float16", "float32", "float64", "bfloat16")
_SCALAR = re.compile(r"([XY])_(0|[1-9][0-9]{0,8})")


@dataclass(frozen=True)
class Tensor:
    """A network's input or output as a query declares it; kind: its element type, shape: () for a scalar."""

    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for length in self.shape:
            size *= length
        return size


@dataclass(frozen=True, eq=False)
class VnnlibQuery:
    """What a file asks: is there X with lower ≤ X ≤ upper and all of `formulas`, Y = F(X)?

    version: (1, 0) or (2, 0). network: its name in 2.0, "" in 1.0. lower, upper: of every input the tightest bound that
    an assertion gives by itself, None without one. formulas: the other assertions. strict: whether some comparison is
    strict, which is read as closed.
    """

    version: tuple[int, int]
    network: str
    input: Tensor
    output: Tensor
    lower: list[Fraction | None]
    upper: list[Fraction | None]
    formulas: list[Formula]
    strict: bool

    def holds(self, inputs: Sequence[Fraction], outputs: Sequence[Fraction]) -> bool:
        """Whether every assertion is true at a point, in rational arithmetic; strict comparisons as closed ones."""
        each = zip(self.lower, inputs, self.upper, strict=True)
        inside = all((low is None or low <= x) and (high is None or x <= high) for low, x, high in each)
        return inside and all(formula.holds(inputs, outputs) for formula in self.formulas)


def read_vnnlib(path: str | Path) -> VnnlibQuery:
    """The query in a .vnnlib or .vnnlib.gz file. Raises FileNotFoundError; ValueError that names line and token."""
    return parse_vnnlib(QueryText.read(path))


def parse_vnnlib(text: QueryText | str) -> VnnlibQuery:
    """The query that a text states. Raises ValueError that names line and token."""
    return _Reader(text if isinstance(text, QueryText) else QueryText(text)).query()


@dataclass
class _Form:
    """An open bracket: its first word, and what stands in it so far."""

    head: Token
    terms: list[Term] = field(default_factory=list)
    words: list[Token] = field(default_factory=list)
    tensors: list[tuple[str, Tensor]] = field(default_factory=list)

    @property
    def is_declaration(self) -> bool:
        return self.head.text in DECLARATIONS or self.head.text in IGNORED


class _Reader:
    """One pass over a text. `declared`: in 1.0 how many of X and Y, in 2.0 the two tensors."""

    def __init__(self, text: QueryText) -> None:
        self.text = text
        self.version: tuple[int, int] = (1, 0)
        self.network = ""
        self.counts = {"X": 0, "Y": 0}
        self.tensors: dict[str, tuple[bool, Tensor]] = {}
        self.lower: dict[int, Fraction] = {}
        self.upper: dict[int, Fraction] = {}
        self.formulas: list[Formula] = []
        self.strict = False
        self.began = False

    def query(self) -> VnnlibQuery:
        """Read all of it."""
        forms: list[_Form] = []
        opened: Token | None = None  # a bracket whose head is still to come
        for item in self.text.items():
            if isinstance(item, SimpleBound):
                self._take_bound(item)
            elif opened is not None:
                self._open(forms, item)
                opened = None
            elif item.text == "(":
                opened = item
            elif item.text == ")":
                self._close(forms, item)
            elif not forms:
                self._fail(item, "stands outside of every command")
            else:
                self._word(forms[-1], item)
        return self._finished()

    def _fail(self, token: Token, message: str) -> NoReturn:
        raise self.text.error(token.place, f"{quoted(token.text)} {message}")

    def _open(self, forms: list[_Form], head: Token) -> None:
        if head.text in "()" or head.text[0] in '["':
            self._fail(head, "stands where the name of a command or operator must")
        if len(forms) >= DEEPEST_FORM:
            self._fail(head, f"is nested deeper than {DEEPEST_FORM}")
        inside = forms[-1].head.text if forms else ""
        form = _Form(head)
        if not forms:
            if head.text != "assert" and not form.is_declaration:
                self._fail(head, f"is no command; allowed: assert, {', '.join(DECLARATIONS)}")
        elif head.text == "assert" or (form.is_declaration and inside != "declare-network"):
            self._fail(head, "is a command, and stands inside another")
        elif inside == "declare-network" and head.text not in ("declare-input", "declare-output"):
            self._fail(head, "is not supported in a network: one declare-input and one declare-output are")
        elif forms[-1].is_declaration and inside not in ("declare-network", *IGNORED):
            self._fail(head, f"stands in {quoted(inside)}, which takes words only")
        forms.append(form)

    def _word(self, form: _Form, word: Token) -> None:
        """One more word of the innermost form: kept as it is in declarations, else the term that it stands for."""
        if form.is_declaration:
            form.words.append(word)
        elif word.text[0] == "[":  # the index of the word before
            if not form.words or form.words[-1].text[0] == "[":
                self._fail(word, "is the index of nothing")
            self._settle_name(form, word)
        else:
            self._settle_name(form)
            if is_number(word.text):
                form.terms.append(Affine({}, self.text.number(word)))
            else:
                form.words.append(word)

    def _settle_name(self, form: _Form, index: Token | None = None) -> None:
        """Turn a variable's name, kept until it is clear whether an index follows, into a term."""
        if form.words:
            form.terms.append(Affine({self._variable(form.words.pop(), index and index.text): Fraction(1)}))

    def _variable(self, name: Token, index: str | None) -> int:
        if self.version == (1, 0):
            found = _SCALAR.fullmatch(name.text)
            if found is None or index is not None or int(found[2]) >= self.counts[found[1]]:
                self._fail(name, f"is no variable; declared are {self.counts['X']} of X_i and {self.counts['Y']} of Y_i")
            return int(found[2]) if found[1] == "X" else ~int(found[2])
        if name.text not in self.tensors:
            self._fail(name, f"is no variable; declared are {', '.join(self.tensors) or 'none'}")
        is_input, tensor = self.tensors[name.text]
        place = self._element(name, tensor, self._indices(name, index))
        return place if is_input else ~place

    def _indices(self, name: Token, index: str | None) -> tuple[int, ...]:
        parts = (index or "[]")[1:-1].split(",")
        if parts == [""] or not "".join(parts).strip():
            return ()
        if not all(re.fullmatch(r"\s*[0-9]{1,9}\s*", part) for part in parts):
            self._fail(name, f"has the index {quoted(index or '')}; whole numbers ≥ 0 are allowed, as in [0,3]")
        return tuple(int(part) for part in parts)

    def _element(self, name: Token, tensor: Tensor, indices: tuple[int, ...]) -> int:
        fits = len(indices) == len(tensor.shape) and all(
            i < length for i, length in zip(indices, tensor.shape, strict=True)
        )
        if not fits:
            self._fail(name, f"with index {list(indices)} is no element; its shape is {list(tensor.shape)}")
        place = 0
        for i, length in zip(indices, tensor.shape, strict=True):
            place = place * length + i
        return place

    def _close(self, forms: list[_Form], bracket: Token) -> None:
        if not forms:
            self._fail(bracket, "closes a bracket with nothing in it")
        form = forms.pop()
        if form.is_declaration:
            self._declare(form, forms)
            return
        self._settle_name(form)
        if form.head.text == "assert":
            self._assert(form)
            return
        self.strict |= form.head.text in "<>"
        try:
            forms[-1].terms.append(applied(form.head.text, form.terms))
        except FormulaError as error:
            self._fail(form.head, str(error))

    def _assert(self, form: _Form) -> None:
        if len(form.terms) != 1 or not isinstance(form.terms[0], Formula):
            self._fail(form.head, f"takes one formula, got {len(form.terms)} terms")
        self.began = True
        formula = form.terms[0]
        if len(formula.conjunctions) != 1:
            self.formulas.append(formula)
            return
        others = []
        for one in formula.conjunctions[0]:
            if one.is_bound:
                ((variable, factor),) = one.terms
                self._bound(variable, factor > 0, -one.constant / factor)
            else:
                others.append(one)
        if others:
            self.formulas.append(Formula([tuple(others)]))

    def _take_bound(self, bound: SimpleBound) -> None:
        self.began = True
        self.strict |= bound.relation in "<>"
        variable, value = self._variable(bound.variable, bound.index), self.text.number(bound.number)
        if variable >= 0:
            self._bound(variable, bound.relation[0] == "<", value)
            return
        sides = [Affine({variable: Fraction(1)}), Affine({}, value)]
        formula = applied(bound.relation, sides)
        assert isinstance(formula, Formula)
        self.formulas.append(formula)

    def _bound(self, variable: int, above: bool, value: Fraction) -> None:
        side = self.upper if above else self.lower
        known = side.get(variable)
        if known is None or (value < known if above else value > known):
            side[variable] = value

    def _declare(self, form: _Form, forms: list[_Form]) -> None:
        head, words = form.head, [word.text for word in form.words]
        if head.text in IGNORED:
            return
        if self.began:
            self._fail(head, "must stand before every assertion")
        if head.text == "vnnlib-version":
            self._take_version(head, words)
        elif head.text in ("declare-const", "declare-fun"):
            self._take_scalar(form, words)
        elif head.text == "declare-network":
            self._take_network(form)
        elif not forms:
            self._fail(head, "stands outside of declare-network")
        else:
            is_input = head.text == "declare-input"
            forms[-1].tensors.append((head.text, self._tensor(form, words)))
            if len([name for name, _ in forms[-1].tensors if name == head.text]) > 1:
                self._fail(head, f"comes twice; networks have one {'input' if is_input else 'output'} here")

    def _take_version(self, head: Token, words: list[str]) -> None:
        found = re.fullmatch(r"<([0-9]{1,3})\.([0-9]{1,3})>", words[0]) if len(words) == 1 else None
        if found is None:
            self._fail(head, f"takes one version such as <2.0>, got {quoted(' '.join(words))}")
        if self.counts["X"] or self.counts["Y"] or self.tensors or self.version != (1, 0):
            self._fail(head, "must come first, and once")
        self.version = int(found[1]), int(found[2])
        if self.version not in ((1, 0), (2, 0)):
            self._fail(head, f"{quoted(words[0])} is not supported; allowed: <1.0> and <2.0>")

    def _take_scalar(self, form: _Form, words: list[str]) -> None:
        if self.version != (1, 0):
            self._fail(form.head, "belongs to version 1.0, the file states 2.0")
        found = _SCALAR.fullmatch(words[0]) if len(words) == 2 else None
        if found is None or words[1] != "Real":
            self._fail(form.head, f"takes X_i or Y_i and Real, got {quoted(' '.join(words))}")
        if int(found[2]) != self.counts[found[1]] or self.counts[found[1]] >= MOST_VARIABLES:
            expected = f"{found[1]}_{self.counts[found[1]]}"
            self._fail(form.words[0], f"is declared where {expected} is to follow (at most {MOST_VARIABLES})")
        self.counts[found[1]] += 1

    def _tensor(self, form: _Form, words: list[str]) -> Tensor:
        if len(words) != 3 or words[2][0] != "[":
            self._fail(form.head, f"takes a name, a type and a shape, got {quoted(' '.join(words))}")
        name, kind = words[0], words[1].lower()
        if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) is None:
            self._fail(form.words[0], "is no name; letters, digits and _ are allowed")
        if kind not in NUMERIC_TYPES:
            self._fail(form.words[1], f"is no type supported; allowed: Real, {', '.join(NUMERIC_TYPES[1:])}")
        tensor = Tensor(name, kind, self._indices(form.words[2], words[2]))
        if not 1 <= tensor.size <= MOST_VARIABLES:
            self._fail(form.words[2], f"is no shape; 1 … {MOST_VARIABLES} elements are allowed")
        return tensor

    def _take_network(self, form: _Form) -> None:
        if self.version == (1, 0):
            self._fail(form.head, "belongs to version 2.0; the file must begin with (vnnlib-version <2.0>)")
        if self.tensors:
            self._fail(form.head, "comes twice; queries are about one network here")
        named = dict(form.tensors)
        if len(form.words) != 1 or len(named) != 2 or len({tensor.name for tensor in named.values()}) != 2:
            self._fail(form.head, "takes a name, one declare-input and one declare-output, named differently")
        self.network = form.words[0].text
        self.tensors = {tensor.name: (kind == "declare-input", tensor) for kind, tensor in form.tensors}

    def _finished(self) -> VnnlibQuery:
        if self.version == (1, 0):
            tensors = {True: Tensor("X", REAL, (self.counts["X"],)), False: Tensor("Y", REAL, (self.counts["Y"],))}
        else:
            tensors = dict(self.tensors.values())
        if len(tensors) != 2 or not tensors[True].size or not tensors[False].size:
            raise self.text.error(len(self.text.text), "the file declares no inputs, or no outputs")
        places = range(tensors[True].size)
        lower, upper = ([side.get(i) for i in places] for side in (self.lower, self.upper))
        whole = (self.version, self.network, tensors[True], tensors[False], lower, upper, self.formulas, self.strict)
        return VnnlibQuery(*whole)
