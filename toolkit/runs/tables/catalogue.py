"""The experiments there are: experiments/catalogue.toml, and how each kind is run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from toolkit.data.names import path_name
from toolkit.data.shipped_specs import is_packaged, shipped_spec
from toolkit.data.toml_file import StrictModel, load_toml

CATALOGUE = "catalogue.toml"
FROM_CHECKOUT = "run this in a checkout of the project, where scripts and their tests are"


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

    def has(self, experiment: Experiment) -> bool:
        """Whether its file is here; scripts are part of a checkout, not of an installed package."""
        return (self.folder / experiment.file).is_file()

    def file(self, experiment: Experiment) -> Path:
        """Where its file is. Raises FileNotFoundError for a script of a checkout."""
        if not self.has(experiment):
            raise FileNotFoundError(
                f"{experiment.name} is a script, experiments/{experiment.file}, that is not part of the installed "
                f"package; {FROM_CHECKOUT}"
            )
        return self.folder / experiment.file


def read_catalogue() -> Catalogue:
    """The catalogue of the working folder, else of the installed package, else of the checkout it is installed from.

    Raises FileNotFoundError where there is none, ValueError for a catalogue that is wrong. Scripts are part of a
    checkout alone: `Catalogue.file` says so of those that an installed package leaves out.
    """
    found = shipped_spec(CATALOGUE)
    if found is None:
        raise FileNotFoundError(f"no experiments/{CATALOGUE} here, in the package or beside it; {FROM_CHECKOUT}")
    content = load_toml(found, _Catalogue, "catalogue")
    missing = [one.file for one in content.experiments if not (found.parent / one.file).is_file()]
    if is_packaged(found.parent):
        missing = [file for file in missing if not file.endswith(".py")]
    if missing:
        raise ValueError(f"{found}: there is no {missing[0]} beside it")
    return Catalogue(found.parent, {one.name: one for one in content.experiments})
