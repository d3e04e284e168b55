"""Tables of margins: m* beside its lower bounds, gaps, tightness, certified shares.

    gap = m* − bound        tightness = (clean − m*)/(clean − bound) ∈ [0, 1], 1 = exact

m* is known as an interval [m_low, m_high]: the largest lower and the smallest upper bound that any row proves for the
same (network, sample, target, norm, eps, domain); the clean margin is an upper bound too. Where an exact rung ran, gap
and tightness are taken from m_high, the value attained by a replayed point; with an open interval m_high − bound is the
largest the gap can be and `gap_least` the smallest, and the table counts such margins.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from toolkit.data.arguments import instance
from toolkit.data.notebook import frame_html, shown_as
from toolkit.data.summaries import number
from toolkit.report.formats import readable
from toolkit.report.order import CELL_KEYS, TRUTH_KEYS, require_rows, rung_sides
from toolkit.verify.verdict import is_safe, is_unsafe

CLOSED_WIDTH = 1e-3  # of max(|m_high|, |clean|): a wider interval of m* is called open
SAMPLE_KEYS = [key for key in CELL_KEYS if key != "target"]
GROUP_KEYS = ["network", "network_digest", "dataset", "norm", "domain", "eps", "layer_bounds"]


def margin_gaps(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per (cell, rung) with m_low, m_high, closed, gap, gap_least and tightness, rungs in order.

    A cell is a (network, sample, target, norm, eps, domain, layer_bounds). Several rows of one rung on one cell are
    all proven, so the best of each side counts. gap and tightness are NaN where no exact rung ran on that m*, where
    no finite upper side of it is known, or where the rung has no finite lower bound. Raises ValueError for an empty
    frame or missing columns.
    """
    instance("rows", rows, pd.DataFrame, "as run_sweep and read_rows return them")
    if "m_high" in rows:  # they are gaps already: every report takes both
        return rows
    require_rows(rows)
    sides = rung_sides(rows)
    rows = rows if "relaxed" in rows else rows.assign(relaxed=-1)
    best = rows.groupby([*CELL_KEYS, "rung"], as_index=False, dropna=False, observed=True).agg(
        lower=("lower", "max"),
        upper=("upper", "min"),
        certified_lower=("certified_lower", "max"),
        certified_upper=("certified_upper", "min"),
        clean=("clean_margin", "first"),
        seconds=("seconds", "mean"),
        bounds_seconds=("bounds_seconds", "mean"),
        unstable=("unstable", "first"),
        relaxed=("relaxed", "min"),
    )
    best["side"] = best["rung"].map(sides)
    best["rung"] = pd.Categorical(best["rung"], categories=list(sides), ordered=True)
    best = best.merge(_truth(best), on=TRUTH_KEYS, how="left", validate="many_to_one")
    bound = best["lower"].where(np.isfinite(best["lower"]))
    known = best["exact_ran"] & np.isfinite(best["m_high"])
    best["gap"] = (best["m_high"] - bound).where(known)
    best["gap_least"] = (best["m_low"] - bound).where(known).clip(lower=0.0)
    best["tightness"] = _tightness(best["clean"], best["m_high"], bound).where(known)
    return best.sort_values([*CELL_KEYS, "rung"], kind="stable", ignore_index=True)


def _truth(best: pd.DataFrame) -> pd.DataFrame:
    """The interval [m_low, m_high] of every m*, whether it is closed, and whether an exact rung ran on it."""
    marked = best.assign(exact_ran=best["side"] == "exact", upper=best[["upper", "clean"]].min(axis=1))
    truth = marked.groupby(TRUTH_KEYS, as_index=False, dropna=False).agg(
        m_low=("lower", "max"), m_high=("upper", "min"), clean=("clean", "first"), exact_ran=("exact_ran", "any")
    )
    truth["m_low"] = truth[["m_low", "m_high"]].min(axis=1)  # equal up to rounding where they cross
    width = truth["m_high"] - truth["m_low"]
    known = np.isfinite(truth["m_high"]) & np.isfinite(truth["m_low"])
    truth["closed"] = known & (width <= CLOSED_WIDTH * truth[["m_high", "clean"]].abs().max(axis=1))
    return truth.drop(columns="clean")


def _tightness(clean: pd.Series[float], exact: pd.Series[float], bound: pd.Series[float]) -> pd.Series[float]:
    """(clean − m*)/(clean − bound); 1 where the bound is the clean margin, and at most 1 despite rounding."""
    fall = clean - bound
    ratio = (clean - exact) / fall.where(fall > 0)
    return ratio.clip(0.0, 1.0).where(fall > 0, 1.0).where(bound.notna())


def sample_shares(gaps: pd.DataFrame) -> pd.DataFrame:
    """One row per (sample, rung): certified, refuted, decided.

    certified: certified_lower > 0 for every target that any rung was asked about. refuted: a point proven to have
    margin ≤ 0 is known, found by this rung or the centre itself. decided: either.
    """
    flagged = gaps.assign(positive=is_safe(gaps["certified_lower"]), refuted=is_unsafe(gaps["certified_upper"]))
    asked = gaps.groupby(SAMPLE_KEYS, as_index=False).agg(asked=("target", "nunique"))
    shares = flagged.groupby([*SAMPLE_KEYS, "rung", "side"], as_index=False, observed=True).agg(
        positive=("positive", "sum"), refuted=("refuted", "any")
    )
    shares = shares.merge(asked, on=SAMPLE_KEYS, validate="many_to_one")
    shares["certified"] = shares["positive"] == shares["asked"]
    shares["decided"] = shares["certified"] | shares["refuted"]
    return shares.drop(columns=["positive", "asked"])


def gap_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The gap table: per (network, eps, layer_bounds, …) and rung, what the rung proves and what it leaves open.

    Columns after the keys: samples, margins, failed (no finite bound on the rung's side); lower_mean, lower_median and
    upper_mean over finite bounds; gap_mean, gap_median, gap_least_mean, tightness_mean over margins with an exact
    rung, open = how many of those have no closed interval of m*; certified and decided, shares of samples in [0, 1];
    seconds_mean per margin, bounds_seconds_mean (time of l,u, shared by a sample's margins), unstable_mean neurons.
    Raises ValueError for an empty frame or missing columns.
    """
    gaps = margin_gaps(rows)
    bound = gaps["lower"].where(gaps["side"] != "upper", gaps["upper"])
    finite = gaps.assign(
        lower=gaps["lower"].where(np.isfinite(gaps["lower"])),
        upper=gaps["upper"].where(np.isfinite(gaps["upper"])),
        failed=~np.isfinite(bound),
        open=gaps["exact_ran"] & ~gaps["closed"],
    )
    keys = [*GROUP_KEYS, "rung"]
    table = finite.groupby(keys, as_index=False, observed=True).agg(
        samples=("sample", "nunique"),
        margins=("target", "size"),
        failed=("failed", "sum"),
        lower_mean=("lower", "mean"),
        lower_median=("lower", "median"),
        upper_mean=("upper", "mean"),
        gap_mean=("gap", "mean"),
        gap_median=("gap", "median"),
        gap_least_mean=("gap_least", "mean"),
        tightness_mean=("tightness", "mean"),
        open=("open", "sum"),
        seconds_mean=("seconds", "mean"),
        bounds_seconds_mean=("bounds_seconds", "mean"),
        unstable_mean=("unstable", "mean"),
    )
    shares = sample_shares(gaps).groupby(keys, as_index=False, observed=True)
    table = table.merge(shares.agg(certified=("certified", "mean"), decided=("decided", "mean")), on=keys)
    last = ["certified", "decided", "seconds_mean", "bounds_seconds_mean", "unstable_mean"]
    table = table[[name for name in table.columns if name not in last] + last]
    return shown_as(table.sort_values(keys, kind="stable", ignore_index=True), _gap_html)


def margin_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per margin with every rung side by side: clean, the bounds in rung order, m*'s interval, the gaps.

    Columns after the keys: unstable, clean; one column per rung, weak to strong lower bounds, then exact rungs (their
    lower bound), then upper bounds; m_low, m_high, closed (m_* are blank where no exact rung ran); gap_RUNG for every
    lower rung; relaxed_RUNG for lp and ideal: unstable neurons off their ReLU at the relaxation's optimum, 0 meaning
    that its bound is m*. Raises ValueError for an empty frame or missing columns.
    """
    gaps = margin_gaps(rows)
    shown = gaps.assign(bound=gaps["lower"].where(gaps["side"] != "upper", gaps["upper"]))
    rungs = [str(name) for name in gaps["rung"].cat.categories]
    lower_rungs = [name for name in rungs if (gaps.loc[gaps["rung"] == name, "side"] == "lower").any()]
    indexed = shown.assign(rung=shown["rung"].astype(str)).set_index([*CELL_KEYS, "rung"])
    bounds = indexed["bound"].unstack("rung").reindex(columns=rungs)
    distances = indexed["gap"].unstack("rung").reindex(columns=lower_rungs).add_prefix("gap_")
    cells = shown.groupby(CELL_KEYS, dropna=False).agg(
        unstable=("unstable", "first"),
        clean=("clean", "first"),
        m_low=("m_low", "first"),
        m_high=("m_high", "first"),
        closed=("closed", "first"),
        exact_ran=("exact_ran", "first"),
    )
    known = cells.pop("exact_ran")
    cells[["m_low", "m_high"]] = cells[["m_low", "m_high"]].where(known, np.nan)
    truth = cells[["m_low", "m_high", "closed"]].assign(closed=cells["closed"] & known)
    relaxed = indexed["relaxed"].where(indexed["relaxed"] >= 0).unstack("rung").dropna(axis=1, how="all")
    relaxed = relaxed.astype("Int64").add_prefix("relaxed_")
    table = pd.concat([cells[["unstable", "clean"]], bounds, truth, distances, relaxed], axis=1).reset_index()
    keys = [*(key for key in GROUP_KEYS if key != "network_digest"), "sample", "label", "target"]
    values = [name for name in table.columns if name not in CELL_KEYS]
    table = table[[*keys, *values, "network_digest"]].sort_values(keys, kind="stable", ignore_index=True)
    return shown_as(table, _margin_html)


def _gap_html(table: pd.DataFrame) -> str:
    return frame_html(readable(table))


def _margin_html(table: pd.DataFrame) -> str:
    """What varies, numbers to four digits, digests left out."""
    kept = [name for name in table.columns if name not in GROUP_KEYS or table[name].nunique() > 1]
    shown = table[kept].drop(columns="network_digest", errors="ignore")
    texts = {
        name: shown[name].map(lambda value: "" if value != value else number(value))
        for name in shown.columns
        if shown[name].dtype.kind == "f"
    }
    return frame_html(shown.assign(**texts))
