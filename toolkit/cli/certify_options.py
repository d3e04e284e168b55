"""`certify`: which of its options go together, and what they ask. Nothing heavy is imported before they are checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.data.arguments import check_writable

DEFAULT_LADDER = "dual,pgd,lp,ideal,exact"  # as ladder.LADDER, which would take a second to import for --help


@dataclass(frozen=True, kw_only=True)
class CertifyOptions:
    """The options as they were given; see `relugap certify --help`. box: --domain, None with --no-domain."""

    network: str
    architecture: str | None
    eps: float
    box: str | None
    data: str | None
    index: int | None
    image: Path | None
    label: int | None
    shown: Sequence[str]
    shown_list: str | None
    chain: str
    targets: Sequence[int] | None
    climbed: str | None
    solver: str
    trust_solver: bool
    time_limit: float | None
    count: int | None
    workers: int
    out: Path | None
    proof: Path | None

    @property
    def rungs(self) -> list[str]:
        """The bounds asked for, however they were given; none by default."""
        return [*self.shown, *(listed("--rungs", self.shown_list) if self.shown_list is not None else ())]

    @property
    def ladder(self) -> tuple[str, ...]:
        """The rungs to climb: --ladder, else those to show, else the default."""
        if self.climbed is not None:
            return tuple(listed("--ladder", self.climbed))
        return tuple(self.rungs or DEFAULT_LADDER.split(","))

    @property
    def domain(self) -> tuple[float, float] | None:
        """The box that cuts the ball."""
        if self.box is None:
            return None
        try:
            low, high = (float(part) for part in self.box.split(","))
        except ValueError:
            raise ValueError(f"--domain must be LOW,HIGH, as in 0,1, got {self.box!r}") from None
        return low, high


def run_certify(options: CertifyOptions) -> None:
    """Check that the options fit together, and answer for one image or for many."""
    chain, ladder = listed("--bounds", options.chain), options.ladder
    if options.count is not None:
        return _certify_many(options, chain, ladder)
    return _certify_one(options, chain, ladder)


def _certify_many(options: CertifyOptions, chain: Sequence[str], ladder: tuple[str, ...]) -> None:
    if options.data is None or options.count is None or options.index is not None or options.image is not None:
        raise ValueError("--count needs --data and neither --index nor --image")
    for name, value in {"--proof": options.proof, "--label": options.label, "--target": options.targets}.items():
        if value is not None:
            raise ValueError(f"{name} is for one image, not for --count")
    from toolkit.cli.verdicts import BatchQuestion, answer_batch
    from toolkit.problems.problem import Settings
    from toolkit.runs.batch import BatchPlan
    from toolkit.solvers.registry import check_solver_name

    settings = Settings(solver=check_solver_name(options.solver), rigorous=not options.trust_solver)
    limit = options.time_limit
    plan = BatchPlan(options.eps, options.domain, ladder, tuple(chain), settings=settings, time_limit=limit)
    given = options.network, options.architecture, options.data, options.count
    answer_batch(BatchQuestion(*given, plan, options.workers, options.out))


def _certify_one(options: CertifyOptions, chain: Sequence[str], ladder: tuple[str, ...]) -> None:
    from toolkit.cli.certify import Question, answer

    if options.out is not None or options.workers != 1:
        option = "--workers" if options.out is None else "--out"
        raise ValueError(f"{option} is for --count, not for one image")
    if options.image is not None and options.index is not None and options.data is None:
        raise ValueError("--index is for --data, an --image is one image already")
    if options.proof is not None:
        if options.proof.suffix != ".npz":
            raise ValueError(f"proofs are written as .npz, got {options.proof.name!r}")
        check_writable(options.proof)
    question = Question(
        network=options.network, architecture=options.architecture, eps=options.eps, domain=options.domain,
        data=options.data, index=options.index, image=options.image, label=options.label,
        rungs=options.rungs or ["dual", "lp", "exact"], chain=chain, targets=options.targets, ladder=ladder,
        trust_solver=options.trust_solver,
    )  # fmt: skip
    answer(question, options.solver, options.time_limit)
    if options.proof is not None:
        from toolkit.cli.check import prove

        prove(question, options.proof, options.time_limit)


def listed(option: str, text: str) -> list[str]:
    """The names of a comma-separated option. Raises ValueError for an empty one."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise ValueError(f"{option} must be names with a comma between two, as in dual,lp, got {text!r}")
    return found
