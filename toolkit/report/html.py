"""The HTML report of a sweep: one file that needs no network, opened from file:// or a server.

Verdicts, interactive curves (Plotly, embedded), the gap table to sort and filter, every sample with its image, margins
and verdict, where the rows come from. The page's own policy forbids it to load anything. Needs the extra `html`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd
from markupsafe import Markup

from toolkit.data.atomic import write_text
from toolkit.data.names import NORM_TITLES, printable, printable_frame, printable_lines
from toolkit.report.formats import HEADERS, readable
from toolkit.report.html_curves import curve_panels
from toolkit.report.html_samples import SECTION_KEYS, VERDICTS, asked_of, sample_sections, sample_verdicts
from toolkit.report.order import TRUTH_KEYS, check_order, varying_keys
from toolkit.report.tables import gap_table, margin_gaps

if TYPE_CHECKING:
    from toolkit.runs.provenance import RunRecord

PAGE = Path(__file__).with_name("page")
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
    script = plotly_script()
    rows = printable_frame(rows)
    check_order(rows, tolerance)
    gaps = margin_gaps(rows)
    verdicts = sample_verdicts(gaps)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template("report.html").render(
        title=_title(runs),
        style=_embedded("report.css"),
        script=_embedded("report.js"),
        plotly=Markup(script),
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
        runs=[_run(run) for run in runs],
    )
    return write_text(path, text)


def plotly_script() -> str:
    """Plotly's JavaScript as the installed package ships it."""
    import plotly.offline  # the extra `html`; its Python side is not used

    return str(plotly.offline.get_plotlyjs())


def _embedded(name: str) -> Markup:
    return Markup((PAGE / name).read_text(encoding="utf-8"))  # our own files, not a row's text


def _title(runs: Sequence[RunRecord]) -> str:
    names = [str(run["spec"]["name"]) for run in runs if "name" in run.get("spec", {})]
    return printable(names[-1]) if names else "sweep"


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
    """Column heads, and per cell its text and what it is sorted by; texts are those of table.md."""
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
    texts = {"network", "data", "norm", "domain", "l,u by", "rung"}
    columns = [
        {"name": HEADERS.get(name, name).replace("\n", " "), "numeric": name not in texts} for name in shown.columns
    ]
    lines = []
    for k, cells in enumerate(shown.astype(str).to_numpy().tolist()):
        values = [order[name].iloc[k] if name in order else text for name, text in zip(shown, cells, strict=True)]
        keys = ["" if isinstance(value, float) and value != value else str(value) for value in values]
        names = (str(table["network"].iloc[k]), str(table["rung"].iloc[k]))
        lines.append({"cells": list(zip(cells, keys, strict=True)), "network": names[0], "rung": names[1]})
    networks, rungs = (list(dict.fromkeys(line[key] for line in lines)) for key in ("network", "rung"))
    return {"columns": columns, "lines": lines, "networks": networks, "rungs": rungs}


def _run(run: RunRecord) -> dict[str, Any]:
    """One run of provenance.json for the reader: facts, spec, everything."""
    code = run.get("relugap", {})
    changes = " with changes" if code.get("dirty") else ""
    commit = f", commit {str(code['commit'])[:12]}{changes}" if code.get("commit") else ""
    solvers = [
        f"{name} {solver.get('version')}" for name, solver in run.get("solvers", {}).items() if solver.get("usable")
    ]
    execution = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in run.get("execution", {}).items())
    machine = run.get("platform", {})
    facts = {
        "started": run.get("started"),
        "ended": run.get("ended"),
        "outcome": run.get("outcome"),
        "rows": ", ".join(f"{count} {name}" for name, count in run.get("rows", {}).items()),
        "seed": run.get("seed"),
        "relugap": f"{code.get('version')}{commit}",
        "solvers": ", ".join(solvers),
        "execution": execution,
        "machine": ", ".join(str(value) for value in (machine.get("system"), machine.get("machine")) if value),
        "networks": ", ".join(f"{net['name']} ({net['digest'][:12]})" for net in run.get("networks", [])),
    }
    other = {key: value for key, value in run.items() if key != "spec_text"}
    return {
        "id": printable(run.get("run_id", "run")),
        "facts": {key: printable(value) for key, value in facts.items() if value not in (None, "")},
        "spec": printable_lines(run.get("spec_text", "")),
        "record": printable_lines(json.dumps(other, indent=1, ensure_ascii=False)),
    }
