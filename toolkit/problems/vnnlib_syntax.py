"""VNN-LIB files as tokens: the text, read within limits, and the places that errors name.

Both versions are S-expressions, comments run from ; to the end of the line. Files are hostile: the size is limited,
compressed or not, and so are tokens and depth; nothing recurses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from toolkit.data.arguments import file_path
from toolkit.data.compressed import read_bytes
from toolkit.data.names import printable, shortened

LARGEST_QUERY = 512 * 2**20  # bytes of text
LONGEST_TOKEN = 1000  # characters
LARGEST_EXPONENT = 5000  # of a number; more would be a number of many digits in a few characters
NUMBER = r"[-+]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][-+]?+[0-9]++)?+"
BLANK = r"\s*+(?:;[^\n]*+\s*+)*+"
_TOKEN = re.compile(BLANK + r'([()]|\[[^\[\]()";\n]*+\]|"(?:[^"\\\n]|\\.)*+"|[^\s()\[\]";]++)')
_BLANK = re.compile(BLANK)
_NUMBER = re.compile(NUMBER)
_INDEX = r"\s*+(\[[0-9,\s]*+\])?+\s*+(?<=[\s\]])"
_NAME = r"[A-Za-z][A-Za-z0-9_]*+"
_COMPARISON = (
    r"\(\s*+(<=|>=|<|>)\s++(" + _NAME + ")" + _INDEX + "(" + NUMBER + "|" + _NAME + r")\s*+(\[[0-9,\s]*+\])?+\s*+\)"
)
_ASSERTED = re.compile(BLANK + r"\(\s*+assert\s*+" + _COMPARISON + r"\s*+\)")
_INNER = re.compile(BLANK + _COMPARISON)


class Token(NamedTuple):
    """A bracket, word, number, "text" or [index], and where it stands in the text."""

    text: str
    place: int


class Comparison(NamedTuple):
    """(⋈ variable other), other a variable or number: what most of a large file is made of, read at once.

    asserted: whether (assert …) stands around it.
    """

    found: re.Match[str]
    asserted: bool

    @property
    def relation(self) -> str:
        """One of <=, >=, <, >."""
        return self.found[1]

    @property
    def variable(self) -> Token:
        """The left side."""
        return Token(self.found[2], self.found.start(2))

    @property
    def other(self) -> Token:
        """The right side."""
        return Token(self.found[4], self.found.start(4))

    @property
    def indices(self) -> tuple[str | None, str | None]:
        """What stands in [] behind either side, in 2.0; None for nothing."""
        return self.found[3], self.found[5]


class QueryText:
    """The text of one query; name: what errors call it."""

    def __init__(self, text: str, name: str = "query") -> None:
        self.text, self.name = text, name

    @classmethod
    def read(cls, path: str | Path) -> QueryText:
        """A .vnnlib or .vnnlib.gz file. Raises FileNotFoundError, and ValueError for one too large or damaged."""
        source = file_path("path", path)
        if not source.is_file():
            raise FileNotFoundError(f"no VNN-LIB file at {source}")
        try:
            data = read_bytes(source, LARGEST_QUERY)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
        try:
            return cls(data.decode("utf-8-sig"), str(source))
        except UnicodeDecodeError as error:
            raise ValueError(f"{source}: a VNN-LIB file is UTF-8 text, byte {error.start} is not") from None

    def error(self, place: int, message: str) -> ValueError:
        """The error to raise for what stands at `place`: file, line, message."""
        line = self.text.count("\n", 0, place) + 1
        return ValueError(f"{printable(self.name)}, line {line}: {message}")

    def items(self) -> Iterator[Token | Comparison]:
        """The file in order. Plain comparisons come as one item, all else as tokens.

        Raises ValueError for characters that begin no token, and for brackets that do not match.
        """
        text, place, depth = self.text, 0, 0
        while True:
            pattern = _INNER if depth else _ASSERTED
            if found := pattern.match(text, place):
                place = found.end()
                yield Comparison(found, not depth)
                continue
            found = _TOKEN.match(text, place)
            if found is None:
                break
            token, place = Token(found[1], found.start(1)), found.end()
            if len(token.text) > LONGEST_TOKEN:
                raise self.error(token.place, f"a token has at most {LONGEST_TOKEN} characters, got {len(token.text)}")
            depth += (token.text == "(") - (token.text == ")")
            if depth < 0:
                raise self.error(token.place, "')' closes nothing")
            yield token
        blank = _BLANK.match(self.text, place)
        end = place if blank is None else blank.end()
        if end < len(self.text):
            raise self.error(end, f"{quoted(self.text[end : end + 20])} begins no token")
        if depth:
            raise self.error(end, f"the file ends where {depth} ')' are missing")

    def number(self, token: Token) -> Fraction:
        """The rational number that a token is, exactly. Raises ValueError for one of too many digits."""
        mantissa, _, exponent = token.text.lower().partition("e")
        if len(mantissa) > LONGEST_TOKEN or len(exponent) > 6 or abs(int(exponent or 0)) > LARGEST_EXPONENT:
            raise self.error(
                token.place,
                f"numbers have at most {LONGEST_TOKEN} digits and exponents up to {LARGEST_EXPONENT}, "
                f"got {quoted(token.text)}",
            )
        return Fraction(token.text if token.text[-1] != "." and ".e" not in token.text.lower() else _filled(token.text))


def _filled(text: str) -> str:
    """5. and 5.e3 as Python reads them."""
    return re.sub(r"\.(?=$|[eE])", ".0", text)


def is_number(text: str) -> bool:
    """Whether a token is a decimal number in any notation."""
    return _NUMBER.fullmatch(text) is not None


def quoted(text: str) -> str:
    """A token for a message, short and printable."""
    return f"'{shortened(printable(text), 40)}'"
