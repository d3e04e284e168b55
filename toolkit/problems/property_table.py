"""A property as a TOML table, in a file of its own or as a key of a sweep's spec: what must hold, in numbers.

    rows = [[1, -1, 0], [1, 0, -1], [0, 1, -1]]  # C: a coefficient per output of the network
    constants = [0, 0, 0.5]                      # d; zeros if left out
    groups = [0, 0, 1]                           # the group of every row, ascending from 0; each its own if left out

A point is unsafe if all rows c·F + d of some group are ≤ 0 (properties.py). Checked: all of it, in one-line errors that
name the key; numbers that a double cannot hold are refused, not rounded. Whether it fits a network: `as_property`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from toolkit.data.arguments import real_number, shown, whole_number
from toolkit.data.toml_file import LARGEST_SPEC, StrictModel, load_toml
from toolkit.networks.weights import dense_array
from toolkit.problems.properties import Property


def _exact_double(value: object) -> float:
    if isinstance(value, Sequence):  # of one entry, which real_number would take
        raise ValueError(f"every entry must be one number, got {shown(value)}")
    number = real_number("every entry", value)
    if not math.isfinite(number):
        raise ValueError(f"every entry must be finite, got {number}")
    if float(number) != number:
        raise ValueError(f"every entry must be a double, got {number}, the nearest is {float(number)!r}")
    return float(number)


def _group_number(value: object) -> int:
    return whole_number("every group", value, 0, LARGEST_SPEC)


Coefficient = Annotated[float, BeforeValidator(_exact_double)]
GroupNumber = Annotated[int, BeforeValidator(_group_number)]


class PropertyTable(StrictModel):
    """The table's keys. rows: C, (m, outputs), as `Property.of`; constants: d, (m,); groups: (m,).

    Raises pydantic.ValidationError (a ValueError) for numbers that are not finite, rows of different length, and
    constants or groups that do not fit the rows.
    """

    rows: Annotated[tuple[Annotated[tuple[Coefficient, ...], Field(min_length=1)], ...], Field(min_length=1)]
    constants: tuple[Coefficient, ...] | None = None
    groups: tuple[GroupNumber, ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> PropertyTable:
        length = len(self.rows[0])
        for k, row in enumerate(self.rows):
            if len(row) != length:
                raise ValueError(f"rows must be of one length, got rows[0] of {length} and rows[{k}] of {len(row)}")
        for key, values in {"constants": self.constants, "groups": self.groups}.items():
            if values is not None and len(values) != len(self.rows):
                raise ValueError(f"{key} must be one number for each of {len(self.rows)} rows, got {len(values)}")
        self.as_property()  # raises for groups that do not ascend
        return self

    def as_property(self) -> Property:
        """The property these numbers stand for."""
        return Property.of(self.rows, self.constants, self.groups)


def load_property(path: str | Path) -> Property:
    """The property in a TOML file. Raises FileNotFoundError; ValueError in one line: file, key and what is allowed."""
    return load_toml(path, PropertyTable, "property").as_property()


def property_digest(question: Property) -> str:
    """SHA-256 over rows, constants and groups: equal for tables that ask the same, however they are written."""
    rows = dense_array(question.objective.rows) + 0.0  # −0 is 0
    state = hashlib.sha256(f"{rows.shape}".encode())
    state.update(rows.tobytes())
    if question.objective.constants is not None:  # None where all are 0
        state.update((question.objective.constants + 0.0).tobytes())
    state.update(question.groups.tobytes())
    return state.hexdigest()
