"""What a VNN-LIB file declares: X_i and Y_i in version 1.0, one network with two tensors in 2.0."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn

from toolkit.problems.vnnlib_formulas import Term
from toolkit.problems.vnnlib_syntax import QueryText, Token, quoted

MOST_VARIABLES = 10_000_000
IGNORED = ("set-logic", "set-info", "set-option", "check-sat", "get-model", "exit")
DECLARATIONS = ("vnnlib-version", "declare-const", "declare-fun", "declare-network", "declare-input", "declare-output")
NO_ARGUMENTS = "()"  # of declare-fun
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


@dataclass
class Form:
    """An open bracket: its first word, and what stands in it so far."""

    head: Token
    terms: list[Term] = field(default_factory=list)
    words: list[Token] = field(default_factory=list)
    tensors: list[tuple[str, Tensor]] = field(default_factory=list)

    @property
    def is_declaration(self) -> bool:
        """Whether it takes words, not terms."""
        return self.head.text in DECLARATIONS or self.head.text in IGNORED


class Declarations:
    """What was declared so far. counts: of X and Y in 1.0; tensors: in 2.0 by name, and whether it is the input."""

    def __init__(self, text: QueryText) -> None:
        self.text = text
        self.version: tuple[int, int] = (1, 0)
        self.network = ""
        self.counts = {"X": 0, "Y": 0}
        self.tensors: dict[str, tuple[bool, Tensor]] = {}

    def fail(self, token: Token, message: str) -> NoReturn:
        """Raise the error about a token."""
        raise self.text.error(token.place, f"{quoted(token.text)} {message}")

    def variable(self, name: Token, index: str | None) -> int:
        """The number of an element: i ≥ 0 of the input, ~j of the output. Raises ValueError."""
        if self.version == (1, 0):
            found = _SCALAR.fullmatch(name.text)
            if found is None or index is not None or int(found[2]) >= self.counts[found[1]]:
                self.fail(name, f"is no variable; declared are {self.counts['X']} of X_i and {self.counts['Y']} of Y_i")
            return int(found[2]) if found[1] == "X" else ~int(found[2])
        if name.text not in self.tensors:
            self.fail(name, f"is no variable; declared are {', '.join(self.tensors) or 'none'}")
        is_input, tensor = self.tensors[name.text]
        place = self._element(name, tensor, self._indices(name, index))
        return place if is_input else ~place

    def _indices(self, name: Token, index: str | None) -> tuple[int, ...]:
        parts = (index or "[]")[1:-1].split(",")
        if parts == [""] or not "".join(parts).strip():
            return ()
        if not all(re.fullmatch(r"\s*[0-9]{1,9}\s*", part) for part in parts):
            self.fail(name, f"has the index {quoted(index or '')}; whole numbers ≥ 0 are allowed, as in [0,3]")
        return tuple(int(part) for part in parts)

    def _element(self, name: Token, tensor: Tensor, indices: tuple[int, ...]) -> int:
        fits = len(indices) == len(tensor.shape) and all(
            i < length for i, length in zip(indices, tensor.shape, strict=True)
        )
        if not fits:
            self.fail(name, f"with index {list(indices)} is no element; its shape is {list(tensor.shape)}")
        place = 0
        for i, length in zip(indices, tensor.shape, strict=True):
            place = place * length + i
        return place

    def take(self, form: Form, forms: list[Form]) -> None:
        """A declaration that ended; forms: the brackets around it. Raises ValueError."""
        head, words = form.head, [word.text for word in form.words]
        if head.text in IGNORED:
            return
        if head.text == "vnnlib-version":
            self._take_version(head, words)
        elif head.text in ("declare-const", "declare-fun"):
            self._take_scalar(form, words)
        elif head.text == "declare-network":
            self._take_network(form)
        elif not forms:
            self.fail(head, "stands outside of declare-network")
        else:
            is_input = head.text == "declare-input"
            forms[-1].tensors.append((head.text, self._tensor(form, words)))
            if len([name for name, _ in forms[-1].tensors if name == head.text]) > 1:
                self.fail(head, f"comes twice; networks have one {'input' if is_input else 'output'} here")

    def _take_version(self, head: Token, words: list[str]) -> None:
        found = re.fullmatch(r"<([0-9]{1,3})\.([0-9]{1,3})>", words[0]) if len(words) == 1 else None
        if found is None:
            self.fail(head, f"takes one version such as <2.0>, got {quoted(' '.join(words))}")
        if self.counts["X"] or self.counts["Y"] or self.tensors or self.version != (1, 0):
            self.fail(head, "must come first, and once")
        self.version = int(found[1]), int(found[2])
        if self.version not in ((1, 0), (2, 0)):
            self.fail(head, f"{quoted(words[0])} is not supported; allowed: <1.0> and <2.0>")

    def _take_scalar(self, form: Form, words: list[str]) -> None:
        if self.version != (1, 0):
            self.fail(form.head, "belongs to version 1.0, the file states 2.0")
        kind = ["Real"] if form.head.text == "declare-const" else [NO_ARGUMENTS, "Real"]
        found = _SCALAR.fullmatch(words[0]) if words[1:] == kind else None
        if found is None:
            self.fail(form.head, f"takes X_i or Y_i and {' '.join(kind)}, got {quoted(' '.join(words))}")
        if int(found[2]) != self.counts[found[1]] or self.counts[found[1]] >= MOST_VARIABLES:
            expected = f"{found[1]}_{self.counts[found[1]]}"
            self.fail(form.words[0], f"is declared where {expected} is to follow (at most {MOST_VARIABLES})")
        self.counts[found[1]] += 1

    def _tensor(self, form: Form, words: list[str]) -> Tensor:
        if len(words) != 3 or words[2][0] != "[":
            self.fail(form.head, f"takes a name, a type and a shape, got {quoted(' '.join(words))}")
        name, kind = words[0], words[1].lower()
        if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) is None:
            self.fail(form.words[0], "is no name; letters, digits and _ are allowed")
        if kind not in NUMERIC_TYPES:
            self.fail(form.words[1], f"is no type supported; allowed: Real, {', '.join(NUMERIC_TYPES[1:])}")
        tensor = Tensor(name, kind, self._indices(form.words[2], words[2]))
        if not 1 <= tensor.size <= MOST_VARIABLES:
            self.fail(form.words[2], f"is no shape; 1 … {MOST_VARIABLES} elements are allowed")
        return tensor

    def _take_network(self, form: Form) -> None:
        if self.version == (1, 0):
            self.fail(form.head, "belongs to version 2.0; the file must begin with (vnnlib-version <2.0>)")
        if self.tensors:
            self.fail(form.head, "comes twice; queries are about one network here")
        named = dict(form.tensors)
        if len(form.words) != 1 or len(named) != 2 or len({tensor.name for tensor in named.values()}) != 2:
            self.fail(form.head, "takes a name, one declare-input and one declare-output, named differently")
        self.network = form.words[0].text
        self.tensors = {tensor.name: (kind == "declare-input", tensor) for kind, tensor in form.tensors}

    def sides(self) -> tuple[Tensor, Tensor]:
        """The input and the output. Raises ValueError where the file declares none."""
        if self.version == (1, 0):
            sides = {True: Tensor("X", REAL, (self.counts["X"],)), False: Tensor("Y", REAL, (self.counts["Y"],))}
        else:
            sides = dict(self.tensors.values())
        if len(sides) != 2 or not sides[True].size or not sides[False].size:
            raise self.text.error(len(self.text.text), "the file declares no inputs, or no outputs")
        return sides[True], sides[False]
