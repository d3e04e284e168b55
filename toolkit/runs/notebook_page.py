"""A live display in a notebook: one output under the cell, replaced as the work goes on. Needs no widgets."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console, RenderableType

PAGE_COLUMNS = 100
CODE = '<pre style="font-family:ui-monospace,monospace;line-height:1.3;margin:0">{code}</pre>'


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel, which shows HTML."""
    return Console(stderr=True).is_jupyter


def as_html(shown: RenderableType) -> str:
    """What rich would print, as HTML; texts are escaped by rich."""
    console = Console(file=io.StringIO(), record=True, width=PAGE_COLUMNS, force_jupyter=False, force_terminal=True)
    console.print(shown)
    return console.export_html(inline_styles=True, code_format=CODE)


class NotebookPage:
    """An output of the cell that is running."""

    def __init__(self) -> None:
        from IPython import display  # there, since a kernel runs

        self._display: Any = display
        self._handle: Any = None

    def show(self, shown: RenderableType) -> None:
        """Replace what the output shows."""
        page = self._display.HTML(as_html(shown))
        if self._handle is None:
            self._handle = self._display.display(page, display_id=True)
        else:
            self._handle.update(page)
