"""The report folder: tables and figures of a sweep, written together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from toolkit.data.arguments import file_path, instance, names, real_number
from toolkit.data.atomic import write_figure
from toolkit.data.names import printable_frame
from toolkit.report.distribution import gap_distribution
from toolkit.report.formats import latex_table, markdown_table
from toolkit.report.order import check_order
from toolkit.report.plots import certified_curve, figure_parts, gap_against_unstable, time_per_rung
from toolkit.report.styles import PRINT_DPI, paper_style
from toolkit.report.tables import gap_table, margin_gaps, margin_table
from toolkit.report.tightness import ratio_curve, tightness_curve
from toolkit.runs.outputs import write_files

FIGURES: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "tightness": tightness_curve,
    "certified": certified_curve,
    "gap_unstable": gap_against_unstable,
    "time": time_per_rung,
}
GAP_FIGURES: dict[str, Callable[[pd.DataFrame], Figure]] = {"ratio": ratio_curve, "gap_distribution": gap_distribution}
AGAINST_EPS = ("tightness", "certified", "ratio")
LARGEST_EPS = 1e100  # on an axis: matplotlib's ticks overflow near the largest double
FORMATS = ("png", "svg", "pdf")


def write_report(
    rows: pd.DataFrame,
    out_dir: str | Path,
    formats: Sequence[str] = ("png",),
    tolerance: float = 1e-6,
    networks: Sequence[str] = (),
) -> list[Path]:
    """Write table.csv, table.md, table.tex, margins.csv and the figures into `out_dir`; returns the paths.

    Figures: tightness, certified, gap_unstable, time and, where an exact rung ran, ratio and gap_distribution. With
    more than MOST_PANELS panels one is several: NAME, NAME-2, …, filled in the order of `networks`, others by name.
    Those against ε are left out, with a warning, where ε is beyond LARGEST_EPS.
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
    parts = figure_parts(gaps, names("networks", networks))
    table = gap_table(gaps)
    texts = {"table.md": markdown_table(table), "table.tex": latex_table(table)}
    written = write_files(out_dir, {"table.csv": table, **texts, "margins.csv": margin_table(gaps)})
    left_out = AGAINST_EPS if float(gaps["eps"].max()) > LARGEST_EPS else ()
    if left_out:
        warnings.warn(f"figures against ε are left out: ε = {float(gaps['eps'].max()):g} fits on no axis", stacklevel=2)
    for name, draw in (FIGURES | (GAP_FIGURES if gaps["exact_ran"].any() else {})).items():
        if name in left_out:
            continue
        for k, part in enumerate(parts, start=1):
            written += save_figure(draw(part), out_dir / (name if k == 1 else f"{name}-{k}"), formats)
    return written


def save_figure(figure: Figure, stem: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Save one figure as stem.FORMAT for every format, PNG at 300 dots an inch."""
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in formats]
    with paper_style():
        for path in paths:
            write_figure(path, figure, dpi=PRINT_DPI, bbox_inches="tight", pad_inches=0.04)
    return paths
