"""A row of a results folder, and more like it."""

from __future__ import annotations

import math
from dataclasses import replace

from toolkit.runs.rows import Row

ROW = Row(
    network="net",
    network_digest="d" * 64,
    dataset="digits",
    sample=3,
    label=4,
    target=5,
    norm="linf",
    eps=0.1,
    domain="[0, 1]",
    layer_bounds="interval+dual",
    rung="lp",
    lower=-1.25,
    upper=math.inf,
    certified_lower=-math.inf,
    certified_upper=math.inf,
    status="optimal",
    seconds=0.01,
    build_seconds=0.001,
    bounds_seconds=0.002,
    solver="highs",
    solver_version="1.15.1",
    nodes=0,
    unstable=7,
    active=8,
    inactive=9,
    relaxed=-1,
    max_slack=-1.0,
    clean_margin=2.5,
    message="",
    key="k0",
    run_id="r0001-aaaaaa",
)


def numbered(count: int, **changes: object) -> list[Row]:
    return [replace(ROW, key=f"k{k}", target=k, **changes) for k in range(count)]
