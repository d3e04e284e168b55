"""Checks a proof file with no solver and no search: each number in it is only a suggestion.

1. Network and ball have the digests in the file; the question is lowered again, to one row per group. 2. l,u hold,
layer by layer: by the certified bound of dual_bound.py at the dual rung's multipliers, or by stored trees, one or more
per side, of which the best counts; a tree proves the least of its leaves. 3. Every tree's leaves cover all activation
patterns (they form a binary tree) or the whole input box (coverage.py). 4. Every leaf's bound reaches the claim, or
proves the leaf empty; cuts are derived again from the network, never read; boxes are bounded from nothing but
themselves (box_leaves.py). Shares with the search only dual_bound.py, leaves.py, rounding.py, what lowers questions and
what removes inactive neurons. A key that is not used, or an array of another kind, rejects the file (proof_file.py).

Trusted: this file, those modules, and numpy's float64 arithmetic as rounding.py states it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import FloatArray
from toolkit.certificates.box_leaves import box_leaf_bounds
from toolkit.certificates.coverage import BoxTree, covered
from toolkit.certificates.dual_bound import Cuts, certified_bounds, derive_cuts, unit_bounds
from toolkit.certificates.leaves import Forest, SideTrees
from toolkit.certificates.proof_file import (
    PROOF_LIMIT,
    PROOF_RATIO,
    SHARES,
    read_arrays,
    read_header,
    read_question,
    read_set,
)
from toolkit.certificates.rounding import ErrorModel, make_error_model
from toolkit.data.archives import ArchiveError, open_archive
from toolkit.data.arguments import file_path, instance, one_of
from toolkit.networks.network import Network
from toolkit.networks.weights import dense_array, exact_numbers
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.boxes import BoxShaped
from toolkit.problems.input_set import InputSet, check_is_input_set
from toolkit.problems.input_sets import INPUT_SETS, make_ball
from toolkit.problems.lowering import lowered
from toolkit.problems.properties import Property
from toolkit.problems.property_table import property_digest
from toolkit.problems.reduced import restrict_to_alive

LEAVES_AT_ONCE = 256


class RejectedProofError(ValueError):
    """The proof does not hold; the text says where and why."""


@dataclass(frozen=True)
class Checked:
    """What a verified proof states: F_label − F_t ≥ claims[t] on the input set, of a network with this many classes.

    question: what was asked; where it is no label's (label None), claims are lower bounds of the groups' margins.
    """

    ball: InputSet
    label: int | None
    claims: dict[int, float]
    leaves: int
    classes: int
    question: Property = field(repr=False)

    @property
    def positive(self) -> bool:
        """Whether all classes but the label were shown to lose, or all groups to be safe, anywhere in the set."""
        return all_shown(self.question, self.claims)

    def require(
        self,
        center: Any = None,
        eps: Any = None,
        label: int | None = None,
        input_set: InputSet | None = None,
        question: Property | None = None,
        norm: str | None = None,
        domain: Any = None,
    ) -> None:
        """Raise RejectedProofError unless the proof is about this centre, ball, class and question (None: not asked),
        and about all of this input set: the same one, or one in the proof's box.

        eps: asks for the very ball of this radius in this norm (None: linf), cut by this domain (None: by none, or by
        one that cuts nothing off). Raises ValueError for what is no centre, ball, input set or property.
        """
        if input_set is not None:
            check_is_input_set("input_set", input_set)
        if question is not None:
            instance("question", question, Property)
        if eps is None and domain is not None:
            raise ValueError("domain goes with eps, got eps = None")
        if center is not None and not np.array_equal(exact_numbers("center", center).ravel(), self.ball.center):
            raise RejectedProofError("the ball's centre is not the image")
        if norm is not None and one_of("norm", norm, tuple(INPUT_SETS)) != self.ball.norm:
            raise RejectedProofError(f"the proof is about a set in {self.ball.norm}, not in {norm}")
        if eps is not None:
            self._require_ball(eps, "linf" if norm is None else norm, domain)
        if label is not None and label != self.label:
            raise RejectedProofError(f"the proof is about class {self.label}, not {label}")
        if input_set is not None and not self._holds(input_set):
            raise RejectedProofError(f"the proof's set ({self.ball.title}) does not hold all of the one asked about")
        if question is not None and property_digest(question) != property_digest(self.question):
            raise RejectedProofError("the proof is about another question")

    def _require_ball(self, eps: Any, norm: str, domain: Any) -> None:
        own = getattr(self.ball, "eps", None)
        asked = make_ball(norm, self.ball.center.reshape(self.ball.shape), eps, domain)
        if own is None or not np.array_equal(own, asked.eps):
            raise RejectedProofError(f"the proof is about {self.ball.title}, not ε = {asked.eps}")
        if norm != self.ball.norm:
            raise RejectedProofError(f"the proof is about a ball in {self.ball.norm}, not in {norm}; norm says which")
        ends = zip((asked.lower, asked.upper), (self.ball.lower, self.ball.upper), strict=True)
        if not all(np.array_equal(*sides) for sides in ends):
            cut = getattr(self.ball, "domain", None)
            raise RejectedProofError(f"the proof's ball is cut by the domain {cut}, not by {domain}; domain says which")

    def _holds(self, other: InputSet) -> bool:
        if other.size != self.ball.size or not isinstance(self.ball, BoxShaped):
            return other.digest == self.ball.digest
        inside = (other.lower >= self.ball.inner_lower) & (other.upper <= self.ball.inner_upper)
        return other.digest == self.ball.digest or bool(np.all(inside))


def all_shown(question: Property, claims: Mapping[int, float]) -> bool:
    """Whether there is a claim > 0 for every class but the label, or for every group, and at least one."""
    label = question.label
    needed = set(range(question.count)) if label is None else set(range(question.outputs)) - {label}
    return bool(needed) and set(claims) == needed and all(claim > 0 for claim in claims.values())


def check_proof(path: str | Path, network: Network) -> Checked:
    """Verify a proof file against a network. Raises RejectedProofError with the reason, FileNotFoundError."""
    file = file_path("path", path)
    instance("network", network, Network)
    if not file.is_file():
        raise FileNotFoundError(f"no proof file at {path}")
    try:
        with open_archive(file, PROOF_LIMIT, PROOF_RATIO) as archive:
            header = read_header(archive)
            _require(header["network"] == network.digest, "the network has another digest than the proof's")
            question = read_question(archive, header, network.output_size)
            whole, low = lowered(network, question)
            content = read_arrays(archive, network.input_size, whole.relu_sizes, header)
        return _Check(whole, question, low, header, content).run()
    except ArchiveError as error:
        raise RejectedProofError(f"malformed: {error}") from None
    except (RejectedProofError, OSError):
        raise
    except Exception as error:  # numbers that fit each other as little as IndexError and OverflowError say
        reason = (str(error).splitlines() or ["no message"])[0][:200]
        raise RejectedProofError(f"malformed: {type(error).__name__}: {reason}") from None


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise RejectedProofError(reason)


class _Check:
    """network: what the question was lowered to; asked: one row per target about it."""

    def __init__(
        self, network: Network, question: Property, asked: Property, header: dict[str, Any], content: dict[str, Any]
    ) -> None:
        self.network, self.question, self.header, self.content = network, question, header, content
        self.ball = read_set(header, content)
        _require(header["ball"] == self.ball.digest, "the ball has another digest than the proof's")
        self.rows, self.targets = dense_array(asked.objective.rows), [int(t) for t in header["targets"]]
        _require(len(header["claims"]) == len(self.targets) == len(self.rows), "one claim per target needed")

    def run(self) -> Checked:
        sizes = self.network.relu_sizes
        self.lower = [self._floats(f"lower{k}", (n,)) for k, n in enumerate(sizes)]
        self.upper = [self._floats(f"upper{k}", (n,)) for k, n in enumerate(sizes)]
        for k in range(len(sizes)):
            self._check_layer(k)
        model = self._model(len(sizes))
        self.cut_neurons, self.cut_members = self._cuts(model)
        leaves = 0
        claims = dict(zip(self.targets, map(float, self.header["claims"]), strict=True))
        for row, (target, claim) in zip(self.rows, claims.items(), strict=True):
            leaves += self._check_target(model, row, target, claim)
        return Checked(self.ball, self.question.label, claims, leaves, self.question.outputs, self.question)

    def _floats(self, name: str, shape: tuple[int, ...], kind: str = "f") -> Any:
        array = self.content.get(name)
        _require(array is not None, f"{name} is missing")
        assert array is not None
        _require(array.shape == shape and array.dtype.kind == kind, f"{name} has shape {array.shape}, {array.dtype}")
        return array

    def _model(self, layers: int) -> ErrorModel:
        """The error model of the network up to ReLU layer `layers`, with the l,u verified so far."""
        cut = self.network.cut(layers) if layers < len(self.network.stages) else self.network
        bounds = ReluBounds(tuple(self.lower[:layers]), tuple(self.upper[:layers]))
        return make_error_model(cut, restrict_to_alive(cut, bounds), self.ball)

    def _check_layer(self, k: int) -> None:
        """l and u of layer k follow from those below it, by the dual's own multipliers or by trees of single sides."""
        model, size, own = self._model(k), self.network.relu_sizes[k], f"tight{k}"
        count, leaves = self.content[f"{own}.neurons"].size, self.content[f"{own}.empty"].size
        ends = np.concatenate([[0], self._floats(f"{own}.ends", (count,), "i")])
        _require(bool(np.all(np.diff(ends) >= 0)) and ends[-1] == leaves, f"{own}.ends must rise to {leaves}")
        forest = Forest(
            np.repeat(np.arange(count), np.diff(ends)),
            self._floats(f"{own}.phases", (leaves, model.count), "i"),
            self._floats(f"{own}.multipliers", (leaves, model.count)),
            self._floats(f"{own}.empty", (leaves,), "b"),
        )
        trees = SideTrees(self.content[f"{own}.neurons"], self.content[f"{own}.signs"], forest)
        open_ = np.flatnonzero(~covered(forest.tree, forest.phases, count))
        _require(not open_.size, f"the leaves of tree {open_[:1]} in {own} do not cover every case")
        chord = [unit_bounds(model, size, sign) for sign in (1, -1)]
        low, high, _ = trees.ranges(model, chord[0], -chord[1])
        for side, good in (("l", low >= self.lower[k]), ("u", high <= self.upper[k])):
            wrong = np.flatnonzero(~good)
            _require(not wrong.size, f"{side} of neuron {wrong[:1]} in ReLU layer {k} is not proven")

    def _cuts(self, model: ErrorModel) -> tuple[Any, Any]:
        """Neurons and shares θ of all cuts, of inputs and unstable neurons of earlier layers only."""
        count = self.content["cut.neurons"].size
        neurons = self._floats("cut.neurons", (count,), "i")
        ends = np.concatenate([[0], self._floats("cut.ends", (count,), "i")])
        columns = self._floats("cut.columns", (int(ends[-1]),), "i")
        shares = self._floats(SHARES, columns.shape)
        variables = model.input_set.size + model.count
        _require(bool(np.all((neurons >= 0) & (neurons < model.count))), "cut.neurons out of range")
        _require(bool(np.all(np.diff(ends) >= 0)), "cut.ends must not fall")
        _require(bool(np.all((columns >= 0) & (columns < variables))), "cut.columns out of range")
        _require(bool(np.all((shares >= 0) & (shares <= 1))), "cut.shares must be in [0, 1]")
        members = sp.csr_array((shares.astype(np.float64), columns, ends), shape=(count, variables))
        return neurons, members

    def _check_target(self, model: ErrorModel, row: FloatArray, target: int, claim: float) -> int:
        """The leaves of one target cover everything, and each one reaches the claim."""
        name = f"target{target}"
        if f"{name}.axis" in self.content:
            return self._check_boxes(model, row, target, claim)
        leaves, count = int(self.content[f"{name}.empty"].size), model.count
        phases = self._floats(f"{name}.phases", (leaves, count), "i")
        multipliers = self._floats(f"{name}.multipliers", (leaves, count))
        empty = self._floats(f"{name}.empty", (leaves,), "b")
        ends = np.concatenate([[0], self._floats(f"{name}.ends", (leaves,), "i")])
        cuts, weights = (
            self._floats(f"{name}.{part}", (int(ends[-1]),), k) for part, k in (("cuts", "i"), ("weights", "f"))
        )
        _require(bool(np.all(np.diff(ends) >= 0)), f"{name}.ends must not fall")
        _require(bool(np.all((cuts >= 0) & (cuts < self.cut_neurons.size))), f"{name}.cuts out of range")
        _require(bool(np.all(np.isin(phases, (-1, 0, 1)))), f"{name}.phases must be −1, 0 or 1")
        _require(not empty.all(), f"every leaf of target {target} is said to be empty, but the ball is not")
        whole = covered(np.zeros(leaves, dtype=np.int64), phases, 1)
        _require(bool(whole[0]), f"the leaves of target {target} do not cover every case")
        for start in range(0, leaves, LEAVES_AT_ONCE):
            part = slice(start, min(start + LEAVES_AT_ONCE, leaves))
            spread = ends[part.start : part.stop + 1]
            used, place = np.unique(cuts[spread[0] : spread[-1]], return_inverse=True)
            own = sp.csr_array(
                (weights[spread[0] : spread[-1]], place, spread - spread[0]), shape=(spread.size - 1, max(1, used.size))
            )
            derived: Cuts | None = None
            if used.size:
                derived = derive_cuts(model, self.cut_neurons[used], self.cut_members[used])
            rows = np.where(empty[part, None], 0.0, row)
            proven = certified_bounds(model, rows, multipliers[part], phases[part], derived, own)
            wrong = np.flatnonzero(~np.where(empty[part], proven > 0, proven >= claim))
            _require(not wrong.size, f"target {target}: leaf {start + wrong[:1]} does not reach the claim {claim}")
        return leaves

    def _check_boxes(self, model: ErrorModel, row: FloatArray, target: int, claim: float) -> int:
        """The leaves of a tree over the box: each one reaches the claim by its box alone."""
        tree, seen = BoxTree(self.content[f"target{target}.axis"], self.content[f"target{target}.cut"]), 0
        for lower, upper in tree.boxes(self.ball.lower, self.ball.upper):
            proven = box_leaf_bounds(model, row, lower, upper)
            wrong = np.flatnonzero(~(proven >= claim))
            _require(not wrong.size, f"target {target}: box {seen + wrong[:1]} does not reach the claim {claim}")
            seen += len(lower)
        return seen
