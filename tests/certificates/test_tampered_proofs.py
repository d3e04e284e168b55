"""Hundreds of tamperings with a proof that has trees of every kind: each is rejected, and what is accepted is true."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import random_dense_network
from oracle import least_margins
from phase_trees import grown, halved, refined

from toolkit.certificates.check import RejectedProofError, check_proof
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.verify.proof_trees import Searches
from toolkit.verify.prove import write_proof

Content = dict[str, Any]
Change = Callable[[Content], None]
SEED, TARGETS = 2, (1, 2)


@cache
def subject() -> tuple[Network, LinfBall]:
    rng = np.random.default_rng(SEED)
    return random_dense_network(rng, (2, 5, 4, 3)), LinfBall(rng.normal(size=2), 0.8)


def read(path: Path) -> Content:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def header_of(content: Content) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(str(content["header"]))
    return found


def with_header(content: Content, **changes: Any) -> None:
    content["header"] = np.array(json.dumps(header_of(content) | changes))


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> Content:
    """Refined layers; the margin to class 1 by a tree over phases, that to class 2 by one over the box."""
    folder = tmp_path_factory.mktemp("tampered")
    network, ball = subject()
    parts = []
    for target, searches in zip(TARGETS, (Searches(refined, grown), Searches(refined, None, halved)), strict=True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("toolkit.verify.proof_trees._by_search", lambda problem, rows, store: [None] * rows.size)
            patch.setattr("toolkit.verify.settled_boxes.SETTLING_ROUNDS", 0)
            path = folder / f"{target}.npz"
            write_proof(path, network, ball, 0, [target], Settings(stop_at=1e9), searches=searches)
        parts.append(read(path))
    whole = parts[0] | {key: array for key, array in parts[1].items() if key.startswith("target2.")}
    with_header(whole, targets=list(TARGETS), claims=[claim for part in parts for claim in header_of(part)["claims"]])
    assert whole["tight1.neurons"].size >= 4
    assert whole["tight1.empty"].any()
    assert whole["target1.phases"].shape[0] == 16
    assert np.count_nonzero(whole["target2.axis"] >= 0) == 15
    return whole


def accepted(content: Content, folder: Path) -> dict[int, float]:
    np.savez(folder / "p.npz", **content)
    return check_proof(folder / "p.npz", subject()[0]).claims


def test_the_proof_itself_is_accepted(proof: Content, tmp_path: Path) -> None:
    truths = dict(zip(TARGETS, least_margins(*subject(), 0), strict=True))
    for target, claim in accepted(proof, tmp_path).items():
        assert Fraction(claim) <= truths[target]
        assert claim > float(truths[target]) - 0.1  # and not for claiming little


FLOATS = ("lower0", "upper0", "lower1", "upper1", "center", "tight1.multipliers", "target1.multipliers", "target2.cut")
WHOLE = (
    "tight1.neurons", "tight1.signs", "tight1.ends", "tight1.phases", "target1.phases", "target1.ends", "target2.axis",
)  # fmt: skip
FLAGS = ("tight1.empty", "target1.empty")
KEYS = (*FLOATS, *WHOLE, *FLAGS)
OTHERS = (
    "header", "tight0.neurons", "tight0.signs", "tight0.ends", "tight0.phases", "tight0.multipliers", "tight0.empty",
    "cut.neurons", "cut.ends", "cut.columns", "target1.weights", "target1.cuts",
)  # fmt: skip


def missing(key: str) -> Change:
    return lambda content: content.pop(key)


def renamed(key: str) -> Change:
    return lambda content: content.update({f"{key}s": content.pop(key)})


def changed(key: str, change: Callable[[Any], Any]) -> Change:
    return lambda content: content.update({key: change(content[key])})


def put(key: str, place: Any, value: Any) -> Change:
    def change(content: Content) -> None:
        content[key] = content[key].copy()
        content[key][place] = value

    return change


def of_arrays() -> Iterator[tuple[str, Change]]:
    """Every array missing, renamed, of another shape or kind, longer, shorter, or with numbers that are none."""
    for key in (*KEYS, *OTHERS):
        yield f"{key} missing", missing(key)
        yield f"{key} renamed", renamed(key)
        yield f"{key} with one more axis", changed(key, lambda array: array[None])
        yield f"{key} complex", changed(key, lambda array: np.zeros(array.shape, dtype=np.complex128))
    for key in KEYS:
        yield f"{key} without its last", changed(key, lambda array: array[:-1])
        yield f"{key} with its last twice", changed(key, lambda array: np.concatenate([array, array[-1:]]))
        yield f"{key} empty", changed(key, lambda array: array[:0])
    for key in FLOATS:
        yield f"{key} of whole numbers", changed(key, lambda array: np.zeros(array.shape, dtype=np.int64))
        yield f"{key} in long doubles", changed(key, lambda array: array.astype(np.longdouble))
        for value in (np.inf, -np.inf) if key != "lower0" else (np.inf, np.nan):
            if (key, value) not in (("lower1", -np.inf), ("upper1", np.inf), ("upper0", np.inf)):
                yield f"{key} with {value}", changed(key, lambda array, value=value: np.full_like(array, value))
        if not key.endswith("multipliers"):
            yield f"{key} with one NaN", put(key, 0, np.nan)
    for key in (*WHOLE, *FLAGS):
        yield f"{key} of floats", changed(key, lambda array: array.astype(np.float64))
        if key not in ("tight1.phases", "target1.phases", "target2.axis", "tight1.signs"):
            continue
        for value in (-2, 2, 3, 100):
            yield f"{key} with {value}", put(key, (0,) * (1 + key.endswith("phases")), value)


def of_numbers() -> Iterator[tuple[str, Change]]:
    """Claims and l,u by a little more than was proven, and places that are none."""
    for t, more in itertools.product(range(2), (1e-6, 1e-3, 1.0, 1e300)):

        def more_is_claimed(content: Content, t: int = t, more: float = more) -> None:
            claims = header_of(content)["claims"]
            claims[t] += more
            with_header(content, claims=claims)

        yield f"claim {t} by {more}", more_is_claimed
    for side, layer, sign in (("lower", 0, 1), ("upper", 0, -1), ("lower", 1, 1), ("upper", 1, -1)):
        for i in range(5 - layer):
            name = f"{side}{layer}"
            yield (
                f"{name}[{i}] tighter",
                changed(name, lambda array, i=i, s=sign: array + 1e-6 * s * np.eye(array.size)[i]),
            )
            yield (
                f"{name}[{i}] crossed",
                changed(name, lambda array, i=i, s=sign: array + 1e3 * s * np.eye(array.size)[i]),
            )
    for value in (-1, 4, 100):
        yield f"tight1.neurons with {value}", put("tight1.neurons", 0, value)
    for value in (-1, 0, 10_000):
        yield f"tight1.ends with {value}", put("tight1.ends", -1, value)
    yield "tight1.signs with 0", put("tight1.signs", 0, 0)
    yield "tight1.signs turned round", changed("tight1.signs", lambda signs: -signs)
    yield "tight1.ends turned round", changed("tight1.ends", lambda ends: ends[::-1].copy())
    yield "tight1.neurons shifted", changed("tight1.neurons", lambda own: np.roll(own, 2))
    yield "another format", lambda content: with_header(content, format=1)
    yield "targets the other way round", lambda content: with_header(content, targets=[2, 1])
    yield "a target twice", lambda content: with_header(content, targets=[1, 1])
    yield "one target fewer", lambda content: with_header(content, targets=[1], claims=[-100.0])
    yield "another label", lambda content: with_header(content, label=1, targets=[0, 2])
    yield "a larger ball", lambda content: with_header(content, eps=0.81, ball=LinfBall(content["center"], 0.81).digest)
    yield "another ball's digest", lambda content: with_header(content, eps=0.7)
    yield "another centre", changed("center", lambda center: center + 1e-9)
    yield "another network", lambda content: with_header(content, network="0" * 64)


def of_leaves(key: str, leaf: int) -> Iterator[tuple[str, Change]]:
    """One leaf of a tree over phases: gone, twice, in another's place, split otherwise, without proof, said empty."""
    parts = [f"{key}.{part}" for part in ("phases", "multipliers", "empty")]

    def gone(content: Content) -> None:
        for part in parts:
            content[part] = np.delete(content[part], leaf, axis=0)
        ends = content[f"{key}.ends"]
        content[f"{key}.ends"] = np.delete(ends, leaf) if key[:6] == "target" else ends - (ends > leaf)

    def twice(content: Content) -> None:
        for part in parts:
            content[part] = np.insert(content[part], leaf, content[part][leaf], axis=0)
        ends = content[f"{key}.ends"]
        content[f"{key}.ends"] = np.insert(ends, leaf, 0) if key[:6] == "target" else ends + (ends > leaf)

    def replaced(content: Content) -> None:
        for part in parts:
            content[part] = content[part].copy()
            content[part][leaf] = content[part][leaf - 1 if leaf % 2 else leaf + 1]

    def flipped(content: Content) -> None:
        content[parts[0]] = content[parts[0]].copy()
        split = np.flatnonzero(content[parts[0]][leaf] >= 0)[-1]
        content[parts[0]][leaf, split] = 1 - content[parts[0]][leaf, split]

    def merged(content: Content) -> None:
        content[parts[0]] = content[parts[0]].copy()
        content[parts[0]][leaf] = -1

    def said_empty(content: Content) -> None:
        """With λ = 0, which proves 0 ≥ 0."""
        put(f"{key}.empty", leaf, True)(content)
        put(f"{key}.multipliers", leaf, 0.0)(content)

    yield f"{key} leaf {leaf} gone", gone
    yield f"{key} leaf {leaf} twice", twice
    yield f"{key} leaf {leaf} like its neighbour", replaced
    yield f"{key} leaf {leaf} split otherwise", flipped
    yield f"{key} leaf {leaf} without splits", merged
    yield f"{key} leaf {leaf} of other multipliers", put(f"{key}.multipliers", leaf, 1e3)
    yield f"{key} leaf {leaf} of no multipliers", put(f"{key}.multipliers", leaf, np.inf)
    yield f"{key} leaf {leaf} said to be empty", said_empty


def of_boxes() -> Iterator[tuple[str, Change]]:
    """Every inner node of the tree over the box cut elsewhere or made a leaf; leaves made inner nodes; nodes gone."""
    axis = np.array([a for a, _ in preorder(4)])
    for node in np.flatnonzero(axis >= 0).tolist():
        for cut in (100.0, -100.0, np.nan, np.inf):
            yield f"node {node} cut at {cut}", put("target2.cut", node, cut)
        yield f"node {node} made a leaf", put("target2.axis", node, -1)
        yield f"node {node} on no coordinate", put("target2.axis", node, 2)
    for node in np.flatnonzero(axis < 0).tolist():
        yield f"leaf {node} cut", put("target2.axis", node, 0)
    for node in (0, 3, 7, len(axis) - 1):

        def gone(content: Content, node: int = node) -> None:
            for part in ("axis", "cut"):
                content[f"target2.{part}"] = np.delete(content[f"target2.{part}"], node)

        def twice(content: Content, node: int = node) -> None:
            for part in ("axis", "cut"):
                content[f"target2.{part}"] = np.insert(
                    content[f"target2.{part}"], node, content[f"target2.{part}"][node]
                )

        yield f"node {node} gone", gone
        yield f"node {node} twice", twice

    def pruned(content: Content) -> None:
        content["target2.axis"], content["target2.cut"] = np.array([-1]), np.zeros(1)

    def both(content: Content) -> None:
        for part in ("phases", "multipliers", "empty", "weights", "cuts", "ends"):
            content[f"target2.{part}"] = content[f"target1.{part}"]

    yield "the root alone", pruned
    yield "both kinds of trees", both
    yield "boxes of format 1", lambda content: with_header(content, format=1)


def preorder(depth: int) -> list[tuple[int, None]]:
    """Which nodes of a complete tree are inner ones (0) and which leaves (−1)."""
    return [(0, None), *preorder(depth - 1), *preorder(depth - 1)] if depth else [(-1, None)]


TAMPERINGS = dict(
    itertools.chain(
        of_arrays(), of_numbers(), of_boxes(),
        *(of_leaves("tight1", leaf) for leaf in range(8)), *(of_leaves("target1", leaf) for leaf in (0, 5, 10, 15)),
    )
)  # fmt: skip


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampered_trees_are_rejected(name: str, proof: Content, tmp_path: Path) -> None:
    content = dict(proof)
    TAMPERINGS[name](content)
    with pytest.raises(RejectedProofError) as error:
        accepted(content, tmp_path)
    assert str(error.value)


def test_there_are_hundreds_of_tamperings() -> None:
    assert len(TAMPERINGS) > 400


@pytest.mark.parametrize("at_once", [1, 5])
def test_every_batch_of_boxes_is_looked_at(
    at_once: int, proof: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One box or five at a time: the same is accepted, and a claim that the worst box alone misses is not."""
    monkeypatch.setattr("toolkit.certificates.coverage.MOST_BOXES", at_once)
    claims = header_of(proof)["claims"]
    assert accepted(proof, tmp_path) == dict(zip(TARGETS, claims, strict=True))
    content = dict(proof)
    with_header(content, claims=[claims[0], claims[1] + 1e-6])
    with pytest.raises(RejectedProofError, match=r"target 2: box .* does not reach the claim"):
        accepted(content, tmp_path)


def test_another_network_or_question_is_rejected(proof: Content, tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", **proof)
    network, ball = subject()
    checked = check_proof(tmp_path / "p.npz", network)
    other = random_dense_network(np.random.default_rng(SEED + 1), (2, 5, 4, 3))
    for wrong in (other, random_dense_network(np.random.default_rng(SEED), (2, 5, 3)), network.cut(1)):
        with pytest.raises(RejectedProofError, match="network has another digest"):
            check_proof(tmp_path / "p.npz", wrong)
    checked.require(ball.center, 0.8, 0)
    for asked in ({"center": ball.center + 1e-12}, {"eps": 0.9}, {"label": 1}):
        with pytest.raises(RejectedProofError):
            checked.require(**asked)


def test_whatever_is_accepted_is_true(proof: Content, tmp_path: Path) -> None:
    """Random changes of cuts, multipliers, l,u and claims at once: whenever the checker is content, so is the truth."""
    truths = dict(zip(TARGETS, least_margins(*subject(), 0), strict=True))
    rng, believed = np.random.default_rng(0), 0
    for _ in range(60):
        content = dict(proof)
        claims = [float(truths[t]) + rng.choice([-1.0, -0.1, -0.1, 1e-7]) for t in TARGETS]
        with_header(content, claims=claims)
        for key in rng.choice(["tight1.multipliers", "target1.multipliers", "target2.cut", "lower1", "upper1"], 2):
            noise = rng.normal(size=content[key].shape) * 10.0 ** rng.uniform(-6, -1)
            content[key] = (content[key] + noise).astype(content[key].dtype)
        for side, sign in (("lower1", -1), ("upper1", 1)):
            content[side] = content[side] + sign * rng.choice([0.0, 0.1]) * (rng.random() < 0.7)
        try:
            found = accepted(content, tmp_path)
        except RejectedProofError:
            continue
        believed += 1
        assert all(Fraction(found[t]) <= truths[t] for t in TARGETS)
    assert believed > 5
