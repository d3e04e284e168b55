"""The HTML report's samples: image, verdict per ε, margins of every target, and the command that recomputes them."""

from __future__ import annotations

import base64
import io
import math
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.image import imsave

from toolkit.data.datasets import find_data, load_dataset
from toolkit.data.names import printable
from toolkit.report.styles import IMAGE_MAP, label_of
from toolkit.report.tables import SAMPLE_KEYS, margin_table
from toolkit.verify.verdict import is_safe, is_unsafe, verdict

if TYPE_CHECKING:
    from toolkit.runs.provenance import RunRecord

VERDICTS = ("YES", "NO", "MAYBE")
SECTION_KEYS = ["network", "network_digest", "dataset", "sample", "label", "norm", "domain"]


def sample_verdicts(gaps: pd.DataFrame) -> pd.DataFrame:
    """One row per (network, sample, ε, l,u chain) with its verdict, from the rows of that chain together.

    By the rule in verdict.py, from what is certified of every target asked about.
    """
    targets = gaps.groupby([*SAMPLE_KEYS, "target"], dropna=False, as_index=False).agg(
        low=("certified_lower", "max"), high=("certified_upper", "min")
    )
    table = targets.groupby(SAMPLE_KEYS, dropna=False, as_index=False).agg(low=("low", list), high=("high", list))
    sides = zip(table["low"], table["high"], strict=True)
    table["verdict"] = [str(verdict(low, high)) for low, high in sides]
    return table.drop(columns=["low", "high"])


def asked_of(rows: pd.DataFrame, runs: Sequence[RunRecord]) -> str:
    """What a row's `target` numbers: "class", or "group" where the sweep asked a property."""
    used = set(rows["run_id"]) if "run_id" in rows else set()
    return "group" if any("property" in run.get("spec", {}) for run in runs if run.get("run_id") in used) else "class"


def verdict_reason(part: pd.DataFrame, answer: str, kind: str = "class") -> str:
    """Why a sample has its verdict (`answer`), in words; part: its rows of `margin_gaps`; kind: as `asked_of`."""
    to = "to class" if kind == "class" else f"of {kind}"
    targets = part.groupby("target").agg(
        low=("certified_lower", "max"), high=("upper", "min"), clean=("clean", "first")
    )
    if answer == "NO" and (targets["clean"] <= 0).any():
        return f"the image itself has margin {targets['clean'].min():.4g} {to} {targets['clean'].idxmin()}"
    if answer == "NO":
        finders = part.loc[is_unsafe(part["certified_upper"]), "rung"].astype(str).unique()
        value, target = targets["high"].min(), targets["high"].idxmin()
        return f"a point of the ball, found by {', '.join(finders)}, has margin {value:.4g} {to} {target}"
    if answer == "YES":
        proven = part[is_safe(part["certified_lower"])].groupby("rung", observed=True)["target"].nunique() == len(
            targets
        )
        alone = [str(name) for name in proven.index[proven]]
        by = f"by {alone[0]} alone" if alone else "by several rungs together"
        return f"every margin asked about is proven > 0, {by}; the smallest bound is {targets['low'].min():.4g}"
    return f"neither proven nor refuted for {kind} {', '.join(map(str, targets.index[~is_safe(targets['low'])]))}"


def sample_sections(
    gaps: pd.DataFrame, verdicts: pd.DataFrame, runs: Sequence[RunRecord], max_samples: int, kind: str = "class"
) -> list[dict[str, Any]]:
    """What the page shows of each sample, at most `max_samples`, those with a MAYBE first. kind: as `asked_of`."""
    open_first = verdicts.assign(settled=verdicts["verdict"] != "MAYBE")
    wanted = open_first.groupby(SECTION_KEYS, dropna=False, as_index=False).agg(settled=("settled", "all"))
    if len(wanted) > max_samples:
        wanted = wanted.sort_values("settled", kind="stable").head(max_samples)
    shown = gaps.merge(wanted[SECTION_KEYS], on=SECTION_KEYS)
    parts = dict(list(shown.groupby(SAMPLE_KEYS, dropna=False)))
    cells = dict(list(margin_table(shown).groupby(SAMPLE_KEYS, dropna=False)))
    images, rungs = _Images(), [str(name) for name in gaps["rung"].cat.categories]
    sections = []
    for keys in wanted[SECTION_KEYS].to_dict("records"):
        own = verdicts.merge(pd.DataFrame([keys]), on=SECTION_KEYS)
        entries = []
        for line in own.to_dict("records"):
            place = tuple(line[key] for key in SAMPLE_KEYS)
            reason = verdict_reason(parts[place], line["verdict"], kind)
            entries.append(_entry({**line, "reason": reason, "kind": kind}, cells[place], rungs, runs))
        image, note = images.find(str(keys["dataset"]), int(keys["sample"]), int(keys["label"]))
        named = {str(key): value for key, value in keys.items()}
        sections.append({**named, "image": image, "note": note, "entries": entries})
    return sections


def _entry(line: dict[Any, Any], cells: pd.DataFrame, rungs: list[str], runs: Sequence[RunRecord]) -> dict[str, Any]:
    """One ε of a sample: verdict, table of margins, command."""
    present = [name for name in rungs if cells[name].notna().any()]
    known = bool(cells["m_high"].notna().any())
    distances = [name for name in present if f"gap_{name}" in cells and cells[f"gap_{name}"].notna().any()]
    heads = [
        "class t" if line["kind"] == "class" else "group",
        "clean",
        *(label_of(name) for name in present),
        *(["m*"] if known else []),
    ]
    heads += [f"m* − {label_of(name)}" for name in distances]
    lines = []
    for row in cells.to_dict("records"):
        numbers = [row["clean"], *(row[name] for name in present)]
        shown = [(_number(value), value <= 0) for value in numbers]
        if known:
            shown.append((_interval(row), row["m_high"] <= 0))
        shown += [(_number(row[f"gap_{name}"]), False) for name in distances]
        lines.append({"target": row["target"], "cells": shown})
    return {
        "eps": f"{line['eps']:g}",
        "chain": line["layer_bounds"],
        "verdict": line["verdict"],
        "reason": line["reason"],
        "unstable": int(cells["unstable"].iloc[0]),
        "heads": heads,
        "lines": lines,
        "command": _command(line, present, runs),
    }


def _number(value: float) -> str:
    return f"{value:.4f}".replace("-", "−") if math.isfinite(value) else "–"


def _interval(row: dict[Any, Any]) -> str:
    closed = row["closed"] or not math.isfinite(row["m_high"])
    return _number(row["m_high"]) if closed else f"{_number(row['m_low'])} … {_number(row['m_high'])}"


def _command(line: dict[Any, Any], rungs: Sequence[str], runs: Sequence[RunRecord]) -> str:
    """The `relugap certify` that computes these margins again, points that refute included."""
    source, architecture = _source(str(line["network_digest"]), runs)
    words = ["relugap", "certify", source or "NETWORK", "--data", str(line["dataset"]), "--index", str(line["sample"])]
    words += [] if line["kind"] == "class" else ["--property", "PROPERTY.toml"]  # the spec's table
    words += [] if line["norm"] == "linf" else ["--norm", str(line["norm"])]
    words += ["--eps", f"{line['eps']!r}", "--rungs", ",".join(rungs)]
    words += ["--bounds", str(line["layer_bounds"]).replace("+", ",")]
    domain = str(line["domain"])
    words += ["--no-domain"] if domain == "none" else ["--domain", domain.strip("[]").replace(" ", "")]
    return printable(shlex.join([*words, *(["--architecture", architecture] if architecture else [])]))


def _source(digest: str, runs: Sequence[RunRecord]) -> tuple[str, str]:
    """Where the latest run that knows this network read it from, and its architecture's name; "" if unknown."""
    for run in reversed(runs):
        for known in run.get("networks", []):
            if known["digest"] == digest:
                specs = run.get("spec", {}).get("networks", [])
                named = [spec.get("architecture") for spec in specs if spec["source"] == known["source"]]
                return str(known["source"]), str(next((name for name in named if name), ""))
    return "", ""


class _Images:
    """Images of data sets that are on this machine, as data: URLs; nothing is fetched."""

    def __init__(self) -> None:
        self.here = {status.name for status in find_data() if status.split == "test" and status.available}

    def find(self, dataset: str, sample: int, label: int) -> tuple[str, str]:
        """(URL, ""), or ("", why there is none)."""
        if dataset not in self.here:
            return "", f"no image: the data set {dataset} is not on the machine that wrote this report"
        data = load_dataset(dataset)
        if not 0 <= sample < len(data) or int(data.labels[sample]) != label:
            return "", f"no image: {dataset} has no test image {sample} of class {label} here"
        return png_url(data.images[sample]), ""


def png_url(image: np.ndarray[Any, Any]) -> str:
    """An image with values in [0, 1], shape (channels, height, width), as a PNG in a data: URL."""
    pixels = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, 2)
    file = io.BytesIO()
    imsave(file, pixels, cmap=IMAGE_MAP, vmin=0.0, vmax=1.0, format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
