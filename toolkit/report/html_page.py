"""What all HTML pages have in common: one file that needs no network, its templates, its tables, where rows come from.

The page's own policy forbids it to load anything. Every text is escaped by the templates. Needs the extra `html`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd
from markupsafe import Markup

from toolkit.data.atomic import write_text
from toolkit.data.extras import not_installed
from toolkit.data.names import printable, printable_lines

if TYPE_CHECKING:
    from toolkit.runs.provenance import RunRecord

PAGE = Path(__file__).with_name("page")


def write_page(path: str | Path, template: str, title: str, runs: Sequence[RunRecord], **values: Any) -> Path:
    """Fill a template and write it as one HTML file. runs: the entries of provenance.json."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template(template).render(
        title=title,
        style=_embedded("report.css"),
        script=_embedded("report.js"),
        plotly=Markup(plotly_script()),
        runs=[_run(run) for run in runs],
        **values,
    )
    return write_text(path, text)


def plotly_script() -> str:
    """Plotly's JavaScript as the installed package ships it."""
    try:
        import plotly.offline  # its Python side is not used
    except ImportError:
        raise not_installed("plotly", "the HTML report") from None

    return str(plotly.offline.get_plotlyjs())


def _embedded(name: str) -> Markup:
    return Markup((PAGE / name).read_text(encoding="utf-8"))  # our own files, not a row's text


def run_title(runs: Sequence[RunRecord], other: str = "sweep") -> str:
    """The name that the latest run was given, or another."""
    names = [str(run["spec"]["name"]) for run in runs if "name" in run.get("spec", {})]
    return printable(names[-1]) if names else other


def shown_table(
    shown: pd.DataFrame, order: Mapping[str, pd.Series[Any]], texts: Sequence[str], chosen: Mapping[str, pd.Series[Any]]
) -> dict[str, Any]:
    """A table to sort and filter: heads, per cell its text and what it is sorted by, and what rows are chosen by.

    order: of columns whose text does not say it. texts: columns that are no numbers. chosen: keys by which rows can be
    chosen, each a column of `shown` or another, row by row.
    """
    heads = [str(name) for name in shown.columns]
    columns = [{"name": name.replace("\n", " "), "numeric": name not in texts} for name in heads]
    keys = {key: [str(value) for value in values] for key, values in chosen.items()}
    lines = []
    for k, cells in enumerate(shown.astype(str).to_numpy().tolist()):
        values = [order[name].iloc[k] if name in order else text for name, text in zip(heads, cells, strict=True)]
        sorts = ["" if isinstance(value, float) and value != value else str(value) for value in values]
        lines.append(
            {"cells": list(zip(cells, sorts, strict=True)), "chosen": {key: found[k] for key, found in keys.items()}}
        )
    filters = {key: list(dict.fromkeys(found)) for key, found in keys.items()}
    return {"columns": columns, "lines": lines, "filters": filters}


def run_networks(run: RunRecord) -> list[tuple[str, str]]:
    """Names and digests of a run's networks, which a sweep records one by one and others by name."""
    found: Any = run.get("networks", [])
    if isinstance(found, Mapping):
        return [(str(name), str(digest)) for name, digest in found.items()]
    return [(str(net.get("name", "")), str(net.get("digest", ""))) for net in found if isinstance(net, Mapping)]


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
        "networks": ", ".join(f"{name} ({digest[:12]})" for name, digest in run_networks(run)),
    }
    other = {key: value for key, value in run.items() if key != "spec_text"}
    return {
        "id": printable(run.get("run_id", "run")),
        "facts": {key: printable(value) for key, value in facts.items() if value not in (None, "")},
        "spec": printable_lines(run.get("spec_text", "")),
        "record": printable_lines(json.dumps(other, indent=1, ensure_ascii=False)),
    }
