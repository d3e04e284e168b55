"""Table, figures and paragraph of experiments/training.py, from its measured frames alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from toolkit.report import save_figure
from toolkit.report.plots import EPS_LABEL
from toolkit.report.styles import TEXT_GREY, TRAINING_LOOKS, Look, panel_grid, paper_style, shared_legend
from toolkit.runs.outputs import write_files

OTHER = Look(TEXT_GREY, "x")
FLOOR = 1e-4  # of a gap's axis: below it are solvers' tolerances
PERCENT = {"clean": "clean", "fgsm": "FGSM", "pgd": "PGD", "interval": "interval", "dual": "dual", "lp": "LP"}


def write_results(
    table: pd.DataFrame, accuracy: pd.DataFrame, gaps: pd.DataFrame, plan: Mapping[str, Any], out: Path
) -> None:
    """table.csv, table.md, accuracy.csv, gaps.csv, certified.png, gap.png and README.md."""
    texts = {"table.md": markdown(table, plan), "README.md": paragraph(table, plan)}
    write_files(out, {"table.csv": table, "accuracy.csv": accuracy, "gaps.csv": gaps} | texts, "%.6g")
    draw(accuracy, "eps", ("certified",), "certified share (by dual)", out / "certified")
    draw(gaps, "gap_eps", ("gap_dual_low", "gap_dual_high"), "mean gap m* − dual", out / "gap", log=True)


def interval_text(low: float, high: float, digits: str) -> str:
    """One number where both ends show the same, else low – high."""
    ends = [format(low, digits), format(high, digits)]
    return ends[0] if ends[0] == ends[1] else " – ".join(ends)


def markdown(table: pd.DataFrame, plan: Mapping[str, Any]) -> str:
    """The table for readers: errors in per cent, gaps and unstable neurons as they are."""
    eps = table["gap_eps"].iloc[0]
    header = [
        "layers",
        "training",
        "images",
        *PERCENT.values(),
        "exact",
        "undecided",
        f"m* − dual (ε {eps:g})",
        f"m* − LP (ε {eps:g})",
        "unstable",
        "s/epoch",
    ]
    lines = [header, ["---"] * len(header)]
    for _, row in table.iterrows():
        lines.append(
            [
                row["layers"],
                row["training"],
                str(row["images"]),
                *(f"{100 * row[key]:.0f}" for key in PERCENT),
                interval_text(100 * row["exact_low"], 100 * row["exact_high"], ".0f"),
                str(row["undecided"]),
                interval_text(row["gap_dual_low"], row["gap_dual_high"], ".3f"),
                interval_text(row["gap_lp_low"], row["gap_lp_high"], ".3f"),
                f"{row['unstable']:.1f}",
                f"{row['seconds_per_epoch']:.2f}",
            ]
        )
    counts = ", ".join(f"{name} {group['margins'].iloc[0]}" for name, group in table.groupby("layers", sort=False))
    note = (
        f"Errors in per cent at ε {plan['eps']:g}; a bound's error counts images it does not certify. exact: at most "
        f"{plan['exact_limit']:g} s an image, an interval where some stay undecided. Gaps: means over all targets of "
        f"the first images ({counts} margins), at most {plan['margin_limit']:g} s a margin. "
        f"unstable: neurons at ε {plan['eps']:g}.\n\n"
    )
    return note + "".join("| " + " | ".join(line) + " |\n" for line in lines)


def paragraph(table: pd.DataFrame, plan: Mapping[str, Any]) -> str:
    """What is seen, every claim with its number; comparisons only of trainings that were measured."""
    text = ["Numbers from table.csv, row by row in table.md; curves from accuracy.csv and gaps.csv."]
    for layers, group in table.groupby("layers", sort=False):
        rows = group.set_index("training")
        if {"adversarial", "dual"} <= set(rows.index):
            text.append(_family_claims(str(layers), rows, float(plan["eps"])))
    text.append(_pessimism(table))
    return "# Training and the gap\n\n" + " ".join(text) + "\n"


def _family_claims(layers: str, rows: pd.DataFrame, eps: float) -> str:
    certified = ", ".join(
        f"{name} {100 * row['dual']:.0f} % (LP {100 * row['lp']:.0f} %, exact "
        f"{interval_text(100 * row['exact_low'], 100 * row['exact_high'], '.0f')} %, PGD {100 * row['pgd']:.0f} %, "
        f"clean {100 * row['clean']:.0f} %)"
        for name, row in rows.iterrows()
    )
    adversarial, dual = (rows.loc[name].to_dict() for name in ("adversarial", "dual"))
    at_least, gap = adversarial["gap_dual_low"] / max(dual["gap_dual_high"], 1e-12), dual["gap_eps"]
    return (
        f"{layers}, error by dual at ε {eps:g}: {certified}. The mean gap m* − dual at ε {gap:g} is "
        f"{interval_text(adversarial['gap_dual_low'], adversarial['gap_dual_high'], '.3f')} after adversarial and "
        f"{interval_text(dual['gap_dual_low'], dual['gap_dual_high'], '.3f')} after dual training, a ratio of at "
        f"least {at_least:.1f}; unstable neurons at ε {eps:g}: {adversarial['unstable']:.1f} against "
        f"{dual['unstable']:.1f}."
    )


def _pessimism(table: pd.DataFrame) -> str:
    """The caution of Wong & Kolter 2018: a bound other than the one trained with makes a network look worse."""
    trained = table[table["training"] == "interval"]
    cases = "; ".join(
        f"{row['layers']} trained by interval: {100 * row['interval']:.0f} % by interval, {100 * row['dual']:.0f} % by "
        f"dual, {interval_text(100 * row['exact_low'], 100 * row['exact_high'], '.0f')} % exact"
        for _, row in trained.iterrows()
    )
    dual = "; ".join(
        f"{row['layers']} trained by dual: {100 * row['dual']:.0f} % by dual, {100 * row['interval']:.0f} % by interval"
        for _, row in table[table["training"] == "dual"].iterrows()
    )
    found = "; ".join(filter(None, (cases, dual)))
    return (
        "A network evaluated by a bound other than the one it was trained with looks worse than it is (the pessimism "
        f"Wong & Kolter 2018 warn of), which is why the exact column is there: {found}."
    )


def draw(frame: pd.DataFrame, x: str, ends: tuple[str, ...], label: str, stem: Path, log: bool = False) -> None:
    """STEM.png: one panel per family, one line per training; between two ends a band, which the legend explains."""
    families = list(dict.fromkeys(frame["family"]))
    values = frame[ends[-1]]
    with paper_style():
        figure, panels = panel_grid(len(families), share_y=True)
        for panel, family in zip(panels, families, strict=True):
            for training, curve in frame[frame["family"] == family].groupby("training", sort=False):
                look = TRAINING_LOOKS.get(str(training), OTHER)
                panel.plot(
                    curve[x], curve[ends[-1]], color=look.color, marker=look.marker, markersize=look.marker_size,
                    linewidth=1.3, label=str(training),
                )  # fmt: skip
                if len(ends) == 2:
                    panel.fill_between(
                        curve[x], curve[ends[0]], curve[ends[1]], color=look.color, alpha=0.25, linewidth=0
                    )
            panel.set(title=str(family), xlabel=EPS_LABEL)
            if log:
                panel.set_yscale("log")
        panels[0].set_ylabel(label)
        panels[0].set_ylim((max(FLOOR, 0.5 * values.min()), 1.5 * values.max()) if log else (-0.02, 1.02))
        if len(ends) == 2 and (frame[ends[0]] < frame[ends[1]]).any():
            panels[0].fill_between([], [], color=TEXT_GREY, alpha=0.25, linewidth=0, label="m* known as an interval")
        shared_legend(figure, panels)
    save_figure(figure, stem)
