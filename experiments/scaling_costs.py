"""The cost of a table of verdicts, from the images measured: per rung, and on 1, 100 and 1,000 cores."""

from __future__ import annotations

import numpy as np
import pandas as pd

from toolkit.arrays import FloatArray

IMAGES = 10_000
CORES = (1, 100, 1000)
RESAMPLES = 2000


def cost_tables(batches: dict[str, pd.DataFrame], images: int = IMAGES) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The estimate and the rung statistics of every batch, one below the other."""
    totals = [cost_estimate(rows, images) for rows in batches.values()]
    parts = [rung_shares(rows) for rows in batches.values()]
    for name, part in zip(batches, parts, strict=True):
        part.insert(0, "network", name)
    return pd.DataFrame([{"network": n, **t} for n, t in zip(batches, totals, strict=True)]), pd.concat(parts)


def cost_estimate(rows: pd.DataFrame, images: int = IMAGES) -> dict[str, float]:
    """What `images` such images cost, from per-image CPU seconds (column cpu_seconds).

    measured images, maybe (share undecided), mean seconds with a 95 % bootstrap interval, slowest; on C cores, with
    total = images × mean: seconds_C_least = max(total/C, slowest), seconds_C_most = total/C + slowest·(1 − 1/C),
    Graham's bound for any order of the images. Trusted: that the measured images stand for all, slowest included.
    """
    seconds = rows["cpu_seconds"].to_numpy(dtype=np.float64)
    mean, slowest = float(seconds.mean()), float(seconds.max())
    low, high = bootstrap_interval(seconds)
    total = images * mean
    found: dict[str, float] = {
        "measured": len(rows),
        "maybe": float((rows["verdict"] == "MAYBE").mean()),
        "mean": mean,
        "mean_low": low,
        "mean_high": high,
        "slowest": slowest,
    }
    for cores in CORES:
        found[f"seconds_{cores}_least"] = max(total / cores, slowest)
        found[f"seconds_{cores}_most"] = total / cores + slowest * (1 - 1 / cores)
    return found


def bootstrap_interval(values: FloatArray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean."""
    rng = np.random.default_rng(seed)
    means = rng.choice(values, size=(RESAMPLES, values.size)).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def rung_shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Per stage of the ladder: share of images that reached it and that it settled, CPU seconds a reached image and a
    mean image.

    Stages: clean (the centre's own class), bounds (l,u), then rungs. Where CPU time is known per image only, it is
    split in proportion to the stages' wall-clock seconds.
    """
    stages = [str(name) for name in rows.columns if str(name).startswith("seconds_")]
    spent = rows[stages].fillna(0.0).to_numpy(dtype=np.float64)
    scale = (rows["cpu_seconds"] / rows["seconds"].clip(lower=1e-9)).to_numpy(dtype=np.float64)
    cpu = spent * scale[:, None]
    settled = rows["rung"].fillna("").value_counts()
    found = [{"stage": "clean", "reached": 1.0, "settled": settled.get("clean", 0) / len(rows)}]
    for k, column in enumerate(stages):
        name, reached = column.removeprefix("seconds_"), spent[:, k] > 0
        found.append(
            {
                "stage": name,
                "reached": float(reached.mean()),
                "settled": settled.get(name, 0) / len(rows),
                "seconds_reached": float(cpu[reached, k].mean()) if reached.any() else 0.0,
                "seconds_mean": float(cpu[:, k].mean()),
            }
        )
    return pd.DataFrame(found)
