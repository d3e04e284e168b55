"""Rows of a sweep as a notebook shows them: what they are of, and the mean bound of every rung per network and ε."""

from __future__ import annotations

import numpy as np
import pandas as pd

from toolkit.data.notebook import escaped, frame_html
from toolkit.data.summaries import counted, number, span


def rows_html(rows: pd.DataFrame) -> str:
    """A line of facts above a table with a column per rung; a bound that is not finite counts in no mean."""
    rungs = [str(name) for name in dict.fromkeys(rows["rung"])]
    failed = int((rows["status"] == "failed").sum())
    samples = len(rows[["dataset", "sample"]].drop_duplicates())
    eps = span(rows["eps"].to_numpy(dtype=np.float64))
    facts = [counted(len(rows), "row"), counted(samples, "sample"), f"ε {eps}", f"rungs {', '.join(rungs)}"]
    facts.append(f"{failed} failed" if failed else "none failed")
    lower = rows["lower"].where(np.isfinite(rows["lower"]), rows["upper"])
    values = rows.assign(bound=lower.where(np.isfinite(lower)), rung=rows["rung"].astype(str))
    means = values.pivot_table(index=["network", "eps"], columns="rung", values="bound", sort=True)
    means = means.reindex(columns=[name for name in rungs if name in means]).map(_text).reset_index()
    shown = means.rename(columns={"eps": "ε"})
    shown["ε"] = shown["ε"].map(number)
    return f"<div>{escaped(', '.join(facts))}{frame_html(shown, 'mean bound on the margin (logits)')}</div>"


def _text(value: float) -> str:
    return "" if np.isnan(value) else number(value)
