"""Small HTML for notebooks: what an object shows where a cell ends with it. Every text is escaped, nothing is loaded.

Colours are given both for light and dark notebooks: text takes the notebook's own, bars and chips one seen on both.
"""

from __future__ import annotations

import html
import weakref
from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from toolkit.data.names import printable

CHIPS = {"YES": "#00946f", "NO": "#d55e00", "MAYBE": "#3d8fc4"}  # verdicts, as report.css has them
BAR, AXIS = "#8f8f8f", "currentColor"
NUMBER_BEGINS = tuple("0123456789−-∞")
MOST_ROWS = 60  # of a frame
Cells = Sequence[object]


def escaped(text: object) -> str:
    """Text for HTML: shown as it is, without control characters."""
    return html.escape(printable(text), quote=True)


def html_table(heads: Cells, rows: Iterable[Cells], caption: str = "", raw: bool = False) -> str:
    """A table whose texts are escaped, numbers to the right. raw: cells are HTML already, made by this module."""
    lines = [[str(cell) if raw else escaped(cell) for cell in row] for row in rows]
    first = lines[0] if lines else [""] * len(heads)
    sides = ["right" if cell[:1] in NUMBER_BEGINS else "left" for cell in first]
    head = "".join(_cell("th", side, escaped(one)) for one, side in zip(heads, sides, strict=True))
    body = "".join(
        f"<tr>{''.join(_cell('td', side, cell) for cell, side in zip(line, sides, strict=True))}</tr>" for line in lines
    )
    title = f'<caption style="text-align:left">{escaped(caption)}</caption>' if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(tag: str, side: str, content: str) -> str:
    return f'<{tag} style="text-align:{side}">{content}</{tag}>'


def verdict_chip(verdict: object) -> str:
    """A verdict in its colour."""
    colour = CHIPS.get(str(verdict), BAR)
    return f'<b style="border:1.5px solid {colour};border-radius:4px;padding:0 .4em">{escaped(verdict)}</b>'


def interval_bar(low: float, high: float, view: tuple[float, float], colour: str, told: str) -> str:
    """An interval on the axis that all bars of a table share, as inline SVG, 0 marked. told: for screen readers."""
    left, right = view
    scale = 200.0 / (right - left)

    def place(value: float) -> float:
        return min(200.0, max(0.0, (value - left) * scale))

    start, end, zero = place(low), place(high), place(0.0)
    return (
        f'<svg width="200" height="12" role="img" aria-label="{escaped(told)}">'
        f'<rect x="{start:.1f}" y="3" width="{max(1.5, end - start):.1f}" height="6" fill="{colour}"/>'
        f'<line x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="12" stroke="{AXIS}"/></svg>'
    )


def shown_as(frame: pd.DataFrame, reading: Callable[[pd.DataFrame], str]) -> pd.DataFrame:
    """The frame itself, which a notebook from now on shows as the HTML that `reading` makes of it.

    It stays a plain DataFrame: only this object knows, no copy, slice or pickle of it does. Where `reading` cannot read
    it any more, as its columns were changed in place, it is shown as any other.
    """
    known = weakref.ref(frame)

    def as_html() -> str:
        own = known()
        if own is None:
            return ""
        try:
            return reading(own)
        except (AttributeError, KeyError, ValueError, TypeError, IndexError):
            return str(pd.DataFrame(own)._repr_html_())  # type: ignore[operator]

    object.__setattr__(frame, "_repr_html_", as_html)  # on the object, where IPython looks first
    return frame


def frame_html(frame: pd.DataFrame, caption: str = "") -> str:
    """A frame of texts and numbers as a table, its first MOST_ROWS rows."""
    left = len(frame) - MOST_ROWS
    rows = frame.head(MOST_ROWS).itertuples(index=False, name=None)
    more = f"<p>… and {left} more rows</p>" if left > 0 else ""
    return f'<div style="overflow-x:auto">{html_table(list(frame.columns), rows, caption)}{more}</div>'
