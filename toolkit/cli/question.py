"""`certify`: which of its options go together, and what they ask. Nothing heavy is imported before they are checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from toolkit.arrays import FloatArray
from toolkit.data.amounts import DataDomain, read_domain
from toolkit.data.arguments import check_writable, one_of
from toolkit.data.dataset_parts import UNIT_RANGE
from toolkit.data.names import BALL_NORMS

OF_DATA = "data"  # --domain, where it is left out
DEFAULT_LADDER = "dual,pgd,bab"  # as ladder.LADDER, which would take a second to import for --help


@dataclass(frozen=True, kw_only=True)
class Question:
    """The options as they were given; see `relugap certify --help`.

    norm: of the ball. eps: a number, or one per coordinate. box: --domain, None with --no-domain, OF_DATA for the
    data set's own. rung, rungs: two ways to name bounds. bounds: the chain for
    l,u. climbed: --ladder. property_file: --property.
    """

    network: str
    eps: float | FloatArray
    norm: str = "linf"
    architecture: str | None = None
    box: str | None = OF_DATA
    data: str | None = None
    index: int | None = None
    image: Path | None = None
    label: int | None = None
    rung: Sequence[str] = ()
    rungs: str | None = None
    bounds: str = "interval,dual"
    targets: Sequence[int] | None = None
    climbed: str | None = None
    solver: str = "auto"
    trust_solver: bool = False
    time_limit: float | None = None
    count: int | None = None
    workers: int = 1
    out: Path | None = None
    proof: Path | None = None
    property_file: Path | None = None
    witness_file: Path | None = None
    as_json: bool = False
    exit_code: bool = False

    @property
    def asked(self) -> list[str]:
        """The bounds named, however they were given."""
        return [*self.rung, *(listed("--rungs", self.rungs) if self.rungs is not None else ())]

    @property
    def shown(self) -> list[str]:
        """The bounds to compute and show."""
        return self.asked or ["dual", "lp", "exact"]

    @property
    def chain(self) -> tuple[str, ...]:
        """The rungs that bound layers."""
        return tuple(listed("--bounds", self.bounds))

    @property
    def ladder(self) -> tuple[str, ...]:
        """The rungs to climb: --ladder, else those named, else the default."""
        if self.climbed is not None:
            return tuple(listed("--ladder", self.climbed))
        return tuple(self.asked or DEFAULT_LADDER.split(","))

    @cached_property
    def domain(self) -> DataDomain | None:
        """What numbers may lie in as far as the options say; [0, 1] where they say OF_DATA."""
        if self.box is None:
            return None
        return UNIT_RANGE if self.box == OF_DATA else read_domain("--domain", self.box)

    def check(self) -> None:
        """Raises ValueError for options that are wrong or do not go together, before anything heavy is imported."""
        if hasattr(self.eps, "shape") and self.norm != "linf":
            raise ValueError(f"--eps of one radius per coordinate is for --norm linf, got {self.norm}")
        _ = self.chain, self.ladder, one_of("--norm", self.norm, BALL_NORMS)
        if self.count is not None:
            if self.data is None or self.index is not None or self.image is not None:
                raise ValueError("--count needs --data and neither --index nor --image")
            single = {
                "--proof": self.proof,
                "--save-witness": self.witness_file,
                "--label": self.label,
                "--target": self.targets,
            }
            for name, value in single.items():
                if value is not None:
                    raise ValueError(f"{name} is for one image, not for --count")
            return
        for name, value in {"--label": self.label, "--target": self.targets}.items():
            if self.property_file is not None and value is not None:
                raise ValueError(f"{name} asks about classes, --property about rows of its own; give one of them")
        if self.out is not None or self.workers != 1:
            raise ValueError(f"{'--workers' if self.out is None else '--out'} is for --count, not for one image")
        if self.image is not None and self.index is not None and self.data is None:
            raise ValueError("--index is for --data, an --image is one image already")
        if self.witness_file is not None:
            if self.witness_file.suffix not in (".npy", ".png"):
                raise ValueError(f"--save-witness writes a .npy or a .png, got {self.witness_file.name!r}")
            check_writable(self.witness_file)
        if self.proof is not None:
            if self.proof.suffix != ".npz":
                raise ValueError(f"proofs are written as .npz, got {self.proof.name!r}")
            check_writable(self.proof)


def listed(option: str, text: str) -> list[str]:
    """The names of a comma-separated option. Raises ValueError for an empty one."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise ValueError(f"{option} must be names with a comma between two, as in dual,lp, got {text!r}")
    return found
