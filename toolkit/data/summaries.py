"""What an object says of itself in one line: shapes and ranges, never all of its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def span(*arrays: Any) -> str:
    """ "least … largest" of all entries, to four digits; one number where they are one, "no numbers" without any."""
    ends = [ends for array in arrays if (ends := _ends(array)) is not None]
    if not ends:
        return "no numbers"
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    return number(low) if low == high else f"{number(low)} … {number(high)}"


def _ends(array: Any) -> tuple[float, float] | None:
    values = array.data if hasattr(array, "nnz") else array  # of a sparse matrix its entries
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    found = np.asarray(values)
    return (float(found.min()), float(found.max())) if found.size else None


def number(value: float) -> str:
    """A number to four digits, with a true minus sign and infinity's own."""
    return f"{value + 0.0:.4g}".replace("-", "−").replace("inf", "∞")


def sizes(shape: Sequence[int]) -> str:
    """A shape: "1×8×8"."""
    return "×".join(str(n) for n in shape)


def counted(count: int, noun: str) -> str:
    """ "1 row", "2 rows"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def one_line(kind: str, parts: Iterable[str]) -> str:
    """ "Kind(part, part)" without the empty parts, all on one line."""
    return f"{kind}({', '.join(' '.join(part.split()) for part in parts if part)})"
