"""The report folder: tables and figures of a sweep, written together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from toolkit.data.arguments import file_path, instance, names, real_number
from toolkit.data.atomic import write_csv, write_figure, write_text
from toolkit.data.names import printable_frame
from toolkit.report.distribution import draw_distribution
from toolkit.report.formats import latex_table, markdown_table
from toolkit.report.order import check_order
from toolkit.report.plots import draw_certified, draw_gap_unstable, draw_times
from toolkit.report.styles import paper_style
from toolkit.report.tables import margin_gaps, side_by_side, summarise
from toolkit.report.tightness import draw_ratio, draw_tightness

FIGURES: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "tightness": draw_tightness,
    "certified": draw_certified,
    "gap_unstable": draw_gap_unstable,
    "time": draw_times,
}
GAP_FIGURES: dict[str, Callable[[pd.DataFrame], Figure]] = {"ratio": draw_ratio, "gap_distribution": draw_distribution}
FORMATS = ("png", "svg", "pdf")


def write_report(
    rows: pd.DataFrame, out_dir: str | Path, formats: Sequence[str] = ("png",), tolerance: float = 1e-6
) -> list[Path]:
    """Write table.csv, table.md, table.tex, margins.csv and the figures into `out_dir`; returns the paths.

    Figures: tightness, certified, gap_unstable, time and, where an exact rung ran, ratio and gap_distribution.
    formats: "png", "svg", "pdf". Raises ValueError, before anything is written, for an empty frame, missing columns,
    an unknown format, or rows that break the order lower ≤ exact ≤ upper beyond `tolerance` (named).
    """
    instance("rows", rows, pd.DataFrame, "of read_rows(folder)")
    formats = names("formats", formats)
    tolerance, out_dir = real_number("tolerance", tolerance, 0), file_path("out_dir", out_dir)
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f"formats must be among {', '.join(FORMATS)}, got {unknown[0]!r}")
    rows = printable_frame(rows)
    check_order(rows, tolerance)
    gaps = margin_gaps(rows)
    table = summarise(gaps)
    out = out_dir
    write_csv(out / "table.csv", table)
    write_text(out / "table.md", markdown_table(table))
    write_text(out / "table.tex", latex_table(table))
    write_csv(out / "margins.csv", side_by_side(gaps))
    written = [out / name for name in ("table.csv", "table.md", "table.tex", "margins.csv")]
    for name, draw in (FIGURES | (GAP_FIGURES if gaps["exact_ran"].any() else {})).items():
        written += save_figure(draw(gaps), out / name, formats)
    return written


def save_figure(figure: Figure, stem: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Save one figure as stem.FORMAT for every format, PNG at 300 dots an inch."""
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in formats]
    with paper_style():
        for path in paths:
            write_figure(path, figure, dpi=300, bbox_inches="tight", pad_inches=0.04)
    return paths
