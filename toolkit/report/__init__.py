"""Frames in, files out: tables and figures of margins. Imports neither Pyomo nor torch nor any rung."""

from toolkit.report.distribution import gap_distribution
from toolkit.report.figures import plot_margins, plot_radii, plot_tightness
from toolkit.report.formats import latex_table, markdown_table, pipe_table, terminal_table
from toolkit.report.order import check_order
from toolkit.report.plots import certified_curve, gap_against_unstable, time_per_rung
from toolkit.report.tables import gap_table, margin_table
from toolkit.report.tightness import ratio_curve, tightness_curve
from toolkit.report.write import save_figure, write_report

__all__ = [
    "certified_curve",
    "check_order",
    "gap_against_unstable",
    "gap_distribution",
    "gap_table",
    "latex_table",
    "margin_table",
    "markdown_table",
    "pipe_table",
    "plot_margins",
    "plot_radii",
    "plot_tightness",
    "ratio_curve",
    "save_figure",
    "terminal_table",
    "tightness_curve",
    "time_per_rung",
    "write_report",
]
