"""Where the specs of experiments/ are: in the working folder, in the package as it is installed, in a checkout.

A wheel carries them as toolkit/experiments (build_specs.py puts them there); a checkout or an editable installation
has them beside the package.
"""

from __future__ import annotations

from pathlib import Path

import toolkit

SPECS = "experiments"
PACKAGE = Path(toolkit.__file__).resolve().parent


def shipped_spec(name: str) -> Path | None:
    """experiments/NAME of the working folder, else the package's, else the checkout's; None where none has it."""
    return next((place / SPECS / name for place in (Path(), PACKAGE, PACKAGE.parent) if _is_there(place, name)), None)


def is_packaged(folder: Path) -> bool:
    """Whether it is the folder inside an installed package, which holds specs and no scripts."""
    return folder.resolve() == PACKAGE / SPECS


def _is_there(place: Path, name: str) -> bool:
    return (place / SPECS / name).is_file()
