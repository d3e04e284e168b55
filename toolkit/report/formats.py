"""The gap table as a reader sees it: in the terminal, in Markdown, in LaTeX."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from rich import box
from rich.console import Group
from rich.table import Table

from toolkit.data.names import markdown_text, markup_text
from toolkit.report.order import varying_keys

KEY_LABELS = {
    "network": "network",
    "dataset": "data",
    "norm": "norm",
    "domain": "domain",
    "eps": "ε",
    "layer_bounds": "l,u by",
}
ALWAYS_SHOWN = ("network", "eps")
HEADERS = {
    "mean bound": "mean\nbound",
    "m* − bound": "m* −\nbound",
    "ms/margin": "ms per\nmargin",
    "open m*": "open\nm*",
}


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The gap table with short headers and rounded text; keys that never vary within a network
    are left out.

    A gap over margins whose m* is known only as an interval is itself shown as an interval [least, largest].
    """
    keys = [key for key in KEY_LABELS if key in (*ALWAYS_SHOWN, *varying_keys(table))]
    shown = pd.DataFrame({KEY_LABELS[key]: table[key].map(_plain) for key in keys}, index=table.index)
    shown["rung"] = table["rung"].astype(str)
    shown["mean bound"] = table["lower_mean"].fillna(table["upper_mean"]).map(_three)
    shown["m* − bound"] = _interval_or_value(table, "gap_least_mean", "gap_mean")
    shown["tightness"] = table["tightness_mean"].map(_three)
    shown["certified"] = table["certified"].map(_percent).where(table["lower_mean"].notna(), "")
    shown["decided"] = table["decided"].map(_percent)
    shown["ms/margin"] = table["seconds_mean"].map(_milliseconds)
    if table["failed"].any():
        shown["failed"] = table["failed"].map(lambda count: str(count) if count else "")
    if table["open"].any():
        shown["open m*"] = table["open"].map(lambda count: str(count) if count else "")
    return shown


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _three(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}"


def _interval_or_value(table: pd.DataFrame, least: str, largest: str) -> list[str]:
    """The largest value alone where every m* is closed, else the interval."""
    texts = []
    for low, high, open_count in table[[least, largest, "open"]].itertuples(index=False, name=None):
        interval = f"{_three(low)} … {_three(high)}"
        texts.append("" if math.isnan(high) else interval if open_count else _three(high))
    return texts


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _milliseconds(seconds: float) -> str:
    value = 1e3 * seconds
    if math.isnan(value):
        return ""
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def terminal_table(table: pd.DataFrame) -> Group:
    """The gap table for a terminal of 80 columns: one table per network, a rule between blocks of equal ε."""
    shown = readable(table)
    parts = shown.groupby([table["network"], table["network_digest"]], sort=False)
    return Group(*(_network_table(str(name), part.drop(columns="network")) for (name, _), part in parts))


def _network_table(name: str, shown: pd.DataFrame) -> Table:
    keys = [label for label in KEY_LABELS.values() if label in shown.columns]
    grid = Table(
        title=markup_text(name), title_style="bold", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for column in shown.columns:
        left = column in keys or column == "rung"
        grid.add_column(HEADERS.get(column, column), justify="left" if left else "right", no_wrap=column not in keys)
    blocks = shown[keys].apply(tuple, axis=1).tolist()
    for k, row in enumerate(shown.itertuples(index=False, name=None)):
        first = k == 0 or blocks[k] != blocks[k - 1]
        last = k + 1 == len(blocks) or blocks[k] != blocks[k + 1]
        grid.add_row(
            *("" if place < len(keys) and not first else markup_text(text) for place, text in enumerate(row)),
            end_section=last,
        )
    return grid


def markdown_table(table: pd.DataFrame) -> str:
    """The gap table as a Markdown pipe table."""
    shown = readable(table)
    rules = ["---" if name in KEY_LABELS.values() or name == "rung" else "---:" for name in shown.columns]
    return pipe_table(shown, rules=rules)


def pipe_table(frame: pd.DataFrame, digits: int | None = None, rules: Sequence[str] | None = None) -> str:
    """Any frame as a Markdown pipe table. digits: significant ones of floats, None = as str shows them."""

    def text(cell: object) -> str:
        return f"{cell:.{digits}g}" if digits is not None and isinstance(cell, float) else markdown_text(cell)

    lines = [list(frame.columns), rules or ["---"] * frame.shape[1], *frame.itertuples(index=False)]
    return "".join("| " + " | ".join(text(cell) for cell in line) + " |\n" for line in lines)


def latex_table(table: pd.DataFrame) -> str:
    """The gap table as a LaTeX tabular (needs the package booktabs)."""
    shown = readable(table)
    symbols = {
        "ε": r"$\varepsilon$",
        "m* − bound": r"$m^* - \mathrm{bound}$",
        "l,u by": "$l,u$ by",
        "open m*": "open $m^*$",
    }
    styler = shown.style.format(escape="latex").hide(axis="index")
    styler = styler.format_index(lambda name: symbols.get(str(name), str(name)), axis="columns")
    sides = ["l" if name in KEY_LABELS.values() or name == "rung" else "r" for name in shown.columns]
    text = styler.to_latex(hrules=True, column_format="".join(sides))
    return text.replace("…", r"\dots{}").replace("−", "$-$")
