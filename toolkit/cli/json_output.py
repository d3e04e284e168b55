"""What `--json` prints: one object on stdout, with the command, the version and stable keys (docs/cli.md)."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

JSON_FORMAT = 1  # raised when a key changes its meaning or goes


def print_json(command: str, content: Mapping[str, object]) -> None:
    """`json_line` on stdout."""
    sys.stdout.write(json_line(command, content) + "\n")


def json_line(command: str, content: Mapping[str, object]) -> str:
    """One line: command, format, relugap's version, then the content."""
    head = {"command": command, "format": JSON_FORMAT, "relugap": version("relugap")}
    return json.dumps(plain({**head, **content}), allow_nan=False)


def plain(value: object) -> Any:
    """A value as JSON holds it: numbers that are not finite are null, arrays lists, enums and paths their texts."""
    if isinstance(value, Enum | Path):
        return str(value)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    raise TypeError(f"no JSON of a {type(value).__name__}")
