"""Standard streams that take any text: where the terminal's or a pipe's encoding has no ε, a ? stands for it."""

from __future__ import annotations

import os
import sys


def take_any_text() -> None:
    """Replace what a stream's encoding does not have, as Windows' for redirected output, instead of raising; a stream
    that was closed before the start takes what is written and keeps none of it."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
        if encoding not in ("", "utf8") and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
