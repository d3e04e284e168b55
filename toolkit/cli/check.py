"""`check`, and `certify --proof`: proofs that can be verified without a solver."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from toolkit.certificates.check import Checked, RejectedProofError, check_proof
from toolkit.cli.asked import asked_property, ball_domain, centre
from toolkit.cli.json_output import print_json
from toolkit.cli.question import Question
from toolkit.data.amounts import domain_text
from toolkit.data.datasets import load_dataset
from toolkit.data.names import NORM_TITLES, markup_text, printable
from toolkit.networks.network import Network
from toolkit.problems.input_set import InputSet
from toolkit.problems.input_sets import Box, make_ball
from toolkit.problems.properties import as_property
from toolkit.problems.property_table import load_property, property_digest
from toolkit.problems.settings import Settings

NOT_CHECKED = dict.fromkeys(("verdict", "reason", "positive", "label", "leaves", "set", "claims", "seconds"))


def prove(question: Question, path: Path) -> None:
    """Search for a proof of the question's margins, write it and say what it proves."""
    from toolkit.verify.prove import write_proof

    network = Network.load(question.network, question.architecture)
    _, center, label = centre(question, network)
    ball = make_ball(question.norm, center, question.eps, ball_domain(question))
    started = time.perf_counter()
    asked = asked_property(question, network, label)
    proof = write_proof(path, network, ball, asked, settings=Settings(time_limit=question.time_limit))
    seconds = time.perf_counter() - started
    least = f"smallest certified margin {min(proof.claims):.6g}, {proof.leaves} leaves, {seconds:.3g} s"
    word = "every margin is positive" if proof.positive else "not every margin could be shown positive"
    Console(quiet=question.as_json).print(
        f"proof {printable(path)}: {word}; {least}", highlight=False, markup=False, soft_wrap=True
    )


def answer_check(
    path: Path,
    source: str,
    architecture: str | None,
    data: str | None,
    index: int | None,
    property_file: Path | None,
    as_json: bool = False,
) -> bool:
    """Verify a proof and print what it states; False if it is rejected, or is about another image or property."""
    if (data is None) != (index is None):
        raise ValueError("--data and --index go together: the image that the ball's centre must be")
    if not path.is_file():
        raise FileNotFoundError(f"no proof at {path}")
    network = Network.load(source, architecture)
    wanted = None if property_file is None else as_property(load_property(property_file), network.output_size)
    started = time.perf_counter()
    console = Console(soft_wrap=True, quiet=as_json)
    facts: dict[str, object] = {"proof": path, "data": data, "index": index, "property": property_file}
    facts["network"] = {"source": source, "name": network.name, "digest": network.digest}
    try:
        checked = check_proof(path, network)
        seconds = time.perf_counter() - started
        if data is not None and index is not None:
            _compare(checked, data, index, wanted is not None)
        if wanted is not None and property_digest(checked.question) != property_digest(wanted):
            raise RejectedProofError(f"the proof is about another question than the property in {property_file}")
    except RejectedProofError as error:
        console.print(f"[bold red]REJECTED[/]: {markup_text(error)}", highlight=False)
        if as_json:
            print_json("check", {**facts, **NOT_CHECKED, "verdict": "REJECTED", "reason": str(error)})
        return False
    console.print(f"[bold green]VERIFIED[/] in {seconds:.3g} s: {checked.leaves} leaves, network {network.digest[:12]}",
                  highlight=False)  # fmt: skip
    own = "" if checked.label is None else " and its label"
    image = f"test image {index} of {data}{own}" if data is not None else "the centre in the file"
    asked = f"the property in {property_file or 'the file'}" if checked.label is None else f"class {checked.label}"
    console.print(f"{printable(asked)}, {_about(checked.ball, image)}", highlight=False, markup=False)
    margin = "margin of group" if checked.label is None else "margin to class"
    for target, claim in checked.claims.items():
        console.print(f"{margin} {target} ≥ {claim:.6g}", highlight=False)
    console.print(_summary(checked), highlight=False, markup=False)
    if as_json:
        print_json("check", {**facts, **NOT_CHECKED, **_checked_facts(checked), "seconds": seconds})
    return True


def _checked_facts(checked: Checked) -> dict[str, object]:
    ball = checked.ball
    box = {"lower": ball.lower, "upper": ball.upper} if isinstance(ball, Box) else {}
    asked = {"eps": getattr(ball, "eps", None), "domain": getattr(ball, "domain", None)}
    return {
        "verdict": "VERIFIED",
        "reason": _summary(checked),
        "positive": checked.positive,
        "label": checked.label,
        "leaves": checked.leaves,
        "set": {"norm": ball.norm, **(box or asked)},
        "claims": [{"target": target, "lower": claim} for target, claim in checked.claims.items()],
    }


def _about(ball: InputSet, image: str) -> str:
    """The input set of a proof in words. image: what its centre is."""
    if isinstance(ball, Box):
        return "the box in the file"
    eps, domain = getattr(ball, "eps", None), getattr(ball, "domain", None)
    size = f"ε = {eps!r}" if isinstance(eps, float) else f"one ε per coordinate, the largest {ball.radius!r},"
    return f"{size} in {NORM_TITLES[ball.norm]} around {image}, {domain_text(domain)}"


def _summary(checked: Checked) -> str:
    """What the verified claims say about adversarial examples, or about points that break the property."""
    if checked.label is None:
        still = sorted(group for group, claim in checked.claims.items() if not claim > 0)
        where = f"not shown for groups {', '.join(map(str, still))}" if still else "holds everywhere in the set"
        return f"the property {where}"
    if checked.positive:
        return "no adversarial example in the ball"
    missing = sorted(set(range(checked.classes)) - set(checked.claims) - {checked.label})
    open_ = sorted(target for target, claim in checked.claims.items() if not claim > 0)
    parts = [f"not shown positive: {', '.join(map(str, open_))}"] if open_ else []
    parts += [f"not in the proof: {', '.join(map(str, missing))}"] if missing else []
    return f"the ball is not shown free of adversarial examples; margins to classes {'; '.join(parts)}"


def _compare(checked: Checked, data: str, index: int, named: bool) -> None:
    """Raise RejectedProofError unless the proof is about this image, and its label or a property that is named."""
    images = load_dataset(data, domain=getattr(checked.ball, "domain", None))
    if not 0 <= index < len(images):
        raise ValueError(f"--index must be in 0 … {len(images) - 1} for {images.name}, got {index}")
    features = images.features[index]
    if features.shape != checked.ball.center.shape or not (features == checked.ball.center).all():
        raise RejectedProofError(f"the ball's centre is not test image {index} of {images.name}")
    label = int(images.labels[index])
    if checked.label is None and not named:
        raise RejectedProofError("the proof is about a property, not about the image's label; name it by --property")
    if checked.label is not None and checked.label != label:
        raise RejectedProofError(
            f"the proof is about class {checked.label}, but test image {index} of {images.name} has label {label}"
        )
