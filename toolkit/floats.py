"""Unit roundoff and the error of sums: u = 2⁻⁵³, γ_n = n·u/(1 − n·u) (Higham 2002, §3.1), raised by SAFETY."""

from __future__ import annotations

UNIT = 2.0**-53
UNIT32 = 2.0**-24
SAFETY = 1.0 + 1e-6  # more than the rounding of the constants themselves


def gamma(n: int, unit: float = UNIT) -> float:
    """γ_n = n·u/(1 − n·u), raised by SAFETY. Raises ValueError where it is not defined (n·u ≥ 1/2)."""
    if n * unit >= 0.5:
        raise ValueError(f"sums of {n} terms are too long for an error bound at unit roundoff {unit}")
    return SAFETY * n * unit / (1.0 - n * unit)
