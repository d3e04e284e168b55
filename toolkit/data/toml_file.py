"""Specs are TOML files: one reader, and errors that name the file, the line and the nearest key that is allowed."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

LARGEST = 10_000_000  # bytes of a spec; the project's own have less than 20,000


class StrictModel(BaseModel):
    """The base of every spec: frozen, no unknown keys, and true and false are no numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _no_booleans_for_numbers(cls, content: Any) -> Any:
        if isinstance(content, Mapping):
            for key, value in content.items():
                field = cls.model_fields.get(str(key))
                if field is not None and field.annotation is not bool and _has_boolean(value):
                    raise ValueError(f"{key} must not be true or false, got {str(value).lower()}")
        return content


def _has_boolean(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(_has_boolean(part) for part in value))


def read_toml(path: Path) -> tuple[dict[str, Any], str]:
    """Content and text of a TOML file. Raises ValueError saying what is wrong and in which line, OSError."""
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it must have at most {LARGEST} bytes, got {path.stat().st_size}")
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        return tomllib.loads(text), text
    except tomllib.TOMLDecodeError as error:
        last = text.rstrip("\n").count("\n") + 1
        raise ValueError(str(error).replace("end of document", f"end of document, line {last}")) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def placed(path: Path, text: str, place: Sequence[str | int]) -> str:
    """The file, and the line of a key where it can be told: "spec.toml, line 7"."""
    line = line_of(text, place)
    return str(path) if line is None else f"{path}: line {line}"


def line_of(text: str, place: Sequence[str | int]) -> int | None:
    """The line, from 1, where the key at `place` is set: ("networks", 1, "eps") in the second [[networks]].

    None where it is written in a way that a look at the lines does not find, such as inside an inline table.
    """
    lines, start = text.split("\n"), 0
    parts = [part for part in place if isinstance(part, int) or part.isidentifier() or "-" in part]
    while parts and isinstance(parts[0], str):
        name, index = parts[0], parts[1] if len(parts) > 1 and isinstance(parts[1], int) else None
        heads = [k for k in range(start, len(lines)) if re.match(rf"\s*\[\[?\s*{re.escape(name)}\s*\]", lines[k])]
        if not heads or (index is not None and index >= len(heads)):
            break
        start, parts = heads[index or 0], parts[2 if index is not None else 1 :]
        if not parts:
            return start + 1
    key = next((part for part in parts if isinstance(part, str)), None)
    if key is None:
        return start + 1 if start else None
    for k in range(start, len(lines)):
        if k > start and re.match(r"\s*\[\[?\s*[A-Za-z\"']", lines[k]):
            break
        if re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", lines[k]):
            return k + 1
    return None


def unknown_key(key: str, name: str, allowed: Iterable[str]) -> str:
    """What is said of an unknown key `name`, shown as `key`: what is allowed, and what may have been meant."""
    known = list(allowed)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown key {key}; allowed: {', '.join(known)}{hint}"
