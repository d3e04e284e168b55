"""The rungs, by name, from cheap to exact. A new bound is one file here and one line in this registry."""

from toolkit.data.arguments import names, shown
from toolkit.problems.problem import Rung
from toolkit.rungs import alpha, attack, bab, crown, dual, exact, ideal, interval, lipschitz, lp

RUNGS: dict[str, Rung] = {
    rung.name: rung
    for rung in (
        interval.RUNG,
        lipschitz.RUNG,
        dual.RUNG,
        crown.RUNG,
        alpha.RUNG,
        lp.RUNG,
        ideal.RUNG,
        exact.RUNG,
        bab.RUNG,
        attack.FGSM,
        attack.PGD,
    )
}


def get_rung(name: str) -> Rung:
    """The rung called `name`; ValueError lists the allowed names."""
    if not isinstance(name, str) or name not in RUNGS:
        raise ValueError(f"unknown rung {shown(name)}; allowed: {', '.join(RUNGS)}")
    return RUNGS[name]


def get_rungs(name: str, listed: object, empty: bool = False) -> tuple[Rung, ...]:
    """The rungs of a list of names, which is the parameter `name` of somebody; ValueError for what is no such list."""
    return tuple(get_rung(entry) for entry in names(name, listed, empty))


__all__ = ["RUNGS", "get_rung", "get_rungs"]
