"""HTML pages of what is no sweep: the radii of many images, and the scorecard of a benchmark.

Each is one file like report.html: what was asked, curves, a table to sort and filter, where the numbers come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from toolkit.arrays import FloatArray
from toolkit.data.arguments import instance
from toolkit.data.names import NORM_TITLES, plotly_text, printable, printable_frame
from toolkit.data.summaries import counted, number
from toolkit.report.html_curves import SYMBOLS, Trace, axis_of, plot_panel
from toolkit.report.html_page import plotly_script, run_title, shown_table, write_page
from toolkit.report.radii import RADIUS_COLUMNS_DRAWN, check_radius_lines, radius_ends
from toolkit.report.styles import SOLVER_COLOURS, TEXT_GREY, label_of, look_of, on_dark

if TYPE_CHECKING:
    from toolkit.runs.provenance import RunRecord

Summarise = Callable[[pd.DataFrame], pd.DataFrame]
RADII, SCORECARD = "radii.csv", "scorecard.csv"
RADIUS_LINE_COLUMNS = (*RADIUS_COLUMNS_DRAWN, "label", "verdicts", "seconds")
SCORE_COLUMNS = ("benchmark", "onnx", "vnnlib", "timeout", "verdict", "seconds", "certified", "official", "agrees")
NUMBERS = ("certified", "refuted", "seconds", "timeout", "official_seconds", "cpu_seconds")
LARGEST_VIEW = 64 << 20  # bytes of a CSV
DECIDED_WORDS = ("sat", "unsat")
SHORTEST_DRAWN = 0.01  # where the axis of seconds begins


def write_radii_html(lines: pd.DataFrame, path: str | Path, runs: Sequence[RunRecord], summarise: Summarise) -> Path:
    """The robustness distribution of many images as one page: radii.csv's lines, a curve and a row per rung.

    lines: one per (sample, rung), as `measure_distances` gives them; summarise: `distance_table`. Raises ValueError for
    other frames, and ModuleNotFoundError without Plotly.
    """
    plotly_script()
    instance("lines", lines, pd.DataFrame, f"the lines of {RADII}")
    check_radius_lines(lines, RADIUS_LINE_COLUMNS)
    lines = printable_frame(lines)
    details = [run["details"] for run in runs if "norm" in run.get("details", {})]
    plan: Mapping[str, Any] = details[-1] if details else {}
    norm = NORM_TITLES.get(str(plan.get("norm", "")), "the norm asked about")
    rungs = [str(name) for name in dict.fromkeys(lines["rung"])]
    images = counted(int(lines["sample"].nunique()), "image")
    facts = [("images", images), ("distance", norm), ("rungs", ", ".join(rungs))]
    facts += [("data", str(plan["dataset"]))] if "dataset" in plan else []
    table = lines[["sample", "label", "rung", "side", "certified", "refuted", "verdicts", "seconds"]]
    sums = summarise(lines).drop(columns=["verdicts", "open"], errors="ignore")
    return write_page(
        path,
        "view.html",
        run_title(runs, "radii"),
        runs,
        question="How far are images from being misclassified?",
        facts=facts,
        warnings=[],
        totals=_plain(sums, ("rung", "end")),
        totals_title="Per rung: a lower one's radius is what it certified, an attack's the distance it found",
        panels=[plot_panel("", *_radius_curves(lines, norm), f"Share of {images} within a radius, per rung")],
        table=_plain(table, ("rung", "side"), ("rung",)),
        all_title="Radii",
        all_caption="One row per image and rung",
    )


def write_scorecard_html(
    table: pd.DataFrame, path: str | Path, runs: Sequence[RunRecord], summarise: Summarise
) -> Path:
    """The scorecard of a benchmark as one page: totals, decided instances over time, every instance.

    table: scorecard.csv's rows; summarise: `totals`. Raises ValueError for other frames, and ModuleNotFoundError
    without Plotly.
    """
    plotly_script()
    missing = [name for name in SCORE_COLUMNS if name not in instance("table", table, pd.DataFrame)]
    if missing or table.empty:
        raise ValueError(f"a scorecard needs rows with {', '.join(SCORE_COLUMNS)}; {', '.join(missing) or 'none'} lack")
    table = printable_frame(table).reset_index(drop=True)
    table = table.assign(**{name: table[name].fillna("") for name in ("official", "agrees", "verdict", "benchmark")})
    sums = summarise(table if "cpu_seconds" in table else table.assign(cpu_seconds=np.nan))
    decided = table[table["verdict"].isin(DECIDED_WORDS)]
    shown = table[[name for name in (*SCORE_COLUMNS, "official_seconds", "message") if name in table]]
    texts = ("benchmark", "onnx", "vnnlib", "verdict", "official", "agrees", "message")
    told = f"{len(decided)} of {len(table)} instances decided, by seconds"
    return write_page(
        path,
        "view.html",
        run_title(runs, "scorecard"),
        runs,
        question="Which queries are decided?",
        facts=_score_facts(table, decided),
        warnings=_wrong(table),
        totals=_plain(sums, ("benchmark",)),
        totals_title="Verdicts per benchmark",
        panels=[plot_panel("", *_time_curves(table, decided), told)],
        table=_plain(shown, texts, ("benchmark", "verdict")),
        all_title="Instances",
        all_caption="One row per instance",
    )


def _score_facts(table: pd.DataFrame, decided: pd.DataFrame) -> list[tuple[str, str]]:
    return [
        ("instances", str(len(table))),
        ("decided", f"{len(decided)}, {int(decided['certified'].sum())} of them certified"),
        (
            "compared",
            f"{int((table['agrees'] == 'right').sum())} right, {int((table['agrees'] == 'WRONG').sum())} wrong",
        ),
    ]


def _wrong(table: pd.DataFrame) -> list[str]:
    """A sentence per verdict that contradicts the official one."""
    rows = table[table["agrees"] == "WRONG"].itertuples()
    return [
        f"WRONG: {row.benchmark} {row.onnx} {row.vnnlib}: official {row.official}, here {row.verdict}" for row in rows
    ]


def _plain(table: pd.DataFrame, texts: Sequence[str], chosen: Sequence[str] = ()) -> dict[str, Any]:
    """A table sorted by its own values; chosen: columns by whose values rows can be chosen."""
    order = {str(name): table[name] for name in table}
    return shown_table(_texts(table), order, texts, {name: table[name] for name in chosen})


def view_of(folder: Path) -> str | None:
    """The file in a results folder that a page of its own shows, None in a sweep's."""
    return next((name for name in (RADII, SCORECARD) if (folder / name).is_file()), None)


def read_view(path: Path) -> pd.DataFrame:
    """The table in such a file. Raises ValueError, naming it, for one that is too large or no table of numbers."""
    if path.stat().st_size > LARGEST_VIEW:
        raise ValueError(f"{path.name} must have at most {LARGEST_VIEW >> 20} MiB, got {path.stat().st_size} bytes")
    try:
        frame = pd.read_csv(path)
        numbers = [name for name in NUMBERS if name in frame]
        return frame.assign(**{name: pd.to_numeric(frame[name]).astype(np.float64) for name in numbers})
    except (ValueError, TypeError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path.name} is no table of {path.stem}: {printable(reason)}") from error


def _radius_curves(lines: pd.DataFrame, norm: str) -> tuple[list[Trace], dict[str, Any]]:
    """Steps of the share of images with radius ≤ ε, both ends of an exact rung."""
    traces, ends = [], radius_ends(lines)
    for name, (low, high) in ends.items():
        look, exact = look_of(name, list(ends)), high is not low
        for told, radii in ((", certified", low), (", refuted", high)) if exact else (("", low),):
            finite = radii[np.isfinite(radii)]
            x = np.concatenate([[0.0], finite])
            y = np.concatenate([[0.0], np.arange(1, finite.size + 1) / radii.size])
            label, symbol = label_of(name), SYMBOLS[look.marker]
            traces.append(_steps(name, label, label + told, look.color, symbol, x, y, exact))
    axes = {
        "xaxis": axis_of(f"ε in {norm}", "y", rangemode="tozero"),
        "yaxis": axis_of("share of images with radius ≤ ε", "x", range=[0, 1.03], tickformat=".0%"),
    }
    return traces, axes


def _time_curves(table: pd.DataFrame, decided: pd.DataFrame) -> tuple[list[Trace], dict[str, Any]]:
    """How many instances were decided within so many seconds each: here, and by the fastest official tool."""
    curves = [("here", "here", SOLVER_COLOURS["bab"], "circle", decided["seconds"])]
    if "official_seconds" in table:
        theirs = table.loc[table["official"].isin(DECIDED_WORDS), "official_seconds"].dropna()
        curves.append(("official", "fastest official tool", TEXT_GREY, "square", theirs))
    traces = []
    for group, name, colour, symbol, seconds in curves:
        times = np.maximum(np.sort(seconds.to_numpy(dtype=np.float64)), SHORTEST_DRAWN)
        count = np.arange(1, times.size + 1, dtype=np.float64)
        traces.append(_steps(group, name, name, colour, symbol, times, count, group != "here"))
    axes = {
        "xaxis": axis_of("seconds an instance", "y", type="log"),
        "yaxis": axis_of("instances decided", "x", rangemode="tozero"),
    }
    return traces, axes


def _steps(
    group: str, name: str, told: str, colour: str, symbol: str, x: FloatArray, y: FloatArray, dashed: bool
) -> Trace:
    return {
        "type": "scatter", "mode": "lines", "name": plotly_text(name), "legendgroup": group, "xaxis": "x", "yaxis": "y",
        "x": x.tolist(), "y": y.tolist(), "meta": {"name": name, "light": colour, "dark": on_dark(colour)},
        "line": {"color": colour, "width": 2, "shape": "hv", "dash": "dash" if dashed else "solid"},
        "marker": {"symbol": symbol, "color": colour},
        "hovertemplate": f"{plotly_text(told)}: %{{y:.4g}}<extra></extra>",
    }  # fmt: skip


def _texts(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers to four digits, what is missing as nothing."""

    def text(value: object) -> str:
        if isinstance(value, float | np.floating):
            return "" if np.isnan(value) else number(float(value))
        return str(value)

    return pd.DataFrame({name: [text(value) for value in frame[name]] for name in frame.columns}, index=frame.index)
