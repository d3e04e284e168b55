"""Tables of images (.csv): which line is the head, which column holds the labels; what may be either is refused."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

from toolkit.data.amounts import DataDomain
from toolkit.data.arguments import shown
from toolkit.data.dataset_parts import DatasetParts
from toolkit.data.own_data import frame_parts

LARGEST_CSV = 1 << 31  # bytes
LABEL = "label"
LIKE_LABEL = ("label", "labels", "target", "targets", "class", "classes")  # what a column of labels may be called
_EMPTY_IS_MISSING: dict[str, Any] = {"keep_default_na": False, "na_values": [""]}  # a class may be named NA


def read_table(file: Path, domain: DataDomain | None, beside: Collection[str] = ()) -> DatasetParts:
    """The images of a .csv; see `own_files.read_own_data`. beside: classes of the other split; see `numbered`.

    Raises ValueError for a line or a column that may be two things: a head of numbers that may be an image, a column
    without a name, one called like a label where the labels are another.
    """
    heads, named = _heads(file)
    label = _label_column(heads)
    frame = _frame(file, heads, named, label)
    parts = frame_parts(frame, label, "the table", beside)
    return DatasetParts(parts.images, parts.labels, domain, parts.class_names)


def table_classes(file: Path) -> Collection[str]:
    """The distinct texts in a table's column of labels."""
    heads, named = _heads(file)
    label = _label_column(heads)
    column = _frame(file, heads, named, label, [heads.index(label)])[label]
    return sorted({str(value) for value in column.dropna()})


def _heads(file: Path) -> tuple[list[str], bool]:
    """The columns' names, and whether the file's first line holds them."""
    if file.stat().st_size > LARGEST_CSV:
        raise ValueError(f"must have at most {LARGEST_CSV} bytes, got {file.stat().st_size}")
    first = [str(value) for value in _parsed(file, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0]]
    if len(first) == 1 and any(mark in first[0] for mark in ";\t|"):
        raise ValueError(f"columns must be separated by commas, got the line {shown(first[0])}")
    numbers = [_is_number(value) for value in first]
    if all(numbers) and len(first) > 2 and first == [str(k) for k in range(len(first))]:
        raise ValueError(
            f"the first line 0,1,…,{len(first) - 1} may be a head or an image; name the columns, or write them without "
            "a head (pandas: to_csv(FILE, index=False, header=False))"
        )
    named = not all(numbers) and (LABEL in first or not all(numbers[1:]) or first[0].strip() == "")
    if not named:
        return [f"column {k}" for k in range(len(first))], False
    for k, name in enumerate(first):
        if name.strip() == "" or name.startswith("Unnamed: "):
            raise ValueError(
                f"column {k} has no name, as the index that pandas writes; leave it out (to_csv(FILE, index=False))"
            )
    return first, True


def _label_column(heads: list[str]) -> str:
    """`label`, else the first. Raises ValueError for another that is called like one."""
    if LABEL in heads:
        return LABEL
    like = next((name for name in heads[1:] if name.strip().lower() in LIKE_LABEL), None)
    if like is not None and heads[0].strip().lower() not in LIKE_LABEL:
        raise ValueError(
            f"labels are read from the column {LABEL!r}, else from the first, {heads[0][:60]!r}; rename {like!r}"
        )
    return heads[0]


def _frame(file: Path, heads: list[str], named: bool, label: str, columns: list[int] | None = None) -> Any:
    import pandas as pd

    with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):  # columns that are left out
        frame = _parsed(
            file, header=None, names=range(len(heads)), skiprows=int(named), dtype={heads.index(label): str},
            index_col=False, usecols=columns, **_EMPTY_IS_MISSING,
            **(_EXACT if pd.__version__.startswith("2.") else {}),
        )  # fmt: skip
    frame.columns = pd.Index([heads[k] for k in range(len(heads)) if columns is None or k in columns])
    return frame


def _parsed(file: Path, **how: Any) -> Any:
    """`pandas.read_csv`, whatever it raises as ValueError."""
    import pandas as pd

    try:
        return pd.read_csv(file, **how)
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"not a table: {str(error).splitlines()[0] if str(error) else 'it is empty'}") from None
    except ValueError as error:
        raise ValueError(f"not a table of numbers: {str(error).splitlines()[0]}") from None


_EXACT: dict[str, Any] = {"float_precision": "round_trip"}  # what pandas does by itself from version 3 on


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
