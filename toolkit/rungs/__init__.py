"""The rungs, by name, from cheap to exact. A new bound is one file here and one line in this registry."""

from __future__ import annotations

from toolkit.data.arguments import names, shown
from toolkit.rungs import alpha, attack, bab, crown, dual, exact, ideal, interval, lipschitz, lp
from toolkit.rungs.rung import Rung, Side

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


def get_rung(rung: Rung | str) -> Rung:
    """The rung of that name, or the rung itself; ValueError lists the allowed names."""
    if isinstance(rung, Rung):
        return rung
    if not isinstance(rung, str) or rung not in RUNGS:
        raise ValueError(f"unknown rung {shown(rung)}; allowed: {', '.join(RUNGS)}")
    return RUNGS[rung]


def get_rungs(name: str, listed: object, empty: bool = False) -> tuple[Rung, ...]:
    """The rungs of a list of rungs or names, which is the parameter `name` of somebody; ValueError for others."""
    told = (
        [one.name if isinstance(one, Rung) else one for one in listed] if isinstance(listed, list | tuple) else listed
    )
    called = names(name, told, empty)
    found = tuple(get_rung(one) for one in (listed if isinstance(listed, list | tuple) else called))
    for one in found:
        if any(other.name == one.name and other is not one for other in found):
            raise ValueError(f"{name} has two different rungs called {one.name!r}; names tell rungs apart")
    return found


def certifier() -> Rung:
    """The first exact rung whose bounds are certified whatever the settings: it proves what a solver states."""
    return next(rung for rung in RUNGS.values() if rung.side is Side.EXACT and rung.certifies and not rung.states)


__all__ = ["RUNGS", "certifier", "get_rung", "get_rungs"]
