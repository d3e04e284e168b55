"""Tables, figures and paragraph of experiments/training.py, from its measured frames alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import binomtest, t

from toolkit.report import pipe_table, save_figure
from toolkit.report.plots import EPS_LABEL
from toolkit.report.styles import (
    OTHER_LOOKS,
    TRAINING_LOOKS,
    Look,
    is_leftmost,
    panel_grid,
    paper_style,
    set_title,
)
from toolkit.report.tables import margin_gaps
from toolkit.runs.outputs import write_files

CONFIDENCE = 0.95
FLOOR = 1e-4  # of a gap's axis: below it are solvers' tolerances
PERCENT = {"clean": "clean", "fgsm": "FGSM", "pgd": "PGD", "interval": "interval", "dual": "dual", "lp": "LP"}
BOUNDS = {"dual": "dual", "lp": "LP"}
GROUP = ["dataset", "layers"]
BANDS = {
    "certified.png": "bands: 95 % interval (Clopper–Pearson) of the share",
    "gap.png": "bands: 95 % interval of the mean over images,\nwidened by what the time limit left open of m*",
}


def gap_means(rows: pd.DataFrame, named: Mapping[str, tuple[str, str, str]]) -> pd.DataFrame:
    """One row per (network, ε): mean m* − bound of dual and LP, from below and above, with the ends of its interval.

    rows: of the sweep. named: data set, layers and loss of every network. An image counts by the mean over its targets.
    """
    gaps = margin_gaps(rows)
    lines = []
    for (network, eps), cell in gaps.groupby(["network", "eps"], sort=False):
        dataset, layers, training = named[str(network)]
        line = {"dataset": dataset, "layers": layers, "network": network, "training": training, "gap_eps": eps}
        exact = cell[cell["rung"] == "bab"]
        line |= {"gap_images": exact["sample"].nunique(), "margins": len(exact)}
        line |= {
            "margins_open": int((~exact["closed"]).sum()),
            "unstable": exact.groupby("sample")["unstable"].first().mean(),
        }
        for bound in BOUNDS:
            means = cell[cell["rung"] == bound].groupby("sample")[["gap_least", "gap"]].mean()
            (low, low_end, _), (high, _, high_end) = (mean_interval(means[name]) for name in ("gap_least", "gap"))
            line |= {f"gap_{bound}_low": low, f"gap_{bound}_high": high}
            line |= {f"gap_{bound}_ci_low": max(0.0, low_end), f"gap_{bound}_ci_high": high_end}
        lines.append(line)
    order = {network: k for k, network in enumerate(named)}
    lines.sort(key=lambda line: (order[str(line["network"])], line["gap_eps"]))
    return pd.DataFrame(lines)


def mean_interval(values: pd.Series[float]) -> tuple[float, float, float]:
    """The mean and its 95 % t-interval; of fewer than two values the mean alone."""
    found = values.dropna()
    mean = float(found.mean()) if len(found) else math.nan
    if len(found) < 2:
        return mean, mean, mean
    reach = float(t.ppf(0.5 + CONFIDENCE / 2, len(found) - 1)) * float(found.std()) / math.sqrt(len(found))
    return mean, mean - reach, mean + reach


def share_interval(low: float, high: float, images: int) -> tuple[float, float]:
    """The Clopper–Pearson 95 % interval of a share that was found to lie in [low, high] among so many images."""
    ends = [binomtest(round(share * images), images).proportion_ci(CONFIDENCE, method="exact") for share in (low, high)]
    return float(ends[0].low), float(ends[1].high)


def with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the 95 % ends of the exact error and of missed_dual and missed_lp."""
    lines = []
    for row in table.to_dict("records"):
        line: dict[str, float] = {}
        for name in ("exact", *(f"missed_{bound}" for bound in BOUNDS)):
            ends = share_interval(row[f"{name}_low"], row[f"{name}_high"], row["images_exact"])
            line |= {f"{name}_ci_low": ends[0], f"{name}_ci_high": ends[1]}
        lines.append(line)
    found = pd.DataFrame(lines)
    return table.assign(**{str(name): found[name].to_numpy() for name in found})


def write_results(
    table: pd.DataFrame, accuracy: pd.DataFrame, gaps: pd.DataFrame, plan: Mapping[str, Any], out: Path
) -> None:
    """table.csv, table.md, accuracy.csv, gaps.csv, certified.png, gap.png and README.md; table: with_intervals."""
    texts = {"table.md": markdown(table, plan), "README.md": paragraph(table)}
    write_files(out, {"table.csv": table, "accuracy.csv": accuracy, "gaps.csv": gaps} | texts, "%.6g")
    ends = [share_interval(share, share, n) for share, n in zip(accuracy["certified"], accuracy["images"], strict=True)]
    bands = accuracy.assign(low=[end[0] for end in ends], high=[end[1] for end in ends])
    draw(bands, ("eps", "certified", "low", "high"), "certified by dual (share)", out / "certified.png")
    columns = ("gap_eps", "gap_dual_high", "gap_dual_ci_low", "gap_dual_ci_high")
    draw(gaps, columns, "mean gap m* − dual", out / "gap.png", log=True)


def interval_text(low: float, high: float, digits: str) -> str:
    """One number where both ends show the same, else low – high."""
    ends = [format(low, digits), format(high, digits)]
    return ends[0] if ends[0] == ends[1] else " – ".join(ends)


def percent_text(row: Mapping[str, Any], name: str) -> str:
    """A share that lies in an interval, in per cent, with its 95 % interval."""
    found = interval_text(100 * row[f"{name}_low"], 100 * row[f"{name}_high"], ".1f")
    return f"{found} [{100 * row[f'{name}_ci_low']:.1f}, {100 * row[f'{name}_ci_high']:.1f}]"


def gap_text(row: Mapping[str, Any], bound: str) -> str:
    """A mean gap with its 95 % interval."""
    found = interval_text(row[f"gap_{bound}_low"], row[f"gap_{bound}_high"], ".3f")
    return f"{found} [{row[f'gap_{bound}_ci_low']:.3f}, {row[f'gap_{bound}_ci_high']:.3f}]"


def markdown(table: pd.DataFrame, plan: Mapping[str, Any]) -> str:
    """One table per data set: errors in per cent, gaps and unstable neurons as they are."""
    eps = table["gap_eps"].max()
    note = (
        "Errors in per cent at the radius ε trained for, of the first images of the test split, ball cut by [0, 1]; a "
        f"bound's error counts images it does not certify. images: 1000/100 where LP and exact were asked about the "
        f"first 100 only. exact: branch and bound, {plan['exact_seconds']:g} s an image, "
        "an interval where some stay undecided. missed: images that are safe and that the bound does not certify. "
        f"m* − bound: margins at ε {eps:g}, mean over all targets of the first {table['gap_images'].max()} images, at "
        f"most {plan['margin_seconds']:g} s a margin, an interval where m* stays open. In brackets 95 % intervals: "
        f"Clopper–Pearson of shares, Student of means over images. unstable: neurons at ε {eps:g}, mean. s/epoch: of "
        "training, as recorded with the network.\n"
    )
    parts = []
    for dataset, group in table.groupby("dataset", sort=False):
        lines = []
        for row in group.to_dict("records"):
            images = "/".join(map(str, dict.fromkeys((row["images"], row["images_exact"]))))
            line = {"layers": row["layers"], "training": row["training"], "ε": f"{row['eps']:g}", "images": images}
            line |= {title: f"{100 * row[key]:.1f}" for key, title in PERCENT.items()}
            line |= {"exact": percent_text(row, "exact"), "undecided": row["undecided"]}
            line |= {f"missed by {title}": percent_text(row, f"missed_{key}") for key, title in BOUNDS.items()}
            line |= {f"m* − {title}": gap_text(row, key) for key, title in BOUNDS.items()}
            lines.append(line | {"unstable": f"{row['unstable']:.1f}", "s/epoch": f"{row['seconds_per_epoch']:.2f}"})
        parts.append(f"\n## {dataset}\n\n{pipe_table(pd.DataFrame(lines))}")
    return note + "".join(parts)


def paragraph(table: pd.DataFrame) -> str:
    """Which loss leaves which gap, every claim with its number; comparisons only of trainings that were measured."""
    text = ["Numbers from table.csv, row by row in table.md; curves from accuracy.csv and gaps.csv."]
    for (dataset, layers), group in table.groupby(GROUP, sort=False):
        if len(group) > 1:
            text.append(_group_claims(f"{dataset} {layers}", group))
    text.append(_pessimism(table))
    return "# Training and the gap\n\n" + "\n\n".join(text) + "\n"


def _group_claims(title: str, group: pd.DataFrame) -> str:
    rows = group.to_dict("records")

    def ranked(name: str, scale: float, digits: str) -> str:
        """The trainings with the ends of one number, least first."""
        shown = sorted(rows, key=lambda row: (float(row[f"{name}_high"]), float(row[f"{name}_low"])))
        ends = ((row["training"], scale * row[f"{name}_low"], scale * row[f"{name}_high"]) for row in shown)
        return ", ".join(f"{training} {interval_text(low, high, digits)}" for training, low, high in ends)

    return (
        f"**{title}**, ε {rows[0]['eps']:g}, least first. Safe images that the dual does not certify, in %: "
        f"{ranked('missed_dual', 100, '.1f')}; the LP: {ranked('missed_lp', 100, '.1f')}. Mean gap m* − dual at ε "
        f"{rows[0]['gap_eps']:g}: {ranked('gap_dual', 1, '.3f')}; m* − LP: {ranked('gap_lp', 1, '.3f')}. Exact error "
        f"in %: {ranked('exact', 100, '.1f')}."
    )


def _pessimism(table: pd.DataFrame) -> str:
    """The caution of Wong & Kolter 2018: a bound other than the one trained with makes a network look worse."""
    cases = "; ".join(
        f"{row['dataset']} {row['layers']} trained by {row['training']}: {100 * row['interval']:.1f} % by interval, "
        f"{100 * row['dual']:.1f} % by dual, "
        f"{interval_text(100 * row['exact_low'], 100 * row['exact_high'], '.1f')} % exact"
        for row in table.to_dict("records")
        if row["training"] in ("dual", "interval", "crown-ibp", "mtl-ibp")
    )
    return (
        "A network evaluated by a bound other than the one it was trained with looks worse than it is (the pessimism "
        f"Wong & Kolter 2018 warn of), which is why the exact column is there: {cases}."
    )


def look_of_training(loss: str) -> Look:
    """The training's fixed look; losses without one share a spare one."""
    return TRAINING_LOOKS.get(loss, OTHER_LOOKS[0])


def draw(frame: pd.DataFrame, columns: Sequence[str], label: str, path: Path, log: bool = False) -> None:
    """One panel per data set and size with several trainings, a line per training; columns: x, y, ends of the band."""
    x, y, low, high = columns
    groups = [(key, group) for key, group in frame.groupby(GROUP, sort=False)]
    groups = [pair for pair in groups if pair[1]["training"].nunique() > 1] or groups[:1]
    with paper_style():
        figure, panels = panel_grid(len(groups), share_y=True)
        for panel, ((dataset, layers), group) in zip(panels, groups, strict=True):
            for training, curve in group.groupby("training", sort=False):
                look = look_of_training(str(training))
                style = {"color": look.color, "marker": look.marker, "markersize": look.marker_size, "linewidth": 1.2}
                bottom = curve[low].clip(lower=FLOOR) if log else curve[low]
                panel.fill_between(curve[x], bottom, curve[high], color=look.color, alpha=0.14, linewidth=0)
                panel.plot(curve[x], curve[y].clip(lower=FLOOR) if log else curve[y], label=str(training), **style)
            if group[x].nunique() < 5:
                panel.set_xticks(sorted(group[x].unique()))
            set_title(panel, f"{dataset} ({layers})")
            panel.set(xlabel=EPS_LABEL, yscale="log" if log else "linear")
        panels[0].set_ylim(*((FLOOR, 1.5 * frame[high].max()) if log else (-0.02, 1.02)))
        for panel in filter(is_leftmost, panels):
            panel.set_ylabel(label)
        entries = {
            text: handle for panel in panels for handle, text in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            list(entries.values()), list(entries), loc="outside lower center", ncols=3 if len(groups) == 1 else 6,
            frameon=False, title=BANDS[path.name], title_fontsize=8,
        )  # fmt: skip
    save_figure(figure, path.with_suffix(""))
