"""Which rung stands where, and the check that no row contradicts another.

Every lower bound is ≤ m* and every upper bound is ≥ m*, whatever l,u they rest on. On the same l,u more is known: what
each rung declares that it dominates. Rows may be of rungs that are not registered here: nothing more is known of those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from toolkit.data.arguments import instance, real_number, shown

if TYPE_CHECKING:
    from toolkit.rungs.rung import Rung

# Claims about the box l,u themselves, not about what a relaxation makes of them: on l,u that a stronger rung does not
# imply, such as those of an exact one, it can fall below this rung.
READS_THE_BOX = "interval"
FINISHED = ("optimal", "computed")  # statuses of a row whose value is its rung's own, not a bound on the way there

TRUTH_KEYS = ["network_digest", "dataset", "sample", "label", "target", "norm", "eps", "domain"]
CELL_KEYS = ["network", *TRUTH_KEYS, "layer_bounds"]
NUMBER_COLUMNS = [
    "lower",
    "upper",
    "certified_lower",
    "certified_upper",
    "seconds",
    "bounds_seconds",
    "clean_margin",
    "unstable",
]
REQUIRED_COLUMNS = [*CELL_KEYS, "rung", "status", *NUMBER_COLUMNS]


def require_rows(rows: pd.DataFrame) -> None:
    """Raise ValueError for a frame without rows, or without a column that a report needs, of numbers where they are
    due; it is named."""
    instance("rows", rows, pd.DataFrame, "read_rows(folder) gives them")
    missing = [name for name in REQUIRED_COLUMNS if name not in rows.columns]
    if missing:
        raise ValueError(f"rows lack the columns {', '.join(missing)}; a report needs {', '.join(REQUIRED_COLUMNS)}")
    if rows.empty:
        raise ValueError("there are no rows to report; run a sweep first")
    for name in ("eps", *NUMBER_COLUMNS):
        if not pd.api.types.is_numeric_dtype(rows[name]):
            wrong = next((value for value in rows[name] if not isinstance(value, int | float)), rows[name].iloc[0])
            raise ValueError(f"column {name!r} must hold numbers, got {shown(wrong)} of dtype {rows[name].dtype}")


def registered() -> dict[str, Rung]:
    """The rungs of this installation, weak to exact; loaded when a report first asks, without Pyomo."""
    from toolkit.rungs import RUNGS

    return RUNGS


def rung_sides(rows: pd.DataFrame) -> dict[str, str]:
    """Side ("lower", "exact" or "upper") of every rung present, weak to strong, exact ones, then upper ones.

    Of the exact ones those that may state a solver's word come last. A rung that is not registered counts as upper if
    none of its lower bounds is finite, else as lower, and is placed after the registered ones of its side.
    """
    rungs = registered()
    rank = {"lower": 0, "exact": 1, "upper": 2}
    present = [str(name) for name in pd.unique(rows["rung"])]
    known = [name for name in rungs if name in present]
    sides = {name: str(rungs[name].side) for name in known}
    for name in sorted(set(present) - set(sides)):
        lower = rows.loc[rows["rung"] == name, "lower"]
        sides[name] = "lower" if bool((lower > float("-inf")).any()) else "upper"
    states = {name for name in known if sides[name] == "exact" and rungs[name].states}
    return {name: sides[name] for name in sorted(sides, key=lambda name: (rank[sides[name]], name in states))}


def varying_keys(frame: pd.DataFrame) -> list[str]:
    """The keys among data set, norm, domain and l,u chain that take several values for one network."""
    keys = ["dataset", "norm", "domain", "layer_bounds"]
    counts = frame.groupby(["network", "network_digest"])[keys].nunique(dropna=False).max()
    return [key for key in keys if counts[key] > 1]


def check_order(rows: pd.DataFrame, tolerance: float = 1e-6) -> None:
    """Raise ValueError naming the rows that contradict another: some lower bound > some upper bound on the same m*.

    Checked per (network_digest, dataset, sample, target, norm, eps, domain): every `lower` ≤ every `upper` and
    ≤ clean_margin, since all of them bound the one number m*, and every certified_lower ≤ every certified_upper.
    Checked within equal layer_bounds besides: every lower bound ≤ that of each rung that declares to dominate its own
    (interval, dual, crown, alpha ≤ lp ≤ ideal; dual, crown ≤ alpha), wherever that one came to its end. Two numbers
    a ≤ b pass if a ≤ b + tolerance·max(|a|, |b|, |clean margin|), the room a solver's own tolerances need, in the unit
    of the logits; certified ones get none. NaN bounds (failed rows) are passed over.
    """
    require_rows(rows)
    tolerance = real_number("tolerance", tolerance, 0)
    if not tolerance < np.inf:
        raise ValueError(f"tolerance must be finite, got {tolerance}")
    found = _against_uppers(rows, tolerance) + _against_stronger(rows, tolerance)
    if found:
        more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
        raise ValueError(f"{len(found)} bounds break the order beyond {tolerance:g}: {'; '.join(found[:5])}{more}")


def _exceeds(joined: pd.DataFrame, tolerance: float) -> pd.Series[bool]:
    """Where `lower` is above `limit` by more than the tolerance, relative to the size of the margins at hand."""
    sizes = joined[["lower", "limit", "clean_margin"]].abs().replace(np.inf, np.nan)
    return joined["lower"] > joined["limit"] + tolerance * sizes.max(axis=1).fillna(0.0)


def _against_uppers(rows: pd.DataFrame, tolerance: float) -> list[str]:
    """Rows whose lower bound is above the smallest upper bound known for the same m*."""
    uppers = rows[[*TRUTH_KEYS, "rung", "upper"]].rename(columns={"rung": "by", "upper": "limit"})
    clean = rows[[*TRUTH_KEYS, "clean_margin"]].rename(columns={"clean_margin": "limit"}).assign(by="clean")
    limits = pd.concat([uppers, clean], ignore_index=True).dropna(subset=["limit"]).sort_values("limit", kind="stable")
    proven = rows.groupby(TRUTH_KEYS, as_index=False, dropna=False).agg(proven=("certified_upper", "min"))
    joined = rows.merge(limits.drop_duplicates(TRUTH_KEYS), on=TRUTH_KEYS, how="inner").merge(proven, on=TRUTH_KEYS)
    wrong = _exceeds(joined, tolerance)
    false = ~wrong & (joined["certified_lower"] > joined["proven"])
    return [
        f"{_where(row)}: {row['rung']} lower {row['lower']:.9g} > {row['by']} upper {row['limit']:.9g}"
        for row in joined[wrong].to_dict("records")
    ] + [
        f"{_where(row)}: {row['rung']} certified lower {row['certified_lower']!r} > certified upper {row['proven']!r}"
        for row in joined[false].to_dict("records")
    ]


def _against_stronger(rows: pd.DataFrame, tolerance: float) -> list[str]:
    """Rows whose lower bound is above that of a rung known to be stronger on the same l,u."""
    rungs, present = registered(), set(pd.unique(rows["rung"]))
    found = []
    for strong in [rung for name, rung in rungs.items() if name in present and present & set(rung.dominates)]:
        finished = rows[(rows["rung"] == strong.name) & rows["status"].isin(FINISHED)][[*CELL_KEYS, "lower"]]
        joined = rows[rows["rung"].isin(strong.dominates)]
        joined = joined.merge(finished.rename(columns={"lower": "limit"}), on=CELL_KEYS)
        implied = joined["layer_bounds"].isin([chain for chain in pd.unique(joined["layer_bounds"]) if _implied(chain)])
        joined = joined[implied | (joined["rung"] != READS_THE_BOX)]
        found += [
            f"{_where(row)}: {row['rung']} lower {row['lower']:.9g} > {strong.name} lower {row['limit']:.9g}"
            for row in joined[_exceeds(joined, tolerance)].to_dict("records")
        ]
    return found


def _implied(chain: str) -> bool:
    """Whether every rung that dominates READS_THE_BOX implies the l,u of the chain: its own or those of weaker ones."""
    stronger = [rung for rung in registered().values() if READS_THE_BOX in rung.dominates]
    return all({rung.name, *rung.dominates}.issuperset(chain.split("+")) for rung in stronger)


def _where(row: dict[str, object] | dict[object, object]) -> str:
    keys = {str(key): value for key, value in row.items()}
    return (
        f"{keys['network']} {keys['dataset']} sample {keys['sample']} target {keys['target']} "
        f"eps {keys['eps']} [{keys['layer_bounds']}]"
    )
