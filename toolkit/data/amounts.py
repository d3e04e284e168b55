"""Radii and domains as people write them: 0.03, 8/255 or a file of one per coordinate; and how they are shown.

A fraction is exact until it is rounded once, to the nearest double: 8/255 is the 8 / 255 of every language.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.data.arguments import number_array, own_path, real_number, shown
from toolkit.data.npy_files import read_numbers

# (low, high): numbers for every coordinate, or arrays of one per coordinate.
DataDomain: TypeAlias = tuple[float, float] | tuple[FloatArray, FloatArray]
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?"
_FRACTION = re.compile(rf"\s*({_NUMBER})\s*/\s*({_NUMBER})\s*")
LONGEST = 100  # characters of an amount


def amount(name: str, text: str) -> float:
    """A number as it is written, or a fraction such as 8/255. Raises ValueError that names it for anything else."""
    try:
        found = _FRACTION.fullmatch(text) if len(text) <= LONGEST else None
        value = None
        if found is None and len(text) <= LONGEST and "_" not in text:
            value = float(text)
        if found is not None:
            value = float(Fraction(found[1]) / Fraction(found[2]))
    except (ValueError, ZeroDivisionError, OverflowError):
        value = None
    if value == 0 and re.search("[1-9]", re.split("[eE/]", text)[0]):
        raise ValueError(f"{name} must be 0 or in the range of double precision, got {shown(text)}")
    if value is not None:
        return value
    raise ValueError(f"{name} must be a number or a fraction such as 8/255, got {shown(text)}")


def read_radius(name: str, text: str) -> float | FloatArray:
    """ε ≥ 0: a number, a fraction, or a .npy file with one per coordinate. Raises ValueError, FileNotFoundError."""
    if Path(text).suffix == ".npy":
        radii = read_numbers(own_path(text))
        if radii.size == 0 or not (radii >= 0).all():
            least = f"{radii.min():g}" if radii.size else "none"
            raise ValueError(f"{name}: {Path(text).name} must hold radii ≥ 0, got {least}")
        return radii if radii.size > 1 else float(radii.item())
    try:
        return amount(name, text)
    except ValueError as error:
        raise ValueError(str(error).replace("such as 8/255,", "such as 8/255, or a .npy file,")) from None


def read_domain(name: str, text: str) -> DataDomain:
    """LOW,HIGH, or a .npy file of shape (2, …): the least and the largest value of every coordinate.

    Raises ValueError, FileNotFoundError. Whether low < high, and whether it fits a centre, says the ball.
    """
    if Path(text).suffix == ".npy":
        ends = read_numbers(own_path(text))
        if ends.ndim < 2 or ends.shape[0] != 2:
            raise ValueError(f"{name}: {Path(text).name} must have shape (2, …), low and high, got {ends.shape}")
        return ends[0].ravel(), ends[1].ravel()
    try:
        low, high = (amount(name, part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{name} must be LOW,HIGH, as in 0,1, or a .npy file, got {text!r}") from None
    return low, high


def same_layout(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether numbers of two shapes lie in the same order: equal up to axes of length 1, or one of the two is flat."""
    own, taken = (tuple(n for n in shape if n != 1) for shape in (one, other))
    return math.prod(own) == math.prod(taken) and (own == taken or min(len(own), len(taken)) <= 1)


def stated_domain(name: str, domain: object) -> DataDomain | None:
    """(low, high) with low < high, two arrays, or None. Raises ValueError for anything else; whether arrays fit an
    image says who has one."""
    if domain is None:
        return None
    if not isinstance(domain, Sequence | np.ndarray) or len(domain) != 2:
        raise ValueError(f"{name} must be (low, high), got {shown(domain)}")
    if any(np.ndim(end) for end in domain):
        low, high = (number_array(name, end) for end in domain)
        return low, high
    least, most = (float(real_number(name, end)) for end in domain)
    if not least < most:
        raise ValueError(f"{name} must have low < high, got ({least:g}, {most:g})")
    return least, most


def radius_text(eps: float | FloatArray) -> str:
    """ε for a heading: the number, or of one per coordinate the least and largest."""
    if isinstance(eps, np.ndarray):
        return f"ε per coordinate ({eps.min():g} … {eps.max():g})"
    return f"ε = {eps:g}"


def domain_text(domain: DataDomain | None) -> str:
    """The domain for a heading."""
    if domain is None:
        return "no domain"
    low, high = domain
    if isinstance(low, np.ndarray) or isinstance(high, np.ndarray):
        return f"domain per coordinate (within [{np.min(low):g}, {np.max(high):g}])"
    return f"domain [{low:g}, {high:g}]"


def keyed(value: object) -> object:
    """A value for a key that is hashed as JSON: arrays, whose text leaves entries out, by their SHA-256."""
    if isinstance(value, np.ndarray):
        whole = np.ascontiguousarray(value, dtype=np.float64)
        return f"sha256:{hashlib.sha256(str(whole.shape).encode() + whole.tobytes()).hexdigest()}"
    if isinstance(value, tuple | list):
        return [keyed(entry) for entry in value] if any(isinstance(entry, np.ndarray) for entry in value) else value
    return value
