"""A reproduced paper table for its readers: cells as texts, the Markdown page, the table of a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich import box
from rich.table import Table

from toolkit.data.names import markup_text
from toolkit.report.formats import pipe_table

if TYPE_CHECKING:
    from toolkit.runs.tables.entries import Absent, Entry


def wide(table: pd.DataFrame, texts: Sequence[str]) -> pd.DataFrame:
    """Rows × columns of the given cell texts, in the table's order, blanks where a row lacks a column."""
    shown = table.assign(text=list(texts)).pivot(index="row", columns="column", values="text").fillna("")
    return shown.loc[table["row"].unique(), table["column"].unique()].reset_index().rename_axis(columns=None)


def error_texts(table: pd.DataFrame) -> list[str]:
    """ours (published), as in `5.82 (5.82)`; an open interval as `4.10 … 4.30`; fewer images as `17.1 [14.8, 19.6]`."""
    last = table.groupby("row")["column"].transform("last") == table["column"]
    texts = []
    for cell, is_last in zip(_cells(table), last, strict=True):
        text = f"{cell['error']:.2f}"
        if is_last and cell["attacked"] < cell["error"]:
            text = f"{cell['attacked']:.2f} … {text}"
        if not math.isnan(cell["ci_low"]):
            text += f" [{cell['ci_low']:.1f}, {cell['ci_high']:.1f}]"
        texts.append(text + (f" ({cell['published']})" if cell["published"] else ""))
    return texts


def _cells(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in cell.items()} for cell in table.to_dict("records")]


def radius_texts(table: pd.DataFrame) -> list[str]:
    """ours (published), as in `68.24 (68.25)`; a method that bounds the radius from both sides as `74.90 … 75.00`.

    That is one which certifies and finds witnesses closer than those of the columns before it.
    """
    before = table.groupby("row")["refuted"].shift().fillna(math.inf)
    texts = []
    for cell, found in zip(_cells(table), table["refuted"] < before, strict=True):
        text = f"{cell['value']:.2f}"
        if cell["certified"] > 0 and found:
            text = f"{cell['certified']:.2f} … {cell['refuted']:.2f}"
        texts.append(text if math.isnan(cell["published"]) else f"{text} ({cell['published']:.2f})")
    return texts


def stages_table(table: pd.DataFrame) -> pd.DataFrame:
    """What each stage was asked and took: images of the column, images asked, verdicts, rungs that settled, seconds."""
    shown = table[table["column"] != "clean"]
    names = ["row", "column", "images", "asked", "yes", "no", "maybe", "settled", "seconds", "slowest"]
    shown = shown[names].rename(columns={"yes": "YES", "no": "NO", "maybe": "MAYBE", "slowest": "slowest, s"})
    return shown.assign(seconds=shown["seconds"].map("{:.3g}".format)).assign(
        **{"slowest, s": shown["slowest, s"].map("{:.2g}".format)}
    )


def markdown_page(entry: Entry, table: pd.DataFrame) -> str:
    """The whole page: what it is, the numbers, the stages, what is absent."""
    errors = entry.kind == "errors"
    texts = error_texts(table) if errors else radius_texts(table)
    how = ERRORS_READING if errors else RADII_READING
    parts = [f"# {entry.title}", f"{entry.source}. {how}", pipe_table(wide(table, texts)).rstrip()]
    notes = [f"- {row.name}: {row.note}" for row in entry.rows if row.note]
    if notes:
        parts.append("\n".join(notes))
    if entry.absent:
        parts += ["Not reproduced:", "\n".join(_absent(row) for row in entry.absent)]
    if errors:
        parts += ["Per stage (seconds of all its images, slowest of one):", pipe_table(stages_table(table)).rstrip()]
    else:
        times = table[["row", "column", "images", "seconds"]].assign(seconds=table["seconds"].map("{:.3g}".format))
        parts += ["Times:", pipe_table(times).rstrip()]
    return "\n\n".join(parts) + "\n"


ERRORS_READING = (
    "Ours (published), % of the test images; `low … high`: attacked … not certified; in square brackets the 95 % "
    "confidence interval of the whole test set's error where fewer images were asked. Columns: clean, misclassified; "
    "attacks, misclassified at a point found; others, not certified."
)
RADII_READING = (
    "Ours (published), mean ε × 10³ over the images; `low … high`: certified … refuted where a method does both."
)


def _absent(row: Absent) -> str:
    return f"- {row.name}: {row.reason}" + (f" Published: {row.shown}." if row.published else "")


def terminal_page(entry: Entry, table: pd.DataFrame) -> Table:
    """The numbers for a terminal."""
    shown = wide(table, error_texts(table) if entry.kind == "errors" else radius_texts(table))
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=markup_text(entry.title), title_justify="left")
    for name in shown.columns:
        grid.add_column(markup_text(name), overflow="fold")
    for line in shown.astype(str).to_numpy().tolist():
        grid.add_row(*map(markup_text, line))
    return grid
