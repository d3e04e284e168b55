"""Names are hostile: one check for those that become paths, and one escape for each medium a name is shown in.

Names of networks, specs, data sets and files come from whoever wrote the file. None of them may choose where a file is
written, colour a verdict, run a formula or a script, or move the reader's cursor. Numbers pass untouched.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

LONGEST_NAME = 100  # of a name that becomes a path
LONGEST_SHOWN = 100  # of a name in a figure, whose size grows with its titles
_SEPARATORS = frozenset('<>:"/\\|?*')  # of paths, drives and streams, or forbidden by Windows
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])( *\..*)?", re.IGNORECASE)
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # control, format (as text direction), surrogates, separators
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

NORM_TITLES = {"linf": "ℓ∞", "l1": "ℓ1", "l2": "ℓ2", "box": "box"}  # of input sets, as tables and options name them
BALL_NORMS = ("linf", "l1", "l2")


def path_name(name: str, what: str) -> str:
    """The name, fit to be one part of a path on every system; what: how messages call it.

    Raises ValueError for a name that is empty, too long, holds a separator or a control character, begins with a dot or
    dash, or is a device of Windows.
    """
    if not name:
        raise ValueError(f"{what} must not be empty")
    if len(name) > LONGEST_NAME or len(name.encode("utf-8", "replace")) > 2 * LONGEST_NAME:
        raise ValueError(f"{what} must have at most {LONGEST_NAME} characters, got {len(name)}")
    if printable(name) != name or _SEPARATORS.intersection(name):
        raise ValueError(
            f"{what} must have no control characters and none of {' '.join(sorted(_SEPARATORS))}, got {name!r}"
        )
    if not name[0].isalnum() or name[-1] in ". ":
        raise ValueError(f"{what} must begin with a letter or digit and not end with a dot or space, got {name!r}")
    if _RESERVED.fullmatch(name):
        raise ValueError(f"{what} must not be a device name of Windows, got {name!r}")
    return name


def printable(text: object) -> str:
    """Text in one line without control characters: ESC sequences, text-direction marks and newlines become spaces."""
    return "".join(" " if unicodedata.category(char) in _HIDDEN else char for char in str(text))


def printable_lines(text: str) -> str:
    """`printable`, line by line."""
    return "\n".join(map(printable, text.splitlines()))


def shortened(text: str, longest: int = LONGEST_SHOWN) -> str:
    """The text, cut with an ellipsis where it is longer."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def markup_text(text: object) -> str:
    """Text for rich's markup: shown as it is, whatever brackets it holds."""
    from rich.markup import escape

    return escape(printable(text))


def plot_text(text: object) -> str:
    """Text for a figure: $ stays a dollar sign instead of starting mathtext."""
    return shortened(printable(text)).replace("$", r"\$")


def plotly_text(text: object) -> str:
    """Text for Plotly, which reads a few HTML tags and %{…} in labels."""
    return shortened(printable(text)).replace("&", "&amp;").replace("<", "&lt;").replace("%{", "% {")


def markdown_text(text: object) -> str:
    """Text for a cell of a Markdown table: no cell ends early, no HTML, code or link begins."""
    plain = printable(text).replace("\\", "\\\\").replace("|", "\\|").replace("`", "\\`")
    return plain.replace("<", "&lt;").replace("](", "]\\(").replace("][", "]\\[")


def csv_text(text: object) -> str:
    """Text for a spreadsheet: what would be read as a formula gets an apostrophe in front, as spreadsheets do."""
    plain = str(text).encode("utf-8", "replace").decode()
    return f"'{plain}" if plain.startswith(_FORMULA) else plain


def printable_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame whose texts are `printable`; numbers stay numbers."""
    return _mapped(frame, printable)


def csv_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame to write as CSV: texts and heads that would be formulas are quoted; numbers stay numbers."""
    return _mapped(frame, csv_text).rename(columns=lambda name: csv_text(name) if isinstance(name, str) else name)


def _mapped(frame: pd.DataFrame, change: Callable[[object], str]) -> pd.DataFrame:
    shown = frame.copy(deep=False)
    for k, dtype in enumerate(frame.dtypes):
        if getattr(dtype, "kind", "O") == "O":  # texts and categories
            values = frame.iloc[:, k].astype(object)
            shown.isetitem(k, [change(value) if isinstance(value, str) else value for value in values])
    return shown
