"""The experiments of a checkout: experiments/catalogue.toml, and how each kind is run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

import toolkit
from toolkit.data.names import path_name
from toolkit.data.toml_file import StrictModel, load_toml

CATALOGUE = Path("experiments", "catalogue.toml")


class Experiment(StrictModel):
    """One experiment. file: beside the catalogue; a .toml is an entry or a sweep, a .py a script with --out.

    shows: one line. minutes: on two cores, at the size of results/NAME. count: the script's option for a smaller size.
    arguments: of the script, always given. workers: whether it takes --workers. needs: a package that is no dependency.
    """

    name: Annotated[str, Field(min_length=1)]
    file: str
    shows: str
    minutes: Annotated[float, Field(gt=0)]
    count: str | None = None
    arguments: tuple[str, ...] = ()
    workers: bool = False
    needs: str = ""

    @field_validator("name", "file")
    @classmethod
    def _fits_a_path(cls, value: str) -> str:
        return path_name(value, "name and file of an experiment")


class _Catalogue(StrictModel):
    experiments: Annotated[tuple[Experiment, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Catalogue:
    """The experiments by name, and the folder of their files."""

    folder: Path
    experiments: dict[str, Experiment]

    def __getitem__(self, name: str) -> Experiment:
        if name not in self.experiments:
            raise ValueError(f"unknown experiment {name!r}; allowed: all, {', '.join(self.experiments)}")
        return self.experiments[name]


def read_catalogue() -> Catalogue:
    """The catalogue of the working folder, else of the checkout this package is installed from.

    Raises FileNotFoundError where there is neither, ValueError for a catalogue that is wrong.
    """
    checkout = Path(toolkit.__file__).resolve().parents[1]
    found = next((folder / CATALOGUE for folder in (Path(), checkout) if (folder / CATALOGUE).is_file()), None)
    if found is None:
        raise FileNotFoundError(f"no {CATALOGUE} here nor in {checkout}; run this in a checkout of the project")
    content = load_toml(found, _Catalogue, "catalogue")
    missing = [one.file for one in content.experiments if not (found.parent / one.file).is_file()]
    if missing:
        raise ValueError(f"{found}: there is no {missing[0]} beside it")
    return Catalogue(found.parent, {one.name: one for one in content.experiments})
