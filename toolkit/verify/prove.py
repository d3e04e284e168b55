"""A proof that a ball is free of adversarial examples, as a file that `check.py` verifies without any solver.

Claim of the file: for every target t listed, F_{c*}(x) − F_t(x) ≥ claim_t for all x in the ball, F being the network
with that digest in real arithmetic; of another property, max_j c_j·F(x) + d_j ≥ claim_g for every group g. It holds the
question and the ball, l,u of every ReLU layer with the trees that tightened single sides (all others follow from the
dual rung's own multipliers), the cuts as (neuron, subset), and per target a search tree: the leaves of one over phases
with splits, multipliers, and weights of cuts, or the nodes of one over the input box. Nothing in it needs to be
believed. What is searched with stands in proof_trees.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.certificates.check import all_shown
from toolkit.certificates.dual_bound import unit_bounds
from toolkit.certificates.leaves import CutStore, SideTrees
from toolkit.certificates.proof_file import PROOF_FORMAT, provable_set, question_parts, set_parts
from toolkit.certificates.rounding import error_model_of
from toolkit.data.arguments import check_writable, file_path, instance, yes_or_no
from toolkit.data.atomic import write_atomically
from toolkit.networks.network import Network
from toolkit.problems.bounds import ReluBounds, region_digest
from toolkit.problems.input_set import InputSet, check_is_input_set
from toolkit.problems.lowering import lowered
from toolkit.problems.phases import is_unstable
from toolkit.problems.problem import Problem
from toolkit.problems.properties import Property, as_property
from toolkit.problems.region import Region
from toolkit.problems.settings import Settings
from toolkit.verify.layer_bounds import output_scales
from toolkit.verify.proof_trees import (
    SEARCHES,
    Refine,
    Searches,
    loosened,
    margin_trees,
    packed_sides,
    row_scales,
    tightened,
)
from toolkit.verify.usable_settings import usable_settings


@dataclass(frozen=True)
class Proof:
    """What was proven: claims per target (of a property per group), certified lower bounds of the margins.

    leaves: size of the trees.
    """

    question: Property = field(repr=False)
    targets: tuple[int, ...]
    claims: tuple[float, ...]
    leaves: int

    @property
    def label(self) -> int | None:
        """The class the question is about, None for another property."""
        return self.question.label

    @property
    def classes(self) -> int:
        """Number of the network's outputs."""
        return self.question.outputs

    @property
    def positive(self) -> bool:
        """Whether every class but the label was shown to lose, or every group to be safe, anywhere in the set."""
        return all_shown(self.question, dict(zip(self.targets, self.claims, strict=True)))


def write_proof(
    path: str | Path,
    network: Network,
    ball: InputSet,
    label: int | Property,
    targets: Sequence[int] | None = None,
    settings: Settings | None = None,
    tighten: bool = True,
    searches: Searches = SEARCHES,
) -> Proof:
    """Search for a proof that every margin is positive and write what was found, positive or not, to an .npz file.

    ball: of a box with rational ends, as a VNN-LIB question has it, the proof is about the box of floats around it, and
    that is what the file holds. label: or a Property, whose groups take the place of the targets. tighten: also bound
    unstable neurons by trees; searches: what finds the trees. settings.time_limit: seconds per target and search, and
    per layer for its trees; settings.stop_at: what to prove of every margin (None: > 0). Raises ValueError for another
    suffix, a label or target out of range or twice, or no target at all; OSError, before the search, where the
    file cannot be written.
    """
    tighten = yes_or_no("tighten", tighten)
    path = file_path("path", path)
    if path.suffix != ".npz":
        raise ValueError(f"proofs are written as .npz, got {path.name!r}")
    ball = provable_set(check_is_input_set("ball", ball))
    instance("network", network, Network), set_parts(ball)
    question = as_property(label, network.output_size, targets)
    whole, asked = lowered(network, question)
    settings = usable_settings(settings)
    given = replace(settings, solver="highs")
    settings = replace(given, stop_at=0.0 if given.stop_at is None else given.stop_at)
    check_writable(path)
    bounds, content = provable_bounds(whole, ball, settings, searches.refine if tighten else None)
    problem = Problem(Region(whole, ball, bounds), asked.objective, settings)
    store, trees = margin_trees(problem, searches)
    sizes = row_scales(problem).tolist()
    claims = [tree.certified - float(loosened(tree.certified, size)) for tree, size in zip(trees, sizes, strict=True)]
    head, arrays = question_parts(question)
    for t, tree in zip(head["targets"], trees, strict=True):
        content |= {f"target{t}.{name}": array for name, array in tree.content.items()}
    content |= _header(network, ball, {**head, "claims": claims}) | arrays | _packed_cuts(store)
    with write_atomically(path) as file:
        np.savez_compressed(file, **content)
    return Proof(question, tuple(head["targets"]), tuple(claims), sum(tree.leaves for tree in trees))


def _header(network: Network, ball: InputSet, claimed: dict[str, Any]) -> dict[str, Any]:
    """What is claimed, and of what."""
    own, arrays = set_parts(ball)
    header = {"format": PROOF_FORMAT, "network": network.digest, **own, **claimed}
    return {"header": np.array(json.dumps(header)), **arrays}


def _packed_cuts(store: CutStore) -> dict[str, Any]:
    """Every cut's neuron and subset, the subsets one after the other, and shares where any are not 1."""
    every = [store.shares.get(i, np.ones(subset.size)) for i, subset in enumerate(store.subsets)]
    shares = {"cut.shares": np.concatenate(every).astype(np.float32)} if store.shares else {}
    return shares | {
        "cut.neurons": np.array(store.neurons, dtype=np.int64),
        "cut.ends": np.cumsum([subset.size for subset in store.subsets], dtype=np.int64),
        "cut.columns": np.concatenate([np.zeros(0, dtype=np.int64), *store.subsets]).astype(np.int32),
    }


def provable_bounds(
    network: Network, ball: InputSet, settings: Settings, refine: Refine | None
) -> tuple[ReluBounds, dict[str, Any]]:
    """l,u by the dual rung, and by trees where neurons stay unstable, and what a proof holds of them by key."""
    lower: list[FloatArray] = []
    upper: list[FloatArray] = []
    content: dict[str, Any] = {}
    chain = ("dual",) if refine is None else ("dual", "bab")
    region = region_digest(network, ball)  # hashes the weights once for all cuts
    for k, size in enumerate(network.relu_sizes):
        cut = network.cut(k)
        known = ReluBounds.sealed(lower, upper, chain, True, region_digest(cut, ball))
        plain = replace(settings, stop_at=None)
        problem = Problem.of(cut, ball, np.zeros((0, size)), known, plain)
        model = error_model_of(problem)
        low, high = unit_bounds(model, size, 1), -unit_bounds(model, size, -1)
        trees = SideTrees.none(model.count)
        unstable = np.flatnonzero(is_unstable(low, high))
        if k and refine is not None and unstable.size:
            low, high, trees = tightened(problem, low, high, unstable, refine)
        scales = output_scales(problem)
        lower.append(low - loosened(low, scales))
        upper.append(high + loosened(high, scales))
        content |= {f"lower{k}": lower[k], f"upper{k}": upper[k]}
        content |= {f"tight{k}.{name}": array for name, array in packed_sides(trees).items()}
    return ReluBounds.sealed(lower, upper, chain, True, region), content
