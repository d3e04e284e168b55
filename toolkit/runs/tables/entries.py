"""What a reproduction is, as a TOML file in experiments/: a table of robust errors or of certified radii, with the
published values it is compared to.

    kind = "errors"                                # or "radii"
    title = "…"
    source = "Salman et al. 2019, Table 1"

    [[stages]]                                     # the columns, in order; each asks the images still undecided
    name = "LP"
    bounds = ["dual"]                              # chain for l,u
    ladder = ["lp"]

    [[rows]]
    name = "LPD-MLP-B .1"
    network = "published:salman-2019/LPD_MLP_B_0.1"
    dataset = "mnist"
    eps = 0.1
    published = { clean = 4.09, LP = 17.24 }       # % of the test set, by column

Rows may replace `stages`, and give another `samples` (how many of the first test images) or `time_limit` to a stage by
its name: `samples = { exact = 1000 }`; rows of errors may ask about another `norm` of balls ("l1", "l2"). Names, keys
and ranges are checked here, before any work starts; whether weights and images are at hand, and fit each other, when
their row begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from toolkit.data.toml_file import StrictModel, open_toml
from toolkit.problems.settings import Settings
from toolkit.rungs import get_rung
from toolkit.rungs.rung import Side
from toolkit.runs.batch import BatchPlan
from toolkit.runs.spec_fields import (
    Amount,
    Count,
    DatasetName,
    Domain,
    Index,
    Names,
    NetworkSource,
    NormName,
    RungName,
    Seconds,
)

Rungs = tuple[RungName, ...]
Percent = Annotated[float, Field(ge=0, le=100)]
CLEAN = "clean"


class StageSpec(StrictModel):
    """One column: what images that no earlier stage of the row decided are asked.

    bounds, ladder, tighten, time_limit (seconds an image): as in `certify`. samples: how many of the row's images, None
    = all. attack_steps, attack_restarts: as in Settings.
    """

    name: Annotated[str, Field(min_length=1)]
    ladder: Annotated[Rungs, Field(min_length=1)]
    bounds: Rungs = ("interval", "dual")
    tighten: Rungs = ()
    samples: Count | None = None
    time_limit: Seconds | None = None
    attack_steps: Count = Settings.attack_steps
    attack_restarts: Count = Settings.attack_restarts

    @field_validator("name")
    @classmethod
    def _not_clean(cls, name: str) -> str:
        if name == CLEAN:
            raise ValueError(f"a stage cannot be called {CLEAN!r}, which is the column of misclassified images")
        return name

    @model_validator(mode="after")
    def _settings_hold(self) -> StageSpec:
        self.settings()
        return self

    @property
    def certifies(self) -> bool:
        """Whether the column says which images are not certified; else which are attacked."""
        return any(get_rung(name).side is not Side.UPPER for name in self.ladder)

    @property
    def versions(self) -> dict[str, int]:
        """Of the rungs, so that answers of an older one are not taken for a newer one's."""
        return {name: get_rung(name).version for name in (*self.bounds, *self.tighten, *self.ladder)}

    def settings(self) -> Settings:
        """Those of the attacks; the others are the default ones."""
        return Settings(attack_steps=self.attack_steps, attack_restarts=self.attack_restarts)

    def plan(self, eps: float, domain: tuple[float, float] | None, norm: str = "linf") -> BatchPlan:
        """The question as certify_batch takes it."""
        how = self.ladder, self.bounds, self.tighten
        return BatchPlan(eps, domain, *how, settings=self.settings(), time_limit=self.time_limit, norm=norm)


class _Row(StrictModel):
    """A network and the data set it is asked about. architecture: of a .pth file of one's own. note: shown below."""

    name: Annotated[str, Field(min_length=1)]
    network: NetworkSource
    dataset: DatasetName
    architecture: str | None = None
    domain: Domain | None = None
    note: str = ""


class ErrorsRow(_Row):
    """One row of robust errors. published: % by column, or [low, high] where only an interval was published.

    norm: of the balls, one of BALL_NORMS.
    """

    eps: Annotated[Amount, Field(ge=0)]
    norm: NormName = "linf"
    samples: Mapping[str, Count] = {}
    time_limit: Mapping[str, Seconds] = {}
    stages: Names | None = None
    published: Mapping[str, Percent | tuple[Percent, Percent]] = {}


class RadiiRow(_Row):
    """One row of mean radii over the given test images. published: by column, in units of 10⁻³.

    predicted: ask about the class that the network says at the image, right or wrong, instead of the image's label.
    """

    predicted: bool = False
    samples: Annotated[tuple[Index, ...], Field(min_length=1)]
    largest: Annotated[Amount, Field(gt=0)] = 0.5
    methods: Names | None = None
    published: Mapping[str, float] = {}


class Absent(StrictModel):
    """A published row that cannot be reproduced, and why."""

    name: str
    reason: str
    published: Mapping[str, float | tuple[float, float]] = {}

    @property
    def shown(self) -> str:
        """The published values in one line, by column."""
        return ", ".join(f"{name} {published_text(value)}" for name, value in self.published.items())


def published_text(value: float | tuple[float, float] | None) -> str:
    """A published value as in the paper's table; "" where it has none."""
    if value is None:
        return ""
    return f"{value[0]:.2f} … {value[1]:.2f}" if isinstance(value, tuple) else f"{value:.2f}"


class ErrorsEntry(StrictModel):
    """A table of robust errors."""

    kind: Literal["errors"]
    title: str
    source: str
    stages: Annotated[tuple[StageSpec, ...], Field(min_length=1)]
    rows: Annotated[tuple[ErrorsRow, ...], Field(min_length=1)]
    absent: tuple[Absent, ...] = ()

    @model_validator(mode="after")
    def _names_fit(self) -> ErrorsEntry:
        _distinct("stage", [stage.name for stage in self.stages])
        _distinct("row", [row.name for row in self.rows])
        columns = [stage.name for stage in self.stages]
        for row in self.rows:
            _known(row.name, "samples", row.samples, columns)
            _known(row.name, "time_limit", row.time_limit, columns)
            _known(row.name, "stages", row.stages or (), columns)
            _known(row.name, "published", row.published, [CLEAN, *columns])
        return self

    def stages_of(self, row: ErrorsRow) -> list[StageSpec]:
        """The row's own stages, in the table's order, with its own samples and time limits."""
        chosen = [stage for stage in self.stages if row.stages is None or stage.name in row.stages]
        return [
            stage.model_copy(
                update={
                    "samples": row.samples.get(stage.name, stage.samples),
                    "time_limit": row.time_limit.get(stage.name, stage.time_limit),
                }
            )
            for stage in chosen
        ]


class RadiusMethod(StageSpec):
    """One column of a table of radii: the ladder whose verdict is bisected until the radius is known to `tolerance`.

    time_limit: seconds a verdict, of which a radius takes about ten. samples: of the rows alone, refused here.
    """

    tolerance: Annotated[Amount, Field(gt=0)] = 1e-4
    samples: None = None


class RadiiEntry(StrictModel):
    """A table of mean certified radii (for an attack alone: of mean radii at which it succeeds)."""

    kind: Literal["radii"]
    title: str
    source: str
    methods: Annotated[tuple[RadiusMethod, ...], Field(min_length=1)]
    rows: Annotated[tuple[RadiiRow, ...], Field(min_length=1)]
    absent: tuple[Absent, ...] = ()

    @model_validator(mode="after")
    def _names_fit(self) -> RadiiEntry:
        _distinct("method", [method.name for method in self.methods])
        _distinct("row", [row.name for row in self.rows])
        columns = [method.name for method in self.methods]
        for row in self.rows:
            _known(row.name, "methods", row.methods or (), columns)
            _known(row.name, "published", row.published, columns)
        return self

    def methods_of(self, row: RadiiRow) -> list[RadiusMethod]:
        """The row's own methods, in the table's order."""
        return [method for method in self.methods if row.methods is None or method.name in row.methods]


Entry = ErrorsEntry | RadiiEntry


def _distinct(what: str, names: Sequence[str]) -> None:
    repeated = [name for k, name in enumerate(names) if name in names[:k]]
    if repeated:
        raise ValueError(f"{what} names must differ, got {repeated[0]!r} twice")


def _known(row: str, key: str, names: Mapping[str, Any] | Sequence[str], allowed: Sequence[str]) -> None:
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise ValueError(f"row {row!r}: {key} names no column {unknown[0]!r}; allowed: {', '.join(allowed)}")


def load_entry(path: str | Path) -> Entry:
    """Read and check an entry. Raises FileNotFoundError, ValueError naming the file and what does not fit."""
    file = open_toml(path, "table")
    kinds: dict[object, type[ErrorsEntry] | type[RadiiEntry]] = {"errors": ErrorsEntry, "radii": RadiiEntry}
    kind = file.content.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"{file.path}: kind must be {' or '.join(map(str, kinds))}, got {kind!r}")
    return file.read_as(kinds[kind])
