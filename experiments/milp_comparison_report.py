"""What milp_comparison.py shows of its rows: the table per solver and formulation, what it says, and the profiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from toolkit.report import save_figure
from toolkit.report.styles import SOLVER_COLOURS, TEXT_GREY, panel_grid, paper_style
from toolkit.runs.outputs import write_files

METHOD = ["model", "formulation", "solver"]
MARGIN = ["network", "eps", "sample", "chain", "target"]
SHIFT = 0.01  # seconds, of the shifted geometric mean: keeps solves of milliseconds from deciding
MARKERS = {"bab": "o", "gurobi": "^", "highs": "s", "scip": "D"}
SHOWN = {
    "group": "networks", "formulation": "formulation", "solver": "solver", "margins": "margins", "solved": "solved",
    "time_limit": "time limit", "licence": "licence", "failed": "failed", "seconds": "s a margin", "ratio": "× HiGHS",
    "root_gap": "root gap", "nodes": "nodes", "difference": "difference", "beyond": "beyond m*",
    "variables": "variables", "constraints": "rows", "trust": "bound",
}  # fmt: skip


def write_tables(rows: pd.DataFrame, out: Path, gap: float, skipped: Mapping[str, str]) -> pd.DataFrame:
    """Write table.csv, table.md and profile.png; returns the table."""
    table = summarize(rows, gap)
    write_files(out, {"table.csv": table, "table.md": markdown(table, rows, gap, skipped)}, "%.5g")
    save_figure(draw_profiles(rows), out / "profile")
    return table


def shifted_mean(seconds: pd.Series) -> float:
    """exp(mean(log(t + SHIFT))) − SHIFT."""
    return float(np.exp(np.log(seconds + SHIFT).mean()) - SHIFT)


def with_reference(rows: pd.DataFrame) -> pd.DataFrame:
    """Every row with the reference of its margin and model: bound and CPU time of HiGHS compact, and bab's interval.

    difference is taken from the bab bound for a MILP (certified) and from HiGHS's compact LP (checked by its duals).
    """
    keys = [*MARGIN, "model"]
    first = rows[(rows["solver"] == "highs") & (rows["formulation"] == "compact")].set_index(keys)
    tree = rows[rows["solver"] == "bab"].set_index(keys)
    solved = rows["status"] == "optimal"
    joined = rows.join(first["cpu_seconds"].rename("highs_seconds"), on=keys)
    joined = joined.join(first.loc[first["status"] == "optimal", "bound"].rename("highs_bound"), on=keys)
    joined = joined.join(tree.loc[tree["status"] == "optimal", "bound"].rename("tree_bound"), on=keys)
    programs = first[first.index.get_level_values("model") == "LP"].droplevel("model")
    joined = joined.join(programs["bound"].rename("relaxed_bound"), on=MARGIN)
    least = rows.groupby(keys)["upper"].min().rename("least_upper")
    joined = joined.join(least, on=keys)
    reference = joined["tree_bound"].where(joined["model"] == "MILP", joined["highs_bound"])
    joined["difference"] = (joined["bound"] - reference).abs().where(solved)
    joined["root_gap"] = (joined["tree_bound"] - joined["relaxed_bound"]).where(joined["model"] == "MILP")
    joined["beyond"] = (joined["bound"] - joined["least_upper"]).where(joined["model"] == "MILP")
    joined["group"] = np.where(joined["network"].str.contains("digits|mnist5k"), "zoo", joined["network"])
    return joined


def summarize(rows: pd.DataFrame, gap: float) -> pd.DataFrame:
    """One row per group of networks, model, formulation and solver.

    seconds: shifted geometric mean of CPU time over the margins that were taken on, those stopped by a limit at the
    time they were given; ratio: to HiGHS compact over the same margins. root_gap: mean m* − LP. nodes: mean over
    solved margins. difference: largest distance of a solved bound from the reference, beyond: largest excess over the
    least margin at any point found (≤ 0: none), both in units of the gap.
    """
    found = []
    for keys, part in with_reference(rows).groupby(["group", *METHOD], sort=False):
        taken, status = part[part["cpu_seconds"].notna()], part["status"]
        solved = part[status == "optimal"]
        known = ("optimal", "time_limit", "licence")
        both = taken[taken["highs_seconds"].notna()]
        seconds = shifted_mean(taken["cpu_seconds"]) if len(taken) else np.nan
        ratio = shifted_mean(both["cpu_seconds"]) / shifted_mean(both["highs_seconds"]) if len(both) else np.nan
        found.append(
            dict(zip(["group", *METHOD], keys, strict=True))
            | {"margins": len(part), "solved": len(solved)}
            | {name: int((status == name).sum()) for name in known[1:]}
            | {"failed": int((~status.isin(known)).sum()), "seconds": seconds, "ratio": ratio}
            | {"root_gap": part["root_gap"].mean(), "nodes": solved["nodes"].mean()}
            | {"difference": solved["difference"].max() / gap}
            | {"beyond": part["beyond"].max() / gap, "variables": part["variables"].mean()}
            | {"constraints": part["constraints"].mean(), "build_seconds": part["build_seconds"].mean()}
            | {"trust": ", ".join(sorted(set(taken["trust"].dropna())))}
        )
    return pd.DataFrame(found).sort_values(["group", "model", "formulation", "solver"], key=_order, ignore_index=True)


def _order(column: pd.Series) -> pd.Series:
    return (column != "zoo").astype(str) + column if column.name == "group" else column


def profile(seconds: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Performance profiles: per method, ratios τ ≥ 1 ascending and the share of instances solved within τ × the best.

    ρ_s(τ) = |{p : t_ps ≤ τ·min_s t_ps}| / |P|. seconds: instances × methods, NaN where not solved.
    Source: Dolan & Moré 2002, "Benchmarking optimization software with performance profiles", §2.
    """
    ratios = seconds.div(seconds.min(axis=1), axis=0)
    found = {}
    for name in seconds.columns:
        values, counts = np.unique(ratios[name].dropna().to_numpy(), return_counts=True)
        tau = np.concatenate([[1.0], values[values > 1.0]])
        within = np.cumsum(counts)[values >= 1.0]
        share = np.concatenate([[] if 1.0 in values else [0], within]) / max(1, len(seconds))
        found[str(name)] = (tau, share)
    return found


def solved_seconds(rows: pd.DataFrame, model: str) -> pd.DataFrame:
    """CPU seconds, margins × "solver formulation", NaN where not solved; of margins that every method was asked."""
    own = rows[rows["model"] == model]
    named = own.assign(
        method=own["solver"] + " " + own["formulation"], solved=own["cpu_seconds"].where(own["status"] == "optimal")
    )
    asked = named.groupby(MARGIN)["method"].transform("nunique") == named["method"].nunique()
    return named[asked].set_index([*MARGIN, "method"])["solved"].unstack("method")


def draw_profiles(rows: pd.DataFrame) -> Figure:
    """Performance profiles of the LPs and the MILPs, solid for the compact formulation, dashed and hollow for full."""
    with paper_style():
        models = [name for name in ("LP", "MILP") if (rows["model"] == name).any()]
        figure, panels = panel_grid(len(models), share_y=True)
        for panel, model in zip(panels, models, strict=True):
            seconds = solved_seconds(rows, model)
            _profile_panel(panel, profile(seconds))
            panel.set_title(f"{model} ({len(seconds)} margins)")
            panel.set_xlabel("τ: CPU time, multiples of the fastest's")
        panels[0].set_ylabel("share of margins solved within τ")
        entries = {label: line for panel in panels for line, label in _entries(panel)}
        labels = sorted(entries)
        handles = [entries[label] for label in labels]
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _entries(panel: Axes) -> Iterable[tuple[Artist, str]]:
    return zip(*panel.get_legend_handles_labels(), strict=True)


def _profile_panel(panel: Axes, profiles: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    right = 1.3 * max(float(tau[-1]) for tau, _ in profiles.values())
    for k, (name, (tau, share)) in enumerate(sorted(profiles.items())):
        solver, formulation = name.split()
        full = formulation == "full"
        colour = SOLVER_COLOURS.get(solver, TEXT_GREY)
        panel.plot(
            [*tau, right], [*share, share[-1]], drawstyle="steps-post", color=colour, linestyle="--" if full else "-",
            linewidth=1.3, marker=MARKERS.get(solver, "x"), markersize=4, markerfacecolor="none" if full else colour,
            markevery=(0.05 + 0.02 * k, 0.2), label=f"{solver}, {formulation}", clip_on=False, zorder=3,
        )  # fmt: skip
    panel.set_xscale("log")
    panel.set_xlim(1, right)
    panel.xaxis.set_major_formatter("{x:g}")
    panel.set_ylim(0, 1.03)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def markdown(table: pd.DataFrame, rows: pd.DataFrame, gap: float, skipped: Mapping[str, str]) -> str:
    """A pipe table per model, how to read it, and what it says."""
    parts = []
    for model, part in table.groupby("model", sort=True):
        shown = part[list(SHOWN)].rename(columns=SHOWN)
        lines = [list(shown.columns), ["---"] * shown.shape[1]]
        lines += [[_cell(value) for value in line] for line in shown.to_numpy().tolist()]
        parts.append(f"## {model}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines))
    reading = (
        f"CPU seconds a margin (shifted geometric mean, shift {SHIFT:g} s; a margin stopped by a limit counts with the "
        f"time it got), and as a multiple of HiGHS compact on the same margins. Root gap: "
        "mean m* − LP, in logits. Nodes: mean of the solved. Difference: largest distance of a solved bound from the "
        "reference (LP: HiGHS compact; MILP: bab); beyond m*: largest excess of a bound over the least margin at any "
        f"replayed point (≤ 0: none), both in units of the gap {gap:g}. "
        f"Time limits are wall-clock: on a busy machine they strike earlier in CPU time. "
        "Bound: certified in real arithmetic, checked by row duals, or the solver's word.\n"
    )
    left_out = "".join(f"\nNot run: {name} ({reason}).\n" for name, reason in skipped.items())
    title = "# Solvers and formulations on the same templates\n\n![Performance profiles](profile.png)\n\n"
    return title + "\n".join(parts) + f"\n{reading}\n{findings(table, rows)}{left_out}"


def findings(table: pd.DataFrame, rows: pd.DataFrame) -> str:
    """What the table says, every number from it."""
    said = []
    for model in ("LP", "MILP"):
        part = table[(table["model"] == model) & table["solved"].gt(0)]
        if part.empty:
            continue
        worst = part.loc[part["difference"].fillna(0).idxmax()]
        said.append(
            f"solved {model}s differ from the reference by at most {worst['difference']:.2g} gaps "
            f"(difference: {worst['group']}, {worst['solver']} {worst['formulation']})"
        )
        for group, own in part.groupby("group", sort=False):
            best = own.sort_values(["solved", "seconds"], ascending=[False, True]).iloc[0]
            said.append(
                f"on {group} {model}s the least time is that of {best['solver']} {best['formulation']}: "
                f"{best['seconds']:.2g} s a margin, × HiGHS {best['ratio']:.2g}, {best['solved']} of "
                f"{best['margins']} solved"
            )
    milps = table[table["model"] == "MILP"]
    if milps["beyond"].max() > 0:
        worst = milps.loc[milps["beyond"].idxmax()]
        said.append(
            f"the largest excess of a MILP bound over a point's margin is {worst['beyond']:.2g} gaps (beyond m*: "
            f"{worst['group']}, {worst['solver']} {worst['formulation']})"
        )
    said += _costs_of_full(table)
    for name, label in (("time_limit", "time limit"), ("licence", "licence"), ("failed", "failed")):
        lost = table[table[name] > 0]
        if len(lost):
            where = ", ".join(
                f"{one.group} {one.model} {one.solver} {one.formulation} {getattr(one, name)}/{one.margins}"
                for one in lost.itertuples()
            )
            stopped = rows.loc[rows["status"] == name, "cpu_seconds"].min()
            least = "" if np.isnan(stopped) else f", the earliest after {stopped:.2g} s of CPU time"
            said.append(f"{label}: {where}{least}")
    return "Seen. " + " ".join(f"{text[0].upper()}{text[1:]}." for text in said) + f" Rows: {len(rows)}.\n"


def _costs_of_full(table: pd.DataFrame) -> list[str]:
    """Time of full over compact, per model and solver, on the margins of the zoo."""
    said = []
    zoo = table[table["group"] == "zoo"].set_index([*METHOD])["seconds"]
    for model in ("LP", "MILP"):
        ratios = [
            f"{solver} {zoo[model, 'full', solver] / zoo[model, 'compact', solver]:.2g}"
            for solver in SOLVER_COLOURS
            if (model, "full", solver) in zoo.index and (model, "compact", solver) in zoo.index
        ]
        if ratios:
            said.append(f"full takes, as a multiple of compact's s a margin on zoo {model}s: {', '.join(ratios)}")
    return said


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)
