"""Layer bounds kept on disk by what determines them, so that a rung added to a sweep later does not recompute them."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from toolkit.problem import ReluBounds
from toolkit.store import replace_file
from toolkit.sweep.tasks import Chain, Task, described, question

BOUNDS = "bounds"


def bounds_path(task: Task, chain: Chain) -> Path:
    """OUT/bounds/HASH.npz, over network, image, ball, domain and the chain's rungs, versions and settings."""
    content = json.dumps(question(task) | {"chain": described(chain, task.work.settings)}, sort_keys=True)
    return Path(task.work.out) / BOUNDS / f"{hashlib.sha256(content.encode()).hexdigest()[:40]}.npz"


def load_bounds(path: Path, chain: Chain) -> tuple[ReluBounds, float] | None:
    """l,u and the seconds they took when they were computed; None if there is no whole file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            count = int(archive["layers"])
            lower = tuple(archive[f"lower{k}"] for k in range(count))
            upper = tuple(archive[f"upper{k}"] for k in range(count))
            certified, region = bool(archive["certified"]), str(archive["region"])
            return ReluBounds(lower, upper, chain, certified, region), float(archive["seconds"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None


def save_bounds(path: Path, bounds: ReluBounds, seconds: float) -> None:
    """Write l,u in one step. Raises StoreError."""
    arrays = {f"lower{k}": low for k, low in enumerate(bounds.lower)}
    arrays |= {f"upper{k}": high for k, high in enumerate(bounds.upper)}
    arrays["certified"] = np.array(bounds.certified)
    arrays["region"] = np.array(bounds.region)
    data = io.BytesIO()
    np.savez(data, layers=np.int64(len(bounds)), seconds=np.float64(seconds), **arrays)  # type: ignore[arg-type]
    replace_file(path, data.getvalue())
