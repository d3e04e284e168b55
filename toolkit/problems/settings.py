"""What steers a rung but not the question."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from toolkit.data.arguments import check_settings

ELIDED = (("device", "cpu"), ("hopeless", None))  # fields and defaults that keys from before lack


@dataclass(frozen=True)
class Settings:
    """What steers a rung but not the question.

    solver: "auto" or a name in SOLVERS ("auto" for `exact` may also take the bab rung). time_limit: seconds per
    objective row, None = none. threads: per solver. mip_gap, mip_gap_abs: relative and absolute gap at which a MILP
    counts as solved, whichever comes first. stop_at: with a number, an exact rung may stop as soon as it has proven
    lower > stop_at, or has a replayed point ≤ stop_at; with until_refuted such a point for one row ends the work on all
    rows. nodes: per tree of a search over ReLU phases: of every neuron and side where it bounds layers (None: 64), of
    every row else (None: no limit); `certify` then refines once, by so many, not in turns. hopeless: nodes of a row's
    tree after which it is given up if by its progress it would need more than `nodes`, and after which one with planes
    of the first layer ends; of a neuron's tree, after which it ends once twice the nodes bring it little (None: never;
    `certify` sets its own where `nodes` is None). device: where that search computes: "cpu", numpy on a core, or a
    torch device such as "cuda"; what it finds is certified on the core anyway.
    attack_steps/restarts: for pgd. seed: for every random choice. rigorous: verdicts rest on certified bounds alone,
    and `exact` under "auto" is the bab rung, whose bounds are certified. False: a MILP solver's word counts too, and
    "auto" may take Gurobi for it.
    """

    solver: str = "auto"
    time_limit: float | None = None
    threads: int = 1
    mip_gap: float = 1e-4
    mip_gap_abs: float = 1e-6
    stop_at: float | None = None
    seed: int = 0
    attack_steps: int = 40
    attack_restarts: int = 5
    rigorous: bool = True
    until_refuted: bool = False
    nodes: int | None = None
    hopeless: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_settings(self)
        if self.time_limit is not None and not self.time_limit > 0:
            raise ValueError(f"time_limit must be > 0 seconds or None, got {self.time_limit}")
        if not 0 <= self.mip_gap < 1:
            raise ValueError(f"mip_gap must be in [0, 1), got {self.mip_gap}")
        if not self.mip_gap_abs >= 0:
            raise ValueError(f"mip_gap_abs must be ≥ 0, got {self.mip_gap_abs}")

    @property
    def record(self) -> dict[str, Any]:
        """All fields, for the key of an answer; those of ELIDED only where they are something else."""
        return {name: value for name, value in asdict(self).items() if (name, value) not in ELIDED}
