"""Specs are TOML files: one reader, and errors that name the file, the line and the nearest key that is allowed."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from toolkit.data.arguments import file_path
from toolkit.data.names import shortened
from toolkit.data.shipped_specs import SPECS, shipped_spec

LARGEST_SPEC = 10_000_000  # bytes of a spec; the project's own have less than 20,000
LONGEST_INPUT = 200  # characters of a value that a message shows


class StrictModel(BaseModel):
    """The base of every spec: frozen, no unknown keys, and true and false are no numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _no_booleans_for_numbers(cls, content: object) -> object:
        if isinstance(content, Mapping):
            for key, value in content.items():
                field = cls.model_fields.get(str(key))
                if field is not None and field.annotation is not bool and _has_boolean(value):
                    raise ValueError(f"{key} must not be true or false, got {str(value).lower()}")
        return content


def _has_boolean(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(_has_boolean(part) for part in value))


_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class TomlFile:
    """A TOML file as it was read."""

    path: Path
    text: str
    content: Mapping[str, Any]

    def read_as(self, model: type[_Model]) -> _Model:
        """The content as a model. Raises ValueError in one line: file, line, key, value and what is allowed."""
        try:
            return model.model_validate(self.content)
        except ValidationError as error:
            problem = _first_problem(error)
            place, _, _ = _followed(model, problem["loc"])
            raise ValueError(f"{placed(self.path, self.text, place)}: {_in_words(model, problem)}") from None


def spec_path(path: str | Path) -> Path:
    """The path itself; experiments/NAME.toml, as the documentation writes it, is the shipped one where none is here."""
    file = file_path("path", path)
    shipped = shipped_spec(file.name) if file.parent == Path(SPECS) else None
    return shipped if shipped is not None and not file.is_file() else file


def open_toml(path: str | Path, what: str = "spec") -> TomlFile:
    """The TOML file at `path`; what: how messages call it. experiments/NAME.toml: see `spec_path`.

    Raises FileNotFoundError, ValueError saying what is not TOML and in which line, OSError.
    """
    file = spec_path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no {what} file at {file}")
    try:
        content, text = read_toml(file)
    except ValueError as error:
        raise ValueError(f"{file} is not valid TOML: {error}") from None
    return TomlFile(file, text, content)


def load_toml(path: str | Path, model: type[_Model], what: str = "spec") -> _Model:
    """The TOML file at `path` as a model; raises as `open_toml` and `TomlFile.read_as`."""
    return open_toml(path, what).read_as(model)


def validated(model: type[_Model], content: object) -> _Model:
    """A mapping as a model. Raises ValueError in one line: key, value and what is allowed."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ValueError(_in_words(model, _first_problem(error))) from None


def _first_problem(error: ValidationError) -> ErrorDetails:
    """The problem to tell: an unknown key, which says more than the missing one it may stand for, else the first key's;
    of a union's complaints the one that got furthest."""
    found = sorted(error.errors(include_url=False), key=lambda entry: entry["type"] != "extra_forbidden")
    same_key = [entry for entry in found if entry["loc"][:1] == found[0]["loc"][:1]]
    return max(same_key, key=lambda entry: len(entry["loc"]))


def _in_words(model: type[BaseModel], problem: ErrorDetails) -> str:
    place, shown, owner = _followed(model, problem["loc"])
    if problem["type"] == "extra_forbidden" and owner is not None:
        return unknown_key(repr(shown), str(place[-1]), owner.model_fields)
    if problem["type"] == "missing":
        return f"key {shown!r} is missing"
    if problem["type"] == "value_error":
        said = str(problem["ctx"]["error"])
    else:
        message, given = problem["msg"], shortened(repr(problem["input"]), LONGEST_INPUT)
        said = f"{message[:1].lower()}{message[1:]}, got {given}"
    return f"{shown}: {said}" if shown else said


def _followed(
    model: type[BaseModel], loc: Sequence[str | int]
) -> tuple[tuple[str | int, ...], str, type[BaseModel] | None]:
    """The keys of a place, pydantic's names of union members left out; networks[0].source; the last key's model."""
    kind: object = model
    owner: type[BaseModel] | None = None
    keys: list[str | int] = []
    shown = ""
    for part in loc:
        members = _members(kind)
        if len(members) > 1 and isinstance(part, str):  # which member of a union was tried
            kind = next((one for one in members if part.startswith(_name(one))), None)
            continue
        inside = members[0] if members else None
        owner = inside if isinstance(inside, type) and issubclass(inside, BaseModel) else None
        field = owner.model_fields.get(str(part)) if owner else None
        arguments = get_args(inside)
        kind = field.annotation if field else arguments[-1 if isinstance(part, str) else 0] if arguments else None
        keys.append(part)
        name = f"[{part}]" if isinstance(part, int) else shortened(part)
        shown += f".{name}" if shown and isinstance(part, str) else name
    return tuple(keys), shown, owner


def _members(kind: object) -> list[object]:
    """The types of a union that are not None, without their annotations; of anything else itself."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [one for member in get_args(kind) if member is not NoneType for one in _members(member)]
    return [kind]


def _name(kind: object) -> str:
    return str(getattr(get_origin(kind) or kind, "__name__", kind))


def read_toml(path: Path) -> tuple[dict[str, Any], str]:
    """Content and text of a TOML file. Raises ValueError saying what is wrong and in which line, OSError."""
    if path.stat().st_size > LARGEST_SPEC:
        raise ValueError(f"it must have at most {LARGEST_SPEC} bytes, got {path.stat().st_size}")
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
