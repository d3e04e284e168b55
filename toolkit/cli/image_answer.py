"""One image asked by `certify`: every bound asked for, and the verdict, within one time limit."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from toolkit.cli.asked import asked_property, ball_domain, centre
from toolkit.cli.question import Question
from toolkit.cli.witness_file import check_witness_file
from toolkit.networks.network import Network
from toolkit.problems.answers import Bound
from toolkit.problems.input_sets import Ball, make_ball
from toolkit.problems.lowering import lowered
from toolkit.problems.problem import Problem
from toolkit.problems.region import Region
from toolkit.problems.settings import Settings
from toolkit.rungs import RUNGS, get_rung
from toolkit.rungs.rung import Rung, Side
from toolkit.solvers.registry import check_solver_name
from toolkit.verify.certification import Certification
from toolkit.verify.ladder import certify
from toolkit.verify.layer_bounds import layer_bounds

LEAST_SECONDS = 1e-3  # of a margin, where all time is spent
Found = Mapping[str, Sequence[Bound]]
_logger = logging.getLogger("relugap.certify")


@dataclass(frozen=True, eq=False)
class ImageAnswer:
    """What `certify` found of one image. bounds_seconds: of l,u. found: every bound shown, by rung."""

    network: Network
    title: str
    label: int | None
    ball: Ball
    problem: Problem
    chosen: Sequence[Rung]
    bounds_seconds: float
    found: Found
    verdict: Certification
    seconds: float

    @property
    def notes(self) -> list[str]:
        """What rungs said beside their numbers, each text once."""
        return sorted({bound.message for bounds in self.found.values() for bound in bounds if bound.message})


def answer_image(question: Question) -> ImageAnswer:
    """Every bound asked for, and the verdict; names and files are checked before any work.

    The time limit is for all of it: l,u may take half of it, every rung what is left, shared with those to come.
    """
    solver, limit = check_solver_name(question.solver), question.time_limit
    settings = Settings(solver, time_limit=limit, rigorous=not question.trust_solver)
    chosen = sorted({get_rung(name).name: get_rung(name) for name in question.shown}.values(), key=_place)
    network = Network.load(question.network, question.architecture)
    check_witness_file(question.witness_file, network)
    title, center, label = centre(question, network)
    asked = asked_property(question, network, label)
    ball = make_ball(question.norm, center, question.eps, ball_domain(question))
    _logger.info("network %s, %d inputs, %d outputs; %s", network.name, network.input_size, network.output_size, title)
    whole, rows = lowered(network, asked)
    started = time.perf_counter()
    end = None if limit is None else started + limit
    relu_bounds = layer_bounds(
        whole, ball, question.chain, settings, deadline=None if limit is None else started + limit / 2
    )
    bounds_seconds = time.perf_counter() - started
    _logger.info("l,u by %s in %.3g s", "+".join(question.chain), bounds_seconds)
    problem = Problem(Region(whole, ball, relu_bounds), rows.objective, settings)
    found: dict[str, Sequence[Bound]] = {}
    for k, rung in enumerate(chosen):
        began = time.perf_counter()
        share = None if end is None else (end - began) / (len(chosen) - k + 1) / max(1, len(problem.targets))
        own = (
            problem if share is None else problem.with_settings(replace(settings, time_limit=max(share, LEAST_SECONDS)))
        )
        found[rung.name] = rung(own)
        _logger.info("%s in %.3g s", rung.name, time.perf_counter() - began)
    left = None if end is None else max(end - time.perf_counter(), LEAST_SECONDS)
    answer = certify(
        network, ball, asked, question.ladder, question.chain, settings=settings, time_limit=left, known=found,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    _logger.info("%s in %.3g s", answer.verdict, seconds)
    return ImageAnswer(network, title, label, ball, problem, chosen, bounds_seconds, found, answer, seconds)


def _place(rung: Rung) -> tuple[int, int]:
    """Lower bounds first, then exact rungs, then attacks; within a side in the registry's order."""
    return [Side.LOWER, Side.EXACT, Side.UPPER].index(rung.side), list(RUNGS).index(rung.name)
