"""What a sweep computes, as a TOML file: networks × samples × ε × layer-bound chains × rungs.

    name = "demo"
    samples = 5                                  # drawn with `seed` from the test split, or a list of indices
    eps = [0.01, 0.02]
    norm = "linf"                                # optional: of the balls; linf, l1 or l2
    domain = [0, 1]                              # optional: cut every ball by this box
    targets = [3, 8]                             # optional: only margins to these classes; or property = { rows = … }
    layer_bounds = [["interval", "dual"]]
    rungs = ["dual", "lp", "exact"]

    [[networks]]
    source = "zoo:digits-standard"               # or a file; relative paths are looked up beside the spec
    dataset = "digits"                           # or a .npz, a .csv or a folder of images, as in "./photos"

Names and numbers are checked here, before any work starts; what needs the networks and images (indices, sizes) is
checked by plan.py, also before any work starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, field_validator, model_validator

from toolkit.data.datasets import data_beside
from toolkit.data.names import path_name
from toolkit.data.summaries import counted, one_line, span
from toolkit.data.toml_file import StrictModel, load_toml, spec_path, validated
from toolkit.networks.network import Network
from toolkit.networks.published import PREFIX
from toolkit.problems.property_table import PropertyTable
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rung
from toolkit.rungs.rung import Side
from toolkit.runs.spec_fields import Amount, AnyDataset, AnyNetwork, Count, Domain, Index, Names, NormName, Seconds
from toolkit.solvers.registry import check_solver_name


def _checked_eps(values: tuple[float, ...]) -> tuple[float, ...]:
    if not values:
        raise ValueError("eps must list at least one radius, got none")
    for value in values:
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"eps must be finite and ≥ 0, got {value}")
    return _without_repeats("eps", values)


def _without_repeats(key: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    repeated = [value for k, value in enumerate(values) if value in values[:k]]
    if repeated:
        raise ValueError(f"{key} must not repeat an entry, got {repeated[0]!r} twice")
    return values


class SweptNetwork(StrictModel):
    """One network with the data set whose test images it is asked about.

    source: "zoo:NAME", "published:NAME", a file, or a Network. dataset: a name, a file or folder of one's own, or a
    Dataset. eps: replaces the sweep's list. architecture: for .pth files. name:
    shown in tables instead of the network's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    source: AnyNetwork
    dataset: AnyDataset
    eps: tuple[Amount, ...] | None = None
    architecture: str | None = None
    name: str | None = None

    @field_validator("eps")
    @classmethod
    def _eps_valid(cls, values: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return None if values is None else _checked_eps(values)


class SweepSpec(StrictModel):
    """A sweep: every rung on every (network, sample, ε, layer-bound chain), for all targets t ≠ label, or all groups.

    name: also of the folder it writes to, results/NAME, so it has no separators; see names.path_name.
    samples: how many to draw with `seed` from the test split, without replacement (a larger count keeps the smaller
    one's), or their indices. eps: ≥ 0, in input units; "8/255" is one too. norm: linf, l1 or l2.
    domain: (low, high) cuts every ball.
    targets: classes t to bound the margins to, None: all; a sample of the only one is left out. property: what is asked
    of every sample in place of its label; a row's `target` is then the number of a group.
    solver, time_limit (seconds per objective), threads, mip_gap, mip_gap_abs, rigorous, attack_*: as in Settings.
    task_time_limit: seconds for all rungs of one (network, sample, ε); what is not reached is recorded as time_limit.
    cache_bounds: keep l,u on disk, so that a rung added later does not recompute them. Raises
    pydantic.ValidationError (a ValueError).
    """

    name: Annotated[str, Field(min_length=1)]
    networks: Annotated[tuple[SweptNetwork, ...], Field(min_length=1)]
    samples: Count | Annotated[tuple[Index, ...], Field(min_length=1)]
    eps: tuple[Amount, ...]
    rungs: Annotated[Names, Field(min_length=1)]
    layer_bounds: Annotated[tuple[Names, ...], Field(min_length=1)] = (("interval", "dual"),)
    norm: NormName = "linf"
    domain: Domain | None = None
    targets: Annotated[tuple[Index, ...], Field(min_length=1)] | None = None
    property: PropertyTable | None = None
    seed: Index = 0
    solver: str = "auto"
    time_limit: Seconds | None = None
    task_time_limit: Seconds | None = None
    threads: Count = 1
    mip_gap: Annotated[float, Field(ge=0, lt=1)] = Settings.mip_gap
    mip_gap_abs: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Settings.mip_gap_abs
    rigorous: bool = True
    attack_steps: Count = Settings.attack_steps
    attack_restarts: Count = Settings.attack_restarts
    cache_bounds: bool = False

    def __repr__(self) -> str:
        names = ", ".join(one.name or str(getattr(one.source, "name", one.source)) for one in self.networks)
        samples = self.samples if isinstance(self.samples, int) else len(self.samples)
        asked = [counted(samples, "sample"), f"eps {span(self.eps)} in {self.norm}", f"rungs {', '.join(self.rungs)}"]
        return one_line("SweepSpec", [self.name, f"networks {names}", *asked])

    @field_validator("name")
    @classmethod
    def _name_fits_a_path(cls, name: str) -> str:
        return path_name(name, "name")

    @field_validator("eps")
    @classmethod
    def _eps_valid(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        return _checked_eps(values)

    @field_validator("samples")
    @classmethod
    def _samples_differ(cls, samples: int | tuple[int, ...]) -> int | tuple[int, ...]:
        return samples if isinstance(samples, int) else _without_repeats("samples", samples)

    @field_validator("targets")
    @classmethod
    def _targets_differ(cls, targets: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if targets is None else _without_repeats("targets", targets)

    @field_validator("rungs")
    @classmethod
    def _rungs_known(cls, names: Names) -> Names:
        for name in names:
            get_rung(name)
        return _without_repeats("rungs", names)

    @field_validator("layer_bounds")
    @classmethod
    def _chains_known(cls, chains: tuple[Names, ...]) -> tuple[Names, ...]:
        for chain in chains:
            if not chain:
                raise ValueError("every layer_bounds chain must name at least one rung, got an empty one")
            for name in chain:
                if get_rung(name).side is Side.UPPER:
                    raise ValueError(f"rung {name!r} gives upper bounds only and cannot bound layers")
        return _without_repeats("layer_bounds", chains)

    @field_validator("solver")
    @classmethod
    def _solver_known(cls, name: str) -> str:
        return check_solver_name(name)

    @model_validator(mode="after")
    def _networks_differ(self) -> SweepSpec:
        _without_repeats("networks", tuple((n.source, n.dataset, n.architecture) for n in self.networks))
        return self

    @model_validator(mode="after")
    def _settings_hold(self) -> SweepSpec:
        self.settings()
        return self

    @model_validator(mode="after")
    def _one_question(self) -> SweepSpec:
        if self.targets is not None and self.property is not None:
            raise ValueError(
                "targets belong to labels, a property has groups of its own; give one of targets, property"
            )
        return self

    def settings(self) -> Settings:
        """The Settings every rung of the sweep runs under."""
        return Settings(
            solver=self.solver,
            time_limit=self.time_limit,
            threads=self.threads,
            mip_gap=self.mip_gap,
            mip_gap_abs=self.mip_gap_abs,
            rigorous=self.rigorous,
            seed=self.seed,
            attack_steps=self.attack_steps,
            attack_restarts=self.attack_restarts,
        )


def load_spec(path: str | Path) -> SweepSpec:
    """The spec in a TOML file; relative network files are looked up beside it.

    Raises FileNotFoundError, or ValueError in one line that names the file and the key with what is allowed, or the
    line that is not TOML.
    """
    return _found_beside(load_toml(path, SweepSpec), spec_path(path).resolve().parent)


def parse_spec(content: Mapping[str, Any], folder: Path | None = None) -> SweepSpec:
    """The spec in a mapping, with one-line errors. folder: where relative network files are looked up."""
    spec = validated(SweepSpec, content)
    return spec if folder is None else _found_beside(spec, folder)


def _found_beside(spec: SweepSpec, folder: Path) -> SweepSpec:
    found = tuple(
        n.model_copy(update={"source": _resolved(n.source, folder), "dataset": data_beside(n.dataset, folder)})
        for n in spec.networks
    )
    return spec.model_copy(update={"networks": found})


def _resolved(source: str | Network, folder: Path) -> str | Network:
    if isinstance(source, Network):
        return source
    return source if source.startswith(("zoo:", PREFIX)) else str(folder / Path(source).expanduser())
