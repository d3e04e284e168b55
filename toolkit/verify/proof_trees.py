"""What a proof file holds of a search: trees of single sides of a layer, and per row a tree over phases or boxes.

Searches are functions from a problem to evidence (`Searches`), and nothing they say of bounds is used: evidence is
rounded as the file holds it (λ of trees to float32; λ is any number) and certified here, as `check.py` will.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toolkit.arrays import AnyArray, BoolArray, FloatArray, IndexArray
from toolkit.certificates.coverage import BoxTree, covered
from toolkit.certificates.leaves import CutStore, Evidence, Forest, Leaves, SideTrees, forest_bounds
from toolkit.certificates.rounding import ErrorModel, error_model_of
from toolkit.networks.weights import dense_array
from toolkit.problems.problem import Problem
from toolkit.relaxations.layout import TemplateError
from toolkit.rungs.bab import SHARE, UNTIMED_NODES, search_row
from toolkit.search.boxes import search_boxes, splits_inputs
from toolkit.search.branching import PseudoCosts
from toolkit.search.clock import Clock
from toolkit.search.cutting_planes import CuttingPlanes
from toolkit.search.refinement import refine
from toolkit.search.sign_search import search_signs
from toolkit.verify.layer_bounds import output_scales
from toolkit.verify.settled_boxes import settled

Refine = Callable[[Problem, IndexArray], SideTrees]  # trees that bound these outputs of the problem's network
Grow = Callable[[Problem], Forest]  # one tree over phases per row
Halve = Callable[[Problem], Sequence[BoxTree | None]]  # one tree over the input box per row, or none
BOX_NODES = 100_000  # of a row's tree over the box, where there is no clock
LOOSENING = 1e-10  # of a number's size, by which it is loosened, lest another machine's rounding refute it


@dataclass(frozen=True)
class Proven:
    """What was proven of one row: its certified lower bound, how many leaves it took, and the arrays that say so."""

    certified: float
    leaves: int
    content: dict[str, Any]


def sides_by_trees(problem: Problem, neurons: IndexArray) -> SideTrees:
    """Small trees over phases for both sides of every neuron (search/refinement.py); none where inputs are few enough
    to be halved instead."""
    found, limit = Forest.none(error_model_of(problem).count), problem.settings.time_limit
    if splits_inputs(problem):
        return SideTrees.none(found.phases.shape[1])
    deadline = np.inf if limit is None else time.perf_counter() + limit
    leaves = refine(problem, neurons, deadline=deadline, keep=True).leaves
    signs = np.repeat(np.array([-1, 1], dtype=np.int8), neurons.size)
    return SideTrees(np.tile(neurons, 2), signs, found if leaves is None else leaves)


def rows_by_trees(problem: Problem) -> Forest:
    """Trees over phases for all rows in one queue (search/sign_search.py), as `bab` would give them time."""
    count, limit = problem.rows.shape[0], problem.settings.time_limit
    deadline = np.inf if limit is None else time.perf_counter() + SHARE * limit * count
    aimed = problem.with_settings(replace(problem.settings, stop_at=float(enough(problem).max())))
    leaves = search_signs(aimed, deadline, UNTIMED_NODES if limit is None else None, keep=True).leaves
    return Forest.none(error_model_of(problem).count) if leaves is None else leaves


def rows_by_boxes(problem: Problem) -> list[BoxTree | None]:
    """Trees over the input box for the rows that they prove, where inputs are few (search/boxes.py)."""
    count, limit, goal = problem.rows.shape[0], problem.settings.time_limit, enough(problem)
    if not splits_inputs(problem):
        return [None] * count
    seconds = None if limit is None else SHARE * limit * count
    aimed = problem.with_settings(replace(problem.settings, stop_at=float(goal.max()), time_limit=seconds))
    found = search_boxes(aimed, Clock(aimed.settings), BOX_NODES if limit is None else None, keep=True)
    return [tree if low >= mark else None for tree, low, mark in zip(found.trees, found.lower, goal, strict=True)]


@dataclass(frozen=True)
class Searches:
    """Which searches a proof may be made of; None: without. Rows that `halve` and `grow` leave open go to `bab`."""

    refine: Refine | None = None
    grow: Grow | None = None
    halve: Halve | None = None


SEARCHES = Searches(sides_by_trees, rows_by_trees, rows_by_boxes)


def tightened(
    problem: Problem, low: FloatArray, high: FloatArray, neurons: IndexArray, refine: Refine
) -> tuple[FloatArray, FloatArray, SideTrees]:
    """l and u of the outputs of the problem's network, tightened by trees, and those trees that did it, as stored."""
    model, trees = error_model_of(problem), refine(problem, neurons)
    trees = replace(trees, forest=_rounded(trees.forest))
    lower, upper, proven = trees.ranges(model, low, high)
    below, own = trees.signs == 1, trees.neurons
    best = np.where(below, proven == lower[own], -proven == upper[own])
    better = np.where(below, proven > low[own], -proven < high[own])
    return lower, upper, _chosen(trees, best & better)


def packed_sides(trees: SideTrees) -> dict[str, Any]:
    """Trees of single sides as arrays, the leaves one tree after the other."""
    forest, count = _sorted(trees.forest), trees.neurons.size
    return {
        "neurons": trees.neurons.astype(np.int64),
        "signs": trees.signs.astype(np.int8),
        "ends": np.cumsum(np.bincount(forest.tree, minlength=count), dtype=np.int64),
        "phases": forest.phases,
        "multipliers": forest.multipliers.astype(np.float32),
        "empty": forest.empty,
    }


def enough(problem: Problem) -> FloatArray:
    """What every row's bound must reach so that it is above settings.stop_at (None: 0) however it is loosened, (T,)."""
    goal = problem.settings.stop_at or 0.0
    return np.asarray(np.nextafter(goal + 2.0 * loosened(goal, row_scales(problem)), np.inf), dtype=np.float64)


def row_scales(problem: Problem) -> FloatArray:
    """How large the terms are that every row's value is a sum of, (T,); infinite or NaN where they overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.abs(dense_array(problem.rows)) @ output_scales(problem), dtype=np.float64)


def loosened(value: Any, scale: Any) -> Any:
    """By how much a stored number is loosened: relative to it or 1, or to the terms it sums up if they are small."""
    with np.errstate(invalid="ignore"):
        return LOOSENING * np.fmin(1.0 + np.abs(value), scale)


def margin_trees(problem: Problem, searches: Searches) -> tuple[CutStore, list[Proven]]:
    """The best evidence per row: the dual rung's multipliers alone where these are enough, then tree by tree.

    What is enough says `enough`. The store holds the cuts that leaves name.
    """
    model, store, goal = error_model_of(problem), CutStore(), enough(problem)
    found = [_root(model, problem.rows[[row]], store) for row in range(problem.rows.shape[0])]

    def open_rows() -> IndexArray:
        return np.array([row for row, one in enumerate(found) if not one.certified >= goal[row]], dtype=np.int64)

    def keep(rows: IndexArray, evidence: Sequence[Proven | None]) -> None:
        for row, one in zip(rows.tolist(), evidence, strict=True):
            if one is not None and one.certified > found[row].certified:
                found[row] = one

    rows = open_rows()
    if searches.halve is not None and rows.size:
        keep(rows, _by_boxes(_with_rows(problem, rows), searches.halve))
    rows = open_rows()
    if model.count and searches.grow is not None and rows.size:
        keep(rows, _by_phases(_with_rows(problem, rows), searches.grow, store))
    rows = open_rows()
    if model.count and rows.size:
        keep(rows, _by_search(problem, rows, store))
    return store, found


def _with_rows(problem: Problem, rows: IndexArray) -> Problem:
    return problem.with_rows(problem.rows[rows], tuple(problem.targets[row] for row in rows.tolist()))


def _root(model: ErrorModel, row: Any, store: CutStore) -> Proven:
    """One leaf, the whole region, with the dual rung's own multipliers."""
    whole = Leaves(model, row, store, keep=True)
    whole.add(np.full(model.count, -1, dtype=np.int8), None)
    return _of_leaves(whole)


def _by_boxes(problem: Problem, halve: Halve) -> list[Proven | None]:
    """Trees over the input box, split on where the checker's bound is too weak for a leaf."""
    found: list[Proven | None] = []
    model, ends = error_model_of(problem), (problem.input_set.lower, problem.input_set.upper)
    rows = zip(dense_array(problem.rows), enough(problem).tolist(), halve(problem), strict=True)
    for row, goal, tree in rows:
        if tree is None:
            found.append(None)
            continue
        own = settled(model, row, tree, ends, goal)
        content = {"axis": own.tree.axis.astype(np.int64), "cut": own.tree.cut.astype(np.float64)}
        found.append(Proven(own.certified, own.tree.count, content))
    return found


def _by_phases(problem: Problem, grow: Grow, store: CutStore) -> list[Proven | None]:
    """Trees over phases; None for one whose leaves do not cover every case."""
    model, forest, count = error_model_of(problem), _sorted(_rounded(grow(problem))), problem.rows.shape[0]
    bounds = forest_bounds(model, problem.rows, forest)
    whole = covered(forest.tree, forest.phases, count)
    ends = np.cumsum(np.concatenate([[0], np.bincount(forest.tree, minlength=count)]))
    found: list[Proven | None] = []
    for t, bound in enumerate(bounds.tolist()):
        part = slice(int(ends[t]), int(ends[t + 1]))
        if whole[t]:
            content = {name: getattr(forest, name)[part] for name in ("phases", "multipliers", "empty")}
            content |= _named_cuts(forest.take(part), store)
        found.append(Proven(bound, part.stop - part.start, content) if whole[t] else None)
    return found


def _named_cuts(forest: Forest, store: CutStore) -> dict[str, Any]:
    """Which cuts of the store leaves weigh, and how, leaf after leaf; those not in it yet are added."""
    cuts, weights, counts = [np.zeros(0, dtype=np.int64)], [np.zeros(0)], np.zeros(forest.tree.size, dtype=np.int64)
    if forest.weights is not None and forest.family is not None:
        first = {int(at): store.share(forest.cuts[at]) for at in np.unique(forest.family) if at >= 0}
        for leaf in np.flatnonzero(forest.family >= 0).tolist():
            own = np.flatnonzero(forest.weights[leaf] > 0)
            cuts.append(first[int(forest.family[leaf])] + own)
            weights.append(forest.weights[leaf, own])
            counts[leaf] = own.size
    return {"weights": np.concatenate(weights), "cuts": np.concatenate(cuts), "ends": np.cumsum(counts)}


def _by_search(problem: Problem, rows: IndexArray, store: CutStore) -> list[Proven | None]:
    """The LP-based trees of `bab`, cuts and pseudo-costs carried from row to row; none where there is no template."""
    try:
        planes = CuttingPlanes(problem)
    except TemplateError:  # l or u is infinite
        return [None] * rows.size
    planes.store = store
    costs = PseudoCosts(planes.layout.count)
    found: list[Proven | None] = []
    for row in rows.tolist():
        leaves = Leaves(error_model_of(problem), problem.rows[[row]], store, keep=True)
        search_row(problem, row, planes, costs, leaves)
        found.append(_of_leaves(leaves))
    return found


def _of_leaves(tree: Leaves) -> Proven:
    """The leaves of one tree as arrays; multipliers NaN where the dual rung's own are meant."""
    count, leaves = tree.model.count, len(tree.kept)
    nothing = Evidence(np.full(count, np.nan), np.zeros(0, dtype=np.int64), np.zeros(0))
    evidence = [found or nothing for _, found in tree.kept]
    content = {
        "phases": np.array([own for own, _ in tree.kept], dtype=np.int8).reshape(leaves, count),
        "multipliers": np.array([one.multipliers for one in evidence]).reshape(leaves, count),
        "empty": np.array([one.empty for one in evidence], dtype=np.bool_),
        "weights": np.concatenate([one.weights for one in evidence]),
        "cuts": np.concatenate([one.cuts for one in evidence]),
        "ends": np.cumsum([one.cuts.size for one in evidence], dtype=np.int64),
    }
    return Proven(tree.certified, leaves, content)


def _rounded(forest: Forest) -> Forest:
    """The forest with λ rounded to float32, as it is stored: half the size, and bounds hold at any λ."""
    with np.errstate(over="ignore", under="ignore"):
        weights: AnyArray | None = None if forest.weights is None else forest.weights.astype(np.float32)
        return replace(forest, multipliers=forest.multipliers.astype(np.float32), weights=weights)


def _sorted(forest: Forest) -> Forest:
    """The leaves tree by tree."""
    return forest.take(np.argsort(forest.tree, kind="stable"))


def _chosen(trees: SideTrees, chosen: BoolArray) -> SideTrees:
    """Some of the trees, counted anew."""
    forest, number = trees.forest, np.cumsum(chosen) - 1
    own = chosen[forest.tree]
    parts = forest.phases[own], forest.multipliers[own], forest.empty[own]
    return SideTrees(trees.neurons[chosen], trees.signs[chosen], Forest(number[forest.tree[own]], *parts))
