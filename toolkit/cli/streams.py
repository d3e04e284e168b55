"""Standard streams that take any text: where the terminal's or a pipe's encoding has no ε, a ? stands for it."""

from __future__ import annotations

import sys


def take_any_text() -> None:
    """Replace what a stream's encoding does not have, as Windows' for redirected output, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
        if encoding not in ("", "utf8") and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
