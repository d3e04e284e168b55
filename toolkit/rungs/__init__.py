"""The rungs, by name, from cheap to exact. A new bound is one file here and one line in this registry."""

from toolkit.problem import Rung
from toolkit.rungs import dual, exact, interval, lp

RUNGS: dict[str, Rung] = {module.RUNG.name: module.RUNG for module in (interval, dual, lp, exact)}


def get_rung(name: str) -> Rung:
    """The rung called `name`; ValueError lists the allowed names."""
    if name not in RUNGS:
        raise ValueError(f"unknown rung {name!r}; allowed: {', '.join(RUNGS)}")
    return RUNGS[name]


__all__ = ["RUNGS", "get_rung"]
