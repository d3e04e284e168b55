"""`certify --json`: one image's answer as an object, its keys as docs/cli.md has them."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.cli.image_answer import ImageAnswer
from toolkit.cli.json_output import print_json
from toolkit.cli.notes import read_notes
from toolkit.cli.question import Question
from toolkit.networks.network import Network
from toolkit.problems.answers import Bound
from toolkit.problems.input_sets import Ball
from toolkit.runs.batch import BatchPlan


def print_answer(question: Question, done: ImageAnswer) -> None:
    """The verdict, its margins, every rung's bounds, l,u in numbers, the witness."""
    verdict = done.verdict
    clean = done.problem.replay(done.ball.center)[0].tolist()
    margins = [
        {"group": k, "target": bound.target, "clean": clean[k], **_interval(bound), "decided_by": by}
        for k, (bound, by) in enumerate(zip(verdict.margins, verdict.decided_by, strict=True))
    ]
    print_json(
        "certify",
        {
            "network": network_facts(question, done.network),
            **asked_facts(question, done.label),
            "set": set_facts(done.ball),
            "verdict": verdict.verdict,
            "reason": verdict.reason,
            "rung": verdict.rung,
            "certified": verdict.certified,
            "trusts_solver": verdict.trusts_solver,
            "covers_all": verdict.covers_all,
            "margins": margins,
            "rungs": {name: [_shown(bound) for bound in bounds] for name, bounds in done.found.items()},
            "layers": _layers(done.problem.relu_bounds.counts()),
            "witness": verdict.witness,
            "witness_class": verdict.witness_class,
            "seconds": done.seconds,
            "bounds_seconds": done.bounds_seconds,
            "rung_seconds": verdict.rung_seconds,
            "notes": [*read_notes(done.network), *done.notes],
        },
    )


def network_facts(question: Question, network: Network) -> dict[str, object]:
    """The network: source as given, name, digest, sizes."""
    return {
        "source": question.network,
        "name": network.name,
        "digest": network.digest,
        "inputs": network.input_size,
        "outputs": network.output_size,
    }


def asked_facts(question: Question, label: int | None) -> dict[str, object]:
    """What the centre is, and what is asked of it."""
    return {
        "data": question.data,
        "index": question.index,
        "image": question.image,
        "label": label,
        "property": question.property_file,
    }


def set_facts(ball: Ball | BatchPlan) -> dict[str, object]:
    """Norm, ε and domain; lists where they are per coordinate."""
    return {"norm": ball.norm, "eps": ball.eps, "domain": ball.domain}


def _interval(bound: Bound) -> dict[str, object]:
    return {
        "lower": bound.lower,
        "upper": bound.upper,
        "certified_lower": bound.certified_lower,
        "certified_upper": bound.certified_upper,
    }


def _shown(bound: Bound) -> dict[str, object]:
    facts = {"status": bound.status, "seconds": bound.seconds, "solver": bound.solver, "nodes": bound.nodes}
    return {"target": bound.target, **_interval(bound), **facts}


def _layers(counts: Sequence[tuple[int, int, int]]) -> list[dict[str, int]]:
    return [dict(zip(("unstable", "active", "inactive"), map(int, one), strict=True)) for one in counts]
