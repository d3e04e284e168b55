"""Refined layer bounds: l and u of many neurons at once, by one small tree of ReLU splits for every neuron and side.

The rows are −e_i and e_i on the network cut at the neurons' layer. A tree ends when its side of 0 is certified, when
that of its neuron's other side is, or after so many nodes; what it has proven by then is its bound. All trees of
a layer share every batch (phase_trees.py), so that a few thousand nodes cost little more than one neuron's tree.

Source: the batches are those of Xu et al. 2021, "Fast and complete"; what is solved by them here, a MILP per neuron in
Tjeng et al. 2019 and in α,β-CROWN. Checked: every leaf, in float64. Trusted: l,u of the layers before.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from toolkit.arrays import BoolArray, FloatArray, IndexArray
from toolkit.certificates.leaves import Forest
from toolkit.networks.weights import dense_array, read_only
from toolkit.problems.bounds import meet
from toolkit.problems.phases import is_unstable
from toolkit.problems.problem import Problem
from toolkit.problems.properties import Objective, selection_rows
from toolkit.problems.reduced_matrices import alive_matrices
from toolkit.problems.region import Region, Sides, bounds_by_layer
from toolkit.search.array_makers import ArrayMaker
from toolkit.search.forecast import Stalled
from toolkit.search.phase_trees import PhaseTrees

SIDE_NODES = 64  # per neuron and side
ROW_ENTRIES = 1 << 24  # numbers in the rows of one queue


@dataclass(frozen=True, eq=False)
class Refined:
    """What trees proved of a layer's neurons. lower, upper: certified, (k,), in the order asked; leaves: the trees of
    rows −e_i, then those of e_i, where they were kept."""

    lower: FloatArray
    upper: FloatArray
    leaves: Forest | None


def refine(
    problem: Problem,
    neurons: IndexArray,
    nodes: int = SIDE_NODES,
    deadline: float = np.inf,
    keep: bool = False,
    make: ArrayMaker | None = None,
) -> Refined:
    """l and u of the named outputs of the problem's network.

    nodes: per neuron and side; fewer of one that gains little by them, from settings.hopeless on (forecast.py).
    deadline: of time.perf_counter(); what is proven by then holds. make: as of a DualFunction.
    """
    count = neurons.size
    if not count:
        return Refined(np.zeros(0), np.zeros(0), None)
    groups = np.array_split(np.arange(count), -(-count // _at_once(problem)))
    lower, upper = np.empty(count), np.empty(count)
    leaves: list[Forest] = []
    for place, own in enumerate(groups):
        now = time.perf_counter()
        until = now + (deadline - now) / (len(groups) - place)
        low, high, kept = _refine_together(problem, neurons[own], nodes, until, keep, make)
        lower[own], upper[own] = low, high
        if kept is not None:  # its trees are −e_i of the group, then e_i
            tree = np.where(kept.tree < own.size, own[0] + kept.tree, count + own[0] + kept.tree - own.size)
            leaves.append(Forest(tree, kept.phases, kept.multipliers, kept.empty))
    return Refined(lower, upper, Forest.joined(leaves) if leaves else None)


def _at_once(problem: Problem) -> int:
    """How many neurons share a queue, so that their rows over the layer before fit into memory."""
    widest = max(problem.network.output_size, problem.input_set.size, alive_matrices(problem).widest)
    return max(1, ROW_ENTRIES // (2 * widest))


def _refine_together(
    problem: Problem, neurons: IndexArray, nodes: int, deadline: float, keep: bool, make: ArrayMaker | None
) -> tuple[FloatArray, FloatArray, Forest | None]:
    size, count = problem.network.output_size, neurons.size
    rows = read_only(np.concatenate([dense_array(selection_rows(size, neurons, sign)) for sign in (-1, 1)]))
    trees = PhaseTrees(problem.with_rows(rows), np.zeros(2 * count), np.full(2 * count, nodes), deadline, keep, make)
    partner, stalled = np.roll(np.arange(2 * count), count), Stalled(2 * count, problem.settings.hopeless)

    def ended(trees: PhaseTrees) -> BoolArray:
        return trees.won[partner] | stalled(trees)

    grown = trees.grow(ended)
    return grown.lower[count:], -grown.lower[:count], grown.leaves


def refined_region(problem: Problem, nodes: int, deadline: float = np.inf) -> Region:
    """The problem's region with l,u refined layer after layer, each layer's trees on those before, for a search of its
    own; the region itself where no neuron can be refined.

    Claim: the l,u hold where the region's do. nodes, deadline: as of `refine`; layers that the clock leaves keep what
    they have.
    """
    region, bounds = problem.region, problem.relu_bounds
    given = list(zip(bounds.lower, bounds.upper, strict=True))

    def bound_layer(cut: Region, k: int) -> Sides:
        low, high = given[k]
        neurons = np.flatnonzero(is_unstable(low, high))
        if not neurons.size or time.perf_counter() > deadline:
            return low, high
        rows = Objective(np.zeros((0, cut.network.output_size)))
        found = refine(Problem(cut, rows, problem.settings), neurons, nodes, deadline)
        low, high = low.copy(), high.copy()
        own = meet(low[neurons], high[neurons], found.lower, found.upper, bounds.certified)
        low[neurons], high[neurons] = own
        return low, high

    own, shorter = bounds_by_layer(
        region.network, region.input_set, given[:1], bounds.chain, bounds.certified, bound_layer
    )
    unchanged = zip((*own.lower, *own.upper), (*bounds.lower, *bounds.upper), strict=True)
    return region if all(one is other for one, other in unchanged) else region.with_bounds(own, shorter)


def neuron_ranges(problem: Problem, neurons: IndexArray) -> tuple[FloatArray, FloatArray]:
    """`refine` in the time that the problem's settings give its two rows per neuron."""
    settings = problem.settings
    limit = settings.time_limit
    deadline = np.inf if limit is None else time.perf_counter() + 2 * limit * neurons.size
    found = refine(problem, neurons, SIDE_NODES if settings.nodes is None else settings.nodes, deadline)
    return found.lower, found.upper
