"""What l,u are worth, from rows of milp_comparison.py: the LP's gap, its verdicts and the MILP's time per chain.

On one network, ε and chain, over the samples: unstable, mean number of unstable neurons; gap, mean m* − LP of the
margin of the closest class, m* by the first solver of EXACT that closed it on any chain; maybe, share of samples that
the LPs of all targets neither certify (all bounds > 0) nor refute (a replayed minimiser at ≤ 0); seconds of the MILP,
shifted geometric mean per solver, those stopped by a limit at what they got; bounds seconds, mean, of l,u themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter
from milp_comparison_report import shifted_mean

from toolkit.report import pipe_table, save_figure
from toolkit.report.styles import OTHER_LOOKS, panel_grid, paper_style, shared_legend
from toolkit.runs.outputs import write_files

EXACT = ("bab", "gurobi", "highs")
SAMPLE = ["network", "eps", "sample"]
CASE = ["network", "eps", "chain"]
SHOWN = {
    "network": "network", "eps": "ε", "chain": "l,u", "samples": "samples", "unstable": "unstable", "gap": "m* − LP",
    "maybe": "MAYBE", "bounds_seconds": "s for l,u", "bab": "bab, s", "gurobi": "Gurobi, s", "highs": "HiGHS, s",
    "stopped": "stopped",
}  # fmt: skip


def write_bounds(rows: pd.DataFrame, out: Path, chains: Sequence[str]) -> pd.DataFrame:
    """Write bounds.csv, bounds.md and bounds.png where every chain was asked; returns the table."""
    table = compare_chains(rows, chains)
    if len(table):
        write_files(out, {"bounds.csv": table, "bounds.md": _markdown(table)}, "%.5g")
        save_figure(draw_bounds(table, chains), out / "bounds")
    return table


def compare_chains(rows: pd.DataFrame, chains: Sequence[str]) -> pd.DataFrame:
    """One line per network, ε and chain, over the samples that every chain was asked about."""
    compact = rows[rows["formulation"] == "compact"]
    complete = compact.groupby(SAMPLE)["chain"].transform("nunique") == len(chains)
    compact = compact[complete]
    found = [_line(own, compact) | dict(zip(CASE, keys, strict=True)) for keys, own in compact.groupby(CASE)]
    if not found:
        return pd.DataFrame(columns=list(SHOWN))
    table = pd.DataFrame(found)
    order = table["chain"].map({name: k for k, name in enumerate(chains)})
    return table.assign(order=order).sort_values(["network", "order"], ignore_index=True)[list(SHOWN)]


def _line(own: pd.DataFrame, compact: pd.DataFrame) -> dict[str, float]:
    """What one chain gives; compact: rows of all chains, for m*, which depends on none."""
    programs, searches = own[own["model"] == "LP"], own[own["model"] == "MILP"]
    programs = programs[programs["solver"] == "highs"]
    closest = searches.groupby("sample")["target"].first()
    first = searches[searches["target"] == searches["sample"].map(closest)]
    relaxed = programs.set_index(["sample", "target"])["bound"]
    exact = least_margins(compact[compact["network"].isin(own["network"]) & compact["eps"].isin(own["eps"])])
    pairs = list(closest.items())
    gaps = [exact.get(pair, np.nan) - relaxed.get(pair, np.nan) for pair in pairs]
    times = {name: shifted_mean(part["cpu_seconds"].dropna()) for name, part in first.groupby("solver")}
    return {
        "samples": programs["sample"].nunique(),
        "unstable": programs.groupby("sample")["unstable"].first().mean(),
        "gap": float(np.nanmean(gaps)) if np.isfinite(gaps).any() else np.nan,
        "maybe": float(np.mean([_maybe(part) for _, part in programs.groupby("sample")])),
        "bounds_seconds": own.groupby("sample")["bounds_seconds"].first().mean(),
        **{name: times.get(name, np.nan) for name in EXACT},
        "stopped": int((first["status"] == "time_limit").sum()),
    }


def least_margins(rows: pd.DataFrame) -> dict[tuple[int, int], float]:
    """m* of (sample, target): what the first of EXACT states that closed it, on whatever l,u."""
    found: dict[tuple[int, int], float] = {}
    for name in reversed(EXACT):
        closed = rows[(rows["model"] == "MILP") & (rows["solver"] == name) & (rows["status"] == "optimal")]
        found |= closed.groupby(["sample", "target"])["bound"].max().to_dict()
    return found


def _maybe(margins: pd.DataFrame) -> bool:
    """Whether LPs with these bounds and replayed minimisers leave a sample open."""
    return bool((margins["bound"] <= 0).any() and (margins["upper"] > 0).all())


def draw_bounds(table: pd.DataFrame, chains: Sequence[str]) -> Figure:
    """LP gap, MAYBE share and HiGHS's and bab's time against the chain, a line per network."""
    measures = (
        ("gap", "m* − LP of the closest class"),
        ("maybe", "samples the LP leaves at MAYBE"),
        ("highs", "HiGHS MILP: CPU s a margin"),
        ("bab", "bab: CPU s a margin"),
    )
    with paper_style():
        figure, panels = panel_grid(len(measures))
        for panel, (column, title) in zip(panels, measures, strict=True):
            for look, (network, own) in zip(OTHER_LOOKS, table.groupby("network", sort=True), strict=False):
                values = own.set_index("chain")[column].reindex(chains)
                panel.plot(range(len(chains)), values, color=look.color, marker=look.marker, markersize=5,
                           label=f"{network}, ε {own['eps'].iloc[0]:g}")  # fmt: skip
            panel.set_title(title)
            panel.set_xticks(range(len(chains)), chains)
            panel.set_xlabel("l,u by")
            if column == "maybe":
                panel.set_ylim(-0.03, 1.03)
                panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            else:
                panel.set_yscale("log")
                panel.yaxis.set_major_formatter("{x:g}")
                panel.yaxis.set_minor_formatter(NullFormatter())
        shared_legend(figure, panels)
    return figure


def _markdown(table: pd.DataFrame) -> str:
    shown = table.rename(columns=SHOWN)
    for name in ("MAYBE",):
        shown[name] = [f"{100 * share:.0f} %" for share in shown[name]]
    numbers = [name for name in shown.columns if shown[name].dtype == np.float64 and name != "ε"]
    for name in numbers:
        shown[name] = ["" if np.isnan(value) else f"{value:.3g}" for value in shown[name]]
    return (
        "# What l,u are worth\n\n![The LP's gap, its verdicts and the MILP's time against l,u](bounds.png)\n\n"
        + pipe_table(shown)
        + "\nUnstable: mean number of neurons whose sign l,u leave open. m* − LP: mean over the samples of the closest "
        "class's margin. MAYBE: samples that the LPs of all targets neither certify nor refute. Seconds of CPU: for "
        "l,u, mean; of that margin's MILP by three solvers, shifted geometric mean, those that a limit stopped (so "
        "many) at what they got.\n"
    )
