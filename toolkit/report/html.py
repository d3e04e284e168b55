"""The HTML report of a sweep: one file that needs no network, opened from file:// or a server.

Verdicts, interactive curves (Plotly, embedded), the gap table to sort and filter, every sample with its image, margins
and verdict, where the rows come from. The page's own policy forbids it to load anything. Needs the extra `html`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from toolkit.data.names import NORM_TITLES, printable_frame
from toolkit.report.formats import HEADERS, readable
from toolkit.report.html_curves import curve_panels
from toolkit.report.html_page import plotly_script, run_title, shown_table, write_page
from toolkit.report.html_samples import SECTION_KEYS, VERDICTS, asked_of, sample_sections, sample_verdicts
from toolkit.report.order import TRUTH_KEYS, check_order, varying_keys
from toolkit.report.tables import gap_table, margin_gaps

if TYPE_CHECKING:
    from toolkit.runs.provenance import RunRecord

MAX_SAMPLES = 200  # sections on one page; the tables count every sample


def write_html(
    rows: pd.DataFrame,
    path: str | Path,
    runs: Sequence[RunRecord] = (),
    tolerance: float = 1e-6,
    max_samples: int = MAX_SAMPLES,
) -> Path:
    """Write the report of `rows` as one HTML file and return its path.

    runs: the entries of provenance.json. max_samples: how many samples get a section of their own, undecided ones
    first. Images are shown where the data set is on this machine; none is fetched. Raises ValueError, before anything
    is written, for an empty frame, missing columns, or rows that break the order lower ≤ exact ≤ upper beyond
    `tolerance` (named); ModuleNotFoundError without Plotly.
    """
    plotly_script()  # a missing package is told first
    rows = printable_frame(rows)
    check_order(rows, tolerance)
    gaps = margin_gaps(rows)
    verdicts = sample_verdicts(gaps)
    return write_page(
        path,
        "report.html",
        run_title(runs),
        runs,
        facts=_facts(rows, gaps),
        tolerance=f"{tolerance:g}",
        margin_count=len(gaps[TRUTH_KEYS].drop_duplicates()),
        row_count=len(rows),
        verdict_names=VERDICTS,
        verdicts=_verdict_counts(verdicts),
        panels=curve_panels(gaps),
        table=_gap_table(gaps),
        samples=sample_sections(gaps, verdicts, runs, max_samples, asked_of(rows, runs)),
        sample_count=len(verdicts[SECTION_KEYS].drop_duplicates()),
    )


def _facts(rows: pd.DataFrame, gaps: pd.DataFrame) -> list[tuple[str, str]]:
    """What the sweep was, in a line each."""
    grouped = rows.groupby(["network", "network_digest", "dataset"], sort=False)["sample"].nunique().reset_index()
    networks = [
        f"{name} ({count} images of {data})"
        for name, data, count in grouped[["network", "dataset", "sample"]].itertuples(index=False, name=None)
    ]
    radii = sorted({float(eps) for eps in rows["eps"]})
    domains = ", ".join(sorted({str(domain) for domain in rows["domain"]}))
    norms = ", ".join(sorted({NORM_TITLES.get(str(norm), str(norm)) for norm in rows["norm"]}))
    failed = int((rows["status"] == "failed").sum())
    return [
        ("networks", ", ".join(networks)),
        ("rungs", ", ".join(str(name) for name in gaps["rung"].cat.categories)),
        ("ball", f"{norms}, ε = {', '.join(f'{eps:g}' for eps in radii)}; cut by: {domains}"),
        ("l,u by", ", ".join(sorted({str(chain) for chain in rows["layer_bounds"]}))),
        ("rows", f"{len(rows)}, {failed} of them failed" if failed else f"{len(rows)}, none failed"),
    ]


def _verdict_counts(verdicts: pd.DataFrame) -> dict[str, Any]:
    """How many samples got each verdict, per network, ε and whatever else varies."""
    keys = ["network", *varying_keys(verdicts), "eps"]
    lines = []
    for values, part in verdicts.groupby(keys, sort=True):
        counts = part["verdict"].value_counts()
        cells = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
        lines.append((cells, [int(counts.get(name, 0)) for name in VERDICTS]))
    return {"keys": ["ε" if key == "eps" else key.replace("_", " ") for key in keys], "lines": lines}


def _gap_table(gaps: pd.DataFrame) -> dict[str, Any]:
    """The gap table as the page shows it; texts are those of table.md."""
    table = gap_table(gaps)
    shown = readable(table)
    order = {
        "ε": table["eps"],
        "rung": pd.Series(table["rung"].cat.codes),
        "mean bound": table["lower_mean"].fillna(table["upper_mean"]),
        "m* − bound": table["gap_mean"],
        "tightness": table["tightness_mean"],
        "certified": table["certified"].where(table["lower_mean"].notna()),
        "decided": table["decided"],
        "ms/margin": table["seconds_mean"],
        "failed": table["failed"],
        "open m*": table["open"],
    }
    texts = ("network", "data", "norm", "domain", "l,u by", "rung")
    found = shown_table(shown, order, texts, {"network": table["network"], "rung": table["rung"]})
    for column in found["columns"]:
        column["name"] = HEADERS.get(column["name"], column["name"]).replace("\n", " ")
    return found
