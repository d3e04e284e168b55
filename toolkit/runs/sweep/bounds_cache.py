"""Layer bounds kept on disk by what determines them, so that a rung added to a sweep later does not recompute them.

OUT/bounds/HASH.npz holds l,u, whether they are certified, and a header that ties them to the question HASH stands for,
to the code that computed them and, by a SHA-256, to each other. Checked: all of that, shapes, l ≤ u; a file that fails
is computed again and named in a warning. Trusted: the folder itself. The SHA-256 finds accidents, a flipped bit or a
copied file; who can write to OUT and computes it anew can make l,u up, as they can make rows up.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.data.archives import Archive, ArchiveError, checked_number, open_archive, require_keys
from toolkit.problems.bounds import ReluBounds
from toolkit.runs.store import replace_file
from toolkit.runs.sweep.tasks import Chain, Task, described, question

BOUNDS = "bounds"
CACHE_FORMAT = 2
CACHE_HEADER = ("format", "question", "code", "chain", "certified", "region", "seconds", "sha256")


def bounds_path(task: Task, chain: Chain) -> Path:
    """OUT/bounds/HASH.npz, over network, image, ball, domain and the chain's rungs, versions and settings."""
    content = json.dumps(question(task) | {"chain": described(chain, task.work.settings)}, sort_keys=True)
    return Path(task.work.out) / BOUNDS / f"{hashlib.sha256(content.encode()).hexdigest()[:40]}.npz"


def load_bounds(path: Path, chain: Chain, sizes: Sequence[int]) -> tuple[ReluBounds, float] | None:
    """l,u of ReLU layers of those sizes and the seconds they took; None if there is no file that fits `path`."""
    if not path.exists():
        return None
    try:
        with open_archive(path) as archive:
            return _content(archive, path.stem, chain, sizes)
    except (ValueError, OSError) as error:  # ArchiveError, and what ReluBounds refuses
        warnings.warn(f"cached l,u in {path} are not used but computed again: {error}", stacklevel=2)
        return None


def _content(archive: Archive, asked: str, chain: Chain, sizes: Sequence[int]) -> tuple[ReluBounds, float]:
    header = archive.json("header")
    require_keys("header key", header, CACHE_HEADER, CACHE_HEADER)
    expected = {"format": CACHE_FORMAT, "question": asked, "code": code_digest(), "chain": list(chain)}
    for key, value in expected.items():
        if header[key] != value or type(header[key]) is not type(value):
            raise ArchiveError(f"its {key} is {str(header[key])[:80]!r}, asked was {value!r}")
    if not isinstance(header["region"], str):
        raise ArchiveError(f"region must be a text, got {str(header['region'])[:80]!r}")
    if not isinstance(header["certified"], bool):
        raise ArchiveError(f"certified must be true or false, got {str(header['certified'])[:80]!r}")
    seconds = checked_number(header, "seconds", 0.0, 1e12)
    archive.require(["header", *(f"{side}{k}" for k in range(len(sizes)) for side in ("lower", "upper"))])
    lower, upper = (
        tuple(archive.array(f"{side}{k}", (n,), low=-np.inf) for k, n in enumerate(sizes))
        for side in ("lower", "upper")
    )
    if header["sha256"] != _checksum(header, (*lower, *upper)):
        raise ArchiveError("its content has another SHA-256 than it says")
    return ReluBounds.sealed(lower, upper, chain, header["certified"], header["region"]), seconds


def save_bounds(path: Path, bounds: ReluBounds, seconds: float) -> None:
    """Write l,u in one step. Raises StoreError."""
    header: dict[str, object] = {
        "format": CACHE_FORMAT,
        "question": path.stem,
        "code": code_digest(),
        "chain": list(bounds.chain),
        "certified": bool(bounds.certified),
        "region": bounds.region,
        "seconds": float(seconds),
    }
    header["sha256"] = _checksum(header, (*bounds.lower, *bounds.upper))
    arrays = {f"lower{k}": low for k, low in enumerate(bounds.lower)}
    arrays |= {f"upper{k}": high for k, high in enumerate(bounds.upper)}
    data = io.BytesIO()
    np.savez(data, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]
    replace_file(path, data.getvalue())


def _checksum(header: Mapping[str, object], arrays: Iterable[FloatArray]) -> str:
    """SHA-256 over the header but for itself, and over all numbers."""
    own = {key: header[key] for key in CACHE_HEADER if key != "sha256"}
    state = hashlib.sha256(json.dumps(own, sort_keys=True).encode())
    for array in arrays:
        state.update(f"{array.shape}".encode())
        state.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
    return state.hexdigest()


@functools.cache
def code_digest() -> str:
    """SHA-256 of the package's sources: l,u of another version of the code are computed again."""
    root = Path(__file__).resolve().parents[2]
    state = hashlib.sha256()
    for source in sorted(root.rglob("*.py")):
        state.update(f"{source.relative_to(root).as_posix()}\0".encode())
        state.update(source.read_bytes())
    return state.hexdigest()
